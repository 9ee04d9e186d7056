"""Text that cannot control a terminal.

All that the command writes goes through `printable` or `json_text`: text of models and servers, names of files and
models, log messages of other packages. The streams of `streams` call `printable` on every text that has one of the
characters in `UNSAFE`, and views call it before they measure or wrap a text. So a new message is safe without a call.
"""

from __future__ import annotations

import re

__all__ = ["UNSAFE", "json_text", "printable", "toml_text"]

_TAGS = "\U000e0000-\U000e007f"
UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\ud800-\udfff\ufff9-\ufffb{_TAGS}]")
"""The characters that `printable` changes.

They are the control characters C0 and C1 but tabs and line ends; marks that change the direction of other text (U+200E,
U+200F and U+061C do not, and Arabic and Hebrew need them); halves of surrogate pairs; annotations; and tags, which are
invisible letters.
"""

_CHANGES = re.compile(
    r"(?P<kept>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f)"  # the flag of Wales, for example
    r"|\x1b\[[0-9;]{0,40}m"  # a colour
    f"|(?P<shown>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff])"
    f"|{UNSAFE.pattern}"
)
_IN_JSON = re.compile(f"{UNSAFE.pattern[:-1]}\u061c\u200e\u200f\u2028\u2029]")
"""More characters than `printable` changes: an escape in JSON stands for the same text."""


def printable(text: str) -> str:
    r"""The text without what controls a terminal or reorders other text.

    A control character becomes `�`, so that readers see that something was there; the rest of an escape sequence stays
    as text. Colours, carriage returns, tags and marks that change the direction of text are dropped. Emoji, combining
    marks, right-to-left text, tabs and line ends stay. The result depends on no other text, so a stream can be
    cleaned piece by piece.

    Example:
        >>> printable("\x1b]0;title\x07 and \x1b[31mred\x1b[0m")
        '�]0;title� and red'
    """
    return _CHANGES.sub(lambda found: found["kept"] or ("�" if found["shown"] else ""), text)


def json_text(text: str) -> str:
    """The text of a JSON document with escapes for all that `printable` changes. It stands for the same values."""

    def escape(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))

    return _IN_JSON.sub(escape, text)


def toml_text(text: str) -> str:
    """The same for a text of TOML, which has other escapes for characters beyond U+FFFF."""
    return _IN_JSON.sub(lambda found: f"\\U{ord(found[0]):08x}", text)
