"""The number of concurrent calls; no call stays open."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.language_models import BaseLLM
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.runnables import RunnableLambda
from pydantic import Field

from skeleton_of_thought.errors import InvalidInput, PointError

SIXTEEN = [f"Topic {letter}" for letter in "abcdefghijklmnop"]


def chain_of(llm, **settings):
    return skeleton_chain(llm=llm, **{"max_points": 16, "max_retries": 0, **settings})


async def test_without_a_limit_all_sixteen_points_are_in_flight(kit, way):
    llm = kit.Chat(script=None)
    all_there = llm.watch.together(16)
    answer = kit.answering(SIXTEEN)
    llm.script = lambda seen: [all_there, *answer(seen)] if seen.stage == "point" else answer(seen)
    assert len((await way(chain_of(llm), "Why?"))["points"]) == 16
    assert llm.watch.peak == 16


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_a_limit_holds_for_all_six_methods(kit, way, limit):
    llm = kit.Chat(script=None)
    enough = llm.watch.together(limit)
    answer = kit.answering(SIXTEEN)
    llm.script = lambda seen: [enough, *answer(seen)] if seen.stage == "point" else answer(seen)
    output = await way(chain_of(llm), "Why?", {"max_concurrency": limit})
    assert len(output["points"]) == 16
    assert llm.watch.peak == limit


@pytest.mark.parametrize("path", ["batch", "abatch", "batch_as_completed", "abatch_as_completed"])
async def test_a_limit_is_one_budget_for_a_whole_batch(kit, path):
    llm = kit.Chat(script=kit.answering(SIXTEEN))
    chain, questions, config = chain_of(llm), ["A?", "B?", "C?", "D?"], {"max_concurrency": 3}
    if path == "batch":
        outputs = await asyncio.to_thread(chain.batch, questions, config)
    elif path == "abatch":
        outputs = await chain.abatch(questions, config)
    elif path == "batch_as_completed":
        outputs = [out for _, out in await asyncio.to_thread(lambda: list(chain.batch_as_completed(questions, config)))]
    else:
        outputs = [out async for _, out in chain.abatch_as_completed(questions, config)]
    assert sorted(out["question"] for out in outputs) == questions
    assert len(llm.watch.seen) == 4 * 17
    assert llm.watch.peak <= 3


def test_batch_without_a_limit_runs_the_points_of_all_questions_together(kit):
    llm = kit.Chat(script=None)
    all_there = llm.watch.together(8)
    answer = kit.answering(["One thing", "Two things"])
    llm.script = lambda seen: [all_there, *answer(seen)] if seen.stage == "point" else answer(seen)
    assert len(chain_of(llm).batch(["A?", "B?", "C?", "D?"])) == 4


# --- a batch without a limit ---


PATHS = ("batch", "abatch", "batch_as_completed", "abatch_as_completed")


async def outputs_of(runnable, questions, path, config=None, **kwargs):
    """The outputs in the order of the questions."""
    if path == "batch":
        return await asyncio.to_thread(runnable.batch, questions, config, **kwargs)
    if path == "abatch":
        return await runnable.abatch(questions, config, **kwargs)
    if path == "batch_as_completed":
        found = await asyncio.to_thread(lambda: list(runnable.batch_as_completed(questions, config, **kwargs)))
    else:
        found = [pair async for pair in runnable.abatch_as_completed(questions, config, **kwargs)]
    return [output for _, output in sorted(found, key=lambda pair: pair[0])]


def meeting(kit, count, titles=SIXTEEN):
    """A model whose calls wait until so many have been open at once, and what counts its threads."""
    llm = kit.Chat(script=None)
    together, answer = llm.watch.together(count), kit.answering(titles)
    llm.watch.threads = 0

    def script(seen):
        running = [t for t in threading.enumerate() if t.name.startswith("sot-")]
        llm.watch.threads = max(llm.watch.threads, len(running))
        return [together, *answer(seen)]

    llm.script = script
    return llm


WHAT = {
    "chain": lambda chain: chain,
    "pick": lambda chain: chain.pick("answer"),
    "sequence": lambda chain: chain | (lambda output: output["answer"]),
    "expansion": lambda chain: chain.expansion(SIXTEEN),
    "with_config": lambda chain: chain.with_config(tags=["mine"]),
}


@pytest.mark.parametrize(
    ("what", "path"),
    # LangChain's sequences yield what is completed by one `invoke` for each question, each with a budget of its own.
    [(what, path) for what in WHAT for path in PATHS if (what, "completed" in path) != ("sequence", True)],
)
async def test_many_questions_open_as_many_calls_as_one_answer_needs(kit, monkeypatch, path, what):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.process_cpu_count", lambda: 4, raising=False)
    llm = meeting(kit, 16)
    outputs = await outputs_of(WHAT[what](chain_of(llm)), [f"{i}?" for i in range(20)], path)
    assert len(outputs) == 20
    assert llm.watch.peak == 16
    assert llm.watch.threads <= 16
    assert len(llm.watch.seen) == 20 * (16 if what == "expansion" else 17)


@pytest.mark.parametrize(
    ("settings", "titles", "processors", "bound", "count"),
    [
        ({"max_points": 3}, 3, 12, 16, 20),  # as many as LangChain opens for a plain model
        ({"max_points": 3}, 3, 100, 32, 40),
        ({"max_points": 16, "eager": True}, 16, 4, 17, 18),
    ],
)
@pytest.mark.parametrize("path", ["batch", "abatch"])
async def test_the_bound_follows_the_settings_and_the_machine(
    kit, monkeypatch, path, settings, titles, processors, bound, count
):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    monkeypatch.setattr("os.process_cpu_count", lambda: processors, raising=False)
    llm = meeting(kit, bound, SIXTEEN[:titles])
    outputs = await outputs_of(chain_of(llm, **settings), [f"{i}?" for i in range(count)], path)
    assert [len(output["points"]) for output in outputs] == [titles] * count
    assert llm.watch.peak == bound


@pytest.mark.parametrize("path", ["batch", "abatch"])
async def test_given_points_are_all_in_flight_however_many_there_are(kit, path):
    titles = [f"Topic {i}" for i in range(50)]
    llm = meeting(kit, 50, titles)
    outputs = await outputs_of(chain_of(llm).expansion(titles), ["A?", "B?", "C?"], path)
    assert [len(output) for output in outputs] == [50] * 3
    assert llm.watch.peak == 50


@pytest.mark.parametrize("path", PATHS)
async def test_a_limit_of_the_callers_lifts_the_bound(kit, path):
    llm = kit.Chat(script=None)
    together, answer = llm.watch.together(40), kit.answering(SIXTEEN)
    llm.script = lambda seen: [together, *answer(seen)] if seen.point else answer(seen)
    await outputs_of(chain_of(llm), [f"{i}?" for i in range(4)], path, {"max_concurrency": 40})
    assert llm.watch.peak == 40


@pytest.mark.parametrize("path", ["batch", "abatch"])
async def test_a_string_llm_gets_all_prompts_of_a_batch_in_one_generate(kit, path):
    llm = StringLLM(kit=kit, script=kit.answering(SIXTEEN[:4]), lists=[])
    outputs = await outputs_of(chain_of(llm), [f"{i}?" for i in range(40)], path)
    assert [len(output["points"]) for output in outputs] == [4] * 40
    assert llm.lists == [40, 160]


@pytest.mark.parametrize("path", ["batch", "abatch"])
async def test_only_the_calls_of_the_chat_model_are_bounded_beside_a_string_llm(kit, monkeypatch, path):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.process_cpu_count", lambda: 4, raising=False)
    writer = meeting(kit, 16, SIXTEEN)
    planner = StringLLM(kit=kit, script=kit.answering(SIXTEEN), lists=[])
    outputs = await outputs_of(chain_of(planner, point_llm=writer), [f"{i}?" for i in range(20)], path)
    assert [len(output["points"]) for output in outputs] == [16] * 20
    assert planner.lists == [20]
    assert writer.watch.peak == 16


@pytest.mark.parametrize("path", ["batch", "abatch"])
async def test_a_refused_generate_is_made_again_as_a_whole(kit, path):
    llm = StringLLM(kit=kit, script=kit.answering(SIXTEEN[:4]), lists=[], errors=[RateLimitError("slow down")] * 2)
    chain = chain_of(llm, backoff=0)
    outputs = await outputs_of(chain, ["A?", "B?", "C?", "D?"], path)
    assert [len(output["points"]) for output in outputs] == [4] * 4
    # Refused as a list of four prompts, and again as one of two; never one at a time in a burst.
    assert llm.lists[:3] == [4, 2, 1]
    assert sum(llm.lists) == 4 + 2 + 4 + 16
    assert not llm.errors


class RateLimitError(Exception):
    """A rate limit, as clients of servers name it."""


class StringLLM(BaseLLM):
    """A string LLM that counts the prompts of each `generate`; the first ones raise `errors`."""

    kit: Any
    script: Any
    lists: list[int]
    errors: list[Exception] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        self.lists.append(len(prompts))
        if self.errors:
            raise self.errors.pop()
        texts = ["".join(self.script(self.kit.seen_as([HumanMessage(prompt)], {}))) for prompt in prompts]
        return LLMResult(generations=[[Generation(text=text)] for text in texts])


# --- threads and rate limits ---


@pytest.mark.parametrize("path", ["batch", "batch_as_completed"])
@pytest.mark.parametrize("limit", [None, 64])
async def test_too_few_threads_lose_no_answer(kit, monkeypatch, path, limit):
    start, refused = threading.Thread.start, []

    def limited(thread):
        running = [t for t in threading.enumerate() if t.name.startswith("sot-")]
        if thread.name.startswith("sot-") and len(running) >= 3:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    llm = kit.Chat(script=None)
    some, answer = kit.Gate(lambda: bool(refused)), kit.answering(SIXTEEN)
    llm.script = lambda seen: [some, *answer(seen)]
    config = {"max_concurrency": limit} if limit else None
    outputs = await outputs_of(chain_of(llm), [f"{i}?" for i in range(10)], path, config)
    assert [len(output["points"]) for output in outputs] == [16] * 10
    assert refused
    assert llm.watch.peak <= 3


@pytest.mark.parametrize("path", ["batch", "batch_as_completed"])
async def test_a_machine_without_threads_gives_each_answer_its_error(kit, monkeypatch, path):
    start = threading.Thread.start

    def limited(thread):
        if thread.name.startswith("sot-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    llm, runs = kit.Chat(script=kit.answering(SIXTEEN)), kit.Runs()
    chain = chain_of(llm)
    outputs = await outputs_of(chain, ["A?", "B?"], path, {"callbacks": [runs]}, return_exceptions=True)
    assert [type(output) for output in outputs] == [RuntimeError] * 2
    assert "could not start a thread" in str(outputs[0])
    runs.assert_all_ended_before_the_root()
    with pytest.raises(RuntimeError, match="could not start a thread"):
        await outputs_of(chain, ["A?", "B?"], path)


def narrow(kit, width):
    """A model that takes so many calls at a time and refuses the others; what it refused is in `refused`."""
    llm = kit.Chat(script=None)
    llm.watch.refused, llm.watch.served = [], 0
    burst, answer = kit.Gate(lambda: bool(llm.watch.refused)), kit.answering(SIXTEEN)

    def script(seen):
        with llm.watch.lock:
            full = llm.watch.served >= width
            llm.watch.served += not full
        if full:
            llm.watch.refused.append(seen)
            raise RateLimitError("too many requests")
        try:
            if seen.point:
                yield burst  # so that the points meet
            yield from answer(seen)
        finally:
            with llm.watch.lock:
                llm.watch.served -= 1

    llm.script = script
    return llm


async def test_a_burst_in_one_answer_costs_no_retry(kit, way):
    llm = narrow(kit, 4)
    output = await way(chain_of(llm, backoff=0.01, max_retries=1), "Why?")
    assert list(output["points"].values()) == [f"All about {title.lower()}." for title in SIXTEEN]
    assert output["errors"] == {}
    assert 1 <= len(llm.watch.refused) <= 24
    assert len(llm.watch.seen) == 17 + len(llm.watch.refused)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chat", [False, True])
async def test_a_burst_slows_the_whole_batch_down(kit, path, chat):
    llm = narrow(kit, 4)
    chain = chain_of(llm, backoff=0.01)
    questions = [f"{i}?" for i in range(20)]
    outputs = await outputs_of(chain.as_chat_model() if chat else chain, questions, path, {"max_concurrency": 32})
    texts = [output.text if chat else output["answer"] for output in outputs]
    assert len(set(texts)) == 1
    assert texts[0].count("All about") == 16
    assert len(llm.watch.seen) == 20 * 17 + len(llm.watch.refused)
    assert 1 <= len(llm.watch.refused) <= 100


async def test_the_runs_of_refused_calls_end_within_the_answers(kit, way):
    llm, runs = narrow(kit, 2), kit.Runs()
    await way(chain_of(llm, backoff=0.01, max_retries=1), "Why?", {"callbacks": [runs]})
    assert llm.watch.refused
    runs.assert_all_ended_before_the_root()


async def test_a_task_that_waits_for_a_server_is_cancelled_at_once(kit, ways):
    error = RateLimitError("slow down")
    error.retry_after = 60
    llm = kit.Chat(script=lambda seen: [error] if seen.point else kit.answering(SIXTEEN)(seen))
    task = asyncio.create_task(ways["ainvoke"](chain_of(llm), "Why?"))
    await kit.Gate(lambda: len(llm.watch.of("point")) == 16).await_()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert len(llm.watch.seen) == 17


async def test_a_limit_below_one_is_refused_before_any_call(kit, way):
    llm = kit.Chat(script=kit.answering(SIXTEEN))
    with pytest.raises(InvalidInput, match="max_concurrency"):
        await way(chain_of(llm), "Why?", {"max_concurrency": 0})
    assert not llm.watch.seen


# --- no call stays open ---


def failing_beside_open_ones(kit):
    """Point 3 fails once all others are open; the others never end."""
    llm = kit.Chat(script=None)
    all_there = llm.watch.together(4)

    def script(seen):
        if seen.stage == "skeleton":
            return kit.answering(SIXTEEN[:4])(seen)
        return [all_there, RuntimeError("boom")] if seen.point == 3 else endless(kit)

    llm.script = script
    return llm


def endless(kit):
    tick = threading.Event()
    while True:
        yield "and "
        tick.wait(0.001)


@pytest.mark.parametrize("way_name", ["stream", "astream"])
async def test_siblings_are_closed_when_one_point_fails(kit, ways, way_name):
    llm = failing_beside_open_ones(kit)
    with pytest.raises(PointError, match="boom"):
        await ways[way_name](chain_of(llm), "Why?")
    assert llm.watch.open == 0
    assert llm.watch.peak == 4


async def test_siblings_are_cancelled_when_one_point_of_ainvoke_fails(kit):
    llm = failing_beside_open_ones(kit)
    runs = kit.Runs()
    with pytest.raises(PointError, match="boom"):
        await chain_of(llm).ainvoke("Why?", {"callbacks": [runs]})
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


def endless_model(kit):
    return kit.Chat(script=lambda s: kit.answering(SIXTEEN[:4])(s) if s.stage == "skeleton" else endless(kit))


@pytest.mark.parametrize("pick", [None, "answer", "points"])
def test_closing_a_stream_closes_every_call(kit, pick):
    llm, runs = endless_model(kit), kit.Runs()
    chain = chain_of(llm).pick(pick) if pick else chain_of(llm)
    stream = chain.stream("Why?", {"callbacks": [runs]})
    while llm.watch.peak < 4:
        next(stream)
    stream.close()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()
    assert not [t for t in threading.enumerate() if t.name.startswith("sot-")]


@pytest.mark.parametrize("pick", [None, "answer", "points"])
async def test_closing_an_async_stream_closes_every_call(kit, pick):
    llm, runs = endless_model(kit), kit.Runs()
    chain = chain_of(llm).pick(pick) if pick else chain_of(llm)
    stream = chain.astream("Why?", {"callbacks": [runs]})
    while llm.watch.peak < 4:
        await anext(stream)
    await stream.aclose()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_closing_a_stream_closes_a_bound_model(kit):
    llm = endless_model(kit)
    stream = chain_of(llm.bind(user="me").with_config(tags=["mine"])).astream("Why?")
    while llm.watch.peak < 4:
        await anext(stream)
    await stream.aclose()
    assert llm.watch.open == 0
    assert llm.watch.seen[0].kwargs == {"user": "me"}


@pytest.mark.parametrize("way_name", ["ainvoke", "abatch", "astream"])
async def test_cancelling_the_task_closes_every_call(kit, ways, way_name):
    llm, runs = endless_model(kit), kit.Runs()
    task = asyncio.create_task(ways[way_name](chain_of(llm), "Why?", {"callbacks": [runs]}))
    await llm.watch.together(4).await_()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_sync_only_models_are_parallel_under_async(kit, ways):
    llm = kit.SyncOnlyChat(script=None)
    both = llm.watch.together(2)
    answer = kit.answering(["One thing", "Two things"])
    llm.script = lambda seen: [both, *answer(seen)] if seen.stage == "point" else answer(seen)
    for way in (ways["ainvoke"], ways["astream"]):
        assert len((await way(chain_of(llm), "Why?"))["points"]) == 2


async def test_any_runnable_that_gives_text_serves_as_a_model(kit, way):
    def reply(messages):
        return "1. Only this" if "Write only the headings" in messages[-1].content else "Its text."

    output = await way(skeleton_chain(llm=RunnableLambda(reply)), "Why?")
    assert output["points"] == {"1": "Its text."}
