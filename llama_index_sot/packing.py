"""How much room a context has in the prompts of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.indices.prompt_helper import PromptHelper

from llama_index_sot.backends import Backend
from llama_index_sot.retrieval import Packer
from llama_index_sot.templates import Templates
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Point, Skeleton

__all__ = ["packer_of"]

_TITLE = "a heading of several words"
"""A point as long as points are: what the skeleton will be is not known before the context is."""


def packer_of(
    helper: PromptHelper | None,
    backends: Sequence[Backend],
    templates: Templates,
    settings: Settings,
    more: Mapping[str, Any] | None = None,
) -> Callable[[str], Packer]:
    """What makes a context fit, for each question.

    Args:
        helper: The user's; None for LlamaIndex's default for the model.
        backends: The models; the one with the smallest window counts.
        templates: The prompts.
        settings: How many points there may be.
        more: Values of the caller's own for the prompts.
    """

    def packer(question: str) -> Packer:
        backend = min(backends, key=lambda backend: backend.llm.metadata.context_window)
        points = tuple(Point(i, _TITLE) for i in range(1, settings.max_points + 1))
        prompt = templates.core(more).point_prompt(
            Conversation.of(question),
            Skeleton(points),
            points[0],
            max_points=settings.max_points,
            words=settings.point_words,
            # With its examples, where there are some.
            prefill=backend.native is not None,
        )
        text = "\n\n".join([backend.llm.system_prompt or "", *(message.text for message in prompt.messages)])
        return Packer(helper or LlamaIndexSettings._prompt_helper or _helper(backend), backend.llm, text)

    return packer


def _helper(backend: Backend) -> PromptHelper:
    # A local model's own tokens: its window is small, and LlamaIndex counts by the tokenizer of another model.
    tokenizer = None if backend.native is None else backend.native.engine.tokenizer.encode
    return PromptHelper.from_llm_metadata(backend.llm.metadata, tokenizer=tokenizer)
