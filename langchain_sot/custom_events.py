"""LangChain's custom events for an answer in progress, on the run of the answer.

Callback handlers get them in `on_custom_event`, and `astream_events(version="v2")` yields them as `on_custom_event`,
whichever method runs the chain:

| name | data |
|---|---|
| `sot_route` | `use_skeleton`, `score` (None or 0 to 1), `reason`: what the router decided; `planning`, `items` |
| `sot_sources` | `index`, `title` of the point (None and "" for the question), `sources`: the documents retrieved |
| `sot_skeleton` | `titles`: the titles of all points; `plan`: `langchain_sot.results.PlannedAnswerDict.plan` |
| `sot_skeleton_restart` | `titles`: points that are the model's reasoning; all events about them are void |
| `sot_point_start` | `index` (from 1), `title`, `attempt` (from 1; a call may still wait for `max_concurrency`) |
| `sot_point_end` | `index`, `title`, `text`, `error` (None, or why the point failed for good) |
| `sot_overlap` | `index`, `title` of a point that is written anew, `other`, `share`, `passage`: what it repeats |
| `sot_role_start` | `role` ("opening" or "closing"), `attempt` |
| `sot_role_end` | `role`, `text` (empty where it failed), `error` |
| `sot_merge_start` | `attempt` |
| `sot_merge_end` | `text` (empty where the merge failed), `error` |

Events of a point whose plan says more than its title also have `scope`, `depends_on` and `wave` (from 1), and its end
has `missing` (the failed points that it builds on) and `rewritten`. These keys, `plan`, the router's advice on
`planning` and its number of `items`, where the question is answered item by item, are there only where they are set.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableConfig

from langchain_sot.results import plan_facts
from skeleton_of_thought.errors import error_text
from skeleton_of_thought.events import (
    Event,
    MergeDone,
    MergeStarted,
    OverlapFound,
    PointDone,
    PointStarted,
    RoleDone,
    RoleStarted,
    Routed,
    SkeletonDone,
    SkeletonRestarted,
    SourcesFound,
)

__all__ = ["CustomEventReporter", "custom_event"]


def custom_event(event: Event, waves: dict[int, int] | None = None) -> tuple[str, dict[str, Any]] | None:
    """The name and data of the custom event for an event of the core; None for an event without one.

    Args:
        event: The event.
        waves: The waves of the points so far, by index; see `langchain_sot.results.plan_facts`.
    """
    waves = {} if waves is None else waves
    match event:
        case Routed(decision):
            route = {"use_skeleton": decision.use_skeleton, "score": decision.score, "reason": decision.reason}
            more = {"planning": decision.planning, "items": len(decision.items) if decision.items else None}
            return "sot_route", {**route, **{name: value for name, value in more.items() if value}}
        case SourcesFound(point, sources):
            index, title = (None, "") if point is None else (point.index, point.title)
            return "sot_sources", {"index": index, "title": title, "sources": list(sources)}
        case SkeletonDone(skeleton):
            planned = any(point.scope or point.depends_on for point in skeleton.points)
            return "sot_skeleton", {"titles": list(skeleton.titles), **({"plan": skeleton.plan} if planned else {})}
        case SkeletonRestarted(skeleton):
            return "sot_skeleton_restart", {"titles": list(skeleton.titles)}
        case PointStarted(point, attempt):
            start = {"index": point.index, "title": point.title, "attempt": attempt}
            return "sot_point_start", {**start, **plan_facts(point, waves)}
        case PointDone(expansion):
            written: dict[str, Any] = {
                "index": expansion.point.index,
                "title": expansion.point.title,
                "text": expansion.text,
            }
            written |= {"error": expansion.error and error_text(expansion.error), **plan_facts(expansion.point, waves)}
            late: dict[str, Any] = {"missing": list(expansion.missing), "rewritten": expansion.rewritten}
            return "sot_point_end", {**written, **{name: value for name, value in late.items() if value}}
        case OverlapFound(point, other, share, passage):
            found = {"index": point.index, "title": point.title, "other": other.index}
            return "sot_overlap", {**found, "share": share, "passage": passage}
        case RoleStarted(role, attempt):
            return "sot_role_start", {"role": role, "attempt": attempt}
        case RoleDone(role, text, error):
            return "sot_role_end", {"role": role, "text": text, "error": error and error_text(error)}
        case MergeStarted(attempt):
            return "sot_merge_start", {"attempt": attempt}
        case MergeDone(text, error):
            return "sot_merge_end", {"text": text, "error": error and error_text(error)}
    return None


class CustomEventReporter:
    """Reports the events of one answer to the handlers of its run.

    Args:
        config: A config for children of the answer's run.
    """

    def __init__(self, config: RunnableConfig) -> None:
        self._config = config
        self._waves: dict[int, int] = {}

    def report(self, event: Event) -> None:
        """Reports an event, if there is a custom event for it."""
        if (named := custom_event(event, self._waves)) is not None:
            dispatch_custom_event(*named, config=self._config)

    async def areport(self, event: Event) -> None:
        """Async twin of `report`."""
        if (named := custom_event(event, self._waves)) is not None:
            await adispatch_custom_event(*named, config=self._config)
