"""The task of a question, read off its words, in the same classes for every language.

A lexicon of ten languages turns words into classes ("asks for reasons", "asks for a story"), so that a router trained
on questions in one language works in the others. The gate and the embedded router use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

__all__ = [
    "LANGUAGES",
    "WORD",
    "LexiconWords",
    "Question",
    "find_question",
    "lexicon",
    "lexicon_words",
    "read_question",
]

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "ru", "zh", "ja")
"""Languages of the lexicon."""

_HEAD, _TAIL = 700, 300
"""The numbers of first and last characters that are read of a longer question: the task stands at either end."""

WORD = re.compile(r"c\+\+|c#|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s\"'’‘“”„«»「」『』]", re.I)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_LETTER = re.compile(r"[^\W\d_]")
_FORMS = {
    "snippet": re.compile(
        r"```|~~~|<\w+[^>]*>.*</|^\s*(?:def|class|import|#include|public|SELECT)\b|[;{]\s*$|\w\(\)", re.M
    ),
    "formula": re.compile(r"\\(?:frac|int|sum|sqrt|lim)|\$[^$\d][^$]*\$|[a-z0-9)]\s*[\^=]\s*[-(a-z0-9]", re.I),
    "arithmetic": re.compile(
        r"\d\s*(?:[-+*/×÷^]|plus|minus|times|mal|fois|por|per|keer|умножить на|乘以?|加|减|かける|たす)\s*\d|\d\s*%\s"
    ),
    "given": re.compile(r"[:：]\s*\n|\n\s*\n|[:：]\s*[\"“„«「']|[\"“„«「].{60,}|\n\s*[-*•\d]", re.S),
}

_TEXTS = (
    "(?:user )?message|utterance|sentence|original|theme|text|satz|nachricht|phrase|frase|oración|testo|texto|"
    "tekst|zin|"
    "bericht|предложение|текст|句子|文本|文|用户"
)
"""Labels of any text; they are those of a question if the text is one."""
_LABELS = (
    f"{_TEXTS}|question|query|q|ask|(?:user )?input|instruction|入力|(?:kunden|nutzer)?frage|ユーザーの質問|"
    "(?:(?:a|an|the|our|now the|new) )?(?:visitor|user|customer|student|client|reader|caller|guest|hire|"
    "someone) (?:now )?"
    "(?:asks|asked|writes|wrote|says|wants to know)|citizen|"
    "pregunta|domanda|pergunta|vraag|вопрос|问题|提问|質問"
)
_OTHER_LABELS = (
    "context|sources?|documents?|docs?|instructions?|style|tone|language|notes?|output|result|assistant|ai|bot|"
    "(?:answer|respond) in|"
    "(?:(?:helpful|final|short|your) )?answer|a|kontext|antwort|contexte|réponse|contexto|"
    "respuesta|contesto|risposta|resposta|antwoord|контекст|ответ|上下文|回答|答案|文脈"
)
_LABEL = (
    r"^(?:[ \t>*#\[]*(?:(?:the|my|our|new|original|follow[- ]up|latest|current|next|last|present|visitor's|"
    r"(?:end )?user(?:'s)?|customer(?:'s)?) )*"
    r"(?:{0})(?: (?:of|from|based|for|about|by|de|des|du|del|der|dell)\b[^\n:?]{{0,60}})?[ \t\]*]*[:：=]|"
    r"\[(?:{0})\]|[ \t]*(?:#+|\*\*|\[)[ \t]*(?:{0})[ \t]*(?:\*\*|\])?[ \t]*$)[\s*]*"
)
_LABELLED = re.compile(_LABEL.format(_LABELS), re.I | re.M)
_ANY_TEXT = re.compile(rf"[ \t>#*\[]*(?:{_TEXTS})\b", re.I)
_LABELLED_END = re.compile(rf"\n\s*\n|{_LABEL.format(_OTHER_LABELS)}", re.I | re.M)
_TAGGED = re.compile(rf"<(?P<tag>(?:user_|end_user_)?(?:{_LABELS}))>(.{{1,600}}?)</(?P=tag)>", re.I | re.S)
_IN_JSON = re.compile(r"\"(?:question|query|content|user_message)\"\s*:\s*\"([^\"\n]{8,300}[?？])\"")
"""A question in a JSON object."""
_LONGEST = 600
"""Characters of the longest question with a label."""
_LABELS_READ = 8
"""The number of last labels that are read."""
_TURN = re.compile(
    r"^[ \t>*]*(?:human|человек|пользователь|utilizador|usuario|usuário|utilisateur|nutzer|user|user input|"
    r"new input|you|customer|visitor)[* \t]*[:：-][ \t]*([^\n]{1,600})\s*"
    r"(?:^[ \t>*]*(?:ai|assistant|assistente|asistente|assistent|ии|ассистент|bot|answer|"
    r"response)[* \t]*[:：-]?\s*)?\Z",
    re.I | re.M,
)
"""The last turn of a dialogue within one prompt."""
_ALONE = re.compile(
    r"[>\s\"“„«「『']*+(?:(?P<before>[^\n?？]{0,600}(?:[:：]|[-=]>|→))[\s\"“„«「『>']*+)?"
    r"(?P<question>[^\n?？.*\s](?:[^\n?？.]|\.(?! )){7,300}[?？])[\s\"”»」』'.]*"
)
"""A question that stands alone in its paragraph, perhaps after a few words and a colon."""
_THEN = re.compile(r"(?P<question>[^\n?？]{8,300}[?？])\s*(?P<rest>[^\n?？]{3,160})")
"""A question and a demand after it in one line."""
_LINE = 1200
"""Characters of the longest line that is searched for a question."""
_WITHIN = re.compile(r"[^\n\"“„«]*?(?:[\"“„«]|(?<!\w)['‘])([^\n\"”“»?？]{8,300}[?？])[\"”“»'’][^\n\"“„«]{0,160}")
"""A question in quotation marks within a sentence."""
_SHORT = 400
"""Characters of a text that presents a question in a few words."""
_QUOTES = '>"“„«「『'
_SOURCES = (
    r"context|sources?|excerpts?|extracts?|docs?|documents?|materials?|chunks?|rows|passages?|background|"
    r"articles?|history|"
    r"memory|information|earlier|retrieved|snippets?|notes|kontext|auszüge|quellen|contexte|extraits|contexto|contesto|"
    r"контекст|上下文|资料|参考|文脈"
)
_CUES = re.compile(
    r"(?:\A|[.!:;。：]\s|\n)[ \t>#*\[|(]*(?:(?:please|now|then|bitte|just|only|por favor|请|请结合) )*"
    r"(?:(?:answer|respond to|reply to|use|using|based on|given|read|with|below|here (?:is|are)|some|retrieved)"
    rf"\b[^\n]{{0,60}}\b(?:questions?|{_SOURCES}|query|messages?|this)\b|(?:{_SOURCES})\b|answer (?:in|as|for|"
    rf"with|my)\b|"
    r"(?:don't|do not) (?:answer|explain|reply)|(?:tell|give|return|wrap|format|write|keep|put|repeat|rewrite|"
    r"rephrase|translate|"
    r"paraphrase|summari[sz]e|classify|suggest|rate|copy|sort|pick|output(?= ))\b(?! (?:me|us)\b)|"
    r"give me (?:only|just|a|the|\d)\b|(?:keep it|be|max|format|in one (?:word|line|sentence)|in a (?:word|line|"
    r"sentence)|just (?:a|one|yes)|yes or)\b|nur\b|en une?\b|en una\b|trad\w+|in una\b|em uma\b|"
    r"think\b|aim for\b|take your time|audience\b|tone\b|name (?:only|just)|denk\b|réfléchis|don't copy|keep\b|"
    r"antwort\w*|beantworte|nutze|verwende|répon[ds]\w*|utilise\w*|respond[ae]\b|usa\b|utiliza|rispondi|usa|"
    r"responda|use\b|"
    r"beantwoord|antwoord|gebruik|ответь|отвечай|используй|[^\n]{0,12}(?:回答|作答|答え|参考))",
    re.I,
)
"""The beginnings of instructions in a prompt that presents its question."""
_ASKS = re.compile(
    r"\b(?:answer|explain|question|query|quiz|sentence|text|language|help|using|based on|respond|reply|tell|message|"
    r"antworte|beantworte|frage|répon[ds]\w*|question|respond\w+|pregunta|rispond\w+|domanda|pergunta|antwoord|vraag|"
    r"ответ\w*|вопрос\w*)\b|问题|回答|質問|答え",
    re.I,
)
"""Words of a short text that presents a question."""
_SENTENCE = re.compile(r"(?:^|[.!:…,] |\n)(?P<question>(?:[^\n.!?？:]|\.(?! )){10,300}[?？])(?=[^?？]{0,160}\Z)")
"""The last question of a paragraph."""
_OF_MANY = re.compile(
    r"(?:(?:so|but|and|ok|now)[, ]+)?(?:what (?:are|were) (?:the|some|good|your)|wat zijn|какие)\b[^?]{3,}[?]", re.I
)
"""A question with many answers, whatever text is before it."""
_CLAUSE = re.compile(r"\A(?:with|from|using|based on|going by|given|according to|in) [^,?]{3,80}, (?=wh|how)", re.I)
"""The words of a question before it that name a document."""
_POINTS_BACK = re.compile(
    r"\b(?:above|(?:this|the) (?:article|letter|text|transcript|excerpts?|records?|notes?|thread|report|"
    r"abstract|table|csv|"
    r"documents?|passages?|sources?|context|interview|results?|handout|minutes)|according to|based on|going by)\b",
    re.I,
)
"""Words of a question about the text before it."""
_IN_STEPS = re.compile(r"^\s*(?:thought|action|observation)\s*:", re.I | re.M)
"""Lines of prompts for agents that reason in steps: there the whole prompt counts as the question."""
_PRESENTS = re.compile(r"[:：=\n<\"“„«「『]|[?？]\s*\S|[.!…] ")
"""What a prompt has that presents a question; most questions have none of it."""
_BEGINNING = _END = 2000
"""Characters that are searched for the question: it stands before or after the context."""


@dataclass(frozen=True)
class Question:
    """A question's words and their classes.

    Attributes:
        text: The part that was read: the beginning and the end of a long text.
        words: Its words in lower case, with punctuation marks as words.
        language: One of `LANGUAGES`, or "" for another.
        classes: The classes of its words in the lexicon: `"list"`, `"story"`, `"code"`, ...
        opening: The classes of its first words, among them the question's form (`"howto"`, `"yesno"`).
        size: Roughly the number of words: half the characters in Chinese and Japanese, which have no spaces.
        length: Characters of the whole question.
    """

    text: str
    words: tuple[str, ...]
    language: str
    classes: frozenset[str]
    opening: frozenset[str]
    size: int
    length: int


# The gate and the embedded router read the same message, one after the other.
@lru_cache(maxsize=8)
def find_question(text: str) -> str:
    """The question in a prompt that presents it, with a label or alone in a paragraph; else the whole text.

    Example:
        >>> find_question("Use this context:\\nTea is a drink.\\n\\nQuestion: What are the kinds of tea?\\nAnswer:")
        'What are the kinds of tea?'
        >>> find_question("Answer in a relaxed tone:\\n> What are the kinds of tea?")
        'What are the kinds of tea?'
    """
    seen = text if len(text) <= _BEGINNING + _END else f"{text[:_BEGINNING]}\n{text[-_END:]}"
    if not _PRESENTS.search(seen):
        return text
    if _IN_STEPS.search(seen):
        return text
    question = ""
    for label in [*_LABELLED.finditer(seen), *_TAGGED.finditer(seen)][-_LABELS_READ:]:
        if label.re is _TAGGED:
            question = label[2].strip()
            continue
        part = seen[label.end() : label.end() + _LONGEST + 1]
        end = _LABELLED_END.search(part)
        if end is not None or len(part) <= _LONGEST:
            labelled = part[: end and end.start()].strip(" \t\n*`\"'“”")
            first = labelled.partition("\n")[0].rstrip()
            labelled = first if first.endswith(("?", "？")) else labelled
            if "?" in labelled or "？" in labelled or not _ANY_TEXT.match(label[0]):
                asks = "?" in labelled or "？" in labelled or not ("?" in question or "？" in question)
                question = (labelled if asks else "") or question
    if not question and (quoted := _IN_JSON.findall(seen)):
        return str(quoted[-1])
    return question or _unlabelled(seen) or text


def _unlabelled(text: str) -> str:
    """The question of a dialogue's last turn, or alone in the last or first paragraph; "" if there is none."""
    if (turn := _TURN.search(text)) is not None:
        return turn[1].strip()
    if (asked := _THEN.fullmatch(text.strip())) is not None and _CUES.match(asked["rest"]):
        return asked["question"]
    if len(text) < _SHORT and (quoted := _WITHIN.fullmatch(text.strip())) is not None:
        return quoted[1].strip()
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    for number in (-1, 0):
        lines = paragraphs[number].strip().split("\n")
        alone = _ALONE.fullmatch(lines[number]) if len(lines[number]) < _LINE else None
        if alone is None or (alone["before"] and alone["question"][0].islower()):
            continue
        others = [*paragraphs[:-1], *lines[:-1]] if number else [*lines[1:], *paragraphs[1:]]
        rest = "\n".join([alone["before"] or "", *others])
        if (
            lines[number].lstrip()[0] in _QUOTES
            or (len(text) < _SHORT and 3 <= (alone["before"] or "").count(" ") < 40)
            or _CUES.search(rest)
            or _ASKS.search(rest if len(rest) < _SHORT else (alone["before"] or "")[-80:])
        ):
            return _CLAUSE.sub("", alone["question"].strip())
    for part in paragraphs[1:-1][:_LABELS_READ]:
        if part.lstrip()[0] in _QUOTES and len(part) < _LINE and (alone := _ALONE.fullmatch(part.strip())) is not None:
            return alone["question"].strip()
    return _last_asked(paragraphs)


