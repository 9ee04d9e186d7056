"""The options that the query engine, the synthesizer and the workflow share, and their checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, get_args

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate

from llama_index_sot.llm_calls import Concurrency, check_concurrency, resolve_llm
from llama_index_sot.templates import KEYS
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import AnyRouter
from skeleton_of_thought.settings import Settings, is_whole
from skeleton_of_thought.types import Retrieval

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = [
    "AnswerOptions",
    "EngineOptions",
    "LLMOptions",
    "OnNoNodes",
    "RouterOption",
    "SettingsOptions",
    "WorkflowOptions",
    "check_llm",
    "check_names",
    "check_options",
    "document_options",
    "empty_text",
    "plan_memory",
    "split_options",
]

DocumentedT = TypeVar("DocumentedT", bound=Any)

OnNoNodes = Literal["empty_response", "answer"]
"""The option `on_no_nodes`, see `AnswerOptions`."""

RouterOption = AnyRouter | Literal["auto"] | None
"""The option `router`, see `AnswerOptions`."""


class SettingsOptions(TypedDict, total=False):
    """The settings of an answer; see `skeleton_of_thought.settings.Settings`."""

    max_points: int
    min_points: int
    eager: bool | Literal["auto"]
    planning: Literal["titles", "scoped", "graph", "auto"]
    items: Literal["auto", "off"]
    max_depth: int
    max_parents: int
    on_parent_error: Literal["write", "fail"]
    opening: bool | Literal["restart"]
    closing: bool
    rewrite_overlap: bool
    max_overlap: float
    on_empty_skeleton: Literal["direct", "raise"]
    on_point_error: Literal["raise", "placeholder"]
    placeholder: str
    max_retries: int
    backoff: float
    point_timeout: float | None
    point_words: int
    join: Literal["numbered", "headings", "paragraphs"]
    merge: bool
    max_skeleton_chars: int | None
    max_point_chars: int | None
    max_answer_chars: int | None
    stop_loops: bool


class LLMOptions(SettingsOptions, total=False):
    """The options of `SkeletonOfThoughtLLM`, besides the `llm`.

    Attributes:
        point_llm: Another LLM for the points.
        router: Decides whether a chat is answered through a skeleton, or directly, as the LLM answers by itself.
            `"auto"` (the default): where a skeleton helps, by rules and small models inside the package, without a
            call; it reads the system messages and the wording around the question, too. A function of the question,
            sync or async, or a core `Router`, such as `llama_index_sot.PromptRouter`. None for a skeleton always.
        num_workers: The most calls that are open at a time in one answer (8 by default); None for no limit.
        concurrency: How the calls run side by side on an event loop: `"async"`, `"thread"`, `"batch"`, or `"auto"`
            (the default): the best that the LLM supports.
        prompts: The core's prompts; None for the project's own.
        skeleton_template: Asks for the skeleton. It must mention `{query_str}`.
        scoped_template: Asks for it with `planning="scoped"`.
        graph_template: Asks for it with `planning="graph"`.
        point_template: Asks for one point. It must mention `{title}` or `{index}`; `{skeleton}` is the numbered list.
            With a plan, `{scope}` is what the point covers, and `{parents}` the texts that it builds on; a template
            without `{parents}` gets them before the paragraph that first names the point.
        item_template: Asks for one item with `items="auto"`. It must mention `{item}`, which should come last;
            `{instruction}` is what all items share.
        opening_template: Asks for the sentences before the points, `{draft}`.
        closing_template: Asks for the conclusion after them, `{draft}`.
        merge_template: Asks for one text in place of the points, `{draft}`.
        callback_manager: Receives the legacy callbacks; `Settings.llm = ...` sets it, too. The wrapped LLM keeps its
            own.
    """

    point_llm: LLM | None
    router: RouterOption
    num_workers: int | None
    concurrency: Concurrency
    prompts: PromptSet | None
    skeleton_template: BasePromptTemplate | str | None
    scoped_template: BasePromptTemplate | str | None
    graph_template: BasePromptTemplate | str | None
    point_template: BasePromptTemplate | str | None
    item_template: BasePromptTemplate | str | None
    opening_template: BasePromptTemplate | str | None
    closing_template: BasePromptTemplate | str | None
    merge_template: BasePromptTemplate | str | None
    callback_manager: CallbackManager | None


class AnswerOptions(SettingsOptions, total=False):
    """The options of the query engine, the synthesizer and the workflow, besides the `llm`.

    Attributes:
        point_llm: Another LLM for the points.
        router: Decides whether a query is answered through a skeleton, or directly, as the LLM answers without this
            package. `"auto"` (the default): where a skeleton helps, by rules and small models inside the package,
            without a call (`skeleton_of_thought.AutoRouter`); a `CostGuard` learns from the answers. A function of the
            query, sync or async, or a core `Router`, such as `llama_index_sot.PromptRouter`. None for a skeleton
            always. `response.metadata["sot"]` has the `route` and the `reason`.
        streaming: Return streaming responses; False by default.
        num_workers: The most calls, of models and retrievals, that are open at a time in one answer (8 by default);
            None for no limit.
        concurrency: How the LLM's calls run side by side on an event loop. `"async"`: by its async methods. `"thread"`:
            by its sync methods, each call in a thread of its own; retrievals, too. `"batch"`: a local model, all calls
            decoded as one batch. `"auto"` (the default): the best that the LLM supports. Sync methods have no event
            loop: they use threads, or the batch. `response.metadata["sot"]["concurrency"]` has the choice.
        citations: Number the sources, and ask the model to cite them: `[3]` is `response.source_nodes[2]`. False by
            default.
        on_no_nodes: The answer where nothing is retrieved. `"empty_response"` (the default): the text `empty_response`,
            without a call, as LlamaIndex's engines do; with retrieval per point it is the text of each point without
            nodes, and the whole answer if no point has any. `"answer"`: the LLM's own, without nodes.
        empty_response: The text of an empty response; None for LlamaIndex's own.
        multimodal: Show the LLM the images, audio and video of nodes, too, as LlamaIndex's `multimodal` does; for chat
            LLMs that take them. False by default: the LLM sees their texts, and a line in the log names a node that has
            none.
        prompts: The core's prompts; None for the project's own.
        skeleton_template: Asks for the skeleton. It must mention `{query_str}`.
        scoped_template: Asks for it with `planning="scoped"`.
        graph_template: Asks for it with `planning="graph"`.
        point_template: Asks for one point. It must mention `{title}` or `{index}`; `{skeleton}` is the numbered list.
            With a plan, `{scope}` is what the point covers, and `{parents}` the texts that it builds on; a template
            without `{parents}` gets them before the paragraph that first names the point.
        item_template: Asks for one item with `items="auto"`. It must mention `{item}`, which should come last;
            `{instruction}` is what all items share.
        opening_template: Asks for the sentences before the points, `{draft}`.
        closing_template: Asks for the conclusion after them, `{draft}`.
        merge_template: Asks for one text in place of the points, `{draft}`.
        direct_template: Asks for a direct answer over retrieved nodes. It must mention `{query_str}`.
        context_template: Shows the nodes, `{context_str}`, in templates that do not mention them.
        prompt_helper: Makes a context fit the LLM's window; None for one made from `llm.metadata`.
        callback_manager: Receives the legacy callbacks; None for `Settings.callback_manager`. The LLM keeps its own.
    """

    point_llm: LLM | None
    router: RouterOption
    streaming: bool
    num_workers: int | None
    concurrency: Concurrency
    citations: bool
    on_no_nodes: OnNoNodes
    empty_response: str | None
    multimodal: bool
    prompts: PromptSet | None
    skeleton_template: BasePromptTemplate | str | None
    scoped_template: BasePromptTemplate | str | None
    graph_template: BasePromptTemplate | str | None
    point_template: BasePromptTemplate | str | None
    item_template: BasePromptTemplate | str | None
    opening_template: BasePromptTemplate | str | None
    closing_template: BasePromptTemplate | str | None
    merge_template: BasePromptTemplate | str | None
    direct_template: BasePromptTemplate | str | None
    context_template: BasePromptTemplate | str | None
    prompt_helper: PromptHelper | None
    callback_manager: CallbackManager | None


class EngineOptions(AnswerOptions, total=False):
    """The options of `SkeletonOfThoughtQueryEngine.from_defaults`, besides the `llm` and the `retriever`.

    Attributes:
        query_engine: An engine that retrieves, such as `index.as_query_engine(llm=llm)`, in place of a retriever: its
            retriever, with its own postprocessors. Its response synthesizer is not used.
        retrieval: `"per_point"`: for each point, which sees its own nodes only. `"once"`: for the query, and every
            prompt shows the nodes. `"none"`: the LLM alone. Default: `"per_point"` with a retriever.
        node_postprocessors: Applied to the nodes of each retrieval, with the query that they were retrieved for.
        point_query_template: The query for a point, of `{query_str}` and `{title}`. The default, `{title}
            ({query_str})`, is embedded as the mean of itself and the title alone; your own template, as it is.
    """

    query_engine: BaseQueryEngine | None
    retrieval: Retrieval | None
    node_postprocessors: Sequence[BaseNodePostprocessor] | None
    point_query_template: BasePromptTemplate | str | None


class WorkflowOptions(EngineOptions, total=False):
    """All options of `SkeletonOfThoughtQueryEngine.from_defaults`.

    Attributes:
        llm: Writes skeletons, merges and direct answers, and the points, too; None for `Settings.llm`.
        retriever: Retrieves the nodes.
    """

    llm: LLM | None
    retriever: BaseRetriever | None


_EMPTY_RESPONSE = "Empty Response"
"""The answer of LlamaIndex's synthesizers to a query without nodes."""

