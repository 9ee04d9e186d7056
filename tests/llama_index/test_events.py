"""The events of an answer: typed events, spans, and the legacy callbacks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, TokenCountingHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalStartEvent

from llama_index_sot.events import (
    AnswerDelta,
    AnswerReady,
    AnswerRestarted,
    PointDelta,
    PointDone,
    PointRestarted,
    PointSources,
    SkeletonReady,
)

TITLES = ["Move", "Drink water", "Sleep more"]


@pytest.fixture
def retriever(kit):
    return kit.AsyncRetriever(lambda query: [kit.node(query.partition(" (")[0])])


# --- typed events ----------------------------------------------------------------------------------


async def test_the_instrumentation_gets_every_event(way, LLMClass, kit, retriever, instrumented):
    response = await way(LLMClass(script=kit.answering(TITLES)), "How?", retriever=retriever)
    events = instrumented.events
    (ready,) = events.of(SkeletonReady)
    assert ready.titles == TITLES
    assert sorted((e.index, e.title, e.node_ids) for e in events.of(PointSources)) == [
        (i, title, [title]) for i, title in enumerate(TITLES, 1)
    ]
    assert sorted((e.index, e.text, e.error, e.node_ids) for e in events.of(PointDone)) == [
        (i, f"All about {title.lower()}.", None, [title]) for i, title in enumerate(TITLES, 1)
    ]
    for i, point in enumerate(response.points, 1):
        assert "".join(e.text for e in events.of(PointDelta) if e.index == i) == point.text
    assert "".join(e.text for e in events.of(AnswerDelta)) == str(response)
    assert len(events.of(QueryStartEvent)) == len(events.of(QueryEndEvent)) == 1
    order = [type(e) for e in events.of(SkeletonReady, PointSources, PointDone)]
    assert order[0] is SkeletonReady
    assert order.index(PointSources) < order.index(PointDone)


async def test_events_have_the_engines_span(way, kit, instrumented):
    await way(kit.ChatLLM(script=kit.answering(TITLES)), "How?")
    emitted = instrumented.events.of(SkeletonReady, PointDone, AnswerDelta)
    assert {event.span_id.split("-")[0] for event in emitted} <= {
        "SkeletonOfThoughtQueryEngine._query",
        "SkeletonOfThoughtQueryEngine._aquery",
        "SkeletonOfThoughtQueryEngine.astream_events",
    }
    assert len({event.span_id for event in emitted}) == 1


async def test_events_stream_in_order_and_end_with_the_response(LLMClass, kit, retriever):
    engine = kit.make(LLMClass(script=kit.answering(TITLES)), retriever=retriever)
    events = [event async for event in engine.astream_events("How?")]
    assert isinstance(events[-1], AnswerReady)
    assert sum(isinstance(event, AnswerReady) for event in events) == 1
    assert "".join(e.text for e in events if isinstance(e, AnswerDelta)) == str(events[-1].response)
    for i in (1, 2, 3):
        own = [type(e).__name__ for e in events if getattr(e, "index", None) == i]
        assert own[0] == "PointSources"
        assert own[-1] == "PointDone"
        assert set(own[1:-1]) == {"PointDelta"}
        assert len(own) > 3, "the text of a point did not come in pieces"


async def test_sources_of_the_whole_query_have_no_index(kit, retriever):
    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)), retriever=retriever, retrieval="once")
    (sources,) = [e async for e in engine.astream_events("How?") if isinstance(e, PointSources)]
    assert (sources.index, sources.node_ids) == (None, ["How?"])
    assert sources.nodes[0].node.node_id == "How?"


async def test_a_point_that_is_written_again_has_a_restart_event(kit):
    failed = []

    def script(seen):
        if seen.point == 2 and not failed:
            failed.append(1)
            return ["Half ", OSError("cut")]
        if seen.point == 1:
            return [kit.Gate(lambda: failed), "One."]
        return kit.answering(TITLES)(seen)

    engine = kit.make(kit.ChatLLM(script=script))
    events = [event async for event in engine.astream_events("How?")]
    (restarted,) = [e for e in events if isinstance(e, PointRestarted)]
    assert (restarted.index, restarted.title, restarted.error) == (2, "Drink water", "OSError: cut")
    after = events[events.index(restarted) :]
    assert "".join(e.text for e in after if isinstance(e, PointDelta) and e.index == 2) == "All about drink water."


async def test_a_merge_that_breaks_restarts_the_answer(kit):
    def script(seen):
        return ["So it ", OSError("cut")] if seen.stage == "merge" else kit.answering(TITLES)(seen)

    engine = kit.make(kit.ChatLLM(script=script), merge=True, max_retries=0)
    events = [event async for event in engine.astream_events("How?")]
    (restarted,) = [e for e in events if isinstance(e, AnswerRestarted)]
    after = events[events.index(restarted) :]
    assert "".join(e.text for e in after if isinstance(e, AnswerDelta)) == str(events[-1].response)


async def test_a_failure_ends_the_events_with_the_error(LLMClass, kit):
    engine = kit.make(LLMClass(script=lambda seen: [OSError("no route")]), max_retries=0)
    with pytest.raises(OSError, match="no route"):
        _ = [event async for event in engine.astream_events("How?")]


def test_events_become_json():
    event = PointSources(index=1, title="Move", node_ids=["a"], nodes=[object()])
    data = event.model_dump(mode="json")
    assert data["node_ids"] == ["a"]
    assert data["class_name"] == "PointSources"
    assert "nodes" not in data


# --- spans -----------------------------------------------------------------------------------------


async def test_all_spans_descend_from_the_engines_and_none_stays_open(way, LLMClass, kit, retriever, instrumented):
    await way(LLMClass(script=kit.answering(TITLES)), "How?", retriever=retriever)
    spans = instrumented.spans
    roots = [id_ for id_, parent in spans.parents.items() if parent is None]
    assert len(roots) == 1
    assert roots[0].startswith("SkeletonOfThoughtQueryEngine.")
    assert all(spans.lineage(id_)[-1] == roots[0] for id_ in spans.parents)
    assert spans.open_spans == {}
    assert set(spans.ended) == set(spans.parents)
    names = sorted(id_.split("-")[0] for id_ in spans.parents if id_.startswith("SkeletonOfThought."))
    assert names == sorted(
        ["SkeletonOfThought.skeleton"]
        + [f"SkeletonOfThought.{kind}_{i}" for kind in ("point", "sources") for i in (1, 2, 3)]
    )


async def test_calls_of_the_llm_are_in_the_span_of_their_point(way, LLMClass, kit, instrumented):
    await way(LLMClass(script=kit.answering(TITLES)), "How?")
    spans = instrumented.spans
    started = instrumented.events.of(LLMChatStartEvent, LLMCompletionStartEvent)
    assert len(started) == 4
    assert len(instrumented.events.of(LLMChatEndEvent, LLMCompletionEndEvent)) == 4
    owners = sorted(
        next(id_.split("-")[0] for id_ in spans.lineage(event.span_id) if id_.startswith("SkeletonOfThought."))
        for event in started
    )
    assert owners == [f"SkeletonOfThought.{name}" for name in ("point_1", "point_2", "point_3", "skeleton")]


async def test_a_failing_call_drops_its_span(way, LLMClass, kit, instrumented):
    def script(seen):
        return [OSError("cut")] if seen.point == 2 else kit.answering(TITLES)(seen)

    await way(LLMClass(script=script), "How?", on_point_error="placeholder", max_retries=0)
    spans = instrumented.spans
    assert [id_.split("-")[0] for id_ in spans.dropped if id_.startswith("SkeletonOfThought.")] == [
        "SkeletonOfThought.point_2"
    ]
    assert spans.open_spans == {}


async def test_closing_early_leaves_no_span_open(LLMClass, kit, instrumented):
    def script(seen):
        if seen.stage == "skeleton":
            return ["1. One\n2. Two"]
        return ("and " for _ in iter(int, 1))

    events = kit.make(LLMClass(script=script)).astream_events("How?")
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, PointDelta):
                break
    assert instrumented.spans.open_spans == {}


async def test_a_readers_own_context_is_unchanged(kit, instrumented):
    from llama_index.core.instrumentation.span import active_span_id

    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)))
    async for _ in engine.astream_events("How?"):
        assert active_span_id.get() is None
    response = await kit.make(kit.ChatLLM(script=kit.answering(TITLES)), streaming=True).aquery("How?")
    async for _ in response.response_gen:
        assert active_span_id.get() is None


async def test_context_variables_of_the_caller_reach_every_call(way, LLMClass, kit, retriever):
    name = contextvars.ContextVar("name", default="nobody")
    found = []

    def script(seen):
        found.append(name.get())
        return kit.answering(TITLES)(seen)

    retriever._hook = lambda query: found.append(name.get())
    name.set("caller")
    await way(LLMClass(script=script), "How?", retriever=retriever)
    assert found == ["caller"] * 7


# --- legacy callbacks ------------------------------------------------------------------------------


async def test_the_legacy_callbacks_get_query_points_and_calls(way, LLMClass, kit, retriever):
    legacy = kit.Legacy()
    manager = CallbackManager([legacy])
    llm = LLMClass(script=kit.answering(TITLES), callback_manager=manager)
    retriever.callback_manager = manager
    response = await way(llm, "How?", retriever=retriever, callback_manager=manager)
    (query,) = [e for e in legacy.started if e.type == CBEventType.QUERY]
    assert query.payload[EventPayload.QUERY_STR] == "How?"
    points = [e for e in legacy.started if e.type == CBEventType.SUB_QUESTION]
    assert sorted(e.payload[EventPayload.SUB_QUESTION].sub_q.sub_question for e in points) == sorted(
        f"{title} (How?)" for title in TITLES
    )
    assert {e.parent for e in points} == {query.id}
    done = [e for e in legacy.ended if e.type == CBEventType.SUB_QUESTION]
    assert sorted(e.payload[EventPayload.SUB_QUESTION].answer for e in done) == sorted(p.text for p in response.points)
    calls = [e for e in legacy.started if e.type == CBEventType.LLM]
    assert len(calls) == 4
    assert sorted(e.parent for e in calls if e.parent != query.id) == sorted(e.id for e in points)
    assert len([e for e in legacy.started if e.type == CBEventType.RETRIEVE]) == 3
    assert sorted(e.id for e in legacy.started) == sorted(e.id for e in legacy.ended)
    assert legacy.traces[0] == "start query"
    assert legacy.traces[-1] == "end query"
    (end,) = [e for e in legacy.ended if e.type == CBEventType.QUERY]
    assert EventPayload.RESPONSE in end.payload


async def test_a_failing_query_ends_its_legacy_events(way, LLMClass, kit):
    legacy = kit.Legacy()
    llm = LLMClass(script=lambda seen: [OSError("cut")])
    with pytest.raises(OSError, match="cut"):
        await way(llm, "How?", callback_manager=CallbackManager([legacy]), max_retries=0)
    assert {e.id for e in legacy.started if e.type == CBEventType.QUERY} <= {e.id for e in legacy.ended}


async def test_tokens_are_counted_the_same_by_every_method(ways, kit):
    counts = set()
    for way in ways.values():
        counter = TokenCountingHandler()
        llm = kit.ChatLLM(script=kit.answering(TITLES), callback_manager=CallbackManager([counter]))
        await way(llm, "How?")
        assert len(counter.llm_token_counts) == 4
        counts.add((counter.prompt_llm_token_count, counter.completion_llm_token_count))
    assert len(counts) == 1


def test_the_llm_keeps_its_own_callback_manager(kit):
    manager = CallbackManager([])
    llm = kit.SyncLLM(script=kit.answering(TITLES), callback_manager=manager)
    kit.make(llm, callback_manager=CallbackManager([kit.Legacy()])).query("How?")
    assert llm.callback_manager is manager


def test_retrieval_events_are_those_of_the_retriever(kit, retriever, instrumented):
    kit.make(kit.ChatLLM(script=kit.answering(TITLES)), retriever=retriever).query("How?")
    assert len(instrumented.events.of(RetrievalStartEvent)) == 3
    asyncio.run(kit.make(kit.ChatLLM(script=kit.answering(TITLES)), retriever=retriever).aquery("How?"))
    assert len(instrumented.events.of(RetrievalStartEvent)) == 6