def _last_asked(paragraphs: list[str]) -> str:
    """The question within the last paragraph, if its words or those around it speak of a document or of the answer."""
    last = paragraphs[-1].strip().strip("-=~*_# \n")
    if len(last) > _SHORT or (found := _SENTENCE.search(last)) is None:
        return ""
    before, after = last[: found.start("question")].strip(), last[found.end("question") :].strip()
    context = len(paragraphs) > 1
    if (
        (context and (_POINTS_BACK.search(last) or paragraphs[0].lstrip()[0] in ">[{"))
        or (context and _CUES.search("\n".join(paragraphs[:-1])))
        or any(part and _CUES.match(part) for part in (before, after))
        or (before and "\n" not in last and not context and _OF_MANY.match(found["question"]))
    ):
        return found["question"].strip()
    return ""


@lru_cache(maxsize=8)
def read_question(text: str) -> Question:
    """The words, language and classes of a question.

    Example:
        >>> question = read_question("Welche Vorteile hat ein Garten auf dem Dach?")
        >>> question.language, "list" in question.classes, "code" in question.classes
        ('de', True, False)
    """
    seen = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"
    # A quote or a Spanish mark before the first word must not count as the first word.
    lower = seen.casefold().replace("’", "'").lstrip(' \n\t¿¡"“„«「『([*#>-–—')
    words = tuple(WORD.findall(lower))
    language = _language(seen, words)
    found, opening, size = set[str](), set[str](), len(words)
    if language in ("zh", "ja"):
        _classes_of_text(lower, language, found, opening)
        size = len(seen) // 2
    # English words occur in questions of every language, above all in technical ones.
    _classes_of_words(words, language, found, opening)
    _add_marks(seen, words, found)
    return Question(seen, words, language, frozenset(found), frozenset(opening), size, len(text))


