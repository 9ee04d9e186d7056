"""Random schedules of deltas, failures and ends: properties that hold in any order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import ReasoningShown
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    MergeDone,
    MergeStarted,
    PointDelta,
    PointDone,
    PointRestarted,
    PointStarted,
    SkeletonDone,
    SkeletonRestarted,
    SourcesDone,
    SourcesFound,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Cancel, Conversation, Point, Reply, RouteDecision, Skeleton, Usage

TEXTS = st.sampled_from(
    [" ", "\n", "word ", "1. ", "2. Eat: ", "**", "Sleep", ": ", "é", "<think>x</think>", "end. ", "</think>\n", "</th"]
)
LINES = st.sampled_from(
    [
        "1. Sleep\n",
        "2. Eat\n",
        "3. Walk",
        "\n",
        "4. Read\n",
        "5. Sleep\n",
        "- Rest\n",
        "prose ",
        "1. Swim\n",
        "6. Sing\n",
        "</think>\n",
    ]
)


class World:
    """Checks the flow's contract while events arrive at random."""

    def __init__(self, flow: AnswerFlow) -> None:
        self.flow = flow
        self.open: dict[int, Call] = {}
        self.over: list[int] = []
        self.released = ""
        self.shown: dict[int, str] = defaultdict(str)
        self.done: dict[int, str] = {}
        self.attempts: dict[int, int] = defaultdict(int)
        self.merges = 0
        self.merge_end: MergeDone | None = None
        self.end: AnswerDone | AnswerFailed | None = None
        self.skeleton_done = False
        self.found: dict[int | None, tuple[object, ...]] = {}
        self.retrievals: dict[int | None, int] = defaultdict(int)
        self.sources_done = False

    def see(self, actions: list[Action]) -> None:
        for action in actions:
            assert self.end is None, "something follows the last event"
            if isinstance(action, Call):
                assert action.id not in self.open
                assert action.id not in self.over
                assert (action.prompt is None) == (action.stage in ("route", "sources"))
                if action.stage == "sources":
                    assert not self.sources_done, "a retrieval after the last one"
                    index = action.point and action.point.index
                    assert index not in self.found
                    self.retrievals[index] += 1
                if action.point:
                    assert not any(c.point and c.point.index == action.point.index for c in self.open.values())
                self.open[action.id] = action
            elif isinstance(action, Cancel):
                del self.open[action.id]
                self.over.append(action.id)
            elif isinstance(action, AnswerDelta):
                assert action.text
                self.released += action.text
            elif isinstance(action, AnswerRestarted):
                assert self.released
                assert self.merges or isinstance(action.error, ReasoningShown)
                self.released = ""
            elif isinstance(action, SkeletonRestarted):
                assert not self.skeleton_done
                assert action.skeleton.points
                assert not [call for call in self.open.values() if call.point is not None]
                # Nothing of these points counts any more.
                for found in (self.shown, self.done, self.attempts, self.found, self.retrievals):
                    for index in [index for index in found if index is not None]:
                        del found[index]
            elif isinstance(action, MergeStarted):
                assert self.merge_end is None
                self.merges += 1
            elif isinstance(action, MergeDone):
                assert self.merge_end is None
                self.merge_end = action
            elif isinstance(action, SkeletonDone):
                self.skeleton_done = True
            elif isinstance(action, SourcesFound):
                index = action.point and action.point.index
                assert not self.sources_done
                assert index not in self.found
                self.found[index] = action.sources
            elif isinstance(action, SourcesDone):
                assert not self.sources_done
                assert self.skeleton_done or None in self.found
                assert not [call for call in self.open.values() if call.stage == "sources"]
                self.sources_done = True
            elif isinstance(action, PointStarted):
                self.attempts[action.point.index] += 1
            elif isinstance(action, PointRestarted):
                assert action.point.index not in self.done
                self.shown[action.point.index] = ""
            elif isinstance(action, PointDelta):
                assert action.point.index not in self.done
                self.shown[action.point.index] += action.text
            elif isinstance(action, PointDone):
                assert action.expansion.point.index not in self.done
                self.done[action.expansion.point.index] = action.expansion.text
            elif isinstance(action, AnswerDone | AnswerFailed):
                self.end = action

    def end_call(self, call_id: int) -> None:
        self.open.pop(call_id)
        self.over.append(call_id)


