"""A tool by which an agent gives the points of its final answer, which are then written in parallel."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Unpack

from llama_index.core.agent.workflow.workflow_events import AgentStream
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms import MockLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import FunctionTool, ToolMetadata, ToolOutput
from llama_index.core.workflow import Context
from pydantic import BaseModel

from llama_index_sot.agent_turn import AgentTurn, agent_turn
from llama_index_sot.answer import AnswerConfig
from llama_index_sot.events import AnswerDelta, AnswerRestarted, SkeletonOfThoughtEvent, typed_event
from llama_index_sot.llm_calls import Concurrency, ResolvedLLM
from llama_index_sot.options import OnNoNodes, SettingsOptions, check_llm, document_options, split_options
from llama_index_sot.query_engine import SkeletonOfThoughtQueryEngine
from llama_index_sot.response import SkeletonOfThoughtResponse
from skeleton_of_thought.adapters.points_tool import DESCRIPTION, PARAMETERS, TOOL_NAME, alone, skeleton_of
from skeleton_of_thought.errors import InvalidInput, error_text
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Retrieval, Skeleton

__all__ = ["PointsToolOptions", "answer_in_points_tool"]

_ANSWERED: ContextVar[bool] = ContextVar("sot_answered_in_points", default=True)
"""Whether the last call of the tool in this task wrote an answer; see `_PointsTool.metadata`."""

_WANTS_DATA = (
    f"Nothing was written, because this agent makes data of its answer, and {TOOL_NAME} ends its work with a text. "
    "Write the answer yourself, without this tool."
)


class PointsToolOptions(SettingsOptions, total=False):
    """The options of `answer_in_points_tool`, besides the `llm` and the `retriever`.

    The agent's call is the skeleton: settings of the skeleton and its call, such as `planning` and `eager`, have no
    effect.

    Attributes:
        point_llm: Another LLM for the points.
        num_workers: The most calls, of models and retrievers, that are open at a time in one answer (8 by default);
            None for no limit.
        concurrency: How the LLM's calls run side by side: `"async"`, `"thread"`, `"batch"`, or `"auto"` (the default):
            the best that the LLM supports.
        query_engine: An engine that retrieves, in place of a retriever: its retriever, with its own postprocessors.
        retrieval: `"per_point"`: for each point, by its title and the user's question; its prompt shows these nodes.
            `"once"`: for the question. Default: `"per_point"` with a retriever.
        node_postprocessors: Applied to the nodes of each retrieval.
        point_query_template: The query for a point, of `{query_str}` and `{title}`.
        citations: Number the sources, and ask the model to cite them: `[3]` is `source_nodes[2]`. False by default.
        on_no_nodes: The text of a point for which nothing is retrieved: `"empty_response"` (the default), or
            `"answer"`: the LLM's own, from the conversation.
        empty_response: The text of an empty response; None for LlamaIndex's own.
        multimodal: Show the LLM the images, audio and video of nodes, too.
        prompts: The core's prompts; None for the project's own.
        point_template: Asks for one point. It must mention `{title}` or `{index}`.
        opening_template: Asks for the sentences before the points, `{draft}`.
        closing_template: Asks for the conclusion after them, `{draft}`.
        merge_template: Asks for one text in place of the points, `{draft}`.
        context_template: Shows the nodes, `{context_str}`, in templates that do not mention them.
        prompt_helper: Makes a context fit the LLM's window; None for one made from `llm.metadata`.
        callback_manager: Receives the legacy callbacks; None for `Settings.callback_manager`. The LLM keeps its own.
    """

    point_llm: LLM | None
    num_workers: int | None
    concurrency: Concurrency
    query_engine: BaseQueryEngine | None
    retrieval: Retrieval | None
    node_postprocessors: Sequence[BaseNodePostprocessor] | None
    point_query_template: BasePromptTemplate | str | None
    citations: bool
    on_no_nodes: OnNoNodes
    empty_response: str | None
    multimodal: bool
    prompts: PromptSet | None
    point_template: BasePromptTemplate | str | None
    opening_template: BasePromptTemplate | str | None
    closing_template: BasePromptTemplate | str | None
    merge_template: BasePromptTemplate | str | None
    context_template: BasePromptTemplate | str | None
    prompt_helper: PromptHelper | None
    callback_manager: CallbackManager | None


@document_options(PointsToolOptions, Settings)
def answer_in_points_tool(
    llm: LLM | None = None, *, retriever: BaseRetriever | None = None, **options: Unpack[PointsToolOptions]
) -> FunctionTool:
    """A tool for the final answer of an agent: the agent gives the points, and all of them are written in parallel.

    Give it to the tools of a `FunctionAgent` or a `ReActAgent`, alone or within an `AgentWorkflow`. Where an answer is
    long and has several parts, the agent calls it with their titles, so its own call is the skeleton. The points are
    written from the whole conversation (system prompt, chat history, results of tools), and the answer ends the run.
    `result.raw` is then the `SkeletonOfThoughtResponse`, with `points`, `source_nodes` and `metadata`.

    The run's event stream has the answer's text as `AgentStream` events, in document order, while all points are
    written at once (unless the agent has `streaming=False`); and the events of `llama_index_sot.events`, such as
    `SkeletonReady`, `PointSources` and `PointDone`.

    A call that cannot be answered returns a text to the agent's LLM, and the run goes on: a call without titles, a call
    beside other calls in the same turn, whose results the answer would miss, and one that fails (with
    `on_point_error="raise"`, the default). So does every call to an agent with `output_cls` or
    `structured_output_fn`, because LlamaIndex makes no data of an answer that a tool returns directly.

    Example:
        >>> from llama_index_sot import answer_in_points_tool
        >>> tool = answer_in_points_tool(max_points=6)
        >>> tool.metadata.name, tool.metadata.return_direct
        ('answer_in_points', True)

    Args:
        llm: Writes the points, openings, closings and merges; None for the LLM of the agent that calls the tool.
        retriever: Retrieves nodes for each point.
        options: Typed in `llama_index_sot.points_tool.PointsToolOptions`. `help` lists all of them.

    Raises:
        InvalidInput: A value that cannot work; a `ValueError`.
        TypeError: There is no such option.
    """
    split = split_options(answer_in_points_tool, options)
    if split.settings.opening == "restart":
        # The text of an agent's stream cannot be taken back, so the points wait for the opening.
        options["opening"] = True
    return _PointsTool(llm, split.settings, {**options, "retriever": retriever})


class _Arguments(BaseModel):
    """The tool's arguments. Their schema has no references, which some servers do not follow."""

    points: list[dict[str, str]]

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
        """The schema that all adapters share."""
        return copy.deepcopy({**PARAMETERS})


