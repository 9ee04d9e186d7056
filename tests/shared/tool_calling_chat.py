"""A chat model by script that calls tools, and refuses any history that the strictest provider would refuse."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from scripted_calls import Gate, Watch

TITLES = ["Take breaks", "Drink water", "Move"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water.\n\n3. Move: All about move."

_POINT = re.compile(r'under the heading "(.*?)":|the text of point \d+, "(.*?)",')


class Calls(list[dict[str, Any]]):
    """A turn that calls tools; `text` comes before the calls."""

    def __init__(self, *calls: dict[str, Any], text: str = "") -> None:
        super().__init__(calls)
        self.text = text


def call(name: str, id: str | None = None, **args: Any) -> dict[str, Any]:
    """A call of a tool."""
    return {"name": name, "args": json.dumps(args), "id": id or f"{name}-1"}


def in_points(*titles: Any, id: str = "points-1") -> dict[str, Any]:
    """A call of `answer_in_points`; titles may be strings, or dicts with a note."""
    points = [title if isinstance(title, dict) else {"title": title} for title in titles or TITLES]
    return call("answer_in_points", id, points=points)


def point_of(messages: Sequence[BaseMessage]) -> str | None:
    """The title of the point that a prompt asks for; None for any other prompt."""
    found = _POINT.search(str(messages[-1].text)) if isinstance(messages[-1], HumanMessage) else None
    return (found[1] or found[2]) if found else None


def check_history(messages: Sequence[BaseMessage], *, ended: bool, tools: bool = True) -> None:
    """Fails for a history that some provider refuses.

    The system message comes first. User and assistant take turns, beginning with the user. Each turn with calls is
    followed by one result for each of them, and the results by the assistant. No turn is empty.

    Args:
        messages: The history.
        ended: Whether the assistant's turn is over, or comes next.
        tools: Whether the request gives tools; without any, there is no call and no result.
    """
    turns = list(messages)
    while turns and isinstance(turns[0], SystemMessage):
        turns.pop(0)
    before = "start"
    while turns:
        message = turns.pop(0)
        if isinstance(message, HumanMessage):
            assert before in ("start", "assistant"), f"a user's turn after {before}: {messages}"
            assert message.text.strip(), f"an empty turn: {messages}"
            before = "user"
            continue
        assert isinstance(message, AIMessage), f"{message.type} after {before}: {messages}"
        assert before in ("user", "results"), f"an assistant's turn after {before}: {messages}"
        assert message.text.strip() or message.tool_calls, f"an empty turn: {messages}"
        assert not message.invalid_tool_calls, f"a call that is no JSON: {messages}"
        before = "assistant"
        if message.tool_calls:
            wanted = {each["id"] for each in message.tool_calls}
            assert len(wanted) == len(message.tool_calls), f"an id twice: {messages}"
            while turns and isinstance(turns[0], ToolMessage):
                assert turns[0].tool_call_id in wanted, f"a result without its call: {messages}"
                wanted.discard(turns.pop(0).tool_call_id)
            assert not wanted, f"calls without results: {messages}"
            before = "results"
    used = [m for m in messages if isinstance(m, ToolMessage) or getattr(m, "tool_calls", None) or "tool_" in _types(m)]
    assert tools or not used, f"calls or results in a request without tools: {used}"
    assert before in (["assistant"] if ended else ["user", "results"]), f"the history ends with {before}: {messages}"


def _types(message: BaseMessage) -> str:
    blocks = message.content if isinstance(message.content, list) else []
    return " ".join(str(block.get("type")) for block in blocks if isinstance(block, dict))


class ToolCallingChat(BaseChatModel):
    """Takes one turn of its list after the other, and writes points as they are asked for.

    A turn is a text, `Calls`, an exception, or a function of the messages that returns one of these.

    Attributes:
        turns: The turns.
        point: The text of a point, by its title; pieces, exceptions and gates, or one text.
        strict: Whether it refuses histories.
        watch: The calls. Each is a tuple of the stage, the title of a point, the messages and the keyword arguments.
    """

    turns: list[Any]
    point: Callable[[str], Any] = lambda title: f"All about {title.lower()}."
    name_: str = "scripted"
    strict: bool = True
    watch: Any = None

    def model_post_init(self, context: Any, /) -> None:
        self.watch = self.watch or Watch()
        self.turns = list(self.turns)

    @property
    def _llm_type(self) -> str:
        return "tool-calling"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        names = [each["name"] if isinstance(each, dict) else each.name for each in tools]
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=names, **choice, **kwargs)

    def of(self, stage: str) -> list[Any]:
        """The calls of a stage: `"turn"` or `"point"`."""
        return [each for each in self.watch.seen if each[0] == stage]

    def _steps(self, messages: list[BaseMessage], title: str | None) -> Iterable[Any]:
        if title is not None:
            steps = self.point(title)
            return [steps[i : i + 5] for i in range(0, len(steps), 5)] if isinstance(steps, str) else steps
        turn = self.turns.pop(0)
        if callable(turn):
            turn = turn(messages)
        return [turn] if isinstance(turn, Calls | Exception) else [turn[i : i + 5] for i in range(0, len(turn), 5)]

    @contextlib.contextmanager
    def _begun(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> Iterator[Iterator[Any]]:
        """A call while it is open: its pieces and gates; a step that is an exception is raised."""
        if self.strict:
            check_history(messages, ended=False, tools="tools" in kwargs)
        title = point_of(messages)

        def steps() -> Iterator[Any]:
            for step in self._steps(messages, title):
                if isinstance(step, Exception):
                    raise step
                yield step

        with self.watch.call(("turn" if title is None else "point", title, messages, kwargs)):
            yield steps()

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        written = 0
        with self._begun(messages, kwargs) as steps:
            for step in steps:
                if isinstance(step, Gate):
                    step.wait()
                    continue
                written += 1
                yield _chunk(step)
            yield _last(messages, written, self.name_)

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        written = 0
        with self._begun(messages, kwargs) as steps:
            for step in steps:
                if isinstance(step, Gate):
                    await step.await_()
                    continue
                written += 1
                yield _chunk(step)
            yield _last(messages, written, self.name_)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return _whole([chunk.message for chunk in self._stream(messages, stop, run_manager, **kwargs)])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return _whole([chunk.message async for chunk in self._astream(messages, stop, run_manager, **kwargs)])


def _chunk(step: Any) -> ChatGenerationChunk:
    if isinstance(step, str):
        return ChatGenerationChunk(message=AIMessageChunk(content=step))
    pieces: Any = [{**each, "index": i, "type": "tool_call_chunk"} for i, each in enumerate(step)]
    return ChatGenerationChunk(message=AIMessageChunk(content=step.text, tool_call_chunks=pieces))


def _last(messages: Sequence[BaseMessage], written: int, name: str) -> ChatGenerationChunk:
    asked = sum(len(str(message.text).split()) for message in messages)
    usage: Any = {"input_tokens": asked, "output_tokens": written, "total_tokens": asked + written}
    metadata = {"model_name": name, "finish_reason": "stop"}
    return ChatGenerationChunk(
        message=AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last")
    )


def _whole(chunks: list[Any]) -> ChatResult:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    message = AIMessage(
        content=total.content,
        tool_calls=total.tool_calls,
        invalid_tool_calls=total.invalid_tool_calls,
        usage_metadata=total.usage_metadata,
        response_metadata=total.response_metadata,
    )
    return ChatResult(generations=[{"message": message, "text": str(message.text)}])
