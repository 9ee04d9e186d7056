"""The cost guard on questions that are answered item by item."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import pytest

from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.cost import CostGuard, Pace
from skeleton_of_thought.routers.cost_items import task_of
from skeleton_of_thought.types import (
    Answer,
    Call,
    Conversation,
    Expansion,
    Item,
    ItemList,
    ItemsDecision,
    Message,
    Reply,
    Request,
    Skeleton,
    Span,
    Timings,
    Usage,
)

PACE = 0.02
"""Seconds per token of a call that runs alone, after half a second without text."""
SENTENCE = "The quick brown fox jumps over the lazy dog."


def listed(instruction: str, *items: str) -> ItemList:
    points = tuple(Item(i, text, mark=f"{i}.", tight=True, ask=text) for i, text in enumerate(items, 1))
    return ItemList(instruction, points)


def translation(count: int = 3, item: str = SENTENCE) -> ItemList:
    return listed("Translate these sentences into French:", *[item] * count)


def rating(count: int = 3) -> ItemList:
    return listed("Rate each review from 1 to 5:", *[SENTENCE] * count)


def asked(items: ItemList, *before: Message, **request) -> Conversation:
    question = "\n".join((items.instruction, *(f"{each.mark} {each.ask}" for each in items.points)))
    return Conversation((*before, Message("user", question)), Request(items=True, **request))


def by_items(
    items: ItemList, tokens: int = 12, *, slower: float = 1.0, cached: float = 0.0, streamed: bool = True
) -> Answer:
    """An answer by items whose calls took `slower` times as long as one that runs alone."""
    first, end = 0.5 * slower, (0.5 + (tokens - 1) * PACE) * slower
    span = Span(0.0, end, first if streamed else end)
    usage = Usage(100, tokens, round(100 * cached))
    count = len(items)
    return Answer(
        "text",
        "?",
        "items",
        Skeleton(items.points),
        tuple(Expansion(item, "word " * tokens, usage=usage, attempts=1, span=span) for item in items.points),
        timings=Timings(end, first, {"point": span}),
        usage_by_stage={"point": Usage(100 * count, tokens * count, round(100 * cached) * count)},
        decision=ItemsDecision(True, items=items),
    )


def direct(tokens: int = 100) -> Answer:
    span = Span(0.0, 0.5 + (tokens - 1) * PACE, 0.5)
    return Answer(
        "word " * tokens,
        "?",
        "direct",
        timings=Timings(stages={"direct": span}),
        usage_by_stage={"direct": Usage(9, tokens)},
    )


def unstreamed(answer: Answer) -> Answer:
    stages = {name: dataclasses.replace(span, first=span.end) for name, span in answer.timings.stages.items()}
    return dataclasses.replace(answer, timings=Timings(stages=stages))


def learned(*answers: Answer, times: int = 5, **settings) -> CostGuard:
    guard = CostGuard(**settings)
    for _ in range(times):
        for answer in (direct(), *answers):
            guard.observe(answer)
    return guard


# --- before anything is measured ---


@pytest.mark.parametrize(
    ("items", "pays"),
    [
        (translation(3, "Good morning."), True),
        (translation(2, "Good morning."), False),
        (translation(2, SENTENCE * 4), True),
        (rating(2), False),
        (rating(3), True),
        (listed("Rate each review from 1 to 5, and explain why:", "Good.", "Bad."), True),
        (listed("For each of these companies give its history:", "IBM", "SAP"), True),
        (ItemList("Write 5 different poems.", tuple(Item(i, str(i)) for i in range(1, 6)), "different"), True),
        (ItemList(SENTENCE, (Item(1, "French", ask="Translate this into French."),) * 2, "targets"), False),
        (ItemList(SENTENCE, (Item(1, "French", ask="Translate this into French."),) * 4, "targets"), True),
    ],
)
def test_from_so_many_items_and_tokens_on_items_pay(items, pays):
    refused = CostGuard().items(asked(items), items)
    assert (refused is None) == pays, refused
    if refused is not None:
        assert (refused.use_skeleton, refused.items) == (False, None)
        assert refused.reason.startswith("cost guard: ")
        assert "more prompt tokens" in refused.reason
        assert CostGuard(min_speedup=0).items(asked(items), items) is None


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ("Classify the sentiment of each sentence:", "verdict"),
        ("Bewerte jede Rezension von 1 bis 5:", "verdict"),
        ("为每条评论打分：", "verdict"),
        ("Bewerte jede Rezension und begründe es:", "text"),
        ("Correct each sentence:", "change"),
        ("Traduis ces phrases en anglais :", "change"),
        ("Переведи каждое предложение:", "change"),
        ("次の文を英語に翻訳してください：", "change"),
        ("Write a slogan for each product:", "text"),
    ],
)
def test_the_words_of_a_question_say_how_long_its_answers_are(words, task):
    assert task_of(listed(words, "a", "b")) == task


def test_the_prompt_of_every_further_item_counts():
    history = (Message("system", "Be kind. " * 300), Message("user", "Hello"), Message("assistant", "Hello!"))
    items = translation(5)
    guard = CostGuard(max_extra_tokens=2000)
    assert guard.items(asked(items), items) is None
    refused = guard.items(asked(items, *history), items)
    assert "5 items would cost about" in refused.reason
    assert refused.reason.endswith("more than max_extra_tokens=2,000")
    assert (
        guard.items(asked(items.__class__(items.instruction, items.points[:2]), *history), translation(2)) is not None
    )
    # What a server has cached costs nothing.
    warm = learned(by_items(items, cached=0.9), max_extra_tokens=2000)
    assert warm.items(asked(items, *history), items) is None


def test_items_need_room_for_several_calls():
    items = translation(8)
    assert "room for one call" in CostGuard(capacity=1).items(asked(items), items).reason
    assert "room for one call" in CostGuard().items(asked(items, max_concurrency=1), items).reason
    assert CostGuard(capacity=lambda: 4).items(asked(items, max_concurrency=8), items) is None
    assert CostGuard(capacity=1, min_speedup=0).items(asked(items), items) is None
    narrow = learned(by_items(items), min_speedup=2.0)
    assert narrow.items(asked(items), items) is None
    assert "min_speedup=2" in narrow.items(asked(items, max_concurrency=2), items).reason


# --- what answers teach ---


def test_a_busy_server_gets_one_call_and_after_some_refusals_another_try():
    items = translation(4)
    assert learned(by_items(items)).items(asked(items), items) is None
    busy = learned(by_items(items, slower=4.0), retry=3)
    refusals = [busy.items(asked(items), items) for _ in range(8)]
    assert [refused is None for refused in refusals] == [False, False, False, True] * 2
    assert "4 items in about 3.0 s instead of 1.5 s" in refusals[0].reason
    assert CostGuard(pace=busy.pace, min_speedup=0).items(asked(items), items) is None
    assert CostGuard(pace=busy.pace, enough=99).items(asked(items), items) is None


def test_no_new_measurement_is_made_where_it_would_not_help():
    items = translation(4)
    for settings in ({"capacity": 1}, {"max_extra_tokens": 0}):
        guard = learned(by_items(items), retry=1, **settings)
        assert all(guard.items(asked(items), items) for _ in range(4))


def test_lengths_are_learned_by_task():
    guard = learned(by_items(rating(12), tokens=1), times=8, retry=99)
    assert guard.items(asked(rating(12)), rating(12)) is not None, "answers of one token save nothing"
    assert guard.items(asked(translation(3)), translation(3)) is None, "translations are as long as before"
    wordy = learned(by_items(rating(3), tokens=60), times=8)
    assert wordy.items(asked(rating(3)), rating(3)) is None


def test_answers_in_one_piece_are_compared_as_wholes():
    items = translation(4)
    guard = learned(by_items(items, slower=6.0, streamed=False), retry=99)
    assert guard.items(asked(items), items) is not None
    assert learned(by_items(items, streamed=False)).items(asked(items), items) is None
    # Without any stream, the tokens of each way have a rate of their own.
    guard = CostGuard(retry=99)
    for _ in range(8):
        guard.observe(unstreamed(direct()))
        guard.observe(by_items(items, tokens=40, slower=6.0, streamed=False))
    assert guard.pace.of_items().get("call_whole", 0.0) == pytest.approx(6 * (0.5 + 39 * PACE) / 40)
    assert guard.items(asked(items), items) is not None


def test_answers_by_items_say_nothing_of_skeletons_and_direct_answers():
    pace = Pace()
    pace.observe(direct())
    before, doubt = pace.means(), pace.doubt
    for slower in (1.0, 9.0):
        pace.observe(by_items(translation(), slower=slower))
    assert (pace.means(), pace.doubt, pace.answers, pace.graphs, pace.items) == (before, doubt, 0, 0, 2)
    assert pace.of_items().doubt > 1


def test_answers_without_texts_or_spans_or_decision_teach_nothing():
    pace = Pace()
    pace.observe(direct())
    whole = by_items(translation())
    for change in (
        {"expansions": ()},
        {"decision": None},
        {"expansions": tuple(dataclasses.replace(one, error=ValueError()) for one in whole.expansions)},
        {"timings": Timings()},
    ):
        pace.observe(dataclasses.replace(whole, **change))
    assert pace.items == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))])
def test_a_copied_guard_keeps_its_measurements(copied):
    items = translation(4)
    guard = copied(learned(by_items(items, slower=4.0), retry=99))
    assert guard.items(asked(items), items) is not None
    assert guard.pace.items == 5


def test_a_pickle_of_version_0_1_learns_of_items():
    guard = pickle.loads((Path(__file__).parent.parent / "data" / "dumps" / "guard.pickle").read_bytes())
    guard.observe(by_items(translation()))
    assert (guard.pace.answers, guard.pace.items) == (1, 1)
    assert guard.items(asked(translation()), translation()) is None


def test_a_flow_asks_the_guard_and_reports_to_it():
    guard = CostGuard()
    question = "Translate these sentences into French:\n" + "\n".join(f"{i}. {SENTENCE}" for i in (1, 2, 3))
    flow = AnswerFlow(Conversation.of(question), router=AutoRouter(guard=guard))
    calls = [action for action in flow.start() if isinstance(action, Call)]
    assert [call.stage for call in calls] == ["point"] * 3
    for call in calls:
        flow.opened(call.id, 0.0)
        flow.delta(call.id, "mot ", 0.5)
        flow.done(call.id, Reply(Usage(60, 11)), 0.7)
    assert flow.finished
    assert guard.pace.of_items().get("call_pace", 0.0) == pytest.approx(0.02)
    assert guard.pace.of_items().get("call_latency", 0.0) == pytest.approx(0.5)
    narrow = AnswerFlow(Conversation.of(question), router=AutoRouter(guard=CostGuard(max_extra_tokens=1)))
    assert [action.stage for action in narrow.start() if isinstance(action, Call)] == ["direct"]
    assert "max_extra_tokens=1" in narrow.answer.reason
