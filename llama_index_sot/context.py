"""The context of a prompt: retrieved nodes as text that fits the model's window."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, NodeWithScore

from llama_index_sot.llm_calls import ResolvedLLM
from llama_index_sot.templates import Templates
from skeleton_of_thought.errors import PromptTooLong
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import AnyRouter, decide_at_once
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.templates import AnswerPrompts
from skeleton_of_thought.types import Call, Conversation, Expansion, Item, ItemList, Message, Point, Prompt, Skeleton

__all__ = ["ContextPacker", "ContextWriter", "make_packer"]

logger = logging.getLogger(__name__)

_TITLE = "a heading of several words"
"""A title of the usual length. The context is made before the skeleton is known."""
_SCOPE = "what this point covers, and what it leaves to the other points"


@dataclass(frozen=True)
class ContextPacker:
    """Makes a context fit the model's window, by LlamaIndex's `PromptHelper`.

    Attributes:
        helper: Knows the window and counts tokens.
        llm: The model.
        prompt: The longest prompt of an answer by points, without its context.
        direct: The prompt of a direct answer, without its context.
        templates: The prompts of the engine or synthesizer.
    """

    helper: PromptHelper
    llm: LLM
    prompt: str
    direct: str
    templates: Templates

    def fit(self, chunks: Sequence[str], *, direct: bool = False) -> list[str]:
        """The chunks, unchanged if all of them fit together; else each cut to its share of the window.

        Where the shares would be empty, the last chunks are left out.

        Raises:
            PromptTooLong: The prompt alone leaves no room.
        """
        if not chunks:
            return []
        # Without room, the helper raises a ValueError.
        with contextlib.suppress(ValueError):
            if len(self.helper.repack(self._template(direct), chunks, llm=self.llm)) <= 1:
                return list(chunks)
        for count in range(len(chunks), 0, -1):
            with contextlib.suppress(ValueError):
                return self.helper.truncate(self._template(direct), chunks[:count], llm=self.llm)
        raise self._too_long(direct)

    def check(self, router: AnyRouter | None, conversation: Conversation) -> None:
        """Checks that the window has room for retrieved text, beside the prompt that will be needed.

        Args:
            router: Decides between points and a direct answer; asked only if there is no room for points.
            conversation: The question, and what the router may choose.

        Raises:
            PromptTooLong: There is no room.
        """
        if self._has_room(direct=False):
            return
        decision = None if router is None else decide_at_once(router, conversation)
        direct = decision is not None and not decision.use_skeleton
        if not (direct and self._has_room(direct=True)):
            raise self._too_long(direct)

    def _has_room(self, *, direct: bool) -> bool:
        try:
            self.helper.truncate(self._template(direct), ["."], llm=self.llm)
        except ValueError:
            return False
        return True

    def warn_of_empty(self, nodes: Sequence[NodeWithScore], chunks: Sequence[str]) -> None:
        """Logs, once for an engine or synthesizer, that some of its nodes have no text."""
        if self.templates.warned:
            return
        self.templates.warned = True
        empty = [node.node for node, chunk in zip(nodes, chunks, strict=True) if not chunk]
        logger.warning(
            "%d of %d retrieved nodes have no text, so the LLM sees nothing of them (the first: %s %s). "
            "multimodal=True shows their images to a chat LLM that takes them.",
            *(len(empty), len(nodes), type(empty[0]).__name__, empty[0].node_id),
        )

    def _template(self, direct: bool) -> PromptTemplate:
        return PromptTemplate("{prompt}{context_str}", prompt=self.direct if direct else self.prompt)

    def _too_long(self, direct: bool) -> PromptTooLong:
        what = "the prompt of a direct answer" if direct else "the prompt of a point, with the titles of all points,"
        helper = self.helper
        return PromptTooLong(
            f"The LLM's window has {helper.context_window} tokens, {helper.num_output} of them for its reply: "
            f"{what} leaves no room for retrieved text. Use an LLM with a larger context_window, a lower limit for "
            "its reply (max_tokens, num_output), a lower max_points, or shorter templates."
        )


@dataclass
class ContextWriter:
    """Writes the contexts of one answer, from its nodes.

    Attributes:
        packer: Makes a context fit the window; None for contexts that fit.
        citations: Whether each node has a number. The number is the node's position in `cited` and never changes.
        multimodal: Whether prompts show the images and other media of nodes.
        cited: The nodes with numbers.
    """

    packer: ContextPacker | None = None
    citations: bool = False
    multimodal: bool = False
    cited: list[NodeWithScore] = field(default_factory=list)
    _media: dict[int | None, list[Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, point: Point | None, nodes: Sequence[NodeWithScore], *, direct: bool = False) -> str:
        """The context of these nodes, for a point or the question; `direct` for a direct answer.

        Their media are kept for `with_media`.
        """
        if self.multimodal:
            self._media[None if point is None else point.index] = [
                block for node in nodes for block in media_blocks(node.node)
            ]
        chunks = [node.node.get_content(metadata_mode=MetadataMode.LLM).strip() for node in nodes]
        if self.packer is not None and not self.multimodal and not all(chunks):
            self.packer.warn_of_empty(nodes, chunks)
        if self.citations:
            numbers = self._numbers(nodes)
            chunks = [f"[{number}] {chunk}" for number, chunk in zip(numbers, chunks, strict=True)]
        chunks = [chunk for chunk in chunks if chunk]
        return "\n\n".join(self.packer.fit(chunks, direct=direct) if self.packer else chunks)

    def with_media(self, call: Call) -> Call:
        """A call whose prompt also shows the media of its nodes, at the end of the user's turn."""
        media = self._media.get(None if call.point is None else call.point.index) or self._media.get(None)
        if not media or call.prompt is None or call.stage == "route":
            return call
        messages = list(call.prompt.messages)
        last = max((i for i, message in enumerate(messages) if message.role == "user"), default=len(messages) - 1)
        content = messages[last].content
        blocks = ({"type": "text", "text": content},) if isinstance(content, str) else content
        shown = ({"type": block.block_type, "block": block} for block in media)
        messages[last] = Message(messages[last].role, (*blocks, *shown))
        return replace(call, prompt=replace(call.prompt, messages=tuple(messages), exact=None))

    def _numbers(self, nodes: Sequence[NodeWithScore]) -> list[int]:
        with self._lock:
            ids = [node.node.node_id for node in self.cited]
            for node in nodes:
                if node.node.node_id not in ids:
                    ids.append(node.node.node_id)
                    self.cited.append(node)
            return [ids.index(node.node.node_id) + 1 for node in nodes]


