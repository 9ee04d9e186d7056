"""Plain paragraphs of Markdown of all kinds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_of_thought.evaluation.forms import Marks, marks, plain

CASES = {
    "1. **Move**: walk daily.\n\n2. **Rest**: sleep\n\n3. Eat": "Move: walk daily.\n\nRest: sleep.\n\nEat.",
    "1. Move: walk\n2) Rest\n(3) Eat": "Move: walk. Rest. Eat.",
    "1. **Move**\n   Walk daily.\n\n2. **Rest**\n   Sleep.": "Move: Walk daily.\n\nRest: Sleep.",
    "1.\nMove\n2.\nRest": "Move. Rest.",
    "- a\n* b\n+ c\n– d\n— e\n• f\n‣g\n✅ h\n① i\n1️⃣ j": "a. b. c. d. e. f. g. h. i. j.",
    "- [ ] do\n- [x] done!": "do. done!",
    "Tips:\n\n- one:\n  - two\n    - three\n\nEnd": "Tips: one: two. three.\n\nEnd",
    "# Top\n\n## Sub ##\n\ntext\nwrapped": "Top: Sub: text wrapped",
    "Title\n=====\ntext\n\n***\n\nmore": "Title: text\n\nmore",
    "**Title:**\n\n- x\n- y": "Title: x. y.",
    "**A**\n\ntext": "A: text",
    "| A | B |\n|---|:-:|\n| 1 | **2** |": "A, B. 1, 2.",
    "a | b\n--- | ---\n1 | 2": "a, b. 1, 2.",
    "> quoted\n> more": "quoted more",
    "*it* **b** ***both*** __c__ _d_": "it b both c d",
    "snake_case, 2*3*4, 2 * 3 and `a*b*c`, `**kwargs`": "snake_case, 2*3*4, 2 * 3 and `a*b*c`, `**kwargs`",
    "这是**重要**的": "这是重要的",
    "1、吃饭\n2、睡觉": "吃饭。 睡觉。",
    "Run:\n```python\n# x\n- y = **2\n```\nDone": "Run:\n\n```python\n# x\n- y = **2\n```\n\nDone",
    "1. a\n   ```sh\n   ls\n     -l\n   ```\n2. b": "a.\n\n```sh\nls\n  -l\n```\n\nb.",
    "```markdown\n# T\n- a\n```": "T: a.",
    "```python\n- cut": "cut.",
    "42.": "42.",
    "In 1984. It was": "In 1984. It was",
    "-5 degrees and #1 are text": "-5 degrees and #1 are text",
    "---": "---",
    "": "",
    "a\r\nb\rc": "a b c",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_marks_are_taken_and_the_content_stays(text, expected):
    assert plain(text) == expected


PIECES = [
    *("a", "B.", " ", "\n", "\n\n", "*", "**", "_", "`", "``", "```", "~~~", "- ", "-", "# ", "1. ", "2)", "|", "|-"),
    *("> ", ":", "\\", "是", "=", "•", "\t", "```py\n", "```md\n", "```\n", "(", "a) ", "\x00"),
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=16).map("".join)))
def test_a_plain_text_stays_as_it_is(text):
    once = plain(text)
    assert plain(once) == once
    marks(text)


@given(st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=9))
def test_no_word_is_lost(words):
    for join in ("\n- ", "\n1. ", "\n\n## ", " | ", "\n> ", "**\n**"):
        text = join.strip() + join.join(words) if join.startswith("\n") else join.join(words)
        for word in words:
            assert word in plain(text)


@pytest.mark.parametrize(
    "piece", ["*a ", "**", "`", "```\n", "> ", "- ", "1. ", "| ", "a:\n\n", "# ", "_*", "~~~a\n", "*\n"]
)
def test_hostile_texts_take_linear_time(piece):
    text = piece * (200_000 // len(piece))
    plain(text)
    marks(text)


def test_marks_are_counted_outside_of_code():
    text = "# T\n\n- **a**: x\n- b\n\n1. c **d** and __e__\n\n```\n- no\n# no\n```\n**f**"
    assert marks(text) == Marks(items=3, headings=1, bold=4)
    assert marks(plain(text)) == Marks(0, 0, 0)
