"""The config of a call beats what is around it, and what is around it fills the gaps, as for a plain model."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import langsmith
import pytest
from always import skeleton_chain
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableBranch, RunnableLambda, RunnablePassthrough
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers import BaseTracer, LangChainTracer
from langchain_core.tracers.schemas import Run

from langchain_sot import PromptRouter, SkeletonOfThoughtRouter
from skeleton_of_thought.types import Conversation

TITLES = ["Take breaks", "Drink water"]
A: dict[str, Any] = {"configurable": {"llm": "a"}}
B: dict[str, Any] = {"configurable": {"llm": "b"}}


def named(kit: Any, name: str) -> Any:
    """A model that says its name in everything but the skeleton."""

    def script(seen: Any) -> list[str]:
        return kit.answering(TITLES)(seen) if seen.stage == "skeleton" else [f"Model {name}."]

    return kit.Chat(script=script)


@pytest.fixture
def llm(kit: Any) -> Any:
    """Model A, or B where the config says so."""
    return named(kit, "A").configurable_alternatives(ConfigurableField(id="llm"), default_key="a", b=named(kit, "B"))


async def _as_completed(runnable: Any, value: Any, config: Any = None) -> Any:
    ((_, output),) = await asyncio.to_thread(lambda: list(runnable.batch_as_completed([value], config)))
    return output


async def _aas_completed(runnable: Any, value: Any, config: Any = None) -> Any:
    ((_, output),) = [result async for result in runnable.abatch_as_completed([value], config)]
    return output


async def _transform(runnable: Any, value: Any, config: Any = None) -> Any:
    chunks = await asyncio.to_thread(lambda: list(runnable.transform(iter([value]), config)))
    return _sum(chunks)


async def _atransform(runnable: Any, value: Any, config: Any = None) -> Any:
    async def given() -> Any:
        yield value

    return _sum([chunk async for chunk in runnable.atransform(given(), config)])


def _sum(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


MORE_WAYS = {
    "batch_as_completed": _as_completed,
    "abatch_as_completed": _aas_completed,
    "transform": _transform,
    "atransform": _atransform,
}
WAYS = ["invoke", "ainvoke", "batch", "abatch", "stream", "astream", *MORE_WAYS]

FORMS = {
    "chain": lambda chain: chain,
    "pick": lambda chain: chain.pick("answer"),
    "pick list": lambda chain: chain.pick(["answer"]),
    "expansion": lambda chain: chain.expansion(TITLES),
    "chat model": lambda chain: chain.as_chat_model(),
    "binding": lambda chain: chain.with_config(tags=["mine"]),
    "retry": lambda chain: chain.with_retry(),
    "fallbacks": lambda chain: chain.with_fallbacks([chain]),
    "sequence": lambda chain: RunnablePassthrough() | chain,
}


@pytest.fixture(params=WAYS)
def any_way(request: pytest.FixtureRequest, ways: dict[str, Any]) -> Any:
    return {**ways, **MORE_WAYS}[request.param]


async def within(around: dict[str, Any], call: Any) -> Any:
    """What an async call returns within a runnable that was called with this config."""

    async def inner(_: Any) -> Any:
        return await call()

    return await RunnableLambda(inner).ainvoke("start", around)


def names(output: Any) -> set[str]:
    """The models that wrote an output."""
    text = str(getattr(output, "text", output))
    return {name for name in "ABC" if f"Model {name}." in text}


def called(llm: Any, messages: Any) -> Any:
    """Calls a model without a config."""
    return llm.invoke(messages)


def switched(messages: Any, config: Any, models: Any) -> Any:
    """Calls one of the models of `alternatives`, which it finds in the config itself."""
    chosen = models.alternatives["b"] if config["configurable"].get("llm") == "b" else models.default
    return chosen.invoke(messages, config)


KINDS = {
    "alternatives": lambda llm: llm,
    "bound": lambda llm: llm.bind(stop=["#"]).with_config(tags=["inner"]),
    "retry": lambda llm: llm.with_retry(),
    "fallbacks": lambda llm: llm.with_fallbacks([llm]),
    "listeners": lambda llm: llm.with_listeners(on_end=lambda run: None),
    "sequence": lambda llm: RunnablePassthrough() | llm,
    "branch": lambda llm: RunnableBranch((lambda _: False, llm), llm),
    "function": lambda llm: RunnableLambda(lambda messages: called(llm, messages)),
    "function that takes the config": lambda llm: RunnableLambda(lambda value, config: switched(value, config, llm)),
}
"""Models whose choice is known when the answer begins, and models that read their config in each call."""


# --- the model that answers ---


@pytest.mark.parametrize("form", FORMS)
async def test_the_callers_model_answers(any_way, llm, form):
    runnable = FORMS[form](skeleton_chain(llm=llm))
    assert names(await within(A, lambda: any_way(runnable, "Why?", B))) == {"B"}
    assert names(await within(B, lambda: any_way(runnable, "Why?", A))) == {"A"}


@pytest.mark.parametrize("form", FORMS)
async def test_the_surrounding_model_answers_where_the_caller_names_none(any_way, llm, form):
    runnable = FORMS[form](skeleton_chain(llm=llm))
    assert names(await within(B, lambda: any_way(runnable, "Why?"))) == {"B"}
    assert names(await within(B, lambda: any_way(runnable, "Why?", {"tags": ["mine"]}))) == {"B"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["chain", "pick", "chat model"])
async def test_every_kind_of_model_reads_the_callers_config(any_way, llm, kind, form):
    runnable = FORMS[form](skeleton_chain(llm=KINDS[kind](llm)))
    assert names(await within(A, lambda: any_way(runnable, "Why?", B))) == {"B"}
    assert names(await within(B, lambda: any_way(runnable, "Why?"))) == {"B"}


@pytest.mark.parametrize("form", ["chain", "pick", "expansion", "chat model"])
async def test_a_models_own_config_ranks_as_for_the_plain_model(any_way, llm, form):
    # The caller's config goes before the model's own, which goes before what is around the call, if nothing was given.
    own = llm.with_config(B)
    runnable = FORMS[form](skeleton_chain(llm=own))
    for config in (None, {"tags": ["mine"]}, A, B):
        plain = await within(A, lambda config=config: own.ainvoke("Why?", config))
        assert names(await within(A, lambda config=config: any_way(runnable, "Why?", config))) == names(plain), config


async def test_the_points_model_reads_the_callers_config_too(any_way, kit, llm):
    points = named(kit, "A").configurable_alternatives(
        ConfigurableField(id="points"), default_key="a", c=named(kit, "C")
    )
    chain = skeleton_chain(llm=llm, point_llm=points)
    around = {"configurable": {"points": "a", "llm": "a"}}
    assert names(await within(around, lambda: any_way(chain, "Why?", {"configurable": {"points": "c"}}))) == {"C"}


async def test_each_question_of_a_batch_has_its_own_model(llm):
    async def answers(runnable: Any, is_async: bool) -> list[Any]:
        configs = [A, B, {"tags": ["mine"]}]
        if is_async:
            return await runnable.abatch(["1?", "2?", "3?"], configs)
        return await asyncio.to_thread(runnable.batch, ["1?", "2?", "3?"], configs)

    for runnable in (form(skeleton_chain(llm=llm)) for form in FORMS.values()):
        for is_async in (False, True):
            outputs = await within(B, lambda runnable=runnable, is_async=is_async: answers(runnable, is_async))
            assert [names(output) for output in outputs] == [{"A"}, {"B"}, {"B"}]


@pytest.mark.parametrize("mode", ["text", "structured"])
async def test_a_structured_skeleton_keeps_to_the_callers_config(any_way, llm, mode):
    chain = skeleton_chain(llm=KINDS["bound"](llm), skeleton_mode=mode)
    assert names(await within(A, lambda: any_way(chain, "Why?", B))) == {"B"}


async def test_text_models_keep_to_the_callers_config(any_way, kit):
    def saying(name: str) -> FakeListLLM:
        return FakeListLLM(responses=["1. One\n2. Two", f"Model {name}.", f"Model {name}."])

    for wrap in ("alternatives", "retry", "fallbacks"):
        llm = saying("A").configurable_alternatives(ConfigurableField(id="llm"), default_key="a", b=saying("B"))
        tracer, outer = Tracer(), kit.Runs()
        around = {**A, "callbacks": [outer], "max_concurrency": 1}
        chain, config = skeleton_chain(llm=KINDS[wrap](llm)), {**B, "callbacks": [tracer]}
        assert "B" in names(await within(around, lambda chain=chain, config=config: any_way(chain, "Why?", config)))
        assert len(outer.started) == 1
        assert len(tracer.created) == len(set(tracer.created)) > 3


# --- callbacks, tags and metadata ---


# Not for a binding around the chain: LangChain's own adds the callbacks of the context to given ones.
@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"binding", "retry"}))
@pytest.mark.parametrize("kind", ["alternatives", "bound", "retry", "fallbacks", "listeners"])
async def test_empty_callbacks_silence_every_run(any_way, kit, llm, form, kind):
    outer = kit.Runs()
    runnable = FORMS[form](skeleton_chain(llm=KINDS[kind](llm)))
    await within({"callbacks": [outer]}, lambda: any_way(runnable, "Why?", {"callbacks": []}))
    assert [run.name for run in outer.started.values()] == ["inner"]


async def test_given_callbacks_see_each_run_once_and_those_around_none(any_way, kit, llm):
    for kind, wrap in KINDS.items():
        outer, runs = kit.Runs(), kit.Runs()
        chain = skeleton_chain(llm=wrap(llm))
        config = {"callbacks": [runs], "tags": ["mine"], "metadata": {"user": 1}}
        around = {"callbacks": [outer], "tags": ["theirs"], "metadata": {"user": 2, "tenant": 3}}
        await within(around, lambda chain=chain, config=config: any_way(chain, "Why?", config))
        assert len(outer.started) == 1, kind
        runs.assert_all_ended_before_the_root()
        (root,) = runs.roots
        assert {run.name for run in runs.children(root)} >= {"skeleton", "point 1: Take breaks", "point 2: Drink water"}
        for run in runs.started.values():
            assert "theirs" not in run.tags, kind
            assert (run.metadata["user"], run.metadata.get("tenant")) == (1, None), kind


async def test_surrounding_callbacks_tags_and_metadata_fill_the_gaps(any_way, kit, llm):
    outer = kit.Runs()
    around = {"callbacks": [outer], "tags": ["theirs"], "metadata": {"user": 2}, "max_concurrency": 1}
    chain = skeleton_chain(llm=llm)
    await within(around, lambda: any_way(chain, "Why?", {"run_name": "mine"}))
    (root,) = outer.roots
    (answer,) = outer.children(root)
    assert answer.name == "mine"
    calls = outer.children(answer)
    assert {run.name for run in calls} == {"skeleton", "point 1: Take breaks", "point 2: Drink water"}
    assert all("theirs" in run.tags and run.metadata["user"] == 2 for run in calls)
    outer.assert_all_ended_before_the_root()


async def test_the_limits_around_hold_unless_the_caller_has_own_ones(way, kit):
    llm = kit.Chat(script=kit.answering(["One", "Two", "Three", "Four"]))
    chain = skeleton_chain(llm=llm)
    await within({"max_concurrency": 1}, lambda: way(chain, "Why?"))
    assert llm.watch.peak == 1


async def test_runs_inside_of_a_model_are_children_of_its_answer(any_way, kit, llm):
    # A model that calls another one without a config: it inherits the answer's config, not the one around it.
    outer, runs = kit.Runs(), kit.Runs()
    inner = RunnableLambda(lambda messages: called(llm, messages), name="wrapper")
    chain = skeleton_chain(llm=inner)
    await within({**A, "callbacks": [outer]}, lambda: any_way(chain, "Why?", {**B, "callbacks": [runs]}))
    assert len(outer.started) == 1
    (root,) = runs.roots
    for call in runs.children(root):
        (model,) = runs.children(call)
        assert model.metadata["sot_stage"] == call.metadata["sot_stage"]


# --- routers ---


@pytest.mark.parametrize("kind", ["runnable", "function", "prompt router", "router runnable"])
async def test_routers_keep_to_the_callers_config(any_way, kit, kind):
    def saying(word: str) -> Any:
        return kit.Chat(script=lambda seen: [word])

    small = saying("NONE").configurable_alternatives(
        ConfigurableField(id="router"), default_key="direct", skeleton=saying("INDEPENDENT")
    )
    by_word = small | RunnableLambda(lambda message: message.text == "INDEPENDENT")
    router = {
        "runnable": by_word,
        "function": lambda question: called(by_word, question),
        "prompt router": PromptRouter(small),
        "router runnable": SkeletonOfThoughtRouter(PromptRouter(small)),
    }[kind]
    chain = skeleton_chain(llm=named(kit, "A"), router=router)
    outer, runs = kit.Runs(), kit.Runs()
    around = {"configurable": {"router": "direct"}, "callbacks": [outer], "tags": ["theirs"]}
    config = {"configurable": {"router": "skeleton"}, "callbacks": [runs], "tags": ["mine"]}
    assert (await within(around, lambda: any_way(chain, "Why?", config)))["route"] == "skeleton"
    assert len(outer.started) == 1
    assert not [run for run in runs.started.values() if "theirs" in run.tags]
    runs.assert_all_ended_before_the_root()


async def test_a_prompt_router_leaves_the_context_as_it_was(kit):
    router = PromptRouter(kit.Chat(script=lambda seen: ["NONE"]))
    before = ensure_config()
    router.route(Conversation.of("Why?"))
    await router.aroute(Conversation.of("Why?"))
    assert ensure_config() == before


# --- traces ---


class Tracer(BaseTracer):
    """Keeps the finished runs, and counts how often each was created."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[Any] = []

    def _on_run_create(self, run: Run) -> None:
        self.created.append(run.id)

    def _persist_run(self, run: Run) -> None:
        pass


