"""`chain.pick(...)` is a runnable of its own: it behaves as `chain | RunnablePick(...)`, and closes early."""

from __future__ import annotations

from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.passthrough import RunnablePick
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run

TITLES = ["Take breaks", "Drink water"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water."
KEYS: list[Any] = ["answer", "points", "skeleton", ["answer", "route"], ["errors", "none"], "none"]


class Roots(BaseTracer):
    """Keeps the finished root runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


@pytest.fixture
def chain(kit: Any) -> Any:
    return skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES)))


def own_and_plain(chain: Any, keys: Any) -> tuple[Any, Any]:
    return chain.pick(keys), chain | RunnablePick(keys)


async def traced(way: Any, runnable: Any, value: Any = "Why?", **config: Any) -> tuple[Any, Run]:
    """What a runnable returned, and its root run."""
    roots = Roots()
    output = await way(runnable, value, {"callbacks": [roots], **config})
    (root,) = roots.runs
    return output, root


@pytest.mark.parametrize("keys", KEYS[:4], ids=str)
async def test_outputs_and_root_runs_are_those_of_langchains_own_pick(way, chain, keys):
    own, plain = own_and_plain(chain, keys)
    (output, root), (expected, root_of_plain) = await traced(way, own), await traced(way, plain)
    assert output == expected
    assert root.outputs == root_of_plain.outputs
    assert (root.error, root.parent_run_id) == (None, None)
    (whole,) = root.child_runs
    first = root_of_plain.child_runs[0]
    assert whole.name == first.name == "SkeletonOfThoughtChain"
    assert whole.outputs.keys() == first.outputs.keys() >= {"question", "answer", "points"}
    assert sorted(run.name for run in whole.child_runs) == sorted(run.name for run in first.child_runs)
    assert whole.end_time <= root.end_time


@pytest.mark.parametrize("method", ["invoke", "ainvoke", "batch", "abatch"])
@pytest.mark.parametrize("keys", KEYS[4:], ids=str)
async def test_keys_that_do_not_exist_are_left_out(ways, chain, keys, method):
    own, plain = own_and_plain(chain, keys)
    (output, root), (expected, root_of_plain) = await traced(ways[method], own), await traced(ways[method], plain)
    assert output == expected
    assert root.outputs == root_of_plain.outputs


async def test_the_name_of_the_root_run_is_that_of_the_runnable_or_the_config(way, chain):
    picked = chain.pick("answer")
    assert (await traced(way, picked))[1].name == picked.get_name()
    assert (await traced(way, picked, run_name="mine"))[1].name == "mine"
    _, root = await traced(way, picked.with_config(run_name="bound", tags=["t"], metadata={"user": 1}))
    assert (root.name, root.tags, root.metadata["user"]) == ("bound", ["t"], 1)
    assert {"t"} <= set(root.child_runs[0].child_runs[0].tags)


async def test_listeners_get_the_picked_value(way, chain):
    ends: list[Run] = []
    listening = chain.pick("answer").with_listeners(on_end=ends.append)
    assert await way(listening, "Why?") == ANSWER
    assert [run.outputs for run in ends] == [{"output": ANSWER}]
    several: list[Run] = []
    output = await way(chain.pick(["answer", "skeleton"]).with_listeners(on_end=several.append), "Why?")
    assert [run.outputs for run in several] == [output]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer versions of LangChain advise LangGraph's memory
@pytest.mark.parametrize("wrap", ["bare", "config", "retry", "fallbacks", "bind", "sequence"])
async def test_a_history_saves_the_picked_answer(way, chain, wrap):
    picked = chain.pick("answer")
    runnable = {
        "bare": picked,
        "config": picked.with_config(tags=["t"]),
        "retry": picked.with_retry(),
        "fallbacks": picked.with_fallbacks([picked]),
        "bind": picked.bind(),
        "sequence": RunnablePassthrough() | picked,
    }[wrap]
    history = InMemoryChatMessageHistory()
    remembering = RunnableWithMessageHistory(
        runnable, lambda session_id: history, input_messages_key="question", history_messages_key="chat_history"
    )
    config = {"configurable": {"session_id": "1"}}
    for turn in (1, 2):
        assert await way(remembering, {"question": "Why?"}, config) == ANSWER
        assert [(message.type, message.text) for message in history.messages] == [
            ("human", "Why?"),
            ("ai", ANSWER),
        ] * turn


@pytest.mark.parametrize("keys", ["answer", "points", ["answer", "route"]], ids=str)
async def test_the_events_of_the_root_have_the_picked_value(chain, keys):
    async def events(runnable: Any) -> list[Any]:
        return [event async for event in runnable.astream_events("Why?", version="v2")]

    def of_root(events: list[Any]) -> list[Any]:
        return [event for event in events if event["run_id"] == events[0]["run_id"]]

    own, plain = [of_root(await events(runnable)) for runnable in own_and_plain(chain, keys)]
    assert [event["event"] for event in own] == [event["event"] for event in plain]
    assert own[-1]["data"]["output"] == plain[-1]["data"]["output"]
    assert {str(type(event["data"]["chunk"])) for event in own[1:-1]} == {
        str(type(event["data"]["chunk"])) for event in plain[1:-1]
    }


@pytest.mark.parametrize("is_async", [False, True])
async def test_each_question_of_a_batch_ends_its_own_run(kit, is_async):
    def script(seen: Any) -> Any:
        broken = any("Bad" in message.text for message in seen.messages)
        return [ValueError("no")] if broken else kit.answering(TITLES)(seen)

    picked, roots = skeleton_chain(llm=kit.Chat(script=script), max_retries=0).pick("answer"), Roots()
    config = {"callbacks": [roots]}
    questions = ["Good", "Bad", "", "Fine"]
    if is_async:
        outputs = await picked.abatch(questions, config, return_exceptions=True)
        completed = dict([pair async for pair in picked.abatch_as_completed(questions, return_exceptions=True)])
    else:
        outputs = picked.batch(questions, config, return_exceptions=True)
        completed = dict(picked.batch_as_completed(questions, return_exceptions=True))
    assert [type(output) for output in outputs] == [type(completed[i]) for i in range(4)]
    assert (outputs[0], type(outputs[1]), outputs[3]) == (ANSWER, ValueError, ANSWER)
    ended = {run.inputs["input"]: (run.error is None, (run.outputs or {}).get("output")) for run in roots.runs}
    assert ended == {"Good": (True, ANSWER), "Bad": (False, None), "": (False, None), "Fine": (True, ANSWER)}


async def test_the_first_error_of_a_batch_is_raised(kit):
    picked = skeleton_chain(llm=kit.Chat(script=lambda seen: [OSError("down")]), max_retries=0).pick("answer")
    with pytest.raises(OSError, match="down"):
        picked.batch(["A", "B"])
    with pytest.raises(OSError, match="down"):
        await picked.abatch(["A", "B"])


async def test_a_failed_answer_fails_both_runs(way, kit):
    picked = skeleton_chain(llm=kit.Chat(script=lambda seen: [OSError("down")]), max_retries=0).pick("answer")
    runs = kit.Runs()
    with pytest.raises(OSError, match="down"):
        await way(picked, "Why?", {"callbacks": [runs]})
    runs.assert_all_ended_before_the_root()
    assert {runs.started[run_id].name for run_id in runs.errors} >= {picked.get_name(), "SkeletonOfThoughtChain"}


@pytest.mark.parametrize("is_async", [False, True])
async def test_closing_early_ends_the_runs_from_the_calls_up(kit, is_async):
    def script(seen: Any) -> Any:
        return kit.answering(TITLES)(seen) if seen.stage == "skeleton" else ["word "] * 100_000

    llm, roots, runs = kit.Chat(script=script), Roots(), kit.Runs()
    picked = skeleton_chain(llm=llm).pick("answer")
    config = {"callbacks": [roots, runs]}
    if is_async:
        astream = picked.astream("Why?", config)
        seen = [await anext(astream) for _ in range(3)]
        await astream.aclose()
    else:
        stream = picked.stream("Why?", config)
        seen = [next(stream) for _ in range(3)]
        stream.close()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()
    (root,) = roots.runs
    assert root.outputs == {"output": "".join(seen)}
    assert root.child_runs[0].outputs["answer"] == "".join(seen)


async def test_picks_work_in_pipes_on_both_sides(way, chain):
    piped = RunnableLambda(lambda topic: f"Why {topic}?") | chain.pick("answer") | RunnableLambda(str.upper)
    assert await way(piped, "sleep") == ANSWER.upper()
    parallel = RunnableParallel(answer=chain.pick("answer"), both=chain.pick(["route", "skeleton"]))
    assert await way(parallel, "Why?") == {"answer": ANSWER, "both": {"route": "skeleton", "skeleton": TITLES}}


@pytest.mark.parametrize("keys", ["answer", "points", ["answer", "route"]], ids=str)
def test_schemas_and_graph_are_those_of_langchains_own_pick(chain, keys):
    own, plain = own_and_plain(chain, keys)
    assert own.get_input_schema().model_json_schema() == plain.get_input_schema().model_json_schema()
    assert own.get_output_schema().model_json_schema() == plain.get_output_schema().model_json_schema()
    assert own.get_graph().draw_mermaid() == plain.get_graph().draw_mermaid()
    assert own.config_specs == plain.config_specs


async def test_an_expansions_run_has_its_own_output(way, chain):
    ends: list[Run] = []
    expansion = chain.expansion(TITLES).with_listeners(on_end=ends.append)
    output = await way(expansion, "Why?")
    assert [run.outputs for run in ends] == [output]
    assert list(output) == ["1", "2"]
