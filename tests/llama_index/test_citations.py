"""The numbers in an answer that name its sources."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_sot.response import response_points
from skeleton_of_thought.types import Answer, Expansion, Point

DIGITS = "7" * 4301
"""One digit more than Python reads as a whole number."""
NODES = [NodeWithScore(node=TextNode(text=text, id_=text)) for text in ("rain", "fish", "fjord")]


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        (f"[{DIGITS}]", ()),
        (f"[1] and [{DIGITS}]", (1,)),
        (f"[2, {DIGITS}, 3]", (2, 3)),
        ("[" * 5000 + "1]", (1,)),
        ("[1," * 5000, ()),
        ("[²] [0] [4] [3]", (3,)),
        ("[\u0663]", (3,)),
        ("\ud800[2]\x00[2]", (2,)),
    ],
)
@pytest.mark.parametrize("citations", [False, True])
def test_numbers_of_any_length(text, cited, citations):
    answer = Answer(text, "?", "skeleton", expansions=(Expansion(Point(1, DIGITS), text),))
    (point,) = response_points(answer, NODES, citations=citations)
    assert point.citations == (cited if citations else ())
    assert point.text == text
