"""A model's reply: closing its stream, and how it ended (usage, finish reason, the work of a local engine)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from skeleton_of_thought.adapters.finish_reasons import FINISH_REASONS
from skeleton_of_thought.types import Completion, Decoding, Reply, Usage

__all__ = [
    "FinishReasons",
    "ReplyEnd",
    "aclose_stream",
    "aclosing_stream",
    "close_stream",
    "closing_stream",
    "completion_metadata",
    "ending",
    "read_decoding",
    "read_finish_reason",
    "read_usage",
]

StreamT = TypeVar("StreamT")

_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("input_token_details", "cache_read"),
)
_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason", "completionReason")
_BLOCKS = ("block_reason", "blockReason")


@dataclass
class FinishReasons:
    """Whether a model gives finish reasons, by its replies so far.

    Some servers give none, or give them in a form that a client drops, such as `"delta": null` beside the reason.

    Attributes:
        seen: Whether one of its replies had a reason.
    """

    seen: bool = False


@dataclass
class ReplyEnd:
    """The end of one reply, collected from its chunks.

    Attributes:
        usage: Tokens spent; None where the backend reports none.
        finish_reason: Why the text ended; None where the backend reports none.
        decoding: The engine's record; None for other backends.
        cut: Whether the protocol promises a finish reason that has not come. Clients of OpenAI's protocol take a
            connection that breaks between two chunks for the end of the stream, so only this and the missing usage
            tell a cut reply from a whole one.
        reasons: Whether the model gives finish reasons. If it does not, no reply of it counts as cut.
        refusal: See `Reply`.
        instead: See `Reply`.
    """

    usage: Usage | None = None
    finish_reason: str | None = None
    decoding: Decoding | None = None
    cut: bool = False
    reasons: FinishReasons = field(default_factory=lambda: FinishReasons(seen=True))
    refusal: str = ""
    instead: str = ""

    def reply(self, titles: tuple[str, ...] | None = None) -> Reply:
        """The core's record of the end.

        Args:
            titles: The titles of a skeleton that came as data.

        Raises:
            ConnectionError: The stream broke off.
        """
        if self.finish_reason is not None:
            self.reasons.seen = True
        if self.cut and self.usage is None and self.reasons.seen:
            raise ConnectionError("The server's stream ended before its answer was complete.")
        return Reply(
            usage=self.usage,
            finish_reason=self.finish_reason,
            decoding=self.decoding,
            titles=titles,
            refusal=self.refusal,
            instead=self.instead,
        )


def read_usage(data: Any) -> Usage | None:
    """The token counts in a mapping or object, by the names that OpenAI, Anthropic, Google, Ollama and LangChain use.

    Returns:
        None where it has neither an input nor an output count.
    """
    get = _getter(data)
    given, written = _first_count(get, _INPUT), _first_count(get, _OUTPUT)
    if given is None and written is None:
        return None
    details = ((get(group), name) for group, name in _CACHED)
    cached = (_getter(group)(name) for group, name in details if group is not None)
    return Usage(given or 0, written or 0, next((count for count in cached if isinstance(count, int)), 0))


def read_finish_reason(data: Any) -> str | None:
    """Why a reply ended, from a mapping or object: `"length"` for any provider's word for it, else the own word.

    Returns:
        None where it says nothing.
    """
    get = _getter(data)
    for name in _REASONS:
        reason = get(name)
        if reason and (word := reason if type(reason) is str else _word(reason)):
            word = word.rpartition(".")[2] or word  # "FinishReason.SAFETY" is an enum of Google's as a string
            return "length" if FINISH_REASONS.get(word.lower()) == "length" else word
    # Google blocks some prompts, and there is no reply then.
    feedback = get("prompt_feedback")
    for name in _BLOCKS if feedback else ():
        if (reason := _getter(feedback)(name)) and (word := _word(reason)):
            return word
    # OpenAI's Responses API has a status, and beside it the reason why a response is incomplete.
    details = get("incomplete_details")
    incomplete = None if details is None else _getter(details)("reason")
    if incomplete is not None:
        return "length" if FINISH_REASONS.get(str(incomplete)) == "length" else str(incomplete)
    status = get("status")
    if status == "completed":
        return "stop"
    return status if status in ("failed", "cancelled") else None


def _word(reason: Any) -> str | None:
    """A finish reason as a word. Google's clients give an enum, of strings or of numbers."""
    if isinstance(reason, Enum):
        reason = reason.value if isinstance(reason.value, str) else reason.name
    return reason if isinstance(reason, str) else None


def ending(reply: Reply) -> str | None:
    """Why a reply ended, in the core's words; see `FINISH_REASONS`. None where the backend does not say."""
    word = reply.finish_reason
    return "refusal" if reply.refusal else word and FINISH_REASONS.get(word.lower(), word)


def read_decoding(data: Any) -> Decoding | None:
    """The `Decoding` whose `to_dict` this is; None for anything else."""
    names = Decoding.__dataclass_fields__
    if not isinstance(data, Mapping) or not data.keys() >= names.keys():
        return None
    return Decoding(**{name: data[name] for name in names})


def completion_metadata(completion: Completion) -> dict[str, Any]:
    """The end of an engine's completion as plain data, which `read_finish_reason` and `read_decoding` understand."""
    metadata: dict[str, Any] = {"finish_reason": completion.finish_reason}
    if completion.decoding is not None:
        metadata["decoding"] = completion.decoding.to_dict()
    return metadata


def _getter(data: Any) -> Callable[[str], Any]:
    # Dicts first: the check for a `Mapping` costs more than everything else here, for every chunk.
    if isinstance(data, dict | Mapping):
        return data.get
    return lambda name: getattr(data, name, None)


def _first_count(get: Callable[[str], Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := get(name), int)), None)


# --- closing streams: some iterators have `close` or `aclose`, others have neither ------------------


def close_stream(stream: Any) -> None:
    """Closes a stream that has a `close` method."""
    if (close := getattr(stream, "close", None)) is not None:
        close()


async def aclose_stream(stream: Any) -> None:
    """Closes a stream that has an `aclose` method."""
    if (aclose := getattr(stream, "aclose", None)) is not None:
        await aclose()


@contextmanager
def closing_stream(stream: StreamT) -> Iterator[StreamT]:
    """`contextlib.closing` for any iterator."""
    try:
        yield stream
    finally:
        close_stream(stream)


@asynccontextmanager
async def aclosing_stream(stream: StreamT) -> AsyncIterator[StreamT]:
    """`contextlib.aclosing` for any async iterator."""
    try:
        yield stream
    finally:
        await aclose_stream(stream)
