"""Properties of parsing that hold for every text that a model can write."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lines_run import lines_run

from skeleton_of_thought.parsing.parser import ReasoningFilter, SkeletonParser, parse_skeleton, without_reasoning
from skeleton_of_thought.types import Point, Skeleton

pytestmark = pytest.mark.filterwarnings("error")
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- texts ----------------------------------------------------------------------------------------

anything = st.text(st.characters(exclude_categories=()))
SNIPPETS = (
    "1. |2. |3.|4) |(1) |(2)|1.1. |1.2 |1: |2 - |10. |2024. |- |* |• |**|__|*|_|`|```|```python|~~~|# |## |### |① |②"
    "|一、|二、|第一，|Step 1: |Step 2|a) |b. |I. |II. |A. |١. |२) |1️⃣ | |  |    |\t|\n|\n\n|\r\n|\r|\n   |> |:|.|…|?|,"
    '|<think>|</think>|<|</|thinking>|<reasoning>|</reasoning>|[|]|{|"|Apples|red plums|苹果|яблоки|تفاح|3.5|$5|x|X'
    "|[THINK]|[/THINK]|<think a=b>|<answer>|</answer>|◁think▷|◁/think▷|analysis|assistantfinal|a. </think> |`</think>`"
    "|Here is my thought process:|Here is my response:"
    "|\x00|\ud800|\ufeff|\u2028|1st |2nd |First, |Second, |首先，|其次，|α) |β) |а) |가. |1단계 |제1장 |🍎 |✅ |#. "
    "|<ol>|</ol>|<li>|</li>"
    "|<h2>|</h2>|<td>|</tr>|\\item |\\begin{itemize}|\\end{itemize}|\\section{x}"
    "|\n===\n|\n---\n|title: |id: 1|Introduction:|Outline|= |== |: "
    '|\n["A", "B"]\n|{"points": ["A"]}|Section 1: |Part A: '
)
CHANNELS = (
    "<|channel|>analysis<|message|>",
    "<|end|>",
    "<|start|>assistant",
    "<|channel|>final<|message|>",
    "<|channel>thought",
    "<channel|>",
)
snippets = st.sampled_from([*SNIPPETS.split("|"), *CHANNELS, "|", "| 1 | A |", "|---|"])
list_like = st.lists(snippets, max_size=40).map("".join)
texts = anything | list_like


@st.composite
def in_pieces(draw: st.DrawFn, source: st.SearchStrategy[str] = texts) -> list[str]:
    text = draw(source)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    if draw(st.booleans()):
        cuts = list(range(len(text)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


word = st.text(st.characters(categories=["L", "M", "Nd"]), min_size=1, max_size=8)
KNOWN = (
    "of 3.5 $3.5 2024 (12) (optional) – - & vs. U.S. C++ 50% don't “quoted” risk/benefit 1,000 e.g. note: A/B 苹果 क्या"
    " سؤال шаг Почему? snake_case 2*3 `code` 1st"
)
known = st.sampled_from(KNOWN.split())
first_word = st.text(st.characters(categories=["L"]), min_size=2, max_size=8) | st.sampled_from(
    ["3.5", "$5", "2024", "50%", "World", "“So”", "(Why)", "中文"]
)
last_word = st.text(st.characters(categories=["L"]), min_size=2, max_size=8) | st.sampled_from(
    ["2024", "3.5", "(short)", "why?", "now!", "on…", "on...", "C++", "U.S."]
)


def is_clean(title: str) -> bool:
    """A clean title is one line of words that begins and ends in no list mark or closing punctuation.

    It never holds a number with a dot or parenthesis, which a reader would take for a second mark.
    """
    words = title.split()
    return title == " ".join(words) and not any(w[:1].isdecimal() and w[-1:] in ".)、" for w in words)


clean_titles = st.builds(
    lambda a, mid, z: " ".join([a, *mid, z]), first_word, st.lists(word | known, max_size=5), last_word
).filter(is_clean)

# --- chunks ---------------------------------------------------------------------------------------


@many
@given(in_pieces(), st.none() | st.integers(1, 4), st.booleans())
@example(["1. a\r", "\n2. b"], None, False)
@example(["1. a\n</thi", "nk>2. b"], None, False)
def test_result_does_not_depend_on_the_pieces(pieces: list[str], limit: int | None, truncated: bool) -> None:
    whole = SkeletonParser(limit)
    whole.feed("".join(pieces))
    expected = whole.close(truncated)

    parser = SkeletonParser(limit)
    returned: list[Point] = []
    for piece in pieces:
        found = parser.feed(piece)
        returned = found if parser.restarted else returned + found
        assert parser.points == tuple(returned)
        assert parser.full == (limit is not None and len(returned) == limit)
    skeleton = parser.close(truncated)
    if parser.restarted:
        returned = []

    assert skeleton == expected
    assert skeleton.text == expected.text == "".join(pieces)
    assert skeleton.points[: len(returned)] == tuple(returned)
    assert parser.points == skeleton.points
    assert limit is None or len(skeleton) <= limit


@many
@given(texts)
def test_any_text_gives_numbered_points_with_usable_titles(text: str) -> None:
    skeleton = parse_skeleton(text)
    assert [point.index for point in skeleton.points] == list(range(1, len(skeleton) + 1))
    for title in skeleton.titles:
        assert title
        assert title == " ".join(title.split())
        title.encode()


@many
@given(texts, st.integers(1, 5))
def test_limit_gives_the_first_points(text: str, limit: int) -> None:
    limited = parse_skeleton(text, limit)
    assert limited.points == parse_skeleton(text).points[:limit]


@many
@given(in_pieces())
def test_filter_does_not_depend_on_the_pieces(pieces: list[str]) -> None:
    reasoning, out = ReasoningFilter(), ""
    for piece in pieces:
        shown = reasoning.feed(piece)
        out = shown if reasoning.restarted else out + shown
    rest = reasoning.close()
    assert (rest if reasoning.restarted else out + rest) == without_reasoning("".join(pieces))


@many
@given(st.text(st.characters(exclude_characters="<[◁afH")))
def test_filter_passes_text_without_tags_at_once(text: str) -> None:
    assert ReasoningFilter().feed(text) == text


# --- lists ----------------------------------------------------------------------------------------


@many
@given(st.lists(clean_titles, max_size=12))
@example(["Costs of $3.5 in 2024", "Costs of $3.5 in 2024"])
@example(["Foo (2) bar", "See 3) and (3)"])
@example(["3.5 tips", "2024: a year (or two)", "Why - and how?", "A) or B"])
def test_written_skeleton_is_read_back(titles: list[str]) -> None:
    skeleton = Skeleton(tuple(Point(n, title) for n, title in enumerate(titles, 1)))
    assert parse_skeleton(str(skeleton)).titles == tuple(titles)


@many
@given(
    st.lists(clean_titles, min_size=1, max_size=8),
    st.sampled_from(["{}. ", "{}) ", "({}) ", "**{}.** ", "### {}. ", "Step {}: ", "- ", "{}、", "   {}. "]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_each_point_is_returned_by_the_piece_that_ends_its_line(titles: list[str], mark: str, end: str) -> None:
    parser = SkeletonParser()
    for n, title in enumerate(titles, 1):
        line = mark.format(n) + title
        assert [point for char in line for point in parser.feed(char)] == []
        assert parser.feed(end) == [Point(n, title)]
    assert parser.close().titles == tuple(titles)


# --- cost -----------------------------------------------------------------------------------------

HOSTILE = {
    "digits": "1",
    "asterisks": "*",
    "underscores": "_",
    "spaces": " ",
    "spaced number": "1 ",
    "dots": ".",
    "dotted": "1.1.1.1.",
    "parentheses": "(((((",
    "tags": "<think",
    "closing tags": "</think>",
    "blocks": "<think></think>",
    "brackets": "[",
    "objects": '{"a":',
    "mentioned tags": "the </think> ",
    "tags in code": "`</think>` ",
    "own lines": "a\n</think>\n",
    "spaces after a tag": "a</think>          ",
    "square": "[THINK",
    "channels": "<|channel|>analysis<|message|>a<|end|>",
    "answers": "<think>a</think><answer>b</answer>",
    "attributes": "<think a=",
    "backticks": "`",
    "odd backticks": "` ``",
    "hashes": "#",
    "quotes": "> ",
    "inline": "1. a 2. b ",
    "numbers": "1. 2. 3. ",
    "open emphasis": "**a *b _c ",
    "commas": "1. a, 2. b,",
    "returns": "\r",
    "roman": "I",
    "step": "Step 1 ",
    "colons": "a: 1. ",
    "bullets": "• a ",
    "headings": "# a\n## b\n",
    "headings below one": "## b\n",
    "numbers below headings": "# a\n1. b\n",
    "emoji": "🍎",
    "emoji lines": "🍎 a\n",
    "first": "First, ",
    "sequence": "First, a\nThen, b\n",
    "ordinals": "1st a\n",
    "items": "<li>a",
    "lists": "<ul><li>",
    "open tags": "<li ",
    "latex items": "\\item a ",
    "latex lists": "\\begin{itemize}",
    "latex headings": "\\section{",
    "latex styles": "\\emph{a ",
    "rows": "| a ",
    "table": "|---|\n| a |\n",
    "underlines": "a\n---\n",
    "definitions": "a\n: b\n\n",
    "json lines": "[\n",
    "json objects": '{"a": [\n',
    "json after prose": 'a: ["a",\n',
    "fields": "title: ",
    "letters": "α) a\n",
    "introductions": "Introduction:\n- a\n",
    "equals": "= ",
}


def steps(text: str, size: int) -> int:
    """Lines of Python that parsing `text` in pieces of `size` runs."""

    def parse() -> None:
        parser = SkeletonParser()
        for at in range(0, len(text), size):
            parser.feed(text[at : at + size])
        parser.close()

    return lines_run(parse)


@pytest.mark.parametrize("prefix", ["", "1. ", "1. A\n2. B "], ids=["alone", "title", "second"])
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_work_grows_linearly(unit: str, prefix: str) -> None:
    small, large = (prefix + unit * (n // len(unit)) for n in (1000, 4000))
    parse_skeleton(small)  # compiles the patterns
    for size in (1, 10_000):
        assert steps(large, size) < 6 * steps(small, size) + 1000


@pytest.mark.parametrize("prefix", ["", "1. ", "1. A\n2. B "], ids=["alone", "title", "second"])
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_megabyte_does_not_hang(unit: str, prefix: str) -> None:
    # Quadratic work on a megabyte takes hours, so the timeout of the run catches it without a limit in seconds.
    text = prefix + unit * (1_000_000 // len(unit))
    assert parse_skeleton(text).text == text
