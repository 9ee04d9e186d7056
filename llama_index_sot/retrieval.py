"""Retrieval of nodes for a question or a point."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_sot.event_loop import call_in_thread, is_truly_async
from skeleton_of_thought.errors import InvalidInput

__all__ = ["NodeFinder", "RetrieverFinder"]


class NodeFinder(Protocol):
    """Finds the nodes for a query."""

    def find(self, query: QueryBundle) -> list[NodeWithScore]:
        """The nodes, best first."""
        ...

    async def afind(self, query: QueryBundle) -> list[NodeWithScore]:
        """Async twin of `find`; never blocks the loop."""
        ...


@dataclass(frozen=True)
class RetrieverFinder:
    """Finds nodes by a retriever, or by a query engine that retrieves, and postprocesses them.

    Beside an event loop, sync methods run in threads of their own; so do async methods that block, such as those of a
    vector index with a local embedding model.

    Attributes:
        source: The retriever or query engine.
        postprocessors: Applied to the nodes, in order; each gets the query that they were retrieved for.
        threads: Whether all retrieval runs in threads, though its async methods do not block.
    """

    source: BaseRetriever | BaseQueryEngine
    postprocessors: Sequence[BaseNodePostprocessor] = ()
    threads: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.source, BaseRetriever):
            return
        if not isinstance(self.source, BaseQueryEngine):
            raise InvalidInput(
                f"A retriever, such as index.as_retriever(), is needed, not {type(self.source).__name__}."
            )
        if not _overrides(self.source, "retrieve", BaseQueryEngine):
            raise InvalidInput(
                f"The query engine {type(self.source).__name__} does not retrieve nodes. Pass one that does, such as "
                "index.as_query_engine(), or a retriever by retriever=index.as_retriever()."
            )

    def find(self, query: QueryBundle) -> list[NodeWithScore]:
        """The nodes, best first, postprocessed."""
        nodes = self.source.retrieve(query)
        for postprocessor in self.postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle=query)
        return nodes

    async def afind(self, query: QueryBundle) -> list[NodeWithScore]:
        """Async twin of `find`; never blocks the loop."""
        if self.threads:
            return await call_in_thread(lambda: self.find(query), "sot-retrieve")
        nodes: list[NodeWithScore]
        if self._async_source:
            source: Any = self.source
            nodes = await source.aretrieve(query)
        else:
            nodes = await call_in_thread(lambda: self.source.retrieve(query), "sot-retrieve")
        for postprocessor in self.postprocessors:
            nodes = await _apostprocess(postprocessor, nodes, query)
        return nodes

    @property
    def _async_source(self) -> bool:
        return hasattr(self.source, "aretrieve") and _all_async(self.source)


def _all_async(part: object) -> bool:
    """Whether the async methods of a retriever and of all its parts leave the event loop free."""
    for base, method in (
        (BaseEmbedding, "_aget_query_embedding"),
        (BasePydanticVectorStore, "aquery"),
        (BaseRetriever, "_aretrieve"),
        (BaseQueryEngine, "aretrieve"),
    ):
        if isinstance(part, base) and not is_truly_async(part, method):
            return False
    if not isinstance(part, BaseRetriever | BaseQueryEngine):
        return True
    parts = [one for value in vars(part).values() for one in (value if isinstance(value, list) else [value])]
    return all(map(_all_async, parts))


async def _apostprocess(
    postprocessor: BaseNodePostprocessor, nodes: list[NodeWithScore], query: QueryBundle
) -> list[NodeWithScore]:
    own = _overrides(postprocessor, "_apostprocess_nodes", BaseNodePostprocessor)
    if own and is_truly_async(postprocessor, "_apostprocess_nodes"):
        return await postprocessor.apostprocess_nodes(nodes, query_bundle=query)
    # The default runs in the loop's default executor, which has few workers.
    return await call_in_thread(
        lambda: postprocessor.postprocess_nodes(nodes, query_bundle=query), "sot-postprocess-nodes"
    )


def __getattr__(name: str) -> Any:
    if name == "Retrieval":  # the name in pickles made with 0.1
        return RetrieverFinder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _overrides(thing: object, method: str, base: type) -> bool:
    return inspect.getattr_static(type(thing), method) is not inspect.getattr_static(base, method, None)
