"""Structured output of local models: schemas, and the parser of a reply."""

from __future__ import annotations

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

__all__ = ["Method", "StructuredOutputParser", "json_schema", "openai_format", "with_raw"]

Method = Literal["json_schema", "json_mode", "function_calling"]


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


def openai_format(method: str, schema: Any) -> dict[str, Any]:
    """The `response_format` of a method and its schema, in OpenAI's form.

    Raises:
        InvalidInput: As for `json_schema`.
    """
    if method == "json_mode":
        return {"type": "json_object"}
    given = json_schema(schema)
    return {"type": "json_schema", "json_schema": {"name": str(given.get("title") or "answer"), "schema": given}}


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
