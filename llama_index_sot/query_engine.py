"""The query engine: a skeleton of the answer first, then all points in parallel, each with its own sources."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Never, Unpack, get_args

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType

from llama_index_sot.answer import AnswerConfig, AnswerRun
from llama_index_sot.context import make_packer
from llama_index_sot.events import AnswerReady, SkeletonOfThoughtEvent, typed_event
from llama_index_sot.llm_calls import Concurrency, resolve_both
from llama_index_sot.options import (
    AnswerOptions,
    EngineOptions,
    OnNoNodes,
    RouterOption,
    check_names,
    check_options,
    document_options,
    empty_text,
    plan_memory,
    split_options,
)
from llama_index_sot.retrieval import RetrieverFinder
from llama_index_sot.templates import Templates
from llama_index_sot.tracing import event_span, query_event
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Retrieval

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = ["SkeletonOfThoughtQueryEngine"]


class SkeletonOfThoughtQueryEngine(BaseQueryEngine):
    """Answers a query by Skeleton-of-Thought.

    `query` and `aquery` return a `SkeletonOfThoughtResponse`; with `streaming=True` a
    `SkeletonOfThoughtStreamingResponse` or its async twin. `astream_events` yields the events of the answer.

    Example:
        >>> from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
        >>> from llama_index_sot import SkeletonOfThoughtQueryEngine
        >>> class Scripted(CustomLLM):
        ...     @property
        ...     def metadata(self):
        ...         return LLMMetadata()
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         headings = "Write only the headings" in prompt
        ...         return CompletionResponse(text="1. Move\\n2. Drink water" if headings else "It helps.")
        ...     def stream_complete(self, prompt, formatted=False, **kwargs):
        ...         yield self.complete(prompt)
        >>> engine = SkeletonOfThoughtQueryEngine.from_defaults(llm=Scripted())
        >>> response = engine.query("What are good ways to stay awake?")
        >>> print(response)
        1. Move: It helps.
        <BLANKLINE>
        2. Drink water: It helps.
        >>> [point.title for point in response.points]
        ['Move', 'Drink water']

    `from_defaults` makes an engine.
    """

    # Engines from older pickles have none of these.
    _nothing_found: str | None = None
    _multimodal = False
    _plans: PlanMemory | None = None

    def __init__(
        self,
        llm: LLM,
        *,
        point_llm: LLM | None = None,
        finder: RetrieverFinder | None = None,
        retrieval: Retrieval = "none",
        templates: Templates | None = None,
        settings: Settings | None = None,
        router: RouterOption = "auto",
        concurrency: Concurrency = "auto",
        num_workers: int | None = 8,
        streaming: bool = False,
        citations: bool = False,
        on_no_nodes: OnNoNodes = "empty_response",
        empty_response: str | None = None,
        multimodal: bool = False,
        prompt_helper: PromptHelper | None = None,
        callback_manager: CallbackManager | None = None,
        **others: Never,
    ) -> None:
        if others:
            raise InvalidInput(
                f"{', '.join(others)}: SkeletonOfThoughtQueryEngine.from_defaults(llm, ...) takes these options."
            )
        self._llm = llm
        self._point_llm = point_llm or llm
        self._settings = settings or Settings()
        llms = {"llm": self._llm, "point_llm": self._point_llm}
        self._router = check_options(llms, router, self._settings, concurrency, num_workers, multimodal=multimodal)
        self._plans = plan_memory(self._settings)
        self._nothing_found = empty_text(on_no_nodes, empty_response)
        self._multimodal = multimodal
        self._finder = finder
        self._retrieval: Retrieval = _check_retrieval(retrieval, finder)
        self._citations = citations
        self._templates = templates or Templates(PromptSet(), llm, citations)
        self._concurrency: Concurrency = concurrency
        self._num_workers = None if num_workers is None else int(num_workers)
        self._streaming = streaming
        self._prompt_helper = prompt_helper
        super().__init__(callback_manager=callback_manager or LlamaIndexSettings.callback_manager)

    @classmethod
    @document_options(EngineOptions, AnswerOptions, Settings)
    def from_defaults(
        cls,
        llm: LLM | None = None,
        *,
        retriever: BaseRetriever | None = None,
        **options: Unpack[EngineOptions],
    ) -> SkeletonOfThoughtQueryEngine:
        """Makes an engine, with LlamaIndex's defaults for missing options.

        Args:
            llm: Writes skeletons, merges and direct answers, and the points, too; None for `Settings.llm`.
            retriever: Retrieves the nodes.
            options: `llama_index_sot.options.EngineOptions` has how nodes are retrieved (`query_engine`, `retrieval`,
                `node_postprocessors`); `AnswerOptions` another `point_llm`, the `router`, `streaming`, `num_workers`,
                `concurrency`, `citations`, `on_no_nodes`, templates and other prompts;
                `skeleton_of_thought.settings.Settings` has `max_points`, `planning`, `merge` and the other settings.
                `help` lists all of them.

        Raises:
            InvalidInput: A value that cannot work; a `ValueError`.
            TypeError: There is no such option.
        """
        split = split_options(SkeletonOfThoughtQueryEngine.from_defaults, options)
        others = split.others
        query_engine = others.pop("query_engine", None)
        if retriever is not None and query_engine is not None:
            raise InvalidInput("Give a retriever or a query_engine to retrieve by, not both.")
        llm = llm or _llm_of(query_engine) or LlamaIndexSettings.llm
        templates = Templates(
            others.pop("prompts", None) or PromptSet(),
            llm,
            others.get("citations", False),
            planned=split.settings.planning in ("scoped", "graph"),
        )
        templates.update(split.templates)
        callback_manager = others.pop("callback_manager", None) or LlamaIndexSettings.callback_manager
        postprocessors = tuple(others.pop("node_postprocessors", None) or ())
        source = retriever if retriever is not None else query_engine
        if source is None and postprocessors:
            raise InvalidInput("There are node_postprocessors, but nothing is retrieved: give a retriever, too.")
        for postprocessor in postprocessors:
            postprocessor.callback_manager = callback_manager
        threads = others.get("concurrency") == "thread"
        finder = None if source is None else RetrieverFinder(source, postprocessors, threads=threads)
        return cls(
            llm,
            finder=finder,
            retrieval=others.pop("retrieval", None) or ("none" if finder is None else "per_point"),
            templates=templates,
            settings=split.settings,
            callback_manager=callback_manager,
            **others,
        )

    @classmethod
    @document_options(EngineOptions, AnswerOptions, Settings)
    def from_args(
        cls, retriever: BaseRetriever, llm: LLM | None = None, **options: Unpack[EngineOptions]
    ) -> SkeletonOfThoughtQueryEngine:
        """Makes an engine over a retriever, as `RetrieverQueryEngine.from_args` does.

        Args:
            retriever: Retrieves the nodes.
            llm: None for `Settings.llm`.
            options: As for `from_defaults`.

        Raises:
            InvalidInput: A value that cannot work; a `ValueError`.
            TypeError: There is no such option.
        """
        check_names(SkeletonOfThoughtQueryEngine.from_args, options)
        return cls.from_defaults(llm, retriever=retriever, **options)

    # --- the interface of LlamaIndex's engines ---

    def _get_prompts(self) -> PromptDictType:
        return self._templates.shown()

    def _get_prompt_modules(self) -> PromptMixinType:
        # The retriever is left out, too: an outer engine would list its prompts but could not update them, because
        # `update_prompts` splits keys at every colon.
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        self._templates.update({key: prompt for key, prompt in prompts_dict.items() if ":" not in key})

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The nodes for a query, postprocessed.

        Raises:
            NotImplementedError: This engine has no retriever.
        """
        if self._finder is None:
            return super().retrieve(query_bundle)
        return self._finder.find(query_bundle)

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Async twin of `retrieve`."""
        if self._finder is None:
            return super().retrieve(query_bundle)
        return await self._finder.afind(query_bundle)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with query_event(self.callback_manager, query_bundle) as responses:
            response = self._begin(query_bundle, live=self._streaming, sync=True).respond()
            responses.append(response)
            return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with query_event(self.callback_manager, query_bundle) as responses:
            response = await self._begin(query_bundle, live=self._streaming, sync=False).arespond()
            responses.append(response)
            return response

    # --- events ---

    async def astream_events(self, str_or_query_bundle: QueryType) -> AsyncGenerator[SkeletonOfThoughtEvent]:
        """Answers a query and yields the events of the answer; see `llama_index_sot.events`.

        The last event is an `AnswerReady` with the response. To stop early, close it by `contextlib.aclosing`: all open
        calls are then cancelled.

        Example:
            >>> async def show(engine, query):
            ...     async for event in engine.astream_events(query):
            ...         match event:
            ...             case SkeletonReady():
            ...                 print("Points:", *event.titles)
            ...             case PointDelta():
            ...                 print(event.index, event.text)
            ...             case AnswerReady():
            ...                 print(event.response)
        """
        query = QueryBundle(str_or_query_bundle) if isinstance(str_or_query_bundle, str) else str_or_query_bundle
        async with event_span(self, query) as (context, responses):
            run = context.run(lambda: self._begin(query, live=True, sync=False))
            async with contextlib.aclosing(run.aevents()) as events:
                async for event in events:
                    if (typed := context.run(typed_event, event, run.waves)) is not None:
                        yield typed
            response = run.response()
            responses.append(response)
            yield context.run(lambda: AnswerReady(response=response))

    # --- answers ---

    def _begin(
        self,
        query: QueryBundle,
        *,
        live: bool,
        sync: bool,
        adapt: Callable[[AnswerConfig], AnswerConfig] | None = None,
    ) -> AnswerRun:
        llm, point_llm = resolve_both(self._llm, self._point_llm, self._concurrency)
        packer = None
        if self._finder is not None:
            packer = make_packer(self._prompt_helper, (llm, point_llm), self._templates, self._settings)
        config = AnswerConfig(
            llm=llm,
            point_llm=point_llm,
            prompts=self._templates.prompt_set(),
            settings=self._settings,
            router=self._router,
            num_workers=self._num_workers,
            retrieval=self._retrieval,
            finder=self._finder,
            point_query=self._templates.point_query,
            packer=packer,
            citations=self._citations,
            nothing_found=self._nothing_found,
            multimodal=self._multimodal,
            plans=self._plans,
        )
        if adapt is not None:
            config = adapt(config)
        return AnswerRun(config, query, self.callback_manager, live=live, sync=sync)


def _check_retrieval(retrieval: str, finder: RetrieverFinder | None) -> Any:
    if retrieval not in get_args(Retrieval):
        raise InvalidInput(f"retrieval must be {' or '.join(map(repr, get_args(Retrieval)))}, not {retrieval!r}.")
    if retrieval != "none" and finder is None:
        raise InvalidInput(f"retrieval={retrieval!r} needs a retriever: give one, such as index.as_retriever().")
    if retrieval == "none" and finder is not None:
        raise InvalidInput('There is a retriever, but retrieval="none" never uses it. Use "once" or "per_point".')
    return retrieval


def _llm_of(query_engine: BaseQueryEngine | None) -> LLM | None:
    """The LLM of an engine over a retriever."""
    llm = getattr(getattr(query_engine, "_response_synthesizer", None), "_llm", None)
    return llm if isinstance(llm, LLM) else None
