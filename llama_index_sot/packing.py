"""How much room a context has in the prompts of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM

from llama_index_sot.retrieval import Packer
from llama_index_sot.templates import Templates
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Point, Skeleton

__all__ = ["packer_of"]

_TITLE = "a heading of several words"
"""A point as long as points are: what the skeleton will be is not known before the context is."""


def packer_of(
    helper: PromptHelper | None,
    llm: LLM,
    templates: Templates,
    settings: Settings,
    more: Mapping[str, Any] | None = None,
) -> Callable[[str], Packer]:
    """What makes a context fit, for each question.

    Args:
        helper: The user's; None for LlamaIndex's default for this model.
        llm: The model.
        templates: The prompts.
        settings: How many points there may be.
        more: Values of the caller's own for the prompts.
    """

    def packer(question: str) -> Packer:
        prompts = templates.core(more)
        points = tuple(Point(i, _TITLE) for i in range(1, settings.max_points + 1))
        limits = {"max_points": settings.max_points, "words": settings.point_words}
        # The longer form, with examples, where the model continues a prefill: whether it does is the backend's to say.
        prompt = prompts.point_prompt(
            Conversation.of(question), Skeleton(points), points[0], **limits, prefill=True, context="", own_context=True
        )
        text = "\n\n".join([llm.system_prompt or "", *(message.text for message in prompt.messages)])
        fits = helper or LlamaIndexSettings._prompt_helper or PromptHelper.from_llm_metadata(llm.metadata)
        return Packer(fits, llm, text)

    return packer
