"""Routes of queries, and direct answers: identical to those of the LLM without this package."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys

import pytest
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import MetadataMode

from llama_index_sot import (
    SkeletonOfThoughtQueryEngine,
    SkeletonOfThoughtSynthesizer,
    SkeletonOfThoughtWorkflow,
    TransformersLLM,
)
from llama_index_sot.events import AnswerDelta, Routed, SkeletonOfThoughtEvent, SkeletonReady
from llama_index_sot.llm_calls import resolve_llm
from skeleton_of_thought import AutoRouter, CostGuard
from skeleton_of_thought.types import RouteDecision

TITLES = ["Move", "Drink water", "Sleep more"]
LIST = "What are the pros and cons of living on a boat?"
FACT = "What is the capital of France?"
SUM = "What is 17 * 4?"


@pytest.fixture
def llm(LLMClass, kit):
    return LLMClass(script=kit.answering(TITLES))


def stages(llm):
    return [seen.stage for seen in llm.watch.seen]


# --- the default ----------------------------------------------------------------------------------


def by_init(llm, kit):
    return SkeletonOfThoughtQueryEngine(llm).query


def by_defaults(llm, kit):
    return SkeletonOfThoughtQueryEngine.from_defaults(llm).query


def by_retriever(llm, kit):
    return SkeletonOfThoughtQueryEngine.from_args(kit.SyncRetriever(lambda query: [kit.node("a")]), llm).query


def by_synthesizer(llm, kit):
    return lambda query: SkeletonOfThoughtSynthesizer(llm).synthesize(query, [kit.node("a")])


def by_workflow(llm, kit):
    async def answer(query):
        return await SkeletonOfThoughtWorkflow(llm=llm).run(query=query)

    return lambda query: asyncio.run(answer(query))


@pytest.mark.parametrize("made", [by_init, by_defaults, by_retriever, by_synthesizer, by_workflow])
def test_every_class_has_the_auto_router_by_default(made, llm, kit):
    ask = made(llm, kit)
    response = ask(FACT)
    assert (str(response), response.points) == ("Just so.", [])
    assert stages(llm) == ["direct"]
    assert response.metadata["sot"]["route"] == "direct"
    assert "embedded router" in response.metadata["sot"]["reason"]
    response = ask(LIST)
    assert [point.title for point in response.points] == TITLES
    assert response.metadata["sot"]["route"] == "skeleton"


@pytest.mark.parametrize("query", [LIST, FACT, SUM, "Why?"])
async def test_without_a_router_every_query_gets_a_skeleton(way, llm, query):
    response = await way(llm, query, router=None)
    assert stages(llm)[0] == "skeleton"
    entry = response.metadata["sot"]
    assert (entry["route"], entry["reason"], entry["decision"]) == ("skeleton", "no router", None)


def test_the_first_engine_loads_the_routers_modules():
    code = (
        "import sys; from llama_index.core.llms import MockLLM; from llama_index_sot import "
        "SkeletonOfThoughtQueryEngine as Engine, SkeletonOfThoughtSynthesizer, SkeletonOfThoughtWorkflow; "
        "needs = ['skeleton_of_thought.routers.' + name for name in ('auto', 'embedded', 'gate', 'cost', 'question')]; "
        "before = [name for name in needs if name in sys.modules]; Engine.from_defaults(MockLLM()); "
        "print(before, [name for name in needs if name not in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


# --- a direct answer is the LLM's own ------------------------------------------------


async def test_a_direct_answer_is_one_call_with_the_unchanged_query(way, llm):
    query = f"  {FACT}\n"
    response = await way(llm, query, router="auto")
    (seen,) = llm.watch.seen
    if seen.messages:
        assert seen.messages == [ChatMessage(role="user", content=query)]
        assert seen.kwargs == {}
    assert seen.text == query
    assert str(response) == str((await llm.achat([ChatMessage(query)])).message.content)
    assert response.source_nodes == []


WRAPPED = {
    "system_prompt": "Be brief.",
    "query_wrapper_prompt": PromptTemplate("<q>{query_str}</q>"),
    "completion_to_prompt": lambda text: f"[{text}]",
}


@pytest.mark.parametrize("settings", [{}, WRAPPED], ids=["plain", "wrapped"])
@pytest.mark.parametrize(("name", "is_chat_model"), [("SyncLLM", False), ("SyncLLM", True), ("ChatLLM", True)])
async def test_a_direct_answer_sends_the_same_prompt_as_predict(way, kit, settings, name, is_chat_model):
    meta = LLMMetadata(is_chat_model=is_chat_model)
    llm = getattr(kit, name)(script=kit.answering(TITLES), meta=meta, **settings)
    text = llm.predict(PromptTemplate("{query_str}"), query_str=FACT)
    assert str(await way(llm, FACT, router="auto")) == text
    own, ours = llm.watch.seen
    assert ours.text == own.text
    assert ours.messages == own.messages
    assert ours.kwargs == own.kwargs


def deltas(responses):
    return [response.delta for response in responses if response.delta]


async def test_a_direct_stream_has_the_pieces_of_the_llms_own_stream(llm, kit):
    llm.script = lambda seen: ["The ", "capital", " ", "is", "\n\nParis", ".", " "]
    messages = [ChatMessage(role="user", content=FACT)]
    own = deltas(llm.stream_chat(messages) if isinstance(llm, kit.ChatLLM) else llm.stream_complete(FACT))
    assert len(own) == 7
    engine = kit.make(llm, router="auto", streaming=True)
    assert await asyncio.to_thread(lambda: list(engine.query(FACT).response_gen)) == own
    assert [text async for text in (await engine.aquery(FACT)).async_response_gen()] == own
    events = [event async for event in engine.astream_events(FACT)]
    assert [event.text for event in events if isinstance(event, AnswerDelta)] == own
    assert len(llm.watch.seen) == 4


class Recording(TransformersLLM):
    """Records the pieces of its streams: an engine's next piece holds all text since the last one."""

    given: list = []  # noqa: RUF012 - a field

    def stream_chat(self, messages, **kwargs):
        return map(self._keep, super().stream_chat(messages, **kwargs))

    async def astream_chat(self, messages, **kwargs):
        stream = await super().astream_chat(messages, **kwargs)
        return (self._keep(response) async for response in stream)

    def _keep(self, response):
        self.given.append(response.delta)
        return response


