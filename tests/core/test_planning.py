"""Graphs of points: read from text and data, made safe and shallow, and chains that are no plan."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skeleton_of_thought.parsing.parser import SkeletonParser, SkeletonWriting, parse_skeleton
from skeleton_of_thought.planning import cut_plan, safe_skeleton
from skeleton_of_thought.types import PlanItem, Point, Reply, Skeleton

pytestmark = pytest.mark.filterwarnings("error")
many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def writing(
    text: str = "", max_points: int = 10, depth: int = 2, parents: int = 8, *, size: int = 0
) -> SkeletonWriting:
    """A graph that was read from text, in pieces of `size` or as a whole."""
    read = SkeletonWriting(1, max_points, "", "graph", depth, parents)
    for at in range(0, len(text), size or len(text) or 1):
        read.feed(text[at : at + (size or len(text))])
    return read


def parents(text: str, *limits: int) -> list[tuple[int, ...]]:
    read = writing(text, *limits)
    read.close(truncated=False)
    return [point.depends_on for point in read.points]


# --- numbers --------------------------------------------------------------------------------------

PARENTS = {
    "1. A\n2. B\n3. C (after 1, 2)": [(), (), (1, 2)],
    "1. A\n2. B\n3. C (after 9, 3, 2, 0)\n4. D (after 5)": [(), (), (2,), ()],
    "1. A (after 2)\n2. B (after 1)": [(), (1,)],
    "0. A\n1. B\n2. C (after 0, 1)": [(), (), (1, 2)],
    "1. A\n3. B\n5. C (after 3)": [(), (), (2,)],
    "1. A\n1. B\n1. C (after 2)": [(), (), (2,)],
    "- A\n- B\n- C (after 1, 2)": [(), (), (1, 2)],
    "## A\n## B\n## C (after 2)": [(), (), (2,)],
    "Step 1: A\nStep 2: B\nStep 3: C (after steps 1 and 2)": [(), (), (1, 2)],
    "1. A\n2. B\n3. A\n4. C (after 2, 3)\n5. D (after 4)": [(), (), (1, 2), ()],
    "1. A 2. B 3. C (after 2)": [(), (), (2,)],
    "1. A\n2. B\n3. C (after the previous point)": [(), (), (2,)],
    "1. A\n2. B\n3. C (after all)": [(), (), (1, 2)],
}


@pytest.mark.parametrize("text", PARENTS)
def test_a_models_numbers_become_indices_of_points_before(text: str) -> None:
    assert parents(text) == PARENTS[text]


DATA = [
    '[{"title": "A"}, {"title": "B"}, {"title": "C", "scope": "x y", "after": [1, 2], "words": 80}]',
    '{"plan": [{"id": 0, "title": "A"}, {"id": 1, "title": "B"}, {"id": 2, "title": "C", "covers": "x y",'
    ' "depends_on": ["0", 1], "words": "80 words"}]}',
    '```json\n[{"title": "A"}, {"title": "B"}, {"title": "C", "note": "x y.", "builds_on": "1, 2", "words": 80}]\n```',
    '["A", "B", "C: x y (after 1, 2; 80 words)"]',
    '[{"point": "A"}, {"point": "B"}, {"point": "C", "scope": "x y", "after": ["A", "B"], "words": 80}]',
]


@pytest.mark.parametrize("text", DATA)
def test_json_is_a_plan_too(text: str) -> None:
    points = (Point(1, "A"), Point(2, "B"), Point(3, "C", (1, 2), "x y", 80))
    assert parse_skeleton(text, planning="graph").points == points
    scoped = parse_skeleton(text, planning="scoped").points
    assert scoped == (*points[:2], Point(3, "C", (), "x y", 80))
    assert all(point == Point(point.index, point.title) for point in parse_skeleton(text).points)


def test_a_backends_data_count_before_titles_and_text() -> None:
    plan = (PlanItem("A", "x."), PlanItem("…"), PlanItem("A"), PlanItem("B"), PlanItem("C: z", "y", (1, 3, 4, 7), 80))
    read = writing("1. A\n")
    assert Reply(plan=plan).plan == plan
    read.close(truncated=False, titles=["other"], plan=plan)
    assert read.points == [Point(1, "A"), Point(2, "B"), Point(3, "C: z", (1, 2), "y", 80)]
    alone = writing()
    alone.close(truncated=False, plan=plan)
    assert alone.points == [Point(1, "A", (), "x"), Point(2, "B"), Point(3, "C: z", (1, 2), "y", 80)]
    cut = writing()
    cut.close(truncated=True, plan=plan)
    assert [point.title for point in cut.points] == ["A", "B"]
    titles = writing()
    titles.close(truncated=False, titles=["A: x", "1. B", "C (after 1)"])
    assert titles.points == [Point(1, "A", (), "x"), Point(2, "B"), Point(3, "C", (1,))]
    plain = SkeletonWriting(1, 10)
    plain.close(truncated=False, plan=plan)
    assert plain.points == [Point(1, "A"), Point(2, "B"), Point(3, "C: z")]


def test_a_plan_is_cut_at_its_limit() -> None:
    plan = (PlanItem("abc", "de"), PlanItem("fgh", "ij", (1,)))
    assert cut_plan(plan, 10, "stop") == (plan, "stop")
    assert cut_plan(plan, 7, "stop") == ((plan[0], PlanItem("fg", "", (1,))), "max_chars")


# --- safety ---------------------------------------------------------------------------------------


def test_depth_and_number_of_parents_are_bounded() -> None:
    deep = "1. A\n2. B (after 1)\n3. C (after 2, 1)\n4. D (after 3)\n5. E"
    assert parents(deep) == [(), (1,), (1,), (), ()]
    assert parents(deep, 10, 3) == [(), (1,), (1, 2), (), ()]
    assert parents(deep, 10, 1) == [()] * 5
    assert parents("1. A\n2. B\n3. C\n4. D (after 3, 1, 2)", 10, 2, 2)[3] == (1, 3)


def test_points_that_sum_up_build_on_all_others_before_them() -> None:
    text = "1. Cars\n2. Trains\n3. Comparison\n4. Buses\n5. Conclusion\n6. Which one to choose (after 1)"
    assert parents(text) == [(), (), (1, 2), (), (1, 2, 4), (1,)]
    assert parents("1. Summary\n2. A\n3. B") == [(), (), ()]
    scoped = SkeletonWriting(1, 10, planning="scoped")
    scoped.feed("1. A: b c\n2. Conclusion (after 1)\n")
    assert scoped.points == [Point(1, "A", (), "b c"), Point(2, "Conclusion")]
    assert (scoped.chain, scoped.parallel) == (False, True)


@pytest.mark.parametrize(
    ("text", "chain", "parallel"),
    [
        ("", False, False),
        ("1. A\n", False, False),
        ("1. A\n2. B (after 1)\n", True, False),
        ("1. A\n2. B (after 1)\n3. C (after 2)\n4. D (after 3, 1)\n", True, False),
        ("1. A\n2. B (after 1)\n3. C (after 1)\n", False, True),
        ("1. A\n2. B\n3. C (after 2)\n", False, True),
        ("1. A\n2. B (after 1)\n3. B\n4. C (after 3)\n", True, False),
        ("1. A\n2. Conclusion\n", True, False),
    ],
)
def test_a_chain_is_known_while_it_is_written(text: str, chain: bool, parallel: bool) -> None:
    read = writing(text, size=1)
    assert (read.chain, read.parallel) == (chain, parallel)


def test_points_that_turn_out_to_be_reasoning_leave_no_trace() -> None:
    read = writing("1. A\n2. B (after 1)\n")
    assert read.chain
    read.feed("</think>\n1. C\n2. D\n3. E (after 1, 2)\n")
    assert read.points == [Point(1, "C"), Point(2, "D"), Point(3, "E", (1, 2))]
    assert (read.chain, read.parallel, read.restarted) == (False, True, True)
    parser = SkeletonParser(prefill="1.", planning="graph")
    parser.feed(" A\n2. B (after 1)\n")
    assert parser.points == (Point(1, "A"), Point(2, "B", (1,)))


numbers = st.lists(st.integers(0, 12), max_size=5)


@st.composite
def model_plans(draw: st.DrawFn) -> str:
    lines = []
    for number in range(draw(st.sampled_from([0, 1, 2])), draw(st.integers(3, 12))):
        after = ", ".join(map(str, draw(numbers)))
        title = draw(st.sampled_from(["A", "B", "C", "Summary", f"T{number}", f"T{number}: a note"]))
        lines.append(f"{number}. {title}" + (f" (after {after})" if after else ""))
    return "\n".join(lines)


@many
@given(model_plans(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.sampled_from([1, 3, 0]))
def test_every_graph_is_safe(text: str, depth: int, most: int, max_points: int, size: int) -> None:
    read = writing(text, max_points, depth, most, size=size)
    shown = list(read.points)
    read.close(truncated=False)
    assert read.points[: len(shown)] == shown
    assert [point.index for point in read.points] == list(range(1, len(read.points) + 1))
    assert len(read.points) <= max_points
    assert_safe(read.skeleton, depth, most)
    assert read.chain != read.parallel or len(read.points) < 2
    whole = writing(text, max_points, depth, most)
    whole.close(truncated=False)
    assert (whole.points, whole.chain) == (read.points, read.chain)
    assert safe_skeleton(read.skeleton, depth, most) is not None
    assert safe_skeleton(read.skeleton, depth, most).points == tuple(read.points)


def assert_safe(skeleton: Skeleton, depth: int, most: int) -> None:
    before: list[int] = []
    for point in skeleton.points:
        assert list(point.depends_on) == [index for index in before if index in point.depends_on]
        assert len(point.depends_on) <= most
        before.append(point.index)
    assert max(skeleton.waves.values(), default=1) <= depth


anything = st.one_of(
    st.integers(-1, 9), st.none(), st.text(max_size=2), st.booleans(), st.lists(st.integers(), max_size=1)
)


@many
@given(
    st.lists(st.integers(-5, 9), unique=True, max_size=8),
    st.lists(st.lists(anything, max_size=5), min_size=8, max_size=8),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_a_given_skeleton_is_made_safe(indices: list[int], named: list[list[object]], depth: int, most: int) -> None:
    points = [Point(n, f"T{n}", tuple(of)) for n, of in zip(indices, named, strict=False)]  # type: ignore[arg-type]
    given_skeleton = Skeleton(tuple(points), "text")
    safe = safe_skeleton(given_skeleton, depth, most)
    assert [(point.index, point.title) for point in safe.points] == [(p.index, p.title) for p in points]
    assert safe.text == "text"
    assert_safe(safe, depth, most)
    assert safe_skeleton(safe, depth, most) is safe
