"""The options that everything here has in common, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from llama_index.core.llms.llm import LLM
from llama_index.core.llms.structured_llm import StructuredLLM

from llama_index_sot.backends import Concurrency, check_concurrency, find_backend
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routing import Router, check_router

__all__ = ["SettingsOptions", "check_options"]


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


def check_options(
    llms: Mapping[str, LLM],
    router: Router | Callable[[str], Any] | None,
    concurrency: Concurrency,
    num_workers: int | None,
) -> None:
    """Raises `InvalidInput` for what cannot work, before any call is made.

    Args:
        llms: The models, by the names of their options.
        router: As for the engine.
        concurrency: As for the engine.
        num_workers: As for the engine.
    """
    for name, llm in llms.items():
        if not isinstance(llm, LLM):
            raise InvalidInput(f"{name} must be an LLM of LlamaIndex, not {type(llm).__name__}.")
        if isinstance(llm, StructuredLLM):
            raise InvalidInput(
                f"{name} gives data and not text, of which skeletons and points are made: pass the LLM that it is "
                f"made of, {type(llm.llm).__name__}."
            )
    check_router(router)
    check_concurrency(concurrency)
    for llm in llms.values():
        # Now, rather than amid the first answer: an engine packs a model's weights.
        find_backend(llm, concurrency)
    whole = isinstance(num_workers, int) and not isinstance(num_workers, bool)
    if num_workers is not None and (not whole or num_workers < 1):
        raise InvalidInput(f"num_workers must be at least 1, or None for no limit, not {num_workers!r}.")
