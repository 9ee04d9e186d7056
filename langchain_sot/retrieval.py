"""Retrieval of documents for a question or a point, by any retriever of LangChain or any function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from langchain_sot.inputs import context_of
from langchain_sot.models.open_runs import ended_runs
from langchain_sot.results import plan_facts
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Call, Item, Point, Reply, Retrieval

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langchain_sot.calls import ModelCalls
    from skeleton_of_thought.drive import AsyncTogether, Together

__all__ = ["RetrievingCalls", "afind", "as_retriever", "call_config", "check_retrieval", "find", "point_query"]


def as_retriever(source: Any) -> Runnable[str, Any]:
    """The runnable that retrieves: a retriever as it is, a function as a runnable.

    Raises:
        InvalidInput: It is neither a runnable nor a function.
    """
    if isinstance(source, Runnable):
        return source
    if hasattr(source, "as_retriever"):
        raise InvalidInput(f"retriever is {type(source).__name__}: pass its retriever, .as_retriever().")
    if isinstance(source, type) or not callable(source):
        given = f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__
        raise InvalidInput(
            f"retriever is {given}, but must be a retriever, or another runnable or function that takes the query as a "
            "string and returns documents."
        )
    call = getattr(source, "__call__", None)  # noqa: B004 - the method itself is inspected
    if asyncio.iscoroutinefunction(call) and not asyncio.iscoroutinefunction(source):
        return RunnableLambda(call)
    return RunnableLambda(source)


def check_retrieval(retriever: Any, retrieval: str | None) -> Retrieval:
    """When a chain retrieves.

    Args:
        retriever: Its retriever; None without one.
        retrieval: The setting; None for "once" where there is a retriever.

    Raises:
        InvalidInput: They do not go together.
    """
    if retriever is None:
        if retrieval in ("once", "per_point"):
            raise InvalidInput(f"retrieval={retrieval!r} needs a retriever: give one, such as store.as_retriever().")
        return "none"
    as_retriever(retriever)
    if retrieval == "none":
        raise InvalidInput('There is a retriever, but retrieval="none" never uses it. Use "once" or "per_point".')
    return "per_point" if retrieval == "per_point" else "once"


def point_query(question: str, point: Point | None) -> str:
    """The query for a point, or without one for the question as a whole. An item's question has all others, too."""
    if point is None:
        return question
    return point.title if isinstance(point, Item) else f"{point.title} ({question})"


def call_config(
    config: RunnableConfig, point: Point | None = None, attempt: int = 1, waves: dict[int, int] | None = None
) -> RunnableConfig:
    """The config of one retrieval: a child run, named after the point where there is one.

    Args:
        config: The config of the answer's children.
        point: The point that is retrieved for.
        attempt: 1, 2, ...
        waves: The waves of the answer's points so far, see `langchain_sot.results.plan_facts`.
    """
    name, metadata = "retrieve", {**(config.get("metadata") or {}), "sot_stage": "sources"}
    if point is not None:
        name = f"retrieve for point {point.index}: {point.title:.120}"
        metadata |= {"sot_point": point.index, "sot_attempt": attempt}
        metadata |= {f"sot_{fact}": value for fact, value in plan_facts(point, {} if waves is None else waves).items()}
    tags = [*(config.get("tags") or []), "sot:sources"]
    return {**config, "run_name": name, "tags": tags, "metadata": metadata}


def find(retriever: Runnable[str, Any], query: str, config: RunnableConfig) -> Reply:
    """Asks a retriever; returns the documents that it finds for a query, and their text as the context."""
    if isinstance(retriever, RunnableLambda) and not hasattr(retriever, "func"):  # an async function alone
        return _reply(asyncio.run(retriever.ainvoke(query, config)))
    return _reply(retriever.invoke(query, config))


async def afind(retriever: Runnable[str, Any], query: str, config: RunnableConfig) -> Reply:
    """Async twin of `find`."""
    async with ended_runs(config) as own:
        return _reply(await retriever.ainvoke(query, own))


def _reply(output: Any) -> Reply:
    return context_of(output) or Reply()


@dataclass(frozen=True)
class RetrievingCalls:
    """The calls of flows that retrieve: a call of stage `sources` asks the retriever, the others a model.

    Attributes:
        calls: The calls of the models.
        retriever: Takes a query and returns documents.
    """

    calls: ModelCalls
    retriever: Runnable[str, Any]

    def open(self, call: Call, position: int) -> Iterator[str | Reply]:
        """Makes a call, yields its text as it arrives, and last how it ended."""
        return self._find(call, position) if call.stage == "sources" else self.calls.open(call, position)

    def aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        """Async twin of `open`."""
        return self._afind(call, position) if call.stage == "sources" else self.calls.aopen(call, position)

    @property
    def together(self) -> Together | None:
        """The calls of models that are made at once."""
        return self.calls.together

    @property
    def atogether(self) -> AsyncTogether | None:
        """Async twin of `together`."""
        return self.calls.atogether

    @property
    def direct(self) -> dict[int, AIMessage]:
        """The models' messages of direct answers."""
        return self.calls.direct

    def _find(self, call: Call, position: int) -> Iterator[str | Reply]:
        yield find(self.retriever, *self._request(call, position))

    async def _afind(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        yield await afind(self.retriever, *self._request(call, position))

    def _request(self, call: Call, position: int) -> tuple[str, RunnableConfig]:
        question = self.calls.inputs[position].conversation.question
        config = call_config(self.calls.configs[position], call.point, call.attempt, self.calls.waves[position])
        return point_query(question, call.point), config
