"""Ctrl-C and other signals: the main thread wakes for them, and while a model loads, the process ends at once.

While a model loads, an exception such as `KeyboardInterrupt` would be raised in the middle of an import of torch, numpy
or transformers. These misread it: numpy reports a broken installation, and a model that is being converted counts as
damaged. So none is raised. Nothing is lost by leaving without unwinding, because files that are written while a model
loads move into place when complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator

__all__ = ["INTERRUPTED", "before_leaving", "exit_at_once", "last_words", "main_thread_woken"]

INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_SHOW_CURSOR = "\r\x1b[K\x1b[?25h"
_leaving = threading.RLock()
_begun: list[int] = []
_PATIENCE = 5.0
"""Seconds that the process has for its last words, on a busy machine or on a terminal that takes no text."""
_words = ["sot: interrupted"]
_calls: list[Callable[[], object]] = []


@contextlib.contextmanager
def last_words(line: str) -> Iterator[None]:
    """Makes `line` what Ctrl-C says if it ends the process at once during a block, as while a model loads."""
    _words.append(line)
    try:
        yield
    finally:
        _words.pop()


@contextlib.contextmanager
def before_leaving(call: Callable[[], object]) -> Iterator[None]:
    """Makes a signal that ends the process at once during a block call `call` first, which is short, in any thread."""
    _calls.append(call)
    try:
        yield
    finally:
        _calls.remove(call)


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
    """Makes Ctrl-C end the process with code 130 during a block, and SIGTERM and SIGHUP with 128 and their number.

    Does nothing outside the main thread. A process that ignores one of the signals, as shells start background
    processes, keeps ignoring it.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
    if not before:
        yield
        return
    with _wakeup_thread(before, _leave):
        for number in before:
            signal.signal(number, lambda number, _: _leave(number))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def main_thread_woken() -> Iterator[None]:
    """Makes sure that the main thread, in which it must run, handles each signal soon.

    A signal that comes just before the main thread begins to wait for a queue or a lock does not end the wait, and so
    its handler would never run. Neither does a signal that the system gives to another thread. So a thread sends the
    main one another signal, which does nothing but end the wait.
    """
    if not hasattr(signal, "pthread_kill") or signal.getsignal(signal.SIGURG) != signal.SIG_DFL:
        yield
        return
    main, done = threading.get_ident(), threading.Event()

    def wake(_: int) -> None:
        for pause in (0.02, 0.1, 0.5):
            if done.wait(pause):
                return
            signal.pthread_kill(main, signal.SIGURG)

    signal.signal(signal.SIGURG, lambda *_: None)
    try:
        with _wakeup_thread(_SIGNALS, wake):
            try:
                yield
            finally:
                done.set()
    finally:
        signal.signal(signal.SIGURG, signal.SIG_DFL)


@contextlib.contextmanager
def _wakeup_thread(numbers: Collection[int], react: Callable[[int], object]) -> Iterator[None]:
    """Runs a thread that calls `react` with the number of each signal that comes.

    Python calls signal handlers between two bytecodes of the main thread, and in native code the next one may be
    seconds away. The wakeup byte of a signal is written at once, so a thread that reads it can react earlier, provided
    that the native code releases the interpreter lock.
    """
    reader, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def listen() -> None:
        with reader:
            while data := reader.recv(64):
                for number in data:
                    if number in numbers:
                        react(number)

    thread = threading.Thread(target=listen, name="sot-interrupts", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        wakeup.close()
        thread.join()


def _leave(number: int) -> None:
    code = 128 + number
    # The handler and the thread both come here. The one that comes first reports and ends the process.
    if not _leaving.acquire(blocking=False):
        time.sleep(_PATIENCE)
        os._exit(code)
    if _begun:  # a signal within the handler, which goes on
        return
    _begun.append(number)
    for call in _calls:
        call()
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR.encode())  # the spinner hides the cursor
        if code == INTERRUPTED:
            os.write(2, f"{_words[-1]}\n".encode(errors="replace"))
    os._exit(code)
