"""`--compare`: Skeleton-of-Thought beside other ways to the same model's answer, in turns and at equal lengths."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from skeleton_of_thought._cli.backends import Backend, Way
from skeleton_of_thought._cli.report import Comparison, Normal, length
from skeleton_of_thought._cli.views import View
from skeleton_of_thought.drive import Open
from skeleton_of_thought.types import Answer, Call, Conversation, Hints, Prompt, Reply, Usage

__all__ = ["compare", "warm_up"]

_NAME = "one normal call"
_WARM_TOKENS = 4
_WARM_ROWS = 5


def warm_up(backend: Backend, view: View) -> None:
    """Has the backend do everything once that will be timed: first calls pay for what later ones find done.

    What answers over a network has nothing to warm up here, and each call of it costs.
    """
    if not backend.takes_limits:
        return
    view.note("warming up, not timed")
    _read_all([backend.open_call] * (_WARM_ROWS if backend.ways else 1))
    for way in backend.ways:
        _read_all([way.open_call])


def _read_all(opens: Sequence[Open]) -> None:
    prompt = Prompt(Conversation.of("Hello").messages, hints=Hints(max_tokens=_WARM_TOKENS, min_tokens=_WARM_TOKENS))
    streams = [one(Call(index, "direct", prompt), 0) for index, one in enumerate(opens, 1)]
    try:
        for stream in streams:
            for _ in stream:
                pass
    finally:
        for stream in streams:
            _close(stream)


def compare(
    answer: Answer, conversation: Conversation, backend: Backend, view: View, again: Callable[[], Answer]
) -> Comparison:
    """Answers the question in the backend's other ways.

    Between them the answer is made again, so that whatever slows the machine down for a while meets all ways.

    Args:
        answer: What Skeleton-of-Thought wrote.
        conversation: The question.
        backend: What answered it.
        view: Is told what is going on.
        again: Makes the answer once more, at the cost of the first.

    Raises:
        Exception: What a call of the backend raised.
    """
    limit = (length(answer) or None) if backend.takes_limits else None
    ways = list(backend.ways) or [Way(_NAME, backend.open_call)]
    # A server's answers cost, and vary by more than a few of them would show.
    repeats = len(backend.ways)
    turns = 1 + len(ways) + repeats
    ours = [answer.timings.total]
    normals = []
    for number, way in enumerate(ways):
        view.note(f"{way.name}, turn {2 + number + min(number, repeats)} of {turns}")
        normals.append(_decode(way, conversation, limit, view))
        if number < repeats:
            view.note(f"Skeleton-of-Thought again, turn {3 + 2 * number} of {turns}")
            ours.append(_as_long(again(), answer))
    return Comparison(tuple(normals), tuple(ours))


def _as_long(again: Answer, answer: Answer) -> float:
    """The seconds of an answer, had it as many tokens as the other: what is sampled has a new length each time."""
    seconds = again.timings.total
    return seconds * length(answer) / length(again) if length(answer) and length(again) else seconds


def _decode(way: Way, conversation: Conversation, limit: int | None, view: View) -> Normal:
    """One call with the question as it is, of exactly as many tokens where there is a limit."""
    call = Call(1, "direct", Prompt(conversation.messages, hints=Hints(max_tokens=limit, min_tokens=limit or 0)))
    pieces: list[str] = []
    usage: Usage | None = None
    first: float | None = None
    began = time.perf_counter()
    stream = way.open_call(call, 0)
    try:
        for item in stream:
            if isinstance(item, Reply):
                usage = item.usage
            elif item:
                first = first or time.perf_counter() - began
                pieces.append(item)
                view.show_normal(item)
    finally:
        _close(stream)
    return Normal("".join(pieces), time.perf_counter() - began, first, usage, limit, way.name)


def _close(stream: object) -> None:
    if (close := getattr(stream, "close", None)) is not None:
        close()