def media_blocks(node: BaseNode) -> list[Any]:
    """The images, audio and video of a node as LlamaIndex's content blocks. Nothing is read or downloaded."""
    if isinstance(node, ImageNode):
        if not (node.image or node.image_path or node.image_url):
            return []
        path = Path(node.image_path) if node.image_path else None
        image = node.image.encode() if node.image else None
        return [ImageBlock(image=image, path=path, url=node.image_url, image_mimetype=node.image_mimetype)]
    # Since LlamaIndex 0.14.7.
    blocks: list[Any] = getattr(node, "get_content_blocks", list)()
    return [block for block in blocks if not isinstance(block, TextBlock)]


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
        prompts, conversation = templates.prompt_set(variables), Conversation.of(question)
        writing = AnswerPrompts(
            prompts,
            conversation,
            settings.max_points,
            settings.point_words,
            # Prompts for local models hold examples.
            prefill=("point",) if resolved.continues_turn else (),
        )
        longest = _text(resolved, _longest(writing, settings))
        if prompts.item is not None:  # a template of the caller's own may be longer
            longest = max(longest, _text(resolved, _of_item(prompts, conversation)), key=len)
        return ContextPacker(
            helper or LlamaIndexSettings._prompt_helper or _default_helper(resolved),
            resolved.llm,
            longest,
            _text(resolved, prompts.direct_prompt(conversation)),
            templates,
        )

    return packer


def _longest(prompts: AnswerPrompts, settings: Settings) -> Prompt:
    """The longest prompt of a point, without its context; in a graph it shows the texts that the point builds on."""
    scope = "" if settings.planning == "titles" else _SCOPE
    points = [Point(i, _TITLE, scope=scope) for i in range(1, settings.max_points + 1)]
    shown = points[:-1][: settings.max_parents] if settings.planning in ("graph", "auto") else []
    if shown:
        points[-1] = replace(points[-1], depends_on=tuple(point.index for point in shown))
    text = " ".join(["word"] * settings.point_words)
    return prompts.point(
        Skeleton(tuple(points)),
        points[-1] if shown else points[0],
        "",
        parents=[Expansion(point, text) for point in shown],
        passage=text if settings.rewrite_overlap else "",
    )


def _of_item(prompts: PromptSet, conversation: Conversation) -> Prompt:
    """A prompt of an item, without its context; the instruction is as long as the question."""
    from skeleton_of_thought.fan_out import with_items

    item = Item(1, _TITLE)
    own = with_items(prompts, ItemList(conversation.question, (item,)))
    return AnswerPrompts(own, conversation, max_points=1, words=1).point(Skeleton((item,)), item, "")


def _text(resolved: ResolvedLLM, prompt: Prompt) -> str:
    return "\n\n".join([resolved.llm.system_prompt or "", *(message.text for message in prompt.messages)])


def _default_helper(resolved: ResolvedLLM) -> PromptHelper:
    # A local model's window is small, so its own tokens count; LlamaIndex counts by another model's tokenizer.
    tokenizer = None if resolved.native is None else resolved.native.engine.tokenizer.encode
    return PromptHelper.from_llm_metadata(resolved.llm.metadata, tokenizer=tokenizer)
