"""Requests for chat completions: what they ask for, and whether an answer by points suits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.serve.settings import RouterName

__all__ = ["ChatRequest", "SotOptions"]


@dataclass(frozen=True)
class SotOptions:
    """The field `sot` of a request.

    Attributes:
        router: Which questions get a skeleton; None for the model's own setting.
        settings: Fields of `Settings` that replace the model's own: `max_points`, `join`, `merge`, `eager`.
        show_skeleton: Whether the skeleton comes as `reasoning_content`.
        events: Whether chunks of a stream tell what happens, each under `sot`.
    """

    router: RouterName | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    show_skeleton: bool = False
    events: bool = False


@dataclass(frozen=True)
class ChatRequest:
    """A request of `POST /v1/chat/completions`.

    Attributes:
        body: All of its fields but `sot`, as the caller gave them.
        sot: Its field `sot`.
        headers: Its headers, with names in lower case.
    """

    body: Mapping[str, Any]
    sot: SotOptions = SotOptions()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model's name, as the caller gave it."""
        return str(self.body["model"])

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return bool(self.body.get("stream"))
