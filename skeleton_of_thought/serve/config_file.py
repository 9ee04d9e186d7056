"""The settings of the server, from a TOML file and from options of the command.

    [server]
    port = 8080
    key-env = "SOT_API_KEY"

    [[models]]
    name = "fast"
    spec = "openai:gpt-4o-mini"
    words = 60

The keys are the long names of the options of `sot serve`. A table `[[models]]` has three more: `name`, `spec`, and
`key-env`, the environment variable with the key of the model's server.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skeleton_of_thought._cli.arguments import SWITCHES
from skeleton_of_thought._cli.config import Options, checked, load_toml
from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought._cli.options import served_options
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings

__all__ = ["NAME", "default_name", "named_model", "read_config", "with_model_options", "with_server_options"]

NAME = re.compile(r"\w[\w./:+-]{0,199}\Z")
"""The names that a model may have."""
_UNUSUAL = re.compile(r"[^\w./:+-]+")
_CHAIN = {
    "max_points": "max_points",
    "words": "point_words",
    "eager": "eager",
    "planning": "planning",
    "items": "items",
    "max_depth": "max_depth",
    "opening": "opening",
    "closing": "closing",
    "rewrite_overlap": "rewrite_overlap",
    "join": "join",
    "merge": "merge",
    "retries": "max_retries",
    "point_timeout": "point_timeout",
    "on_point_error": "on_point_error",
}
"""Options, and the fields of `Settings` that they set."""
_SERVER = {
    "host": "host",
    "port": "port",
    "allow_anyone": "open_to_all",
    "max_open_calls": "max_open_calls",
    "max_waiting": "max_waiting",
    "max_request_bytes": "max_request_bytes",
    "timeout": "timeout",
    "keep_alive": "keep_alive",
    "grace": "grace",
    "log_texts": "log_texts",
    "page": "page",
}
"""Options, and the fields of `ServeSettings` that they set."""
_OWN = ("name", "spec", "key-env")
"""The keys of a model that are no options."""
_MOST_KEYS = 100


# --- options ----------------------------------------------------------------------------------------


def named_model(text: str | None) -> ModelSettings:
    """The model that `[NAME=]MODEL` names; None for the demo model.

    Raises:
        InvalidInput: It names no model.
    """
    name, mark, spec = (text or "").partition("=")
    # Only what can be a name is one: addresses and paths may have an = too.
    named = (
        mark and NAME.match(name) and not name.startswith(("openai:", "langchain:")) and not os.path.lexists(text or "")
    )
    if not named:
        return ModelSettings(default_name(text), text)
    ModelSpec.parse(spec)
    return ModelSettings(name, spec)


def default_name(spec: str | None) -> str:
    """The name of a model that has none: the last part of what `--model` takes.

    Raises:
        InvalidInput: It names no model.

    Example:
        >>> default_name("openai:llama3.2@http://127.0.0.1:11434/v1")
        'llama3.2'
    """
    parsed = ModelSpec.parse(spec)
    if parsed.name is None:
        return "demo"
    name = parsed.name
    if parsed.source == "langchain":
        name = name.partition(":")[2]
    elif parsed.source == "local" and (name.endswith(".gguf") or os.path.lexists(name)):
        path = Path(os.path.abspath(name))
        name = path.stem if name.endswith(".gguf") else path.name
    return _UNUSUAL.sub("-", name).lstrip("./:+-")[:200] or "model"


def with_model_options(model: ModelSettings, values: Mapping[str, Any]) -> ModelSettings:
    """A model with the options that are given.

    Args:
        model: The model.
        values: Options by their names in Python, such as `max_points`; those that are no options of a model, and those
            that are None, change nothing.

    Raises:
        InvalidInput: A value is out of range, or the file of prompts cannot be read.
    """
    given = {name: value for name, value in values.items() if value is not None}
    changes: dict[str, Any] = {
        name: given[name] for name in ("prefill", "max_tokens", "max_concurrency") if name in given
    }
    if "router" in given:
        # sot's own configuration file may have a boolean there.
        changes["router"] = {True: "auto", False: "always"}.get(given["router"], given["router"])
    if "prompts" in given:
        changes["prompts"] = PromptSet.from_json(given["prompts"])
    chain = {field: given[name] for name, field in _CHAIN.items() if name in given}
    for name in chain.keys() & {"eager", "opening"}:
        chain[name] = SWITCHES.get(chain[name], chain[name])
    return dataclasses.replace(model.with_options(chain), **changes)


def with_server_options(
    settings: ServeSettings, values: Mapping[str, Any], *, key_env: str | None = None, needs_key: bool = False
) -> ServeSettings:
    """Settings with the options that are given.

    Args:
        settings: The settings.
        values: Options by their names in Python; for others, and for None, see `with_model_options`.
        key_env: The environment variable with the keys of callers; None to leave the keys as they are.
        needs_key: Whether it is an error if that variable is not set.

    Raises:
        InvalidInput: There is no such environment variable.
    """
    changes = {field: values[name] for name, field in _SERVER.items() if values.get(name) is not None}
    if (origins := values.get("origin")) is not None:
        changes["origins"] = tuple(origins)
    if key_env is not None:
        changes["keys"] = _keys(key_env, needs_key)
    return dataclasses.replace(settings, **changes)


def _keys(variable: str, needed: bool) -> tuple[str, ...]:
    text = os.environ.get(variable, "")
    keys = dict.fromkeys(key for part in text.split(",") if (key := part.strip()))
    if needed and not keys:
        raise InvalidInput(_unset(variable, "the key that callers need"))
    return tuple(keys)


def _unset(variable: str, what: str) -> str:
    return f"The environment variable {as_line(variable, 100)} is not set, or is empty: it has to hold {what}."


# --- the file ---------------------------------------------------------------------------------------


def read_config(path: str | os.PathLike[str], *, key_env: str | None = None) -> ServeSettings:
    """Reads the file. Other files that it names are looked up beside it.

    Args:
        path: The file.
        key_env: The environment variable with the keys of callers, if the file names none; it may be unset.

    Raises:
        InvalidInput: The file cannot be read, has an unknown key or an invalid value, or names an environment variable
            that is not set.
    """
    file = Path(path)
    try:
        document = load_toml(file)
        return _read(document, file, key_env)
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {as_line(repr(str(path)), 300)}.") from None


def _read(document: Mapping[str, Any], file: Path, key_env: str | None) -> ServeSettings:
    server_options, model_options = served_options()
    where = as_line(str(file), 300)
    for key in document:
        if key not in ("server", "models"):
            raise InvalidInput(f"{where}: {_misplaced(key, server_options, model_options)}")
    tables = document.get("models", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidInput(f"{where}: models must be tables: begin each one with the line [[models]].")
    server = document.get("server", {})
    if not isinstance(server, dict):
        raise InvalidInput(f"{where}: server must be a table: begin it with the line [server].")
    models = tuple(_model(table, model_options, server_options, file) for table in tables) or (named_model(None),)
    place = f"{where}: [server]"
    values = _values(server, server_options, place, ("origins", "key-env"), model_options, "[[models]]")
    origins = values.pop("origins", None)
    if isinstance(origins, str):
        origins = [origins]
    if origins is not None and not (isinstance(origins, list) and all(isinstance(each, str) for each in origins)):
        raise InvalidInput(f'{place}: origins must be a list of texts, such as ["https://chat.example.org"].')
    named = _text(values.pop("key-env", None), "key-env", place)
    try:
        return with_server_options(
            ServeSettings(models), {**values, "origin": origins}, key_env=named or key_env, needs_key=bool(named)
        )
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from error


def _model(table: Mapping[str, Any], options: Options, others: Options, file: Path) -> ModelSettings:
    name = table.get("name", table.get("spec", "demo"))
    place = f"{as_line(str(file), 300)}: [[models]] {as_line(repr(name), 100)}"
    values = _values(table, options, place, _OWN, others, "[server]")
    own = {key: _text(values.pop(key, None), key, place) for key in _OWN}
    spec, key, variable = own["spec"], None, own["key-env"]
    if spec is not None and spec.startswith("."):
        spec = str(file.parent / spec)
    if variable is not None and not (key := os.environ.get(variable, "").strip()):
        raise InvalidInput(f"{place}: {_unset(variable, 'the key of the server of this model')}")
    if values.get("prompts") is not None:
        values["prompts"] = str(file.parent / values["prompts"])
    try:
        model = ModelSettings(own["name"] or default_name(spec), spec, key)
        ModelSpec.parse(spec)
        return with_model_options(model, values)
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from error


def _values(  # noqa: PLR0917 - the last ones say in errors where a key belongs
    table: Mapping[str, Any], options: Options, place: str, own: tuple[str, ...], others: Options, other_place: str
) -> dict[str, Any]:
    """The values of a table by the names of the options in Python; those of `own` keys unchecked, under their keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        target = options[name].dest if name in options and name not in own else name
        if target in values:
            raise InvalidInput(f"{place}: {as_line(repr(key), 100)} is there twice, with - and with _.")
        if name in own:
            values[target] = value
        elif name in options:
            values[target] = checked(options, name, value, place)
        elif name in others:
            raise InvalidInput(f"{place}: {name} belongs under {other_place}.")
        else:
            raise InvalidInput(f"{place}: there is no key {as_line(repr(key), 200)}.{_near(name, [*own, *options])}")
    return values


def _misplaced(key: str, server: Options, models: Options) -> str:
    name = key.replace("_", "-")
    for options, place in ((server, "[server]"), (models, "[[models]]")):
        if name in options:
            return f"{name} belongs under {place}."
    return f"there is no table {as_line(repr(key), 200)}, but [server] and [[models]]."


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name[:_MOST_KEYS], known, n=1)
    return f" Did you mean {near[0]}?" if near else f" The keys are {', '.join(sorted(known))}."


def _text(value: Any, key: str, place: str) -> str | None:
    if value is not None and not (isinstance(value, str) and value):
        raise InvalidInput(f"{place}: {key} must be text in quotes.")
    return value
