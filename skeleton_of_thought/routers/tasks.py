"""The task around a question, read off the instructions to the model: system messages, and the text of a prompt.

"Translate the user's sentence" asks for another kind of text than an answer, "you are a patient teacher" does not.
Instructions are read sentence by sentence; retrieved documents, examples and earlier turns among them do not count.
The words are in `tasks.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from skeleton_of_thought.routers.instructions import ends_with_label, instruction_lines, sentences
from skeleton_of_thought.routers.question import lexicon, read_question
from skeleton_of_thought.routers.sentence import FEW_WORDS, FILE, read_sentence

__all__ = ["Instructions", "read_instructions"]

_SENTENCES = 120
"""The most sentences that are read, half of them at the end."""


@dataclass(frozen=True)
class Instructions:
    """What instructions ask for.

    Attributes:
        signs: "task" for another kind of text than an answer, "short around" for a short answer, "format around" for a
            form of answer that a list would break.
        form: The sentences that speak of the form of the whole answer.
    """

    signs: frozenset[str] = frozenset()
    form: str = ""


@lru_cache(maxsize=64)
def read_instructions(text: str, question: str = "") -> Instructions:
    """What the instructions in a text ask for.

    Args:
        text: A system message, or a prompt.
        question: The question in the prompt, which is no instruction.

    Example:
        >>> sorted(read_instructions("Translate the user's sentence into French.").signs)
        ['task']
        >>> sorted(read_instructions("You are a patient teacher. Always answer in French.").signs)
        []
    """
    lines = instruction_lines(text, question)
    whole = " ".join(lines)
    languages = _languages(whole)
    signs, form = set[str](), list[str]()
    if question and (ends_with_label(text) or _asks_about(whole) or _leads_in(text, question)):
        signs.add("task")
    every = list(sentences(lines))
    for whole_sentence in every if len(every) <= _SENTENCES else every[: _SENTENCES // 2] + every[-_SENTENCES // 2 :]:
        sentence = _without_mentions(whole_sentence)
        signs |= _ordered(sentence.lower())
        if languages[0] in ("zh", "ja"):
            readings = [_read_unspaced(sentence, languages[0])]
        else:
            readings = [read_sentence(sentence, language, prompt=bool(question)) for language in languages]
        signs.update(*readings)
        if all("form" in found for found in readings):
            form.append(sentence)
    return Instructions(frozenset(signs - {"form"}), "\n".join(form))


def _languages(text: str) -> tuple[str, ...]:
    """The languages that instructions may be in: few words are not enough to tell Italian from Spanish."""
    question = read_question(text)
    if question.language in ("zh", "ja", "ru"):
        return (question.language,)
    if question.size < FEW_WORDS:
        return ("en", "de", "fr", "es", "it", "pt", "nl")
    if question.size > _CLEAR or not text.isascii() or question.language == "en":
        return (question.language or "en",)
    return ("en", question.language)


_CLEAR = 40
"""Words of instructions in ASCII from which on their language is certain: "per" and "no" are Italian, too."""
_REFERS = re.compile(
    r"\b(?:the|this|that|each|every|following|user's) (?:\w+ )?(?:question|query|message|sentence|text|"
    r"utterance|input)\b|\b(?:die|der|den|dem|das|des) (?:\w+ )?(?:frage|satz|satzes|nachricht|text|textes)\b|"
    r"\b(?:la|cette|ce) (?:question|phrase|texte|message)\b|\b(?:la|esta) (?:pregunta|frase)\b|\bel (?:texto|"
    r"mensaje)\b|"
    r"\b(?:la|questa) (?:domanda|frase)\b|\bil (?:testo|messaggio)\b|\b(?:a|esta|da) (?:pergunta|frase|mensagem)\b|"
    r"\b(?:de|deze|het) (?:vraag|zin|tekst|bericht|onderstaande)\b|\b(?:вопрос\w*|предложени\w*|сообщени\w*|"
    r"текст\w*)\b|"
    r"(?:这个|该|下面的|以下|此)(?:问题|句子|文本|话)|(?:この|次の|以下の)(?:質問|文|文章)",
    re.I,
)
_ANSWERS = re.compile(
    r"(?<!not )(?<!n't )\b(?:answer(?:ing|s)?|respon[ds]\w*|reply|replies|help|explain|address|say|tell me)\b|"
    r"beantwort\w*|"
    r"antwort\w*|répon\w+|respond\w+|rispond\w+|rispost\w+|respuesta|contest\w+|responda|resposta|antwoord\w*|ответ\w*|"
    r"回答|作答|答え|回应|お答え",
    re.I,
)


_LABELS = re.compile(
    r"(?:^|(?<=[.!?:] ))[>#*\s]*(?:the |a )?(?:(?:user|visitor|customer)(?:'s)? |new |next |last |latest |current )*"
    r"(?:message|question|query|input)\s*[:：]",
    re.I,
)
"""Labels of the question: "The user's new message:"."""


def _asks_about(around: str) -> bool:
    """Whether the text around a question speaks about the question, and not of an answer to it."""
    around = _LABELS.sub(" ", around)
    return bool("?" in around or "？" in around or _REFERS.search(around)) and not _ANSWERS.search(around)


_KEEPS = re.compile(
    r"\b(?:questions?|answer\w*|respon[ds]\w*|reply|explain|help|tell|context|sources?|mind|using|use|based|background|"
    r"imagine|assume|suppose|given|about|topic|like|as|with|from|for|honest\w*|friendly|please be|input|message|"
    r"query|asks|asked|(?:user|visitor|customer|guest|reader) (?:now )?(?:writes|says)|wants to know|one more|"
    r"last thing|long shot|fragt|hi|"
    r"hello|thanks|wonder\w*|curious|know|below|frage|"
    r"antwort\w*|beantwort\w*|erklär\w*|wie|als|question|répon\w+|expli\w+|comme|pregunta|respond\w+|como|"
    r"domanda|rispond\w+|"
    r"spiega\w*|come|pergunta|vraag|antwoord\w*|leg|als|вопрос\w*|спрашива\w*|ответ\w*|объясн\w*|как|demande|"
    r"ausführlich\w*)\b|问题|回答|解释|質問|答え|説明",
    re.I,
)


_IS_ANSWERED = re.compile(
    r"\bplease answer\b|\banswer (?:it|him|her|them|the|this)\b|\bgood answer\b|\bmodel answer\b|beantwort|antworte|"
    r"répond|respóndele|rispondi|responda|beantwoord|ответь|回答|答えて",
    re.I,
)
"""Words after a question that ask for its answer."""


def _leads_in(text: str, question: str) -> bool:
    """Whether the words before the question in its line speak of anything but a question and its answer."""
    before = text[: text.find(question)].rsplit("\n", 1)[-1].rstrip(" \"'“„«「『")
    if not before.endswith((":", "：")) or before.count(" ") < 2:
        return False
    return not _KEEPS.search(before) and not _IS_ANSWERED.search(text[text.find(question) + len(question) :])


# --- patterns of all languages with spaces --------------------------------------------------------

_MOST = 4
"""The most mentions of one kind in a sentence."""
_CONDITION = re.compile(r"\b(?:if|when|whenever|unless|until|before|outside|about)\b")


@dataclass(frozen=True)
class _Phrase:
    """A line of the sections [orders] and [mentions].

    Attributes:
        pattern: What to find in a sentence in lower case.
        letters: A sentence without any of these does not have the phrase; this saves time.
        sign: The sign that it gives a sentence.
        unconditional: Whether it counts only in sentences without a condition.
    """

    pattern: re.Pattern[str]
    letters: tuple[str, ...]
    sign: str = ""
    unconditional: bool = False

    def find(self, sentence: str) -> re.Match[str] | None:
        """The first place of the phrase in a sentence in lower case."""
        for letters in self.letters:
            if letters in sentence:
                return self.pattern.search(sentence)
        return None


@cache
def _phrases(section: str) -> tuple[_Phrase, ...]:
    phrases = list[_Phrase]()
    for line in lexicon(FILE)[section]:
        head, _, pattern = line.partition(" => ")
        name, _, letters = head.rpartition(": ")
        sign, _, condition = name.partition(", ")
        phrases.append(_Phrase(re.compile(pattern), tuple(letters.split("|")), sign, condition == "unconditional"))
    return tuple(phrases)


def _without_mentions(sentence: str) -> str:
    """The sentence without the parts that speak of a task without ordering it."""
    lower = sentence.lower()
    if len(lower) != len(sentence):  # a letter whose lower case has two
        return sentence
    for phrase in _phrases("mentions"):
        for _ in range(_MOST):
            if (mention := phrase.find(lower)) is None:
                break
            begin, end = mention.span()
            sentence, lower = f"{sentence[:begin]} {sentence[end:]}", f"{lower[:begin]} {lower[end:]}"
    return sentence


def _ordered(sentence: str) -> set[str]:
    """The signs of a sentence in lower case that show in its phrases, whatever the order of its words."""
    return {
        phrase.sign
        for phrase in _phrases("orders")
        if phrase.find(sentence) and not (phrase.unconditional and _CONDITION.search(sentence))
    }


# --- Chinese and Japanese -------------------------------------------------------------------------


@cache
def _patterns(language: str) -> Mapping[str, re.Pattern[str]]:
    """The patterns of a language without spaces, by class."""
    lines = (line.partition(":") for line in lexicon(FILE)[language])
    return {name: re.compile(pattern.strip(), re.I) for name, _, pattern in lines}


def _read_unspaced(sentence: str, language: str) -> set[str]:
    patterns = _patterns(language)
    found = {name for name, pattern in patterns.items() if pattern.search(sentence)}
    if found & {"asks", "fine"}:
        return set()
    signs = {"task"} if found & {"task", "role", "make", "back", "output"} and "aside" not in found else set[str]()
    if "aside" not in found:
        signs.add("form")
        signs |= {name for name, of in (("short around", "short"), ("format around", "shape")) if of in found}
    return signs
