"""What LangChain's custom events tell about an answer on its way: on the run of the answer, as things happen.

They come to callback handlers with `on_custom_event`, and to `astream_events(version="v2")` as `on_custom_event`,
however the chain is run:

| name | data |
|---|---|
| `sot_route` | `use_skeleton`, `score` (None or 0 to 1), `reason`: what the router decided |
| `sot_skeleton` | `titles`: the titles of all points |
| `sot_point_start` | `index` (from 1), `title`, `attempt` (from 1; a call may still wait for `max_concurrency`) |
| `sot_point_end` | `index`, `title`, `text`, `error` (None, or why the point failed for good) |
| `sot_merge_start` | `attempt` |
| `sot_merge_end` | `text` (empty where the merge failed), `error` |
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackManager, adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableConfig

from langchain_sot.results import error_text
from skeleton_of_thought.events import Event, MergeDone, MergeStarted, PointDone, PointStarted, Routed, SkeletonDone

__all__ = ["Announcer", "custom_event"]


def custom_event(event: Event) -> tuple[str, dict[str, Any]] | None:
    """The name and data of the custom event that tells this one; None for an event without one."""
    match event:
        case Routed(decision):
            told = {"use_skeleton": decision.use_skeleton, "score": decision.score, "reason": decision.reason}
            return "sot_route", told
        case SkeletonDone(skeleton):
            return "sot_skeleton", {"titles": list(skeleton.titles)}
        case PointStarted(point, attempt):
            return "sot_point_start", {"index": point.index, "title": point.title, "attempt": attempt}
        case PointDone(expansion):
            told = {"index": expansion.point.index, "title": expansion.point.title, "text": expansion.text}
            return "sot_point_end", {**told, "error": _why(expansion.error)}
        case MergeStarted(attempt):
            return "sot_merge_start", {"attempt": attempt}
        case MergeDone(text, error):
            return "sot_merge_end", {"text": text, "error": _why(error)}
    return None


def _why(error: Exception | None) -> str | None:
    return None if error is None else error_text(error)


class Announcer:
    """Tells the events of one answer to whoever listens to its run; does nothing where nobody does.

    Args:
        config: A config for children of the answer's run.
    """

    def __init__(self, config: RunnableConfig) -> None:
        manager = config.get("callbacks")
        handlers = manager.handlers if isinstance(manager, BaseCallbackManager) else []
        self._config = config if any(not handler.ignore_custom_event for handler in handlers) else None

    def tell(self, event: Event) -> None:
        """Tells an event, if it is one that is told."""
        if self._config is not None and (told := custom_event(event)) is not None:
            dispatch_custom_event(*told, config=self._config)

    async def atell(self, event: Event) -> None:
        """Async twin of `tell`."""
        if self._config is not None and (told := custom_event(event)) is not None:
            await adispatch_custom_event(*told, config=self._config)
