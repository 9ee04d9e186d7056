"""The ways to answer a question that `sot eval` compares; later ones join `WAYS` by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import as_router
from skeleton_of_thought.routers.base import AnyRouter
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["WAYS", "Way", "ways_of"]

_POINTS = {"merge": False}  # a merge is a way of its own, so the others leave the points as they are


def _no_router(settings: Settings) -> AnyRouter | None:
    return None


@dataclass(frozen=True)
class Way:
    """A way to answer a question.

    Attributes:
        name: Its name, as in `--ways`.
        description: What it does, for readers of a report.
        changes: The settings that it sets, by name; all others are the caller's.
        make_router: Makes its router from the settings; one router serves all its answers, since some learn.
    """

    name: str
    description: str
    changes: Mapping[str, Any] = field(default_factory=lambda: _POINTS, hash=False)
    make_router: Callable[[Settings], AnyRouter | None] = _no_router

    def settings(self, settings: Settings) -> Settings:
        """The settings of its answers."""
        return dataclasses.replace(settings, **self.changes) if self.changes else settings


class _Direct:
    """A router without skeletons. It needs no call, so that nothing but the model's own call takes time."""

    def at_once(self, conversation: Conversation) -> RouteDecision:
        """See `Router`."""
        return RouteDecision(False, reason="one ordinary call")

    route = at_once

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """See `Router`."""
        return self.at_once(conversation)


def _direct(settings: Settings) -> AnyRouter | None:
    return _Direct()


def _auto(settings: Settings) -> AnyRouter | None:
    return as_router("auto", guard=CostGuard(max_points=settings.max_points))


WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        Way("normal", "one ordinary call with the plain question", make_router=_direct),
        Way("sot", "always a skeleton, and its points side by side"),
        Way(
            "auto",
            "a skeleton, or a call for each item of a list, where that pays by the router; else one ordinary call",
            {},
            _auto,
        ),
        Way("merge", "always a skeleton; a last call makes one text of the points", {"merge": True}),
        Way("scoped", "always a skeleton that says what each point covers", {**_POINTS, "planning": "scoped"}),
        Way(
            "graph",
            "always a skeleton that also says what each point builds on, and a point sees these texts",
            {**_POINTS, "planning": "graph"},
        ),
        Way("eager", "always a skeleton, whose points start while it is still written", {**_POINTS, "eager": True}),
    )
}
"""The known ways by name."""


def ways_of(names: str) -> tuple[Way, ...]:
    """The ways that a text such as `"normal,sot"` names, in its order.

    Raises:
        InvalidInput: A name is unknown, or is there twice, or there is none.
    """
    found = [name for each in names.split(",") if (name := each.strip())]
    known = ", ".join(WAYS)
    if not found:
        raise InvalidInput(f"There is no way to answer: name one or more of {known}.")
    for name in found:
        if name not in WAYS:
            raise InvalidInput(f"There is no way {name!r}; the known ones are {known}.")
        if found.count(name) > 1:
            raise InvalidInput(f"The way {name!r} is named twice.")
    return tuple(WAYS[name] for name in found)
