"""Clean-up of expansions: it removes echoes, reasoning and white space, and keeps the model's own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_of_thought.draft import PointWriting, Release
from skeleton_of_thought.text.assembly import ExpansionText, Join, PrefillEcho, WholeText, heading, render, separator
from skeleton_of_thought.types import Expansion, Point

POINT = Point(2, "Take breaks")


def clean(text: str, point: Point = POINT, *, pieces: list[str] | None = None) -> str:
    cleaner, out = ExpansionText(point), ""
    for piece in pieces or [text]:
        shown = cleaner.feed(piece)
        out = shown if cleaner.restarted else out + shown
    rest = cleaner.close()
    return rest if cleaner.restarted else out + rest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Rest your eyes. ", "Rest your eyes."),
        ("2. Take breaks: Rest.", "Rest."),
        ("2. Take breaks. Rest.", "Rest."),
        ("2) take BREAKS - Rest.", "Rest."),
        ("**2. Take breaks**\n\nRest.", "Rest."),
        ("### 2. Take breaks\nRest.", "Rest."),
        ("**Take breaks:** Rest.", "Rest."),
        ("Take breaks: Rest.", "Rest."),
        ("Take breaks — Rest.", "Rest."),
        ("Point 2: Take breaks\nRest.", "Rest."),
        ("Point 2: Rest.", "Rest."),
        ("2. Rest.", "Rest."),
        ('2. "Take breaks": Rest.', "Rest."),
        ("2. Take breaks every hour.", "Take breaks every hour."),
        ("Take breaks every hour.", "Take breaks every hour."),
        ("Take breaks, and rest.", "Take breaks, and rest."),
        ("Take breakfast: it helps.", "Take breakfast: it helps."),
        ("Take breaks-like pauses.", "Take breaks-like pauses."),
        ("2.5 litres a day.", "2.5 litres a day."),
        ("2 hours of sleep.", "2 hours of sleep."),
        ("20. Take breaks: no", "20. Take breaks: no"),
        ("3. Another point.", "3. Another point."),
        ("Points to note.", "Points to note."),
        ("**Rest** your eyes.", "**Rest** your eyes."),
        ("2. Take breaks", ""),
        ("Take breaks", ""),
        ("Take", "Take"),
        ("", ""),
        ("  \n ", ""),
        ("<think>2. Take breaks</think>Rest.", "Rest."),
        ("2. Take breaks: Rest.\n\nMore. \n", "Rest.\n\nMore."),
        ("(2) Rest.", "Rest."),
        ("- a\n- b", "- a\n- b"),
    ],
)
def test_echoes_are_removed_and_the_models_words_stay(text, expected):
    assert clean(text) == expected
    assert clean(text, pieces=list(text)) == expected


@given(
    st.lists(
        st.sampled_from(
            [
                " ",
                "\n",
                "2",
                ".",
                ")",
                "2. ",
                "Take",
                " breaks",
                "breaks",
                ":",
                "**",
                "-",
                "Point ",
                "Rest",
                "<think>",
                "</think>",
            ]
        ),
        max_size=12,
    ),
    st.data(),
)
def test_the_result_does_not_depend_on_the_chunking(pieces, data):
    text = "".join(pieces)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert clean(text, pieces=chunks) == clean(text)


NOTED = Point(3, "Daily care", scope="feeding, walks and cleaning")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Feeding, walks and cleaning - Both want a meal.", "Both want a meal."),
        ("feeding, walks and cleaning: both want a meal.", "both want a meal."),
        ('"Feeding, walks and cleaning"\n\nBoth want a meal.', "Both want a meal."),
        ("3. **Daily care**: feeding, walks and cleaning\nBoth want a meal.", "Both want a meal."),
        ("Daily care: both want a meal.", "both want a meal."),
        # What is the start of a sentence, or all there is, is the model's text.
        ("Feeding, walks and cleaning take an hour.", "Feeding, walks and cleaning take an hour."),
        ("Feeding, walks and cleaning. It all adds up.", "Feeding, walks and cleaning. It all adds up."),
        ("Feeding, walks and cleaning-up take an hour.", "Feeding, walks and cleaning-up take an hour."),
        ("Feeding, walks and cleaning", "Feeding, walks and cleaning"),
        ("Feeding, walks and cleaning -", "Feeding, walks and cleaning -"),
        ("3. Daily care: feeding, walks and cleaning", "feeding, walks and cleaning"),
        ("Feeding, walks", "Feeding, walks"),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_note_that_stands_before_the_text_is_an_echo(text, expected, size):
    assert clean(text, NOTED, pieces=[text[i : i + size] for i in range(0, len(text), size)]) == expected


@given(
    st.lists(
        st.sampled_from(
            ["3. ", "Daily care", "feeding, walks", " and cleaning", ": ", " - ", "\n", "*", ".", " ", "x" * 90]
        )
    ),
    st.data(),
)
def test_notes_are_dropped_alike_in_any_chunking(pieces, data):
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert clean(text, NOTED, pieces=parts) == clean(text, NOTED)


def test_text_streams_once_it_cannot_be_an_echo():
    cleaner = ExpansionText(POINT)
    assert cleaner.feed("Rest") == "Rest"
    assert cleaner.feed(" your eyes ") == " your eyes"
    assert cleaner.feed("now") == " now"


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Sleep", "1. Sleep: text"),
        ("Why sleep?", "1. Why sleep? text"),
        ("Sleep!", "1. Sleep! text"),
        ("Save 20%", "1. Save 20%: text"),
        ("为什么？", "1. 为什么？ text"),
        ("", "1. text"),
    ],
)
def test_a_heading_and_its_text_read_well(title, expected):
    point = Point(1, title)
    assert heading(point) + separator(point) + "text" == expected
    assert render([Expansion(point, "text")]) == expected


# --- prefills that a server repeats ---


def without_echo(prefill: str, parts: list[str]) -> str:
    echo = PrefillEcho(prefill)
    return "".join(echo.feed(part) for part in parts) + echo.close()


@pytest.mark.parametrize(
    ("prefill", "text", "expected"),
    [
        ("1.", "1. Move", " Move"),
        ("1. ", "1. Move", " Move"),
        ("1.", " Move", " Move"),
        ("1.", "10 ways", "10 ways"),
        ("1.", "1", "1"),
        ("1.", "1.", ""),
        ("1.", "1. 1. Move", " 1. Move"),
        ('"Move" -', '"Move" - a walk helps.', " a walk helps."),
        ('"Move" -', '"Move', '"Move'),
        ("Sure:\n1.", "Sure:\n1. Move", " Move"),
        ("", "1. Move", "1. Move"),
        (" ", "Move", "Move"),
    ],
)
def test_only_a_repeated_prefill_is_removed(prefill, text, expected):
    assert without_echo(prefill, [text]) == expected
    assert without_echo(prefill, list(text)) == expected


@given(st.text("1. a", max_size=6), st.lists(st.text("1. a", max_size=4)))
def test_a_repeated_prefill_is_removed_from_any_chunking(prefill, parts):
    text = "".join(parts)
    assert without_echo(prefill, parts) == without_echo(prefill, [text])
    assert without_echo(prefill, [prefill.strip() + text]) == text


def test_only_a_possible_repetition_is_held_back():
    echo = PrefillEcho("1. Move")
    assert echo.feed("1. M") == ""
    assert echo.feed("a") == "1. Ma"
    assert echo.feed("1. Move") == "1. Move"


# --- the forms of an answer ---


@pytest.mark.parametrize(
    ("title", "headings"),
    [
        ("Sleep", "## Sleep\n\ntext"),
        ("Why sleep?", "## Why sleep?\n\ntext"),
        ("What to do:", "## What to do\n\ntext"),
        ("为什么：", "## 为什么\n\ntext"),
        ("Two\nlines", "## Two lines\n\ntext"),
        ("", "## 1\n\ntext"),
        (":", "## 1\n\ntext"),
        ("A title that is as long as a sentence may be", "## A title that is as long as a sentence may be\n\ntext"),
    ],
)
def test_headings_stand_on_a_line_of_their_own(title, headings):
    assert render([Expansion(Point(1, title), "text")], "headings") == headings


def test_a_point_without_text_keeps_its_heading_but_makes_no_paragraph():
    expansions = [Expansion(Point(1, "One")), Expansion(Point(2, "Two"), "text"), Expansion(Point(3, "Three"))]
    assert render(expansions) == "1. One\n\n2. Two: text\n\n3. Three"
    assert render(expansions, "headings") == "## One\n\n## Two\n\ntext\n\n## Three"
    assert render(expansions, "paragraphs") == "text"
    assert render(expansions[:1], "paragraphs") == ""


def test_paragraphs_are_the_texts_alone():
    expansions = [Expansion(Point(1, "One"), "a\n\n- b"), Expansion(Point(2, "Two"), "c")]
    assert render(expansions, "paragraphs") == "a\n\n- b\n\nc"


BLOCKS = [
    "- hammer\n- saw",
    "* hammer",
    "+ hammer",
    "• hammer",
    "➤ hammer\n➤ saw",
    "✅ hammer\n✅ saw",
    "🔹 hammer",
    "1. hammer\n2. saw",
    "12) hammer",
    "(1) hammer",
    "1、锤子",
    "①锤子",
    "- [ ] hammer",
    "```python\nprint()\n```",
    "~~~\ncode\n~~~",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "# Tools",
    "### Tools",
    "> Use it.",
    ">Use it.",
    "$$x^2$$",
    "\\[x^2\\]",
    "\\begin{align}x\\end{align}",
    "<ul><li>hammer</li></ul>",
    '<table class="x">',
    "---\nA rule.",
]
WORDS = [
    "A hammer.",
    "-5 degrees",
    "--verbose shows more.",
    "*Never* that.",
    "**Hammer**: heavy.",
    "3.5 litres",
    "2024. A good year.",
    "100 tools",
    "(one of many)",
    "(2024) was good.",
    "`hammer` is a command.",
    "``a`b`` is code.",
    "~5 tools",
    "#tools",
    "#1 is the hammer.",
    ">= 5 tools",
    "$5 a piece",
    "\\beta is small.",
    "<b>Hammer</b>",
    "<person> is a tag.",
    "-",
    "1.",
    "``",
    "<u",
]


@pytest.mark.parametrize("text", BLOCKS)
def test_a_text_that_begins_with_a_block_stands_on_a_line_of_its_own(text):
    assert render([Expansion(Point(1, "Tools"), text)]) == f"1. Tools:\n\n{text}"
    assert render([Expansion(Point(1, "Tools?"), text)]) == f"1. Tools?\n\n{text}"
    assert render([Expansion(Point(1, ""), text)]) == f"1.\n\n{text}"
    assert render([Expansion(Point(1, "Tools"), text)], "headings") == f"## Tools\n\n{text}"
    assert render([Expansion(Point(1, "Tools"), text)], "paragraphs") == text


@pytest.mark.parametrize("text", WORDS)
def test_a_text_that_begins_with_words_follows_its_heading(text):
    assert render([Expansion(Point(1, "Tools"), text)]) == f"1. Tools: {text}"


def live(texts: list[list[str]], join: Join) -> list[list[str]]:
    """What the reader gets with each piece, and at the end, of points that are written one after the other."""
    release = Release(join, live=True, held=False)
    shown = []
    for index, pieces in enumerate(texts, 1):
        writing = PointWriting(Point(index, "Tools"), None)
        release.queue.append(writing)
        shown.append(["".join(delta.text for delta in release.points(0.0))])
        for piece in pieces:
            writing.pieces.append(piece)
            shown[-1].append("".join(delta.text for delta in release.points(0.0)))
        writing.expansion = writing.result(0.0)
        shown[-1].append("".join(delta.text for delta in release.points(0.0)))
    return shown


@pytest.mark.parametrize("join", ["numbered", "headings", "paragraphs"])
@pytest.mark.parametrize("text", BLOCKS + WORDS)
def test_a_live_answer_reads_as_the_joined_one(text, join):
    joined = render([Expansion(Point(1, "Tools"), text), Expansion(Point(2, "Tools"), "b")], join)
    for pieces in ([text], list(text), [text[:2], text[2:]] if text[2:] else [text]):
        assert "".join(map("".join, live([pieces, ["b"]], join))) == joined


@given(st.lists(st.sampled_from([*"-*+1.) `~|#>$\\[<uol>a=(•", "begin{", "\n"]), min_size=1, max_size=10))
def test_a_live_answer_reads_as_the_joined_one_whatever_it_begins_with(pieces):
    text = "".join(pieces)
    assert "".join(live([pieces], "numbered")[0]) == render([Expansion(Point(1, "Tools"), text)])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["It", " helps"], ["1. Tools", ": It", " helps", ""]),
        (["-", " a"], ["1. Tools", "", ":\n\n- a", ""]),
        (["-", "5"], ["1. Tools", "", ": -5", ""]),
        (["`", "`", "`py"], ["1. Tools", "", "", ":\n\n```py", ""]),
        (["`", "a", "`"], ["1. Tools", "", ": `a", "`", ""]),
        (["2", "0 a"], ["1. Tools", "", ": 20 a", ""]),
        (["-"], ["1. Tools", "", ": -"]),
    ],
)
def test_only_the_start_of_a_possible_block_is_held_back(pieces, expected):
    assert live([pieces], "numbered") == [expected]


def test_a_point_whose_start_is_held_back_can_be_written_again():
    release = Release("numbered", live=True, held=False)
    writing = PointWriting(Point(1, "Tools"), None)
    release.queue.append(writing)
    writing.pieces.append("-")
    assert [delta.text for delta in release.points(0.0)] == ["1. Tools"]
    assert writing.released == 0
    assert writing.shown is None
    writing.restart(None)
    writing.pieces.append("It helps.")
    assert [delta.text for delta in release.points(1.0)] == [": It helps."]
    assert writing.shown == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \n 1. One: a. \n\nb. \n", "1. One: a. \n\nb."),
        ("<think>no</think>\n\nYes.", "Yes."),
        ("<think>never closed", ""),
        ("Yes. <think>never closed", "Yes. <think>never closed"),
        ("a < b", "a < b"),
        (" \n", ""),
        ("<thi", "<thi"),
    ],
)
def test_a_whole_text_loses_reasoning_and_surrounding_space(text, expected):
    for pieces in ([text], list(text)):
        cleaner = WholeText()
        assert "".join(map(cleaner.feed, pieces)) + cleaner.close() == expected


def test_a_whole_text_streams():
    cleaner = WholeText()
    assert [cleaner.feed(piece) for piece in (" ", "a ", "b", "\n")] == ["", "a", " b", ""]
    assert cleaner.close() == ""


RUNS = ["-", "–", "*", "_", "`", '"', ".", ":", " ", "\n", "#", "(", ")"]


@pytest.mark.parametrize("mark", RUNS)
@pytest.mark.parametrize("start", ["Rest", "2. Rest", "Point 2:", "", "**Rest", "Rest:"])
@pytest.mark.parametrize("end", [" It helps.", "It helps.", ""])
def test_a_long_run_of_marks_is_read_the_same_in_any_pieces(mark, start, end):
    text = start + mark * 200 + end
    texts = set()
    for size in (1, 7, 124, 125, 126, 199, 1000):
        cleaner = ExpansionText(Point(2, "Rest"))
        pieces = [cleaner.feed(text[at : at + size]) for at in range(0, len(text), size)]
        texts.add("".join(pieces) + cleaner.close())
    assert len(texts) == 1


def test_a_rule_behind_the_title_is_part_of_the_echo():
    cleaner = ExpansionText(Point(2, "Rest"))
    assert cleaner.feed("Rest\n" + "-" * 200) + cleaner.feed("-----\nIt helps.") + cleaner.close() == "It helps."


def test_a_long_s_is_no_echo_of_the_word_step():
    for pieces in (["ſtep 2. It helps."], list("ſtep 2. It helps.")):
        cleaner = ExpansionText(Point(2, "Rest"))
        assert "".join(map(cleaner.feed, pieces)) + cleaner.close() == "ſtep 2. It helps."
