"""The tools of one request to a local model: what the model sees, what forces a call, and what reads its reply."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.adapters.tool_calls import (
    ForcedReader,
    MarkedReader,
    Reader,
    TemplateReader,
    Tool,
    ToolFormat,
    call_schema,
    find_format,
)
from skeleton_of_thought.errors import InvalidInput

if TYPE_CHECKING:
    from skeleton_of_thought.adapters.reply_format import ResponseFormat
    from skeleton_of_thought.local.engine import LocalEngine

__all__ = ["ToolUse", "call_id"]


class ToolUse:
    """The tools of a request, the format of their calls, and the grammar of a forced call.

    Args:
        engine: The engine.
        tools: The tools that the model can call.
        choice: None or `"auto"`; `"none"`; `"any"`, `"required"` or True for some tool; or the name of one.
        form: The form of a reply that calls none of them; None for free text. A grammar holds the reply to one call,
            of a tool or of one more that takes the answer, whose arguments become the reply's text.

    Raises:
        InvalidInput: The model cannot call tools, or not these, or cannot be forced to.
        MissingExtra: A call is forced, and llguidance is not installed.
    """

    def __init__(
        self, engine: LocalEngine, tools: Sequence[Tool], choice: Any = None, form: ResponseFormat | None = None
    ) -> None:
        self._engine = engine
        self._answer: str | None = None
        self.format = find_format(engine)
        forced = _forced(tools, choice)
        self.tools = [] if choice == "none" else list(tools)
        if form is not None and self.tools:
            answer = _answer_tool(self.tools, form, forced)
            self._answer = answer["function"]["name"]
            forced = self.tools = [*self.tools, answer]
        self.grammar = None if forced is None else self._grammar(forced)

    def _grammar(self, forced: Sequence[Tool]) -> Any:
        if not self.format.known:
            raise InvalidInput(
                "tool_choice, and response_format beside tools, cannot force this model: only its tokenizer knows the "
                "format of its calls. Leave them out."
            )
        from skeleton_of_thought.local import Grammar

        return Grammar.from_json_schema(call_schema(self.format, forced))

    def settings(self) -> dict[str, Any]:
        """The engine's settings for these tools."""
        if not self.tools:
            return {}
        settings: dict[str, Any] = {"tools": self.tools, "skip_special_tokens": False}
        if self.grammar is not None:
            settings |= {"grammar": self.grammar, "prefill": self.format.opener and f"{self.format.opener}\n"}
        return settings

    def reader(self, messages: list[dict[str, Any]]) -> Reader | None:
        """The reader of the reply; None without tools."""
        if not self.tools:
            return None
        if self.grammar is not None:
            return ForcedReader(self._answer)
        if self.format.known:
            return MarkedReader(self.format)
        return TemplateReader(self._engine, self._engine.render(messages, tools=self.tools), self.tools)


def _forced(tools: Sequence[Tool], choice: Any) -> list[Tool] | None:
    """The tools of which the model has to call one; None if it is free."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, Mapping) else choice.get("name", choice)
    if choice in (None, False, "auto", "none"):
        return None
    if not tools:
        raise InvalidInput("tool_choice asks for a call, but there are no tools.")
    if choice in (True, "any", "required"):
        return list(tools)
    named = [tool for tool in tools if tool["function"]["name"] == choice]
    if not named:
        names = ", ".join(tool["function"]["name"] for tool in tools)
        raise InvalidInput(
            f"tool_choice is {choice!r:.60}; it must be 'auto', 'none', 'any', or the name of a tool ({names})."
        )
    return named


def _answer_tool(tools: Sequence[Tool], form: ResponseFormat, forced: Sequence[Tool] | None) -> Tool:
    """The tool that takes an answer of this form."""
    if forced is not None or (parameters := form.parameters) is None:
        raise InvalidInput(
            "response_format and tools exclude each other, unless the format is the JSON schema of an object and "
            "tool_choice leaves the model free: leave one of them out."
        )
    name = "final_answer"
    while any(tool["function"]["name"] == name for tool in tools):
        name += "_"
    description = "Gives the final answer. Call it as soon as no other tool is needed."
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def call_id(given: str | None, format_: ToolFormat | None) -> str:
    """The id of a call; for templates that take short ids only, a short hash of it."""
    own = given or ""
    if format_ is None or not format_.short_ids or (len(own) == 9 and own.isalnum()):
        return own
    return hashlib.sha256(own.encode(errors="surrogatepass")).hexdigest()[:9]
