"""The options that everything here has in common, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from llama_index.core.llms.llm import LLM
from llama_index.core.llms.structured_llm import StructuredLLM

from llama_index_sot.backends import Concurrency, check_concurrency, find_backend
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.base import AnyRouter
from skeleton_of_thought.settings import Settings

__all__ = ["RouterOption", "SettingsOptions", "check_llm", "check_options"]

RouterOption = AnyRouter | Literal["auto"] | None
"""What decides whether a query is answered through a skeleton; None for always."""


class SettingsOptions(TypedDict, total=False):
    """The settings of an answer; see `skeleton_of_thought.settings.Settings`."""

    max_points: int
    min_points: int
    eager: bool
    on_empty_skeleton: Literal["direct", "raise"]
    on_point_error: Literal["raise", "placeholder"]
    placeholder: str
    max_retries: int
    backoff: float
    point_timeout: float | None
    point_words: int
    join: Literal["numbered", "headings", "paragraphs"]
    merge: bool
    stop_loops: bool


def check_llm(name: str, llm: LLM) -> None:
    """Raises `InvalidInput` for what is no LLM that writes text.

    Args:
        name: The option's.
        llm: What it was given.
    """
    if not isinstance(llm, LLM):
        raise InvalidInput(f"{name} must be an LLM of LlamaIndex, not {type(llm).__name__}.")
    if isinstance(llm, StructuredLLM):
        raise InvalidInput(
            f"{name} gives data and not text, of which skeletons and points are made: pass the LLM that it is "
            f"made of, {type(llm.llm).__name__}."
        )


def check_options(
    llms: Mapping[str, LLM],
    router: RouterOption,
    settings: Settings,
    concurrency: Concurrency,
    num_workers: int | None,
) -> AnyRouter | None:
    """Checks what answers are made with, and makes a router of what stands for one.

    Args:
        llms: The models, by the names of their options.
        router: As for the engine.
        settings: How many points there may be.
        concurrency: As for the engine.
        num_workers: As for the engine.

    Returns:
        The router, to be kept: the cost guard of `"auto"` learns from the answers that it is told of.

    Raises:
        InvalidInput: Something cannot work; no call was made.
    """
    for name, llm in llms.items():
        check_llm(name, llm)
    found = _router(router, settings)
    check_concurrency(concurrency)
    for llm in llms.values():
        # Now, rather than amid the first answer: an engine packs a model's weights.
        find_backend(llm, concurrency)
    whole = isinstance(num_workers, int) and not isinstance(num_workers, bool)
    if num_workers is not None and (not whole or num_workers < 1):
        raise InvalidInput(f"num_workers must be at least 1, or None for no limit, not {num_workers!r}.")
    return found


def _router(router: RouterOption, settings: Settings) -> AnyRouter | None:
    # Not with the module: weights and word lists are loaded by whoever makes an engine.
    from skeleton_of_thought.routers.auto import as_router
    from skeleton_of_thought.routers.cost import CostGuard

    return as_router(router, guard=CostGuard(max_points=settings.max_points))
