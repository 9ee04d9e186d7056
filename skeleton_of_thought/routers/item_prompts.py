"""Prompts that hold items, but ask for something else: those that frameworks write around a question or a document.

`find_items` reads one text as a question. In a framework's prompt, that text may be a retrieved page with exercises, a
query that the prompt wants to have rewritten, or a request under a system message that wants one JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from skeleton_of_thought.routers.item_words import Words, language_of, read_words
from skeleton_of_thought.routers.question import find_question
from skeleton_of_thought.routers.tasks import read_instructions
from skeleton_of_thought.types import Conversation, ItemList

__all__ = ["asks_otherwise"]

_STEPS = re.compile(r"^\W*(?:action|observation)(?: input)?[*_ ]*:", re.I | re.M)
"""A step of an agent that calls tools by text: its replies have a form of their own."""
_OPENS = "start|begin|open|end|finish|close|conclude|sign"
_FRAME = re.compile(
    rf"</?(?:answer|response|output|result|final|think(?:ing)?|scratchpad)\b|\bfinal answer\b|"
    rf"\b(?:{_OPENS})\b[^.!?\n]{{0,20}}\b(?:answer|response|reply|message)s?\b|\b(?:{_OPENS}) with\b|"
    rf"\balways (?:{_OPENS})\b|\bafter (?:the|your|each|every) (?:answer|response)",
    re.I,
)
"""What an answer has once, around its text: each item would have it."""
_LABEL = re.compile(r"(?:^|[\n.!?。！？])[^\w\n]*\w+(?:[ '’]\w+)?[*_ ]*[:：][\s\"'`*\[({<>]*\Z|\bTL;?DR\W*\Z")
"""The label of the text that is to be written, at the end of a prompt: "Title:"."""
_RULE = re.compile(
    r"^\s*(?:[-=_#~]{4,}|\"{3}|'{3}|</?\w[\w -]*>|\[(?:The )?(?:Start|End) .*\]|"
    r"#+ .*\b(?:query|question|response|answer)|here (?:is|are) .*\b(?:query|question|response|answer)\b.*[:：])\s*$",
    re.I | re.M,
)
"""A line that sets off a document, or an answer and its question."""
_LEADING = re.compile(
    r"\W*(?:(?P<text>[^.!?\n]{0,80}\b(?:prompt|query|question|request|instruction|answers)[:：])|"
    r"(?P<name>(?:\w+ ){0,2}\w+[*_ ]*[:：]))[*_]*[ \t]*\S",
    re.I,
)
"""The label before a request in its line: "Search query: ..."."""
_TASK = re.compile(
    r"(?:^|\n)\W*(?:\w+ )?(?:task|instructions?|aufgabe|anweisung|bitte|tâche|consigne|tarea|instrucciones|"
    r"compito|istruzioni|tarefa|instruções|taak|opdracht|задача|задание|任务|指令|要求|タスク|指示)[*_ ]*[:：]\Z",
    re.I,
)
"""The label of the request itself; another label presents a document, or a text to be worked on."""
_GREETING = 12
"""The most words before the request for several targets, if their text follows it: "Hi! My French is poor."."""
_ABOVE = re.compile(r"\babove|\boben|ci-dessus|\barriba|\bsopra|\bacima|\bhierboven|\bвыше|以上|上述|上記|上面", re.I)
"""Instructions after a text speak of it so."""
_MARKED = re.compile(r"(?:[-*•]|\d{1,3}[.)])\s")
"""A mark that was read as a word: the text has a list within another one."""
_STEM = 5
"""Letters of a command that tell it from others."""
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_ASSISTANT = re.compile(r"assist|助手|アシスタント")
_PERSON = re.compile(
    rf"(?:\w+ )?(?:{_ASSISTANT.pattern}|users?|nutzer|benutzer|(?:l')?utilisateur|usu[aá]rio|utente|gebruiker|"
    r"пользовател|用户|ユーザ)"
)
"""Words of the class "whole" that stand in most system messages."""
_WHOLE = re.compile(
    r"\b(?:the|this) (?:question|query|prompt|message|request|conversation|chat)\b|\bdie (?:frage|anfrage|nachricht)\b|"
    r"\bla (?:question|requête|pregunta|consulta|domanda)\b|\ba pergunta\b|\bde vraag\b",
    re.I,
)
"""The user's message as a whole, which a task is about."""
_FIRST, _DENSE = 3, 200
"""A command is within this many words of a sentence; in Chinese and Japanese, anywhere in so many characters."""


