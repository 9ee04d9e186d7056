"""The guard against replies that repeat the words of their prompt."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.text import echoes
from skeleton_of_thought.text.echoes import PromptEcho
from skeleton_of_thought.text.words import plain as words_plain
from skeleton_of_thought.types import Conversation, Message, Point, Prompt, Skeleton

many = settings(max_examples=100, deadline=None)
QUESTION = "How can I sleep better, and why does it matter so much to my health?"
DRAFT = "1. Schedule: Go to bed at the same hour each day.\n\n2. Light: Dim the lights an hour before bed."
SKELETON = Skeleton((Point(1, "Schedule"), Point(2, "Light")))
PROMPT = PromptSet().merge_prompt(Conversation.of(QUESTION), SKELETON, DRAFT, max_points=10, words=40)
TEXT = PROMPT.messages[-1].text
INSTRUCTION = TEXT.removeprefix(QUESTION).removesuffix(DRAFT).strip()


def guard(prompt: Prompt = PROMPT, material: tuple[str, ...] = (QUESTION, DRAFT)) -> PromptEcho:
    return PromptEcho(prompt, material)


def read(echo: PromptEcho, text: str, size: int | None = None) -> tuple[bool, str]:
    """Whether the text is an echo, and the text that the guard shows."""
    size = size or max(1, len(text))
    shown = "".join(echo.feed(text[start : start + size]) for start in range(0, len(text), size))
    shown += echo.close()
    return echo.found, shown


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize(
    "text",
    [
        INSTRUCTION,
        INSTRUCTION.upper(),
        f"**{INSTRUCTION}**\n\n{DRAFT}",
        " ".join(INSTRUCTION.split()[:6]),
        " ".join(INSTRUCTION.split()[9:19]) + " and so on",
    ],
)
def test_the_instruction_is_an_echo_and_not_a_word_of_it_shows(text, size):
    assert read(guard(), text, size) == (True, "")


@pytest.mark.parametrize("size", [None, 1, 5])
def test_an_echo_after_other_text_ends_what_is_shown(size):
    found, shown = read(guard(), f"{DRAFT}\n\n{INSTRUCTION}", size)
    assert found
    assert shown.startswith(DRAFT)
    assert shown.strip() == DRAFT


@pytest.mark.parametrize("size", [None, 1, 5])
def test_a_copy_of_the_whole_prompt_shows_nothing(size):
    assert read(guard(), TEXT, size) == (True, "")


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize(
    "more", ["", "\n\nGo to bed at the same hour each day.", " The light matters.", "\n\nThe parts agree."]
)
def test_a_reply_may_repeat_the_question(more, size):
    assert read(guard(), f"{QUESTION}{more}", size) == (False, f"{QUESTION}{more}")


def test_a_reply_that_leaves_the_prompt_behind_is_shown_from_there_on():
    echo = guard()
    assert echo.feed("How can I sleep ") == ""
    assert echo.feed("well? ") == "How can I sleep well? "


def test_a_report_on_the_instruction_after_the_text_is_an_echo():
    """The demo model appends such reports to its merges."""
    report = '\n\nI made these changes:\n\n- Added "The parts of the answer below" to the end of the original text.'
    found, shown = read(guard(), DRAFT + report, 4)
    assert found
    assert "The parts" not in shown


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize(
    "text",
    [
        DRAFT,
        f"{QUESTION} {DRAFT}",
        "Go to bed at the same hour each day, and dim the lights an hour before.",
        "The parts of the answer are two: a schedule, and less light.",
        "Rewrite it as one page, then write it again. The order matters.",
        "Read it aloud, leave out what is said twice.",
        "Two  spaces  in  it,  and  the  parts  ",
        "The",
        "",
    ],
)
def test_text_of_the_prompts_inputs_and_chance_matches_are_no_echo(text, size):
    assert read(guard(), text, size) == (False, text)


CLOSING = "Please talk to your doctor before you change anything at home, at work or on the road."
ASKED = "Rewrite this as one text that reads well. Keep the order. End with this sentence: "


def own(template: str, *, question: str = QUESTION) -> PromptEcho:
    """The guard for a custom prompt."""
    text = template.format(question=question, draft=DRAFT)
    return PromptEcho(Prompt((Message("user", text),)), [question, DRAFT], quotable=True)


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize(
    "template",
    [
        f"{ASKED}{CLOSING}\n\n{{draft}}",
        f"{{question}}\n\n{{draft}}\n\n{ASKED}{CLOSING}",
        f"{{question}}\n\nEnd with: {CLOSING}\n\n{{draft}}",
    ],
)
def test_text_that_a_custom_prompt_asks_for_is_no_echo(template, size):
    text = f"{DRAFT}\n\n{CLOSING}"
    assert read(own(template), text, size) == (False, text)


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize(
    "before", ["", "**", "Sure, here is the rewritten text:\n\n> ", f"{QUESTION}\n\n", DRAFT + "\n\n"]
)
def test_a_custom_prompt_is_an_echo_from_its_beginning_on(before, size):
    template = f"{{question}}\n\n{ASKED}{CLOSING}\n\n{{draft}}"
    found, shown = read(own(template), f"{before}{ASKED}{CLOSING}\n\n{DRAFT}", size)
    assert found
    # The question before it is a copy of the prompt, too.
    assert shown.strip() == ("" if before.startswith(QUESTION) else before.strip().strip(">*").strip())


def test_few_words_of_a_custom_prompt_are_an_echo_only_at_the_replys_beginning():
    template = f"{ASKED}{CLOSING}\n\n{{draft}}"
    begun = "Rewrite this as one text that"
    assert read(own(template), f"Sure: {begun} follows.") == (True, "Sure: ")
    text = f"{DRAFT} {begun} follows."
    assert read(own(template), text) == (False, text)


def test_the_default_prompt_is_an_echo_whole_and_after_the_question():
    for before, seen in {"": "", "Sure, here is the text:\n\n": f"Sure, here is the text:\n\n{QUESTION}\n\n"}.items():
        assert read(guard(), f"{before}{TEXT}", 4) == (True, seen)


def test_assistant_text_in_the_prompt_is_no_instruction():
    example = "Sleep is what the body needs most of all, every night and all year round."
    prompt = Prompt((Message("user", "Write a text."), Message("assistant", example), Message("user", DRAFT)))
    assert read(PromptEcho(prompt, [DRAFT], quotable=True), example) == (False, example)


def test_a_first_word_that_is_not_in_the_instruction_shows_at_once():
    echo = guard()
    assert [echo.feed(piece) for piece in ("Go", " to ", "bed")] == ["Go", " to ", "bed"]


def test_a_beginning_that_may_be_an_echo_shows_when_it_is_none():
    echo = guard()
    assert echo.feed("The parts of ") == ""
    assert echo.feed("a good night ") == "The parts of a good night "


def test_the_guard_finds_an_echo_of_an_instruction_without_spaces():
    instruction = "请把下面的要点改写成一篇通顺的短文，删去重复的内容，保持原来的顺序。"
    prompt = Prompt((Message("user", f"怎样才能睡得更好？{instruction}每天同一时间睡觉。睡前把灯调暗。"),))
    material = ("怎样才能睡得更好？", "每天同一时间睡觉。睡前把灯调暗。")
    assert read(guard(prompt, material), instruction, 3) == (True, "")
    for fine in ("每天同一时间睡觉，睡前把灯调暗。", "保持原来的顺序，每天睡觉。"):
        assert read(guard(prompt, material), fine, 3) == (False, fine)


def test_a_reply_without_spaces_streams():
    prompt = Prompt((Message("user", "Rewrite what follows as one text. 每天同一时间睡觉。"),))
    echo = guard(prompt, ("每天同一时间睡觉。",))
    assert echo.feed("每天同一") == "每天同一"


texts = st.lists(
    st.sampled_from(
        [*INSTRUCTION.split()[:9], "sleep", "—", "\n", "睡", "", "", "**", *DRAFT.split()[:4], INSTRUCTION[:70]]
    )
).map(" ".join)


@many
@given(texts, st.data())
def test_neither_verdict_nor_text_depends_on_the_pieces(text, data):
    whole = read(guard(), text)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20))), len(text)]
    echo = guard()
    shown = "".join(echo.feed(text[start:end]) for start, end in pairwise(cuts)) + echo.close()
    assert (echo.found, shown) == whole


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("before", [f"{DRAFT}  ", f"{DRAFT} \n\n  ", "Well -  ", "  "])
def test_white_space_before_an_echo_shows_the_same_however_it_is_cut(before, size):
    assert read(guard(), before + INSTRUCTION, size) == read(guard(), before + INSTRUCTION)


@many
@given(texts)
def test_the_guard_shows_a_beginning_or_all_of_the_text(text):
    found, shown = read(guard(), text)
    assert text.startswith(shown)
    assert found or shown == text


@pytest.mark.parametrize("mark", ["a", "7", "-", "_", "é", "go"])
def test_a_word_without_end_is_read_once(mark, monkeypatch):
    read: list[int] = []
    monkeypatch.setattr(echoes, "plain", lambda words: read.append(sum(map(len, words))) or words_plain(words))
    echo = guard()
    read.clear()
    text = mark * 20_000
    shown = "".join(echo.feed(text[at : at + 3]) for at in range(0, len(text), 3)) + echo.close()
    assert shown == text
    assert sum(read) <= len(text)


def test_marks_before_a_word_do_not_hide_it():
    first, *rest = INSTRUCTION.split(" ")
    assert read(guard(), f"{'*' * 5000}{first} {' '.join(rest)}", 7) == (True, "")