async def test_a_direct_answer_of_a_local_model_equals_its_completion(ways, kit, local_models):
    with local_models.scripted_engine("The capital is Paris – as it were.", local_models.PLAIN) as engine:
        llm = Recording(engine=engine)
        text = llm.complete(FACT).text
        for way in ways.values():
            assert str(await way(llm, FACT, router="auto")) == text
        assert len(engine.model.prompts) == len(ways) + 1
        assert len(set(engine.model.prompts)) == 1
        streaming = kit.make(llm, router="auto", streaming=True)
        llm.given.clear()
        assert list(streaming.query(FACT).response_gen) == list(filter(None, llm.given))
        llm.given.clear()
        pieces = [text async for text in (await streaming.aquery(FACT)).async_response_gen()]
        assert pieces == list(filter(None, llm.given))


async def test_a_failed_direct_answer_raises_the_llms_error_after_one_call(way, LLMClass):
    llm = LLMClass(script=lambda seen: [OSError("no route")])
    with pytest.raises(OSError, match=r"^no route$"):
        await way(llm, FACT, router="auto")
    assert len(llm.watch.seen) == 1


async def test_a_direct_answer_emits_only_its_own_events(way, llm, instrumented):
    response = await way(llm, FACT, router="auto")
    events, spans = instrumented.events, instrumented.spans
    own = events.of(SkeletonOfThoughtEvent)
    assert {type(event).__name__ for event in own} <= {"Routed", "AnswerDelta", "AnswerReady"}
    assert "".join(event.text for event in events.of(AnswerDelta)) == str(response)
    assert [id_.split("-")[0] for id_ in spans.parents if id_.startswith("SkeletonOfThought.")] == [
        "SkeletonOfThought.direct"
    ]
    (started,) = events.of(LLMChatStartEvent, LLMCompletionStartEvent)
    assert any(id_.startswith("SkeletonOfThought.direct-") for id_ in spans.lineage(started.span_id))
    # The answer's events have the engine's span, even if the call runs in the reader's thread.
    assert len({event.span_id for event in own}) == 1
    assert own[0].span_id.startswith("SkeletonOfThoughtQueryEngine.")
    assert spans.open_spans == {}
    assert set(spans.ended) == set(spans.parents)


