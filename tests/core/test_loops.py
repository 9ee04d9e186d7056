"""The guard against loops: the texts that it ends, and those that it passes on."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeleton_of_thought.text.loops import LoopGuard

many = settings(max_examples=100, deadline=None)
SENTENCE = "It is a good day to be outside. "
PARAGRAPH = (
    "Walking is a good way to start the day, because it wakes the body, clears the mind and needs nothing but shoes. "
    "Whoever walks for half an hour before breakfast has done more than most people do in a whole day. "
)


def guarded(text: str, question: str = "What shall I do?", size: int | None = None) -> tuple[bool, str]:
    """Whether the text loops, and the text that the guard shows."""
    guard = LoopGuard(question)
    size = size or max(1, len(text))
    shown = [guard.feed(text[start : start + size]) for start in range(0, len(text), size)]
    return guard.looping, "".join(shown) + guard.close()


LOOPS = {
    "a sentence": ("Go out. " + SENTENCE * 6, "Go out. " + (SENTENCE * 2).strip()),
    "a paragraph, earlier": (PARAGRAPH * 3, (PARAGRAPH * 2).strip()),
    "two sentences in turn": (
        "You can walk to the park. You can swim in the lake. " * 6,
        ("You can walk to the park. You can swim in the lake. " * 2).strip(),
    ),
    "lines of a list, whatever their numbers": (
        "".join(f"{n}. Eat fresh fruit and vegetables\n" for n in range(1, 12)),
        "1. Eat fresh fruit and vegetables\n2. Eat fresh fruit and vegetables",
    ),
    "lines of a list with bold numbers": (
        "".join(f"**{n}.** Eat fresh fruit and vegetables\n" for n in range(1, 12)),
        "**1.** Eat fresh fruit and vegetables\n**2.** Eat fresh fruit and vegetables",
    ),
    "bullets": ("- Eat fresh fruit and vegetables\n" * 8, ("- Eat fresh fruit and vegetables\n" * 2).strip()),
    "after a list": ("1. Walk\n2. Swim\n\n" + SENTENCE * 6, "1. Walk\n2. Swim\n\n" + (SENTENCE * 2).strip()),
    "after code within a line": (
        "Run this:\n```pip install x```\n" + SENTENCE * 6,
        "Run this:\n```pip install x```\n" + (SENTENCE * 2).strip(),
    ),
    "after code within a line, with spaces": (
        "``` 运行 x ```\n" + SENTENCE * 6,
        "``` 运行 x ```\n" + (SENTENCE * 2).strip(),
    ),
    "after a fence": (
        "~~~ `x`\nmake()\n~~~\n" + SENTENCE * 6,
        "~~~ `x`\nmake()\n~~~\n" + (SENTENCE * 2).strip(),
    ),
    "after a fence in a list": (
        "- ```sh\n  make\n  ```\n- " + SENTENCE * 6,
        "- ```sh\n  make\n  ```\n- " + (SENTENCE * 2).strip(),
    ),
    "after a fence in a quotation": (
        "> ```\n> make\n> ```\n\n" + SENTENCE * 6,
        "> ```\n> make\n> ```\n\n" + (SENTENCE * 2).strip(),
    ),
    "lines of code within a line": (
        "```pip install the_best package of all```\n" * 8,
        ("```pip install the_best package of all```\n" * 2).strip(),
    ),
    "Chinese": ("今天天气很好，我们去公园散步。" * 6, "今天天气很好，我们去公园散步。" * 2),
    "Japanese": ("毎朝早く起きて散歩をします。" * 6, "毎朝早く起きて散歩をします。" * 2),
    "Korean": ("매일 아침 일찍 일어나 산책을 합니다. " * 6, ("매일 아침 일찍 일어나 산책을 합니다. " * 2).strip()),
    "Russian": ("Каждое утро я гуляю в парке. " * 6, ("Каждое утро я гуляю в парке. " * 2).strip()),
}


@pytest.mark.parametrize("size", [None, 1, 3, 40])
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_ends_after_its_second_time(name, size):
    text, shown = LOOPS[name]
    assert guarded(text, size=size) == (True, shown)


@pytest.mark.parametrize("text", ["ha " * 600, "哈" * 600, "我爱你" * 300, "สวัสดีครับ" * 100], ids=str.strip)
def test_a_short_passage_ends_when_there_is_very_much_of_it(text):
    looping, shown = guarded(text)
    assert looping
    assert text.startswith(shown)
    assert len(shown) < len(text) / 2


FINE = {
    "a sentence said three times": SENTENCE * 3 + "So go.",
    "a refrain between verses": "".join(
        f"Verse {n} tells of the {place}.\nCome home, come home, the night is long.\n\n"
        for n, place in enumerate(["sea", "hill", "road", "town", "wood", "moor", "lake"])
    ),
    "a refrain of four lines": "Oh come with me down to the river\n" * 4 + "And never look back again.\n",
    "laughter": "ha ha ha ha ha ha ha ha ha, very funny. " * 2 + "哈哈哈哈哈哈哈哈",
    "la la la": "La la la la la la la la\n" * 6,
    "a list with the same opening words": "".join(
        f"{n}. You should always remember to {verb} well before you go to bed.\n"
        for n, verb in enumerate(["eat", "read", "walk", "stretch", "breathe", "wash", "tidy up", "drink", "rest"], 1)
    ),
    "anaphora": "".join(
        f"I have a dream that one day the {who} will be free. " for who in ["river", "hill", "valley", "town", "bird"]
    ),
    "a table": "| Day | Open |\n|---|---|\n" + "| closed all the day | closed all the day |\n" * 8,
    "code in fences": "```python\n" + "    self.assert_everything_is_fine(result)\n" * 8 + "```\nThat is all.",
    "code in a fence of a list": "- Like this:\n- ```\n" + "  walk home and then walk back\n" * 30 + "  ```\n- Done.",
    "code in a fence of a numbered list": "1. ```sh\n" + "   walk home and then walk back\n" * 30 + "   ```\n2. Done.",
    "code in a fence of a quotation": "> ~~~\n" + "> walk home and then walk back\n" * 30 + "> ~~~\nDone.",
    "words of code in fences": "```\n" + "end\n" * 300 + "```\nThat is all.",
    "a fence in a fence": "````\n```\n" + "walk home and then walk back\n" * 30 + "```\n````\nThat is all.",
    "code without fences": "self.assert_everything_is_fine(result)\n" * 8,
    "numbers": "0 0 0 0 0 0 0 0\n" * 40,
    "a multiplication table": "".join(f"7 times {n} equals {7 * n}\n" for n in range(1, 13)),
    "years": "".join(f"In {year} the town had {year * 3} inhabitants. " for year in range(1990, 2003)),
    "rules": "---\n" * 30 + "=" * 3000,
    "a song": "Happy birthday to you!\n" * 2 + "Happy birthday, dear Ann!\n" + "Happy birthday to you!\n",
    "verses in Chinese": "床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 2,
}


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("name", FINE)
def test_text_without_a_loop_is_shown_whole(name, size):
    assert guarded(FINE[name], size=size) == (False, FINE[name])


@pytest.mark.parametrize(
    "question",
    [
        "Repeat this sentence until I say stop: it is a good day to be outside",
        "Write 'It is a good day to be outside.' 10 times",
        "Say it over and over.",
        'Can you write "It is a good day to be outside" on every line of the page?',
        "Schreib zehnmal, also 10 mal: It is a good day",
        "Répète cette phrase.",
        "把这句话写10遍",
    ],
)
def test_a_repetition_that_the_question_asks_for_is_no_loop(question):
    assert guarded(SENTENCE * 10, question) == (False, SENTENCE * 10)


@pytest.mark.parametrize(
    "question",
    [
        "Repeat after me: I am calm.",
        "repeat hello",
        "Keep saying hello",
        "Make a text where one line is repeated ten times",
        "Please repeat the sentence.",
        "When I say go, repeat after me.",
        "Give me a mantra to say five times",
        "Give me an affirmation that I can repeat ten times.",
        "Write 'I will not lie' 100 times",
        "Write 'What did I do? I lied.' a hundred times.",
        "Can you write I won't talk in class twenty times?",
        "Print hello world 100x",
        "100 times, please: I am calm",
        "Sing it again and again",
        "How are you? Say hello over and over!",
        "Wiederhole diesen Satz.",
        "Écris dix fois : je ne mentirai pas",
        "Escribe 'no mentiré' cien veces",
        "Напиши десять раз: я не буду врать",
        "请重复这句话",
        "この文を繰り返してください",
    ],
)
def test_the_guard_recognizes_questions_that_ask_for_a_repetition(question):
    assert guarded(SENTENCE * 10, question)[0] is False


@pytest.mark.parametrize(
    "question",
    [
        "How many times a week should I exercise?",
        "How do I stop repeating mistakes?",
        "What are the benefits of a repeatable process?",
        "How can I repeat this success?",
        "How do I say no several times without being rude?",
        "I exercise three times a week. How do I get better?",
        "I made the same mistake over and over, what can I do?",
        "Tell me why I wake up over and over",
        "Give me a workout to do three times a week",
        "Write about why a cheetah is 3 times faster than a man",
        "What does 'repeat after me' mean?",
        "Repeat customers: how do I get them?",
        "Explain repeat prescriptions.",
        "Give me tips to keep writing every day",
        "Give me a plan for 10x growth",
        "Wie vermeide ich Wiederholungen?",
        "Comment éviter les répétitions ?",
        "¿Cuántas veces a la semana debo entrenar?",
        "重复做同一件事有什么好处？",
        "我每周应该运动几次？",
        "繰り返し学習の利点は何ですか？",
    ],
)
def test_questions_about_repetitions_ask_for_none(question):
    assert guarded(SENTENCE * 10, question) == (True, (SENTENCE * 2).strip())


@pytest.mark.parametrize("text", [SENTENCE + "\n", "ha ha\n"])
def test_a_loop_in_an_unclosed_fence_is_ended(text):
    looping, shown = guarded("```python\n" + text * 2000)
    assert looping
    assert len(shown) < len(text) * 1000


@pytest.mark.parametrize("begin", ["say ", "say write ", "'a ", "1", "say 1,", "a hundred ", "写", " ", "please ", '"'])
def test_the_guard_reads_a_long_question_quickly(begin):
    started = time.thread_time()  # another program's share of the processor does not count
    guarded("", begin * 20_000)
    assert time.thread_time() - started < 2


def test_a_repetition_asked_for_allows_no_other_loop():
    assert guarded(PARAGRAPH * 5, "Is it a good day to be outside?")[0] is True


def test_repeated_text_is_held_back_until_it_differs():
    guard = LoopGuard()
    assert guard.feed(SENTENCE * 2) == (SENTENCE * 2).strip()
    assert guard.feed(SENTENCE) == ""
    assert guard.feed("Then it rains. ") == " " + SENTENCE + "Then it rains. "
    assert guard.looping is False


def test_the_end_of_the_text_releases_the_held_text():
    guard = LoopGuard()
    assert guard.feed(SENTENCE * 3) == (SENTENCE * 2).strip()
    assert guard.close() == " " + SENTENCE
    assert guard.looping is False


def test_after_a_loop_nothing_is_shown():
    guard = LoopGuard()
    guard.feed(SENTENCE * 9)
    assert guard.looping
    assert (guard.feed("And something else."), guard.close()) == ("", "")


# Few words, so that repetitions are frequent.
texts = st.lists(
    st.sampled_from(
        [
            "walk ",
            "home.\n",
            "good ",
            "everything ",
            "1. ",
            "| ",
            "```\n",
            "``` ",
            "```x``` ",
            "~~~",
            "- ",
            "今",
            "天。",
            "\n",
            "ha ",
            "(x) ",
        ]
    ),
    max_size=12,
).flatmap(lambda words: st.integers(1, 30).map(lambda times: "".join(words) * times))


@many
@given(st.lists(texts, max_size=4).map("".join), st.data())
def test_neither_verdict_nor_text_depends_on_the_pieces(text, data):
    whole = guarded(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    guard = LoopGuard("What shall I do?")
    bounds = [0, *cuts, len(text)]
    shown = "".join(guard.feed(text[start:end]) for start, end in pairwise(bounds)) + guard.close()
    assert (guard.looping, shown) == whole


@many
@given(st.lists(texts, max_size=4).map("".join))
def test_the_guard_shows_a_beginning_or_all_of_the_text(text):
    looping, shown = guarded(text)
    assert text.startswith(shown)
    assert looping or shown == text


@many
@given(st.text(max_size=300))
def test_any_text_that_ends_by_itself_without_a_loop_is_whole(text):
    looping, shown = guarded(text)
    assert looping or shown == text


words = st.text(st.characters(categories=["Ll"], max_codepoint=0x24F), min_size=3, max_size=9)


@many
@given(st.lists(words, min_size=8, max_size=40, unique=True), st.lists(words, max_size=30, unique=True))
def test_any_repeated_sentence_is_ended_after_its_second_time(passage, before):
    sentence = " ".join(passage).capitalize() + ". "
    start = " ".join(word.upper() for word in before) + (". " if before else "")
    looping, shown = guarded(start + sentence * 8)
    assert looping
    assert shown == start + (sentence * 2).strip()


def test_each_word_is_judged_once_at_most():
    class Counting(LoopGuard):
        judged = 0

        def _judge(self, word: str) -> None:
            self.judged += 1
            super()._judge(word)

    guard = Counting()
    guard.feed("".join(f"{'la ' * n}{n} " for n in range(100)))
    assert 0 < guard.judged <= sum(range(100)) + 100
