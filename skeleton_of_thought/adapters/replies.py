"""A model's reply: closing its stream, and how it ended (usage, finish reason, the work of a local engine).

For all adapters `ReplyEnd.reply` decides what the end of a reply means:

| End of a reply | It is |
|---|---|
| the client raises an error | failed |
| a finish reason; without one, usage | whole |
| a message that came at once without both, of a model whose others have had finish reasons | broken off, as below |
| the same, of a model whose others have had none | whole |
| a stream without both, of a model whose streams have had finish reasons | broken off: a `ConnectionError` |
| the same, of a model whose streams have had none | at first doubtful, later whole: its server gives none |

`AnswerFlow` and `MergeFlow` decide what follows. "Again" means: up to `max_retries` times, after `backoff`, unless the
reader has text of it. In the end, when no attempt is left:

| | Skeleton | Point | Merge | Direct answer |
|---|---|---|---|---|
| failed, broken off | again; raised | again; failed | again; failed | raised at once |
| doubtful | again; whole | again; whole | again; whole | whole |
| a finish reason of `FAILED` | its complete lines; a direct answer | again; failed | failed | whole |
| that means an error | the same, but without a line: again | again; failed | again; failed | whole |
| `length`, or cut by a bound on characters | its complete lines | its text | failed | whole |
| no text, but a reason for that (`FINAL`) | a direct answer | again; failed | failed | whole |
| no text, but tool calls or media | again; a direct answer | again; failed | again; failed | whole |
| no text, and nothing else | again; a direct answer | again; failed | again; failed | again; a `ReplyError` |

A failed point follows `on_point_error`; after a failed merge the answer is the joined points.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from inspect import isawaitable
from types import AsyncGeneratorType, CellType, GeneratorType
from typing import Any, TypeVar

from skeleton_of_thought.adapters.finish_reasons import CUT, FINAL, FINISH_REASONS
from skeleton_of_thought.types import Completion, Decoding, Reply, Usage

__all__ = [
    "BROKEN_OFF",
    "FinishReasons",
    "ReplyEnd",
    "aclose_stream",
    "aclosing_stream",
    "close_stream",
    "closing_stream",
    "completion_metadata",
    "ending",
    "lacks_text",
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


BROKEN_OFF = "The server's stream ended before its answer was complete."
"""The message of the `ConnectionError` for a stream that broke off without an error of the client."""

_RECORDS: dict[int, FinishReasons] = {}


@dataclass
class FinishReasons:
    """Whether the replies of a model have finish reasons, by those that have ended so far.

    Some servers give none, or give them in a form that a client drops, such as `"delta": null` beside the reason.

    Attributes:
        seen: Whether one of its streams had a reason.
        missed: Whether one had none although its protocol has them.
        at_once: Whether one of its replies that came at once had a reason.
    """

    seen: bool = False
    missed: bool = False
    at_once: bool = False

    @classmethod
    def of(cls, model: Any) -> FinishReasons:
        """The record of this model, which all answers share for as long as the object lives."""
        # By its id: pydantic models cannot be dictionary keys.
        record = _RECORDS.get(id(model))
        if record is None:
            record = cls()
            with suppress(TypeError):  # some objects cannot be referred to weakly
                weakref.finalize(model, _RECORDS.pop, id(model), None).atexit = False
                _RECORDS[id(model)] = record
        return record


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
        streamed: Whether the reply came in pieces. One that came at once says nothing about the model's streams, and
            they say nothing about it: some clients drop the reasons of streams.
        reasons: Whether the model gives finish reasons. If it does not, no reply of it counts as cut.
        refusal: See `Reply`.
        instead: See `Reply`.
        chars: The characters so far, with those of reasoning and of calls of tools.
        max_chars: The most characters that are wanted of a stream; None for no limit.
        full: Whether the stream has more characters than that. Its reader leaves it then, and it has ended by `CUT`.
    """

    usage: Usage | None = None
    finish_reason: str | None = None
    decoding: Decoding | None = None
    cut: bool = False
    streamed: bool = True
    reasons: FinishReasons = field(default_factory=lambda: FinishReasons(seen=True))
    refusal: str = ""
    instead: str = ""
    chars: int = 0
    max_chars: int | None = None
    full: bool = field(default=False, init=False)
    _promised: bool = field(default=False, init=False)
    _stated: bool = field(default=False, init=False)

    def read_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Takes the metadata of a message of LangChain, or of its next chunk."""
        self.finish_reason = read_finish_reason(metadata) or self.finish_reason
        # In OpenAI's protocol every stream says how it ended; other providers' do if one of the model's did. The
        # message of a reply that was not streamed has the key with any value, because such a reply is always complete.
        provider = metadata.get("model_provider")
        known = provider == "openai" or (provider is not None and self.streamed and self.reasons.seen)
        self._promised = self._promised or known
        self._stated = self._stated or "finish_reason" in metadata or "status" in metadata
        self.cut = self._promised and not self._stated

    def reply(self, titles: tuple[str, ...] | None = None) -> Reply:
        """The core's record of the end.

        Args:
            titles: The titles of a skeleton that came as data.

        Raises:
            ConnectionError: The stream broke off.
        """
        reasons, doubtful = self.reasons, False
        if self.full:
            self.finish_reason = CUT
        elif self.finish_reason is not None:
            reasons.seen, reasons.at_once = reasons.seen or self.streamed, reasons.at_once or not self.streamed
        elif self.cut and self.usage is None:
            if reasons.seen if self.streamed else reasons.at_once:
                raise ConnectionError(BROKEN_OFF)
            if self.streamed:
                doubtful, reasons.missed = not reasons.missed, True
        return Reply(
            usage=self.usage,
            finish_reason=self.finish_reason,
            decoding=self.decoding,
            titles=titles,
            refusal=self.refusal,
            instead=self.instead,
            doubtful=doubtful,
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
    cached = (_first_count(_getter(group), (name,)) for group, name in details if group is not None)
    return Usage(given or 0, written or 0, next((count for count in cached if count is not None), 0))


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


def lacks_text(reply: Reply) -> bool:
    """Whether nothing excuses a reply that has no text: no finish reason that explains it, and no other content."""
    return ending(reply) not in FINAL and reply.instead in ("", "reasoning")


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
    return next((value for name in names if isinstance(value := get(name), int) and value >= 0), None)


# --- closing streams: some iterators have `close` or `aclose`, others have neither ------------------


def close_stream(stream: Any) -> None:
    """Closes a stream that has a `close` method, and the client's streams that its generators leave open."""
    held = _client_streams(stream) if getattr(stream, "gi_frame", None) is not None else ()
    try:
        if (close := getattr(stream, "close", None)) is not None:
            close()
    finally:
        for each in held:
            each.close()


