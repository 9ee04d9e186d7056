"""Points that wait for each other, roles and rewriting, over random graphs, schedules and failures."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import OpeningWritten, ParentError, PointError
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    OverlapFound,
    PointDelta,
    PointDone,
    PointRestarted,
    PointStarted,
    RoleDone,
    RoleStarted,
    SkeletonRestarted,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Cancel, Conversation, Point, Reply, Skeleton, Usage

QUESTION = Conversation.of("Which heating suits an old house?")
TITLES = ("Gas boilers", "Heat pumps", "District heat", "Wood stoves", "Solar panels", "Night storage", "Pellet ovens")
SAME = "The price of the whole system falls each year because more of them are built in every country now. "

settings_of = st.builds(
    Settings,
    planning=st.sampled_from(["scoped", "graph"]),
    max_depth=st.integers(1, 3),
    max_parents=st.integers(1, 4),
    on_parent_error=st.sampled_from(["write", "fail"]),
    on_point_error=st.sampled_from(["placeholder", "placeholder", "raise"]),
    max_retries=st.integers(0, 1),
    opening=st.sampled_from([False, True, "restart"]),
    closing=st.booleans(),
    rewrite_overlap=st.booleans(),
    merge=st.sampled_from([False, False, True]),
    eager=st.booleans(),
    join=st.sampled_from(["numbered", "headings", "paragraphs"]),
)

graphs = st.lists(st.lists(st.integers(-1, 9), max_size=4), min_size=1, max_size=len(TITLES))


class World:
    """Follows one answer, and checks what must hold at every step."""

    def __init__(self, flow: AnswerFlow, *, live: bool) -> None:
        self.flow, self.live = flow, live
        self.open: dict[int, Call] = {}
        self.texts: dict[int, int] = {}
        self.shown: dict[int, str] = defaultdict(str)
        self.done: dict[int, PointDone] = {}
        self.started: dict[int, int] = defaultdict(int)
        self.overlaps: dict[int, int] = defaultdict(int)
        self.roles: dict[str, RoleDone | None] = {}
        self.restarts = 0
        self.released = ""
        self.end: AnswerDone | AnswerFailed | None = None

    def see(self, actions: list[Action]) -> None:
        for action in actions:
            assert self.end is None, "something follows the last event"
            match action:
                case Call():
                    self.open[action.id] = action
                    if action.point is not None:
                        self.check_parents(action)
                case Cancel():
                    del self.open[action.id]
                case PointStarted():
                    assert action.point.index not in self.done
                    self.started[action.point.index] += 1
                case PointRestarted():
                    assert action.point.index not in self.done
                    self.shown[action.point.index] = ""
                case PointDelta():
                    assert action.point.index not in self.done
                    self.shown[action.point.index] += action.text
                case OverlapFound():
                    assert action.other.index != action.point.index
                    self.overlaps[action.point.index] += 1
                case PointDone():
                    index = action.expansion.point.index
                    assert index not in self.done
                    self.done[index] = action
                    assert action.expansion.text == self.shown[index]
                case RoleStarted():
                    assert action.role not in self.roles or self.roles[action.role] is None
                    self.roles[action.role] = None
                    assert not [call for call in self.open.values() if call.point is not None]
                case RoleDone():
                    assert self.roles[action.role] is None
                    self.roles[action.role] = action
                case AnswerDelta():
                    self.released += action.text
                case AnswerRestarted():
                    assert isinstance(action.error, OpeningWritten | ParentError) or self.flow.settings.merge
                    self.restarts += 1
                    self.released = ""
                case SkeletonRestarted():
                    self.done.clear()
                    self.shown.clear()
                    self.started.clear()
                case AnswerDone() | AnswerFailed():
                    self.end = action

    def check_parents(self, call: Call) -> None:
        assert call.point is not None
        assert call.prompt is not None
        text = "\n".join(message.text for message in call.prompt.messages)
        for parent in call.point.depends_on:
            assert parent in self.done, f"point {call.point.index} was written before point {parent}"
            expansion = self.done[parent].expansion
            assert expansion.error is not None or expansion.text in text


def run(world: World, data: st.DataObject, skeleton: str = "") -> None:
    world.see(world.flow.start())
    for _ in range(400):
        if world.end is not None:
            break
        assert world.open, "the answer waits for nothing"
        call = world.open[data.draw(st.sampled_from(sorted(world.open)))]
        if call.stage == "skeleton":
            for line in skeleton.splitlines(keepends=True):
                if call.id in world.open:
                    world.see(world.flow.delta(call.id, line))
            if call.id in world.open:
                del world.open[call.id]
                world.see(world.flow.done(call.id, Reply(finish_reason="stop")))
            continue
        world.texts[call.id] = world.texts.get(call.id, 0) + 1
        texts = ["text", "same"] if world.texts[call.id] < 4 else []
        step = data.draw(st.sampled_from([*texts, "done", "done", "fail"]))
        if step == "fail":
            del world.open[call.id]
            world.see(world.flow.failed(call.id, ConnectionError("it broke")))
        elif step == "done":
            del world.open[call.id]
            world.see(world.flow.done(call.id, Reply(Usage(3, 2), "stop")))
        else:
            named = TITLES[call.point.index - 1] if call.point is not None else call.stage
            world.see(
                world.flow.delta(call.id, SAME if step == "same" else f"All about {named.lower()} number {call.id}. ")
            )
    assert world.end is not None, "the answer never ends"
    assert not world.open


def check_end(world: World, size: int) -> None:
    settings = world.flow.settings
    assert all(count <= 1 for count in world.overlaps.values())
    for index, count in world.started.items():
        assert count <= settings.max_retries + 1 + world.overlaps[index]
    if isinstance(world.end, AnswerFailed):
        if world.flow.answer.route == "direct":  # a plan without points side by side
            return
        assert settings.on_point_error == "raise"
        assert isinstance(world.end.error, PointError)
        return
    assert isinstance(world.end, AnswerDone)
    answer = world.end.answer
    assert answer.text == world.released
    if answer.route == "direct":
        return
    assert sorted(world.done) == list(range(1, size + 1))
    assert max(answer.skeleton.waves.values()) <= settings.max_depth
    assert all(len(point.depends_on) <= settings.max_parents for point in answer.skeleton.points)
    written = [each for each in answer.expansions if each.error is None]
    wanted = {"opening": bool(settings.opening), "closing": settings.closing}
    for role, is_wanted in wanted.items():
        assert (role in world.roles) == (is_wanted and len(written) > 1)
        if (ended := world.roles.get(role)) is not None:
            assert (ended.error is not None) == (role in answer.role_errors)
            assert ended.text == getattr(answer, role)
            if not settings.merge and ended.text:
                assert (answer.text.startswith if role == "opening" else answer.text.endswith)(ended.text)
    for each in answer.expansions:
        failed = {i for i in each.point.depends_on if answer.errors.get(i)}
        if isinstance(each.error, ParentError):
            assert failed
            assert not each.attempts
        assert set(each.missing) == failed
    if not settings.merge and settings.opening != "restart":
        assert not world.restarts


@settings(max_examples=150)
@given(st.data(), settings_of, graphs, st.booleans())
def test_a_given_graph_is_written_in_waves(data, chosen, graph, live):
    points = tuple(Point(i, TITLES[i - 1], tuple(after)) for i, after in enumerate(graph, 1))
    world = World(AnswerFlow(QUESTION, settings=chosen, skeleton=Skeleton(points), live=live), live=live)
    run(world, data)
    check_end(world, len(graph))


@settings(max_examples=150)
@given(st.data(), settings_of, graphs, st.booleans())
def test_a_graph_that_streams_is_written_in_waves(data, chosen, graph, live):
    lines = [f"{i}. {TITLES[i - 1]}: what it costs (after {', '.join(map(str, a))})" for i, a in enumerate(graph, 1)]
    text = "".join(line.replace(" (after )", "") + "\n" for line in lines)
    world = World(AnswerFlow(QUESTION, settings=chosen, live=live), live=live)
    run(world, data, text)
    check_end(world, len(graph))
    if isinstance(world.end, AnswerDone) and chosen.planning == "scoped":
        assert not any(point.depends_on for point in world.end.answer.skeleton.points)
