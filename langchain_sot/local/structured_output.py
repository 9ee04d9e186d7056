"""Structured output of local models: schemas, the instruction and grammar for a reply, and its parser."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown, parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass

from skeleton_of_thought.errors import InvalidInput

__all__ = ["Method", "ResponseFormat", "StructuredOutputParser", "json_schema", "read_format", "with_raw"]

Method = Literal["json_schema", "json_mode", "function_calling"]

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
    def grammar(self) -> Any:
        """The grammar that enforces the form; None if llguidance is not installed.

        Raises:
            InvalidInput: A grammar cannot express the schema.
        """
        if importlib.util.find_spec("llguidance") is None:
            return None
        from skeleton_of_thought.local import Grammar

        return Grammar.from_json_schema(_ANY_OBJECT if self._schema is None else without_extra_properties(self._schema))


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


def json_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic class, a TypedDict, a function description or a JSON schema.

    Raises:
        InvalidInput: The value is none of these.
    """
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        describe = getattr(schema, "model_json_schema", None) or getattr(schema, "schema")  # noqa: B009
        own: dict[str, Any] = describe()
        return own
    if isinstance(schema, Mapping) and not {"function", "parameters"} & set(schema):
        if not set(schema) & {"type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}:
            raise InvalidInput(f"{dict(schema)!r:.80} is not a JSON schema: it has no 'type' or 'properties'.")
        return dict(schema)
    try:
        return convert_to_json_schema(schema)
    except Exception as error:
        raise InvalidInput(
            f"The schema {schema!r:.80} is not a pydantic class, TypedDict or JSON schema: {error}"
        ) from error


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


class StructuredOutputParser(BaseCumulativeTransformOutputParser[Any]):
    """Parses a reply with structured output.

    In a stream it yields the part of the value that has come so far; a pydantic object once it is valid.

    Attributes:
        target: The pydantic class of the value; None for plain JSON.
        from_tool: Take the value from the first tool call's arguments, not from the text.

    Raises:
        OutputParserException: The reply is invalid; the message has the reason.
    """

    target: Any = None
    from_tool: bool = False

    @property
    def _type(self) -> str:
        return "structured_output"

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The value of a reply; with `partial`, the part of it that an incomplete reply has, or None."""
        message = result[0].message if isinstance(result[0], ChatGeneration) else None
        reason = message.response_metadata.get("finish_reason") if message is not None else None
        partial = partial and reason is None
        try:
            return self._validated(self._value(result[0].text, message, partial))
        except Exception as error:
            if partial:
                return None
            raise OutputParserException(_explained(error, result[0].text, reason), llm_output=result[0].text) from error

    def parse(self, text: str) -> Any:
        """The value of a complete text."""
        return self.parse_result([Generation(text=text)])

    def _value(self, text: str, message: BaseMessage | None, partial: bool) -> Any:
        if self.from_tool:
            calls = getattr(message, "tool_calls", None) or [None]
            if calls[0] is None:
                broken = getattr(message, "invalid_tool_calls", None)
                raise ValueError(broken[0]["error"] if broken else "the model called no tool")
            return calls[0]["args"]
        return parse_json_markdown(text, parser=parse_partial_json if partial else json.loads)

    def _validated(self, value: Any) -> Any:
        if self.target is None or value is None:
            return value
        validate = getattr(self.target, "model_validate", None) or self.target.parse_obj
        return validate(value)


def _explained(error: Exception, text: str, reason: Any) -> str:
    begin = f"The model's output does not match the schema: {error}"
    if reason == "length":
        begin = "The model's output was cut off by max_tokens before it was complete: raise max_tokens"
    return f"{begin} Output: {text[:200]!r}"


def with_raw(llm: Runnable[Any, Any], parser: StructuredOutputParser) -> Runnable[Any, Any]:
    """A runnable with the output `raw`, `parsed` and `parsing_error`, which does not raise the parser's errors."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([failed], exception_key="parsing_error")