def asks_otherwise(conversation: Conversation, items: ItemList) -> bool:
    """Whether the conversation asks for something else than each of these items, which its question holds."""
    commands = _commands(items)
    for message in conversation.system:
        text = message.text
        if _STEPS.search(text) or _FRAME.search(text) or _wants_another_text(text, commands):
            return True
    if any(not item.mark and _MARKED.match(item.ask) for item in items.points):
        return True
    text = conversation.question.replace("\r\n", "\n").strip()
    before, after = _around(text, items, commands)
    if before and after and items.form == "targets" and before.count(" ") >= _GREETING:
        return True
    if items.form == "targets" and _ABOVE.search(after):
        return True
    if before.endswith((":", "：")) and not _TASK.search(before):
        return True
    if any(_FRAME.search(part) or _wants_another_text(part, commands) for part in (before, after) if part):
        return True
    if _LABEL.search(text):
        return True
    if "\n" not in text:
        return False
    if _RULE.search(text) or _STEPS.search(text):
        return True
    asked = find_question(text)
    # One of several questions is an item, or the text for several targets; another one stands inside a prompt.
    titles = tuple(item.title for item in items.points)
    return asked != text and items.form != "targets" and ("\n" in asked or not asked.endswith(titles))


def _wants_another_text(text: str, commands: frozenset[str]) -> bool:
    """Whether instructions want another text than an answer to each item."""
    signs = read_instructions(text).signs
    if not signs.isdisjoint(("format around", "short around")):
        return True
    words = read_words(text, language_of(text) or "en")
    whole = words.hits.get("whole", ())
    if "task" in signs:
        # A translator may be asked to translate, unless the translations are to become something else.
        others = any(not _ASSISTANT.match(_from(words, at)) for at in whole)
        others = others or _WHOLE.search(text) is not None
        return others or words.has("unless", "neighbour") or commands.isdisjoint(_stems(words.words))
    whole = [at for at in whole if not _PERSON.match(_from(words, at))]
    if words.unspaced:
        return bool(whole) and len(text) <= _DENSE
    return any(at < _FIRST or words.sentence[at - _FIRST] != words.sentence[at] for at in whole)


def _from(words: Words, at: int) -> str:
    """The words from a place on."""
    return ("" if words.unspaced else " ").join(words.words[at : at + 8])


def _commands(items: ItemList) -> frozenset[str]:
    """The commands of the question, in stems."""
    said = items.instruction if items.form != "targets" else items.points[0].ask
    words = read_words(said, items.language)
    return frozenset(_stems(words.words[at] for name in ("strong", "weak") for at in words.hits.get(name, ())))


def _stems(words: Iterable[str]) -> Iterator[str]:
    return (word[:_STEM] for word in words)


def _around(text: str, items: ItemList, commands: frozenset[str]) -> tuple[str, str]:
    """The lines before the request itself, with its label, and the last line after it."""
    if items.form == "targets":
        before, after = _split(text, items.instruction)
        asked = items.points[0].ask
        last = after.rpartition("\n")[2]
        after = last if after != last and ("\n\n" in after or _ABOVE.search(last)) else ""
    elif items.form == "different":
        sentences = _SENTENCE_END.split(text)
        found = [at for at, sentence in enumerate(sentences) if read_words(sentence, items.language).has("different")]
        first, end = (found[0], found[-1]) if found else (0, 0)
        asked = sentences[first]
        before, after = "\n".join(sentences[:first]), "\n".join(sentences[end + 1 :])
    else:
        before, _, asked = _shared(text, items.instruction).rpartition("\n")
        after = ""
    if (label := _LEADING.match(asked)) is not None:
        name = label["text"] or label["name"]
        if label["text"] or commands.isdisjoint(_stems(name.casefold().split())):
            before = f"{before}\n{name}"
    return before.strip(), after.strip()


def _shared(text: str, other: str) -> str:
    """What two texts begin with."""
    both = zip(text, other, strict=False)
    return text[: next((at for at, (one, two) in enumerate(both) if one != two), len(other))].strip()


def _split(text: str, context: str) -> tuple[str, str]:
    """The parts of a context that stand before and after what was taken out of its text."""
    if text.endswith(context):
        return "", context
    if text.startswith(context):
        return context, ""
    cuts = [match.start() for match in re.finditer("\n\n", context)]
    for cut in cuts:
        if text.startswith(context[:cut]) and text.endswith(context[cut + 2 :]):
            return context[:cut], context[cut + 2 :]
    return context, ""
