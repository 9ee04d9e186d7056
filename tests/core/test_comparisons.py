"""Questions that are weighed up: which of them get a graph of points, and which stay as they were."""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import io
import json
import pickle
from collections import Counter
from pathlib import Path

import pytest

from skeleton_of_thought._cli.route import COLUMNS
from skeleton_of_thought._cli.route import route as print_route
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.base import all_of, any_of, first_sure, with_threshold
from skeleton_of_thought.routers.comparisons import asks_for_graph
from skeleton_of_thought.routers.cost import CostGuard, Pace
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.routers.measures import read_labels
from skeleton_of_thought.routers.prompt import PromptRouter, route_prompt
from skeleton_of_thought.types import (
    Answer,
    Conversation,
    Expansion,
    Message,
    Point,
    PointTimes,
    Request,
    RouteDecision,
    Skeleton,
    Span,
    Timings,
    Usage,
)

DATA = Path(__file__).parent.parent / "data"
OWN = list(csv.DictReader((DATA / "comparison_questions.csv").read_text("utf-8").splitlines()))
CHOICE = "Which is better for a small garden, a pond or a lawn, and why?"
LIST = "What are the benefits of tea?"


def graph(question: str = CHOICE, *, system: str | None = None, **request: object) -> Conversation:
    return dataclasses.replace(Conversation.of(question, system=system), request=Request(graph=True, **request))


# --- our questions -----------------------------------------------------------------------------------


def test_our_comparisons_get_a_graph_and_all_others_stay_direct():
    ways = Counter()
    for row in OWN:
        decision = AutoRouter().route(graph(row["question"]))
        ways[row["label"], decision.use_skeleton, decision.planning] += 1
        assert decision.reason
    assert ways == {("graph", True, "graph"): 30, ("direct", False, None): 30}


def test_without_graphs_most_of_our_comparisons_are_answered_directly():
    decisions = [AutoRouter().route(Conversation.of(row["question"])) for row in OWN if row["label"] == "graph"]
    assert Counter(decision.use_skeleton for decision in decisions) == {False: 20, True: 10}
    assert {decision.planning for decision in decisions} == {None}


def test_few_other_questions_change_their_route_because_of_graphs():
    labels = read_labels(DATA / "router_questions.csv")
    router = AutoRouter()
    changed = Counter()
    for one in labels:
        before, now = router.route(Conversation.of(one.question)), router.route(graph(one.question))
        assert now.use_skeleton or not before.use_skeleton
        if now != before:
            changed[one.form] += 1
    assert sum(changed.values()) <= len(labels) / 50
    assert not changed.keys() & {"code", "math", "fact", "story", "translate"}


@pytest.mark.parametrize(
    "question",
    [
        "What is the best way to learn to juggle?",
        "Which country is best known for its clocks?",
        "How can I get better at chess or go?",
        "What should I do if I miss the train or lose my ticket?",
        "Prove that there are infinitely many primes, and conclude with the usual mark.",
        "Tell me a story about a fox and a crow, and then say which one is wiser.",
        "Write a query in SQL that compares two tables.",
        "Translate 'which is better' into German.",
        "Was hilft am besten gegen Husten?",
        "Quel est le meilleur moyen d'apprendre l'anglais ?",
        "¿Cuál es la mejor manera de cocer un huevo?",
        "Qual è il modo migliore per pulire il forno?",
        "比较好的学习方法有哪些？",
    ],
)
def test_superlatives_tasks_and_proofs_are_no_comparisons(question):
    assert asks_for_graph(question) is False
    assert AutoRouter().route(graph(question)).planning is None


@pytest.mark.parametrize(
    "question",
    [
        "What should I choose for a long trip, a tent or a van?",
        "Rank these four cities by quality of life: Graz, Porto, Lyon, Cork.",
        "List arguments for and against school uniforms and come to a conclusion.",
        "What would you recommend: oak or pine for a bench?",
        "Use the notes below.\n\nPonds need care. Lawns need water.\n\nQuestion: Which is better, a pond or a lawn?",
    ],
)
def test_choices_rankings_and_conclusions_get_a_graph(question):
    assert AutoRouter().route(graph(question)).planning == "graph"


