"""The async twin of `stream`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from skeleton_of_thought.errors import EngineClosed, PromptTooLong
from skeleton_of_thought.local import LocalEngine

STORY = "The small boat crossed the wide river before the evening came."


@pytest.fixture
def unending(gated: LocalEngine) -> LocalEngine:
    gated._eos_ids = frozenset()
    return gated


async def collect(engine: LocalEngine, prompt: str, **settings: Any) -> str:
    return "".join([piece async for piece in engine.astream(prompt, **settings)])


async def test_tasks_share_the_batch_and_get_the_text_of_threads(unending: LocalEngine) -> None:
    prompts = [f"{i} {STORY}" for i in range(5)]
    texts = await asyncio.gather(*(collect(unending, p, max_new_tokens=24) for p in prompts))
    assert unending.stats().steps < 5 * 24 / 2
    assert texts == [c.text for c in unending.generate(prompts, max_new_tokens=24)]


async def test_the_loop_runs_on_while_the_model_works(unending: LocalEngine, gate: Any) -> None:
    gate.open.clear()
    task = asyncio.create_task(collect(unending, STORY, max_new_tokens=3))
    await asyncio.to_thread(gate.entered.wait, 60)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    assert await task


async def test_a_cancelled_task_frees_its_row(unending: LocalEngine, tiny: Any) -> None:
    started = asyncio.Event()

    async def read() -> None:
        async for _ in unending.astream(STORY, max_new_tokens=450):
            started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await asyncio.to_thread(tiny.eventually, lambda: unending.stats().rows == 0)
    assert unending.stats().cancelled == 1


async def test_aclose_frees_the_row_and_keeps_the_text(unending: LocalEngine) -> None:
    async with unending.astream(STORY, max_new_tokens=450) as stream:
        first = await anext(stream)
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text.startswith(first)
    assert [piece async for piece in stream] == []
    await stream.aclose()
    assert unending.stats().rows == 0


async def test_errors_keep_their_type(unending: LocalEngine, gate: Any) -> None:
    stream = unending.astream(STORY, max_new_tokens=450)
    await anext(stream)
    gate.error = KeyError("lost")
    with pytest.raises(KeyError, match="lost"):
        async for _ in stream:
            pass
    gate.error = None
    assert await collect(unending, STORY, max_new_tokens=3)


async def test_the_call_rejects_invalid_input_before_a_stream_is_read(unending: LocalEngine) -> None:
    with pytest.raises(PromptTooLong):
        unending.astream(STORY, max_new_tokens=5000)


async def test_close_reaches_waiting_tasks(unending: LocalEngine) -> None:
    stream = unending.astream(STORY, max_new_tokens=450)
    await anext(stream)
    await asyncio.to_thread(unending.close)
    with pytest.raises(EngineClosed):
        async for _ in stream:
            pass


def test_an_event_loop_that_ends_early_frees_its_row(unending: LocalEngine, tiny: Any) -> None:
    async def start() -> Any:
        return unending.astream(STORY, max_new_tokens=450)

    stream = asyncio.run(start())
    tiny.eventually(lambda: unending.stats().cancelled == 1)
    assert len(unending.generate([STORY], max_new_tokens=3)[0].token_ids) == 3
    del stream


def test_an_event_loop_that_closes_before_a_wake_up_frees_its_row(unending: LocalEngine, tiny: Any) -> None:
    async def start() -> Any:
        return unending.astream(STORY, max_new_tokens=450)

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(start())
    tiny.eventually(lambda: unending.stats().decode_tokens >= 10)
    loop.close()
    tiny.eventually(lambda: unending.stats().rows == 0)
    assert unending.stats().cancelled == 1
    del stream


async def test_a_closed_stream_yields_no_more_text(unending: LocalEngine, tiny: Any) -> None:
    stream = unending.astream(STORY, max_new_tokens=450)
    tiny.eventually(lambda: unending.stats().decode_tokens >= 10)
    await stream.aclose()
    assert [piece async for piece in stream] == []
    assert stream.completion.text
