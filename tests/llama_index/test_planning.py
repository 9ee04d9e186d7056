"""Planned answers: points that build on others, templates, openings and closings, events and traces."""

from __future__ import annotations

import dataclasses
import pickle
import re

import pytest
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import QueryBundle

from llama_index_sot import (
    PromptRouter,
    SkeletonOfThoughtLLM,
    SkeletonOfThoughtQueryEngine,
    SkeletonOfThoughtSynthesizer,
    SkeletonOfThoughtWorkflow,
)
from llama_index_sot.answer import AnswerConfig
from llama_index_sot.events import (
    AnswerDelta,
    AnswerRestarted,
    OverlapFound,
    PointDone,
    PointRestarted,
    RoleDone,
    RoleStarted,
    Routed,
    SkeletonReady,
    SkeletonRestarted,
)
from llama_index_sot.llm_calls import resolve_llm
from skeleton_of_thought.adapters.engines import EAGER_PAYS_LOCALLY
from skeleton_of_thought.errors import InvalidInput, PointError, PromptTooLong
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Point, RouteDecision, Skeleton

PLAN = (
    "1. Trains: speed and comfort; prices are left to point 2\n"
    "2. Prices: what each of them costs\n"
    "3. Planes: time in the air and at the airport\n"
    "4. Which one to take: who is better off with which (after 1, 3)\n"
)
TEXTS = {
    1: "A train is slow but pleasant.",
    2: "A ticket costs thirty euros.",
    3: "A plane is fast and cramped.",
    4: "Take the train if you have a day.",
}
TITLES = ["Trains", "Prices", "Planes", "Which one to take"]
PARENTS = (1, 3)


def script(kit, plan=PLAN, **texts):
    """A script that writes this plan, the texts of its points, an opening and a closing."""

    def answer(seen):
        if seen.stage == "skeleton":
            return kit.pieces(plan)
        if seen.stage == "point":
            return texts.get(f"point_{seen.point}") or kit.pieces(TEXTS[seen.point])
        return texts.get(seen.stage) or kit.pieces(f"The {seen.stage}.")

    return answer


def plan_of(response):
    return [(p["index"], p["depends_on"], p["wave"]) for p in response.metadata["sot"]["plan"]]


def named(spans, name):
    return next(id_ for id_ in spans if id_.startswith(f"SkeletonOfThought.{name}-"))


# --- points that build on others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [False, True, "auto"])
async def test_a_point_is_written_after_its_parents_and_sees_their_texts(ask, LLMClass, kit, eager):
    llm = LLMClass(script=script(kit))
    response = await ask(llm, "Train or plane?", planning="graph", eager=eager)
    assert str(response) == "\n\n".join(f"{i}. {title}: {TEXTS[i]}" for i, title in enumerate(TITLES, 1))
    assert [seen.stage for seen in llm.watch.seen].count("point") == 4
    (child,) = llm.watch.of("point", 4)
    assert [i for i in (1, 2, 3) if TEXTS[i] in child.text] == [1, 3]
    assert not any(TEXTS[i] in seen.text for seen in llm.watch.of("point") if seen.point != 4 for i in TEXTS)
    assert plan_of(response) == [(1, [], 1), (2, [], 1), (3, [], 1), (4, [1, 3], 2)]
    assert [point.depends_on for point in response.points] == [(), (), (), PARENTS]
    assert response.points[0].scope == "speed and comfort; prices are left to point 2"
    assert response.metadata["sot"]["planning"] == "graph"
    assert [times["wave"] for times in response.metadata["sot"]["timings"]["points"]] == [1, 1, 1, 2]


async def test_scopes_alone_let_all_points_run_at_once(ask, LLMClass, kit):
    plan = "\n".join(f"{i}. {title}: all about it" for i, title in enumerate(TITLES, 1))
    llm = LLMClass(script=script(kit, plan))
    response = await ask(llm, "Train or plane?", planning="scoped")
    assert [point.scope for point in response.points] == ["all about it"] * 4
    assert {tuple(point.depends_on) for point in response.points} == {()}
    assert all("2. Prices: all about it" in seen.text for seen in llm.watch.of("point"))