_DEFAULTS: dict[str, Any] = {
    **{field.name: field.default for field in fields(Settings)},
    "router": "auto",
    "streaming": False,
    "num_workers": 8,
    "concurrency": "auto",
    "citations": False,
    "on_no_nodes": "empty_response",
    "multimodal": False,
}
"""The defaults of options; None for all others."""


def document_options(*groups: type) -> Callable[[DocumentedT], DocumentedT]:
    """A decorator that shows options in the docstring and the signature, where Python shows `**options` alone.

    Args:
        groups: Classes whose docstrings list the options as attributes: the `TypedDict` of all options first, then
            those that it inherits from, and `Settings`.
    """

    def add(documented: DocumentedT) -> DocumentedT:
        if documented.__doc__:  # `python -OO` removes docstrings
            options = "\n".join(map(_attributes, groups))
            documented.__doc__ = f"{inspect.cleandoc(documented.__doc__)}\n\nOptions:\n{options}\n"
        # A class would hand its own `__signature__` down to subclasses with other constructors.
        function: Any = vars(documented)["__init__"] if isinstance(documented, type) else documented
        function.__signature__ = _full_signature(function, groups)
        return documented

    return add


def _full_signature(function: Callable[..., Any], groups: Sequence[type]) -> inspect.Signature:
    """A function's signature with the options of the groups in place of `**options`."""
    short = inspect.signature(function)
    named = [parameter for parameter in short.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    names: list[str] = []
    for group in reversed(groups):
        names = [name for name in group.__annotations__ if name not in names] + names
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_DEFAULTS.get(name),
            # Text, like the annotations of the named parameters.
            annotation=groups[0].__annotations__[name].__forward_arg__,
        )
        for name in names
    ]
    return short.replace(parameters=[*named, *options])


