"""Fuzzing of the parser and of the clean-up of texts: nothing raises, and the result is the same for all chunkings.

A few hundred examples by default; with `SOT_FAULTS_LONG=1`, as `make test-faults` sets it, many thousands.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skeleton_of_thought.parsing.data import json_titles, json_value
from skeleton_of_thought.parsing.parser import (
    MOST_POINTS,
    ReasoningFilter,
    SkeletonParser,
    SkeletonWriting,
    parse_skeleton,
    skeleton_of_titles,
    without_reasoning,
)
from skeleton_of_thought.text.assembly import ExpansionText, PrefillEcho, WholeText, render
from skeleton_of_thought.text.echoes import PromptEcho
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import Expansion, Message, Point, Prompt

LONG = os.environ.get("SOT_FAULTS_LONG") == "1"
fuzz = settings(max_examples=2000 if LONG else 150, suppress_health_check=list(HealthCheck), database=None)

CONTROLS = [chr(n) for n in (*range(32), 127, *range(128, 160))]
BIDI = [chr(n) for n in (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF)]
HALVES = ["\ud800", "\udbff", "\udc00", "\udfff", "\ud83d\ude00"]
MARKS = [
    *"-–—*_`#>.:;,()[]{}<>|\\/\"'“”「」=~+$&%!?",
    "：",
    "。",
    "、",
    "…",
    "①",
    "②",
    "²",
    "½",
    "٣",
    "𝟙",
    "Ⅻ",
    "一",
    "第",
    "🔟",
    "1\ufe0f\u20e3",
]
WORDS = [
    *(
        "Rest",
        "rest",
        "Rest well",
        "text ",
        "Point 2",
        "Step ",
        "First, ",
        "1st ",
        "a)",
        "IV. ",
        "1.",
        "2)",
        "3. ",
        "1.1 ",
    ),
    *("ſ", "ß", "İ", "ı", "ﬁ", "SS", "<think>", "</think>", "◁think▷", "◁/think▷", "[THINK]", "analysis", "final"),
    *("<ol>", "<li>", "</li>", "&#", "&#65;", "&amp;", "\\item ", "\\begin{itemize}", "\\textbf{", "```", "```json\n"),
    *('{"points": [', '"title": ', "true", "null", "1e999", "\\u00", "\\ud800", "7" * 60, "<|im_end|>", "\r\n", "\n\n"),
]
ATOMS = st.one_of(
    st.sampled_from(WORDS), st.sampled_from([*CONTROLS, *BIDI, *HALVES, *MARKS]), st.characters(exclude_categories=())
)
RUNS = st.builds(lambda atom, count: atom * count, ATOMS, st.sampled_from([1, 1, 1, 1, 2, 3, 7, 150]))
TEXTS = st.lists(RUNS, max_size=12).map("".join)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def read(make: Callable[[], Any], parts: list[str]) -> str:
    """The text that a reader shows at the end, without what it took back."""
    reader, shown = make(), ""
    for part in parts:
        text = reader.feed(part)
        shown = text if getattr(reader, "restarted", False) else shown + text
    rest = reader.close()
    return rest if getattr(reader, "restarted", False) else shown + rest


POINTS = [Point(2, "Rest"), Point(1, "Straße"), Point(12, ""), Point(3, "Point"), Point(2, "Rest well: 2.")]
READERS: dict[str, Callable[[], Any]] = {
    **{f"point {point.title}": lambda point=point: ExpansionText(point) for point in POINTS},
    "whole": WholeText,
    "reasoning": ReasoningFilter,
    "loops": LoopGuard,
    "echo": lambda: PromptEcho(Prompt((Message("user", "Rest well. Write point 2 of the text."),)), ["Rest"]),
    "prefill": lambda: PrefillEcho("1. Rest"),
}


@pytest.mark.parametrize("name", sorted(READERS))
@fuzz
@given(text=TEXTS, cuts=st.lists(st.integers(0, 5000), max_size=5))
def test_a_cleaner_reads_any_text_the_same_in_any_pieces(name, text, cuts):
    whole = read(READERS[name], [text])
    assert read(READERS[name], pieces(text, cuts)) == whole
    assert read(READERS[name], list(text)) == whole
    assert len(whole) <= len(text)


@fuzz
@given(text=TEXTS, cuts=st.lists(st.integers(0, 5000), max_size=5), truncated=st.booleans())
def test_the_parser_reads_any_text_the_same_in_any_pieces(text, cuts, truncated):
    found = []
    for parts in ([text], pieces(text, cuts), list(text)):
        parser = SkeletonParser()
        for part in parts:
            parser.feed(part)
        found.append(parser.close(truncated).titles)
    assert found[0] == found[1] == found[2]
    assert len(found[0]) <= MOST_POINTS
    for title in found[0]:
        title.encode()
        assert title == " ".join(title.split())


@fuzz
@given(text=TEXTS)
def test_a_skeleton_is_written_down_and_read_again(text):
    writing = SkeletonWriting(1, 5, prefill="1.")
    for piece in pieces(text, [3, 11]):
        writing.feed(piece)
    writing.close(truncated=True)
    assert len(writing.points) <= 5
    assert str(writing.error)
    skeleton = parse_skeleton(text)
    assert len(parse_skeleton(str(skeleton)).points) <= len(skeleton.points) * 2 + 1
    assert all(render([Expansion(point, text)], join) for point in skeleton.points for join in ("numbered", "headings"))


@fuzz
@given(text=TEXTS, bare=st.booleans(), cut=st.booleans())
def test_any_text_as_data(text, bare, cut):
    assert all(title.text for title in json_titles(text, bare=bare))
    json_value(text, cut=cut)
    assert len(skeleton_of_titles([text, "One"]).points) in (1, 2)
    assert len(without_reasoning(text)) <= len(text)