def _add_marks(text: str, words: tuple[str, ...], found: set[str]) -> None:
    """Adds the classes that show in the text's form."""
    for name, pattern in _FORMS.items():
        if pattern.search(text):
            found.add(name)
    numbers = 0
    for word in words:
        numbers += word[0].isdigit()
    if numbers > 2:
        found.add("numbers")
    questions = text.count("?") + text.count("？")
    if questions != 1:
        found.add("questions" if questions else "statement")


# --- the lexicon ----------------------------------------------------------------------------------

_STOPWORDS = "stopwords: "


@cache
def lexicon(file: str = "lexicon.txt") -> Mapping[str, list[str]]:
    """The lines of each language in a file of words, whose head explains them."""
    sections: dict[str, list[str]] = {}
    for line in resources.files(__package__).joinpath(file).read_text("utf-8").splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


# --- languages ------------------------------------------------------------------------------------


def _language(text: str, words: tuple[str, ...]) -> str:
    if not text.isascii():
        letters = len(_LETTER.findall(text)) or 1
        if _KANA.search(text):
            return "ja"
        if len(_HAN.findall(text)) * 3 > letters:
            return "zh"
        if len(_CYRILLIC.findall(text)) * 2 > letters:
            return "ru"
    stopwords = _stopwords()
    counts: dict[str, int] = {}
    for word in words:
        for language in stopwords.get(word, ()):
            counts[language] = counts.get(language, 0) + 1
    if not counts:
        return "en" if text.isascii() else ""
    most = max(counts.values())
    return "en" if counts.get("en") == most else next(language for language in counts if counts[language] == most)


