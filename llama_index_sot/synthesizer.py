"""The response synthesizer: Skeleton-of-Thought over nodes that another engine has retrieved."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType, TextNode
from llama_index.core.types import RESPONSE_TEXT_TYPE

from llama_index_sot.answer import AnswerConfig, AnswerRun
from llama_index_sot.context import make_packer
from llama_index_sot.llm_calls import Concurrency, resolve_both
from llama_index_sot.options import (
    AnswerOptions,
    check_options,
    document_options,
    empty_text,
    plan_memory,
    split_options,
)
from llama_index_sot.response import (
    AsyncSkeletonOfThoughtStreamingResponse,
    SkeletonOfThoughtResponse,
    SkeletonOfThoughtStreamingResponse,
    union,
)
from llama_index_sot.templates import KEYS, Templates
from llama_index_sot.tracing import synthesize_event
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = ["SkeletonOfThoughtSynthesizer"]

_KEYS = tuple(key for key in KEYS if key != "point_query_template")


@document_options(AnswerOptions, Settings)
class SkeletonOfThoughtSynthesizer(BaseSynthesizer):
    """Answers a query by Skeleton-of-Thought over the nodes it is given.

    All prompts of an answer show the nodes. Where they do not fit the LLM's window together, each is cut to its share
    by LlamaIndex's `PromptHelper`. A synthesizer cannot retrieve per point; `SkeletonOfThoughtQueryEngine` can.

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
        options: `llama_index_sot.options.AnswerOptions` has another `point_llm`, the `router`, `streaming`,
            `num_workers`, `concurrency`, `citations`, `on_no_nodes`, templates and other prompts;
            `skeleton_of_thought.settings.Settings` has `max_points`, `merge` and the other settings. `help` lists all
            of them. A direct answer is written over the nodes, too, by `direct_template`.

    Raises:
        InvalidInput: A value that cannot work; a `ValueError`.
        TypeError: There is no such option.
    """

    # Synthesizers from older pickles have neither.
    _multimodal = False
    _plans: PlanMemory | None = None

    def __init__(
        self,
        llm: LLM | None = None,
        **options: Unpack[AnswerOptions],
    ) -> None:
        split = split_options(SkeletonOfThoughtSynthesizer, options)
        helper = options.get("prompt_helper")
        # Without the callback manager: the base class would put it into the LLM, which others may use, too.
        super().__init__(llm, prompt_helper=helper, streaming=options.get("streaming", False))
        nothing_found = empty_text(options.get("on_no_nodes", "empty_response"), options.get("empty_response"))
        self._empty_response = nothing_found or ""
        self._on_no_nodes = "answer" if nothing_found is None else "empty_response"
        self._multimodal = options.get("multimodal", False)
        self._callback_manager = options.get("callback_manager") or self._callback_manager
        self._own_prompt_helper = helper
        self._point_llm = options.get("point_llm") or self._llm
        self._settings = split.settings
        self._plans = plan_memory(self._settings)
        num_workers = options.get("num_workers", 8)
        self._concurrency: Concurrency = options.get("concurrency", "auto")
        self._router = check_options(
            {"llm": self._llm, "point_llm": self._point_llm},
            options.get("router", "auto"),
            self._settings,
            self._concurrency,
            num_workers,
            multimodal=self._multimodal,
        )
        self._num_workers = None if num_workers is None else int(num_workers)
        self._citations = options.get("citations", False)
        planned = self._settings.planning in ("scoped", "graph")
        base = options.get("prompts") or PromptSet()
        self._templates = Templates(base, self._llm, self._citations, _KEYS, planned=planned)
        self._templates.update(split.templates)

    # --- prompts ---

    def _get_prompts(self) -> PromptDictType:
        return self._templates.shown()

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        self._templates.update({key: prompt for key, prompt in prompts_dict.items() if ":" not in key})

    # --- text ---

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> RESPONSE_TEXT_TYPE:
        """The text of an answer over these chunks; a generator of it with `streaming=True`.

        Args:
            query_str: The question.
            text_chunks: The context.
            response_kwargs: Variables that the templates may mention.
        """
        run = self._begin(QueryBundle(query_str), _as_nodes(text_chunks), response_kwargs, sync=True)
        return run.texts() if self._streaming else run.whole()

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """Async twin of `get_response`."""
        run = self._begin(QueryBundle(query_str), _as_nodes(text_chunks), response_kwargs, sync=False)
        return run.atexts() if self._streaming else await run.awhole()

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
            query: The question.
            nodes: The nodes that every prompt shows.
            additional_source_nodes: Further nodes for the response's sources.
            response_kwargs: Variables that the templates may mention.
        """
        with synthesize_event(self._callback_manager, query) as (bundle, responses):
            if not nodes and self._on_no_nodes == "empty_response":
                response = self._empty()
            else:
                response = self._begin(bundle, nodes, response_kwargs, sync=True).respond()
            responses.append(self._with_sources(response, [*nodes, *(additional_source_nodes or ())]))
        return response

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Async twin of `synthesize`."""
        with synthesize_event(self._callback_manager, query) as (bundle, responses):
            response: RESPONSE_TYPE
            if not nodes and self._on_no_nodes == "empty_response":
                response = self._aempty()
            else:
                response = await self._begin(bundle, nodes, response_kwargs, sync=False).arespond()
            responses.append(self._with_sources(response, [*nodes, *(additional_source_nodes or ())]))
        return response

    # --- answers ---

    def _begin(
        self, query: QueryBundle, nodes: Sequence[NodeWithScore], response_kwargs: Mapping[str, Any], *, sync: bool
    ) -> AnswerRun:
        llm, point_llm = resolve_both(self._llm, self._point_llm, self._concurrency)
        config = AnswerConfig(
            llm=llm,
            point_llm=point_llm,
            prompts=self._templates.prompt_set(response_kwargs),
            settings=self._settings,
            router=self._router,
            num_workers=self._num_workers,
            retrieval="once" if nodes else "none",
            finder=_GivenNodes(list(nodes)),
            packer=make_packer(
                self._own_prompt_helper, (llm, point_llm), self._templates, self._settings, response_kwargs
            ),
            citations=self._citations,
            multimodal=self._multimodal,
            plans=self._plans,
        )
        return AnswerRun(config, query, self._callback_manager, live=self._streaming, sync=sync)

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
        """The response with the sources that LlamaIndex's synthesizers report: all given nodes, and their metadata."""
        # Cited nodes have numbers, so each is listed once.
        response.source_nodes[:] = union([nodes]) if self._citations else nodes
        response.metadata |= {source.node.node_id: source.node.metadata for source in nodes}
        return response  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _GivenNodes:
    """Finds the nodes that another engine has retrieved."""

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
