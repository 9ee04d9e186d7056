"""The chain: a skeleton of the answer first, then all points in parallel."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Self, get_type_hints

from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.utils import ConfigurableFieldSpec, get_unique_config_specs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from langchain_sot.entry import FlowRunnable
from langchain_sot.plan import STAGES, AnswerPlan, make_plan
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet, how_long, how_many
from skeleton_of_thought.routers.base import check_router
from skeleton_of_thought.settings import Settings, first_by_position
from skeleton_of_thought.types import Answer, Point, Role, Skeleton

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph

    from langchain_sot.chat_model.model import SkeletonOfThoughtChatModel
    from langchain_sot.expansion import PointExpansion
    from langchain_sot.messages import ParsedInput
    from langchain_sot.picking import PickedKeys
    from langchain_sot.results import AnswerChunks
    from skeleton_of_thought.plan_memory import PlanMemory
    from skeleton_of_thought.routers.auto import AutoRouter

# Modules that run an answer, or that only some methods need, are imported in those methods. The benchmark
# `benchmarks/orchestration.py` measures the time that the import of this package takes.

__all__ = ["SkeletonOfThoughtChain"]

_SETTINGS = tuple(field.name for field in fields(Settings))
_TEMPLATES = tuple(f"{stage}_prompt" for stage in STAGES)
_OTHERS = ("llm", "point_llm", "router", "prompts", "skeleton_mode", "prefill", "adopt", "retriever", "retrieval")
_planned_fields = operator.attrgetter(*_OTHERS, *_TEMPLATES, *_SETTINGS)
"""Reads the fields of a chain that its plan is made of."""

_MOST_MODELS = 8
"""The most models, or pairs of models, of which one chain and its copies remember something."""


class PlanCache:
    """The last plan of a chain and its copies, and what they have learned of their models.

    That is a router for `router="auto"` for each pair of models, which learns how fast they are, and a memory of the
    plans of each model for `planning="auto"`. Copies of a chain, such as those that an agent's middleware makes for
    each request, share both for the same models. None of this is part of a chain's value: all caches compare equal,
    and a pickled or deep-copied one starts empty.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[tuple[Any, ...], AnswerPlan] | None = None
        self._routers: list[tuple[tuple[Any, Any, int], AutoRouter]] = []
        self._memories: list[tuple[Any, PlanMemory]] = []

    def plan(self, values: tuple[Any, ...], make: Callable[[], AnswerPlan]) -> AnswerPlan:
        """The plan that was made of these very values, or a new one."""
        # Read and replaced as one value: threads may ask for the plans of different copies.
        last = self._last
        if last is not None and all(map(operator.is_, last[0], values)):
            return last[1]
        plan = make()
        self._last = (values, plan)
        return plan

    def auto_router(self, llm: Any, point_llm: Any, max_points: int) -> AutoRouter:
        """The router for these models and this limit of points."""
        from skeleton_of_thought.routers.auto import AutoRouter
        from skeleton_of_thought.routers.cost import CostGuard

        with self._lock:
            for (known_llm, known_point_llm, known_points), router in self._routers:
                if known_llm is llm and known_point_llm is point_llm and known_points == max_points:
                    return router
            router = AutoRouter(guard=CostGuard(max_points=max_points))
            # The entry keeps the models alive: a new object could get the identity of a collected one.
            self._routers = [((llm, point_llm, max_points), router), *self._routers[: _MOST_MODELS - 1]]
            return router

    def memory(self, llm: Any) -> PlanMemory:
        """What is known of the plans of this model."""
        from skeleton_of_thought.plan_memory import PlanMemory

        with self._lock:
            for known, memory in self._memories:
                if known is llm:
                    return memory
            memory = PlanMemory()
            self._memories = [(llm, memory), *self._memories[: _MOST_MODELS - 1]]
            return memory

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanCache)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[PlanCache], tuple[()]]:
        return PlanCache, ()


AutoRouters = PlanCache
"""The name of the class in pickles of 0.1."""


class ChainInput(TypedDict):
    """A question, the conversation before it, and its context."""

    question: Any
    chat_history: NotRequired[Any]
    context: NotRequired[Any]


class _SignatureOfFields:
    """The signature of a pydantic class that is built late: this builds the class first."""

    def __get__(self, instance: object, owner: type[BaseModel]) -> Any:
        if instance is not None:
            raise AttributeError("__signature__ belongs to the class.")
        owner.model_rebuild()
        return owner.__signature__


