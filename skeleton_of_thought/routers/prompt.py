"""A router that asks a model, with one short call and a three-way answer."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib import import_module
from typing import Any, Self, cast

from skeleton_of_thought.adapters.replies import aclose_stream, close_stream
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.parser import without_reasoning
from skeleton_of_thought.routers.base import in_thread
from skeleton_of_thought.settings import is_whole
from skeleton_of_thought.types import Conversation, Hints, Message, Planning, Prompt, Reply, RouteDecision, Usage

__all__ = ["Ask", "AsyncAsk", "PromptRouter", "route_prompt"]

AskReply = str | tuple[str, Usage | None]
"""A model's reply: its text, with its usage if that is known."""
Ask = Callable[[Prompt], AskReply | Iterable[str | Reply]]
"""Sends a prompt to a model. Returns the text, the text with its usage, or a stream of text that ends in a `Reply`."""
AsyncAsk = Callable[[Prompt], Awaitable[AskReply] | AsyncIterator[str | Reply]]
"""Async twin of `Ask`."""

_INSTRUCTION = """You sort questions by the form of their best answer. Do not answer the question itself.

INDEPENDENT: the answer is a list of at least three points, and each can be written well without reading the others. \
So it is with tips, reasons, advantages, differences, options, effects, areas, recommendations.
{dependent}
NONE: the answer is no list. So it is with one fact, yes or no, a number, a definition, a translation, a poem, a \
letter, a text of a fixed form or length, small talk.

{context}The question, between the lines:
-----
{question}
-----

Reply with one word: {words}."""

_FLAT = {
    "dependent": """\
DEPENDENT: the answer has several parts, but each builds on the one before. So it is with calculations, proofs, \
puzzles, programs, recipes, stories, step-by-step explanations.""",
    "words": "INDEPENDENT, DEPENDENT or NONE",
}
_GRAPH = {
    "dependent": """\
DEPENDENT: the answer has at least three points. Two or more can be written without reading the others, and at least \
one needs them first. So it is with comparisons that end in a verdict, rankings, choices between options, analyses \
that lead to a conclusion.
SEQUENTIAL: the answer has several parts, and each needs the one right before it. So it is with calculations, proofs, \
puzzles, programs, recipes, stories, step-by-step explanations.""",
    "words": "INDEPENDENT, DEPENDENT, SEQUENTIAL or NONE",
}
"""The forms of answers where points may build on each other: there a chain of parts is another form than a graph."""

_FORMS = {
    "independent": "independent points",
    "dependent": "points that build on each other",
    "sequential": "parts that each need the one before",
    "none": "no list",
}
_CONTEXT = "It was asked in a conversation whose last messages were:\n{turns}\n\n"
_WORD = re.compile(r"\b(independent|dependent|none)\b", re.I)
_GRAPH_WORD = re.compile(r"\b(independent|dependent|sequential|none)\b", re.I)
_ADAPTERS = {"langchain_core": "langchain_sot", "llama_index": "llama_index_sot"}
"""The package for the models of a framework. Names only, so that nothing is imported without such a model."""
_LONGEST, _LONGEST_TURN = 2000, 300
"""The most characters of the question and of an earlier message in the prompt."""