# --- the gate, and routers by words ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conversation", "rule"),
    [
        (graph(f"{CHOICE} Answer in one sentence."), "length"),
        (graph(f"{CHOICE} Use at most 20 words."), "length"),
        (graph(CHOICE, tools=True), "tools"),
        (graph(CHOICE, response_format=True), "response_format"),
        (graph(CHOICE, system="Translate the user's sentence into French."), "task"),
        (graph("차와 커피 중 어느 것이 더 좋은가요, 그리고 왜 그런가요?"), "language"),
        (graph("Which is better, 3 * 4 or 2 * 7?"), "arithmetic"),
    ],
)
def test_all_other_rules_still_hold_comparisons_back(conversation, rule):
    decision = Gate().route(conversation)
    assert (decision.use_skeleton, decision.planning) == (False, None)
    assert decision.reason.startswith(f"gate ({rule})")


def test_the_gate_lets_comparisons_through_in_the_form_of_other_questions():
    for question in ("Is it better to rent or to buy a piano?", "Who is the better hero, Ajax or Hector?"):
        assert Gate().route(Conversation.of(question)).use_skeleton is False
        assert Gate().against((Message("user", question),)) is not None
        assert Gate().against((Message("user", question),), Request(graph=True)) is None
        decision = Gate().route(graph(question))
        assert (decision.use_skeleton, decision.planning) == (True, "graph")
    assert Gate().route(graph("Is a whale a fish?")).use_skeleton is False
    assert Gate(extra=[lambda _: "about us"]).route(graph()).reason == "gate: about us"


def test_the_embedded_router_takes_comparisons_for_graphs():
    router = EmbeddedRouter()
    assert router.route(Conversation.of(CHOICE)).use_skeleton is False
    decision = router.route(graph())
    assert (decision.use_skeleton, decision.score, decision.planning) == (True, None, "graph")
    assert router.route(graph(LIST)) == router.route(Conversation.of(LIST))


# --- the router that asks a model --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "use", "planning"),
    [
        ("INDEPENDENT", True, None),
        ("DEPENDENT", True, "graph"),
        ("**Dependent**", True, "graph"),
        ("SEQUENTIAL", False, None),
        ("NONE", False, None),
        ("DEPENDENT or SEQUENTIAL", False, None),
        ("A graph", False, None),
    ],
)
def test_dependent_points_are_a_graph_and_a_chain_is_not(reply, use, planning):
    async def aask(prompt):
        return reply, Usage(9, 1)

    router = PromptRouter(lambda prompt: (reply, Usage(9, 1)), aask=aask)
    decision = router.route(graph())
    assert (decision.use_skeleton, decision.planning) == (use, planning)
    assert asyncio.run(router.aroute(graph())) == decision


def test_the_wording_changes_with_graphs_alone():
    flat, other = (route_prompt(one).messages[0].text for one in (Conversation.of(CHOICE), graph()))
    assert "SEQUENTIAL" not in flat
    assert flat.endswith("Reply with one word: INDEPENDENT, DEPENDENT or NONE.")
    assert other.endswith("Reply with one word: INDEPENDENT, DEPENDENT, SEQUENTIAL or NONE.")
    assert "proofs" in other.partition("SEQUENTIAL:")[2]
    assert "verdict" in other.partition("DEPENDENT: the answer has at least")[2].partition("SEQUENTIAL:")[0]
    decision = PromptRouter(lambda prompt: "DEPENDENT").route(Conversation.of(CHOICE))
    assert (decision.use_skeleton, decision.planning) == (False, None)


# --- combinations ------------------------------------------------------------------------------------

YES, NO = RouteDecision(True, 0.9, "yes"), RouteDecision(False, 0.1, "no")
AS_GRAPH = RouteDecision(True, reason="graph", planning="graph")