async def test_the_legacy_callbacks_get_one_call_in_the_query(way, LLMClass, kit):
    legacy = kit.Legacy()
    manager = CallbackManager([legacy])
    llm = LLMClass(script=kit.answering(TITLES), callback_manager=manager)
    await way(llm, FACT, router="auto", callback_manager=manager)
    query, call = legacy.started
    assert (query.type, call.type) == (CBEventType.QUERY, CBEventType.LLM)
    assert sorted(e.id for e in legacy.started) == sorted(e.id for e in legacy.ended)


async def test_closing_a_direct_stream_early_closes_the_llms_stream(llm, kit):
    llm.script = lambda seen: ("and " for _ in iter(int, 1))
    engine = kit.make(llm, router="auto", streaming=True)
    texts = engine.query(FACT).response_gen
    assert next(texts) == "and "
    texts.close()
    assert llm.watch.open == 0
    response = await engine.aquery(FACT)
    async for _ in response.async_response_gen():
        break
    await response.response_gen.aclose()
    assert llm.watch.open == 0


# --- the decision is reported --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "route", "reason"),
    [
        (SUM, "direct", "gate (arithmetic): something to be calculated"),
        ("and the second one?", "direct", "gate (follow_up): it follows on what was said before"),
        (FACT, "direct", "the embedded router takes it for a question without such points"),
        (LIST, "skeleton", "the embedded router takes it for independent points"),
    ],
)
async def test_the_decision_is_in_the_metadata_and_in_an_event(way, llm, instrumented, query, route, reason):
    entry = (await way(llm, query, router="auto")).metadata["sot"]
    assert (entry["route"], entry["reason"]) == (route, reason)
    decision = entry["decision"]
    assert decision["use_skeleton"] == (route == "skeleton")
    assert 0 <= decision["score"] <= 1
    (routed,) = instrumented.events.of(Routed)
    assert (routed.use_skeleton, routed.score, routed.reason) == (route == "skeleton", decision["score"], reason)
    if ready := instrumented.events.of(SkeletonReady):
        assert instrumented.events.seen.index(routed) < instrumented.events.seen.index(ready[0])


async def test_an_unread_stream_is_not_decided(llm, kit):
    response = kit.make(llm, router="auto", streaming=True).query(FACT)
    assert (response.metadata["sot"]["reason"], response.metadata["sot"]["decision"]) == ("not decided yet", None)
    assert str(response) == "Just so."
    assert response.metadata["sot"]["route"] == "direct"
    assert "embedded router" in response.metadata["sot"]["reason"]


async def test_the_decision_is_the_first_event(llm, kit):
    events = [event async for event in kit.make(llm, router="auto").astream_events(LIST)]
    assert [isinstance(event, Routed) for event in events[:2]] == [True, False]
    assert events[0].model_dump(mode="json")["class_name"] == "Routed"
    handler = SkeletonOfThoughtWorkflow(kit.make(llm, router="auto")).run(query=FACT)
    assert [type(e).__name__ async for e in handler.stream_events()][0] == "Routed"  # noqa: RUF015 - it is to end
    await handler


# --- the cost guard --------------------------------------------------------------------------------


async def test_the_guard_observes_only_answers_of_its_own_engine(llm, kit):
    first, second = kit.make(llm, router="auto"), kit.make(llm, router="auto")
    for _ in range(3):
        assert "cost guard" not in (await first.aquery(LIST)).metadata["sot"]["reason"]
    assert "cost guard: about" in first.query(LIST).metadata["sot"]["reason"]
    assert "cost guard" not in second.query(LIST).metadata["sot"]["reason"]