class Client(langsmith.Client):
    """Keeps the runs that LangSmith would get."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", api_key="none", auto_batch_tracing=False)
        self.created: list[Any] = []
        self.updated: list[Any] = []

    def create_run(self, **run: Any) -> None:  # type: ignore[override]
        self.created.append(run)

    def update_run(self, run_id: Any, **_: Any) -> None:  # type: ignore[override]
        self.updated.append(run_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_run_is_traced_once_without_an_error(any_way, llm, kind, caplog):
    client, around = Client(), Client()
    chain = skeleton_chain(llm=KINDS[kind](llm))
    config = {"callbacks": [LangChainTracer(client=client)]}
    tracer = LangChainTracer(client=around)
    with caplog.at_level(logging.WARNING):
        await within({"callbacks": [tracer]}, lambda: any_way(chain, "Why?", config))
    assert not caplog.records
    ids = [run["id"] for run in client.created]
    assert len(ids) == len(set(ids)) == len(client.updated)
    assert [run["name"] for run in around.created] == ["inner"]
    assert len([run for run in client.created if run["run_type"] == "llm"]) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_the_tracer_around_sees_each_run_once(any_way, llm, kind, caplog):
    tracer = Tracer()
    chain = skeleton_chain(llm=KINDS[kind](llm))
    with caplog.at_level(logging.WARNING):
        await within({"callbacks": [tracer]}, lambda: any_way(chain, "Why?", {"tags": ["mine"]}))
    assert not caplog.records
    assert len(tracer.created) == len(set(tracer.created)) > 4


# --- graphs and traced functions ---


async def test_a_node_keeps_an_inner_answer_out_of_the_graphs_messages(kit, llm):
    graph_module = pytest.importorskip("langgraph.graph", reason="langgraph is in the dev group only")
    picked = skeleton_chain(llm=llm).pick("answer")
    said: list[Any] = []

    async def node(state: Any) -> Any:
        said.append(await picked.ainvoke("Why?", {**B, "callbacks": []}))
        said.append(await asyncio.to_thread(lambda: "".join(picked.stream("Why?", B))))
        return {}

    graph = graph_module.StateGraph(graph_module.MessagesState)
    graph.add_node("node", node)
    graph.add_edge(graph_module.START, "node")
    compiled = graph.compile()
    streamed = [chunk async for chunk, _ in compiled.astream({"messages": []}, A, stream_mode="messages")]
    assert [names(text) for text in said] == [{"B"}, {"B"}]
    # Only the second answer is streamed, each call once.
    assert "".join(chunk.text for chunk in streamed).count("Model B.") == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_traced_function_is_the_parent_of_the_answers_run(any_way, llm, monkeypatch, caplog):
    client = Client()
    tracer = LangChainTracer(client=client)
    chain = skeleton_chain(llm=KINDS["function"](llm))
    config = {**B, "callbacks": [tracer]}

    @langsmith.traceable(client=client)
    async def work() -> Any:
        return await any_way(chain, "Why?", config)

    with caplog.at_level(logging.WARNING), langsmith.tracing_context(enabled=True):
        around = {**A, "callbacks": [LangChainTracer(client=client)]}
        assert names(await within(around, work)) == {"B"}
    assert not caplog.records
    ids = [str(run["id"]) for run in client.created]
    assert len(ids) == len(set(ids))
    (answer,) = [run for run in client.created if run["name"] == "SkeletonOfThoughtChain"]
    (traced,) = [run for run in client.created if run["name"] == "work"]
    assert answer["parent_run_id"] == traced["id"]


@pytest.mark.parametrize("direct", [False, True])
async def test_generate_takes_its_callbacks_from_its_argument_alone(kit, llm, direct):
    outer, runs = kit.Runs(), kit.Runs()
    model = skeleton_chain(llm=KINDS["bound"](llm)).as_chat_model()
    given = {"max_tokens": 9} if direct else {}  # such a call goes to the model itself

    async def work() -> Any:
        quiet = await model.agenerate([[HumanMessage("Why?")]], **given)
        seen = await model.agenerate([[HumanMessage("Why?")]], callbacks=[runs], **given)
        return quiet.generations[0][0].text, seen.generations[0][0].text

    for text in await within({**B, "callbacks": [outer]}, work):
        assert names(text) == {"B"}
    assert len(outer.started) == 1
    runs.assert_all_ended_before_the_root()
