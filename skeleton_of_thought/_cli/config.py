"""Defaults for the options of `sot`, from a small TOML file and the environment.

The keys of the file are the long names of the options of `sot ask`:

    model = "openai:gpt-4o"
    words = 60
    merge = true

The command line overrides the environment (`SOT_MODEL`), and the environment overrides the file.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.terminal_text import toml_text
from skeleton_of_thought.errors import InvalidInput, without_secrets
from skeleton_of_thought.small_files import read_bounded

__all__ = [
    "Defaults",
    "Options",
    "Setting",
    "checked",
    "config_path",
    "describe",
    "load_toml",
    "read_defaults",
    "settable",
]

Options = Mapping[str, argparse.Action]
"""Options that may have a default, by their long names without dashes."""

_FILE, _MODEL = "SOT_CONFIG", "SOT_MODEL"
_NOT_IN_FILES = frozenset({"help", "compare", "output", "raw", "stream", "config", "open"})
"""Options that only make sense for a single call."""
_LONGEST = 1 << 16
"""The most bytes of the file. Reading TOML with long keys takes quadratic time."""
_TYPES: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
}


@dataclass(frozen=True)
class Setting:
    """A default and its origin, as reported to the user."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Defaults:
    """The defaults from the file and the environment.

    Attributes:
        path: The file, which may not exist; None if there is no home directory.
        settings: The defaults by the names of the options without dashes.
    """

    path: Path | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)


def config_path() -> Path | None:
    """The file: `$SOT_CONFIG`, or `sot/config.toml` in the user's configuration directory; None without a home."""
    base = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if sys.platform == "win32" else None)
    try:
        if named := os.environ.get(_FILE):
            return Path(named).expanduser()
        usual = "Library/Application Support" if sys.platform == "darwin" else ".config"
        return (Path(base) if base else Path.home() / usual) / "sot" / "config.toml"
    except RuntimeError as error:
        if named:
            raise InvalidInput(f"{_FILE} names {named!r}, but there is no such home directory.") from error
        return None


def read_defaults(options: Options) -> Defaults:
    """Reads and checks the defaults from the file and the environment.

    Args:
        options: The options that may have a default, see `settable`.

    Raises:
        InvalidInput: The file cannot be read, or has an unknown key or an invalid value.
    """
    path = config_path()
    settings: dict[str, Setting] = {}
    for key, value in ({} if path is None else _load(path)).items():
        settings[key] = Setting(checked(options, key, value, path), str(path))
    plain, as_json = settings.get("plain"), settings.get("json")
    if plain is not None and as_json is not None and plain.value is as_json.value is True:
        raise InvalidInput(f"{path}: plain and json exclude each other: leave one of them out.")
    if model := os.environ.get(_MODEL):
        settings["model"] = Setting(model, _MODEL)
    return Defaults(path, settings)


def settable(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options of a parser that may have a default, by their long names without dashes."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        # The long name comes first; only --help has a short one there.
        name = action.option_strings[0] if action.option_strings else ""
        if name.startswith("--") and name[2:] not in _NOT_IN_FILES:
            found[name[2:]] = action
    return found


def _load(path: Path) -> dict[str, Any]:
    if not (named := os.environ.get(_FILE)) and not os.path.lexists(path):
        return {}
    try:
        return load_toml(path)
    except FileNotFoundError:
        if named:
            raise InvalidInput(f"{_FILE} names {str(path)!r}, but there is no such file.") from None
        return {}


def load_toml(path: Path) -> dict[str, Any]:
    """Reads a file of settings.

    Raises:
        InvalidInput: The file cannot be read, is too large, or is not TOML.
        FileNotFoundError: There is no such file.
    """
    try:
        text = read_bounded(path, _LONGEST).decode("utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidInput(f"The configuration file {str(path)!r} cannot be read: {error}") from error
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InvalidInput(f"The configuration file {str(path)!r} is not TOML: {why}") from error


def checked(options: Options, key: str, value: Any, path: object) -> Any:
    """The value of an option as the command line would have it.

    Args:
        options: The options that there are.
        key: The key in the file.
        value: Its value in the file.
        path: The file, and the place in it, for errors.

    Raises:
        InvalidInput: There is no such option, or the value does not suit it.
    """
    action = options.get(key)
    if action is None:
        raise InvalidInput(f"{path}: {_unknown(options, key)}")
    value = getattr(action.type, "booleans", {}).get(value, value) if isinstance(value, bool) else value
    kind = _kind(action)
    # An int is a valid float, but a bool is no valid int.
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits:
        raise InvalidInput(f"{path}: {key} must be {_TYPES[kind]}, not {_shown(value)}.")
    if action.choices is not None and value not in action.choices:
        raise InvalidInput(
            f"{path}: {key} must be one of {', '.join(action.choices)}, not {as_line(repr(value), 200)}."
        )
    if action.type is None or kind is bool:
        return value
    try:
        return action.type(str(value))  # type: ignore[operator]
    except argparse.ArgumentTypeError as error:
        raise InvalidInput(f"{path}: {key} {as_line(str(error), 300)}.") from error


def _shown(value: Any) -> str:
    """A value as it stands in TOML or JSON, in at most 200 characters."""
    try:
        return as_line(json.dumps(value, default=str), 200)
    except (RecursionError, ValueError):  # how deep is too deep depends on the caller
        return f"a nested {type(value).__name__}"


def _kind(action: argparse.Action) -> type:
    """The type of an option's values."""
    if action.nargs == 0:
        return bool
    return getattr(action.type, "kind", str)


def _unknown(options: Options, key: str) -> str:
    if key in _NOT_IN_FILES:
        return f"{key!r} is for one call alone: give it on the command line."
    if key.startswith("no-") and key[3:] in options:
        return f"{key!r} is written {key[3:]} = false."
    near = difflib.get_close_matches(key.replace("_", "-"), options, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    named = as_line(repr(key), 200)
    return f"there is no option {named}.{meant} The keys are the long options of sot ask, such as model or words."


def describe(defaults: Defaults, options: Options) -> str:
    """All options in the format of the file, with their values and the origins of these; without passwords and keys."""
    path = defaults.path
    where = "no home directory" if path is None else f"{path}{'' if path.exists() else ' (not there)'}"
    lines = [f"# Configuration file: {as_line(where)}"]
    width = max(map(len, options))
    for name, action in options.items():
        setting = defaults.settings.get(name)
        value = action.default if setting is None else setting.value
        origin = "built in" if setting is None else setting.origin
        # JSON strings are valid in TOML, except for some characters that get escapes of TOML.
        text = "" if value is None else toml_text(without_secrets(json.dumps(value, ensure_ascii=False)))
        # TOML has no null, so an option without a value becomes a comment.
        lines.append(f"{'# ' if value is None else ''}{name:<{width}} = {text:<12} # {as_line(origin)}".rstrip())
    return "\n".join(lines)