class _PointsTool(FunctionTool):
    def __init__(self, llm: LLM | None, settings: Settings, options: dict[str, Any]) -> None:
        description = f"{DESCRIPTION} It takes at most {settings.max_points} points."
        metadata = ToolMetadata(description, TOOL_NAME, _Arguments, return_direct=True)
        super().__init__(async_fn=self._answer, metadata=metadata)
        # Agents fill this argument by themselves.
        self.requires_context, self.ctx_param_name = True, "ctx"
        self._llm, self._settings, self._options = llm, settings, options
        self._made: tuple[LLM, SkeletonOfThoughtQueryEngine] | None = None
        if llm is not None:
            check_llm("llm", llm)
            self._engine(llm)
        else:
            # What only the agent's LLM may lack is checked with it.
            others = {name: value for name, value in options.items() if name not in ("concurrency", "multimodal")}
            SkeletonOfThoughtQueryEngine.from_defaults(MockLLM(), router=None, **others)

    @property
    def metadata(self) -> ToolMetadata:
        """The name, the description and the arguments; `return_direct` is False right after a call that wrote nothing.

        Agents ask after each call, in the same task. With True, a function agent would put the error into the chat as
        an answer of its own, and forget the results of the turn's other calls.
        """
        return self._metadata if _ANSWERED.get() else replace(self._metadata, return_direct=False)

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Writes the answer; its `raw_output` is the response. An error is a text for the agent's LLM."""
        given = {name: value for name, value in kwargs.items() if name != self.ctx_param_name}
        call: dict[str, Any] = {"tool_name": TOOL_NAME, "raw_input": {"args": args, "kwargs": given}}
        try:
            response = await self._answer(*args, **kwargs)
        except Exception as error:
            _ANSWERED.set(False)
            text = str(error) if isinstance(error, InvalidInput) else error_text(error)
            if hasattr(ToolOutput, "exception"):  # newer releases
                call["exception"] = error
            return ToolOutput(content=text, raw_output=text, is_error=True, **call)
        _ANSWERED.set(True)
        return ToolOutput(content=str(response), raw_output=response, **call)

    async def _answer(self, ctx: Context | None = None, **arguments: Any) -> SkeletonOfThoughtResponse:
        skeleton = skeleton_of(arguments, min_points=self._settings.min_points, max_points=self._settings.max_points)
        turn = await agent_turn(ctx)
        if turn.wants_data:
            raise InvalidInput(_WANTS_DATA)
        if turn.count > 1:
            raise InvalidInput(alone(turn.calls.count(TOOL_NAME)))
        assert ctx is not None, "there is no turn without a context"
        engine = self._engine(self._llm or turn.agent.llm)
        live = turn.agent.streaming
        run = engine._begin(
            QueryBundle(turn.question), live=live, sync=False, adapt=lambda config: _adapted(config, turn, skeleton)
        )
        stream = _Stream(ctx, turn.agent.name)
        try:
            async with contextlib.aclosing(run.aevents()) as events:
                async for event in events:
                    stream.show(typed_event(event, run.waves), live)
        except Exception:
            stream.break_off()
            raise
        return run.response()

    def _engine(self, llm: LLM) -> SkeletonOfThoughtQueryEngine:
        """The engine over this LLM. It is kept: agents call the tool again and again."""
        made = self._made
        if made is None or made[0] is not llm:
            made = self._made = llm, SkeletonOfThoughtQueryEngine.from_defaults(llm, router=None, **self._options)
        return made[1]