@cache
def _stopwords() -> Mapping[str, tuple[str, ...]]:
    """The languages of each stopword; languages with a script of their own have none."""
    languages: dict[str, tuple[str, ...]] = {}
    for language, lines in lexicon().items():
        for line in lines:
            if line.startswith(_STOPWORDS):
                for word in line.removeprefix(_STOPWORDS).split():
                    languages[word] = (*languages.get(word, ()), language)
    return languages


# --- classes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LexiconWords:
    """The words of a language: phrases by their first word, and stems (`reason*`) by their first letters."""

    phrases: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]]
    stems: Mapping[str, tuple[tuple[str, str], ...]]


_SHORTEST = 3
"""Letters of the shortest stem."""
_FIRST = 4
"""Phrases that begin within this many words belong to the opening."""


def _classes_of_words(words: tuple[str, ...], language: str, found: set[str], opening: set[str]) -> None:
    for lexicon in {language or "en", "en"} - {"zh", "ja"}:
        table = lexicon_words(lexicon)
        for i, word in enumerate(words):
            for phrase, name in table.phrases.get(word, ()):
                if words[i : i + len(phrase)] != phrase:
                    continue
                if name[0] == "^":
                    if not i:
                        opening.add(name[1:])
                    continue
                found.add(name)
                if i < _FIRST:
                    opening.add(name)
            for stem, name in table.stems.get(word[:_SHORTEST], ()):
                if word.startswith(stem):
                    found.add(name)
                    if i < _FIRST:
                        opening.add(name)


