"""The form of the points in the answer, by every method that runs the chain."""

from __future__ import annotations

import pytest
from always import skeleton_chain

TITLES = ["Take breaks", "Drink water", "Why move?"]
ANSWERS = {
    "numbered": (
        "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water.\n\n"
        "3. Why move? All about why move?."
    ),
    "headings": (
        "## Take breaks\n\nAll about take breaks.\n\n## Drink water\n\nAll about drink water.\n\n"
        "## Why move?\n\nAll about why move?."
    ),
    "paragraphs": "All about take breaks.\n\nAll about drink water.\n\nAll about why move?.",
}


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("join", list(ANSWERS))
async def test_all_six_methods_give_the_same_answer(kit, way, llm, join, eager):
    output = await way(skeleton_chain(llm=llm, join=join, eager=eager), "Q")
    assert output["answer"] == ANSWERS[join]
    assert output["skeleton"] == TITLES
    assert output["points"]["3"] == "All about why move?.", "points are the same in every style"


@pytest.mark.parametrize("join", list(ANSWERS))
async def test_every_style_streams_in_document_order(kit, llm, join):
    gate = kit.Gate()
    script = llm.script
    llm.script = lambda seen: ["All about ", gate, "take breaks."] if seen.point == 1 else script(seen)
    written = ""
    async for text in skeleton_chain(llm=llm, join=join).pick("answer").astream("Q"):
        written += text
        assert ANSWERS[join].startswith(written)
        if "All about" in written:
            gate.open()
    assert written == ANSWERS[join]


@pytest.mark.parametrize(
    ("join", "answer"),
    [
        ("numbered", "1. Take breaks: All about take breaks.\n\n2. Drink water: (gap)\n\n3. Why move? (gap)"),
        ("headings", "## Take breaks\n\nAll about take breaks.\n\n## Drink water\n\n(gap)\n\n## Why move?\n\n(gap)"),
        ("paragraphs", "All about take breaks.\n\n(gap)\n\n(gap)"),
    ],
)
async def test_every_style_shows_failed_and_empty_points(kit, way, llm, join, answer):
    script = llm.script

    def broken(seen):
        return {2: [OSError("down")], 3: []}.get(seen.point, script(seen))

    llm.script = broken
    settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(gap)"}
    output = await way(skeleton_chain(llm=llm, join=join, **settings), "Q")
    assert output["answer"] == answer
    assert (output["errors"]["2"], sorted(output["errors"])) == ("OSError: down", ["2", "3"])
    assert output["errors"]["3"].startswith("ReplyError: The reply is empty")


async def test_an_echo_of_the_title_is_removed_in_every_style(kit, ways):
    llm = kit.Chat(script=lambda s: ["1. Move"] if s.stage == "skeleton" else ["## 1. Mo", "ve\n\nWalk", " a lot."])
    answers = {"numbered": "1. Move: Walk a lot.", "headings": "## Move\n\nWalk a lot.", "paragraphs": "Walk a lot."}
    for join, answer in answers.items():
        chain = skeleton_chain(llm=llm, join=join)
        for way in (ways["invoke"], ways["astream"]):
            assert (await way(chain, "Q"))["answer"] == answer


async def test_a_direct_answer_is_unchanged_in_every_style(kit, way):
    llm = kit.Chat(script=kit.answering([], direct="Just so."))
    chain = skeleton_chain(llm=llm, join="headings", merge=True, router=lambda question: False)
    assert (await way(chain, "Q"))["answer"] == "Just so."


@pytest.mark.parametrize(("name", "value"), [("join", "bullets"), ("merge", "maybe"), ("skeleton_mode", "json")])
def test_bad_settings_are_refused(llm, name, value):
    with pytest.raises(ValueError, match=name):
        skeleton_chain(llm=llm, **{name: value})
