"""Ctrl-C and other signals while a model loads: the process ends at once.

An exception, such as `KeyboardInterrupt`, would be raised in the middle of an import of torch, numpy or transformers.
These misread it: numpy reports a broken installation, and a model that is being converted counts as damaged. So none is
raised. Nothing is lost by leaving without unwinding, because files that are written while a model loads move into place
when complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

__all__ = ["INTERRUPTED", "exit_at_once"]

INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_SHOW_CURSOR = "\r\x1b[K\x1b[?25h"
_leaving = threading.Lock()


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
    """Makes Ctrl-C end the process with code 130 during a block, and SIGTERM and SIGHUP with 128 and their number.

    Does nothing outside the main thread. A process that ignores one of the signals, as shells start background
    processes, keeps ignoring it.
    """
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number in _SIGNALS if main and signal.getsignal(number) not in (signal.SIG_IGN, None)]
    if not taken:
        yield
        return
    with _wakeup_thread(taken):
        before = {number: signal.signal(number, lambda number, _: _leave(number)) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _wakeup_thread(taken: Sequence[int]) -> Iterator[None]:
    """Runs a thread that reacts to the signals too.

    Python calls signal handlers between two bytecodes of the main thread, and in native code the next one may be
    seconds away. The wakeup byte of a signal is written at once, so a thread that reads it can react earlier, provided
    that the native code releases the interpreter lock.
    """
    reader, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def listen() -> None:
        with reader:
            while data := reader.recv(64):
                for number in set(taken) & set(data):
                    _leave(number)

    thread = threading.Thread(target=listen, name="sot-interrupts", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        wakeup.close()
        thread.join()


def _leave(number: int) -> NoReturn:
    code = 128 + number
    if not _leaving.acquire(blocking=False):
        time.sleep(0.2)  # the handler and the thread both come here; the first one reports and exits meanwhile
        os._exit(code)
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR.encode())  # the spinner hides the cursor
        if code == INTERRUPTED:
            os.write(2, b"sot: interrupted\n")
    os._exit(code)
