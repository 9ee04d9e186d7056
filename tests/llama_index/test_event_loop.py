"""Which async methods block the event loop, judged by their code; threads beside the loop."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.retrievers import VectorIndexRetriever

from llama_index_sot.event_loop import call_in_thread, is_truly_async, stream_in_thread
from tests.shared.scripted_calls import PATIENCE, Watch


class Methods:
    async def awaits(self):
        return await asyncio.sleep(0)

    async def iterates(self, stream):
        return [item async for item in stream]

    async def enters(self, lock):
        async with lock:
            return 1

    async def returns_a_stream(self, stream):
        async def items():
            async for item in stream:
                yield item

        return items()

    @llm_chat_callback()
    async def decorated(self, messages):
        return await asyncio.sleep(0)

    async def works(self):
        return sum(range(10))

    async def returns_a_blocking_stream(self, stream):
        async def items():
            for item in stream:
                yield item

        return items()

    @llm_chat_callback()
    async def decorated_work(self, messages):
        return sum(range(10))


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("awaits", True),
        ("iterates", True),
        ("enters", True),
        ("returns_a_stream", True),
        ("decorated", True),
        ("works", False),
        ("returns_a_blocking_stream", False),
        ("decorated_work", False),
    ],
)
def test_methods_that_await_are_truly_async(method, wanted):
    assert is_truly_async(Methods(), method) == wanted


@pytest.mark.parametrize("method", ["acomplete", "achat", "astream_complete", "astream_chat"])
def test_custom_llms_block_by_default(method):
    assert not is_truly_async(MockLLM(), method)
    assert not is_truly_async(CustomLLM, method)


def test_a_vector_index_retriever_is_truly_async():
    assert is_truly_async(VectorIndexRetriever, "_aretrieve")


def test_methods_that_are_not_written_in_python_count_as_async():
    assert is_truly_async(object(), "__repr__")
    assert is_truly_async(object(), "missing")


# --- threads ---


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("way", ["stream", "call"])
def test_an_interrupt_within_the_start_of_a_thread_leaves_no_stream_open(monkeypatch, begins, way):
    watch, start = Watch(), threading.Thread.start

    def interrupted(thread):
        if begins and thread.name == "sot-llm":
            start(thread)
        if thread.name == "sot-llm":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)

    def texts():
        with watch.call(way):
            while True:
                time.sleep(0.0005)
                yield "word "

    async def read():
        if way == "call":
            return await call_in_thread(lambda: "text", "sot-llm")
        return [text async for text in stream_in_thread(texts, "sot-llm")]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(read())
    until = time.monotonic() + PATIENCE
    while watch.open or any(thread.name == "sot-llm" and thread.is_alive() for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.001)


async def test_a_thread_that_cannot_start_is_the_error_of_its_call(monkeypatch):
    start = threading.Thread.start

    def refused(thread):
        if thread.name == "sot-llm":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await call_in_thread(lambda: "text", "sot-llm")


# --- a stream that is closed, and cancelled at the same time ---


def words_until(watch, gate):
    """A stream that waits for the gate after its first piece; `watch` counts it while it is open."""
    with watch.call("words"):
        yield "word "
        gate.wait()
        yield "word "


async def closing(words):
    """A task that has read one piece of the stream, and now waits for its close."""
    stream = stream_in_thread(words, "sot-llm")
    assert await anext(stream) == "word "
    task = asyncio.create_task(stream.aclose())
    await asyncio.sleep(0)
    return task


async def test_a_cancellation_of_the_close_still_waits_for_the_stream():
    watch, opened = Watch(), threading.Event()
    task = await closing(lambda: words_until(watch, opened))
    task.cancel()
    await asyncio.sleep(0.01)
    assert (task.done(), watch.open) == (False, 1)
    opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watch.open == 0


@pytest.mark.parametrize("by", ["time", "a second cancellation"])
async def test_a_cancelled_close_does_not_wait_forever_for_a_stream_that_is_stuck(monkeypatch, by):
    monkeypatch.setattr("llama_index_sot.event_loop.GRACE", 0.01 if by == "time" else math.inf)
    watch, opened = Watch(), threading.Event()
    task = await closing(lambda: words_until(watch, opened))
    task.cancel()
    if by != "time":
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watch.open == 1
    opened.set()
    while watch.open:
        await asyncio.sleep(0.001)