async def test_a_plan_without_two_points_side_by_side_is_answered_directly(ask, LLMClass, kit):
    chain = "1. Mix: the dough\n2. Rest: the dough (after 1)\n3. Bake: the dough (after 2)"
    llm = LLMClass(script=script(kit, chain, direct=["Mix, rest, bake."]))
    response = await ask(llm, "How is bread made?", planning="graph")
    assert (str(response), response.points) == ("Mix, rest, bake.", [])
    assert response.metadata["sot"]["route"] == "direct"
    assert "builds on the one before" in response.metadata["sot"]["reason"]


@pytest.mark.parametrize(("policy", "error"), [("write", None), ("fail", "ParentError")])
async def test_a_failed_parent_is_left_out_or_fails_its_child(ask, LLMClass, kit, policy, error):
    llm = LLMClass(script=script(kit, point_1=[OSError("cut")]))
    settings = {"on_parent_error": policy, "on_point_error": "placeholder", "placeholder": "(none)", "max_retries": 0}
    response = await ask(llm, "Train or plane?", planning="graph", **settings)
    child = response.points[3]
    assert (child.error or "").partition(":")[0] == (error or "")
    assert len(llm.watch.of("point", 4)) == (error is None)
    assert child.text == ("(none)" if error else TEXTS[4])
    if error is None:
        assert child.missing == (1,)
        assert TEXTS[3] in llm.watch.of("point", 4)[0].text
        assert "(none)" not in llm.watch.of("point", 4)[0].text


async def test_a_failed_parent_ends_an_answer_that_may_not_have_gaps(ask, LLMClass, kit):
    llm = LLMClass(script=script(kit, point_1=[OSError("cut")]))
    with pytest.raises(PointError, match="'Trains'"):
        await ask(llm, "Train or plane?", planning="graph", max_retries=0)
    assert llm.watch.of("point", 4) == []
    assert llm.watch.open == 0


async def test_a_childs_nodes_are_found_at_once_and_stand_beside_its_parents(ask, LLMClass, kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.partition(" (")[0])])

    def sought():
        return len(retriever.watch.seen) == 4

    llm = LLMClass(script=script(kit, point_1=[kit.Gate(sought), TEXTS[1]]))
    response = await ask(llm, "Train or plane?", planning="graph", retriever=retriever)
    (child,) = llm.watch.of("point", 4)
    assert "The text of Which one to take." in child.text
    assert [i for i in (1, 2, 3) if TEXTS[i] in child.text] == [1, 3]
    assert "The text of Trains." not in child.text
    assert [point.node_ids for point in response.points] == [(title,) for title in TITLES]


# --- templates -----------------------------------------------------------------------------------------------------


def test_a_point_template_shows_scope_and_parents_where_it_asks_for_them(kit):
    llm = kit.ChatLLM(script=script(kit))
    template = "The point to write: {index}. {title} [{scope}] <{parents}>"
    kit.make(llm, planning="graph", point_template=template).query("Train or plane?")
    prompts = {seen.point: seen.text for seen in llm.watch.of("point")}
    assert prompts[2] == "The point to write: 2. Prices [what each of them costs] <>"
    shown = f"1. Trains\n{TEXTS[1]}\n\n3. Planes\n{TEXTS[3]}"
    assert prompts[4] == f"The point to write: 4. Which one to take [who is better off with which] <{shown}>"


def test_a_point_template_without_parents_gets_them_before_its_point(kit):
    llm = kit.ChatLLM(script=script(kit))
    template = "A guide: {query_str}\n\nThe point to write: {index}. {title}"
    kit.make(llm, planning="graph", point_template=template).query("Train or plane?")
    (child,) = llm.watch.of("point", 4)
    before, after = child.text.split(TEXTS[3])
    assert before.startswith("A guide: Train or plane?\n\n")
    assert after.endswith("The point to write: 4. Which one to take")
    assert "Which one" not in before


def test_a_template_for_plans_serves_titles_too(kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES[:2]))
    template = PromptTemplate("The point to write: {index}. {title} [{scope}] <{parents}>")
    kit.make(llm, point_template=template).query("Train or plane?")
    assert {seen.text for seen in llm.watch.of("point")} == {
        "The point to write: 1. Trains [] <>",
        "The point to write: 2. Prices [] <>",
    }


