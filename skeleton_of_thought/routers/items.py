"""Questions that ask the same of several items, each for itself, so that a call may answer each.

The rules look for a list in the question and read its instruction word by word, with the lexicon in `items.txt`. They
refuse in doubt: an item whose answer needs the others would be answered badly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from skeleton_of_thought.routers.item_lists import (
    ListInText,
    inline_numbered,
    lines_after,
    lines_before,
    marked,
    named_row,
    pieces,
    quotations,
    quoted,
)
from skeleton_of_thought.routers.item_sense import FEWEST, MOST, SHORT, are_items, asks_property, becomes_one, refers
from skeleton_of_thought.routers.item_targets import find_different, find_target_lines, find_targets
from skeleton_of_thought.routers.item_words import Words, language_of, read_words
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS
from skeleton_of_thought.types.items import Item, ItemList

__all__ = ["find_items"]

_LONGEST = 40_000
"""Characters of the longest question that is read."""
_LINES = 1000
"""Lines of the longest question that is read."""
_INSTRUCTION = 6000
"""Characters of the longest instruction: longer ones are about a document."""
_LEAD = 300
"""Characters before a list that are read for what introduces it."""
_PIECE = 200
"""Characters of the longest piece between commas."""
_FIRST = 3
"""An instruction has its command within this many words."""
_HEADING = 3
"""Words of the longest heading of a list: "My ingredients:"."""
_BRIEF = 12
"""Words of a brief instruction."""
_NEAR = 4
"""Words, or characters of Chinese and Japanese, between "these" and the name of the things at most."""


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
    if "\n" in text and (found := find_target_lines(text)) is not None:
        return found
    if (found := _as_list(text)) is not None or _LABEL.search(text[:_INSTRUCTION]):
        return found
    return find_targets(text) or find_different(text)


# --- lists ----------------------------------------------------------------------------------------


def _as_list(text: str) -> ItemList | None:
    for found in _lists(text):
        if len(found.items) > 1:
            return _judged(found) if len(found.items) <= MOST else None
    return None


def _lists(text: str) -> Iterator[ListInText]:
    """The ways to read a list in a text, the surest first; the first that finds one decides."""
    for found in (marked(text, _is_part), inline_numbered(text), quoted(text)):
        if found is not None:
            yield found
    language = language_of(text[:_LEAD])
    for found in (named_row(text, language, _eaches), pieces(text, language)):
        if found is not None and _shape(found):
            yield found
    before, after = lines_before(text, _instructs), lines_after(text, _instructs, _speaks_of_items)
    # "Write a reply to each of them" below the items, unless the words above them instruct.
    if before and after and _speaks_of_items(before.tail) and not (_instructs(after.lead) or ":" in after.lead[-1:]):
        after = None
    yield from (found for found in (after, before) if found is not None)


def _shape(found: ListInText) -> bool:
    """Whether an unmarked list has the shape of one: short pieces, or lines of a kind."""
    if found.kind != "commas":
        return True
    longest = max(map(len, found.items))
    return (
        len(found.lead) + len(found.tail) <= 2 * _LEAD
        and longest <= (_PIECE if "\n" not in found.lead else SHORT)
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
    hits = [hit for name in ("strong", "weak") for hit in words.hits.get(name, ())]
    return words.has("each") or any(words.unspaced or hit < _FIRST for hit in hits)


def _eaches(words: str, language: str) -> bool:
    return read_words(words, language).has("each")


def _speaks_of_items(line: str) -> bool:
    """Whether a line speaks of each of some items, or of "these words"."""
    language = language_of(line)
    words = read_words(line, language) if language else None
    return words is not None and (words.has("each") or bool(_these(words)))


def _these(words: Words) -> list[int]:
    """Where an instruction says "these" or "the following", with the name of several things right after, or nothing."""
    things = words.hits.get("things", ())
    ends = () if words.unspaced else (":", "¶", "")
    strong = words.hits.get("strong", ())
    return [
        at
        for at in words.hits.get("these", ())
        if any(at <= place <= at + _NEAR for place in things)
        or (at - 1 in strong and "".join(words.words[at + 1 : at + 2]) in ends)
    ]


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
    if _is_material(found, language) or not _introduces(found, language):
        return None
    each = _each(words) or (words.has("both") and len(found.items) == 2)
    if not (each and _is_about_each(found, words)) and not _acts_on_items(found, words, language):
        return None
    return _of(found, instruction, language) if are_items(found, words, language, each=each) else None


def _is_about_each(found: ListInText, words: Words) -> bool:
    """Whether "each" is of the instruction: it has a command, or is nothing but "French for each of these"."""
    if words.has("strong", "weak") or {"?", "？", ":", "："} & set(words.words):
        return not _one_text_with_each(words)
    return not (found.lead and found.tail)


def _one_text_with_each(words: Words) -> bool:
    """Whether each item gets its place in one text: "write the scene, and give each a reason"."""
    for at in words.hits.get("each", ()):
        sentence = words.sentence[at]
        texts = [place for place in words.within("text", sentence) if place < at]
        makes = [place for place in words.within("compose", sentence) if place < at]
        acts = words.within("weak", sentence)
        if any(make < text < act < at for make in makes for text in texts for act in acts):
            return True
    return False


def _acts_on_items(found: ListInText, words: Words, language: str) -> bool:
    """Whether an instruction without "each" acts on one item at a time."""
    if words.has("unless") or (_asks_something_else(words) and not asks_property(words)) or becomes_one(words):
        return False
    if _is_quiz(found, words, language):
        return True
    plural = _acts_on_several(words)
    # "These bullet points" may be the items themselves.
    things = words.hits.get("things", ())
    if set(words.hits.get("parts", ())).difference(things, (at + 1 for at in things)):
        return False
    if (
        asks_property(words)
        or _turns_these(words)
        or (_are_words(found) and len(words.words) <= _BRIEF and words.has("strong"))
    ):
        return True
    return plural is not None and (plural or found.kind == "marked" or (found.kind == "quoted" and words.has("direct")))


def _turns_these(words: Words) -> bool:
    """Whether a verb has the items as its object, "make these sentences shorter", or puts them into a language."""
    if words.unspaced:
        return False
    verbs = {at for name in ("weak", "strong") for at in words.hits.get(name, ())}
    # "Bios for these people" are several, "a title for these chapters" is one.
    others = {at for name in ("using", "text", "one", "a") for at in words.hits.get(name, ())}
    for at in _these(words):
        verb = next((verb for verb in sorted(verbs) if words.sentence[verb] == words.sentence[at]), at)
        after = [place for place in words.within("text", words.sentence[at]) if place > at]
        if verb < at and verb not in others and others.isdisjoint(range(verb, at)) and not after:
            return True
        # "For these countries tell me the currency".
        if (
            words.sentence.index(words.sentence[at]) in (at - 1, at - 2)
            and not after
            and any(at - 2 <= place < at for place in words.hits.get("for", ()))
        ):
            return any(verb > at and words.sentence[verb] == words.sentence[at] for verb in verbs)
    prepositions = set(words.hits.get("into", ()))
    tongues = words.hits.get("tongue", ())
    ones = words.hits.get("one", ())
    return any(
        {place - 1, place - 2} & prepositions and not any(at < one < place for one in ones)
        for at in words.hits.get("these", ())
        for place in tongues
        if 0 < place - at < 4
    )


def _are_words(found: ListInText) -> bool:
    """Whether the items are lines of one to three words, as a vocabulary has."""
    return (
        found.kind == "lines"
        and len(found.items) > FEWEST
        and all(len(item.split()) <= 3 and item[-1:].isalnum() for item in found.items)
    )


def _is_quiz(found: ListInText, words: Words, language: str) -> bool:
    """Whether short words before a list of unrelated questions ask for their answers: "Trivia time!".

    Not where the words tell a case that the questions are about, or where the questions are for the reader.
    """
    asking = set(words.hits.get("asking", ()))
    if (
        found.kind != "marked"
        or found.tail
        or not asking
        or words.has("using")
        or len(words.words) > _BRIEF * (3 if words.unspaced else 2)
    ):
        return False
    if any(sign.isdigit() for sign in found.lead) or set(words.hits.get("one", ())) - asking or "?" in found.lead:
        return False
    questions = sum(item.endswith(("?", "？")) for item in found.items)
    yours = sum(read_words(item, language).has("yours") for item in found.items)
    return questions * 2 > len(found.items) and yours < 2 and not any(refers(item, language) for item in found.items)


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


_INPUT = re.compile(
    r"^[\s*]*(?:text|input|review|message|sentence|email|article|tweet|paragraph|customer|eingabe|satz|texte|entrée|phrase|"
    r"texto|entrada|frase|testo|tekst|invoer|zin|текст|ввод|文本|输入|原文|テキスト|入力)[\s*]*[:：]",
    re.I | re.M,
)
"""The label of one text below a list: the list says what to do with it."""


_SOURCE = re.compile(
    r"(?:extract|excerpt|passage|doc|document|source|chunk|context|snippet|page|rule|step|regel|schritt|auszug|quelle|extrait|"
    r"étape|règle|fragmento|paso|regla|estratto|passo|regola|trecho|regra|fragment|stap|шаг|правило|отрывок|资料|步骤|資料)",
    re.I,
)
_FRAME = re.compile(r"</?[a-zA-Z][\w -]*>|#+ ")


def _is_material(found: ListInText, language: str) -> bool:
    """Whether a list is what the prompt works with, such as passages, parts of a prompt, or the members of a crew."""
    if any(map(_LABEL.search, (found.lead, found.tail))) or _INPUT.search(found.tail):
        return True
    if any(map(_SOURCE.match, found.marks)):
        return True
    if found.tail and found.lead.endswith((":", "：")) and len(found.lead.split()) <= _HEADING:
        tail = read_words(found.tail, language)
        if not (tail.has("each") or _these(tail)) and not read_words(found.lead, language).has("each", "strong"):
            return True
    if found.marks or found.kind in ("commas", "names", "quoted"):
        return False
    # Above an instruction, long paragraphs are a document.
    if not found.lead and max(map(len, found.items)) > _LEAD:
        return True
    return any(pattern.match(item) for pattern in (_LABEL, _INPUT, _FRAME) for item in found.items)


def _introduces(found: ListInText, language: str) -> bool:
    """Whether the words right before a list may be those of a list of items."""
    words = read_words(found.lead[-_LEAD:], language)
    last = max((words.sentence[at] for at, word in enumerate(words.words) if word.isalnum()), default=0)
    if words.within("options", last):
        return False
    if found.kind == "names":
        return True
    # '"A" or "B" is true. What is in each box?' tells a case before it asks.
    if found.kind == "quoted" and found.inline and not words.has("strong", "weak", "each", "these", "things"):
        tail = read_words(found.tail, language)
        return found.tail[:1] not in ".!?" or bool(_these(tail))
    # "What are the drawbacks of each? Use the minutes:" introduces minutes.
    paragraphs = found.lead.split("\n\n")
    if len(paragraphs) > 2 and not (_speaks_of_items(paragraphs[-1]) or _instructs(paragraphs[-1])):
        return False
    if set(words.within("includes", last)) and not words.within("each", last) and not words.within("these", last):
        return False
    if found.kind == "commas" and found.lead.endswith(("?", "？")):
        return bool(
            words.within("each", last) and words.within("things", last) + words.within("these", last) and not found.tail
        )
    # "For each review:" introduces steps where the lines below are the first commands.
    if (not words.has("strong", "weak") or len(found.lead) > 2 * _LEAD) and _are_commands(found.items, language):
        return False
    if (
        words.within("each", last)
        or words.within("things", last)
        or asks_property(words)
        or (found.tail and not found.lead)
    ):
        return True
    if found.kind == "commas" or len(found.lead) > 2 * _LEAD:
        return False
    return not _are_commands(found.items, language)


def _are_commands(items: Sequence[str], language: str) -> bool:
    """Whether most items are instructions themselves."""
    first = (read_words(item[:_LEAD], language) for item in items)
    return sum(any(0 in words.hits.get(name, ()) for name in ("strong", "weak")) for words in first) * 2 > len(items)


def _each(words: Words) -> bool:
    """Whether the instruction says "each" of the items, and not "a story with each"."""
    hits = [at for at in words.hits.get("each", ()) if not "".join(words.words[at + 1 : at + 2]).isdigit()]
    for at in hits:  # "every 25 years" is none
        sentence = words.sentence[at]
        if words.unspaced and words.within("using", sentence) and words.within("text", sentence):
            return False
        near = [
            place for name in ("using", "relative") for place in words.within(name, sentence) if at - 4 <= place < at
        ]
        near = [place for place in near if words.comma not in words.words[place:at]]
        if _in_one_text(words, at, near) or _in_text_before(words, sentence):
            return False
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
    return bool(hits)


def _in_one_text(words: Words, at: int, using: Sequence[int]) -> bool:
    """Whether "use each of these words in a story" or "a logo that contains each of these" is what "each" means."""
    sentence = words.sentence[at]
    ones, relatives = words.within("a", sentence), words.within("relative", sentence)
    if not words.within("sentence", sentence) and any(one < place < at for one in ones for place in relatives):
        return True
    if any(place < near <= place + 2 for near in using for place in words.within("relative", sentence)):
        return any(at - near <= 2 for near in using if near in words.hits.get("using", ()))
    first = next((place for place, number in enumerate(words.sentence) if number == sentence), 0)
    return any(first <= near <= first + 1 and at - near <= 2 for near in using) and any(
        place > at for place in words.within("text", sentence)
    )


def _in_text_before(words: Words, sentence: int) -> bool:
    """Whether a sentence says what each item gets in the text of a sentence before: "Write a speech. Mention each"."""
    first = next((place for place, number in enumerate(words.sentence) if number == sentence), 0)
    if not {first, first + 1} & set(words.hits.get("includes", ())):
        return False
    commands = words.hits.get("compose", ())
    eaches = [at for at in words.hits.get("each", ()) if words.sentence[at] < sentence]
    return not eaches and any(words.sentence[at] < sentence for at in commands)


def _acts_on_several(words: Words) -> bool | None:
    """Whether a command names several things to act on; False if it names nothing, None if it names one thing."""
    answer = None
    for at in words.hits.get("strong", ()):
        sentence = words.sentence[at]
        things = [place for place in words.within("things", sentence) if not words.is_length(place)]
        one = [place for place in words.within("one", sentence) if place != at]
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


def _of(found: ListInText, instruction: str, language: str) -> ItemList:
    points = []
    short = found.kind in ("commas", "names") or (found.kind == "quoted" and found.inline)
    for index, item in enumerate(found.items, 1):
        title = " ".join(item.split())
        mark = found.marks[index - 1] if found.marks else ""
        if short and len(title) <= SHORT and not title.endswith((".", "!", "?", "。", "！", "？")):
            mark = f"{title}:"
        points.append(Item(index, title, mark=mark, tight=not found.loose, ask=item))
    return ItemList(instruction, tuple(points), "list", language)
