"""The settings of an answer, and arguments by position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from numbers import Integral, Real
from typing import Any, Literal, cast

from skeleton_of_thought.errors import InvalidInput

__all__ = ["Settings", "first_by_position", "is_whole"]


@dataclass(frozen=True)
class Settings:
    """The settings of an answer.

    Attributes:
        max_points: The most points that are expanded; a longer skeleton is cut and its call cancelled.
        min_points: A skeleton with fewer points is unusable.
        eager: Start a point (with retrieval per point, its retrieval) as soon as its line of the skeleton is complete.
            Its prompt then shows the points up to its own only, unless the skeleton is complete by then. `"auto"`:
            in live streams, whose first text comes sooner, and for all points that are calls to a server
            (docs/planning.md has the figures).
        planning: What the skeleton says of its points. `"titles"`: their titles. `"scoped"`: also what each covers
            (`Point.scope`). `"graph"`: also which points each builds on (`Point.depends_on`): these are written first,
            and it sees their texts. `"auto"`: titles, or a graph where the router asks for one.
        items: `"auto"`: a question that asks the same of several items, each for itself ("Translate these sentences"),
            is answered item by item, with a call for each, where the router finds that it is one (docs/items.md). No
            skeleton is written then, and what is said here of `max_points`, planning, roles, overlap and merges does
            not apply. `"off"`: never.
        max_depth: The most waves of points that wait for each other. A point that would be in a later wave loses the
            points that it builds on in the last one.
        max_parents: The most points that one point builds on; the first that it names.
        on_parent_error: For a point that builds on one that failed for good, with `on_point_error="placeholder"`:
            `"write"` writes it without that text (`Expansion.missing` names the points); `"fail"` makes it fail with
            `ParentError`.
        opening: Have one or two sentences written that lead into the answer, from the texts of the points. Nothing of
            the answer is released before them; with `"restart"` the points are, and `AnswerRestarted` follows.
        closing: Have a conclusion written from the texts of the points. Neither is asked for with fewer than two
            written points, and neither ever loses the answer: `Answer.role_errors` says why one is missing.
        rewrite_overlap: Compare the texts of points by their word trigrams, and have the later of two that share more
            than `max_overlap` written anew, once, with the passage named. A point is released when it is compared.
        max_overlap: The share of a point's trigrams that may stand in another point.
        on_empty_skeleton: `"direct"` falls back to a direct answer if the skeleton is unusable; `"raise"` raises
            `SkeletonError`.
        on_point_error: For a point that failed for good (its call raised, or its reply was blocked, refused or without
            text), or whose retrieval did: `"raise"` raises `PointError` and
            cancels the others; `"placeholder"` keeps its place with `placeholder` while the others go on.
        placeholder: The text in place of the missing text of a failed point.
        max_retries: How often a failed point is written again. A skeleton is too, while no line of it is complete. A
            retrieval is retried as often by itself: a point that is written again keeps its sources. A call that a
            server refuses because of its rate limit waits first (`skeleton_of_thought.budget`), which is no retry; in a
            lone answer with 0 it fails at once.
        backoff: Seconds before the first retry; doubled for each further one.
        point_timeout: Seconds that one attempt at a point may take, and separately one attempt at the retrieval for
            it; None for no limit. The skeleton and a retrieval for the question as a whole have no limit.
        point_words: The length hint per point, in words.
        join: How the points stand in the answer: `"numbered"`, each with its number and title before its text, which
            follows after a blank line if it begins with a list, a code fence, a table or another block of Markdown;
            `"headings"`, the titles as Markdown headings; `"paragraphs"`, the texts alone.
        merge: Once all points are done, make one text of them by one more call: transitions smoothed, repetition
            removed. The answer is that text, and streams while it is written. If the call fails, or its text is empty
            or cut, the answer is the joined points (`Answer.merge_error` says why). Failed points follow the merged
            text as they are; with fewer than two others nothing is merged. A merge that repeats its own instruction
            counts as failed, and so does one that loops, with `stop_loops`.
        max_skeleton_chars: The most characters of a model's reply with a skeleton; None for no limit. All of it counts,
            reasoning included. There the call is cancelled and its text cut, with a line in the log. The points up to
            there count; fewer than `min_points` are an unusable skeleton.
        max_point_chars: The same of a reply with a point. The point keeps the text up to there, and its `finish_reason`
            is `"max_chars"`; without any text besides reasoning it has failed.
        max_answer_chars: The same of a direct answer, which ends there with `"max_chars"`, and of a merge, which then
            counts as failed.
        stop_loops: Cancel a call whose text repeats the same passage again and again, as small models do; the text ends
            after the second time (`skeleton_of_thought.text.loops`). The `finish_reason` of the answer (of a point: of
            its `Expansion`) is then `"loop"`. False keeps the model's text as it is.

    Raises:
        InvalidInput: A value is out of range, or none of its choices.
    """

    max_points: int = 10
    min_points: int = 1
    eager: bool | Literal["auto"] = False
    planning: Literal["titles", "scoped", "graph", "auto"] = "titles"
    items: Literal["auto", "off"] = "auto"
    max_depth: int = 2
    max_parents: int = 8
    on_parent_error: Literal["write", "fail"] = "write"
    opening: bool | Literal["restart"] = False
    closing: bool = False
    rewrite_overlap: bool = False
    max_overlap: float = 0.3
    on_empty_skeleton: Literal["direct", "raise"] = "direct"
    on_point_error: Literal["raise", "placeholder"] = "raise"
    placeholder: str = "(This point could not be completed.)"
    max_retries: int = 1
    backoff: float = 0.5
    point_timeout: float | None = None
    point_words: int = 40
    join: Literal["numbered", "headings", "paragraphs"] = "numbered"
    merge: bool = False
    max_skeleton_chars: int | None = 200_000
    max_point_chars: int | None = 200_000
    max_answer_chars: int | None = 1_000_000
    stop_loops: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            *(("max_points", 1), ("min_points", 1), ("max_retries", 0), ("point_words", 1)),
            *(("max_depth", 1), ("max_parents", 1)),
        ):
            value = getattr(self, name)
            if not is_whole(value, least):
                raise InvalidInput(f"{name} must be a whole number of at least {least}, not {value!r:.80}.")
            object.__setattr__(self, name, int(value))
        for name in ("max_skeleton_chars", "max_point_chars", "max_answer_chars"):
            if (most := getattr(self, name)) is not None:
                if not is_whole(most, 1):
                    raise InvalidInput(
                        f"{name} must be a whole number of at least 1, or None for no limit, not {most!r:.80}."
                    )
                object.__setattr__(self, name, int(most))
        if self.min_points > self.max_points:
            raise InvalidInput(
                f"min_points ({self.min_points}) is larger than max_points ({self.max_points}): no skeleton "
                "could be used. Lower min_points or raise max_points."
            )
        if not (_is_number(self.backoff) and self.backoff >= 0):
            raise InvalidInput(f"backoff must be 0 or more seconds, not {self.backoff!r:.80}.")
        if self.point_timeout is not None and not (_is_number(self.point_timeout) and self.point_timeout > 0):
            raise InvalidInput(
                f"point_timeout must be more than 0 seconds, or None for no limit, not {self.point_timeout!r:.80}."
            )
        if not (_is_number(self.max_overlap) and 0 < self.max_overlap <= 1):
            raise InvalidInput(f"max_overlap must be above 0 and at most 1, not {self.max_overlap!r:.80}.")
        object.__setattr__(self, "max_overlap", float(self.max_overlap))
        for name in ("backoff", "point_timeout"):
            if (seconds := getattr(self, name)) is not None and not isinstance(seconds, int):
                object.__setattr__(self, name, float(seconds))
        for name, choices in (
            ("on_empty_skeleton", ("direct", "raise")),
            ("on_point_error", ("raise", "placeholder")),
            ("join", ("numbered", "headings", "paragraphs")),
            ("eager", (False, True, "auto")),
            ("planning", ("titles", "scoped", "graph", "auto")),
            ("items", ("auto", "off")),
            ("on_parent_error", ("write", "fail")),
            ("opening", (False, True, "restart")),
            *((name, (False, True)) for name in ("closing", "rewrite_overlap", "merge", "stop_loops")),
        ):
            if getattr(self, name) not in choices:
                raise InvalidInput(
                    f"{name} must be {' or '.join(map(repr, choices))}, not {getattr(self, name)!r:.80}."
                )


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, numpy's included, of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def first_by_position(
    name: str, annotation: Any = Parameter.empty, default: Any = Parameter.empty
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates an `__init__` that takes all arguments by name, so that the first one may also come by position.

    Hide the `__init__` from type checkers (`if not TYPE_CHECKING:`): they make their own from the fields of a pydantic
    model, which finds misspelt names and wrong types. There `Field(kw_only=False)` allows an argument by position.

    Args:
        name: The argument's name.
        annotation: Its type, for the signature.
        default: Its default in the signature, if it has one.

    Raises:
        TypeError: When called: more than one by position, or the first one twice.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        @wraps(init)
        def decorated(self: object, /, *given: Any, **named: Any) -> None:
            init(self, **_by_name(type(self).__name__, name, given, named))

        first = Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)
        own, *more = signature(init).parameters.values()
        cast(Any, decorated).__signature__ = Signature([own, first, *more])
        return decorated

    return decorate


def _by_name(called: str, name: str, given: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    if not given:
        return named
    if len(given) > 1:
        raise TypeError(
            f"{called} takes {name} by position and all else by name: {called}({name}, option=value). "
            f"{len(given)} were given by position."
        )
    if name in named:
        raise TypeError(f"{called} was given {name} twice, by position and by name: leave out one.")
    return {name: given[0], **named}