class PromptRouter:
    """Asks a model whether an answer is a list of points that can be written independently.

    Where points may build on each other (`Request.graph`), the model also tells a chain of parts, which is answered
    directly, from points that need others: for these the decision has `planning="graph"`.

    An unclear or contradictory reply means a direct answer. Errors of the call are raised; a flow reports them and
    answers directly. The decision's `usage` is that of the call.

    Args:
        ask: Sends a prompt to the model, in this thread. A coroutine function counts as `aask`. With a model of
            LangChain or LlamaIndex this class returns the `PromptRouter` of `langchain_sot` or `llama_index_sot`.
        aask: Async twin of `ask`. Without it, `ask` runs in a thread.
        race: Whether the skeleton is written while the router decides. This hides the router's time, and wastes a
            skeleton if the answer is direct.
        max_tokens: The most tokens of the reply; None for the model's own limit, for models that reason first.

    Raises:
        InvalidInput: There is no function, an argument is no function, or `max_tokens` is less than 1.

    Example:
        >>> def ask(prompt):
        ...     tips = "tips" in prompt.messages[-1].text.split("-----")[1]
        ...     return "INDEPENDENT" if tips else "NONE", Usage(150, 3)
        >>> decision = PromptRouter(ask).route(Conversation.of("Any tips for a first marathon?"))
        >>> decision.use_skeleton, decision.usage.total_tokens
        (True, 153)
    """

    def __new__(cls, ask: Any = None, **kwargs: Any) -> Self:
        """Returns the adapter's router for a model of a framework."""
        adapter = _adapter(kwargs.get("llm", ask)) if cls is PromptRouter else None
        return cast(Self, object.__new__(adapter or cls))

    def __init__(
        self,
        ask: Ask | AsyncAsk | None = None,
        *,
        aask: AsyncAsk | None = None,
        race: bool = False,
        max_tokens: int | None = 16,
    ) -> None:
        if ask is not None and aask is None and _is_async(ask):
            ask, aask = None, ask
        if ask is None and aask is None:
            raise InvalidInput("PromptRouter needs a function that asks a model: ask, aask, or both.")
        for function in (ask, aask):
            if function is not None and not callable(function):
                raise InvalidInput(
                    "PromptRouter takes a model of LangChain or LlamaIndex, or a function that asks a model, not "
                    f"{type(function).__name__}."
                )
        if max_tokens is not None and not is_whole(max_tokens, 1):
            raise InvalidInput(f"max_tokens must be at least 1, or None for a fitting limit, not {max_tokens!r}.")
        self.races = race
        self._ask: Any = ask
        self._aask: Any = aask
        self._max_tokens = max_tokens

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        prompt = self._prompt(conversation)
        if self._ask is None:
            return asyncio.run(self.aroute(conversation))
        return _read(*_collected(self._ask(prompt)), conversation.request.graph)

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        prompt = self._prompt(conversation)
        if self._aask is None:
            return _read(*await in_thread(lambda: _collected(self._ask(prompt))), conversation.request.graph)
        return _read(*await _acollected(self._aask(prompt)), conversation.request.graph)

    def _prompt(self, conversation: Conversation) -> Prompt:
        return dataclasses.replace(route_prompt(conversation), hints=Hints(max_tokens=self._max_tokens))


def _adapter(model: Any) -> Any:
    """The adapter's router class for a model of a framework; None for any other object."""
    frameworks = {kind.__module__.split(".")[0] for kind in type(model).__mro__}
    name = next((adapter for framework, adapter in _ADAPTERS.items() if framework in frameworks), None)
    return None if name is None else import_module(name).PromptRouter


def route_prompt(conversation: Conversation) -> Prompt:
    """The router's prompt: one user message, with the beginning and the end of long texts."""
    turns = "\n".join(
        f"{message.role}: {_cut(message.text, _LONGEST_TURN)}" for message in conversation.turns[-2:] if message.text
    )
    text = _INSTRUCTION.format(
        context=_CONTEXT.format(turns=turns) if turns else "",
        question=_cut(conversation.question, _LONGEST),
        **(_GRAPH if conversation.request.graph else _FLAT),
    )
    return Prompt((Message("user", text),))


def _cut(text: str, longest: int) -> str:
    text = text.strip()
    return text if len(text) <= longest else f"{text[: longest // 2]} [...] {text[-longest // 2 :]}"


def _read(text: str, usage: Usage | None, graph: bool) -> RouteDecision:
    words = {word.casefold() for word in (_GRAPH_WORD if graph else _WORD).findall(without_reasoning(text))}
    if len(words) != 1:
        return RouteDecision(False, reason=f"the router's reply was not understood: {text.strip()[:60]!r}", usage=usage)
    word = words.pop()
    use = word == "independent" or (graph and word == "dependent")
    planning: Planning | None = "graph" if use and word == "dependent" else None
    return RouteDecision(use, reason=f"the model takes the answer for {_FORMS[word]}", usage=usage, planning=planning)


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - the method itself is inspected
    return any(test(f) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction) for f in (function, call))


def _collected(reply: Any) -> tuple[str, Usage | None]:
    if (plain := _plain(reply)) is not None:
        return plain
    pieces: list[str] = []
    usage: Usage | None = None
    try:
        for item in reply:
            usage = _taken(item, pieces, usage)
    finally:
        close_stream(reply)
    return "".join(pieces), usage


async def _acollected(reply: Any) -> tuple[str, Usage | None]:
    if inspect.isawaitable(reply):
        reply = await reply
    if (plain := _plain(reply)) is not None:
        return plain
    pieces: list[str] = []
    usage: Usage | None = None
    try:
        async for item in reply:
            usage = _taken(item, pieces, usage)
    finally:
        await aclose_stream(reply)
    return "".join(pieces), usage


def _plain(reply: Any) -> tuple[str, Usage | None] | None:
    if isinstance(reply, str):
        return reply, None
    if isinstance(reply, tuple):
        text, usage = reply
        return text, usage
    return None


def _taken(item: str | Reply, pieces: list[str], usage: Usage | None) -> Usage | None:
    if isinstance(item, str):
        pieces.append(item)
        return usage
    return item.usage or usage
