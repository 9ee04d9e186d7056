"""The response synthesizer: Skeleton-of-Thought over nodes that another engine has retrieved."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent, SynthesizeStartEvent
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType, TextNode
from llama_index.core.types import RESPONSE_TEXT_TYPE
from llama_index_instrumentation import get_dispatcher

from llama_index_sot.answering import Answering, Plan
from llama_index_sot.backends import Concurrency, find_backend
from llama_index_sot.options import RouterOption, SettingsOptions, check_options
from llama_index_sot.packing import packer_of
from llama_index_sot.responding import astreaming_response, streaming_response, whole_response
from llama_index_sot.response import (
    AsyncSkeletonOfThoughtStreamingResponse,
    SkeletonOfThoughtResponse,
    SkeletonOfThoughtStreamingResponse,
    union,
)
from llama_index_sot.templates import KEYS, Templates
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings

__all__ = ["SkeletonOfThoughtSynthesizer"]

dispatcher = get_dispatcher(__name__)

_EMPTY = "Empty Response"
"""What LlamaIndex's synthesizers answer where there are no nodes."""
_KEYS = tuple(key for key in KEYS if key != "point_query_template")


class SkeletonOfThoughtSynthesizer(BaseSynthesizer):
    """Answers a query by Skeleton-of-Thought over the nodes it is given.

    All prompts of an answer show the nodes. Where they do not fit the LLM's window together, each is cut to its share
    by LlamaIndex's `PromptHelper`. For retrieval per point, which a synthesizer cannot do, there is
    `SkeletonOfThoughtQueryEngine`.

    `synthesize` returns a `SkeletonOfThoughtResponse`, whose `metadata` has that of the nodes and `"sot"`; with
    `streaming=True` a streaming one.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from llama_index_sot import SkeletonOfThoughtSynthesizer
        >>> synthesizer = SkeletonOfThoughtSynthesizer(
        ...     llm=MockLLM(),
        ...     router=None,
        ...     skeleton_template="1. Rain ({query_str})",
        ...     point_template="{title}: {context_str}",
        ... )
        >>> nodes = [NodeWithScore(node=TextNode(text="It often rains in Bergen."))]
        >>> print(synthesizer.synthesize("What is Bergen like?", nodes))
        1. Rain (What is Bergen like?): It often rains in Bergen.

    Args:
        llm: Writes skeletons, merges and direct answers, and the points, too; None for `Settings.llm`.
        point_llm: Another one for the points.
        streaming: Return streaming responses.
        on_no_nodes: What is answered where nothing was retrieved: `"empty_response"`, the text of that name, without
            any call, as LlamaIndex's synthesizers do; `"answer"`, by the LLM alone.
        empty_response: That text; None for LlamaIndex's own.
        router: As for the engine. A direct answer is asked for by `direct_template`, over the nodes.
        num_workers: The most calls that are open at a time in one answer; None for no limit.
        concurrency: As for the engine.
        citations: Number the nodes, and ask the model to cite them: `[3]` is `response.source_nodes[2]`.
        prompts: The core's prompts; None for the project's own.
        skeleton_template: As for the engine, and so are the others.
        point_template: See there.
        merge_template: See there.
        direct_template: See there.
        context_template: See there.
        prompt_helper: Makes a context fit the LLM's window; None for one by `llm.metadata`.
        callback_manager: For the legacy callbacks; that of the LLM stays what it is.
        settings: See `skeleton_of_thought.settings.Settings`.

    Raises:
        InvalidInput: A value that cannot work; a `ValueError`.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        *,
        point_llm: LLM | None = None,
        streaming: bool = False,
        on_no_nodes: Literal["empty_response", "answer"] = "empty_response",
        empty_response: str | None = None,
        router: RouterOption = "auto",
        num_workers: int | None = 8,
        concurrency: Concurrency = "auto",
        citations: bool = False,
        prompts: PromptSet | None = None,
        skeleton_template: BasePromptTemplate | str | None = None,
        point_template: BasePromptTemplate | str | None = None,
        merge_template: BasePromptTemplate | str | None = None,
        direct_template: BasePromptTemplate | str | None = None,
        context_template: BasePromptTemplate | str | None = None,
        prompt_helper: PromptHelper | None = None,
        callback_manager: CallbackManager | None = None,
        **settings: Unpack[SettingsOptions],
    ) -> None:
        if on_no_nodes not in ("empty_response", "answer"):
            raise InvalidInput(f"on_no_nodes must be 'empty_response' or 'answer', not {on_no_nodes!r}.")
        # Without the callback manager: the base class would put it into the LLM, which may be others', too.
        super().__init__(llm, prompt_helper=prompt_helper, streaming=streaming)
        self._empty_response = _EMPTY if empty_response is None else empty_response
        if callback_manager is not None:
            self._callback_manager = callback_manager
        self._own_prompt_helper = prompt_helper
        self._point_llm = point_llm or self._llm
        self._settings = Settings(**settings)
        llms = {"llm": self._llm, "point_llm": self._point_llm}
        self._router = check_options(llms, router, self._settings, concurrency, num_workers)
        self._on_no_nodes = on_no_nodes
        self._num_workers = num_workers
        self._concurrency: Concurrency = concurrency
        self._citations = citations
        self._templates = Templates(prompts or PromptSet(), self._llm, citations, _KEYS)
        given = (skeleton_template, point_template, merge_template, direct_template, context_template)
        self._templates.update(dict(zip(_KEYS, given, strict=True)))

    # --- prompts ---

    def _get_prompts(self) -> PromptDictType:
        return self._templates.shown()

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        self._templates.update({key: prompt for key, prompt in prompts_dict.items() if ":" not in key})

    # --- the text alone ---

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> RESPONSE_TEXT_TYPE:
        """The text of an answer over these chunks; a generator of it with `streaming=True`.

        Args:
            query_str: What is asked.
            text_chunks: The context.
            response_kwargs: Values that the templates may mention.
        """
        answering = self._answering(QueryBundle(query_str), _as_nodes(text_chunks), response_kwargs, sync=True)
        return answering.texts() if self._streaming else answering.whole()

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """Async twin of `get_response`."""
        answering = self._answering(QueryBundle(query_str), _as_nodes(text_chunks), response_kwargs, sync=False)
        return answering.atexts() if self._streaming else await answering.awhole()

    # --- responses ---

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The answer to a query over these nodes.

        Args:
            query: What is asked.
            nodes: What every prompt shows.
            additional_source_nodes: What is told as sources besides.
            response_kwargs: Values that the templates may mention.
        """
        with self._told(query) as (bundle, told):
            response: RESPONSE_TYPE
            if not nodes and self._on_no_nodes == "empty_response":
                response = self._empty()
            else:
                answering = self._answering(bundle, nodes, response_kwargs, sync=True)
                if self._streaming:
                    response = streaming_response(answering)
                else:
                    answering.whole()
                    response = whole_response(answering)
            told.append(self._with_sources(response, [*nodes, *(additional_source_nodes or ())]))
        return response

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Async twin of `synthesize`."""
        with self._told(query) as (bundle, told):
            response: RESPONSE_TYPE
            if not nodes and self._on_no_nodes == "empty_response":
                response = self._aempty()
            else:
                answering = self._answering(bundle, nodes, response_kwargs, sync=False)
                if self._streaming:
                    response = await astreaming_response(answering)
                else:
                    await answering.awhole()
                    response = whole_response(answering)
            told.append(self._with_sources(response, [*nodes, *(additional_source_nodes or ())]))
        return response

    # --- inside ---

    def _answering(
        self, query: QueryBundle, nodes: Sequence[NodeWithScore], response_kwargs: Mapping[str, Any], *, sync: bool
    ) -> Answering:
        llm, point_llm = (find_backend(llm, self._concurrency) for llm in (self._llm, self._point_llm))
        plan = Plan(
            llm=llm,
            point_llm=point_llm,
            prompts=self._templates.core(response_kwargs),
            settings=self._settings,
            router=self._router,
            num_workers=self._num_workers,
            retrieval="once" if nodes else "none",
            finder=_Given(list(nodes)),
            packer=packer_of(
                self._own_prompt_helper, (llm, point_llm), self._templates, self._settings, response_kwargs
            ),
            citations=self._citations,
        )
        return Answering(plan, query, self._callback_manager, live=self._streaming, sync=sync)

    def _empty(self) -> RESPONSE_TYPE:
        if self._streaming:
            return SkeletonOfThoughtStreamingResponse(_one(self._empty_response), metadata={})
        return SkeletonOfThoughtResponse(self._empty_response, metadata={})

    def _aempty(self) -> RESPONSE_TYPE:
        if not self._streaming:
            return self._empty()
        text = self._empty_response
        return AsyncSkeletonOfThoughtStreamingResponse(_aone(text), metadata={}, write_blocking=lambda: text)

    def _with_sources(self, response: Any, nodes: list[NodeWithScore]) -> RESPONSE_TYPE:
        """The response with the sources as LlamaIndex's synthesizers tell them: all that were given, with metadata."""
        # Cited nodes have numbers, so there each of them stands once.
        response.source_nodes[:] = union([nodes]) if self._citations else nodes
        response.metadata |= {source.node.node_id: source.node.metadata for source in nodes}
        return response  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _told(self, query: QueryType) -> Iterator[tuple[QueryBundle, list[RESPONSE_TYPE]]]:
        """What `BaseSynthesizer` tells of a synthesis; it ends with the response that is put into the list."""
        told: list[RESPONSE_TYPE] = []
        dispatcher.event(SynthesizeStartEvent(query=query))
        bundle = QueryBundle(query) if isinstance(query, str) else query
        payload: dict[str, Any] = {EventPayload.QUERY_STR: bundle.query_str}
        with self._callback_manager.event(CBEventType.SYNTHESIZE, payload=payload) as event:
            yield bundle, told
            event.on_end(payload={EventPayload.RESPONSE: told[-1]})
        dispatcher.event(SynthesizeEndEvent(query=bundle, response=told[-1]))


@dataclass(frozen=True)
class _Given:
    """Finds what there is already."""

    nodes: list[NodeWithScore]

    def find(self, query: QueryBundle) -> list[NodeWithScore]:
        return self.nodes

    async def afind(self, query: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


def _one(text: str) -> Generator[str]:
    yield text


async def _aone(text: str) -> AsyncGenerator[str]:
    yield text


def _as_nodes(text_chunks: Sequence[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=chunk)) for chunk in text_chunks]
