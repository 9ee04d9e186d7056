"""What a model writes is bounded, and so are the calls of many answers at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time

import pytest

from skeleton_of_thought import drive
from skeleton_of_thought.budget import default_limit
from skeleton_of_thought.drive import Together
from skeleton_of_thought.errors import InvalidInput, PointError, SkeletonError
from skeleton_of_thought.events import AnswerDone, AnswerFailed, PointDelta
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Conversation, Message, Point, Reply, Skeleton
from tests.shared.scripted_calls import PATIENCE, Watch

TITLES = Skeleton((Point(1, "Sleep"), Point(2, "Eat")))
HUGE = "word " * 2_000_000  # ten million characters


def flow(settings: Settings | None = None, **options) -> AnswerFlow:
    question = Conversation((Message("user", "How do I stay awake?"),))
    return AnswerFlow(question, settings=settings or Settings(backoff=0.0), **options)


class Model:
    """Calls whose texts are made by stage; a text is repeated without an end where its script says so.

    Args:
        scripts: By stage: the pieces, and whether the last one is repeated for ever.
    """

    def __init__(self, **scripts: tuple[list[str], bool]) -> None:
        self.scripts = scripts
        self.watch = Watch()
        self.sent = 0

    def _pieces(self, call):
        pieces, endless = self.scripts[call.stage]
        yield from pieces
        while endless:
            yield pieces[-1]

    def open(self, call, position):
        with self.watch.call(call):
            for piece in self._pieces(call):
                self.sent += len(piece)
                yield piece
            yield Reply(finish_reason="stop")

    async def aopen(self, call, position):
        with self.watch.call(call):
            for piece in self._pieces(call):
                await asyncio.sleep(0)
                self.sent += len(piece)
                yield piece
            yield Reply(finish_reason="stop")


def in_threads(model, flows, **options):
    return list(drive.run(flows, model.open, **options))


def on_the_loop(model, flows, **options):
    async def events():
        return [event async for event in drive.arun(flows, model.aopen, **options)]

    return asyncio.run(events())


@pytest.fixture(params=[in_threads, on_the_loop])
def pump(request):
    return request.param


def answer_of(events, position: int = 0) -> Answer:
    (answer,) = [event.answer for i, event in events if i == position and isinstance(event, AnswerDone)]
    return answer


def error_of(events) -> Exception:
    (error,) = [event.error for _, event in events if isinstance(event, AnswerFailed)]
    return error


# --- the text of a skeleton ---


def test_a_skeleton_without_list_lines_ends_and_the_question_is_asked_directly(pump, caplog):
    model = Model(skeleton=(["It depends on many things. "], True), direct=(["Sleep."], False))
    settings = Settings(max_skeleton_chars=1000)
    with caplog.at_level(logging.WARNING):
        answer = answer_of(pump(model, [flow(settings)]))
    assert (answer.route, answer.text, answer.finish_reason) == ("direct", "Sleep.", "stop")
    assert answer.reason == "the skeleton had 0 usable point(s) in its first 1000 characters"
    assert "(skeleton) was cut at 1000 characters; see max_skeleton_chars" in caplog.text
    assert not model.watch.open


def test_the_points_before_the_limit_of_a_skeleton_are_written(pump):
    model = Model(skeleton=(["1. Sleep\n2. Eat\n", "3. Walk and "], True), point=(["text"], False))
    answer = answer_of(pump(model, [flow(Settings(max_skeleton_chars=100))]))
    assert [expansion.point.title for expansion in answer.expansions] == ["Sleep", "Eat"]  # no half title
    assert (answer.route, answer.finish_reason) == ("skeleton", "stop")


@pytest.mark.parametrize("eager", [False, True])
def test_a_skeleton_in_one_huge_chunk_is_read_up_to_its_limit(pump, eager):
    model = Model(skeleton=(["1. Sleep\n2. Eat\n" + HUGE], False), point=(["text"], False))
    answer = answer_of(pump(model, [flow(Settings(eager=eager))]))
    assert answer.skeleton.titles == ("Sleep", "Eat")
    assert len(answer.skeleton.text) == Settings.max_skeleton_chars


def test_an_endless_skeleton_is_an_error_where_that_is_wanted(pump):
    model = Model(skeleton=(["prose "], True))
    events = pump(model, [flow(Settings(max_skeleton_chars=100, on_empty_skeleton="raise"))])
    assert isinstance(error_of(events), SkeletonError)
    assert not model.watch.open


def test_long_titles_as_data_are_cut():
    asked = flow(Settings(max_skeleton_chars=20), structured=True)
    (call,) = asked.start()
    asked.done(call.id, Reply(titles=("Sleep", "Eat", "W" * 100, "Run")))
    assert asked.answer.skeleton.titles == ("Sleep", "Eat")


def test_an_honest_skeleton_with_much_reasoning_is_read(pump):
    reasoning = "<think>" + "Let me see. 1. no\n" * 9000 + "</think>"
    model = Model(skeleton=([reasoning, "1. Sleep\n2. Eat\n"], False), point=(["text"], False))
    assert answer_of(pump(model, [flow()])).skeleton.titles == ("Sleep", "Eat")


# --- the text of a point ---


def test_a_point_without_an_end_keeps_its_text_up_to_the_limit(pump, caplog):
    model = Model(point=(["more "], True))
    settings = Settings(max_point_chars=999)
    with caplog.at_level(logging.WARNING):
        answer = answer_of(pump(model, [flow(settings, skeleton=TITLES)]))
    for expansion in answer.expansions:
        assert (expansion.text, expansion.finish_reason, expansion.error) == (("more " * 200)[:999], "max_chars", None)
        assert expansion.attempts == 1
    assert answer.finish_reason == "max_chars"
    assert "(point 1) was cut at 999 characters; see max_point_chars" in caplog.text
    assert not model.watch.open


@pytest.mark.parametrize("live", [False, True])
def test_a_point_in_one_huge_chunk_is_cut_within_it(pump, live):
    model = Model(point=([HUGE], False))
    answer = answer_of(pump(model, [flow(skeleton=TITLES, live=live)]))
    assert [expansion.text for expansion in answer.expansions] == [HUGE[: Settings.max_point_chars].rstrip()] * 2


def test_a_point_of_exactly_the_limit_is_whole(pump):
    model = Model(point=(["12345", "67890"], False))
    answer = answer_of(pump(model, [flow(Settings(max_point_chars=10), skeleton=TITLES)]))
    assert [(e.text, e.finish_reason) for e in answer.expansions] == [("1234567890", "stop")] * 2


@pytest.mark.parametrize("policy", ["placeholder", "raise"])
def test_a_point_that_only_reasons_up_to_the_limit_has_failed(pump, policy):
    model = Model(point=(["<think>", "hm "], True))
    settings = Settings(max_point_chars=100, on_point_error=policy, backoff=0.0, placeholder="(missing)")
    events = pump(model, [flow(settings, skeleton=TITLES)])
    if policy == "raise":
        assert isinstance(error_of(events), PointError)
    else:
        assert [(e.text, e.attempts) for e in answer_of(events).expansions] == [("(missing)", 2)] * 2
    assert not model.watch.open


def test_calls_that_are_made_together_are_cut_too():
    together = Together(key=lambda call, _: call.stage, answer=lambda calls: [(HUGE, Reply())] * len(calls))
    events = list(drive.run([flow(skeleton=TITLES)], Model().open, together=together))
    assert [e.text for e in answer_of(events).expansions] == [HUGE[: Settings.max_point_chars].rstrip()] * 2


def test_a_model_whose_reader_pauses_does_not_write_on_for_ever():
    model = Model(point=(["word " * 10], True))
    with contextlib.closing(drive.run([flow(Settings(max_point_chars=10_000), skeleton=TITLES)], model.open)) as events:
        next(event for _, event in events if isinstance(event, PointDelta))
        until = time.monotonic() + PATIENCE
        while model.watch.open:  # nobody reads, and both calls end
            assert time.monotonic() < until
            time.sleep(0.001)
        assert model.sent <= 2 * 10_100
        rest = list(events)
    assert [e.finish_reason for e in answer_of(rest).expansions] == ["max_chars"] * 2


# --- the text of a direct answer, and of a merge ---


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("many", [1, 3])
def test_a_direct_answer_without_an_end_is_cut(pump, many, live, caplog):
    model = Model(direct=(["on and "], True))
    asked = [flow(Settings(max_answer_chars=500), router=lambda q: False, live=live) for _ in range(many)]
    with caplog.at_level(logging.WARNING):
        events = pump(model, asked)
    for position in range(many):
        answer = answer_of(events, position)
        assert (answer.text, answer.finish_reason) == (("on and " * 100)[:500], "max_chars")
    assert caplog.text.count("(direct) was cut at 500 characters; see max_answer_chars") == many
    assert not model.watch.open


def test_a_merge_without_an_end_leaves_the_points(pump):
    model = Model(point=(["text"], False), merge=(["A text "], True))
    answer = answer_of(pump(model, [flow(Settings(merge=True, max_answer_chars=300), skeleton=TITLES)]))
    assert (answer.text, answer.merged) == ("1. Sleep: text\n\n2. Eat: text", False)
    assert "max_answer_chars" in str(answer.merge_error)
    assert not model.watch.open


def test_a_long_direct_answer_is_whole(pump):
    code = "print('hello')\n" * 60_000  # nine hundred thousand characters
    answer = answer_of(pump(Model(direct=([code], False)), [flow(router=lambda q: False)]))
    assert (answer.text, answer.finish_reason) == (code, "stop")


def test_none_is_no_limit(pump):
    settings = Settings(max_skeleton_chars=None, max_point_chars=None, max_answer_chars=None)
    model = Model(skeleton=([HUGE, "\n1. Sleep\n2. Eat\n"], False), point=(["x" * 300_000], False))
    answer = answer_of(pump(model, [flow(settings)]))
    assert [len(expansion.text) for expansion in answer.expansions] == [300_000] * 2


def test_a_skeleton_that_races_the_router_is_bounded_before_the_decision():
    class Slow:
        races = True

        def route(self, conversation):
            raise NotImplementedError

        async def aroute(self, conversation):
            raise NotImplementedError

    asked = flow(Settings(max_skeleton_chars=50), router=Slow())
    route, skeleton = asked.start()
    actions = [action for _ in range(9) for action in asked.delta(skeleton.id, "prose " * 5)]
    assert [action.id for action in actions] == [skeleton.id]  # cancelled once
    asked.done(route.id, Reply(decision=None))


@pytest.mark.parametrize("name", ["max_skeleton_chars", "max_point_chars", "max_answer_chars"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "100", True, math.inf])
def test_a_limit_is_a_whole_number_or_none(name, value):
    with pytest.raises(InvalidInput, match=f"{name} must be a whole number of at least 1, or None"):
        Settings(**{name: value})


# --- many questions at once ---


def crowded(**scripts) -> Model:
    return Model(skeleton=(["1. Sleep\n2. Eat\n3. Walk\n"], False), point=(["text"], False), **scripts)


def test_a_thousand_questions_in_threads_are_bounded_by_default():
    model, most, before = crowded(), default_limit(Settings()), threading.active_count()
    peak, first = 0, None
    for _, event in drive.run([flow() for _ in range(1000)], model.open):
        peak = max(peak, threading.active_count())
        if first is None and isinstance(event, AnswerDone):
            first = len(model.watch.of("skeleton"))
    assert len(model.watch.of("skeleton")) == 1000
    assert len(model.watch.of("point")) == 3000
    assert model.watch.peak <= most
    assert peak - before <= most + 1
    assert first <= 2 * most  # an answer that has begun goes before those that have not


def test_a_thousand_questions_in_tasks_are_bounded_by_default():
    model, most = crowded(), default_limit(Settings())

    async def answers() -> tuple[int, int]:
        peak = first = 0
        async for _, event in drive.arun([flow() for _ in range(1000)], model.aopen):
            peak = max(peak, len(asyncio.all_tasks()))
            if not first and isinstance(event, AnswerDone):
                first = len(model.watch.of("skeleton"))
        return peak, first

    peak, first = asyncio.run(answers())
    assert len(model.watch.of("point")) == 3000
    assert model.watch.peak <= most
    assert peak <= most + 2
    assert first <= 2 * most


@pytest.mark.parametrize(("limit", "opened"), [(None, default_limit(Settings())), (3, 3), (40, 40), (math.inf, 50)])
def test_a_limit_of_the_callers_is_kept_and_infinity_is_none(pump, limit, opened):
    model = crowded()
    gate = model.watch.together(opened)
    script = model._pieces

    def pieces(call):
        if call.stage == "skeleton" and pump is in_threads and len(model.watch.of("skeleton")) <= opened:
            gate.wait()
        yield from script(call)

    model._pieces = pieces
    events = pump(model, [flow() for _ in range(50)], max_concurrency=limit)
    assert all(len(answer_of(events, i).expansions) == 3 for i in range(50))
    assert model.watch.peak <= opened or limit == math.inf
    if pump is in_threads:
        assert model.watch.peak >= opened


def test_one_answer_has_no_limit_by_default():
    wide = Skeleton(tuple(Point(i, f"Point {i}") for i in range(1, 101)))
    model = Model(point=(["text"], False))
    gate = model.watch.together(100)
    model._pieces = lambda call: (gate.wait(), ["text"])[1]
    answer = answer_of(in_threads(model, [flow(skeleton=wide)]))
    assert model.watch.peak == len(answer.expansions) == 100


def test_an_answer_with_many_points_stays_parallel_within_a_batch():
    assert default_limit(Settings(max_points=90)) == 90
    model = Model(point=(["text"], False))
    gate = model.watch.together(90)
    model._pieces = lambda call: (gate.wait(), ["text"])[1]
    wide = Skeleton(tuple(Point(i, f"Point {i}") for i in range(1, 91)))
    settings = Settings(max_points=90)
    in_threads(model, [flow(settings, skeleton=wide), flow(settings, skeleton=wide)])
    assert model.watch.peak == 90


@pytest.mark.parametrize("limit", [0, -1, 2.5, "8", math.nan, -math.inf])
def test_a_limit_that_cannot_work_is_an_error(pump, limit):
    with pytest.raises(InvalidInput, match="max_concurrency must be a whole number"):
        pump(crowded(), [flow(), flow()], max_concurrency=limit)
