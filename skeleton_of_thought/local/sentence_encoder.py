"""`SentenceEncoder`: vectors of texts by a Hugging Face encoder, such as those of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

# Before torch: this import names the extra if torch is missing, and sets how OpenMP waits.
from skeleton_of_thought.local.models import loading, without_questions  # isort: skip

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils.hub import cached_file

from skeleton_of_thought.local.private_tokenizer import private_copy
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.small_files import parse_json, read_bounded

__all__ = ["SentenceEncoder"]

_LONGEST = 512
"""The most tokens of a text for a model whose tokenizer names no limit."""
_POOLING = "1_Pooling/config.json"
"""Where sentence-transformers keeps which vectors of the tokens make that of the text."""


class SentenceEncoder:
    """Turns texts into vectors of length 1: the mean of the vectors of their tokens, or the first one.

    Args:
        model: An encoder.
        tokenizer: Its tokenizer.
        first: Whether a text's vector is that of its first token; else it is the mean of all.
    """

    def __init__(self, model: Any, tokenizer: Any, *, first: bool = False) -> None:
        self._model = model.eval()
        self._tokenizer = private_copy(tokenizer)
        self._first = first
        known = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", _LONGEST))
        self._longest = min(known, _LONGEST)

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str], **model_kwargs: Any) -> SentenceEncoder:
        """Loads a model from the hub or from a directory.

        Raises:
            ModelLoadError: The model does not exist or cannot be loaded.
        """
        model_kwargs = without_questions(model_kwargs)
        with loading(name):
            tokenizer = AutoTokenizer.from_pretrained(name, **model_kwargs)
            model = AutoModel.from_pretrained(name, **model_kwargs)
            path = cached_file(
                name,
                _POOLING,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            pooling = {} if path is None else parse_json(read_bounded(path, 1 << 16))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, first=bool(pooling.get("pooling_mode_cls_token")))

    def vectors(self, texts: Sequence[str], *, batch_size: int = 32) -> list[list[float]]:
        """The vectors of texts, in their order; long texts are cut at their end."""
        found: list[list[float]] = []
        for start in range(0, len(texts), batch_size):
            # No tokenizer reads half of a surrogate pair.
            readable = [replace_surrogates(text) for text in texts[start : start + batch_size]]
            batch = self._tokenizer(
                readable, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            ).to(self._model.device)
            with torch.inference_mode():
                hidden = self._model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1)
            pooled = hidden[:, 0] if self._first else (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            found += torch.nn.functional.normalize(pooled, dim=-1).tolist()
        return found
