"""What points share: the share of trigrams, and the longest passage."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeleton_of_thought.evaluation.overlap import bare_words as of_evaluation
from skeleton_of_thought.text.overlap import Overlap, bare_words, grams, shared_with

many = settings(max_examples=150, deadline=None)
NOTHING = Overlap(0.0, "")

TEA = "Tea keeps you awake all day, because it has some caffeine in it."
WARM = "It is warm. Tea keeps you **awake** all day, so drink it at breakfast."


def test_the_share_is_that_of_the_text_and_the_passage_stands_as_written():
    assert shared_with(TEA, TEA) == Overlap(1.0, TEA)
    assert shared_with(WARM, TEA) == Overlap(4 / 12, "Tea keeps you **awake** all day,")
    assert shared_with(TEA, WARM) == Overlap(4 / 11, "Tea keeps you awake all day,")
    assert shared_with(TEA, TEA + " " + WARM * 5).share == 1.0
    assert shared_with(TEA + " " + WARM * 5, TEA).share < 0.5


def test_unlike_and_short_texts_share_nothing():
    assert shared_with(TEA, "Coffee grows on hills, in the shade of taller trees.") == NOTHING
    assert shared_with("Tea keeps you awake all day.", TEA) == NOTHING
    assert shared_with(TEA, "Tea keeps you awake all day.") == NOTHING
    assert shared_with("", "") == NOTHING


def test_words_of_the_question_do_not_count():
    assert shared_with(TEA, WARM, ignore="Why does tea keep you awake? 'Tea keeps you awake all day!'") == NOTHING
    # The passage is the one that tells most of what both say: not the question's words.
    text = "How to sleep well in a hot summer night: open all of the windows."
    other = "This is how to sleep well in a hot summer night. Then open all of the doors at dawn."
    assert shared_with(text, other).passage == "How to sleep well in a hot summer night:"
    assert shared_with(text, other, ignore="How to sleep well in a hot summer night?").passage == "open all of the"


def test_code_and_the_numbers_of_lists_do_not_count():
    code = "```py\nimport this and that and all the rest of it\n```\n"
    assert shared_with(f"Set it up like this:\n{code}", f"Tear it down like that:\n{code}") == NOTHING
    assert shared_with(f"{code}{TEA}", f"{code}{TEA}") == Overlap(1.0, TEA)
    items = ["Eat fresh fruit.", "Go to bed early.", "Walk for an hour."]
    one, other = ("\n".join(f"{n}. {item}" for n, item in enumerate(items, start)) for start in (1, 4))
    assert shared_with(one, other) == Overlap(1.0, one.removeprefix("1. "))


def test_in_scripts_without_spaces_characters_are_words():
    text, other = (
        "每天喝茶可以让人保持清醒，也有益健康，很多人喜欢。",
        "研究表明，喝茶可以让人保持清醒，但是晚上不要喝太多茶。",
    )
    found = shared_with(text, other)
    assert found.passage == "喝茶可以让人保持清醒"
    assert found.share == pytest.approx(8 / 20)
    assert shared_with("喝茶可以让人保持清醒", other) == NOTHING


words = st.lists(st.sampled_from(["a", "b", "c", "D,", "今", "é!"]), max_size=40).map(" ".join)


@many
@given(words, words)
def test_the_passage_is_the_longest_run_that_both_have(text, other):
    found = shared_with(text, other)
    own, theirs = bare_words(text), bare_words(other)
    mine, both = set(grams(own, 3)), set(grams(own, 3)) & set(grams(theirs, 3))
    if found != NOTHING:
        longest = SequenceMatcher(None, own, theirs, autojunk=False).find_longest_match().size
        assert found.share == len(both) / len(mine)
        assert found.passage in text
        assert len(bare_words(found.passage)) == longest
    else:
        assert not both or min(len(own), len(theirs)) < 16


@many
@given(st.text(), st.text(), st.text())
def test_any_texts_can_be_compared(text, other, ignore):
    found = shared_with(text, other, ignore)
    assert 0 <= found.share <= 1
    assert found.passage in text


def test_long_texts_that_repeat_themselves_are_compared_in_linear_time():
    for unit in ("a b a c ", "a ", "今", "1. ", "``` ", "> ", "_ "):
        assert shared_with(unit * 4_000, unit * 4_001).share in (0.0, 1.0)


def test_evaluation_reads_the_same_words():
    assert of_evaluation is bare_words
