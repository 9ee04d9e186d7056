"""A LangChain handler that keeps the custom events of a run."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler


class Heard(BaseCallbackHandler):
    """The custom events of a run, in order."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append((name, data))

    def of(self, name: str) -> list[Any]:
        return [data for own, data in self.events if own == name]
