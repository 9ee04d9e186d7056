"""A prompt's hints as settings of the local engine."""

from __future__ import annotations

from typing import Any

from skeleton_of_thought.types import Call, Hints

__all__ = ["engine_settings", "token_limit"]


def engine_settings(hints: Hints) -> dict[str, Any]:
    """Settings of `LocalEngine.stream` for these hints, all but the limit: for that see `token_limit`."""
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
        reasons: Whether the model may reason before it answers. Prompts' limits suit answers alone, so only the model's
            own counts then, unless the prompt has the start of the answer.
    """
    assert call.prompt is not None, "only calls with a prompt reach a model"
    wanted = None if reasons and not call.prompt.prefill else call.prompt.hints.max_tokens
    if not wanted:
        return own if wanted is None else min(own, wanted)
    return wanted if call.stage == "merge" and not chosen else min(own, wanted)
