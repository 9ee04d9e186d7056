"""What the model is asked: the prompts for skeleton, points and route, and the loading of prompt files.

Every point's prompt has the same order: the caller's system message and history, the question, the
skeleton, and only at the very end what is particular to the point. So the prompts of one answer share
the longest possible prefix, which providers and servers cache and the local engine computes once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.types import Conversation, Message, Point, Prompt, Skeleton

__all__ = ["PLACEHOLDERS", "PromptSet", "PromptTemplate", "Template", "how_many"]

_ROLE_SWITCH = "[ROLESWITCHING assistant:]"
"""How the paper's prompt files mark the place where the assistant's turn begins."""

_ALIASES = {"request": "question", "outline": "skeleton", "point": "index", "point_outline": "title"}
"""The placeholders of the paper's prompt files, and ours for the same thing."""

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "skeleton": frozenset({"question", "max_points", "how_many", "words"}),
    "point": frozenset(
        {"question", "skeleton", "titles", "count", "index", "title", "max_points", "how_many", "words"}
    ),
}
"""What the prompts of a stage may mention."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

_START_WITH = "\n\nBegin your answer with: {prefill}"


@runtime_checkable
class Template(Protocol):
    """Anything that turns a conversation and the values of a stage into a prompt.

    Adapters implement it over their framework's own template objects.
    """

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call.

        Args:
            conversation: The caller's messages; all but the last are kept as they are.
            values: The values of the stage's `PLACEHOLDERS`.
            prefill: Whether the backend continues the start of an assistant's turn.
        """
        ...


@dataclass(frozen=True)
class PromptTemplate:
    """A user turn with `{placeholders}`, and the start of the assistant's turn.

    Placeholders: `{question}`, `{max_points}`, `{how_many}` ("3 to 10") and `{words}`; for points also
    `{skeleton}` (the numbered list), `{titles}` (the same in one line), `{count}` (the number of points),
    `{index}` and `{title}`. Any other braces stay as they are, and braces in the values are never looked at.

    Attributes:
        text: The user's turn.
        prefill: The start of the assistant's turn, for backends that continue it.
        instead: What is added to `text` for backends that do not; None for a plain
            "begin your answer with".
        stop: Strings that end the completion where the backend takes them.
        max_tokens: The longest completion that makes sense; None for no limit of ours.
        tokens_per: Such a limit as so many tokens per unit of a value, for example `("words", 3)`.
        frequency_penalty: What keeps a small model from looping, where the backend takes it.
    """

    text: str
    prefill: str = ""
    instead: str | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    tokens_per: tuple[str, int] | None = None
    frequency_penalty: float = 0.0

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """See `Template.render`."""
        text, start = self.text, ""
        if self.prefill and prefill:
            start = _fill(self.prefill, values)
        elif self.instead is not None:
            text += self.instead
        elif self.prefill:
            text += _START_WITH.replace("{prefill}", self.prefill.strip())
        return Prompt(
            messages=(*conversation.history, _user(_fill(text, values), conversation)),
            prefill=start,
            stop=self.stop,
            max_tokens=self._limit(values),
            frequency_penalty=self.frequency_penalty,
        )

    def _limit(self, values: Mapping[str, str]) -> int | None:
        if self.max_tokens is not None or self.tokens_per is None:
            return self.max_tokens
        name, tokens = self.tokens_per
        return int(values[name]) * tokens


def how_many(max_points: int) -> str:
    """The number of points that a skeleton is asked for, in words."""
    return f"3 to {max_points}" if max_points > 3 else f"at most {max_points}"


def _fill(text: str, values: Mapping[str, str]) -> str:
    # One pass over the template alone: what a value holds, braces included, is never read as a template.
    return _PLACEHOLDER.sub(lambda m: values.get(_ALIASES.get(m[1], m[1]), m[0]), text)


def _user(text: str, conversation: Conversation) -> Message:
    attachments = conversation.attachments
    return Message("user", ({"type": "text", "text": text}, *attachments) if attachments else text)


def _placeholders(template: PromptTemplate) -> set[str]:
    names = _PLACEHOLDER.findall(template.text + template.prefill + (template.instead or ""))
    return {_ALIASES.get(name, name) for name in names}


_SKELETON = PromptTemplate(
    text=(
        "{question}\n\n"
        "Do not answer yet. First give the main points of the answer as a list of {how_many} short headings "
        "(2 to 5 words each), all different."
    ),
    prefill="Headings:\n\n1.",
    instead=" Number them, and write nothing but the list.",
    stop=("\n\n",),
    # A heading takes about half of that; a model that writes something else is stopped here.
    tokens_per=("max_points", 12),
    # Without it small models repeat a heading until they are stopped.
    frequency_penalty=0.6,
)

