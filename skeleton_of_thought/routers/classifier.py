"""`ClassifierRouter`: a Hugging Face sequence classification model as a router."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.models import loading
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["THRESHOLD", "ClassifierRouter", "encode"]

THRESHOLD = "sot_threshold"
"""The entry of a model's config that says from which score on a skeleton is used."""


class ClassifierRouter:
    """Decides by an encoder with a classification head, such as the paper's RoBERTa or what `sot train-router` made.

    Any model with one logit, or with two and more of which one means "use a skeleton", on CPU or GPU. Safe to be
    used from many threads.

    Args:
        model: A sequence classification model.
        tokenizer: Its tokenizer.
        threshold: The score from which on a skeleton is used.
        positive: The class that means "use a skeleton".
        max_length: Tokens of a question that the model sees. Of a longer one it sees the beginning and the end: what
            is to be done with a long text stands before or after it.

    Raises:
        InvalidInput: The threshold is not from 0 to 1, or the model has no such class.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, threshold: float = 0.5, positive: int = 1, max_length: int = 256
    ) -> None:
        if not 0 <= threshold <= 1:
            raise InvalidInput(f"threshold must be from 0 to 1, not {threshold!r}.")
        classes = model.config.num_labels
        if classes > 1 and not 0 <= positive < classes:
            raise InvalidInput(
                f"positive must be one of the model's {classes} classes, counted from 0, not {positive!r}."
            )
        self.threshold = threshold
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._positive = positive
        self._max_length = min(max_length, getattr(model.config, "max_position_embeddings", max_length) - 2)
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        threshold: float | None = None,
        positive: int = 1,
        max_length: int = 256,
        device: Any = None,
        **model_kwargs: Any,
    ) -> ClassifierRouter:
        """Loads a model from the hub or from a directory.

        Args:
            name: A hub id or a directory.
            threshold: None for the one that the model was trained with, 0.5 where it says none.
            positive: See the class.
            max_length: See the class.
            device: Where it runs; None for the GPU if there is one.
            model_kwargs: For transformers' `from_pretrained`: `revision`, `token`, `local_files_only`, ...

        Raises:
            ModelLoadError: There is no such model, or it cannot be loaded.
        """
        with loading(name):
            tokenizer = AutoTokenizer.from_pretrained(name, **model_kwargs)
            model = AutoModelForSequenceClassification.from_pretrained(name, **model_kwargs)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if threshold is None:
            threshold = getattr(model.config, THRESHOLD, 0.5)
        return cls(model.to(where), tokenizer, threshold=threshold, positive=positive, max_length=max_length)

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        (score,) = self.scores([conversation.question])
        use = score >= self.threshold
        return RouteDecision(
            use, score, f"the classifier takes it for {'independent points' if use else 'no such points'}"
        )

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`, in a thread."""
        return await asyncio.to_thread(self.route, conversation)

    def scores(self, questions: Sequence[str], *, batch_size: int = 32) -> list[float]:
        """The probability (0 to 1) that a skeleton suits, for each question; `batch_size` at a time."""
        found: list[float] = []
        for start in range(0, len(questions), batch_size):
            # Tokenizers keep their padding in themselves, so two threads must not set it at a time.
            with self._lock, torch.inference_mode():
                batch = encode(self._tokenizer, questions[start : start + batch_size], self._max_length)
                logits = self._model(**{key: value.to(self._model.device) for key, value in batch.items()}).logits
            found += self._probabilities(logits.float()).tolist()
        return found

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        if logits.shape[-1] == 1:
            return torch.sigmoid(logits[:, 0])
        return torch.softmax(logits, dim=-1)[:, self._positive]


def encode(tokenizer: Any, questions: Sequence[str], max_length: int) -> dict[str, torch.Tensor]:
    """Questions as a padded batch, the middle left out of those that are too long: tensors of (questions, tokens)."""
    room = max_length - tokenizer.num_special_tokens_to_add()
    texts = [_shortened(tokenizer, question, room) for question in questions]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return {key: batch[key] for key in ("input_ids", "attention_mask")}


def _shortened(tokenizer: Any, text: str, room: int) -> str:
    # A token has at least one character, so most questions need not be looked at.
    if len(text) <= room or not tokenizer.is_fast:
        return text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(offsets) <= room:
        return text
    # A word that is cut may become more tokens than it was; the rest is left to the tokenizer's own truncation.
    head = (room - 4) * 2 // 3
    tail = room - 4 - head
    return f"{text[: offsets[head - 1][1]]} ... {text[offsets[-tail][0] :]}"