SETTINGS = st.builds(
    Settings,
    max_points=st.integers(2, 5),
    min_points=st.integers(1, 2),
    eager=st.booleans(),
    on_empty_skeleton=st.sampled_from(["direct", "raise"]),
    on_point_error=st.sampled_from(["raise", "placeholder"]),
    placeholder=st.sampled_from(["", "(gone)"]),
    max_retries=st.integers(0, 2),
    join=st.sampled_from(["numbered", "headings", "paragraphs"]),
    merge=st.booleans(),
)


GIVEN = Skeleton((Point(1, "Sleep"), Point(2, "Eat"), Point(3, "Walk")))
RETRIEVAL = st.sampled_from(["none", "once", "per_point"])


@given(
    SETTINGS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, True, False]),
    RETRIEVAL,
    st.sampled_from([None, None, GIVEN]),
    st.data(),
)
def test_the_contract_holds_for_any_schedule(settings, live, structured, routed, retrieval, given_skeleton, data):
    flow = AnswerFlow(
        Conversation.of("How do I sleep better?"),
        settings=settings,
        live=live,
        structured=structured,
        retrieval=retrieval,
        skeleton=given_skeleton,
        router=None if routed is None else (lambda question: routed),
    )
    world = World(flow)
    world.see(flow.start())
    lines = 0
    while world.open:
        call = world.open[data.draw(st.sampled_from(sorted(world.open)))]
        step = data.draw(st.sampled_from(["done", "delta", "delta", "delta", "failed", "late"]))
        if step == "late" and world.over:
            late = data.draw(st.sampled_from(world.over))
            assert flow.delta(late, "late") == flow.done(late) == flow.failed(late, OSError()) == []
        elif step == "delta" and call.stage != "route" and lines < 40:
            lines += 1
            world.see(flow.delta(call.id, data.draw(LINES if call.stage == "skeleton" else TEXTS)))
        elif step == "failed":
            world.end_call(call.id)
            world.see(flow.failed(call.id, OSError("reset"), usage=Usage(1, 1)))
        elif step == "done":
            world.end_call(call.id)
            reason = data.draw(st.sampled_from([None, "stop", "length"]))
            decision = RouteDecision(bool(routed)) if call.stage == "route" else None
            titles = data.draw(st.none() | st.lists(TEXTS, max_size=6)) if call.structured else None
            reply = Reply(Usage(1, 1), reason, decision, titles=titles)
            if call.stage == "sources":
                reply = Reply(Usage(1, 1), sources=(call.id,), context=data.draw(st.sampled_from(["", "{x} facts"])))
            world.see(flow.done(call.id, reply))
    assert flow.finished
    assert world.end is not None
    assert all(n <= settings.max_retries + 1 for n in (*world.attempts.values(), *world.retrievals.values()))
    assert not world.retrievals or retrieval != "none"
    if isinstance(world.end, AnswerDone):
        answer = world.end.answer
        assert world.released == answer.text
        assert (world.merge_end is not None) == (world.merges > 0)
        assert answer.merged == (world.merge_end is not None and world.merge_end.error is None)
        assert answer.merge_error is (world.merge_end.error if world.merge_end else None)
        assert world.merges <= (settings.max_retries + 1 if settings.merge else 0)
        if answer.merged:
            assert answer.text.startswith(world.merge_end.text)
            assert all(e.text in answer.text for e in answer.expansions if e.error is not None)
        elif answer.route == "skeleton":
            assert all(e.text in answer.text for e in answer.expansions)
        assert world.done == {e.point.index: e.text for e in answer.expansions}
        assert world.shown == {i: t for i, t in world.done.items() if t} | {
            i: "" for i in world.shown if not world.done[i]
        }
        assert [p.index for p in answer.skeleton.points] == list(range(1, len(answer.skeleton) + 1))
        assert len(answer.skeleton) <= settings.max_points or given_skeleton
        assert world.sources_done == (retrieval != "none")
        assert answer.sources == world.found.get(None, ())
        assert {e.point.index: e.sources for e in answer.expansions if e.sources} == {
            index: sources for index, sources in world.found.items() if index is not None
        }
        if retrieval == "per_point" and answer.route == "skeleton":
            assert None not in world.found
            assert all(e.sources or (e.error and not e.attempts) for e in answer.expansions)
        elif retrieval != "none":
            assert set(world.found) == {None}
        assert (answer.route == "direct") == (not answer.expansions)
        assert answer.usage == sum(answer.usage_by_stage.values(), Usage())
    elif hasattr(world.end.error, "answer"):
        partial = world.end.error.answer
        assert partial.text.startswith(world.released)
