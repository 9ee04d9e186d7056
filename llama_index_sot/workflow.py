"""A LlamaIndex workflow that answers queries by an engine."""

from __future__ import annotations

import contextlib
from typing import Unpack

from llama_index.core.schema import QueryBundle
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step

from llama_index_sot.events import AnswerReady
from llama_index_sot.options import AnswerOptions, EngineOptions, WorkflowOptions, check_names, document_options
from llama_index_sot.query_engine import SkeletonOfThoughtQueryEngine
from llama_index_sot.response import SkeletonOfThoughtResponse
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import Settings

__all__ = ["SkeletonOfThoughtWorkflow"]


@document_options(WorkflowOptions, EngineOptions, AnswerOptions, Settings)
class SkeletonOfThoughtWorkflow(Workflow):
    """Answers a query by an engine, and streams the events of the answer; see `llama_index_sot.events`.

    Its result is the `SkeletonOfThoughtResponse`. A run that is cancelled, or takes longer than `timeout`, cancels all
    open calls.

    Example:
        >>> import asyncio
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index_sot import SkeletonOfThoughtQueryEngine, SkeletonOfThoughtWorkflow
        >>> engine = SkeletonOfThoughtQueryEngine.from_defaults(
        ...     MockLLM(), skeleton_template="1. Rain ({query_str})", point_template="All about {title}", router=None
        ... )
        >>> async def main():
        ...     handler = SkeletonOfThoughtWorkflow(engine).run(query="Bergen")
        ...     async for event in handler.stream_events():
        ...         if hasattr(event, "titles"):
        ...             print(event.titles)
        ...     print(await handler)
        >>> asyncio.run(main())
        ['Rain (Bergen)']
        1. Rain (Bergen): All about Rain (Bergen)

    Args:
        engine: Answers the queries; None to make an engine from `options`.
        timeout: Seconds that a run may take; None for no limit.
        verbose: Print the steps, as every workflow can.
        options: The arguments of `SkeletonOfThoughtQueryEngine.from_defaults`, typed in
            `llama_index_sot.options.WorkflowOptions`. `help` lists all of them.

    Raises:
        InvalidInput: There are both an engine and options, or options that cannot work.
        TypeError: There is no such option.
    """

    def __init__(
        self,
        engine: SkeletonOfThoughtQueryEngine | None = None,
        *,
        timeout: float | None = None,
        verbose: bool = False,
        **options: Unpack[WorkflowOptions],
    ) -> None:
        check_names(SkeletonOfThoughtWorkflow, options)
        if engine is not None and options:
            raise InvalidInput(f"Give an engine, or the options for one ({', '.join(options)}), not both.")
        if engine is not None and not isinstance(engine, SkeletonOfThoughtQueryEngine):
            name = type(engine).__name__
            raise InvalidInput(f"engine must be a SkeletonOfThoughtQueryEngine, not {name}; pass an LLM as llm=...")
        super().__init__(timeout=timeout, verbose=verbose)
        self._engine = engine or SkeletonOfThoughtQueryEngine.from_defaults(**options)

    @step
    async def answer(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """Answers the event's `query`, a string or a `QueryBundle`."""
        query = ev.get("query")
        if not isinstance(query, str | QueryBundle):
            raise InvalidInput(f"run(query=...) needs a string or a QueryBundle, not {type(query).__name__}.")
        response: SkeletonOfThoughtResponse | None = None
        async with contextlib.aclosing(self._engine.astream_events(query)) as events:
            async for event in events:
                if isinstance(event, AnswerReady):
                    response = event.response
                else:
                    ctx.write_event_to_stream(event)
        return StopEvent(result=response)
