"""The router that asks an LLM: its prompts, its usage, and its race with the skeleton."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from pydantic import BaseModel

import skeleton_of_thought
from llama_index_sot import PromptRouter, SkeletonOfThoughtQueryEngine, TransformersLLM
from llama_index_sot.events import Routed
from skeleton_of_thought import AutoRouter
from skeleton_of_thought.types import Conversation

TITLES = ["Move", "Drink water"]
TEXT = "1. Move: All about move.\n\n2. Drink water: All about drink water."


def is_route(seen):
    return seen.text.startswith("You sort questions by the form of their best answer.")


@pytest.fixture
def replying(kit):
    """A script that replies to the router with this word, and writes the answer."""

    def script_of(word, *steps):
        answer = kit.answering(TITLES)
        return lambda seen: [*steps, *kit.pieces(word)] if is_route(seen) else answer(seen)

    return script_of


def stages_of(llm):
    return ["route" if is_route(seen) else seen.stage for seen in llm.watch.seen]


# --- in an engine ----------------------------------------------------------------------------------


async def test_independent_points_get_a_skeleton(way, LLMClass, replying):
    llm = LLMClass(script=replying("INDEPENDENT"))
    response = await way(llm, "How?", router=PromptRouter(llm))
    assert str(response) == TEXT
    assert stages_of(llm)[:2] == ["route", "skeleton"]
    assert sorted(stages_of(llm)[2:]) == ["point", "point"]
    assert response.metadata["sot"]["reason"] == "the model takes the answer for independent points"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("NONE", "the model takes the answer for no list"),
        ("Dependent.", "the model takes the answer for points that build on each other"),
        ("Hm, let me see.", "the router's reply was not understood: 'Hm, let me see.'"),
    ],
)
async def test_any_other_reply_leads_to_a_direct_answer(way, LLMClass, replying, reply, reason):
    llm = LLMClass(script=replying(reply))
    response = await way(llm, "How?", router=PromptRouter(llm))
    assert str(response) == "Just so."
    assert stages_of(llm) == ["route", "direct"]
    assert llm.watch.seen[1].text == "How?"
    assert response.metadata["sot"]["reason"] == reason


async def test_the_usage_of_the_routing_call_is_counted(ways, kit, replying):
    usages = []
    for way in ways.values():
        llm = kit.ChatLLM(script=replying("NONE"))
        entry = (await way(llm, "How?", router=PromptRouter(llm))).metadata["sot"]
        stages = entry["usage_by_stage"]
        assert stages.keys() == {"route", "direct"}
        assert stages["route"]["input_tokens"] == len(llm.watch.seen[0].text.split())
        assert stages["route"]["output_tokens"] == len(kit.pieces("NONE"))
        assert entry["decision"]["usage"]["output_tokens"] == stages["route"]["output_tokens"]
        assert entry["usage"]["total_tokens"] == sum(stage["total_tokens"] for stage in stages.values())
        usages.append(stages["route"])
    assert all(usage == usages[0] for usage in usages)


async def test_another_llm_may_decide(way, LLMClass, kit, replying):
    llm, small = LLMClass(script=kit.answering(TITLES)), LLMClass(script=replying("NONE"))
    assert str(await way(llm, "How?", router=PromptRouter(small))) == "Just so."
    assert (stages_of(small), stages_of(llm)) == (["route"], ["direct"])


async def test_a_failed_routing_call_leads_to_a_direct_answer(way, LLMClass, kit):
    def script(seen):
        return [OSError("cut")] if is_route(seen) else kit.answering(TITLES)(seen)

    llm = LLMClass(script=script)
    response = await way(llm, "How?", router=PromptRouter(llm))
    assert (str(response), stages_of(llm)) == ("Just so.", ["route", "direct"])
    assert response.metadata["sot"]["reason"] == "the router failed: OSError: cut"


async def test_a_sync_llm_routes_outside_the_event_loop(kit, replying):
    llm = kit.SyncLLM(script=replying("NONE"))
    await kit.make(llm, router=PromptRouter(llm)).aquery("How?")
    assert [(seen.way, seen.on_loop) for seen in llm.watch.seen] == [("complete", False)] * 2
    llm = kit.ChatLLM(script=replying("NONE"))
    await kit.make(llm, router=PromptRouter(llm)).aquery("How?")
    assert [(seen.way, seen.on_loop) for seen in llm.watch.seen] == [("achat", True)] * 2


async def test_behind_the_gate_the_llm_decides_only_if_no_rule_does(way, LLMClass, replying):
    llm = LLMClass(script=replying("INDEPENDENT"))
    router = AutoRouter(PromptRouter(llm))
    await way(llm, "What is 17 * 4?", router=router)
    assert stages_of(llm) == ["direct"]
    await way(llm, "What makes a good teacher?", router=router)
    assert stages_of(llm)[1:3] == ["route", "skeleton"]


async def test_settings_llm_is_the_default(kit, replying, monkeypatch):
    router = PromptRouter()  # made before `Settings.llm` is set
    llm = kit.SyncLLM(script=replying("NONE"))
    monkeypatch.setattr(Settings, "_llm", llm)
    response = await SkeletonOfThoughtQueryEngine.from_defaults(router=router).aquery("How?")
    assert (str(response), stages_of(llm)) == ("Just so.", ["route", "direct"])


# --- spans and events -----------------------------------------------------------------------------


async def test_the_routing_call_is_a_span_of_the_answer(way, LLMClass, replying, instrumented):
    llm = LLMClass(script=replying("NONE"))
    await way(llm, "How?", router=PromptRouter(llm))
    spans, events = instrumented.spans, instrumented.events
    asked = events.of(LLMChatStartEvent, LLMCompletionStartEvent)
    owners = [
        next(id_.split("-")[0] for id_ in spans.lineage(event.span_id) if id_.startswith("SkeletonOfThought."))
        for event in asked
    ]
    assert owners == ["SkeletonOfThought.route", "SkeletonOfThought.direct"]
    assert all(spans.lineage(e.span_id)[-1].startswith("SkeletonOfThoughtQueryEngine.") for e in asked)
    assert [event.use_skeleton for event in events.of(Routed)] == [False]
    assert spans.open_spans == {}


async def test_a_failed_routing_call_drops_its_span(way, LLMClass, kit, instrumented):
    llm = LLMClass(script=lambda seen: [OSError("cut")] if is_route(seen) else ["Just so."])
    await way(llm, "How?", router=PromptRouter(llm))
    spans = instrumented.spans
    assert "SkeletonOfThought.route" in {id_.split("-")[0] for id_ in spans.dropped}
    assert spans.open_spans == {}


async def test_the_legacy_event_of_the_routing_call_is_within_the_query(way, LLMClass, kit, replying):
    legacy = kit.Legacy()
    manager = CallbackManager([legacy])
    llm = LLMClass(script=replying("NONE"), callback_manager=manager)
    await way(llm, "How?", router=PromptRouter(llm), callback_manager=manager)
    (query,) = [event for event in legacy.started if event.type == CBEventType.QUERY]
    calls = [event for event in legacy.started if event.type == CBEventType.LLM]
    assert [event.parent for event in calls] == [query.id, query.id]
    assert sorted(e.id for e in legacy.started) == sorted(e.id for e in legacy.ended)


# --- a race with the skeleton -----------------------------------------------------------------------


async def test_in_a_race_the_skeleton_is_written_during_the_decision(way, LLMClass, kit, replying):
    begun = kit.Gate(lambda: any(seen.stage == "skeleton" for seen in llm.watch.seen))
    llm = LLMClass(script=replying("INDEPENDENT", begun))
    response = await way(llm, "How?", router=PromptRouter(llm, race=True))
    assert str(response) == TEXT
    assert sorted(stages_of(llm)) == ["point", "point", "route", "skeleton"]


async def test_the_loser_of_a_race_is_cancelled(way, LLMClass, kit):
    direct = kit.Gate(lambda: any(seen.stage == "direct" and not is_route(seen) for seen in llm.watch.seen))
    begun = kit.Gate(lambda: any(seen.stage == "skeleton" for seen in llm.watch.seen))

    def script(seen):
        if is_route(seen):
            return [begun, "NONE"]
        if seen.stage == "skeleton":
            # A thread cannot be interrupted: after it has lost, it runs on to its next text.
            return ["1. Move\n", direct, "2. Drink water", "\n3. Sleep"]
        return ["Just so."]

    llm = LLMClass(script=script)
    response = await way(llm, "How?", router=PromptRouter(llm, race=True))
    assert (str(response), response.points) == ("Just so.", [])
    assert sorted(stages_of(llm)) == ["direct", "route", "skeleton"]
    assert llm.watch.open == 0
    assert response.metadata["sot"]["route"] == "direct"


async def test_a_losing_task_is_cancelled_while_it_waits(kit):
    begun = kit.Gate(lambda: any(seen.stage == "skeleton" for seen in llm.watch.seen))
    never, over = kit.Gate(lambda: False), []

    def script(seen):
        if is_route(seen):
            return [begun, "NONE"]
        return [never, lambda: over.append(seen)] if seen.stage == "skeleton" else ["Just so."]

    llm = kit.ChatLLM(script=script)
    assert str(await kit.make(llm, router=PromptRouter(llm, race=True)).aquery("How?")) == "Just so."
    assert (over, llm.watch.open) == ([], 0)


# --- without an engine ---------------------------------------------------------------------------------------


async def test_the_router_decides_without_an_engine(LLMClass, kit, replying):
    llm = LLMClass(script=replying("INDEPENDENT"))
    router = PromptRouter(llm)
    asked = Conversation.of("Any tips for a first marathon?")
    decisions = [await asyncio.to_thread(router.route, asked), await router.aroute(asked)]
    assert [decision.use_skeleton for decision in decisions] == [True, True]
    assert all(decision.usage.output_tokens == len(kit.pieces("INDEPENDENT")) for decision in decisions)
    assert "Any tips for a first marathon?" in llm.watch.seen[0].text


async def test_the_cores_prompt_router_takes_an_llm(kit, replying):
    llm = kit.ChatLLM(script=replying("NONE"))
    router = skeleton_of_thought.PromptRouter(llm, race=True)
    assert isinstance(router, PromptRouter)
    assert router.races
    assert not (await router.aroute(Conversation.of("How?"))).use_skeleton
    assert stages_of(llm) == ["route"]


async def test_the_llms_own_limit_applies_unless_one_is_given(LLMClass, replying):
    llm = LLMClass(script=replying("NONE"))
    for router in (PromptRouter(llm), PromptRouter(llm, max_tokens=50)):
        await asyncio.to_thread(router.route, Conversation.of("How?"))
        await router.aroute(Conversation.of("How?"))
    assert [seen.kwargs.get("max_tokens") for seen in llm.watch.seen] == [None, None, 50, 50]


@pytest.mark.parametrize(("max_tokens", "expected"), [(None, 16), (7, 7)])
async def test_a_local_models_reply_is_short(local_models, max_tokens, expected):
    with local_models.scripted_engine("Let me think about it, step by step.", local_models.PLAIN) as engine:
        router = PromptRouter(TransformersLLM(engine=engine), max_tokens=max_tokens)
        for decision in (router.route(Conversation.of("How?")), await router.aroute(Conversation.of("How?"))):
            assert decision.usage.output_tokens == expected
            assert not decision.use_skeleton


class Word(BaseModel):
    word: str


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"llm": "gpt"}, "llm must be an LLM of LlamaIndex, not str"),
        ({"llm": StructuredLLM(llm=MockLLM(), output_cls=Word)}, "pass the LLM inside of it, MockLLM"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": "16"}, "max_tokens must be at least 1"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PromptRouter(**settings)


def test_the_router_has_a_readable_repr():
    assert repr(PromptRouter(MockLLM(), race=True)) == "PromptRouter(MockLLM, race=True, max_tokens=None)"
    assert repr(PromptRouter(max_tokens=5)) == "PromptRouter(Settings.llm, race=False, max_tokens=5)"
