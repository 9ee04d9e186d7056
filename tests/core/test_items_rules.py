"""Questions for several items, each for itself, and those that look alike but are none."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from skeleton_of_thought.routers.item_lists import quotations
from skeleton_of_thought.routers.item_words import FILE, entries_of, language_of, read_words
from skeleton_of_thought.routers.items import find_items
from skeleton_of_thought.routers.question import LANGUAGES, lexicon
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS
from skeleton_of_thought.types.items import Item

DATA = Path(__file__).parent.parent / "data" / "item_questions.csv"
ROWS = [
    (row["language"], row["label"], row["question"].replace("\\n", "\n"))
    for row in csv.DictReader(DATA.read_text("utf-8").splitlines())
]
ITEMS = [(language, question) for language, label, question in ROWS if label == "items"]
OTHERS = [(language, question) for language, label, question in ROWS if label == "other"]
LIST = "Translate these sentences into French:"


def words_in(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W\d_]{2,}|[\u3040-\u9fff]", text.casefold()))


def marks(question: str) -> list[str]:
    found = find_items(question)
    assert found is not None
    return [point.mark for point in found.points]


# --- which questions ------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_items_are_found_in_their_language(language):
    missed = [text for of, text in ITEMS if of == language and getattr(find_items(text), "language", "") != language]
    assert not missed


@pytest.mark.parametrize("language", LANGUAGES)
def test_look_alikes_are_no_items(language):
    assert not [text for of, text in OTHERS if of == language and find_items(text) is not None]


def test_the_cheap_test_finds_all_items():
    assert all(MAY_HOLD_ITEMS.search(text) for _, text in ITEMS)
    assert not any(
        MAY_HOLD_ITEMS.search(text)
        for text in (
            "What are the benefits of tea?",
            "Why is the sky blue and the sunset red?",
            "Wie bleibe ich bei der Arbeit motiviert?",
            "怎样学好英语？",
        )
    )


@pytest.mark.parametrize(
    "question",
    [
        "",
        "\n",
        ":",
        "1.",
        "1. a\n2. b\n3. c",
        "\ud800\n1. \udfff\n2. b\n3. c",
        "Translate these sentences:\n1. a\n2. b\n2. c",
        "Translate these sentences:\n1. a\n2. b",
        "Translate these sentences:\n1. a\n\n2.\n\n3. c",
        f"{LIST}\n" + "\n".join(f"{n}. word" for n in range(1, 102)),
        f"{LIST}\n1. a\n2. b\n3. c\n\nAnd then these:\n1. d\n2. e\n3. f",
        "Summarize the following texts:\n" + "\n".join(f"{n}. " + "word " * 200 for n in range(1, 4)),
        f"{LIST}\n" + "- a\n" * 30_000,
    ],
)
def test_what_is_no_list_of_items_is_refused_without_an_error(question):
    assert find_items(question) is None


def test_long_items_are_fine_if_the_question_says_each():
    question = "Summarize each of the following texts:\n\n" + "\n\n".join(f"{n}. " + "word " * 200 for n in range(1, 4))
    found = find_items(question)
    assert [len(point.ask.split()) for point in found.points] == [200] * 3


# --- what is found --------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "question"), ITEMS)
def test_nothing_of_the_question_is_lost(language, question):
    found = find_items(question)
    said = words_in(found.instruction)
    for point in found.points:
        assert point.title
        assert point.title == " ".join(point.title.split())
        said |= words_in(point.ask) if found.form == "targets" else Counter()
        said += words_in(f"{point.ask} {point.mark}") if found.form == "list" else Counter()
    missing = words_in(question) - said
    # Words between the items, and the number of targets.
    assert sum(missing.values()) <= {"list": 1, "targets": 3, "different": 0}[found.form], missing
    assert [point.index for point in found.points] == list(range(1, len(found.points) + 1))


def test_marks_and_tightness_are_those_of_the_list():
    assert marks(f"{LIST}\n(1) One.\n(2) Two.\n(3) Three.") == ["(1)", "(2)", "(3)"]
    assert marks(f"{LIST}\na) One.\nb) Two.\nc) Three.") == ["a)", "b)", "c)"]
    assert marks(f"{LIST}\n• One.\n• Two.\n• Three.") == ["•"] * 3
    assert marks(f"{LIST}\n\nOne is here.\nTwo are there.\nThree come.") == [""] * 3
    assert marks("Define each word: cat, dog and cow") == ["cat:", "dog:", "cow:"]
    assert marks("请翻译下列句子：\n1、你好。\n2、谢谢。\n3、再见。") == ["1、", "2、", "3、"]
    tight = find_items(f"{LIST}\n1. One.\n2. Two.\n3. Three.")
    loose = find_items(f"{LIST}\n\n1. One.\n\n2. Two.\n\n3. Three.")
    assert {point.tight for point in tight.points} == {True}
    assert {point.tight for point in loose.points} == {False}


def test_an_item_keeps_its_lines_and_the_words_around_the_list_are_the_instruction():
    found = find_items("Explain each command:\n1. ls\n   lists files\n2. cd\n   goes elsewhere\n3. rm\n\nBe brief.")
    assert found.instruction == "Explain each command:\n\nBe brief."
    assert found.points[0] == Item(1, "ls lists files", mark="1.", tight=True, ask="ls\n   lists files")
    assert found.points[2].ask == "rm"


def test_a_quoted_row_leaves_a_gap_in_the_instruction():
    found = find_items("Translate “good day”, “thank you” and “bye” into Polish.")
    assert found.instruction == "Translate … into Polish."
    assert [point.title for point in found.points] == ["good day", "thank you", "bye"]


@pytest.mark.parametrize(
    ("question", "context", "asks"),
    [
        (
            "Translate this into French, Spanish and Mandarin: Hello there.",
            "Hello there.",
            ["Translate this into French.", "Translate this into Spanish.", "Translate this into Mandarin."],
        ),
        (
            "Good night.\n\nTranslate the text above into two languages: Thai, Dutch",
            "Good night.",
            ["Translate the text above into Thai.", "Translate the text above into Dutch."],
        ),
        (
            "Rewrite this email for a child, a lawyer and a poet:\n\nDear all, we meet on Monday.",
            "Dear all, we meet on Monday.",
            [f"Rewrite this email for a {who}." for who in ("child", "lawyer", "poet")],
        ),
        (
            'How do you say "Hi. How are you?" in Thai and Dutch?',
            "",
            ['How do you say "Hi. How are you?" in Thai?', 'How do you say "Hi. How are you?" in Dutch?'],
        ),
        (
            "Formuliere das einmal höflich und einmal streng: Räumt auf.",
            "Räumt auf.",
            ["Formuliere das einmal höflich.", "Formuliere das einmal streng."],
        ),
        (
            "Translate this note into:\n- Thai\n- Dutch\n\nBack soon.",
            "Back soon.",
            ["Translate this note into Thai.", "Translate this note into Dutch."],
        ),
        ("把这句话翻译成英语和法语：我很高兴。", "我很高兴。", ["把这句话翻译成英语。", "把这句话翻译成法语。"]),
    ],
)
def test_each_target_has_an_instruction_of_its_own(question, context, asks):
    found = find_items(question)
    assert (found.form, found.instruction) == ("targets", context)
    assert [point.ask for point in found.points] == asks
    assert all(point.mark == f"{point.title}:" for point in found.points)


def test_a_row_of_names_and_lines_without_a_colon_are_lists():
    found = find_items("For each of Paris, Rome and Oslo give the population.")
    assert found.instruction == "For each of … give the population."
    assert [(point.title, point.mark) for point in found.points] == [
        ("Paris", "Paris:"),
        ("Rome", "Rome:"),
        ("Oslo", "Oslo:"),
    ]
    lines = find_items("Define each word in plain English.\nobstinate\nwistful\nbrittle")
    assert [point.ask for point in lines.points] == ["obstinate", "wistful", "brittle"]
    assert marks("Translate each line:\n> Eins.\n> Zwei.\n> Drei.") == [">", ">", ">"]
    assert marks("Summarize each of these posts:\n\nPost 1: I moved.\n\nPost 2: I sold it.") == ["Post 1:", "Post 2:"]


@pytest.mark.parametrize(
    "question",
    [
        "Translate each line:\n1. Eins.\n2. Zwei.\n3. Drei.\n\nText: Vier.",
        "Crew:\n- pilot\n- cook\n- nurse\nName who answers.",
        "Explain each of these.\n\nExtract 1: Open the windows.\nExtract 2: Ask for a lease.",
        "Explain each line.\n\nquestion: Why?\nanswer: Because.\nclaims: none",
        "Define each word:\nfern\nmoss\nWhich of them grows faster?",
    ],
)
def test_what_a_prompt_works_with_is_no_list_of_items(question):
    assert find_items(question) is None


def test_different_texts_have_the_whole_question_and_a_number():
    question = "Write three different limericks about cats."
    found = find_items(question)
    assert (found.form, found.instruction) == ("different", question)
    assert [(point.mark, point.ask) for point in found.points] == [("1.", ""), ("2.", ""), ("3.", "")]
    assert find_items("Write 21 different limericks about cats.") is None
    assert find_items("Write three different limericks about cats, no two alike.") is None


# --- the lexicon ----------------------------------------------------------------------------------


def test_the_lexicon_has_the_same_classes_in_every_language():
    needed = {
        "each",
        "these",
        "asking",
        "strong",
        "weak",
        "things",
        "one",
        "whole",
        "unless",
        "neighbour",
        "refers",
        "tongue",
        "different",
    }
    assert set(lexicon(FILE)) == {"all", *LANGUAGES}
    for language in LANGUAGES:
        assert needed <= {name for name, _ in entries_of(language)}, language


def test_words_are_read_in_sentences_and_phrases_have_gaps():
    words = read_words("Classify these animals into groups. Then stop.", "en")
    assert words.has("unless")
    assert words.sentence[-1] == 1
    assert not read_words("Classify these animals. Then go into it.", "en").has("unless")
    assert language_of("Übersetze:") == "de"
    assert quotations("a “b” c") == [(2, 5)]
