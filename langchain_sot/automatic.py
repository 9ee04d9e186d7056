"""`router="auto"` for a chain and its copies."""

from __future__ import annotations

import threading
from typing import Any

from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.cost import CostGuard

__all__ = ["AutoRouters"]

_KEPT = 8


class AutoRouters:
    """The automatic routers of a chain and its copies: one for each pair of models, for each learns how fast they are.

    Copies of a chain with other models, such as an agent's middleware makes for each request, share what was learnt of
    the same ones. It is nothing of the chain's value: all are equal, and copies and pickles of it begin anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[tuple[Any, Any, int], AutoRouter]] = []

    def get(self, llm: Any, point_llm: Any, max_points: int) -> AutoRouter:
        """The one for these models and this many points at most."""
        with self._lock:
            for (one, other, most), router in self._known:
                if one is llm and other is point_llm and most == max_points:
                    return router
            router = AutoRouter(guard=CostGuard(max_points=max_points))
            # Held with the models: an identity is one only while its object lives.
            self._known = [((llm, point_llm, max_points), router), *self._known[: _KEPT - 1]]
            return router

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutoRouters)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[AutoRouters], tuple[()]]:
        return AutoRouters, ()
