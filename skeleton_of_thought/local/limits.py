"""The limits that a prompt and its completion must keep to: known token ids, the model's window, the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.local.embeddings import Embeddings
from skeleton_of_thought.local.runner import ModelRunner

__all__ = ["Limits", "checked_share"]

_DEFAULT_NEW_TOKENS = 512
_REASONING_NEW_TOKENS = 4096
"""The default where the model may reason before it answers."""


class Limits:
    """The limits of one model.

    Args:
        runner: The model.
        kv_memory: The memory for keys and values, as for `LocalEngine`.

    Attributes:
        embeddings: What the model has embeddings for.
        budget: The most tokens whose keys and values fit the memory, in which states count, too.
        window: The longest prompt and completion together, in tokens; None when the model names no limit.
    """

    def __init__(self, runner: ModelRunner, kv_memory: int | float) -> None:
        self.embeddings = Embeddings(runner.model)
        self.budget = runner.tokens_in(kv_memory)
        self._longest = runner.longest_in(self.budget)
        windows = [window for window in (runner.context_window, self.embeddings.positions) if window is not None]
        self.window = min(windows, default=None)

    def new_tokens(
        self,
        ids: Sequence[int],
        wanted: int | None,
        suited: int | None,
        configured: int | None,
        token: Callable[[int], object],
        *,
        reasons: bool = False,
    ) -> int:
        """The most tokens to generate after a prompt.

        Args:
            ids: The prompt in tokens.
            wanted: The caller's limit, in tokens; None for no limit.
            suited: The limit in the prompt's hints, in tokens; None for no limit.
            configured: The limit of the generation config, where the others are None; None for no limit.
            token: The token of an id, for errors.
            reasons: Whether the model may reason before it answers.

        Raises:
            InvalidInput: The model has no embedding for a token of the prompt.
            PromptTooLong: The prompt and the tokens that the caller wants do not fit.
        """
        self.embeddings.check(ids, token)
        prompt, window, budget = len(ids), self.window, self._longest
        room = None if window is None else window - prompt
        if room is not None and room < (wanted or 1):
            raise PromptTooLong(
                f"The prompt has {prompt} tokens and {wanted or 'at least 1'} are to be generated, but the model's "
                f"window is {window}: shorten the prompt or lower max_new_tokens."
            )
        if prompt + (wanted or 1) > budget:
            raise PromptTooLong(
                f"The prompt has {prompt} tokens and {wanted or 'at least 1'} are to be generated, but keys and values "
                f"of {budget} tokens are all that kv_memory allows for: raise it or shorten the prompt."
            )
        room = budget - prompt if room is None else min(room, budget - prompt)
        if wanted is None and suited is None:
            wanted = configured or (_REASONING_NEW_TOKENS if reasons else _DEFAULT_NEW_TOKENS)
        return max(1, min(limit for limit in (wanted, suited, room) if limit is not None))


def checked_share(kv_memory: Any) -> int | float:
    """The setting `kv_memory` as an int or a float of Python's.

    Raises:
        InvalidInput: It is neither a number of bytes nor a share of the free memory.
    """
    number, whole = isinstance(kv_memory, Real) and not isinstance(kv_memory, bool), isinstance(kv_memory, Integral)
    # Not `<= 0`: a NaN is neither.
    if not number or not kv_memory > 0 or (not whole and kv_memory > 1):
        raise InvalidInput(
            f"kv_memory is {kv_memory!r:.40}; it must be a number of bytes (an int) or a share of free memory "
            "(a float above 0 and up to 1)."
        )
    return int(kv_memory) if whole else float(kv_memory)
