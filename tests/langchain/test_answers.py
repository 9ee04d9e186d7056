"""The output of the chain, by every method that runs it."""

from __future__ import annotations

import pytest
from always import skeleton_chain
from langchain_core.runnables.utils import AddableDict

from skeleton_of_thought.errors import PointError, SkeletonError

TITLES = ["Take breaks", "Drink water", "Move"]
EXPECTED = {
    "question": "How do I stay awake?",
    "route": "skeleton",
    "reason": "no router",
    "skeleton": TITLES,
    "points": {"1": "All about take breaks.", "2": "All about drink water.", "3": "All about move."},
    "answer": (
        "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water.\n\n3. Move: All about move."
    ),
    "errors": {},
    "sources": [],
    "point_sources": {},
}


@pytest.mark.parametrize("eager", [False, True])
async def test_all_six_methods_give_the_same_answer(kit, way, eager):
    chain = skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES)), eager=eager)
    output = await way(chain, "How do I stay awake?")
    assert kit.texts(output) == EXPECTED
    assert list(output) == [*EXPECTED, *kit.END]
    assert list(output["points"]) == ["1", "2", "3"]


async def test_a_direct_answer_has_no_points_and_is_byte_identical(kit, way):
    text = "  Exactly this, \n\nwith its white space. \n"
    llm = kit.Chat(script=kit.answering([], direct=text))
    chain = skeleton_chain(llm=llm, router=lambda question: False)
    assert kit.texts(await way(chain, "What is 2 + 2?")) == {
        "question": "What is 2 + 2?",
        "route": "direct",
        "reason": "the router decided",
        "skeleton": [],
        "points": {},
        "answer": text,
        "errors": {},
        "sources": [],
        "point_sources": {},
    }
    assert [seen.stage for seen in llm.watch.seen] == ["direct"]
    assert llm.watch.seen[0].messages[0].content == "What is 2 + 2?"


async def test_prose_instead_of_a_skeleton_falls_back_to_a_direct_answer(kit, way):
    llm = kit.Chat(script=lambda seen: ["It depends on you."])
    output = await way(skeleton_chain(llm=llm), "Why?")
    assert (output["route"], output["answer"], output["points"]) == ("direct", "It depends on you.", {})
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton", "direct"]


async def test_prose_instead_of_a_skeleton_raises_on_request(kit, way):
    llm = kit.Chat(script=lambda seen: ["It depends."])
    with pytest.raises(SkeletonError, match="0 usable"):
        await way(skeleton_chain(llm=llm, on_empty_skeleton="raise"), "Why?")


@pytest.mark.parametrize(
    "skeleton",
    [
        "Sure!\n1) Take breaks\n2) Drink water\n3) Move",
        "- Take breaks\n- Drink water\n- Move",
        "**1.** Take breaks\n**2.** Drink water\n**3.** Move",
        "<think>1. No\n2. Not this</think>1. Take breaks\n2. Drink water\n3. Move",
        "1. Take breaks\n1. Drink water\n1. Move\n1. Move",
    ],
)
async def test_the_chain_reads_skeletons_as_models_write_them(kit, ways, skeleton):
    llm = kit.Chat(script=lambda s: kit.pieces(skeleton) if s.stage == "skeleton" else ["Text."])
    for way in (ways["invoke"], ways["astream"]):
        assert (await way(skeleton_chain(llm=llm), "Why?"))["skeleton"] == TITLES


async def test_a_long_skeleton_is_cut_at_max_points(kit, way):
    llm = kit.Chat(script=kit.answering([f"Point about {letter}" for letter in "abcdefghijkl"]))
    output = await way(skeleton_chain(llm=llm, max_points=4), "Why?")
    assert len(output["skeleton"]) == 4
    assert list(output["points"]) == ["1", "2", "3", "4"]


async def test_echoes_of_number_and_title_are_removed(kit, way):
    llm = kit.Chat(script=lambda s: ["1. Move"] if s.stage == "skeleton" else ["**1. Mo", "ve**: Walk", " a lot."])
    assert (await way(skeleton_chain(llm=llm), "Why?"))["points"] == {"1": "Walk a lot."}


# --- failing points ---


def failing(kit, error=None, *, times=99):
    left = {"times": times}

    def script(seen):
        if seen.stage != "point" or seen.point != 2:
            return kit.answering(TITLES)(seen)
        if left["times"]:
            left["times"] -= 1
            return ["Half a sent", error or ConnectionError("lost")]
        return kit.answering(TITLES)(seen)

    return script


async def test_a_failing_point_raises_with_the_partial_answer(kit, way):
    llm = kit.Chat(script=failing(kit))
    with pytest.raises(PointError, match=r"Drink water.*ConnectionError: lost") as caught:
        await way(skeleton_chain(llm=llm, max_retries=0), "How do I stay awake?")
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert caught.value.point.index == 2
    assert caught.value.answer.skeleton.titles == tuple(TITLES)
    assert llm.watch.open == 0


