"""Ctrl-C while a model loads: the process ends at once.

A `KeyboardInterrupt` would be raised in the middle of an import of torch, numpy or transformers. These misread it:
numpy reports a broken installation, and a model that is being converted counts as damaged. So none is raised. Nothing
is lost by leaving without unwinding, because files that are written while a model loads move into place when complete.
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
    """Makes Ctrl-C end the process with code 130 during a block. Does nothing outside the main thread.

    A process that ignores SIGINT, as shells start background processes, keeps ignoring it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return
    with _wakeup_thread():
        before = signal.signal(signal.SIGINT, lambda *_: _leave())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _wakeup_thread() -> Iterator[None]:
    """Runs a thread that reacts to the signal too.

    Python calls signal handlers between two bytecodes of the main thread, and in native code the next one may be
    seconds away. The wakeup byte of a signal is written at once, so a thread that reads it can react earlier, provided
    that the native code releases the interpreter lock.
    """
    reader, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def listen() -> None:
        with reader:
            while data := reader.recv(64):
                if signal.SIGINT in data:
                    _leave()

    thread = threading.Thread(target=listen, name="sot-interrupts", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        wakeup.close()
        thread.join()


def _leave() -> NoReturn:
    if not _leaving.acquire(blocking=False):
        time.sleep(0.2)  # the handler and the thread both come here; the first one reports and exits meanwhile
        os._exit(INTERRUPTED)
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR.encode())  # the spinner hides the cursor
        os.write(2, b"sot: interrupted\n")
    os._exit(INTERRUPTED)
