"""The form of a reply of a local model, as `response_format` asks for it: an instruction, and a grammar."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.errors import InvalidInput

if TYPE_CHECKING:
    from skeleton_of_thought.local import Grammar

__all__ = ["ResponseFormat", "instruct", "read_format", "without_extra_properties"]

_ANY_OBJECT: dict[str, Any] = {"type": "object"}


class ResponseFormat:
    """The form of a reply that `response_format` asks for.

    Args:
        schema: The JSON schema of the reply; None for any JSON object.
    """

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._schema = schema

    @property
    def instruction(self) -> str:
        """The instruction for the model."""
        if self._schema is None:
            return "Answer with nothing but a JSON object."
        schema = json.dumps(self._schema, ensure_ascii=False)
        return f"Answer with nothing but JSON that is valid against this JSON schema:\n{schema}"

    @property
    def parameters(self) -> dict[str, Any] | None:
        """The form as the parameters of a tool; None for a form that is neither an object nor one of several."""
        return (
            None
            if self._schema is None or not _has_properties(self._schema)
            else without_extra_properties(self._schema)
        )

    @property
    def grammar(self) -> Grammar | None:
        """The grammar that enforces the form; None if llguidance is not installed.

        Raises:
            InvalidInput: A grammar cannot express the schema.
        """
        if importlib.util.find_spec("llguidance") is None:
            return None
        from skeleton_of_thought.local import Grammar

        return Grammar.from_json_schema(_ANY_OBJECT if self._schema is None else without_extra_properties(self._schema))


def _has_properties(schema: Mapping[str, Any]) -> bool:
    """Whether this describes the properties of an object, or of each of several that are allowed."""
    if isinstance(schema.get("properties"), Mapping):
        return True
    parts = schema.get("anyOf") or schema.get("oneOf")
    return isinstance(parts, list) and all(isinstance(part, Mapping) and _has_properties(part) for part in parts)


def read_format(value: Any) -> ResponseFormat:
    """Reads `response_format`, in OpenAI's form.

    Raises:
        InvalidInput: The value has neither of OpenAI's two forms.
    """
    if isinstance(value, Mapping):
        if value.get("type") == "json_object":
            return ResponseFormat(None)
        inner = value.get("json_schema")
        if (
            value.get("type") == "json_schema"
            and isinstance(inner, Mapping)
            and isinstance(inner.get("schema"), Mapping)
        ):
            return ResponseFormat(dict(inner["schema"]))
    raise InvalidInput(
        f"response_format is {value!r:.80}; it must be {{'type': 'json_object'}} or "
        "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}."
    )


def instruct(chat: list[dict[str, Any]], instruction: str) -> None:
    """Adds the instruction to the last message of the user, near the reply."""
    for message in reversed(chat):
        if message["role"] == "user":
            message["content"] = f"{message['content']}\n\n{instruction}"
            return
    chat.insert(0, {"role": "user", "content": instruction})


def without_extra_properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `additionalProperties: false` in its objects, as small models add properties without end."""
    # Within allOf each part has to allow the properties of the others.
    return schema if "allOf" in json.dumps(schema) else _restricted(schema)


def _restricted(value: Any, *, named: bool = False) -> Any:
    """Restricts a schema and those within it; with `named`, the keys are names of properties or definitions."""
    if isinstance(value, list):
        return [_restricted(item) for item in value]
    if not isinstance(value, dict):
        return value
    if named:
        return {name: _restricted(part) for name, part in value.items()}
    literal = ("const", "enum", "default", "examples")
    result = {
        key: part if key in literal else _restricted(part, named=key in ("properties", "$defs", "definitions"))
        for key, part in value.items()
    }
    parts = {"anyOf", "oneOf", "patternProperties", "$ref", "if", "unevaluatedProperties"} & set(value)
    if isinstance(value.get("properties"), dict) and not parts:
        result.setdefault("additionalProperties", False)
    return result
