"""Pages that are one file: their data and their policy stand in them, and they load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from skeleton_of_thought.evaluation.manifest import write_atomically

__all__ = ["as_json", "as_text", "filled", "json_block", "write_text"]

_PLACE = re.compile(r"<!--([a-z_]+)-->")
_CODE = re.compile(r"<(script|style)>(.*?)</\1>", re.S)
"""Scripts and styles of a page; a block of data has a type, and is no script."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def as_json(data: Any, *, indent: int | None = None) -> str:
    """JSON that every reader takes: numbers that are not finite become null, half characters their escapes."""
    text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, indent=indent)
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def json_block(data: Any) -> str:
    """JSON that can stand in a page's `<script type="application/json">`: no text of it can end the block."""
    return as_json(data).translate(_ENDS)


def as_text(text: object) -> str:
    """A text for a page: escaped, without half characters."""
    return escape(_SURROGATE.sub("\ufffd", str(text)))


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template whose places `<!--name-->` are filled; `<!--policy-->` becomes its content security policy.

    The policy lets the scripts and styles of the page run, by their hashes, and nothing else: no request leaves it.

    Args:
        template: The page.
        parts: Markup, scripts and styles by name. Their own places are left as they are.
    """
    page = _PLACE.sub(lambda place: parts.get(place[1], place[0]), template)
    hashes: dict[str, dict[str, None]] = {"script": {}, "style": {}}
    for kind, code in _CODE.findall(page):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        hashes[kind][f"'sha256-{digest}'"] = None
    sources = "; ".join(f"{kind}-src {' '.join(found) or chr(39) + 'none' + chr(39)}" for kind, found in hashes.items())
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    return page.replace("<!--policy-->", f'<meta http-equiv="Content-Security-Policy" content="{policy}">', 1)


def write_text(path: Path, text: str) -> None:
    """Writes a file completely or not at all; half characters, which no file can hold, become marks.

    Raises:
        SotError: It cannot be written. An existing file is then unchanged.
    """
    write_atomically(path, _SURROGATE.sub("\ufffd", text))


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(name): _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return list(map(_finite, data))
    return None if isinstance(data, float) and not math.isfinite(data) else data