async def test_the_guard_observes_streamed_answers_and_workflow_runs(llm, kit):
    engine = kit.make(llm, router="auto", streaming=True)
    await asyncio.to_thread(engine.query(LIST).get_response)
    await (await engine.aquery(LIST)).get_response()
    await SkeletonOfThoughtWorkflow(engine).run(query=LIST)
    response = await asyncio.to_thread(engine.query(LIST).get_response)
    assert "cost guard: about" in response.metadata["sot"]["reason"]


async def test_a_synthesizer_has_its_own_guard(llm, kit):
    synthesizer = SkeletonOfThoughtSynthesizer(llm)
    reasons = [synthesizer.synthesize(LIST, [kit.node("a")]).metadata["sot"]["reason"] for _ in range(4)]
    assert ["cost guard: about" in reason for reason in reasons] == [False, False, False, True]


NO_ROOM = "there is room for one call at a time"


async def test_one_worker_leads_to_a_direct_answer(way, llm):
    response = await way(llm, LIST, router="auto", num_workers=1)
    assert (stages(llm), str(response)) == (["direct"], "Just so.")
    assert NO_ROOM in response.metadata["sot"]["reason"]
    response = await way(llm, LIST, router="auto", num_workers=2)
    assert response.metadata["sot"]["route"] == "skeleton"


async def test_an_llm_with_blocking_async_methods_has_room_for_one_call_on_the_loop(kit):
    engine = kit.make(kit.SyncLLM(script=kit.answering(TITLES)), router="auto", concurrency="async")
    assert NO_ROOM in (await engine.aquery(LIST)).metadata["sot"]["reason"]
    assert engine.query(LIST).metadata["sot"]["route"] == "skeleton"
    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)), router="auto", concurrency="async")
    assert (await engine.aquery(LIST)).metadata["sot"]["route"] == "skeleton"


def test_an_engine_has_room_for_its_rows(kit, local_models):
    with local_models.LocalEngine(local_models.make_llama(), local_models.make_tokenizer(None), max_batch_size=5) as e:
        assert resolve_llm(TransformersLLM(engine=e), "auto").room(streamed=False, sync=True) == 5
    # The scripted model has no cache to batch: its rows run one after another.
    with local_models.scripted_engine("Just so.", local_models.PLAIN) as engine:
        response = kit.make(TransformersLLM(engine=engine), router="auto").query(LIST)
        assert (str(response), NO_ROOM in response.metadata["sot"]["reason"]) == ("Just so.", True)


def test_a_stock_object_without_an_engine_has_room_for_one_call(local_models):
    huggingface = pytest.importorskip("llama_index.llms.huggingface", reason="its class is not installed")
    parts = {"model": local_models.make_llama(), "tokenizer": local_models.make_tokenizer(None)}
    llm = huggingface.HuggingFaceLLM(**parts)
    assert resolve_llm(llm, "thread").room(streamed=False, sync=True) == 1

    class Served(huggingface.HuggingFaceLLM):
        """An overridden `complete` may serve many calls at a time."""

        def complete(self, prompt, formatted=False, **kwargs):
            raise NotImplementedError

    assert resolve_llm(Served(**parts), "thread").room(streamed=False, sync=True) is None


