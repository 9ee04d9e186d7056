"""A private copy of a tokenizer that other code may use at the same time.

A fast tokenizer keeps truncation and padding on the object: a call with `truncation=True` in another thread, between
the moment when we switch it off and the moment when we encode, would cut our prompt. So each user of a tokenizer in
this package has a copy. It shares the vocabulary, so it takes neither memory nor time worth speaking of: 0.5 ms for
150,000 tokens, against 1.2 s and 50 MB for a deep copy.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from skeleton_of_thought.errors import InvalidInput

__all__ = ["PrivateTokenizer", "private_copy"]

logger = logging.getLogger(__name__)

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")

_COMPARED = 512
"""The most added tokens that are compared one by one to detect a change. Some models have thousands."""

_ATTEMPTS = 20


class PrivateTokenizer:
    """A copy of a tokenizer that follows the changes its owner makes: added tokens, special tokens, settings.

    Args:
        tokenizer: A Hugging Face tokenizer; unchanged.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: object = None
        self._copy: Any = None

    @property
    def latest(self) -> Any:
        """The latest copy, for decoding: `ids` makes a new one if the owner has changed the tokenizer."""
        return self.follow() if self._copy is None else self._copy

    def ids(self, text: str, *, special: bool, made: Sequence[int] | None = None) -> list[int]:
        """The tokens of a text, neither cut nor padded.

        Args:
            text: The text.
            special: Whether the tokenizer adds its special tokens.
            made: The tokens of the text, where they are known: only those that the tokenizer adds are new then.

        Raises:
            InvalidInput: The tokenizer cannot be copied, and other code cut or padded the text in each attempt.
        """
        if made is not None:
            whole, inner = (self.ids("a", special=each) for each in (special, False))
            start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
            return [*whole[:start], *made, *whole[start + len(inner) :]]
        mine = self.follow()
        for _ in range(_ATTEMPTS):
            encoded = mine(text, add_special_tokens=special, truncation=False, padding=False, verbose=False)
            if mine is not self._tokenizer or _whole(encoded):
                return list(encoded["input_ids"])
        raise InvalidInput(
            f"Other code keeps cutting or padding the texts of this {type(mine).__name__}, which cannot be copied: "
            "give the engine a tokenizer of its own."
        )

    def token(self, token: int) -> object:
        """The token of an id; None if there is none."""
        try:
            return self.latest.convert_ids_to_tokens(token)
        except Exception:  # ids that no tokenizer can have, such as negative ones
            return None

    def follow(self) -> Any:
        """The latest copy, made anew if the owner has changed the tokenizer."""
        now = _state(self._tokenizer)
        if self._copy is None or now != self._known:
            self._copy, self._known = private_copy(self._tokenizer), now
        return self._copy


def private_copy(tokenizer: Any) -> Any:
    """A copy that shares the vocabulary, without truncation and padding; the tokenizer itself if it has none."""
    try:
        mine = copy.copy(tokenizer)
        for name, value in list(vars(mine).items()):
            if isinstance(value, Tokenizer):
                vars(mine)[name] = _copy_backend(value)
            elif isinstance(value, dict | list):
                vars(mine)[name] = copy.copy(value)
    except Exception as error:
        logger.debug("%s cannot be copied", type(tokenizer).__name__, exc_info=error)
        return tokenizer
    return mine


def _copy_backend(backend: Tokenizer) -> Tokenizer:
    mine = Tokenizer(backend.model)
    for name in _PARTS:
        if (part := getattr(backend, name)) is not None:
            setattr(mine, name, part)
    added = backend.get_added_tokens_decoder()
    mine.add_tokens([added[token] for token in sorted(added)])
    mine.encode_special_tokens = backend.encode_special_tokens
    if mine.get_added_tokens_decoder() != added:  # files can give added tokens ids that they would not get now
        mine = copy.deepcopy(backend)
        mine.no_truncation()
        mine.no_padding()
    return mine


def _state(tokenizer: Any) -> list[object]:
    """A value that changes with what the owner can change of a tokenizer, truncation and padding aside."""
    try:
        state: list[object] = [len(tokenizer)]
    except Exception:  # remote code without a length
        state = []
    for name, value in list(getattr(tokenizer, "__dict__", {}).items()):
        if isinstance(value, Tokenizer):
            added = value.get_added_tokens_decoder() if _few_added(value) else None
            parts = [None if part is None else part.__getstate__() for part in (getattr(value, n) for n in _PARTS)]
            state += [name, id(value), value.get_vocab_size(), added, *parts]
        elif isinstance(value, str | int | None):
            state += [name, value]
        elif isinstance(value, dict | list) and len(value) <= _COMPARED:
            state += [name, copy.copy(value)]
    return state


def _few_added(backend: Tokenizer) -> bool:
    return backend.get_vocab_size() - backend.get_vocab_size(with_added_tokens=False) <= _COMPARED


def _whole(encoded: Any) -> bool:
    """Whether a text was neither cut nor padded."""
    encodings = getattr(encoded, "encodings", None) or ()
    return all(not one.overflowing and all(one.attention_mask) for one in encodings)
