"""Counts the calls of an answer, and estimates the tokens that their backend does not report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from skeleton_of_thought.adapters.replies import close_stream
from skeleton_of_thought.types import Call, Reply, Usage

__all__ = ["CallLog", "CountedStream", "Logged", "tokens_of"]

_BYTES_PER_TOKEN = 4


@dataclass
class Logged:
    """A call.

    Attributes:
        stage: Its stage.
        asked: Bytes of its prompt.
        written: Bytes of its reply.
        usage: Its tokens, as the backend reports them.
    """

    stage: str
    asked: int
    written: int = 0
    usage: Usage | None = None

    def missing(self) -> Usage:
        """An estimate of the tokens that the backend has not reported; nothing for a call that wrote no text."""
        if not self.written or (self.usage is not None and self.usage.output_tokens):
            return Usage()
        return Usage(0 if self.usage else tokens_of(self.asked), tokens_of(self.written))


def tokens_of(size: int) -> int:
    """An estimate of the tokens of a text of so many bytes."""
    return -(-size // _BYTES_PER_TOKEN)


@dataclass
class CallLog:
    """The calls of one answer, in the order in which they were opened.

    Attributes:
        calls: The calls.
    """

    calls: list[Logged] = field(default_factory=list)

    def open(self, call: Call) -> Logged:
        """Counts a call that is about to be opened."""
        size = 0
        if call.prompt is not None:
            size = sum(len(message.text.encode("utf-8", "replace")) for message in call.prompt.messages)
        logged = Logged(call.stage, size)
        self.calls.append(logged)
        return logged

    def estimates(self) -> dict[str, Usage]:
        """By stage the tokens that the backend has not reported, estimated; only stages with such calls."""
        found: dict[str, Usage] = {}
        for call in list(self.calls):
            if (missing := call.missing()).total_tokens:
                found[call.stage] = found.get(call.stage, Usage()) + missing
        return found


class CountedStream:
    """A call's stream whose text and usage go into a log.

    It has a `cancel` only if the stream has one, since drivers ask for that.

    Args:
        stream: The stream.
        logged: Of `CallLog.open`.
    """

    def __init__(self, stream: Iterable[str | Reply], logged: Logged) -> None:
        self._stream, self._logged = stream, logged
        if (cancel := getattr(stream, "cancel", None)) is not None:
            self.cancel = cancel

    def __iter__(self) -> Iterator[str | Reply]:
        for item in self._stream:
            if isinstance(item, Reply):
                self._logged.usage = item.usage
            else:
                self._logged.written += len(item.encode("utf-8", "replace"))
            yield item

    def close(self) -> None:
        """Closes the stream, like the drivers do."""
        close_stream(self._stream)
