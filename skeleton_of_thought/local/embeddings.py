"""The token ids and the positions that a model has embeddings for.

A tokenizer can have more tokens than its model, for example after `add_special_tokens` without
`resize_token_embeddings`. On CPUs such an id fails a forward; on GPUs no other work of the process succeeds after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from skeleton_of_thought.errors import InvalidInput

__all__ = ["Embeddings"]

_ADVICE = "call model.resize_token_embeddings(len(tokenizer))"


class Embeddings:
    """The embeddings of a model, as they are at each call: users may resize them at any time.

    Args:
        model: A causal language model.

    Attributes:
        positions: The number of positions with a learned embedding; None where positions are computed.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.positions = _learned_positions(model)
        self._masked = _masks_ids(model)

    @property
    def ids(self) -> int:
        """The number of token ids, from 0."""
        size = _rows(self._model.get_input_embeddings())
        more = None if self._masked else _per_layer_embeddings(self._model)
        return size if more is None else min(size, _rows(more))

    def check(self, ids: Sequence[int], token: Callable[[int], object]) -> None:
        """Check the ids of a prompt.

        Args:
            ids: The ids, at least one.
            token: The token of an id.

        Raises:
            InvalidInput: The model has no embedding for one of them.
        """
        known = self.ids
        if min(ids) >= 0 and max(ids) < known:
            return
        at = next(at for at, one in enumerate(ids) if not 0 <= one < known)
        raise InvalidInput(
            f"Token {at + 1} of the prompt, {token(ids[at])!r:.60}, has id {ids[at]}, but the model has {known} "
            f"embeddings, for ids 0 to {known - 1}: {_ADVICE} after adding tokens, or use the model's own tokenizer."
        )

    def missing(self, token: int) -> InvalidInput:
        """The error for a generated token without an embedding, after which the text cannot go on."""
        return InvalidInput(
            f"The model generated id {token}, which it cannot read: it has {self.ids} embeddings, fewer than logits. "
            f"To resize both, {_ADVICE}."
        )


def _rows(embeddings: Any) -> int:
    # Quantised weights have other shapes.
    return int(getattr(embeddings, "num_embeddings", None) or embeddings.weight.shape[0])


def _per_layer_embeddings(model: Any) -> Any:
    """The second embeddings that Gemma 3n and 4 have; None in other models."""
    find = getattr(model, "get_per_layer_input_embeddings", None)
    try:
        return None if find is None else find()
    except AttributeError:  # a size without them
        return None


def _masks_ids(model: Any) -> bool:
    """Whether a model replaces the ids that its second embeddings lack. True also where they lack none."""
    more = _per_layer_embeddings(model)
    if more is None or _rows(more) >= _rows(model.get_input_embeddings()):
        return more is None
    owner: Any = next(part for part in model.modules() if more in part.children())
    if more.weight.device.type != "cpu":
        return False  # the trial would end all work on a GPU
    try:
        with torch.no_grad():
            owner.get_per_layer_inputs(torch.tensor([[_rows(more)]]))
    except Exception:
        return False
    return True


def _learned_positions(model: Any) -> int | None:
    # Beside the embeddings of tokens: a model may have other towers, with positions of their own.
    tokens = model.get_input_embeddings()
    owner = next((part for part in model.modules() if any(child is tokens for child in part.children())), None)
    for name, child in () if owner is None else owner.named_children():
        if isinstance(child, nn.Embedding) and (name == "wpe" or "position" in name):
            first = getattr(child, "offset", None)
            if first is None:
                first = 0 if child.padding_idx is None else child.padding_idx + 1
            return child.num_embeddings - int(first)
    return None
