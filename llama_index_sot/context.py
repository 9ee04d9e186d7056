"""The context of a prompt: retrieved nodes as text that fits the model's window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import MetadataMode, NodeWithScore

from llama_index_sot.llm_calls import ResolvedLLM
from llama_index_sot.templates import Templates
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Point, Skeleton

__all__ = ["ContextPacker", "ContextWriter", "make_packer"]

_TITLE = "a heading of several words"
"""A title of the usual length. The context is made before the skeleton is known."""


@dataclass(frozen=True)
class ContextPacker:
    """Makes a context fit the model's window, by LlamaIndex's `PromptHelper`.

    Attributes:
        helper: Knows the window and counts tokens.
        llm: The model.
        prompt: The longest prompt of the answer, without its context.
    """

    helper: PromptHelper
    llm: LLM
    prompt: str

    def fit(self, chunks: Sequence[str]) -> list[str]:
        """The chunks, unchanged if all of them fit together; else each cut to its share of the window.

        Raises:
            ValueError: The prompt alone leaves no room.
        """
        if not chunks:
            return []
        template = PromptTemplate("{prompt}{context_str}", prompt=self.prompt)
        if len(self.helper.repack(template, chunks, llm=self.llm)) <= 1:
            return list(chunks)
        return self.helper.truncate(template, chunks, llm=self.llm)


@dataclass
class ContextWriter:
    """Writes the contexts of one answer, from its nodes.

    Attributes:
        packer: Makes a context fit the window; None for contexts that fit.
        citations: Whether each node has a number. The number is the node's position in `cited` and never changes.
        cited: The nodes with numbers.
    """

    packer: ContextPacker | None = None
    citations: bool = False
    cited: list[NodeWithScore] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self, nodes: Sequence[NodeWithScore]) -> str:
        """The context of these nodes."""
        chunks = [node.node.get_content(metadata_mode=MetadataMode.LLM).strip() for node in nodes]
        if self.citations:
            numbers = self._numbers(nodes)
            chunks = [f"[{number}] {chunk}" for number, chunk in zip(numbers, chunks, strict=True)]
        chunks = [chunk for chunk in chunks if chunk]
        return "\n\n".join(self.packer.fit(chunks) if self.packer else chunks)

    def _numbers(self, nodes: Sequence[NodeWithScore]) -> list[int]:
        with self._lock:
            ids = [node.node.node_id for node in self.cited]
            for node in nodes:
                if node.node.node_id not in ids:
                    ids.append(node.node.node_id)
                    self.cited.append(node)
            return [ids.index(node.node.node_id) + 1 for node in nodes]


def make_packer(
    helper: PromptHelper | None,
    llms: Sequence[ResolvedLLM],
    templates: Templates,
    settings: Settings,
    variables: Mapping[str, Any] | None = None,
) -> Callable[[str], ContextPacker]:
    """A function that makes the packer for a question.

    Args:
        helper: The user's; None for LlamaIndex's default for the model.
        llms: The models; the one with the smallest window counts.
        templates: The prompts.
        settings: The settings, which limit the number of points.
        variables: The caller's own variables, which the user's templates may mention.
    """

    def packer(question: str) -> ContextPacker:
        resolved = min(llms, key=lambda each: each.llm.metadata.context_window)
        points = tuple(Point(i, _TITLE) for i in range(1, settings.max_points + 1))
        prompt = templates.prompt_set(variables).point_prompt(
            Conversation.of(question),
            Skeleton(points),
            points[0],
            max_points=settings.max_points,
            words=settings.point_words,
            # Prompts for local models hold examples.
            prefill=resolved.continues_turn,
        )
        text = "\n\n".join([resolved.llm.system_prompt or "", *(message.text for message in prompt.messages)])
        return ContextPacker(
            helper or LlamaIndexSettings._prompt_helper or _default_helper(resolved), resolved.llm, text
        )

    return packer


def _default_helper(resolved: ResolvedLLM) -> PromptHelper:
    # A local model's window is small, so its own tokens count; LlamaIndex counts by another model's tokenizer.
    tokenizer = None if resolved.native is None else resolved.native.engine.tokenizer.encode
    return PromptHelper.from_llm_metadata(resolved.llm.metadata, tokenizer=tokenizer)