_POINT = PromptTemplate(
    text=(
        "{question}\n\n"
        "The answer covers these points, each written by itself: {titles}.\n\n"
        "Write one or two sentences, at most {words} words, about this point only: {title}"
    ),
    prefill="{title}:",
    instead="\n\nBegin with the text itself, without number or heading.",
    stop=("\n",),
    tokens_per=("words", 3),
    frequency_penalty=0.3,
)


@dataclass(frozen=True)
class PromptSet:
    """The prompts of Skeleton-of-Thought; the defaults are the project's own.

    Example:
        >>> from skeleton_of_thought import PromptSet
        >>> prompts = PromptSet(point="Q: {question}\\n{skeleton}\\nWrite point {index}, {title}.")

    Attributes:
        skeleton: Asks for the skeleton; a `Template`, or a string with `{question}`.
        point: Asks for one point; a `Template`, or a string with `{question}` and `{index}` or `{title}`.
        route: Asks whether the question suits a skeleton; used by routers that ask a model.

    Raises:
        PromptFileError: A template lacks a placeholder without which it cannot work.
    """

    skeleton: Template | str = field(default=_SKELETON)
    point: Template | str = field(default=_POINT)
    route: Template | str | None = None

    def __post_init__(self) -> None:
        for name, needed in (
            ("skeleton", ["question"]),
            ("point", ["index", "title"]),
            ("route", ["question"]),
        ):
            template = getattr(self, name)
            if isinstance(template, str):
                template = PromptTemplate(template)
                object.__setattr__(self, name, template)
            if isinstance(template, PromptTemplate) and not _placeholders(template) & set(needed):
                wanted = " or ".join(f"{{{n}}}" for n in needed)
                raise PromptFileError(
                    f"The {name} prompt never mentions {wanted}, so the model would not know what to write: "
                    f"{template.text[:60]!r}. Put {wanted} into it."
                )

    @classmethod
    def from_json(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        route: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    ) -> PromptSet:
        """The prompts of a file in the JSON format that the paper's authors published.

        Keys are `outline_prompt` and `point_prompt`; text after the marker `[ROLESWITCHING assistant:]`
        becomes the prefill. Placeholders `{request}`, `{outline}`, `{point}` and `{point_outline}` are
        understood. A router's file has the one key `prompt`.

        Args:
            source: A path, or the file's content as a mapping.
            route: The same for the router's prompt.

        Raises:
            PromptFileError: The file cannot be read, is not JSON, or lacks a key or placeholder.
        """
        data = _load(source)
        parts: dict[str, Template | str] = {}
        for name, key in (("skeleton", "outline_prompt"), ("point", "point_prompt")):
            parts[name] = _switched(data, key, source)
        if route is not None:
            parts["route"] = _switched(_load(route), "prompt", route)
        return cls(**parts)

    def skeleton_prompt(self, conversation: Conversation, *, max_points: int, words: int, prefill: bool) -> Prompt:
        """The prompt that asks for the skeleton."""
        assert isinstance(self.skeleton, Template)
        values = {
            "question": conversation.question,
            "max_points": str(max_points),
            "how_many": how_many(max_points),
            "words": str(words),
        }
        return self.skeleton.render(conversation, values, prefill=prefill)

    def point_prompt(
        self,
        conversation: Conversation,
        skeleton: Skeleton,
        point: Point,
        *,
        max_points: int,
        words: int,
        prefill: bool,
    ) -> Prompt:
        """The prompt that asks for one point. `skeleton` holds the points that are known by now."""
        assert isinstance(self.point, Template)
        values = {
            "question": conversation.question,
            "skeleton": str(skeleton),
            "titles": "; ".join(skeleton.titles),
            "count": str(len(skeleton)),
            "index": str(point.index),
            "title": point.title,
            "max_points": str(max_points),
            "how_many": how_many(max_points),
            "words": str(words),
        }
        return self.point.render(conversation, values, prefill=prefill)


def _load(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    try:
        data = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} holds no JSON object.")
    return data


def _switched(data: Mapping[str, Any], key: str, source: object) -> PromptTemplate:
    text = data.get(key)
    if not isinstance(text, str) or not text.strip():
        name = "" if isinstance(source, Mapping) else f" of {source}"
        hint = " (a router's prompt goes into `route=`)" if "prompt" in data and key != "prompt" else ""
        raise PromptFileError(
            f"The prompts{name} have no text under {key!r}; found keys: {sorted(map(str, data))}{hint}."
        )
    user, mark, assistant = text.partition(_ROLE_SWITCH)
    return PromptTemplate(user.rstrip() if mark else user, prefill=assistant.strip())
