"""Why replies end: the words of the providers with their meanings, and the error of a reply that failed.

`skeleton_of_thought.adapters.replies` has the rules of what happens after each end.
"""

from __future__ import annotations

from collections.abc import Mapping

from skeleton_of_thought.errors import ReplyError
from skeleton_of_thought.types import Reply

__all__ = ["CUT", "FAILED", "FINAL", "FINISH_REASONS", "describe_failure", "reply_error"]

_WORDS: Mapping[str, str] = {
    "stop": """
        stop end_turn stop_sequence eos eos_token end_of_text endoftext end_of_sequence complete completed finish
        finished normal
    """,
    "length": """
        length max_tokens max_output_tokens max_length maximum_tokens max_output model_length token_limit context
        model_context_window_exceeded context_length_exceeded error_limit limit
    """,
    "tool_calls": "tool_calls tool_call tool_use function_call",
    # OpenAI and Azure; Google; Bedrock; Cohere; Zhipu and Tencent.
    "content_filter": """
        content_filter safety recitation blocklist prohibited_content spii image_safety image_prohibited_content
        image_recitation jailbreak model_armor blocked guardrail_intervened content_filtered error_toxic sensitive
    """,
    "refusal": "refusal refused",
    # Google's are those with `malformed`, `unexpected`, `too_many` and `language`; the last lines are of servers.
    "error": """
        error failed language other image_other no_image malformed_function_call malformed_response
        unexpected_tool_call too_many_tool_calls missing_thought_signature malformed_model_output malformed_tool_use
        cancelled canceled user_cancel abort aborted timeout time_limit network_error insufficient_system_resource
        rag_query_when_rag_disabled
    """,
}

FINISH_REASONS: Mapping[str, str] = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
"""The finish reasons of the providers' APIs in lower case, with the word that the core has for each.

    stop             the text is complete
    length           a token limit cut the text
    tool_calls       the model wants a tool to be called
    content_filter   the provider blocked the text, or the rest of it
    refusal          the model refused
    error            the text is no answer, or only a part of one, for another reason

Other words pass as they are, and say nothing about the text.
"""

FAILED = frozenset({"content_filter", "refusal", "error"})
"""Finish reasons of a reply that failed, even if it has text."""

FINAL = frozenset({"content_filter", "refusal", "length", "tool_calls"})
"""Finish reasons that explain a reply without text, and that the same call would most likely have again."""


CUT = "max_chars"
"""The finish reason of a text that was ended because it had as many characters as the settings allow."""


def describe_failure(reply: Reply, *, wrote: bool = False) -> tuple[str, str]:
    """Why a reply failed, as a clause, and a sentence on what to do about it.

    Args:
        reply: The end of the reply, which failed or has no text.
        wrote: Whether the model sent text of which nothing is left, such as reasoning.
    """
    given = f" (finish reason {reply.finish_reason!r})"
    reason = FINISH_REASONS.get((reply.finish_reason or "").lower(), "")
    if reply.refusal or reason == "refusal":
        own = f": {reply.refusal.strip()!r}" if reply.refusal.strip() else given
        return f"the model refused{own}", "Rephrase the question, or try another model."
    if reason == "content_filter":
        return (
            f"a content filter blocked the reply{given}",
            "Rephrase the question, or change the safety settings at the provider.",
        )
    if reason == "error":
        return f"the provider ended the reply by an error{given}", "Try again later, or allow more attempts."
    if reason == "length":
        return (
            f"the reply reached its token limit before it had any text{given}",
            "Reasoning counts, too: raise max_tokens, or lower the model's reasoning effort.",
        )
    if reason == "tool_calls" or reply.instead == "tool calls":
        return "the model called a tool instead of writing text", "Use a model without tools here."
    if reply.instead or wrote:
        return (
            f"the reply has {reply.instead or 'reasoning or blanks'}, but no text",
            "Try another model, or a prompt that asks for the text.",
        )
    if reply.finish_reason is None and reply.usage is None:
        return "the reply is empty", "Check that the address is a model's, or try another model or prompt."
    return "the reply is empty", "Try another model, or another prompt."


def reply_error(reply: Reply, *, wrote: bool = False) -> ReplyError:
    """The error of a reply that failed or has no text; for `wrote` see `describe_failure`."""
    cause, advice = describe_failure(reply, wrote=wrote)
    reason = FINISH_REASONS.get((reply.finish_reason or "").lower())
    reason = "refusal" if reply.refusal else reason if reason in FAILED or reason == "length" else "error"
    return ReplyError(f"{cause[:1].upper()}{cause[1:]}. {advice}", reason)