def test_copied_and_pickled_engines_keep_their_guards_measurements():
    ask = {"skeleton_template": "1. Rain\n2. Sun ({query_str})", "point_template": "All about {title}, {index}."}
    engine = SkeletonOfThoughtQueryEngine.from_defaults(MockLLM(), **ask)
    for _ in range(3):
        assert len(engine.query(LIST).points) == 2
    for copied in (copy.copy(engine), copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert "cost guard: about" in copied.query(LIST).metadata["sot"]["reason"]
    synthesizer = pickle.loads(pickle.dumps(SkeletonOfThoughtSynthesizer(MockLLM(), **ask)))
    assert len(synthesizer.get_response(LIST, ["A fact."])) > 0


def test_a_custom_guard_is_kept(llm, kit):
    router = AutoRouter(guard=CostGuard(max_extra_tokens=10))
    response = kit.make(llm, router=router).query(LIST)
    assert response.metadata["sot"]["route"] == "direct"
    assert "max_extra_tokens=10" in response.metadata["sot"]["reason"]


# --- custom routers ---------------------------------------------------------------------------


async def wants_pros(query):
    await asyncio.sleep(0)
    return RouteDecision("pros" in query, score=0.5, reason="are there pros?")


@pytest.mark.parametrize("router", [lambda query: "pros" in query, wants_pros], ids=["sync", "async"])
async def test_a_function_decides(way, llm, instrumented, router):
    assert (await way(llm, LIST, router=router)).metadata["sot"]["route"] == "skeleton"
    response = await way(llm, FACT, router=router)
    assert (response.metadata["sot"]["route"], str(response)) == ("direct", "Just so.")
    assert stages(llm).count("direct") == 1
    spans = instrumented.spans
    routes = [id_ for id_ in spans.parents if id_.startswith("SkeletonOfThought.route-")]
    assert len(routes) == 2
    assert all(spans.lineage(id_)[-1].startswith("SkeletonOfThoughtQueryEngine.") for id_ in routes)
    assert spans.open_spans == {}


async def test_a_failed_router_leads_to_a_direct_answer_and_is_the_reason(way, llm, instrumented):
    def router(query):
        raise OSError("no route")

    response = await way(llm, LIST, router=router)
    assert (stages(llm), str(response)) == (["direct"], "Just so.")
    assert response.metadata["sot"]["reason"] == "the router failed: OSError: no route"
    (routed,) = instrumented.events.of(Routed)
    assert (routed.use_skeleton, routed.reason) == (False, "the router failed: OSError: no route")
    assert instrumented.spans.open_spans == {}


@pytest.mark.parametrize("router", [5, "always", object()])
def test_an_invalid_router_is_refused_before_any_call(llm, kit, router):
    for make in (SkeletonOfThoughtQueryEngine, SkeletonOfThoughtSynthesizer):
        with pytest.raises(ValueError, match="router"):
            make(llm, router=router)
    assert llm.watch.seen == []


# --- with nodes, and in chats -----------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True], ids=["template", "own template"])
async def test_a_direct_answer_over_nodes_uses_the_direct_template(llm, kit, own):
    templates = {"direct_template": "By {context_str}: {query_str}"} if own else {}
    synthesizer = SkeletonOfThoughtSynthesizer(llm, **templates)
    nodes = [kit.node("a", "Paris is the capital.")]
    for response in (synthesizer.synthesize(FACT, nodes), await synthesizer.asynthesize(FACT, nodes)):
        assert str(response) == "Just so."
        assert [source.node.node_id for source in response.source_nodes] == ["a"]
    assert stages(llm) == ["direct", "direct"]
    fact = nodes[0].node.get_content(metadata_mode=MetadataMode.LLM)
    for seen in llm.watch.seen:
        assert fact in seen.text
        assert FACT in seen.text
        assert (seen.text == f"By {fact}: {FACT}") == own


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
async def test_a_chat_engine_routes_the_condensed_question(llm, kit, streaming):
    prompts = []

    def script(seen):
        prompts.append(seen.text)
        return [LIST if "on land" in seen.text else FACT]

    condensing = kit.SyncLLM(script=script)
    chat = CondenseQuestionChatEngine.from_defaults(
        query_engine=kit.make(llm, router="auto", streaming=streaming),
        llm=condensing,
        memory=ChatMemoryBuffer.from_defaults(llm=condensing),
    )

    async def say(message):
        llm.watch.seen.clear()
        if not streaming:
            return str(await chat.achat(message))
        streamed = await chat.astream_chat(message)
        return "".join([text async for text in streamed.async_response_gen()])

    assert await say("and the second one?") == "Just so."
    assert stages(llm) == ["direct"]
    assert (await say("And how is it compared with one on land?")).startswith("1. Move: ")
    assert stages(llm)[0] == "skeleton"
    assert FACT not in prompts[-1]