class SkeletonOfThoughtChain(FlowRunnable, RunnableSerializable[Any, dict[str, Any]]):
    """Answers a question by Skeleton-of-Thought.

    The input is a string, a message, a list of messages (or of values that LangChain converts to messages), a prompt
    value, or a dict. The last message is the question. The keys of a dict are:

    - `question` (or `input`), and `chat_history` (or `history`) for the messages before it;
    - `context`: text or documents, which every prompt of the answer shows, except that of a merge;
    - `messages` in place of these, as the state of a LangGraph graph has it. Other keys of a state are left alone;
    - any other key for a placeholder of that name in the chain's own templates. A key that nothing uses is an error.

    The output is a dict with `question`, `route`, `skeleton`, `points`, `answer`, `errors`, `usage` and others (see
    `AnswerDict`; with a plan or roles: `PlannedAnswerDict`). Streams yield chunks that add up to it:
    `chain.pick("answer").stream(...)` gives the text in document order, `chain.pick("points")` all points as they grow.
    A point that is written anew, or whose text so far turns out to be the model's reasoning, sends a `Restart`.

    `config["max_concurrency"]` bounds the open calls of a whole `invoke`, `stream` or `batch`. Without it all points
    of one answer are in flight at once. A batch then opens as many calls as one of its answers needs, or, if that is
    more, four more than there are processors, at most 32. If a server limits its rate, the whole batch slows down and
    the refused calls are made again; see `skeleton_of_thought.budget`.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_sot import SkeletonOfThoughtChain
        >>> llm = FakeListChatModel(responses=["1. Move", "A short walk helps."])
        >>> SkeletonOfThoughtChain(llm=llm).invoke("What are good ways to stay awake?")["answer"]
        '1. Move: A short walk helps.'

    Attributes:
        llm: A chat model or string LLM, with its bindings, retries, fallbacks, configurable fields and alternatives.
            By position or by name; all other settings go by name.
        point_llm: Another model for the points; None for the same.
        router: Decides whether a question is answered through a skeleton. "auto": rules and small models of this
            package, without a call, which learn how fast the chain's models are (`skeleton_of_thought.AutoRouter`). Or
            a runnable or function on the question, sync or async, or a `Router`. None for a skeleton always.
        prompts: The prompts; None for the project's own.
        skeleton_prompt: A template, or a string with placeholders, in place of the skeleton prompt:
            `question`, `context`, `max_points`, `how_many`, `words`, `how_long`. Keys of the input fill all others.
        point_prompt: The same for the point prompt, with `skeleton`, `titles`, `count`, `index`, `title`, `scope`,
            `parents` too.
        merge_prompt: The same for the prompt of the merge, with `skeleton`, `titles`, `count`, `draft` too: `draft` is
            the points, joined.
        scoped_prompt: The skeleton prompt with `planning="scoped"`; placeholders as for `skeleton_prompt`.
        graph_prompt: The same with `planning="graph"`.
        opening_prompt: The same for the prompt of the opening; placeholders as for `merge_prompt`.
        closing_prompt: The same for the prompt of the closing.
        item_prompt: The same for the prompt of one item, with `instruction`, the words that all items share, and
            `item`, which should come last, and with `question`, `context`, `index` and `count`.
        skeleton_mode: "text": the skeleton is read from the model's text. "structured": `with_structured_output` asks
            for it as data. Models without it, and replies that do not fit the schema, are read as text.
        prefill: Whether the model gets the start of its turn, as a last message of the assistant. "auto": for models
            that are known to continue it. These are this package's own, and those of servers with
            `extra_body={"continue_final_message": True}` (docs/servers.md).
        retriever: Finds the context of inputs that bring none: a retriever, or another runnable or function, sync or
            async, that takes the query as a string and returns documents (or text).
        retrieval: "once", the default with a retriever: for the question. "per_point": for each point, by its title
            and the question, and for the question if the answer is direct.
        adopt: Whether the local model of a `HuggingFacePipeline` or `ChatHuggingFace` gets an engine that writes all
            points as one batch, with the same settings. If False, that class writes them one by one.

    The other settings are described at `skeleton_of_thought.settings.Settings`.

    In a trace the calls are runs named `retrieve`, `skeleton`, `point 3: Take breaks`, `opening`, `closing`, `merge`
    and `answer` (direct), tagged `sot:skeleton` and so on, with `sot_stage`, `sot_point` and `sot_attempt` in their
    metadata; of a planned point also with `sot_scope`, `sot_depends_on` and `sot_wave`, where the plan gives them. The
    chain's own run has the custom events that `langchain_sot.custom_events` lists.

    Raises:
        ValueError: A setting, prompt or router that cannot work.
        InvalidInput: An input without a question, with a key that nothing uses, or without one that a template needs;
            before any call.
        PointError: A point failed and `on_point_error="raise"`; the error has the partial answer.
        SkeletonError: No usable skeleton and `on_empty_skeleton="raise"`.
    """

    llm: Runnable[Any, Any] = Field(kw_only=False)
    point_llm: Runnable[Any, Any] | None = None
    router: Any = "auto"
    prompts: InstanceOf[PromptSet] | None = None
    skeleton_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    point_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    merge_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    scoped_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    graph_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    opening_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    closing_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    item_prompt: InstanceOf[BasePromptTemplate[Any]] | str | None = None
    skeleton_mode: Literal["text", "structured"] = "text"
    max_points: int = 10
    min_points: int = 1
    eager: bool | Literal["auto"] = False
    planning: Literal["titles", "scoped", "graph", "auto"] = "titles"
    items: Literal["auto", "off"] = "auto"
    max_depth: int = 2
    max_parents: int = 8
    on_parent_error: Literal["write", "fail"] = "write"
    opening: bool | Literal["restart"] = False
    closing: bool = False
    rewrite_overlap: bool = False
    max_overlap: float = Settings.max_overlap
    on_empty_skeleton: Literal["direct", "raise"] = "direct"
    on_point_error: Literal["raise", "placeholder"] = "raise"
    placeholder: str = Settings.placeholder
    max_retries: int = 1
    backoff: float = 0.5
    point_timeout: float | None = None
    point_words: int = 40
    join: Literal["numbered", "headings", "paragraphs"] = "numbered"
    merge: bool = False
    max_skeleton_chars: int | None = Settings.max_skeleton_chars
    max_point_chars: int | None = Settings.max_point_chars
    max_answer_chars: int | None = Settings.max_answer_chars
    stop_loops: bool = False
    prefill: Literal["auto"] | bool = Field(default="auto")
    adopt: bool = True
    retriever: Any = None
    retrieval: Literal["none", "once", "per_point"] | None = None

    # Built with the first chain: it would take much of the import's time.
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", defer_build=True)

    _plans: PlanCache = PrivateAttr(default_factory=PlanCache)

    if not TYPE_CHECKING:
        __signature__ = _SignatureOfFields()

        @first_by_position("llm", Runnable[Any, Any])
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)

    @field_validator("llm", "point_llm", mode="before")
    @classmethod
    def _is_a_model(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or isinstance(value, Runnable):
            return value
        if isinstance(value, str):
            made = f"init_chat_model({value!r}) of langchain, or ChatTransformers(model={value!r})"
            raise InvalidInput(f"{info.field_name} is a model and not its name: pass {made}.")
        kind = f"the class {value.__name__}: make one" if isinstance(value, type) else type(value).__name__
        raise InvalidInput(f"{info.field_name} must be a chat model or LLM of LangChain, not {kind}.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.router != "auto" and not isinstance(self.router, Runnable):
            check_router(self.router)
        from langchain_sot.models.resolution import ChainModels

        # Adopts local models now, rather than amid the first answer: an engine packs a model's weights.
        plan = self.plan()
        ChainModels(plan.llm, plan.point_llm, adopts=plan.adopts).for_config({})
        return self

    def __setstate__(self, state: dict[Any, Any]) -> None:
        # A pickle of 0.1 has the routers of "auto" in an attribute of another name, no retriever and fewer settings.
        private = (state.get("__pydantic_private__") or {}).items()
        known = {name: value for name, value in private if name in self.__private_attributes__}
        values = {name: getattr(Settings, name) for name in _SETTINGS}
        values |= {**dict.fromkeys((*_TEMPLATES, "retriever", "retrieval")), **state["__dict__"]}
        super().__setstate__({**state, "__dict__": values, "__pydantic_private__": {**known, "_plans": PlanCache()}})

    # --- how answers are made ---

    def plan(self, skeleton: Skeleton | None = None) -> AnswerPlan:
        """The settings as the core takes them.

        Args:
            skeleton: Points that are known already: only they are written.
        """
        if skeleton is not None:
            return make_plan(self, self._plans, skeleton)
        return self._plans.plan(_planned_fields(self), partial(make_plan, self, self._plans))

    def _output(self, answer: Answer) -> dict[str, Any]:
        from langchain_sot.results import answer_dict

        return answer_dict(answer, planned=self.plan().planned)

    def _chunks(self, parsed: ParsedInput) -> AnswerChunks:
        from langchain_sot.results import AnswerChunks

        question, planned = parsed.conversation.question, self.plan().planned
        if parsed.keyed is None or parsed.keyed.found is None:
            return AnswerChunks(question, planned=planned)
        from langchain_sot.inputs import merged_documents

        return AnswerChunks(question, merged_documents([parsed.keyed.found.sources]), planned=planned)

    # --- its parts, for chains of your own ---

    def get_skeleton_prompt(self) -> ChatPromptTemplate:
        """The skeleton prompt as a template with `question` (and optionally `chat_history`).

        `chain.get_skeleton_prompt() | llm | SkeletonOutputParser(planning=chain.planning)` gives the titles of a
        skeleton.
        """
        return self._chat_prompt({"scoped": "scoped", "graph": "graph"}.get(self.planning, "skeleton"))

    def get_point_prompt(self) -> ChatPromptTemplate:
        """The point prompt as a template; its `input_variables` are the values that it needs."""
        return self._chat_prompt("planned_point" if self.planning in ("scoped", "graph") else "point")

    def get_item_prompt(self) -> ChatPromptTemplate:
        """The prompt of one item as a template; its `input_variables` are the values that it needs."""
        return self._chat_prompt("item")

    def get_merge_prompt(self) -> ChatPromptTemplate:
        """The prompt of the merge as a template; its `input_variables` are the values that it needs."""
        return self._chat_prompt("merge")

    def get_role_prompt(self, role: Role) -> ChatPromptTemplate:
        """The prompt of the opening or the closing as a template."""
        return self._chat_prompt(role)

    def _chat_prompt(self, name: str) -> ChatPromptTemplate:
        from langchain_sot.templates import chat_prompt, stage_template

        points, words = self.max_points, self.point_words
        known = {"max_points": str(points), "how_many": how_many(points)}
        known |= {"words": str(words), "how_long": how_long(words)}
        return chat_prompt(stage_template(self.plan().prompts, name), **known)

    def expansion(self, points: Skeleton | Sequence[str | Point]) -> PointExpansion:
        """A `RunnableParallel` that writes these points: same inputs, output `{"1": text, "2": text, ...}`.

        Args:
            points: Titles in order, or a skeleton.

        Raises:
            InvalidInput: There are no points, or one without a title.
        """
        from langchain_sot.expansion import PointExpansion, as_skeleton

        return PointExpansion(chain=self, skeleton=as_skeleton(points))

    def pick(self, keys: str | list[str]) -> PickedKeys:
        """The given key, or keys, of the output; streams can be closed early without waiting for the rest."""
        from langchain_sot.picking import PickedKeys

        return PickedKeys(chain=self, keys=keys)

    def as_chat_model(self) -> SkeletonOfThoughtChatModel:
        """A chat model that answers by this chain, for code that expects a chat model.

        Example:
            >>> from langchain_core.language_models import FakeListChatModel
            >>> from langchain_sot import SkeletonOfThoughtChain
            >>> llm = FakeListChatModel(responses=["1. Move", "A short walk helps."])
            >>> SkeletonOfThoughtChain(llm=llm).as_chat_model().invoke("What are good ways to stay awake?").text
            '1. Move: A short walk helps.'
        """
        # By name, because that package imports this module.
        model: type[SkeletonOfThoughtChatModel] = import_module("langchain_sot.chat_model").SkeletonOfThoughtChatModel
        return model(chain=self)

    # --- the interface of LangChain's runnables ---

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """A chain is serializable if its models, templates and routers are."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The name in dumps, which a move of the class to another module does not change."""
        return ["langchain_sot", "chain"] if cls is SkeletonOfThoughtChain else super().get_lc_namespace()

    @property
    def InputType(self) -> Any:
        """Text, messages or a dict, as the class describes."""
        if not (plan := self.plan()).placeholders:
            return str | ChainInput | list[Any]
        from langchain_sot.inputs import input_type

        return str | input_type(plan) | list[Any]

    @property
    def OutputType(self) -> Any:
        """`AnswerDict`, or `PlannedAnswerDict`."""
        from langchain_sot.results import AnswerDict, PlannedAnswerDict

        return PlannedAnswerDict if self.plan().planned else AnswerDict

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The type of the output as a model with a field for each key."""
        fields: dict[str, Any] = {name: (kind, ...) for name, kind in get_type_hints(self.OutputType).items()}
        return create_model(self.get_name("Output"), **fields)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable fields of the models, the router and the retriever."""
        every = (self.llm, self.point_llm, self.router, self.retriever)
        parts = [part for part in every if isinstance(part, Runnable)]
        return get_unique_config_specs(spec for part in parts for spec in part.config_specs)

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Input, retrieval, skeleton, points, roles, merge and output, with the other routes beside them."""
        from langchain_sot.plan import chain_graph

        return chain_graph(self, config)
