"""A prompt's hints as settings of the local engine."""

from __future__ import annotations

from typing import Any

from skeleton_of_thought.types import Call, Hints

__all__ = ["engine_settings", "token_limit"]


def engine_settings(hints: Hints, *, reasons: bool = False) -> dict[str, Any]:
    """Settings of `LocalEngine.stream` for these hints, all but the limit: for that see `token_limit`.

    Args:
        hints: The hints of a prompt.
        reasons: Whether the reply may begin with reasoning. Only the stop strings count then, which the engine looks
            for after the reasoning: a penalty would grow with it.
    """
    if reasons:
        hints = Hints(stop=hints.stop)
    return {
        "stop_after_text": hints.stop,
        "min_new_tokens": hints.min_tokens,
        "frequency_penalty": hints.frequency_penalty,
        "presence_penalty": hints.presence_penalty,
    }


def token_limit(call: Call, own: int, *, chosen: bool, reasons: bool = False) -> int:
    """The longest completion for a call, in tokens: the smaller of the model's limit and the prompt's.

    Args:
        call: A call with a prompt.
        own: The model's limit.
        chosen: Whether the user set that limit. A default suits one reply, and would cut the merge of many points, so
            a merge then gets the prompt's limit.
        reasons: Whether the reply may begin with reasoning. The prompt's limit suits its answer alone, so only the
            model's counts then.
    """
    assert call.prompt is not None, "only calls with a prompt reach a model"
    wanted = None if reasons else call.prompt.hints.max_tokens
    if not wanted:
        return own if wanted is None else min(own, wanted)
    return wanted if call.stage == "merge" and not chosen else min(own, wanted)