class _Stream:
    """The event stream of an agent's run, to which an answer is written."""

    def __init__(self, ctx: Context, agent: str) -> None:
        self._ctx, self._agent = ctx, agent
        self._text = ""

    def show(self, event: SkeletonOfThoughtEvent | None, live: bool) -> None:
        if isinstance(event, AnswerRestarted):
            self._text = ""
        if not isinstance(event, AnswerDelta):
            self._ctx.write_event_to_stream(event)
        elif live:
            self._write(event.text)

    def break_off(self) -> None:
        """Sets the text so far apart from what the agent writes after a failure."""
        if self._text:
            self._write("\n\n")

    def _write(self, text: str) -> None:
        self._text += text
        self._ctx.write_event_to_stream(AgentStream(delta=text, response=self._text, current_agent_name=self._agent))


def _adapted(config: AnswerConfig, turn: AgentTurn, skeleton: Skeleton) -> AnswerConfig:
    """The configuration for an answer of these points, from the agent's conversation."""
    packer, shown = config.packer, "\n\n".join(message.text for message in turn.chat)
    return replace(
        config,
        llm=_as_in_a_chat(config.llm),
        point_llm=_as_in_a_chat(config.point_llm),
        chat=turn.chat,
        skeleton=skeleton,
        # The context must fit beside the conversation, and not beside the question alone.
        packer=None if packer is None else lambda _: packer(shown),
    )


def _as_in_a_chat(llm: ResolvedLLM) -> ResolvedLLM:
    """The LLM, which gets each prompt as it gets the agent's chat: without a system prompt of its own."""
    return replace(llm, extends=False, is_chat_model=True, takes_messages=llm.has_own_chat)
