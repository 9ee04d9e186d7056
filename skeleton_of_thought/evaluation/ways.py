"""The ways to answer a question that `sot eval` compares; later ones join `WAYS` by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import as_router
from skeleton_of_thought.routers.base import AnyRouter
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["WAYS", "Way", "ways_of"]


def _no_router(settings: Settings) -> AnyRouter | None:
    return None


@dataclass(frozen=True)
class Way:
    """A way to answer a question.

    Attributes:
        name: Its name, as in `--ways`.
        description: What it does, for readers of a report.
        merge: The setting of this name that it sets; None for the caller's.
        make_router: Makes its router from the settings; one router serves all its answers, since some learn.
    """

    name: str
    description: str
    merge: bool | None = False
    make_router: Callable[[Settings], AnyRouter | None] = _no_router

    def settings(self, settings: Settings) -> Settings:
        """The settings of its answers."""
        return settings if self.merge is None else dataclasses.replace(settings, merge=self.merge)


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
        Way("auto", "a skeleton where the router finds that it pays, else one ordinary call", None, _auto),
        Way("merge", "always a skeleton; a last call makes one text of the points", merge=True),
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
