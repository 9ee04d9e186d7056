"""The query engine: a skeleton of the answer first, then all points in parallel, each with its own sources."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, Never, get_args

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType

from llama_index_sot.answering import Answering, Plan
from llama_index_sot.backends import Concurrency, find_backend
from llama_index_sot.events import AnswerReady, SkeletonOfThoughtEvent, typed_event
from llama_index_sot.options import RouterOption, check_options
from llama_index_sot.packing import packer_of
from llama_index_sot.responding import astreaming_response, streaming_response, whole_response
from llama_index_sot.retrieval import Retrieval
from llama_index_sot.templates import KEYS, Templates
from llama_index_sot.tracing import outer_span, query_event
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Retrieval as RetrievalMode

__all__ = ["SkeletonOfThoughtQueryEngine"]


class SkeletonOfThoughtQueryEngine(BaseQueryEngine):
    """Answers a query by Skeleton-of-Thought.

    `query` and `aquery` return a `SkeletonOfThoughtResponse`; with `streaming=True` a
    `SkeletonOfThoughtStreamingResponse` or its async twin. `astream_events` yields what happens on the way.

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

    Args: see `from_defaults`, which fills them in.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        point_llm: LLM | None = None,
        finder: Retrieval | None = None,
        retrieval: RetrievalMode = "none",
        templates: Templates | None = None,
        settings: Settings | None = None,
        router: RouterOption = "auto",
        concurrency: Concurrency = "auto",
        num_workers: int | None = 8,
        streaming: bool = False,
        citations: bool = False,
        prompt_helper: PromptHelper | None = None,
        callback_manager: CallbackManager | None = None,
        **others: Never,
    ) -> None:
        if others:
            raise InvalidInput(
                f"{', '.join(others)}: such options are taken by SkeletonOfThoughtQueryEngine.from_defaults(llm, ...)."
            )
        self._llm = llm
        self._point_llm = point_llm or llm
        self._settings = settings or Settings()
        llms = {"llm": self._llm, "point_llm": self._point_llm}
        self._router = check_options(llms, router, self._settings, concurrency, num_workers)
        self._finder = finder
        self._retrieval: RetrievalMode = _retrieval(retrieval, finder)
        self._citations = citations
        self._templates = templates or Templates(PromptSet(), llm, citations)
        self._concurrency: Concurrency = concurrency
        self._num_workers = num_workers
        self._streaming = streaming
        self._prompt_helper = prompt_helper
        super().__init__(callback_manager=callback_manager or LlamaIndexSettings.callback_manager)

    @classmethod
    def from_defaults(
        cls,
        llm: LLM | None = None,
        *,
        point_llm: LLM | None = None,
        retriever: BaseRetriever | None = None,
        query_engine: BaseQueryEngine | None = None,
        retrieval: RetrievalMode | None = None,
        node_postprocessors: Sequence[BaseNodePostprocessor] | None = None,
        citations: bool = False,
        router: RouterOption = "auto",
        streaming: bool = False,
        num_workers: int | None = 8,
        concurrency: Concurrency = "auto",
        max_points: int = 10,
        min_points: int = 1,
        eager: bool = False,
        on_empty_skeleton: Literal["direct", "raise"] = "direct",
        on_point_error: Literal["raise", "placeholder"] = "raise",
        placeholder: str = Settings.placeholder,
        max_retries: int = 1,
        backoff: float = 0.5,
        point_timeout: float | None = None,
        point_words: int = 40,
        join: Literal["numbered", "headings", "paragraphs"] = "numbered",
        merge: bool = False,
        stop_loops: bool = False,
        prompts: PromptSet | None = None,
        skeleton_template: BasePromptTemplate | str | None = None,
        point_template: BasePromptTemplate | str | None = None,
        merge_template: BasePromptTemplate | str | None = None,
        direct_template: BasePromptTemplate | str | None = None,
        context_template: BasePromptTemplate | str | None = None,
        point_query_template: BasePromptTemplate | str | None = None,
        prompt_helper: PromptHelper | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> SkeletonOfThoughtQueryEngine:
        """An engine with LlamaIndex's defaults for what is not given.

        Args:
            llm: Writes skeletons, merges and direct answers, and the points, too; None for `Settings.llm`.
            point_llm: Another one for the points.
            retriever: Where nodes come from.
            query_engine: An engine that retrieves, such as `index.as_query_engine()`, in place of a retriever: its
                retriever, with its own postprocessors. Its response synthesizer is not used.
            retrieval: `"per_point"`: for each point, which sees its own nodes only. `"once"`: for the query, and every
                prompt shows the nodes. `"none"`: the LLM alone. None for per point if there is a retriever.
            node_postprocessors: Applied to the nodes of each retrieval, with the query that they were retrieved for.
            citations: Number the sources, and ask the model to cite them: `[3]` is `response.source_nodes[2]`.
            router: Decides whether a query is answered through a skeleton, or directly, as the LLM answers without
                this engine. `"auto"`: where a skeleton helps, by rules and a small model inside the package, without
                a call (`skeleton_of_thought.AutoRouter`); a `CostGuard` learns from this engine's answers. A function
                of the query, sync or async, or a core `Router`, such as `llama_index_sot.PromptRouter`. None for a
                skeleton always. `response.metadata["sot"]` has the `route` and the `reason`.
            streaming: Return streaming responses.
            num_workers: The most calls, of models and retrievals, that are open at a time in one answer; None for no
                limit.
            concurrency: How the LLM's calls run side by side under `aquery`. `"async"`: its async methods. `"thread"`:
                its sync methods, each call in a thread of its own; retrievals, too. `"batch"`: a local model, all calls
                decoded as one batch. `"auto"`: what it is fit for. `response.metadata["sot"]["concurrency"]` says
                what was chosen. `query` has no loop: it uses threads, or the batch.
            max_points: See `skeleton_of_thought.settings.Settings`, and so for all settings down to `stop_loops`.
            min_points: See there.
            eager: See there.
            on_empty_skeleton: See there.
            on_point_error: See there.
            placeholder: See there.
            max_retries: See there.
            backoff: See there.
            point_timeout: See there.
            point_words: See there.
            join: See there.
            merge: See there.
            stop_loops: See there.
            prompts: The core's prompts; None for the project's own.
            skeleton_template: Asks for the skeleton. `{query_str}` is needed.
            point_template: Asks for one point. `{title}` or `{index}` is needed; `{skeleton}` is the numbered list.
            merge_template: Asks for one text in place of the points, `{draft}`.
            direct_template: Asks for a direct answer where something was retrieved. `{query_str}` is needed.
            context_template: How nodes are shown, `{context_str}`, by templates that do not mention it themselves.
            point_query_template: What is retrieved for a point, of `{query_str}` and `{title}`. The default,
                `{title} ({query_str})`, is embedded as the mean of itself and the title alone; one of yours as it is.
            prompt_helper: Makes a context fit the LLM's window; None for one by `llm.metadata`.
            callback_manager: For the legacy callbacks; None for `Settings.callback_manager`.

        Raises:
            InvalidInput: A value that cannot work; a `ValueError`.
        """
        if retriever is not None and query_engine is not None:
            raise InvalidInput("Give a retriever or a query_engine to retrieve by, not both.")
        llm = llm or _llm_of(query_engine) or LlamaIndexSettings.llm
        templates = Templates(prompts or PromptSet(), llm, citations)
        given = (
            skeleton_template, point_template, merge_template, direct_template, context_template, point_query_template,
        )  # fmt: skip
        templates.update(dict(zip(KEYS, given, strict=True)))
        callback_manager = callback_manager or LlamaIndexSettings.callback_manager
        source = retriever if retriever is not None else query_engine
        finder = None
        if source is not None:
            for postprocessor in node_postprocessors or ():
                postprocessor.callback_manager = callback_manager
            finder = Retrieval(source, tuple(node_postprocessors or ()), threads=concurrency == "thread")
        elif node_postprocessors:
            raise InvalidInput("There are node_postprocessors, but nothing is retrieved: give a retriever, too.")
        return cls(
            llm,
            point_llm=point_llm,
            finder=finder,
            retrieval=retrieval or ("none" if finder is None else "per_point"),
            templates=templates,
            settings=Settings(
                max_points=max_points,
                min_points=min_points,
                eager=eager,
                on_empty_skeleton=on_empty_skeleton,
                on_point_error=on_point_error,
                placeholder=placeholder,
                max_retries=max_retries,
                backoff=backoff,
                point_timeout=point_timeout,
                point_words=point_words,
                join=join,
                merge=merge,
                stop_loops=stop_loops,
            ),
            router=router,
            concurrency=concurrency,
            num_workers=num_workers,
            streaming=streaming,
            citations=citations,
            prompt_helper=prompt_helper,
            callback_manager=callback_manager,
        )

    @classmethod
    def from_args(cls, retriever: BaseRetriever, llm: LLM | None = None, **kwargs: Any) -> SkeletonOfThoughtQueryEngine:
        """An engine over a retriever, as `RetrieverQueryEngine.from_args` makes one.

        Args:
            retriever: Where nodes come from.
            llm: None for `Settings.llm`.
            kwargs: As for `from_defaults`.
        """
        return cls.from_defaults(llm, retriever=retriever, **kwargs)

    # --- what LlamaIndex asks of an engine ---

    def _get_prompts(self) -> PromptDictType:
        return self._templates.shown()

    def _get_prompt_modules(self) -> PromptMixinType:
        # None, not even the retriever: an engine around this one could list their prompts, but not update them,
        # for `update_prompts` splits its keys at every colon.
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
        with query_event(self.callback_manager, query_bundle) as told:
            answering = self._answering(query_bundle, live=self._streaming, sync=True)
            response: RESPONSE_TYPE
            if self._streaming:
                response = streaming_response(answering)
            else:
                answering.whole()
                response = whole_response(answering)
            told.append(response)
            return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with query_event(self.callback_manager, query_bundle) as told:
            answering = self._answering(query_bundle, live=self._streaming, sync=False)
            response: RESPONSE_TYPE
            if self._streaming:
                response = await astreaming_response(answering)
            else:
                await answering.awhole()
                response = whole_response(answering)
            told.append(response)
            return response

    # --- events ---

    async def astream_events(self, str_or_query_bundle: QueryType) -> AsyncGenerator[SkeletonOfThoughtEvent]:
        """Answers a query and yields what happens on the way; see `llama_index_sot.events`.

        The last event is an `AnswerReady` with the response. Close it early by `contextlib.aclosing`: what is under way
        is then cancelled.

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
        async with outer_span(self, query) as (context, told):
            answering = context.run(lambda: self._answering(query, live=True, sync=False))
            async with contextlib.aclosing(answering.aevents()) as events:
                async for event in events:
                    if (typed := context.run(typed_event, event)) is not None:
                        yield typed
            response = whole_response(answering)
            told.append(response)
            yield context.run(lambda: AnswerReady(response=response))

    # --- inside ---

    def _answering(self, query: QueryBundle, *, live: bool, sync: bool) -> Answering:
        llm, point_llm = (find_backend(llm, self._concurrency) for llm in (self._llm, self._point_llm))
        plan = Plan(
            llm=llm,
            point_llm=point_llm,
            prompts=self._templates.core(),
            settings=self._settings,
            router=self._router,
            num_workers=self._num_workers,
            retrieval=self._retrieval,
            finder=self._finder,
            point_query=self._templates.point_query,
            packer=packer_of(self._prompt_helper, (llm, point_llm), self._templates, self._settings),
            citations=self._citations,
        )
        return Answering(plan, query, self.callback_manager, live=live, sync=sync)


def _retrieval(retrieval: str, finder: Retrieval | None) -> Any:
    if retrieval not in get_args(RetrievalMode):
        raise InvalidInput(f"retrieval must be {' or '.join(map(repr, get_args(RetrievalMode)))}, not {retrieval!r}.")
    if retrieval != "none" and finder is None:
        raise InvalidInput(f"retrieval={retrieval!r} needs a retriever: give one, such as index.as_retriever().")
    if retrieval == "none" and finder is not None:
        raise InvalidInput('There is a retriever, but retrieval="none" never asks it. Use "once" or "per_point".')
    return retrieval


def _llm_of(query_engine: BaseQueryEngine | None) -> LLM | None:
    """The LLM of an engine over a retriever."""
    llm = getattr(getattr(query_engine, "_response_synthesizer", None), "_llm", None)
    return llm if isinstance(llm, LLM) else None
