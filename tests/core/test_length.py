"""Lengths: the limit that a question sets, its shares for the points, and the guard that keeps a text to its words."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.text.length import LengthGuard, most_points, share_words, word_limit
from skeleton_of_thought.text.overlap import bare_words
from skeleton_of_thought.types import Point

many = settings(max_examples=150, deadline=None)

# --- the limit of a question ------------------------------------------------------------------------

LIMITS = {
    "Explain tea in 300 words": 300,
    "What is tea? max. 200 words": 200,
    "Explain tea in under 150 words.": 150,
    "Explain tea within 100-150 words": 150,
    "Write between 400 and 500 words on tea. Write an article of between 400 and 500 words.": 500,
    "about 500 words: the history of tea": 500,
    "Write a 200-word answer about tea": 200,
    "I need a 300-word summary of the French Revolution.": 300,
    "Explain tea in two hundred words.": 200,
    "In one hundred and fifty words, tell me about tea": 150,
    "Explain tea in no more than 1,000 words.": 1000,
    "Don’t use more than 250 words.": 250,
    "Keep it under 200 words.": 200,
    "Limit your answer to 200 words.": 200,
    "Your answer should not exceed 250 words.": 250,
    "What are the causes of the war? (300 words)": 300,
    "Word count: 500. What is tea?": 500,
    "Explain tea (≤ 200 words)": 200,
    "300 words or fewer: what is tea?": 300,
    "Aim for about 300 words, max 350 words. What is tea?": 350,
    "Give five points of 30 words each, 200 words in total.": 200,
    "Give five reasons in 200 words": 200,
    "In 300 words, how do I write a CV?": 300,
    "Summarise this article in 100 words:\n\nThe story was told in 500 words.": 100,
    "Question: Explain tea in 300 words.\nAnswer:": 300,
    "Erkläre Tee in maximal 200 Wörtern.": 200,
    "Erkläre Tee in etwa zweihundertfünfzig Wörtern": 250,
    "Schreib einen 300-Wörter-Text über Tee": 300,
    "Die Antwort soll nicht länger als 150 Wörter sein.": 150,
    "Qu'est-ce que le thé ? 200 mots maximum.": 200,
    "En deux cents mots, explique le thé": 200,
    "Explica el té en 300 palabras.": 300,
    "Responde en no más de trescientas palabras: ¿qué es el té?": 300,
    "Spiega il tè in trecento parole, per favore": 300,
    "Limita la risposta a 200 parole": 200,
    "Explique o chá em até 150 palavras.": 150,
    "O que é chá? No máximo 200 palavras.": 200,
    "Leg thee uit in ongeveer 300 woorden.": 300,
    "Wat is thee? Maximaal 200 woorden.": 200,
    "Расскажи о чае в двухстах словах": 200,
    "Что такое чай? Не более 200 слов.": 200,
    "Напиши эссе на 500 слов о чае": 500,
    "用300字介绍北京。": 300,
    "请介绍北京，三百五十字以内": 350,
    "字数控制在200到300字": 300,
    "每段100字，共500字": 500,
    "请写一篇不少于200字、不超过400字的短文": 400,
    "お茶について300字で説明してください。": 300,
    "お茶とは？200文字以内で答えて。": 200,
}

NO_LIMITS = """
What is tea?
Give five tips, each in at most 20 words.
Write five points of 30 words.
Use sentences of no more than 20 words.
Write two paragraphs of 100 words.
Give three 100-word stories
max 30 words per point
Explain tea and finish with a summary in 50 words.
Write an answer with a 50-word summary.
A list of 300 words that rhyme
What are the 100 words most used in English?
What are 100 words every child should know?
Summarize this 500 words text
Summarize this 500-word article.
What does "in 300 words" mean?
Explain `in 300 words`
Don't answer in 300 words.
No need to keep it under 200 words.
Write at least 300 words about tea.
300+ words about tea
300 words or more
Explain tea in 0 words
Explain tea in 500,000 words
How do I write an essay in 500 words?
How many pages are 500 words?
Why do toddlers know at most 50 words?
Lincoln gave his speech in 272 words. Why was it so short?
My teacher wants an essay of 500 words about tea. How do I begin?
Toki Pona has under 200 words. Explain how it works.
Explain the causes in 200 words and the effects in 100 words
It reads 300 words per minute, why?
Describe tea in 300 characters
Explain why a picture says more than a thousand words.
Nenne fünf Tipps, je 20 Wörter
Mindestens 300 Wörter
Ein Bild sagt mehr als tausend Worte. Warum?
Donne cinq conseils, chacun en 20 mots
Da cinco consejos, cada uno en 20 palabras
Dai cinque consigli, ognuno in 20 parole
Dê cinco dicas, cada uma em 20 palavras
Geef vijf tips, elk in 20 woorden
Дай пять советов, по 20 слов
给出五点建议，每点不超过20字
最常用的300字是什么
写10个成语，每个4字
每段不少于50字，不超过100字
不少于300字
5つのコツを各20字以内で
300字以上で
""".strip().splitlines()


def test_the_limit_of_the_whole_answer_is_read_in_ten_languages():
    assert {question: word_limit(question) for question in LIMITS} == LIMITS


def test_other_numbers_of_words_are_no_limit():
    assert {question: limit for question in NO_LIMITS if (limit := word_limit(question)) is not None} == {}


def test_code_in_a_question_sets_no_limit():
    assert word_limit("Fix this:\n```\n# answer in 300 words\n```") is None


@many
@given(
    st.text()
    | st.lists(st.sampled_from(["in", "300", "words", "each", "字", "用", ",", "\n", "one", '"'])).map(" ".join)
)
@example(" ")
def test_any_question_can_be_read(question):
    limit = word_limit(question)
    assert limit is None or 0 < limit <= 100_000


# --- shares -----------------------------------------------------------------------------------------


def points(*words: int | None) -> list[Point]:
    return [Point(index, "Title", words=each) for index, each in enumerate(words, 1)]


def test_a_limit_is_shared_out_by_the_plan_or_equally():
    assert share_words(300, points(None, None, None)) == {1: 100, 2: 100, 3: 100}
    assert share_words(100, points(None, None, None)) == {1: 34, 2: 33, 3: 33}
    assert share_words(300, points(20, 40, 60)) == {1: 50, 2: 100, 3: 150}
    # A point without a length counts as the mean of the others: 40.
    assert share_words(300, points(20, None, 60)) == {1: 50, 2: 100, 3: 150}
    assert share_words(300, points(20, 0, 60)) == {1: 50, 2: 100, 3: 150}
    assert share_words(100, points(1, 99)) == {1: 5, 2: 95}
    assert share_words(300, []) == {}


@many
@given(st.integers(1, 2000), st.lists(st.none() | st.integers(-3, 500), min_size=1, max_size=12))
def test_shares_add_up_to_the_limit_unless_it_is_too_low(limit, words):
    shares = share_words(limit, points(*words))
    assert list(shares) == list(range(1, len(words) + 1))
    assert min(shares.values()) >= 5
    assert sum(shares.values()) == max(limit, 5 * len(words))


def test_points_get_enough_words_to_say_something():
    assert [most_points(limit, 10, 2) for limit in (20, 100, 240, 1000)] == [2, 4, 9, 10]


# --- the guard --------------------------------------------------------------------------------------


def guarded(text: str, words: int, size: int | None = None) -> tuple[str, bool]:
    guard = LengthGuard(words)
    size = size or max(1, len(text))
    shown = "".join(guard.feed(text[start : start + size]) for start in range(0, len(text), size))
    return shown + guard.close(), guard.full


NINE = "One two three four five six seven eight nine"
ENDS = {
    "at a sentence that ends with the words": (f"{NINE} ten. Eleven twelve thirteen fourteen.", f"{NINE} ten."),
    "at the last sentence that fits": (
        f"{NINE}. Ten eleven. Twelve. Thirteen fourteen.",
        f"{NINE}. Ten eleven. Twelve.",
    ),
    "at a word": (f"{NINE}. Ten eleven twelve, thirteen, fourteen fifteen.", f"{NINE}. Ten eleven twelve, thirteen"),
    "behind closing marks": (f'{NINE} **"ten."** (Eleven twelve thirteen fourteen.)', f'{NINE} **"ten."**'),
    "not at an abbreviation": (f"{NINE} ten Dr. Eleven, e.g. Twelve, fourteen.", f"{NINE} ten Dr. Eleven, e.g."),
    "not where a sentence goes on": (f'{NINE} ten "eleven?" she asked me then.', f'{NINE} ten "eleven?" she asked'),
    "not at a decimal point": (f"{NINE} ten 3.5 twelve 1.2.3 fourteen.", f"{NINE} ten 3.5 twelve 1.2.3"),
    "at an item": (f"- {NINE}\n- ten eleven\n- twelve thirteen fourteen", f"- {NINE}\n- ten eleven"),
    "not at the number of an item": (f"{NINE} ten.\n1. Eleven\n2. A b c d e", f"{NINE} ten.\n1. Eleven"),
    "before a heading": (f"{NINE} ten.\n\n## Eleven\n\nTwelve thirteen fourteen.", f"{NINE} ten."),
    "before a list's introduction": (f"{NINE} ten.\n\nThese are:\n\n- Twelve thirteen\n- Fourteen", f"{NINE} ten."),
    "French": (f"{NINE} ten ! Onze douze treize quatorze.", f"{NINE} ten !"),
    "Hindi": (f"{NINE} ten। ग्यारह बारह तेरह चौदह।", f"{NINE} ten।"),
    "Arabic": (f"{NINE} ten؟ أحد عشر اثنا عشر ثلاثة.", f"{NINE} ten؟"),
    "Chinese": ("今天天气很好，我们去公园。「是的很好。」我们去散步。", "今天天气很好，我们去公园。"),
    "Thai": ("กขคงจฉชซฌญ ฎฏ ฐฑฒณด", "กขคงจฉชซฌญ ฎฏ"),
    "before code that grows too long": (f"{NINE} ten.\n\n```py\nx = 1\ny = 2\n```\n\nDone.", f"{NINE} ten."),
    "behind code that began in time": (
        "One two three:\n```py\n" + "x = 1\n" * 20 + "```\nDone. And more.",
        "One two three:\n```py\n" + "x = 1\n" * 20 + "```",
    ),
    "behind code that fits": (f"{NINE} ten:\n```\nx y\n```\nThirteen fourteen.", f"{NINE} ten:\n```\nx y\n```"),
    "behind a fence in a list": (
        "- One:\n  ~~~\n  " + "x " * 30 + "\n  ~~~~\n- Two three.",
        "- One:\n  ~~~\n  " + "x " * 30 + "\n  ~~~~",
    ),
    "after code within a line": (f"```pip install x``` {NINE}. B. C d e.", f"```pip install x``` {NINE}. B."),
}


@pytest.mark.parametrize("size", [None, 1, 3, 17])
@pytest.mark.parametrize("name", ENDS)
def test_a_long_text_ends(name, size):
    text, shown = ENDS[name]
    assert guarded(text, 10, size) == (shown, True)


def test_text_within_the_words_shows_at_once_and_the_rest_when_it_fits():
    guard = LengthGuard(10)
    assert guard.feed(f"{NINE} ten.") == f"{NINE} ten."
    assert guard.feed(" Eleven twel") == ""
    assert guard.feed("ve. Thirteen") == " Eleven twelve."
    assert not guard.full
    assert guard.feed(", fourteen") == ""
    assert guard.full
    assert (guard.feed("Fifteen."), guard.close()) == ("", "")
    fresh = guard.fresh()
    assert (fresh.feed(NINE), fresh.full) == (NINE, False)


def test_a_length_below_one_word_is_invalid():
    with pytest.raises(InvalidInput, match="at least 1 word"):
        LengthGuard(0)


pieces = st.sampled_from(
    ["One", "two", "a", "3", "e.g", "Dr", ".", "!", "。", "।", ",", ":", '"', "*", "**", "-", "#", "1.", "(", ")",
     " ", " ", " ", "\n", "\n\n", "```",
     "\n```\n", "~~~", "`", ">", "今", "天", "ก", "ิ", "้", "é", "\r\n", "|", "İ", "「", "」"]
)  # fmt: skip
texts = st.lists(pieces, max_size=80).map("".join) | st.text(max_size=60)


@many
@given(texts, st.integers(1, 12), st.data())
def test_what_shows_does_not_depend_on_the_chunks(text, words, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    guard = LengthGuard(words)
    chunks = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    assert ("".join(map(guard.feed, chunks)) + guard.close(), guard.full) == guarded(text, words)


@many
@given(texts, st.integers(1, 12))
@example("One\r\nOne", 1)
def test_a_text_that_fits_is_unchanged_and_another_one_keeps_its_beginning(text, words):
    shown, full = guarded(text, words)
    most = words * 13 // 10
    assert text.startswith(shown)
    if len(bare_words(text)) <= most:
        assert (shown, full) == (text, False)
    elif not any(mark in text for mark in ("```", "~~~")):
        assert full
        assert len(bare_words(shown)) <= most
        assert len(bare_words(shown)) >= words
        assert shown == shown.rstrip()


@many
@given(texts, st.integers(1, 12))
def test_the_words_show_without_waiting(text, words):
    guard, count, fed = LengthGuard(words), 0, ""
    shown = ""
    for char in text:
        fed += char
        count = len(bare_words(fed))
        shown += guard.feed(char)
        if count < words:
            assert shown == fed


blocks = st.sampled_from(
    ["One two.", "Three four", "```\na b\n```", "~~~py\nc\n\nd e f\n~~~", "- x\n\n  ```\n  y z\n  ```"]
)


@many
@given(st.lists(blocks, max_size=12).map("\n\n".join), st.integers(1, 12))
def test_no_fence_stays_open(text, words):
    shown, _ = guarded(text, words)
    assert shown.count("```") % 2 == shown.count("~~~") % 2 == 0