def _classes_of_text(text: str, language: str, found: set[str], opening: set[str]) -> None:
    for name, pattern in _patterns(language):
        match = pattern.search(text)
        if match is None:
            continue
        if name[0] == "^":
            opening.add(name[1:])
            continue
        found.add(name)
        opening.add(name)


def _entries(language: str, *file: str) -> Iterator[tuple[str, str]]:
    """Yields the class and the text of each entry of a language."""
    for line in lexicon(*file)[language]:
        if line.startswith(_STOPWORDS):
            continue
        name, _, entries = line.partition(":")
        for entry in entries.split("|"):
            if entry := entry.strip():
                yield name.strip(), entry


@cache
def lexicon_words(language: str, *file: str) -> LexiconWords:
    """The words of a language with spaces, in `lexicon.txt` or another file of its format."""
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    stems: dict[str, list[tuple[str, str]]] = {}
    for name, entry in _entries(language, *file):
        if entry.endswith("*") and " " not in entry:
            stem = entry[:-1].casefold()
            stems.setdefault(stem[:_SHORTEST], []).append((stem, name))
        else:
            phrase = tuple(WORD.findall(entry.casefold()))
            phrases.setdefault(phrase[0], []).append((phrase, name))
    return LexiconWords(
        {first: tuple(of) for first, of in phrases.items()},
        {letters: tuple(of) for letters, of in stems.items()},
    )


@cache
def _patterns(language: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    by_name: dict[str, list[str]] = {}
    for name, entry in _entries(language):
        by_name.setdefault(name, []).append(entry)
    return tuple((name, re.compile(_joined(entries))) for name, entries in by_name.items())


def _joined(entries: Iterable[str]) -> str:
    return "|".join(entry if any(mark in entry for mark in "^$[.(") else re.escape(entry) for entry in entries)