async def aclose_stream(stream: Any) -> None:
    """Closes a stream that has an `aclose` method, and the client's streams that its generators leave open."""
    held = _client_streams(stream) if getattr(stream, "ag_frame", None) is not None else ()
    try:
        if (aclose := getattr(stream, "aclose", None)) is not None:
            await aclose()
    finally:
        for each in held:
            if isawaitable(closing := each.close()):
                # In a task of its own: a cancellation of this one that is still on its way would end it half-way.
                await asyncio.shield(asyncio.ensure_future(closing))


def _client_streams(stream: Any) -> list[Any]:
    """The streams of HTTP clients that a generator holds, itself or through the generators that it reads.

    LlamaIndex's generators leave the stream of openai's client to the garbage collector if they are closed early, with
    its connection open: the stream and its iterator refer to each other. All clients of this kind have `response`.
    """
    found: list[Any] = []
    visited, open_ones = {id(stream)}, [stream]
    while open_ones:
        for each in gc.get_referents(open_ones.pop()):
            if id(each) in visited:
                continue
            visited.add(id(each))
            if isinstance(each, GeneratorType | AsyncGeneratorType | CellType):
                open_ones.append(each)
            elif isinstance(each, Iterable | AsyncIterable) and hasattr(each, "response") and hasattr(each, "close"):
                found.append(each)
    return found


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
