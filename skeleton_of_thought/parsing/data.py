"""Titles in skeletons that a model writes as data: JSON, and the fields of YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from skeleton_of_thought.parsing.mark import Title
from skeleton_of_thought.parsing.marks import clean_title, read_mark

__all__ = [
    "PlanFields",
    "field_title",
    "json_start",
    "json_titles",
    "json_value",
    "plain_title",
    "plan_fields",
]

_JSON_LIMIT = 200_000
_TRIES = 8
"""The most places of a text that turn out to be no JSON."""

_DEEPEST = 5
_TITLE_KEYS = ("title", "point", "name", "heading", "topic", "header", "label", "section", "item", "text")
_LIST_KEYS = (
    *(
        "points",
        "skeleton",
        "outline",
        "sections",
        "items",
        "headings",
        "topics",
        "titles",
        "steps",
        "chapters",
        "parts",
    ),
    *("key_points", "main_points", "bullets", "list", "structure", "plan", "ideas", "answer", "result"),
)
_SCOPE_KEYS = ("scope", "covers", "note", "notes", "coverage", "focus", "description", "summary", "about")
_AFTER_KEYS = (
    *("after", "depends_on", "builds_on", "dependson", "buildson", "based_on", "dependencies", "depends", "requires"),
    *("needs", "parents", "prerequisites"),
)
_NUMBER_KEYS = ("number", "id", "index", "nr", "no", "order", "position", "step")
_LENGTH_KEYS = ("words", "word_count", "length")
_START = re.compile(r"(?:^|[:：=])\s*(?=[\[{])")
_BEGIN = re.compile(r"(?:^|(?<=\n))[^\S\n]*(?=[\[{])")
_COUNTED = re.compile(r"(?:\w+[ _-])?\d{1,3}")
_KEY = rf"(?:{'|'.join(_TITLE_KEYS)}|Title|Point|Heading)"
_FIELD = re.compile(rf"""(?:(["']?|\*\*|__){_KEY}\1\s*:|(\*\*|__){_KEY}:\2)\s+(?P<value>\S.*)""")
_ID = re.compile(r"""(["']?)(?:id|index|number|nr|no|order|position|step|level)\1\s*:\s*["']?\d{1,4}["']?\s*,?\s*""")


def plain_title(text: str) -> str:
    """A title that a model gave as data, without its marks and without a number that the model put before it."""
    mark = read_mark(text)
    numbered = mark if mark and mark.kind == "number" else None
    return clean_title(numbered.rest, numbered.opened) if numbered else clean_title(text)


def field_title(text: str, *, only_field: bool = True) -> str:
    """The title in `title: X`; other text as it is.

    Args:
        text: The text behind a list mark, or a line below it.
        only_field: False if a field such as `id: 1` may stand before the title: it gives "".
    """
    text = text.strip()
    if not only_field and _ID.fullmatch(text):
        return ""
    field = _FIELD.match(text)
    if not field:
        return text
    value = field["value"].strip()
    if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
        value = value[1:-1]
    return value


class PlanFields(NamedTuple):
    """What an item of a JSON list says of its point besides the title; None for what it does not say.

    Attributes:
        number: The point's own number; -1 without one.
        scope: What it covers.
        after: What it builds on, in any form.
        words: Its length in words.
    """

    number: int = -1
    scope: str | None = None
    after: Any = ()
    words: int | None = None


def plan_fields(item: Mapping[Any, Any]) -> PlanFields:
    """The fields of a plan in an item, by the names that models give them."""
    fields = {str(key).lower().replace(" ", "_").replace("-", "_"): value for key, value in item.items()}

    def first(names: tuple[str, ...], kind: type | tuple[type, ...]) -> Any:
        values = (fields[name] for name in names if name in fields)
        return next((value for value in values if isinstance(value, kind) and not isinstance(value, bool)), None)

    number, words, scope = first(_NUMBER_KEYS, (int, str)), first(_LENGTH_KEYS, (int, str)), first(_SCOPE_KEYS, str)
    after = first(_AFTER_KEYS, (int, str, list))
    return PlanFields(
        -1 if (n := _whole(number)) is None else n,
        clean_title(" ".join(scope.split())) if scope is not None else None,
        () if after is None else after,
        _whole(words) or None,
    )


_WHOLE = re.compile(r"\D{0,12}(\d{1,4})(?!\d)")


def _whole(value: int | str | None) -> int | None:
    if isinstance(value, str):
        found = _WHOLE.match(value)
        return int(found[1]) if found else None
    return value if value is not None and 0 <= value < 10_000 else None


def json_start(line: str) -> int | None:
    """Where a JSON value may begin in a line: at its start or behind a colon; None for nowhere."""
    found = _START.search(line)
    return found.end() if found else None


def json_value(text: str, *, cut: bool = False) -> Any:
    """The value of a JSON text; None for any other text, or one that is nested too deep. Takes linear time.

    Args:
        text: The text.
        cut: Whether it may be cut off: a value that lacks its end is closed, or else its last item is left out.
    """
    for form in (text, *_closed(text)) if cut else (text,):
        try:
            return json.loads(form)
        except (ValueError, RecursionError):  # a whole number of thousands of digits is a ValueError, too
            continue
    return None


_TOKEN = re.compile(r"""(?P<string>"(?:[^"\\]|\\.)*)(?P<end>"?)|[\[\]{},]""", re.DOTALL)
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")


def _closed(text: str) -> Iterator[str]:
    """A JSON text that was cut off, with its string and brackets closed; then the same without its last item."""
    closers: list[str] = []
    # The last place at which an item may be left out, and how many brackets are open there.
    safe = depth = 0
    is_open = False
    for found in _TOKEN.finditer(text):
        if found["string"]:
            is_open = not found["end"]
            continue
        sign = found[0]
        if sign in "[{":
            closers.append("]" if sign == "[" else "}")
        elif sign in "]}" and closers:
            closers.pop()
        safe, depth = found.end() - (sign == ","), len(closers)
    string = _HALF_ESCAPE.sub("", text) + '"' if is_open else text
    yield string + "".join(reversed(closers))
    yield text[:safe] + "".join(reversed(closers[:depth]))


def json_titles(source: str, *, bare: bool) -> list[Title]:
    """The titles in the first JSON list of strings or objects of a text, or in the first object with such a list.

    Args:
        source: The text.
        bare: Whether the text begins with the JSON value: behind prose, an object needs keys that name a list, and a
            single title is no list.
    """
    source = source[:_JSON_LIMIT]
    decoder = json.JSONDecoder()
    end = failures = 0
    objects: list[Any] = []
    for start in _BEGIN.finditer(source):
        if start.end() < end:
            continue
        try:
            data, end = decoder.raw_decode(source, start.end())
        except (ValueError, RecursionError):
            failures += 1
            if failures == _TRIES:
                break
            continue
        if isinstance(data, dict) and any(isinstance(data.get(key), str) for key in _TITLE_KEYS):
            objects.append(data)  # one of several, a line each, or the whole
            continue
        titles = _titles(_items(data, bare))
        if len(titles) > (0 if bare else 1):
            return titles
    return _titles(objects if len(objects) > 1 else _items(objects[0], bare) if objects else [])


def _titles(items: list[Any]) -> list[Title]:
    return [Title(title, item=item) for item in items if (title := plain_title(_item_text(item)))]


def _items(data: Any, bare: bool, depth: int = 0) -> list[Any]:
    """The items of the list of points in `data`."""
    if isinstance(data, list):
        return data
    if not isinstance(data, dict) or depth > _DEEPEST:
        return []
    known = [data[key] for key in data if str(key).lower().replace(" ", "_") in _LIST_KEYS]
    for value in known:
        if isinstance(value, (list, dict)) and (items := _items(value, True, depth + 1)):
            return items
    values = list(data.values())
    if not bare and not all(map(_COUNTED.fullmatch, map(str, data))):
        return []
    nested = [value for value in values if isinstance(value, (list, dict))]
    if len(nested) > 1 and len(nested) == len(values) and not all(map(_COUNTED.fullmatch, map(str, data))):
        return list(data)  # {"Apples": ["red"], "Bananas": ["yellow"]}
    if (nested and len(nested) < len(values)) or len(nested) == 1:
        return _items(nested[0], bare, depth + 1)
    return values


def _item_text(item: Any) -> str:
    """The title in an item: the text itself, the field that is named so, or else the first text."""
    for _ in range(_DEEPEST):
        if isinstance(item, dict):
            fields = {str(key).lower(): value for key, value in item.items()}
            values = [*(fields[key] for key in _TITLE_KEYS if key in fields), *fields.values()]
        elif isinstance(item, list):
            values = item
        else:
            break
        item = next((value for value in values if isinstance(value, str)), values[0] if values else "")
    return item if isinstance(item, str) else ""
