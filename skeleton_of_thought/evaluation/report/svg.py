"""Matplotlib's pictures as markup that can stand in a page: no styles, the page's colours, identifiers of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html import escape
from typing import Any
from xml.etree import ElementTree

__all__ = ["BASE", "COLOURS", "SALT", "inline"]

COLOURS = {
    "ink": "#010101",
    "soft": "#010102",
    "line": "#010103",
    "paper": "#010104",
    "wash": "#010105",
    **{f"way{number}": f"#0102{number:02x}" for number in range(8)},
}
"""What plots are drawn in: each stands for a variable of the page's style, which has a light and a dark value."""
BASE = "way0"
"""The colour of the way that the others are compared to."""
SALT = "skeleton-of-thought"

_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_LEFT_OUT = {f"{_SVG}metadata", f"{_SVG}style"}
_URL = re.compile(r"url\(#([^)]+)\)")
_SPACES = re.compile(r"\s+")


def inline(figure: Any, name: str, label: str) -> str:
    """The figure as an `<svg>` element for a page of HTML.

    Args:
        figure: A `matplotlib.figure.Figure`, drawn in `COLOURS`, under `svg.hashsalt`, with its text as text.
        name: The picture's name in the page, put before its identifiers.
        label: What it shows, for those who do not see it.
    """
    written = io.BytesIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    body = "".join(_markup(child, name) for child in root)
    return (
        f'<svg viewBox="{root.get("viewBox")}" role="img" aria-label="{escape(label)}" '
        f'stroke-linejoin="round" class="plot">{body}</svg>'
    )


def _markup(element: ElementTree.Element, name: str) -> str:
    if element.tag in _LEFT_OUT:
        return ""
    tag = element.tag.removeprefix(_SVG)
    attributes = dict(_attributes(element, name))
    if tag == "g":
        # Their identifiers name matplotlib's artists; nothing points to them.
        attributes.pop("id", None)
    inside = (element.text or "").strip() if tag != "text" else element.text or ""
    body = escape(inside, quote=False) + "".join(_markup(child, name) for child in element)
    told = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return f"<{tag}{told}>{body}</{tag}>"


def _attributes(element: ElementTree.Element, name: str) -> Iterator[tuple[str, str]]:
    for key, value in element.items():
        if key == "style":
            # A page's policy allows no styles in attributes; those of SVG are attributes of their own as well.
            yield from (_property(*each.split(":", 1)) for each in value.split(";") if ":" in each)
        elif key == "id":
            yield "id", f"{name}-{value}"
        elif key == _LINK:
            yield "href", f"#{name}-{value.removeprefix('#')}"
        else:
            yield key, _SPACES.sub(" ", _URL.sub(rf"url(#{name}-\1)", value)).strip()


def _property(key: str, value: str) -> tuple[str, str]:
    key, value = key.strip(), value.strip()
    # The page's own font: matplotlib's may not be there.
    return (key, "inherit") if key == "font-family" else (key, _VARIABLES.get(value, value))