async def test_a_failing_point_leaves_a_placeholder_and_the_others_are_intact(kit, way):
    llm = kit.Chat(script=failing(kit))
    chain = skeleton_chain(llm=llm, max_retries=0, on_point_error="placeholder", placeholder="(gap)")
    output = await way(chain, "How do I stay awake?")
    assert output["points"]["1"] == "All about take breaks."
    assert output["points"]["2"].endswith("(gap)")
    assert output["points"]["3"] == "All about move."
    assert output["errors"] == {"2": "ConnectionError: lost"}
    assert "(gap)" in output["answer"]


async def test_a_retried_point_leaves_no_trace_of_its_first_attempt(kit, way):
    llm = kit.Chat(script=failing(kit, times=1))
    chain = skeleton_chain(llm=llm, max_retries=1, backoff=0)
    first = kit.Gate(lambda: len(llm.watch.of("point", 2)) >= 2)
    script = llm.script
    # Point 1 ends last, so that nothing of point 2 is shown when it fails.
    llm.script = lambda s: [first, *script(s)] if s.point == 1 else script(s)
    assert kit.texts(await way(chain, "How do I stay awake?")) == EXPECTED
    assert len(llm.watch.of("point", 2)) == 2


def test_a_restart_shows_in_the_stream_and_not_in_the_sum(kit):
    from langchain_sot.results import Restart

    llm = kit.Chat(script=failing(kit, times=1))
    again = kit.Gate(lambda: len(llm.watch.of("point", 2)) >= 2)
    script = llm.script
    llm.script = lambda s: [again, *script(s)] if s.point == 1 else script(s)
    chunks = list(skeleton_chain(llm=llm, backoff=0).stream("How do I stay awake?"))
    texts = [chunk["points"]["2"] for chunk in chunks if "2" in chunk.get("points", {})]
    assert any(isinstance(text, Restart) for text in texts)
    assert texts[1] == "Half a sent"
    assert kit.texts(kit.total(chunks)) == EXPECTED


async def test_a_point_that_takes_too_long_fails_alone(kit, ways):
    never = kit.Gate()

    def script(seen):
        return [never, "late"] if seen.point == 2 else kit.answering(TITLES)(seen)

    # Long enough for the other points on any machine: a chain uses only the real clock.
    chain = skeleton_chain(llm=kit.Chat(script=script), point_timeout=2.0, max_retries=0, on_point_error="placeholder")
    for way in (ways["ainvoke"], ways["astream"]):
        output = await way(chain, "How do I stay awake?")
        assert list(output["errors"]) == ["2"]
        assert "PointTimeout" in output["errors"]["2"]


# --- streams ---


def test_the_first_chunk_has_every_key(kit):
    chain = skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES)))
    first = next(iter(chain.stream("Why?")))
    assert isinstance(first, AddableDict)
    assert list(first) == [*EXPECTED, *kit.END]


async def test_text_streams_in_document_order_though_point_1_is_slowest(kit):
    gate = kit.Gate()

    def script(seen):
        if seen.point != 1:
            return kit.answering(TITLES)(seen)
        return ["All about ", gate, "take breaks."]

    chain = skeleton_chain(llm=kit.Chat(script=script))
    written = ""
    async for text in chain.pick("answer").astream("How do I stay awake?"):
        written += text
        if "All about" in written:
            # The first text is there while no point is complete.
            gate.open()
    assert written == EXPECTED["answer"]


def test_points_stream_interleaved_and_add_up(kit):
    turn = [kit.Gate() for _ in range(3)]

    def script(seen):
        if seen.stage == "skeleton":
            return kit.answering(["A thing", "B thing"])(seen)
        if seen.point == 1:
            return ["one ", turn[0].open, turn[1], "more one"]
        return [turn[0], "two ", turn[1].open, "more two"]

    chunks = list(skeleton_chain(llm=kit.Chat(script=script)).pick("points").stream("Why?"))
    order = [key for chunk in chunks for key, text in chunk.items() if text]
    assert order.index("2") < len(order) - 1 - order[::-1].index("1"), "point 2 came before the last of point 1"
    assert kit.total(chunks) == {"1": "one more one", "2": "two more two"}
    assert list(kit.total(chunks)) == ["1", "2"]


def test_eager_points_start_while_the_skeleton_is_written(kit):
    llm = kit.Chat(script=None)
    started = kit.Gate(lambda: bool(llm.watch.of("point", 1)))

    def script(seen):
        if seen.stage == "skeleton":
            return ["1. Take breaks\n", started, "2. Drink water"]
        return ["Text."]

    llm.script = script
    output = skeleton_chain(llm=llm, eager=True).invoke("Why?")
    assert output["skeleton"] == ["Take breaks", "Drink water"]