def test_a_callers_own_variable_may_have_the_name_of_a_plans(kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES[:2]))
    synthesizer = SkeletonOfThoughtSynthesizer(
        llm, router=None, point_template="The point to write: {index}. {title} for {plan}"
    )
    assert synthesizer.get_response("Train or plane?", ["A fact."], plan="travellers")
    assert all("for travellers" in seen.text for seen in llm.watch.of("point"))


@pytest.mark.parametrize("make", [SkeletonOfThoughtQueryEngine.from_defaults, SkeletonOfThoughtSynthesizer])
def test_the_point_template_that_is_shown_is_the_one_of_the_settings(kit, make):
    own = PromptSet(planned_point="{question} The point to write: {index}. {title}")
    titles, planned = (make(kit.ChatLLM(script=script(kit)), planning=kind) for kind in ("auto", "graph"))
    shown = planned.get_prompts()["point_template"].get_template()
    assert "{plan}" in shown
    assert "{plan}" not in titles.get_prompts()["point_template"].get_template()
    planned.update_prompts(planned.get_prompts())
    assert planned._templates.own == {}
    llm = kit.ChatLLM(script=script(kit))
    engine = kit.make(llm, planning="graph", prompts=own)
    engine.update_prompts({"point_template": PromptTemplate(f"{shown}\n\nIn verse.")})
    engine.query("Train or plane?")
    (child,) = llm.watch.of("point", 4)
    assert child.text.endswith("\n\nIn verse.")
    assert [i for i in (1, 2, 3) if TEXTS[i] in child.text] == [1, 3]


# --- openings and closings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", [True, "restart"])
async def test_an_opening_and_a_closing_stand_around_the_points(ask, LLMClass, kit, opening):
    llm, points = LLMClass(script=script(kit)), LLMClass(script=script(kit))
    plan = {"planning": "graph", "opening": opening, "closing": True}
    response = await ask(llm, "Train or plane?", point_llm=points, **plan)
    text = "\n\n".join(f"{i}. {title}: {TEXTS[i]}" for i, title in enumerate(TITLES, 1))
    assert str(response) == f"The opening.\n\n{text}\n\nThe closing."
    # Their LLM is that of the skeleton and the merge.
    assert sorted(seen.stage for seen in llm.watch.seen) == ["closing", "opening", "skeleton"]
    assert {seen.stage for seen in points.watch.seen} == {"point"}
    assert all(TEXTS[i] in seen.text for seen in llm.watch.of("opening") + llm.watch.of("closing") for i in TEXTS)
    sot = response.metadata["sot"]
    assert (sot["opening"], sot["closing"], sot["role_errors"]) == ("The opening.", "The closing.", {})
    assert {"opening", "closing"} <= sot["timings"]["stages"].keys()


async def test_an_answer_goes_without_an_opening_that_failed(ask, LLMClass, kit):
    llm = LLMClass(script=script(kit, opening=[OSError("cut")]))
    response = await ask(llm, "Train or plane?", planning="graph", opening=True, closing=True, max_retries=0)
    assert str(response).startswith("1. Trains: ")
    assert str(response).endswith("\n\nThe closing.")
    sot = response.metadata["sot"]
    assert (sot["opening"], sot["role_errors"]) == ("", {"opening": {"type": "OSError", "message": "cut"}})


async def test_a_chats_memory_has_the_points_once(kit):
    llm = kit.CompletingLLM(script=script(kit))
    sot_llm = SkeletonOfThoughtLLM(llm, router=None, planning="graph", opening="restart")
    memory = ChatMemoryBuffer.from_defaults(token_limit=10_000)
    engine = SimpleChatEngine.from_defaults(llm=sot_llm, memory=memory)
    whole = str(engine.chat("Train or plane?"))
    assert whole.startswith("The opening.\n\n1. Trains: ")
    assert "".join(engine.stream_chat("Train or plane?").response_gen) == whole
    response = await engine.astream_chat("Train or plane?")
    assert "".join([text async for text in response.async_response_gen()]) == whole
    assert [message.content for message in engine.chat_history[1::2]] == [whole] * 3


