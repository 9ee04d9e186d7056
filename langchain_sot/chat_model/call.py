"""One call on the chat model: its config, its run and its route."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun, CallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig

from langchain_sot.messages import without_usage
from langchain_sot.models.resolution import ChainModels
from langchain_sot.plan import AnswerPlan, rows_of

if TYPE_CHECKING:
    from langchain_sot.chat_model.route import CallRoute
    from skeleton_of_thought.budget import Budget

__all__ = ["ChatCall", "batch_call"]

_HIDDEN_FROM_STREAMS = ("nostream", "langsmith:nostream")
"""LangGraph does not stream the tokens of model runs with these tags. The answer's own run streams its tokens in order;
from its calls they would come a second time, mixed."""


class _RunListener(BaseCallbackHandler):
    """Notes the id of the run when it begins, and ends the answer's calls when the run fails.

    Handlers after it see the run's result without usage, for the tokens are counted at the calls.
    """

    run_inline = True

    def __init__(self, call: ChatCall) -> None:
        self._call = call

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **_: Any) -> None:
        self._call.run_id = run_id

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        response.generations = [[without_usage(generation) for generation in row] for row in response.generations]

    def on_llm_error(self, error: BaseException, **_: Any) -> Any:
        self._call.close()


class _AsyncRunListener(_RunListener):
    async def on_llm_error(self, error: BaseException, **_: Any) -> None:
        await self._call.aclose()


@dataclass
class ChatCall:
    """One call on the chat model.

    `BaseChatModel` never passes the caller's config to `_generate` and `_stream`, and passes the run only sometimes. A
    copy of the model, made for the call, holds both here.

    Attributes:
        config: The caller's config.
        run: The model's run, where `BaseChatModel` passes it.
        inherited: The callback manager of the run, where it does not. The answer's calls inherit from it.
        run_id: The id of that run, once it has begun.
        shared: Whether the call is one of a batch.
        share: The most calls that one answer of a batch may have open; None for no limit.
        budget: The budget that the answers of a batch share.
        route: The route of the call; None before it is known.
        source: The iterator that `_stream` or `_astream` returned.
    """

    config: RunnableConfig
    run: Any = None
    inherited: CallbackManager | AsyncCallbackManager | None = None
    shared: bool = False
    share: int | None = None
    budget: Budget | None = None
    route: CallRoute | None = None
    run_id: Any = field(default=None, init=False)
    source: Any = field(default=None, init=False)
    _closing: asyncio.Future[None] | None = field(default=None, init=False)

    def listen(self, manager: CallbackManager | AsyncCallbackManager) -> None:
        """Watches the one run that this manager will begin.

        If a handler interrupts that run, or its stream is closed, `BaseChatModel` leaves the iterator of `_stream` open
        and reports the end of the run to all handlers. This listener goes first in the list, so that the runs of the
        answer's calls end before their parent.
        """
        self.inherited = manager
        is_async = isinstance(manager, AsyncCallbackManager)
        manager.handlers.insert(0, _AsyncRunListener(self) if is_async else _RunListener(self))

    def child_config(self, run: Any) -> RunnableConfig:
        """The config of the answer's calls, whose runs are children of the model's run."""
        config: RunnableConfig = {"tags": [*_HIDDEN_FROM_STREAMS]}
        for name in ("max_concurrency", "configurable", "recursion_limit"):
            if self.config.get(name) is not None:
                config[name] = self.config[name]
        run = run or self.run
        source, run_id = (run, run.run_id) if run else (self.inherited, self.run_id)
        if source is not None:
            is_async = isinstance(source, AsyncCallbackManager | AsyncCallbackManagerForLLMRun)
            config["callbacks"] = (AsyncCallbackManager if is_async else CallbackManager)(
                handlers=[*source.inheritable_handlers],
                inheritable_handlers=[*source.inheritable_handlers],
                parent_run_id=run_id,
                tags=[*source.inheritable_tags],
                inheritable_tags=[*source.inheritable_tags],
                metadata={**source.inheritable_metadata},
                inheritable_metadata={**source.inheritable_metadata},
            )
        return config

    def close(self) -> None:
        """Ends all calls of the answer."""
        if self.source is not None:
            self.source.close()

    async def aclose(self) -> None:
        """Async twin of `close`. Safe to await again after a cancellation."""
        if self.source is None:
            return
        if self._closing is None:
            self._closing = asyncio.ensure_future(self.source.aclose())
        await asyncio.shield(self._closing)


def batch_call(plan: AnswerPlan, configs: Sequence[RunnableConfig]) -> tuple[ChatCall, int]:
    """The shared state of the calls of a batch, and the most answers that run at once.

    All answers take their calls from one budget, and slow down together if a server limits its rate. With a limit each
    has an equal share of it besides, since the `llm` makes direct answers outside the budget.

    Args:
        plan: The plan of the answers.
        configs: A config for each answer; the `max_concurrency` of the first one counts.
    """
    limit, count = configs[0].get("max_concurrency") if configs else None, len(configs)
    if count < 2:
        return ChatCall({}, shared=True, share=limit), count
    if limit is not None:
        from skeleton_of_thought.budget import Budget

        answers = max(1, min(count, limit))
        share = limit // answers
        return ChatCall({"max_concurrency": share}, shared=True, share=share, budget=Budget(limit)), answers
    budget = plan.budget()
    try:
        models = [ChainModels(plan.llm, plan.point_llm, adopts=plan.adopts).for_config(configs[0])]
    except Exception:  # each answer reports it as its own error
        models = []
    budget.allow(rows_of(models))
    return ChatCall({}, shared=True, budget=budget), min(count, budget.limit or count)
