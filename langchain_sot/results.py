"""Where an answer leaves: the flow's events as dicts, and as chunks that add up to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from langchain_core.documents import Document
from langchain_core.runnables.utils import AddableDict
from typing_extensions import TypedDict

from skeleton_of_thought.errors import error_text
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    Event,
    MergeDone,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    RoleDone,
    Routed,
    SkeletonDone,
    SkeletonRestarted,
    SourcesFound,
)
from skeleton_of_thought.types import Answer, Expansion, Point, RouteDecision, Skeleton

__all__ = [
    "AnswerChunks",
    "AnswerDict",
    "Chunks",
    "PlannedAnswerDict",
    "PointChunks",
    "Restart",
    "RestartDict",
    "RestartList",
    "answer_dict",
    "end_dict",
    "errors_dict",
    "plan_facts",
    "points_dict",
    "sources_list",
]


class AnswerDict(TypedDict):
    """The chain's output.

    Attributes:
        question: The question's text.
        route: `"skeleton"`; `"items"` for a question that was answered item by item, whose items are then the points;
            or `"direct"` for an answer as the model gives it without a skeleton.
        reason: Why, in words: the router's reason, or the fault of the skeleton.
        skeleton: The titles of the points, which of an item are the item itself; empty for a direct answer.
        points: The text of each point by its number, "1", "2", ...
        answer: The whole answer.
        errors: Error messages by point number; the merge's error under "merge" (the answer is then the points as they
            are), those of the roles under "opening" and "closing". Empty without a failure.
        sources: The documents that the prompts show: those of the input's `context`, or all that were retrieved, each
            once, in the order of the points. Empty for a context that is text.
        point_sources: With retrieval per point: the documents for each point by its number, best first.
        finish_reason: Why the answer ended. With points: the worst end of any of them, or `"stop"`; of a direct answer:
            the model's own word, None if it gives none. See `skeleton_of_thought.Answer.finish_reason`.
        finish_reasons: Why the text of each point ended, by its number: `"stop"`, `"length"` for a text that a token
            limit cut, ...; None where the model does not say. See `skeleton_of_thought.Expansion.finish_reason`.
        usage: Tokens of all calls, those of failed attempts included: `input_tokens`, `output_tokens`, `total_tokens`,
            and `cached_tokens`, which the provider had cached of the input. Zeros where no model reports any.
        usage_by_stage: The same for each stage whose model reports it: "skeleton", "point", "merge", "direct", ...
        usage_by_point: The same for each point by its number.
        timings: The fields of `skeleton_of_thought.types.Timings`: `total` and `first_text` in seconds, a span for
            each of the `stages`, the engine's record of each stage for local models (`decoding`), and when each of the
            `points` was written. `skeleton_of_thought.Timeline.of(result)` makes a picture of it.
    """

    question: str
    route: Literal["skeleton", "direct", "items"]
    reason: str
    skeleton: list[str]
    points: dict[str, str]
    answer: str
    errors: dict[str, str]
    sources: list[Document]
    point_sources: dict[str, list[Document]]
    finish_reason: str | None
    finish_reasons: dict[str, str | None]
    usage: dict[str, int]
    usage_by_stage: dict[str, dict[str, int]]
    usage_by_point: dict[str, dict[str, int]]
    timings: dict[str, Any]


class PlannedAnswerDict(AnswerDict):
    """The output of a chain with `planning`, `opening` or `closing`.

    Attributes:
        planning: The kind of skeleton that was asked for: `"titles"`, `"scoped"` or `"graph"`.
        plan: The points as plain data: `index`, `title`, `scope`, `depends_on`, `words`, and the `wave` in which each
            is written, from 1. Empty for a direct answer.
        opening: The sentences before the points; empty where there are none.
        closing: The conclusion after them; empty where there is none.
    """

    planning: str
    plan: list[dict[str, Any]]
    opening: str
    closing: str


class Restart(str):
    """A chunk of text that replaces what came before it, where plain text is appended.

    A point whose call broke is written anew, and its streamed text is void. So is text that turns out to be a model's
    reasoning. LangChain only ever adds chunks, so the addition itself has to drop that text:

        >>> "half a sent" + Restart("") + "A whole sentence."
        'A whole sentence.'

    Code that shows `points` live can test for it with `isinstance(chunk, Restart)`. The `answer` is restarted only
    if `merge=True` and the merge breaks in the middle of its text (the joined points follow), if reasoning was shown,
    or with `opening="restart"`. JSON and pickle see a plain string.
    """

    __slots__ = ()

    def __add__(self, other: str) -> str:
        if isinstance(other, Restart):
            return other
        return Restart(str.__add__(self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        # Python calls this before the left operand's `__add__`, because this type is a subclass of `str`.
        return self if isinstance(other, str) else NotImplemented

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)


class RestartList(list[Any]):
    """A list that replaces the one it is added to, as `Restart` does: titles so far were part of the reasoning."""

    def __add__(self, other: Any) -> Any:
        if isinstance(other, RestartList):
            return other
        return RestartList([*self, *other]) if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return self if isinstance(other, list) else NotImplemented

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)


class RestartDict(AddableDict):
    """A dict that replaces the one it is added to, as `Restart` does: its points were part of the reasoning."""

    def __add__(self, other: Any) -> Any:
        return other if isinstance(other, RestartDict) else RestartDict(super().__add__(other))

    def __radd__(self, other: Any) -> Any:
        return self

    def __reduce__(self) -> tuple[type[AddableDict], tuple[dict[str, Any]]]:
        return AddableDict, (dict(self),)


def answer_dict(answer: Answer, *, planned: bool = False) -> dict[str, Any]:
    """An answer as the chain returns it.

    Args:
        answer: The answer.
        planned: Whether the output is a `PlannedAnswerDict`.
    """
    roles = {"opening": answer.opening, "closing": answer.closing}
    return {
        "question": answer.question,
        "route": answer.route,
        "reason": answer.reason,
        "skeleton": list(answer.skeleton.titles),
        "points": points_dict(answer),
        "answer": answer.text,
        "errors": errors_dict(answer),
        "sources": sources_list(answer),
        "point_sources": {str(e.point.index): list(e.sources) for e in answer.expansions if e.sources},
        **({"planning": answer.planning, "plan": answer.skeleton.plan, **roles} if planned else {}),
        **end_dict(answer),
    }


def end_dict(answer: Answer) -> dict[str, Any]:
    """What is known only at the end of an answer: why it ended, and what it took."""
    end: dict[str, Any] = {
        "finish_reason": answer.finish_reason,
        "finish_reasons": {},
        "usage": answer.usage.to_dict(),
        "usage_by_stage": {},
        "usage_by_point": {},
        "timings": answer.timings.to_dict(),
    }
    for stage, usage in answer.usage_by_stage.items():
        end["usage_by_stage"][stage] = usage.to_dict()
    for expansion in answer.expansions:
        number = str(expansion.point.index)
        end["finish_reasons"][number] = expansion.finish_reason
        end["usage_by_point"][number] = expansion.usage.to_dict()
    return end


def errors_dict(answer: Answer) -> dict[str, str]:
    """Error messages by point number; those of the merge and of the roles under their names."""
    errors = {str(index): error_text(error) for index, error in answer.errors.items()}
    if answer.merge_error is not None:
        errors["merge"] = error_text(answer.merge_error)
    for role, error in answer.role_errors.items():
        errors[role] = error_text(error)
    return errors


def sources_list(answer: Answer) -> list[Document]:
    """The documents of an answer, each once: those for the question, then those of its points."""
    groups = [sources for sources in (answer.sources, *(e.sources for e in answer.expansions)) if sources]
    if not groups:
        return []
    from langchain_sot.inputs import merged_documents

    return merged_documents(groups)


def points_dict(answer: Answer) -> dict[str, str]:
    """The text of each point by its number."""
    return {str(e.point.index): e.text for e in answer.expansions}


def plan_facts(point: Point, waves: dict[int, int]) -> dict[str, Any]:
    """What the plan says of a point besides its title: `scope`, `depends_on` and `wave`, each where it is set.

    Args:
        point: The point.
        waves: The waves of the points after the first wave, by index; gets that of this point.
    """
    facts: dict[str, Any] = {"scope": point.scope} if point.scope else {}
    waves.pop(point.index, None)  # of a point of a skeleton that is void
    if point.depends_on:
        waves[point.index] = 1 + max(waves.get(parent, 1) for parent in point.depends_on)
        facts |= {"depends_on": list(point.depends_on), "wave": waves[point.index]}
    return facts


class Chunks(Protocol):
    """Turns the events of one answer into chunks."""

    def chunk(self, event: Event) -> AddableDict | None:
        """The chunk for this event; None for an event without one.

        Raises:
            Exception: The event is the failure of the answer.
        """
        ...


class AnswerChunks:
    """Turns the events of one answer into chunks whose sum is `answer_dict` of it.

    Args:
        question: The question's text.
        sources: The documents of the input's context.
        planned: Whether they add up to a `PlannedAnswerDict`.
    """

    def __init__(self, question: str, sources: Sequence[Any] = (), *, planned: bool = False) -> None:
        self._question = question
        self._sources = list(sources)
        self._planned = planned
        self._has_point_sources = False
        self._begun = self._again = False
        self._decision: RouteDecision | None = None
        self._reason = ""

    def chunk(self, event: Event) -> AddableDict | None:
        """See `Chunks`."""
        match event:
            case PointDelta(point, text):
                return AddableDict(points=AddableDict({str(point.index): text}))
            case AnswerDelta(text):
                return AddableDict(answer=text) if self._begun else self._begin("direct", text=text)
            case Routed(decision):
                self._decision = decision
            case PointFound(point):
                return self._begin("skeleton", [point])
            case SkeletonDone(skeleton) if self._planned or not self._begun:
                return self._complete(skeleton)
            case SourcesFound(point, sources) if sources:
                return self._found(point, sources)
            case SkeletonRestarted():
                return self._begin_again()
            case PointRestarted(point, _):
                return AddableDict(points=AddableDict({str(point.index): Restart("")}))
            case AnswerRestarted():
                return AddableDict(answer=Restart(""))
            case PointDone(Expansion(point, error=Exception() as error)):
                return AddableDict(errors=AddableDict({str(point.index): error_text(error)}))
            case MergeDone(_, Exception() as error):
                return AddableDict(errors=AddableDict(merge=error_text(error)))
            case RoleDone(role, text, error):
                return AddableDict(
                    {role: text} if error is None else {"errors": AddableDict({role: error_text(error)})}
                )
            case AnswerDone(answer):
                end = AddableDict(end_dict(answer))
                if self._planned:
                    end["planning"] = answer.planning
                if self._has_point_sources:  # points find theirs in any order, and some of them find the same
                    end = AddableDict(sources=sources_list(answer)[len(self._sources) :]) + end
                chunk = end if self._begun else self._begin(answer.route) + end
                return chunk if self._reason else chunk + AddableDict(reason=answer.reason)
            case AnswerFailed(error):
                raise error
        return None

    def _found(self, point: Point | None, sources: Sequence[Any]) -> AddableDict | None:
        if point is not None:
            self._has_point_sources = True
            return AddableDict(point_sources=AddableDict({str(point.index): list(sources)}))
        from langchain_sot.inputs import merged_documents

        self._sources = merged_documents([sources])
        return AddableDict(sources=self._sources) if self._begun else None

    def _complete(self, skeleton: Skeleton) -> AddableDict | None:
        plan = AddableDict(plan=skeleton.plan) if self._planned else None
        if self._begun:
            return plan
        begun = self._begin("items", skeleton.points)  # nobody writes them, so none was found before
        return begun if plan is None else begun + plan

    def _begin(
        self, route: Literal["skeleton", "direct", "items"], found: Sequence[Point] = (), text: str = ""
    ) -> AddableDict:
        titles = [point.title for point in found]
        points = AddableDict({str(point.index): "" for point in found})
        if self._begun:
            return AddableDict(skeleton=titles, points=points)
        self._begun, self._reason = True, ""
        # A direct answer may have another reason than the router's, such as a skeleton without points. It comes last.
        if self._decision is not None and self._decision.use_skeleton == (route != "direct"):
            self._reason = self._decision.reason
        # All keys at once, so that the sum always has them in this order.
        return AddableDict(
            question="" if self._again else self._question,
            route=route,
            reason=self._reason,
            skeleton=titles,
            points=points,
            answer=text,
            errors=AddableDict(),
            sources=[] if self._again else self._sources,
            point_sources=AddableDict(),
            **(AddableDict(planning="", plan=[], opening="", closing="") if self._planned else {}),
            finish_reason=None,
            finish_reasons=AddableDict(),
            usage=AddableDict(),
            usage_by_stage=AddableDict(),
            usage_by_point=AddableDict(),
            timings=AddableDict(),
        )

    def _begin_again(self) -> AddableDict:
        self._begun, self._again = False, True
        return AddableDict(
            route=Restart(""),
            reason=Restart(""),
            skeleton=RestartList(),
            points=RestartDict(),
            answer=Restart(""),
            errors=RestartDict(),
            point_sources=RestartDict(),
            **({"plan": RestartList()} if self._planned else {}),
        )


class PointChunks:
    """Turns the events of one answer into chunks whose sum is `points_dict` of it."""

    def chunk(self, event: Event) -> AddableDict | None:
        """See `Chunks`."""
        match event:
            case PointDelta(point, text):
                return AddableDict({str(point.index): text})
            case SkeletonDone(skeleton):
                return AddableDict({str(point.index): "" for point in skeleton.points})
            case PointRestarted(point, _):
                return AddableDict({str(point.index): Restart("")})
            case AnswerFailed(error):
                raise error
        return None