# --- events, spans and callbacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [False, True])
async def test_events_show_scopes_parents_waves_and_roles(kit, eager):
    settings = {"planning": "graph", "eager": eager, "opening": True, "closing": True}
    engine = kit.make(kit.ChatLLM(script=script(kit)), **settings)
    events = [event async for event in SkeletonOfThoughtWorkflow(engine).run(query="Which?").stream_events()]
    (ready,) = [event for event in events if isinstance(event, SkeletonReady)]
    assert ready.titles == TITLES
    assert ready.plan[3] == {
        "index": 4,
        "title": "Which one to take",
        "depends_on": [1, 3],
        "scope": "who is better off with which",
        "words": None,
        "wave": 2,
    }
    done = {event.index: event for event in events if isinstance(event, PointDone)}
    assert [(i, done[i].depends_on, done[i].wave) for i in sorted(done)] == [
        (1, [], 1),
        (2, [], 1),
        (3, [], 1),
        (4, [1, 3], 2),
    ]
    assert done[2].scope == "what each of them costs"
    order = [event for event in events if isinstance(event, PointDone | RoleStarted | RoleDone)]
    assert [type(event) for event in order[:6]] == [PointDone] * 4 + [RoleStarted] * 2
    assert [event.role for event in order[4:6]] == ["opening", "closing"]
    assert {(event.role, event.text, event.error) for event in order[6:]} == {
        ("opening", "The opening.", None),
        ("closing", "The closing.", None),
    }
    assert done[4].model_dump(mode="json")["depends_on"] == [1, 3]


async def test_an_opening_that_was_not_waited_for_restarts_the_answer(kit):
    engine = kit.make(kit.ChatLLM(script=script(kit)), planning="graph", opening="restart")
    events = [event async for event in engine.astream_events("Train or plane?")]
    (restarted,) = [event for event in events if isinstance(event, AnswerRestarted)]
    assert restarted.error.startswith("OpeningWritten")
    after = events[events.index(restarted) :]
    assert "".join(event.text for event in after if isinstance(event, AnswerDelta)) == str(events[-1].response)


async def test_a_point_that_repeats_another_is_written_anew(kit):
    same = "The train from Oslo to Bergen takes seven hours and crosses the high plateau in between."
    again = []

    def answer(seen):
        if seen.stage != "point":
            return ["1. Trains\n2. The journey"]
        if seen.point == 2 and again:
            return ["It is best in June."]
        again.extend([1] * (seen.point == 2))
        return [same]

    llm = kit.ChatLLM(script=answer)
    engine = kit.make(llm, rewrite_overlap=True)
    events = [event async for event in engine.astream_events("How is the journey?")]
    (found,) = [event for event in events if isinstance(event, OverlapFound)]
    assert (found.index, found.title, found.other, found.share) == (2, "The journey", 1, 1.0)
    assert found.passage in same
    (restarted,) = [event for event in events if isinstance(event, PointRestarted)]
    assert restarted.error.startswith("PointOverlap")
    assert [(e.index, e.rewritten) for e in events if isinstance(e, PointDone)] == [(1, False), (2, True)]
    assert found.passage in llm.watch.of("point", 2)[1].text
    assert str(events[-1].response) == f"1. Trains: {same}\n\n2. The journey: It is best in June."
    assert [point.rewritten for point in events[-1].response.points] == [False, True]


async def test_a_plan_that_is_given_up_restarts_the_skeleton(kit):
    chain = "1. Mix: the dough\n2. Rest: the dough (after 1)"
    engine = kit.make(kit.ChatLLM(script=script(kit, chain, direct=["Mix."])), planning="graph")
    events = [event async for event in engine.astream_events("How is bread made?")]
    assert [event.titles for event in events if isinstance(event, SkeletonRestarted)] == [["Mix", "Rest"]]
    assert not any(isinstance(event, SkeletonReady) for event in events)


async def test_spans_and_callbacks_show_what_a_point_waited_for(ask, LLMClass, kit, instrumented):
    legacy = kit.Legacy()
    llm = LLMClass(script=script(kit))
    settings = {"planning": "graph", "closing": True, "callback_manager": CallbackManager([legacy])}
    await ask(llm, "Train or plane?", **settings)
    arguments = instrumented.spans.arguments
    child = arguments[named(arguments, "point_4")]
    assert (child["depends_on"], child["scope"]) == ([1, 3], "who is better off with which")
    assert arguments[named(arguments, "point_2")]["depends_on"] == []
    assert arguments[named(arguments, "closing")]["stage"] == "closing"
    assert instrumented.spans.open_spans == {}
    shown = [event.payload["skeleton_of_thought"] for event in legacy.started if event.type == CBEventType.SUB_QUESTION]
    assert sorted((each["index"], each["depends_on"]) for each in shown) == [(1, []), (2, []), (3, []), (4, [1, 3])]


