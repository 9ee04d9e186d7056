"""Batches of the chat model, whose answers run side by side and share one budget of calls.

LangChain's own batches leave answers running: a sync one after Ctrl-C, since its executor does not know a thread whose
start was interrupted, and waits for the others until their answers are whole (python/cpython#111358); an async one
after the first error, or when its iterator is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from langchain_sot.batches import CollectedAnswers
from langchain_sot.chat_model.delegation import DelegatingChatModel
from skeleton_of_thought.drive import GRACE, join_threads, start_threads

if TYPE_CHECKING:
    from skeleton_of_thought.budget import Budget

__all__ = ["BatchingChatModel"]


class BatchingChatModel(CollectedAnswers[AIMessage], DelegatingChatModel):
    """A chat model of whose batches nothing is left running: the first error and Ctrl-C end all answers."""

    @abstractmethod
    def _for_batch(self, inputs: Sequence[Any], config: Any) -> tuple[Self, list[RunnableConfig]]:
        """A copy for the answers of a batch, and a config for each; its `max_concurrency` bounds the answers at once.

        LangChain's batches bound the answers only. The copy bounds the calls within them, too.
        """

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Like `batch`, but yields each answer with its position as soon as it is complete."""
        model, configs = self._for_batch(inputs, config)

        def answer(i: int) -> Any:
            try:
                return model.invoke(inputs[i], configs[i], **kwargs)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        if model._call is None or model._call.budget is None:  # at most one answer
            yield from ((i, answer(i)) for i in range(len(inputs)))
            return
        with contextlib.closing(_in_threads(answer, len(inputs), _at_once(configs), model._call.budget)) as completed:
            yield from completed

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        model, configs = self._for_batch(inputs, config)
        slots = asyncio.Semaphore(_at_once(configs))

        async def answer(i: int) -> tuple[int, Any]:
            async with slots:
                try:
                    return i, await model.ainvoke(inputs[i], configs[i], **kwargs)
                except Exception as error:
                    if not return_exceptions:
                        raise
                    return i, error

        tasks = [asyncio.create_task(answer(i)) for i in range(len(inputs))]
        try:
            for completed in asyncio.as_completed(tasks):
                yield await completed
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _at_once(configs: Sequence[RunnableConfig]) -> int:
    return configs[0].get("max_concurrency") or 1 if configs else 1


def _in_threads(answer: Callable[[int], Any], count: int, at_once: int, budget: Budget) -> Generator[tuple[int, Any]]:
    """Yields each answer with its position as soon as it is complete; raises the first error.

    Args:
        answer: Makes the answer at a position.
        count: How many answers there are.
        at_once: How many are made at a time.
        budget: The budget of their calls; it ends when this generator does, and with it the answers.
    """
    # A context may be entered by one thread at a time.
    waiting: queue.SimpleQueue[tuple[int, contextvars.Context]] = queue.SimpleQueue()
    for i in range(count):
        waiting.put((i, contextvars.copy_context()))
    completed: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not budget.ended:
                i, context = waiting.get_nowait()
                try:
                    completed.put((i, context.run(answer, i), None))
                except BaseException as error:  # raised in the caller's thread
                    completed.put((i, None, error))
                    return

    threads = [threading.Thread(target=work, name=f"sot-answers-{i}", daemon=True) for i in range(min(count, at_once))]
    try:
        try:
            start_threads(threads)
            for _ in range(count):
                i, output, error = completed.get()
                if error is not None:
                    raise error
                yield i, output
        finally:
            _end(threads, budget)
    finally:
        # An interrupt may have broken off the first attempt.
        _end(threads, budget)


def _end(threads: list[threading.Thread], budget: Budget) -> None:
    budget.end()
    # Each answer gives up its own calls after the grace.
    join_threads(threads, 2 * GRACE)
    threads.clear()