def _attributes(group: type) -> str:
    """The entries under `Attributes:` in a class's docstring, with the defaults that the class has."""
    _, _, section = inspect.cleandoc(group.__doc__ or "").partition("Attributes:\n")
    lines = []
    for line in section.partition("\n\n")[0].splitlines():
        name, colon, rest = line.partition(":")
        if hasattr(group, name.strip()):
            name += f" (default {getattr(group, name.strip())!r})"
        lines.append(name + colon + rest)
    return "\n".join(lines)


@dataclass(frozen=True)
class _SplitOptions:
    """Options by their use.

    Attributes:
        settings: The settings of an answer.
        templates: The templates by their keys.
        others: All other options by their names.
    """

    settings: Settings
    templates: dict[str, BasePromptTemplate | str | None]
    others: dict[str, Any]


def check_names(caller: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuses options that a function does not have.

    Args:
        caller: The function or class that was called, decorated by `document_options`.
        options: Values by name.

    Raises:
        TypeError: There is no such option.
    """
    names = inspect.signature(caller).parameters.keys()
    if unknown := sorted(options.keys() - names):
        name = caller.__qualname__
        raise TypeError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(sorted(names))}.")


def split_options(caller: Callable[..., Any], options: Mapping[str, Any]) -> _SplitOptions:
    """Sorts options by their use.

    Args:
        caller: As in `check_names`.
        options: Values by name.

    Raises:
        InvalidInput: A setting cannot work.
        TypeError: There is no such option.
    """
    check_names(caller, options)
    settings = {name: options[name] for name in SettingsOptions.__optional_keys__ & options.keys()}
    templates = {key: options[key] for key in KEYS if key in options}
    others = {name: value for name, value in options.items() if name not in settings and name not in templates}
    return _SplitOptions(Settings(**settings), templates, others)


def check_llm(name: str, llm: LLM) -> None:
    """Raises `InvalidInput` for anything but an LLM that writes text.

    Args:
        name: The option's name.
        llm: Its value.
    """
    if not isinstance(llm, LLM):
        raise InvalidInput(f"{name} must be an LLM of LlamaIndex, not {type(llm).__name__}.")
    if isinstance(llm, StructuredLLM):
        raise InvalidInput(
            f"{name} gives data, but skeletons and points are made of text: pass the LLM inside of it, "
            f"{type(llm.llm).__name__}."
        )


def empty_text(on_no_nodes: str, empty_response: str | None) -> str | None:
    """The text of an answer, or a point, for which nothing was retrieved; None to have the LLM answer without nodes.

    Args:
        on_no_nodes: As in `AnswerOptions`.
        empty_response: As in `AnswerOptions`.

    Raises:
        InvalidInput: A value that cannot work.
    """
    if on_no_nodes not in get_args(OnNoNodes):
        raise InvalidInput(f"on_no_nodes must be 'empty_response' or 'answer', not {on_no_nodes!r}.")
    if not (empty_response is None or isinstance(empty_response, str)):
        raise InvalidInput(f"empty_response must be a text, not {empty_response!r:.60}.")
    if on_no_nodes == "answer":
        return None
    return _EMPTY_RESPONSE if empty_response is None else empty_response


def check_options(
    llms: Mapping[str, LLM],
    router: RouterOption,
    settings: Settings,
    concurrency: Concurrency,
    num_workers: int | None,
    *,
    multimodal: bool = False,
) -> AnyRouter | None:
    """Checks options, and makes the router.

    Args:
        llms: The models, by the names of their options.
        router: As in `AnswerOptions`.
        settings: The settings, whose `max_points` the router's cost guard needs.
        concurrency: As in `AnswerOptions`.
        num_workers: As in `AnswerOptions`.
        multimodal: As in `AnswerOptions`.

    Returns:
        The router. Keep it: the cost guard of `"auto"` learns from the answers.

    Raises:
        InvalidInput: An option cannot work; no call was made.
    """
    for name, llm in llms.items():
        check_llm(name, llm)
    found = _router(router, settings)
    check_concurrency(concurrency)
    for llm in llms.values():
        # Adopted models pack their weights now, and not during the first answer.
        resolved = resolve_llm(llm, concurrency)
        if multimodal and (resolved.native is not None or not resolved.takes_messages):
            raise InvalidInput(f"multimodal=True needs a chat LLM that takes images; {type(llm).__name__} takes text.")
    if num_workers is not None and not is_whole(num_workers, 1):
        raise InvalidInput(f"num_workers must be at least 1, or None for no limit, not {num_workers!r}.")
    return found


def plan_memory(settings: Settings) -> PlanMemory | None:
    """What the LLM made of each kind of plan; None where the settings choose the kind. Keep it: answers teach it."""
    if settings.planning != "auto":
        return None
    # Imported late: few programs let the router choose.
    from skeleton_of_thought.plan_memory import PlanMemory

    return PlanMemory()


def _router(router: RouterOption, settings: Settings) -> AnyRouter | None:
    # Imported late: only programs that make an engine load the weights and word lists.
    from skeleton_of_thought.routers.auto import as_router
    from skeleton_of_thought.routers.cost import CostGuard

    return as_router(router, guard=CostGuard(max_points=settings.max_points))