async def test_titles_have_the_spans_and_callbacks_that_they_had(kit, instrumented):
    legacy = kit.Legacy()
    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)), callback_manager=CallbackManager([legacy]))
    await engine.aquery("Train or plane?")
    points = [event for event in legacy.started if event.type == CBEventType.SUB_QUESTION]
    assert len(points) == 4
    assert all(len(event.payload) == 1 for event in points)
    arguments = instrumented.spans.arguments
    assert arguments[named(arguments, "point_1")].keys() == {"stage", "point", "title", "attempt"}


# --- kinds that the router and the backend choose ------------------------------------------------------------------


class Advising:
    """A router that asks for a graph where points may build on each other, and remembers what it was told."""

    def __init__(self):
        self.graph = []

    def at_once(self, conversation):
        graph = conversation.request.graph
        self.graph.append(graph)
        return RouteDecision(graph, reason="It compares.", planning="graph" if graph else None)

    def route(self, conversation):
        return self.at_once(conversation)

    async def aroute(self, conversation):
        return self.at_once(conversation)


@pytest.mark.parametrize("make", [SkeletonOfThoughtQueryEngine.from_defaults, SkeletonOfThoughtLLM])
def test_auto_plans_a_graph_where_the_router_asks_for_one(kit, make):
    llm, router = kit.ChatLLM(script=script(kit)), Advising()
    made = make(llm, planning="auto", router=router)
    if isinstance(made, SkeletonOfThoughtLLM):
        sot = made.complete("Train or plane?").additional_kwargs["sot"]
        assert [point["depends_on"] for point in sot["points"]] == [[], [], [], [1, 3]]
    else:
        sot = made.query("Train or plane?").metadata["sot"]
    assert sot["planning"] == "graph"
    assert sot["decision"]["planning"] == "graph"
    assert set(router.graph) == {True}


async def test_auto_follows_the_model_that_is_asked_for_the_route(ask, LLMClass, kit):
    def answer(seen):
        return ["DEPENDENT"] if "INDEPENDENT" in seen.text else script(kit)(seen)

    llm = LLMClass(script=answer)
    response = await ask(llm, "Train or plane?", planning="auto", router=PromptRouter(llm))
    assert plan_of(response)[3] == (4, [1, 3], 2)
    response = await ask(llm, "Train or plane?", router=PromptRouter(llm))
    assert response.metadata["sot"]["route"] == "direct"


def test_auto_asks_no_more_for_what_a_model_could_not_do_twice(kit):
    llm = kit.ChatLLM(script=script(kit, "1. Trains\n2. Planes\n3. Prices"))
    engine = kit.make(llm, planning="auto", router=Advising())
    asked = [engine.query("Train or plane?").metadata["sot"]["planning"] for _ in range(2)]
    assert asked == ["graph", "graph"]
    third = pickle.loads(pickle.dumps(engine._plans))
    assert not third.may("graph")
    assert engine.query("Train or plane?").metadata["sot"]["route"] == "direct"
    assert kit.make(llm, planning="graph")._plans is None


def test_the_llm_tells_its_router_what_the_wrapped_one_can_plan(kit):
    llm = kit.CompletingLLM(script=script(kit, "1. Trains\n2. Planes\n3. Prices"))
    router = Advising()
    sot_llm = SkeletonOfThoughtLLM(llm, planning="auto", router=router)
    found = [sot_llm.complete("Train or plane?").additional_kwargs["sot"] for _ in range(24)]
    # Twice in vain, directly for 20 answers, and once more.
    assert router.graph == [True] * 2 + [False] * 20 + [True, False]
    assert [sot["route"] for sot in found] == ["skeleton"] * 2 + ["direct"] * 20 + ["skeleton", "direct"]


async def test_events_have_the_kind_that_the_router_advises(kit):
    engine = kit.make(kit.ChatLLM(script=script(kit)), planning="auto", router=Advising())
    (routed,) = [event async for event in engine.astream_events("Which?") if isinstance(event, Routed)]
    assert (routed.use_skeleton, routed.planning) == (True, "graph")


