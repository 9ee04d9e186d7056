"""Questions that ask the same of several items, each for itself, so that a call may answer each.

The rules look for a list in the question and read its instruction word by word, with the lexicon in `items.txt`. They
refuse in doubt: an item whose answer needs the others would be answered badly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from skeleton_of_thought.routers.item_lists import (
    ListInText,
    inline_numbered,
    lines_after,
    lines_before,
    marked,
    pieces,
    quotations,
    quoted,
)
from skeleton_of_thought.routers.item_targets import find_different, find_targets
from skeleton_of_thought.routers.item_words import Words, language_of, read_words
from skeleton_of_thought.routers.question import LANGUAGES, lexicon
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS, words_of
from skeleton_of_thought.types.items import Item, ItemList

__all__ = ["find_items"]

_LONGEST = 40_000
"""Characters of the longest question that is read."""
_LINES = 2000
"""Lines of the longest question that is read."""
_INSTRUCTION = 6000
"""Characters of the longest instruction: longer ones are about a document."""
_FEWEST, _MOST = 3, 100
"""The fewest and the most items of a list."""
_LONG, _LONG_ONE = 150, 400
"""Words of the average and of any item from which a question may be one about all of them together."""
_LEAD = 300
"""Characters before a list that are read for what introduces it."""
_PIECE = 200
"""Characters of the longest piece between commas."""
_FIRST = 3
"""An instruction has its command within this many words."""
_SHORT = 60
"""Characters of the longest item that names its answer in one line."""


def find_items(text: str) -> ItemList | None:
    """The items of a question that asks the same of each; None where it does not, or in doubt.

    Args:
        text: The question, in one of `question.LANGUAGES`.

    Returns:
        The shared instruction and the items. Takes linear time and no call.

    Example:
        >>> found = find_items("Translate into French:\\n1. Good morning.\\n2. Thank you.\\n3. See you soon.")
        >>> found.instruction, [point.title for point in found.points]
        ('Translate into French:', ['Good morning.', 'Thank you.', 'See you soon.'])
        >>> find_items("Rank these by size:\\n1. Paris\\n2. Rome\\n3. Oslo") is None
        True
    """
    if len(text) > _LONGEST or not MAY_HOLD_ITEMS.search(text) or text.count("\n") > _LINES:
        return None
    text = text.replace("\r\n", "\n").strip()
    if (found := _as_list(text)) is not None or _LABEL.search(text[:_INSTRUCTION]):
        return found
    return find_targets(text) or find_different(text)


# --- lists ----------------------------------------------------------------------------------------


def _as_list(text: str) -> ItemList | None:
    for found in _lists(text):
        if len(found.items) > 1:
            return _judged(found) if len(found.items) <= _MOST else None
    return None


def _lists(text: str) -> Iterator[ListInText]:
    """The ways to read a list in a text, the surest first; the first that finds one decides."""
    for found in (marked(text, _is_part), inline_numbered(text), quoted(text)):
        if found is not None:
            yield found
    for found in (pieces(text), lines_after(text, _instructs), lines_before(text, _instructs)):
        if found is not None and _shape(found):
            yield found


def _shape(found: ListInText) -> bool:
    """Whether an unmarked list has the shape of one: short pieces, or lines of a kind."""
    if found.kind != "commas":
        return True
    longest = max(map(len, found.items))
    return (
        len(found.lead) + len(found.tail) <= 2 * _LEAD
        and longest <= (_PIECE if "\n" not in found.lead else _SHORT)
        and not any(quotations(item) or '"' in item for item in found.items)
    )


def _is_part(line: str) -> bool:
    language = language_of(line)
    return bool(language) and read_words(line, language).has("parts")


def _instructs(line: str) -> bool:
    """Whether a line after a list, or before one, instructs."""
    language = language_of(line)
    if not language:
        return False
    words = read_words(line, language)
    hits = [hit for name in ("strong", "weak", "each") for hit in words.hits.get(name, ())]
    return any(words.unspaced or hit < _FIRST for hit in hits)


def _judged(found: ListInText) -> ItemList | None:
    """The items of a list if its instruction asks the same of each, each for itself."""
    instruction = _instruction(found)
    if not instruction or len(instruction) > _INSTRUCTION:
        return None
    language = language_of(instruction)
    if not language:
        return None
    words = read_words(instruction, language)
    if words.has("whole", "neighbour"):
        return None
    if any(map(_LABEL.search, (found.lead, found.tail))) or not _introduces(found, language):
        return None
    each = _each(words) or (words.has("both") and len(found.items) == 2)
    plural = _acts_on_several(words)
    if each:
        if not words.has("strong", "weak") and not {"?", "？", ":", "："} & set(words.words):
            return None
    elif (
        plural is None
        or words.has("unless", "parts")
        or _asks_something_else(words)
        or not (plural or found.kind == "marked" or (found.kind == "quoted" and words.has("direct")))
    ):
        return None
    return _of(found, instruction, language) if _are_items(found, words, language, each) else None


def _instruction(found: ListInText) -> str:
    if found.lead and found.tail:
        between = " … " if found.inline and not found.lead.endswith((":", "：")) else "\n\n"
        return f"{found.lead}{between}{found.tail}"
    return found.lead or found.tail


_LABEL = re.compile(
    r"^[\s>#*\[<]*(?:question|query|context|passages?|docs?|documents?|sources?|thought|action|answer|user|human|assistant|"
    r"tools|system|frage|kontext|antwort|contexte|réponse|pregunta|contexto|respuesta|domanda|contesto|risposta|pergunta|"
    r"resposta|vraag|antwoord|вопрос|контекст|ответ|问题|上下文|回答|質問|文脈)[\]\s*>]*[:：]|<<<|\"\"\"",
    re.I | re.M,
)
"""What prompts have that present a question, documents or a dialogue: their lists are parts of those."""


def _introduces(found: ListInText, language: str) -> bool:
    """Whether the words right before a list may be those of a list of items."""
    words = read_words(found.lead[-_LEAD:], language)
    last = max((words.sentence[at] for at, word in enumerate(words.words) if word.isalnum()), default=0)
    if words.within("options", last):
        return False
    if found.kind == "commas" and found.lead.endswith(("?", "？")):
        return bool(words.within("each", last) and words.within("things", last) and not found.tail)
    if words.within("each", last) or words.within("things", last) or (found.tail and not found.lead):
        return True
    if found.kind == "commas" or len(found.lead) > 2 * _LEAD:
        return False
    first = (read_words(item[:_LEAD], language) for item in found.items)
    commands = sum(0 in words.hits.get(name, ()) for words in first for name in ("strong", "weak"))
    return commands * 2 <= len(found.items)


def _each(words: Words) -> bool:
    """Whether the instruction says "each" of the items, and not "a story with each"."""
    for at in words.hits.get("each", ()):
        sentence = words.sentence[at]
        if words.unspaced and words.within("using", sentence) and words.within("text", sentence):
            return False
        near = [
            place for name in ("using", "relative") for place in words.within(name, sentence) if at - 4 <= place < at
        ]
        near = [place for place in near if words.comma not in words.words[place:at]]
        # "A sentence with each word" is one of each, "a sentence that has each word" is not.
        texts = ("text", "sentence") if words.within("relative", sentence) else ("text",)
        alone = len(texts) == 1 and words.within("sentence", sentence)
        if near and (
            any(place < min(near) for name in texts for place in words.within(name, sentence))
            or (
                not alone
                and max(near) >= at - 2
                and any(place < min(near) for place in words.within("compose", sentence))
            )
        ):
            return False
    return words.has("each")


def _acts_on_several(words: Words) -> bool | None:
    """Whether a command names several things to act on; False if it names nothing, None if it names one thing."""
    answer = None
    for at in words.hits.get("strong", ()):
        sentence = words.sentence[at]
        things = [place for place in words.within("things", sentence) if not words.is_length(place)]
        one = words.within("one", sentence)
        if one and (not things or one[0] < things[0]):
            return None
        if things and any(at < place < things[0] for place in words.within("using", sentence)):
            return None
        answer = bool(things) or bool(answer)
    return answer


def _asks_something_else(words: Words) -> bool:
    """Whether a sentence without a command is a question."""
    commands = {words.sentence[at] for name in ("strong", "weak") for at in words.hits.get(name, ())}
    return any(word in ("?", "？") and words.sentence[at] not in commands for at, word in enumerate(words.words))


# --- items ----------------------------------------------------------------------------------------

_SNIPPET = re.compile(
    r"```|~~~|[;{}]\s*$|^\s*(?:def|class|import|from|#include|public|SELECT|return|const|let|var)\b", re.M
)
_SPEAKER = re.compile(r"(?P<who>[^\W\d_][\w .]{0,24})[:：]\s?\S")
_STAMP = re.compile(r"[\[(]?(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}:\d{2})")
_CELLS = re.compile(r"\|[^|\n]*\||\t[^\t\n]*\t")


def _are_items(found: ListInText, words: Words, language: str, each: bool) -> bool:
    """Whether the pieces of a list can stand alone."""
    items = found.items
    long = found.kind != "commas" and min(map(len, items)) > _SHORT
    if not (2 if each and long else _FEWEST) <= len(items) <= _MOST or any(not _has_text(item) for item in items):
        return False
    counts = [len(words_of(item)) for item in items]
    if not each and (sum(counts) > _LONG * len(items) or max(counts) > _LONG_ONE):
        return False
    if sum(bool(_SNIPPET.search(item)) for item in items) > len(items) // 3:
        return False
    if _share(_STAMP, items) or any(_CELLS.search(item) for item in items):
        return False
    speakers = Counter(match["who"].casefold() for item in items if (match := _SPEAKER.match(item)))
    if speakers and ((len(speakers) > 1 and max(speakers.values()) > 1) or (not each and _share(_SPEAKER, items))):
        return False
    questions = sum(item.rstrip().endswith(("?", "？")) for item in items)
    if words.has("answer") or (questions > len(items) // 2 and not words.has("direct")):
        return not any(_refers(item, language) for item in items[1:])
    return True


def _has_text(item: str) -> bool:
    return any(sign.isalnum() or ord(sign) > 0x2FFF for sign in item)


def _share(pattern: re.Pattern[str], items: Sequence[str]) -> bool:
    return sum(bool(pattern.match(item)) for item in items) * 2 > len(items)


def _refers(item: str, language: str) -> bool:
    """Whether an item speaks of another one."""
    words = read_words(item, language)
    if words.has("refers") or 0 in words.hits.get("opens", ()):
        return True
    if language in ("zh", "ja"):
        return words.has("pronoun")
    stopwords = _stopwords(language)
    for name in ("pronoun", "owner"):
        for at in words.hits.get(name, ()):
            before = [
                place for place in range(at) if len(words.words[place]) > 2 and words.words[place] not in stopwords
            ]
            clauses = [place for place in words.hits.get("clause", ()) if place < at]
            if not before or (name == "pronoun" and not (clauses and clauses[-1] > before[0])):
                return True
    return False


@cache
def _stopwords(language: str) -> frozenset[str]:
    lines = lexicon()[language] if language in LANGUAGES else ()
    return frozenset(word for line in lines if line.startswith("stopwords: ") for word in line.split()[1:])


def _of(found: ListInText, instruction: str, language: str) -> ItemList:
    points = []
    short = found.kind == "commas" or (found.kind == "quoted" and found.inline)
    for index, item in enumerate(found.items, 1):
        title = " ".join(item.split())
        mark = found.marks[index - 1] if found.marks else ""
        if short and len(title) <= _SHORT and not title.endswith((".", "!", "?", "。", "！", "？")):
            mark = f"{title}:"
        points.append(Item(index, title, mark=mark, tight=not found.loose, ask=item))
    return ItemList(instruction, tuple(points), "list", language)
