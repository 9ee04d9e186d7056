"""Retrieval: what a retriever finds for a question or a point, and how a model gets to read it."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_sot.awaiting import lets_the_loop_go
from llama_index_sot.threads import call_in_thread
from skeleton_of_thought.errors import InvalidInput

__all__ = ["Finder", "Packer", "Readings", "Retrieval"]


class Finder(Protocol):
    """Finds the nodes for a query."""

    def find(self, query: QueryBundle) -> list[NodeWithScore]:
        """The nodes, best first."""
        ...

    async def afind(self, query: QueryBundle) -> list[NodeWithScore]:
        """Async twin of `find`; never blocks the loop."""
        ...


@dataclass(frozen=True)
class Retrieval:
    """A retriever, or a query engine that can retrieve, and the postprocessors of what it finds.

    Beside an event loop, what has only sync methods runs in threads of its own; so does what has async ones that block,
    such as a vector index whose embedding model is a local one.

    Attributes:
        source: What retrieves.
        postprocessors: What is done with the nodes, in order; each gets the query that they were retrieved for.
        threads: Whether all of it runs in threads, async methods or not.
    """

    source: BaseRetriever | BaseQueryEngine
    postprocessors: Sequence[BaseNodePostprocessor] = ()
    threads: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.source, BaseRetriever):
            return
        if not isinstance(self.source, BaseQueryEngine):
            raise InvalidInput(f"A retriever is needed, not {type(self.source).__name__}: index.as_retriever() is one.")
        if not _overrides(self.source, "retrieve", BaseQueryEngine):
            raise InvalidInput(
                f"The query engine {type(self.source).__name__} does not retrieve nodes. Pass one that does, such as "
                "index.as_query_engine(), or a retriever by retriever=index.as_retriever()."
            )

    def find(self, query: QueryBundle) -> list[NodeWithScore]:
        """See `Finder`."""
        nodes = self.source.retrieve(query)
        for postprocessor in self.postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle=query)
        return nodes

    async def afind(self, query: QueryBundle) -> list[NodeWithScore]:
        """See `Finder`."""
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
    """Whether a retriever, and all that it retrieves by, lets the loop go while it waits."""
    for kind, method in (
        (BaseEmbedding, "_aget_query_embedding"),
        (BasePydanticVectorStore, "aquery"),
        (BaseRetriever, "_aretrieve"),
        (BaseQueryEngine, "aretrieve"),
    ):
        if isinstance(part, kind) and not lets_the_loop_go(part, method):
            return False
    if not isinstance(part, BaseRetriever | BaseQueryEngine):
        return True
    parts = [one for value in vars(part).values() for one in (value if isinstance(value, list) else [value])]
    return all(map(_all_async, parts))


async def _apostprocess(
    postprocessor: BaseNodePostprocessor, nodes: list[NodeWithScore], query: QueryBundle
) -> list[NodeWithScore]:
    own = _overrides(postprocessor, "_apostprocess_nodes", BaseNodePostprocessor)
    if own and lets_the_loop_go(postprocessor, "_apostprocess_nodes"):
        return await postprocessor.apostprocess_nodes(nodes, query_bundle=query)
    # The default runs in the loop's default executor, which has few workers.
    return await call_in_thread(
        lambda: postprocessor.postprocess_nodes(nodes, query_bundle=query), "sot-postprocess-nodes"
    )


def _overrides(thing: object, method: str, base: type) -> bool:
    return inspect.getattr_static(type(thing), method) is not inspect.getattr_static(base, method, None)


@dataclass(frozen=True)
class Packer:
    """Makes a context fit the model's window, by LlamaIndex's `PromptHelper`.

    Attributes:
        helper: It knows the window and counts tokens.
        llm: The model.
        prompt: The longest prompt of the answer, without its context.
    """

    helper: PromptHelper
    llm: LLM
    prompt: str

    def fitting(self, chunks: Sequence[str]) -> list[str]:
        """The chunks, unchanged if all of them fit together; else each cut to its share of the window.

        Raises:
            ValueError: The prompt alone leaves no room.
        """
        if not chunks:
            return []
        template = PromptTemplate("{prompt}{context_str}", prompt=self.prompt)
        if len(self.helper.repack(template, chunks, llm=self.llm)) <= 1:
            return list(chunks)
        return self.helper.truncate(template, chunks, llm=self.llm)


@dataclass
class Readings:
    """What was found for one answer, as the model reads it.

    Attributes:
        packer: Makes it fit the window; None for what fits already.
        citations: Whether each node has a number. It is the node's place in `cited`, in order of arrival, and the same
            wherever the node turns up again.
    """

    packer: Packer | None = None
    citations: bool = False
    cited: list[NodeWithScore] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self, nodes: Sequence[NodeWithScore]) -> str:
        """The context that these nodes make."""
        chunks = [node.node.get_content(metadata_mode=MetadataMode.LLM).strip() for node in nodes]
        if self.citations:
            numbers = self._numbers(nodes)
            chunks = [f"[{number}] {chunk}" for number, chunk in zip(numbers, chunks, strict=True)]
        chunks = [chunk for chunk in chunks if chunk]
        return "\n\n".join(self.packer.fitting(chunks) if self.packer else chunks)

    def _numbers(self, nodes: Sequence[NodeWithScore]) -> list[int]:
        with self._lock:
            ids = [node.node.node_id for node in self.cited]
            for node in nodes:
                if node.node.node_id not in ids:
                    ids.append(node.node.node_id)
                    self.cited.append(node)
            return [ids.index(node.node.node_id) + 1 for node in nodes]


def copy_of(query: QueryBundle) -> QueryBundle:
    """A bundle that retrievers may write into: some put an embedding there."""
    return replace(query)
