"""An LLM of LlamaIndex that answers by Skeleton-of-Thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, cast

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools.types import BaseTool
from pydantic import ConfigDict, PrivateAttr

from llama_index_sot.answer import AnswerConfig
from llama_index_sot.llm_calls import ResolvedLLM, resolve_both
from llama_index_sot.options import (
    LLMOptions,
    SettingsOptions,
    check_options,
    document_options,
    plan_memory,
    split_options,
)
from llama_index_sot.skeleton_llm.calls import LLMCall
from llama_index_sot.skeleton_llm.inputs import chat_input, prompt_formats, text_input, tools_input
from llama_index_sot.skeleton_llm.wrapped import WrappedLLM
from llama_index_sot.templates import Templates
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Message

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = ["FunctionCallingSkeletonOfThoughtLLM", "SkeletonOfThoughtLLM"]


@document_options(LLMOptions, Settings)
class SkeletonOfThoughtLLM(WrappedLLM):
    """An LLM that answers by Skeleton-of-Thought, for every place that takes an LLM: chat engines, agents, `Settings`.

    Its text is the whole answer; streams give it in document order while all points are written.
    `response.additional_kwargs["sot"]` has what a query engine has in `metadata["sot"]` (`route`, `reason`, `timings`,
    `usage_by_stage`, ...), and the `points`. The `raw` of an answer by points has it, too, with `model`,
    `finish_reason` and `usage`: the sum over all calls, as OpenAI's servers report it. Messages stay plain, because
    memories store them and servers get them back.

    **Direct answers.** If the router chooses the direct route without a call, as the default router does, the wrapped
    LLM's response is passed on, with `additional_kwargs["sot"]` added. The router reads the question together with the
    system messages and the wording around it, so LlamaIndex's own prompts (condense, refine, select, extract, ReAct,
    ...) go direct. With `router=None` every chat that ends with a question gets a skeleton: also these.

    **Calls that go to the wrapped LLM unchanged.** Calls with tools, and chats that hold a tool's call or result or do
    not end with the user's message; calls with `max_tokens`, `stop`, a response format, or any other keyword argument
    that is not in `skeleton_of_thought.adapters.as_model.PER_CALL_SETTINGS` (sampling and transport, which reach each
    call of an answer); images for an LLM that takes no messages; a formatted prompt, if the LLM has a format of its
    own. Structured output is the wrapped LLM's. The object is a `FunctionCallingLLM` if the wrapped LLM is one.

    **Events.** The call has one span and one pair of start and end events; the calls of the answer are its children.
    Tokens are counted once: handlers of the instrumentation find the usage at these children. A legacy handler, such as
    `TokenCountingHandler`, that listens to the wrapped LLM hears its calls; one that listens only here, as
    `Settings.callback_manager` does, hears this call with the usage of all of them.

    Example:
        >>> from llama_index.core.chat_engine import SimpleChatEngine
        >>> from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
        >>> from llama_index.core.memory import ChatMemoryBuffer
        >>> from llama_index_sot import SkeletonOfThoughtLLM
        >>> class Scripted(CustomLLM):
        ...     @property
        ...     def metadata(self):
        ...         return LLMMetadata()
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         headings = "Write only the headings" in prompt
        ...         return CompletionResponse(text="1. Move\\n2. Drink water" if headings else "It helps.")
        ...     def stream_complete(self, prompt, formatted=False, **kwargs):
        ...         yield self.complete(prompt)
        >>> engine = SimpleChatEngine.from_defaults(llm=SkeletonOfThoughtLLM(Scripted()), memory_cls=ChatMemoryBuffer)
        >>> print(engine.chat("What are good ways to stay awake?"))
        1. Move: It helps.
        <BLANKLINE>
        2. Drink water: It helps.

    Args:
        llm: Writes skeletons, merges and direct answers, and the points, too; None for the present `Settings.llm`.
        options: `llama_index_sot.options.LLMOptions` has another `point_llm`, the `router`, `num_workers`,
            `concurrency` and the prompts; `skeleton_of_thought.settings.Settings` has `max_points`, `merge` and the
            other settings. `help` lists all of them.

    Attributes:
        llm: The wrapped LLM.
        point_llm: The LLM of the points; None for `llm`.

    Raises:
        InvalidInput: A value that cannot work; a `ValueError`.
        TypeError: There is no such option.
        PointError, SkeletonError: From a call, depending on the settings.
    """

    is_skeleton_llm: ClassVar[bool] = True

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _options: dict[str, Any] = PrivateAttr(default_factory=dict)
    _settings: Settings = PrivateAttr(default_factory=Settings)
    _router: Any = PrivateAttr(default=None)
    _templates: Any = PrivateAttr(default=None)
    _plans: Any = PrivateAttr(default=None)

    def __init__(self, llm: LLM | None = None, **options: Unpack[LLMOptions]) -> None:
        split = split_options(SkeletonOfThoughtLLM, options)
        llm = LlamaIndexSettings.llm if llm is None else llm
        point_llm = options.get("point_llm")
        llms = {"llm": llm, "point_llm": llm if point_llm is None else point_llm}
        for name, each in llms.items():
            if isinstance(each, SkeletonOfThoughtLLM):
                raise InvalidInput(
                    f"{name} is a SkeletonOfThoughtLLM already (if you gave none, Settings.llm is one): give the LLM "
                    "in it, its attribute `llm`."
                )
        others = split.others
        concurrency, num_workers = others.get("concurrency", "auto"), others.get("num_workers", 8)
        router = check_options(llms, others.get("router", "auto"), split.settings, concurrency, num_workers)
        resolved, _ = resolve_both(llm, llms["point_llm"], concurrency)
        super().__init__(
            llm=llm,
            point_llm=point_llm,
            callback_manager=others.get("callback_manager") or CallbackManager([]),
            output_parser=llm.output_parser,
            pydantic_program_mode=llm.pydantic_program_mode,
            **prompt_formats(llm, adopted=resolved.adopted),
        )
        self._options = {name: value for name, value in options.items() if name != "callback_manager"}
        # The text of a message cannot be taken back, so the points wait for the opening.
        held = replace(split.settings, opening=bool(split.settings.opening))
        self._settings, self._router, self._concurrency = held, router, concurrency
        self._plans = plan_memory(split.settings)
        self._templates = Templates(others.get("prompts") or PromptSet(), llm)
        self._templates.update(split.templates)
        if type(self) is SkeletonOfThoughtLLM and isinstance(llm, FunctionCallingLLM):
            self.__class__ = FunctionCallingSkeletonOfThoughtLLM

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "SkeletonOfThoughtLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The metadata of the wrapped LLM."""
        return self.llm.metadata

    def to_payload(self) -> dict[str, Any]:
        """The class and the metadata, for traces."""
        return {"class_name": self.class_name(), **self.metadata.model_dump()}

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain data: the metadata of the wrapped LLMs, which may hold secrets, and the settings."""
        data: dict[str, Any] = super().to_dict(**kwargs)
        for name in ("llm", "point_llm"):
            if (llm := getattr(self, name)) is not None:
                data[name] = {"class_name": llm.class_name(), **llm.metadata.model_dump(mode="json")}
        given = SettingsOptions.__optional_keys__ & self._options.keys()
        return data | {name: self._options[name] for name in sorted(given)}

    def __reduce__(self) -> Any:
        # `BaseComponent` would leave out what cannot be pickled, and answer with the rest.
        return _restored, (type(self), self.llm, {**self._options, "router": self._router}, self._plans)

    # --- how it answers ---

    def config(self, llm: ResolvedLLM, point_llm: ResolvedLLM, chat: tuple[Message, ...]) -> AnswerConfig:
        """How a chat is answered.

        Args:
            llm: Writes skeletons, merges and direct answers.
            point_llm: Writes points.
            chat: Ends with the question.
        """
        return AnswerConfig(
            llm=llm,
            point_llm=point_llm,
            prompts=self._templates.prompt_set(),
            settings=self._settings,
            router=self._router,
            num_workers=self._options.get("num_workers", 8),
            chat=chat,
            plans=self._plans,
        )

    # --- the interface of LlamaIndex's LLMs ---

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a chat."""
        response: ChatResponse = LLMCall(self, chat_input(messages), kwargs, live=False, sync=True).whole()
        return response

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer as it is written. Closing the stream ends all calls, and returns when they have ended."""
        return LLMCall(self, chat_input(messages), kwargs, live=True, sync=True).stream()

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Async twin of `chat`; never blocks the loop."""
        response: ChatResponse = await LLMCall(self, chat_input(messages), kwargs, live=False, sync=False).awhole()
        return response

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Async twin of `stream_chat`; never blocks the loop."""
        return await LLMCall(self, chat_input(messages), kwargs, live=True, sync=False).astream()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a prompt."""
        given = text_input(prompt, formatted)
        response: CompletionResponse = LLMCall(self, given, kwargs, live=False, sync=True).whole()
        return response

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer as it is written. Closing the stream ends all calls, and returns when they have ended."""
        return LLMCall(self, text_input(prompt, formatted), kwargs, live=True, sync=True).stream()

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Async twin of `complete`; never blocks the loop."""
        given = text_input(prompt, formatted)
        response: CompletionResponse = await LLMCall(self, given, kwargs, live=False, sync=False).awhole()
        return response

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Async twin of `stream_complete`; never blocks the loop."""
        return await LLMCall(self, text_input(prompt, formatted), kwargs, live=True, sync=False).astream()


def _restored(
    cls: type[SkeletonOfThoughtLLM], llm: LLM, options: dict[str, Any], plans: PlanMemory | None = None
) -> SkeletonOfThoughtLLM:
    restored = cls(llm, **options)
    # Older pickles have no memory of plans.
    restored._plans = plans or restored._plans
    return restored


class FunctionCallingSkeletonOfThoughtLLM(SkeletonOfThoughtLLM, FunctionCallingLLM):
    """The class of a `SkeletonOfThoughtLLM` whose wrapped LLM calls functions. Tools are passed on to that LLM.

    `SkeletonOfThoughtLLM(...)` chooses the class itself.
    """

    def chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's."""
        given = tools_input(tools, args, kwargs)
        response: ChatResponse = LLMCall(self, given, {}, live=False, sync=True).whole()
        return response

    async def achat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's; in a thread if it would block the loop."""
        given = tools_input(tools, args, kwargs)
        response: ChatResponse = await LLMCall(self, given, {}, live=False, sync=False).awhole()
        return response

    def stream_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> ChatResponseGen:
        """The wrapped LLM's."""
        return LLMCall(self, tools_input(tools, args, kwargs), {}, live=True, sync=True).stream()

    async def astream_chat_with_tools(
        self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """The wrapped LLM's; in a thread if it would block the loop."""
        return await LLMCall(self, tools_input(tools, args, kwargs), {}, live=True, sync=False).astream()

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The wrapped LLM's."""
        llm = cast(FunctionCallingLLM, self.llm)
        return llm.get_tool_calls_from_response(response, error_on_no_tool_call, **kwargs)

    def _prepare_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> dict[str, Any]:
        return cast(FunctionCallingLLM, self.llm)._prepare_chat_with_tools(tools, *args, **kwargs)
