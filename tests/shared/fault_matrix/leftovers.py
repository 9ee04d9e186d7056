"""What an answer left behind: threads, tasks, sockets of clients, and requests on the server."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field

import psutil

from fault_matrix.server import FaultServer

GRACE = 15.0
"""Seconds within which everything has to end. Sound cells need milliseconds, or the timeout of a client."""


@dataclass
class Before:
    """The state before a cell; `left` compares with it."""

    server: FaultServer
    threads: set[threading.Thread] = field(default_factory=lambda: set(threading.enumerate()))

    def left(self, *, tasks: bool = False) -> list[str]:
        """What is still there now."""
        threads = [thread for thread in set(threading.enumerate()) - self.threads if _counts(thread)]
        left = [f"the thread {thread.name}, {_place(thread)}" for thread in threads]
        if self.server.open:
            left.append(f"{self.server.open} open request(s) on the server")
        if tasks:
            current = asyncio.current_task()
            left += [f"the task {task.get_name()}: {task.get_coro()}" for task in asyncio.all_tasks() - {current}]
        return left or [f"a socket in {state}" for state in sockets(self.server)]

    def settled(self) -> list[str]:
        """What is still there after the grace."""
        until = time.monotonic() + GRACE
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.002)
        return left

    async def asettled(self) -> list[str]:
        """Async twin, which looks at tasks, too."""
        until = time.monotonic() + GRACE
        while (left := self.left(tasks=True)) and time.monotonic() < until:
            await asyncio.sleep(0.002)
        return left


def _counts(thread: threading.Thread) -> bool:
    # The server's threads are counted as its requests, and the loop's executor ends with the loop.
    return "process_request_thread" not in thread.name and not thread.name.startswith("asyncio_")


def _place(thread: threading.Thread) -> str:
    """The lines at which a thread is, innermost call first."""
    if (frame := sys._current_frames().get(thread.ident or 0)) is None:
        return "which has no frame"
    calls = itertools.islice(traceback.walk_stack(frame), 8)
    return " < ".join(f"{call.f_code.co_filename}:{line}" for call, line in calls)


def sockets(server: FaultServer) -> list[str]:
    """The states of this process's sockets that lead to the server."""
    port = server.server_address[1]
    connections = psutil.Process().net_connections(kind="tcp4")
    return [each.status for each in connections if each.raddr and each.raddr[1] == port]