@pytest.mark.parametrize(
    ("combine", "decisions", "use", "planning"),
    [
        (all_of, (AS_GRAPH, YES), True, "graph"),
        (all_of, (YES, AS_GRAPH, YES), True, "graph"),
        (all_of, (dataclasses.replace(YES, planning="scoped"), AS_GRAPH), True, "graph"),
        (all_of, (AS_GRAPH, NO), False, None),
        (all_of, (YES, YES), True, None),
        (any_of, (NO, AS_GRAPH, YES), True, "graph"),
        (any_of, (YES, AS_GRAPH), True, None),
        (first_sure, (RouteDecision(True, 0.5), AS_GRAPH), True, "graph"),
        (first_sure, (AS_GRAPH, NO), True, "graph"),
        (first_sure, (NO, AS_GRAPH), False, None),
    ],
)
def test_combinations_pass_the_kind_of_skeleton_on(combine, decisions, use, planning):
    router = combine(*(lambda _, one=one: one for one in decisions))
    for decision in (router.route(graph()), asyncio.run(router.aroute(graph()))):
        assert (decision.use_skeleton, decision.planning) == (use, planning)


def test_a_threshold_keeps_the_kind_of_a_skeleton():
    scored = dataclasses.replace(AS_GRAPH, score=0.6)
    assert with_threshold(lambda _: AS_GRAPH, 0.9).route(graph()) == AS_GRAPH
    assert with_threshold(lambda _: scored, 0.5).route(graph()).planning == "graph"
    assert with_threshold(lambda _: scored, 0.7).route(graph()) == RouteDecision(False, 0.6, "graph")


def test_the_automatic_router_adds_the_kind_that_its_gate_found():
    for asked in (True, False):
        decision = AutoRouter(lambda _, asked=asked: asked).route(graph())
        assert (decision.use_skeleton, decision.planning) == (asked, "graph" if asked else None)
    for ask in (lambda _: "INDEPENDENT", lambda _: "DEPENDENT"):
        decision = AutoRouter(PromptRouter(ask)).route(graph())
        assert decision.planning == "graph"
        assert "the model takes the answer for" in decision.reason
    assert AutoRouter(lambda _: True, gate=None).route(graph()).planning is None
    assert asyncio.run(AutoRouter().aroute(graph())) == AutoRouter().at_once(graph()) == AutoRouter().route(graph())


# --- the cost guard ----------------------------------------------------------------------------------


def measured(*, waves: int = 1, seconds: float = 2.0, planning: str = "titles") -> Answer:
    """Five points of 50 tokens in so many seconds; of a graph, each wave but the first is one point."""
    first = 6 - waves
    points = tuple(Point(i, "t", tuple(range(1, i)) if i > first else ()) for i in range(1, 6))
    times = (PointTimes(p.index, "t", depends_on=p.depends_on, wave=max(1, p.index - first + 1)) for p in points)
    written = Span(3.0, 3.0 + seconds, 3.0)
    return Answer(
        "text",
        "?",
        "skeleton",
        Skeleton(points, "text"),
        tuple(Expansion(point, "word " * 50, usage=Usage(100, 50)) for point in points),
        timings=Timings(stages={"skeleton": Span(0.0, 3.0, 1.0), "point": written}, points=tuple(times)),
        usage_by_stage={"skeleton": Usage(90, 41), "point": Usage(500, 250)},
        planning=planning,
    )


def guard(*answers: Answer, **settings: object) -> CostGuard:
    made = CostGuard(**settings)
    for one in answers:
        made.observe(one)
    return made


@pytest.mark.parametrize("answers", [(), 3 * [measured()]], ids=["nothing measured", "flat ones measured"])
def test_a_graph_costs_a_further_wave_before_any_is_measured(answers):
    costs = guard(*answers)
    flat, waves = costs.estimate(graph(LIST)), costs.estimate(graph(LIST), "graph")
    assert flat == costs.estimate(Conversation.of(LIST))
    assert waves.skeleton_seconds > flat.skeleton_seconds
    assert waves.extra_tokens > flat.extra_tokens
    assert waves.direct_seconds == flat.direct_seconds