def test_eager_auto_follows_the_backend_of_the_points(kit):
    remote = resolve_llm(kit.ChatLLM(script=script(kit)), "auto")
    serial = dataclasses.replace(remote, serial=True)
    settings = Settings(eager="auto")
    prompts = kit.make(remote.llm)._templates.prompt_set()

    def eager(llm, points):
        config = AnswerConfig(llm=llm, point_llm=points, prompts=prompts, settings=settings)
        return config.flow(QueryBundle("How?"), live=False, sync=True).settings.eager

    assert (eager(serial, remote), eager(remote, serial)) == (True, EAGER_PAYS_LOCALLY)


def test_eager_auto_starts_points_while_the_skeleton_is_written(kit):
    started = kit.Gate(lambda: llm.watch.of("point"))

    def answer(seen):
        if seen.stage == "skeleton":
            return ["1. Trains\n", "2. Planes\n", started, "3. Prices"]
        return [TEXTS[seen.point]]

    llm = kit.ChatLLM(script=answer)
    assert len(kit.make(llm, eager="auto").query("How?").points) == 3


# --- windows, values and pickles -----------------------------------------------------------------------------------


def test_the_window_has_to_hold_the_parents_beside_the_nodes(kit):
    plan = "1. Trains\n2. Prices\n3. Planes\n4. Which one to take (after 1, 3)"

    def engine(window, **settings):
        meta = LLMMetadata(is_chat_model=True, context_window=window, num_output=64)
        llm = kit.ChatLLM(script=script(kit, plan), meta=meta)
        return kit.make(llm, retriever=kit.AsyncRetriever(lambda query: [kit.node("n", "fact " * 4000)]), **settings)

    assert engine(700).query("Train or plane?").points
    with pytest.raises(PromptTooLong, match="leaves no room"):
        engine(700, planning="graph", max_parents=9).query("Train or plane?")
    assert engine(3000, planning="graph", max_parents=9).query("Train or plane?").points


@pytest.mark.parametrize(
    "wrong",
    [
        {"planning": "tree"},
        {"max_depth": 0},
        {"max_parents": 0},
        {"on_parent_error": "ignore"},
        {"opening": "late"},
        {"closing": "yes"},
        {"rewrite_overlap": "yes"},
        {"max_overlap": 0},
        {"eager": "sometimes"},
        {"graph_template": "Plan it."},
        {"opening_template": "Open it."},
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        SkeletonOfThoughtQueryEngine.from_defaults,
        SkeletonOfThoughtSynthesizer,
        SkeletonOfThoughtLLM,
        lambda llm, **options: SkeletonOfThoughtWorkflow(llm=llm, **options),
    ],
    ids=["engine", "synthesizer", "llm", "workflow"],
)
def test_values_that_cannot_work_are_refused_everywhere(kit, make, wrong):
    with pytest.raises(InvalidInput, match=re.escape(next(iter(wrong)))):
        make(kit.ChatLLM(script=script(kit)), **wrong)


def test_every_surface_documents_the_settings_and_templates():
    for documented in (
        SkeletonOfThoughtQueryEngine.from_defaults,
        SkeletonOfThoughtSynthesizer,
        SkeletonOfThoughtLLM,
        SkeletonOfThoughtWorkflow,
    ):
        for name in ("planning", "max_depth", "opening", "rewrite_overlap", "graph_template", "closing_template"):
            assert f"{name}" in documented.__doc__, (documented, name)


def test_an_engine_and_an_llm_with_a_plan_can_be_pickled():
    engine = SkeletonOfThoughtQueryEngine.from_defaults(MockLLM(), planning="auto", graph_template="Plan {query_str}")
    again = pickle.loads(pickle.dumps(engine))
    assert again._settings.planning == "auto"
    assert again._plans.may("graph")
    assert again.get_prompts()["graph_template"].get_template() == "Plan {query_str}"
    llm = SkeletonOfThoughtLLM(MockLLM(), planning="auto", closing=True)
    assert llm.to_dict()["planning"] == "auto"
    for _ in range(2):
        llm._plans.observe(Answer("...", "?", "skeleton", Skeleton((Point(1, "Trains"),)), planning="graph"))
    again = pickle.loads(pickle.dumps(llm))
    assert again.to_dict()["closing"] is True
    assert not again._plans.may("graph"), "it keeps what it has learned"
