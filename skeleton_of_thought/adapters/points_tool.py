"""The tool with which a model that calls tools gives the points of its final answer, for any framework's agents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.data import json_value, plain_title, plan_fields
from skeleton_of_thought.types import Point, Skeleton

__all__ = ["DESCRIPTION", "NOTE", "PARAMETERS", "POINTS", "TITLE", "TOOL_NAME", "alone", "result_text", "skeleton_of"]

TOOL_NAME = "answer_in_points"

DESCRIPTION = (
    "Gives the final answer to the user as a list of points, which are then written for you and shown to the user. "
    "Call it in place of writing the answer, if the answer is long and has several parts that can each be written "
    "without the others: advice, options, aspects, an overview. Call it when you have all the information that the "
    "answer needs: get the results of other tools first. It must be the only call of your turn, and the answer ends "
    "your work. Write the answer yourself, without this tool, if it is short, a single fact, a calculation, code, a "
    "question to the user, or a text whose parts build on each other."
)
"""Tells the model when to call the tool."""

POINTS = "The points of the answer, in the order in which the user reads them. At least two."
TITLE = "The heading of the point, in the language of the user, without a number."
NOTE = "What the point covers, and what it leaves to other points, in at most 20 words. With the facts that it needs."
"""The descriptions of the tool's arguments."""

PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "points": {
            "type": "array",
            "description": POINTS,
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "description": TITLE},
                    "note": {"type": "string", "description": NOTE},
                },
                "required": ["title"],
            },
        }
    },
    "required": ["points"],
}
"""The tool's arguments as a JSON schema."""

_LEAST = 2
_FORM = '{"points": [{"title": "...", "note": "..."}, {"title": "..."}]}'


def skeleton_of(arguments: Any, *, min_points: int = _LEAST, max_points: int | None = None) -> Skeleton:
    """The skeleton in the arguments of a call.

    Points may also be strings, and the list a string of JSON, as some models send them. Numbers before titles and
    repeated titles are left out.

    Args:
        arguments: What the model sent: a mapping, or the JSON text of one.
        min_points: The fewest points; two at least.
        max_points: The most points, as in `Settings`: later ones are left out. None for no limit.

    Raises:
        InvalidInput: The arguments cannot be read, or have too few points. The text tells the model what to do.
    """
    given = json_value(arguments) if isinstance(arguments, str) else arguments
    items = given.get("points") if isinstance(given, Mapping) else given
    if isinstance(items, str):
        items = json_value(items)
    if not isinstance(items, list | tuple):
        raise InvalidInput(f"The call of {TOOL_NAME} has no list of points. Call it again with {_FORM}.")
    points: list[Point] = []
    titles: set[str] = set()
    for place, item in enumerate(items, 1):
        title, note = _read(item)
        if not title:
            raise InvalidInput(f"Point {place} in the call of {TOOL_NAME} has no title. Call it again with {_FORM}.")
        if title.casefold() not in titles:
            titles.add(title.casefold())
            points.append(Point(len(points) + 1, title, scope=note))
    least = max(_LEAST, min_points)
    if len(points) < least:
        raise InvalidInput(
            f"{TOOL_NAME} needs at least {least} points with different titles, and the call has {len(points)}. Call "
            "it again with more points, or write the answer yourself, without this tool."
        )
    return Skeleton(tuple(points[:max_points]))


def alone(count: int) -> str:
    """What the model is told of its call in a turn with other calls.

    Args:
        count: How many calls of this tool the turn has.
    """
    if count > 1:
        return (
            f"Nothing was written, because {TOOL_NAME} was called {count} times in one turn. Call it once, with all "
            "points of the answer."
        )
    return (
        f"Nothing was written, because {TOOL_NAME} must be the only call of a turn. Read the results of the other "
        "calls first; then call it again, if the answer is long."
    )


def result_text(name: str | None, arguments: Any, text: str | None, *, failed: bool = False) -> str:
    """A call of a tool and its result as text, for the prompts of the points, in which there are no tools.

    Args:
        name: The tool; None if it is unknown.
        arguments: Its arguments, or their text; None if they are unknown.
        text: The result, or the error; None for a call without a result.
        failed: Whether the text is an error.
    """
    given = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    call = name or "a tool" if arguments is None else f"{name or 'a tool'}({given})"
    if text is None:
        return f"A call of {call} has no result."
    return f"{'The error' if failed else 'The result'} of {call}:\n{text}"


def _read(item: Any) -> tuple[str, str]:
    """The title and the note of a point; "" for what it does not have."""
    if isinstance(item, str):
        return plain_title(item), ""
    if not isinstance(item, Mapping):
        return "", ""
    title = item.get("title")
    return plain_title(title) if isinstance(title, str) else "", plan_fields(item).scope or ""