def test_graphs_are_measured_apart_from_other_skeletons():
    slow = measured(waves=3, seconds=8.0, planning="graph")
    flat, mixed = guard(*3 * [measured()]), guard(*3 * [measured(), slow])
    assert mixed.estimate(Conversation.of(LIST)) == flat.estimate(Conversation.of(LIST))
    assert mixed.pace.doubt == flat.pace.doubt
    assert (mixed.pace.answers, mixed.pace.graphs) == (3, 3)
    of_graphs = mixed.pace.of_graphs()
    assert (of_graphs.get("waves", 0.0), of_graphs.get("parents", 0.0)) == (3.0, 7.0)
    estimate = mixed.estimate(graph(), "graph")
    assert estimate.skeleton_seconds == pytest.approx(3.05 + 8.0)
    assert estimate == mixed.estimate(graph())


def test_the_guard_refuses_a_graph_whose_waves_save_no_time_and_still_allows_points():
    slow = measured(waves=3, seconds=60.0, planning="graph")
    costs = guard(*3 * [measured(), slow])
    assert costs.route(graph(LIST)).use_skeleton is True
    assert costs.route(graph(LIST), "graph").use_skeleton is False
    router = AutoRouter(guard=costs)
    decision = router.route(graph())
    assert (decision.use_skeleton, decision.planning) == (False, None)
    assert "compares" in decision.reason
    assert "cost guard" in decision.reason
    assert router.route(graph(LIST)).use_skeleton is True


def test_a_guard_that_saw_graphs_alone_measures_by_them_and_refuses_no_flat_skeleton():
    slow = measured(waves=4, seconds=60.0, planning="graph")
    costs = guard(*3 * [slow])
    assert costs.route(graph(LIST)).use_skeleton is False
    assert costs.route(Conversation.of(LIST)).reason == "cost guard: too little was measured to compare"


def test_more_waves_cost_more():
    two, three = (guard(measured(waves=n, planning="graph")) for n in (2, 3))
    assert two.pace.get("graph_waves", 0.0) < three.pace.get("graph_waves", 0.0)
    for pace in (Pace(), guard(measured()).pace):
        seconds = [CostGuard(pace=pace).estimate(graph(LIST), kind).skeleton_seconds for kind in ("titles", "graph")]
        assert seconds == sorted(set(seconds))


def test_measurements_of_graphs_travel_and_old_ones_have_none():
    costs = guard(measured(), measured(waves=2, planning="graph"))
    other = pickle.loads(pickle.dumps(costs))
    assert (other.pace.means(), other.pace.graphs) == (costs.pace.means(), 1)
    old = Pace()
    old.__setstate__({"means": {"pace": 0.05}, "answers": 2})
    assert (old.answers, old.graphs) == (2, 0)


# --- the command -------------------------------------------------------------------------------------


def test_the_command_shows_the_kind_of_skeleton(capsys, tmp_path):
    args = argparse.Namespace(
        model=None, weights=None, threshold=None, gate=True, system=None, csv=None, json=False, items="auto"
    )
    args.planning = "titles"
    assert print_route(args, CHOICE) == 0
    assert capsys.readouterr().out.startswith("direct (score 0.")
    args.planning = "auto"
    assert print_route(args, CHOICE) == 0
    assert capsys.readouterr().out.startswith("skeleton (graph): the answer compares")
    args.json = True
    assert print_route(args, CHOICE) == 0
    assert json.loads(capsys.readouterr().out)["planning"] == "graph"
    path = tmp_path / "questions.csv"
    path.write_text(f'question\n"{CHOICE}"\n{LIST}\n', "utf-8")
    args.csv, args.column, args.json = str(path), "question", False
    assert print_route(args, None) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == [*COLUMNS, "planning"]
    assert [row["planning"] for row in rows] == ["graph", ""]
