"""A terminal made by rich, and a live view on it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from skeleton_of_thought._cli.live_view import LiveView


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def live_view(
    question: str, width: int, height: int, encoding: str = "utf-8"
) -> tuple[LiveView, Callable[[], list[str]], Any]:
    """A view, a function that renders it to lines, and its console."""
    from rich.console import Console

    class File(Terminal):
        pass

    File.encoding = encoding  # type: ignore[assignment]
    console = Console(file=File(), width=width, height=height, force_terminal=True, color_system=None)
    view = LiveView(question, console)

    def lines() -> list[str]:
        rendered = console.render_lines(view, console.options, pad=False)
        return ["".join(segment.text for segment in line) for line in rendered]

    return view, lines, console
