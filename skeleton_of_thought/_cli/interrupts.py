"""Ctrl-C while a model loads: the process ends at once.

A `KeyboardInterrupt` would be raised in the middle of what torch, numpy or transformers happen to import. They take it
for something else: numpy reports that it is broken, and then the copy of a model that was being read counts as damaged.
So none is raised. Leaving without unwinding loses nothing: what is written while a model loads is written aside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

__all__ = ["INTERRUPTED", "exit_at_once"]

INTERRUPTED = 130
_SHOW_CURSOR = "\r\x1b[K\x1b[?25h"
_leaving = threading.Lock()


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
    """Has Ctrl-C end the process with code 130 for the length of a block. In other threads than the main one: nothing.

    A program that ignores SIGINT, as one in a shell's background does, keeps ignoring it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return
    with _watching():
        before = signal.signal(signal.SIGINT, lambda *_: _leave())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _watching() -> Iterator[None]:
    """A thread that hears of the signal too.

    Python calls its handlers between two steps of the main thread, which may be seconds away inside native code; the
    byte that announces a signal is written right away, and where that code lets other threads run, one can act on it.
    """
    heard, bell = socket.socketpair()
    bell.setblocking(False)

    def listen() -> None:
        with heard:
            while data := heard.recv(64):
                if signal.SIGINT in data:
                    _leave()

    thread = threading.Thread(target=listen, name="sot-interrupts", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        bell.close()
        thread.join()


def _leave() -> NoReturn:
    if not _leaving.acquire(blocking=False):
        time.sleep(0.2)  # the handler or the thread, whichever came first, is about to say it and leave
        os._exit(INTERRUPTED)
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR.encode())  # the spinner hides it
        os.write(2, b"sot: interrupted\n")
    os._exit(INTERRUPTED)
