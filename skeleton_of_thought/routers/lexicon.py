"""Words and what they ask for, in ten languages, read from `lexicon.txt`.

The file has a section per language (`[en]`). A section has one class of words a line: `class: entry | entry`. In an
entry, `a b` is a phrase and `word*` a stem. The entries of a class `^class` count as the question's first words only.
Chinese and Japanese have no spaces: their entries are found anywhere, and may be regular expressions. A line
`stopwords:` lists the words that tell the language.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["LEXICON", "STOPWORDS"]

_STOPWORDS = "stopwords: "


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


_SECTIONS = _sections(resources.files(__package__).joinpath("lexicon.txt").read_text("utf-8"))

STOPWORDS = {
    language: line.removeprefix(_STOPWORDS)
    for language, lines in _SECTIONS.items()
    for line in lines
    if line.startswith(_STOPWORDS)
}
"""The words that tell a language, separated by spaces; languages with a script of their own have none."""

LEXICON = {
    language: [line for line in lines if not line.startswith(_STOPWORDS)] for language, lines in _SECTIONS.items()
}
"""The lines of each language, one class of words a line."""
