"""Streams of asynchronous clients, read from threads."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator

from skeleton_of_thought.drive import GRACE
from skeleton_of_thought.types import Reply

__all__ = ["LoopThread", "RemoteStream"]


class LoopThread:
    """An event loop in a thread. Its tasks can be cancelled at any moment, unlike a blocked thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sot-calls", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def stop(self) -> None:
        """Ends the loop and cancels its tasks."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2 * GRACE)


class RemoteStream:
    """A stream that runs on an event loop and is read from a thread."""

    def __init__(self, items: AsyncIterator[str | Reply], thread: LoopThread) -> None:
        self._inbox: queue.SimpleQueue[str | Reply | Exception | None] = queue.SimpleQueue()
        self._future = asyncio.run_coroutine_threadsafe(self._pump(items), thread.loop)
        # Not at the end of `_pump`, which never runs if the task is cancelled before its first step.
        self._future.add_done_callback(lambda _: self._inbox.put(None))

    async def _pump(self, items: AsyncIterator[str | Reply]) -> None:
        try:
            async for item in items:
                self._inbox.put(item)
        except Exception as error:
            self._inbox.put(error)

    def __iter__(self) -> Iterator[str | Reply]:
        while (item := self._inbox.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        """Ends the call at once and closes its connection."""
        self._future.cancel()

    close = cancel
