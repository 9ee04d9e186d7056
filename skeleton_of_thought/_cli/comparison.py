"""`sot compare`: measures Skeleton-of-Thought and its baselines in turns, at equal lengths."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from skeleton_of_thought._cli.backend import Baseline, ModelBackend
from skeleton_of_thought._cli.report import BaselineAnswer, Comparison, length
from skeleton_of_thought._cli.views import View
from skeleton_of_thought.adapters.replies import close_stream
from skeleton_of_thought.drive import Open
from skeleton_of_thought.types import Answer, Call, Conversation, Hints, Prompt, Reply, Usage

__all__ = ["compare", "warm_up"]

_ORDINARY_CALL = "one normal call"
_WARM_TOKENS = 4
_WARM_ROWS = 5


def warm_up(backend: ModelBackend, note: Callable[[str], object]) -> None:
    """Runs once everything that will be timed, since first calls pay for work that later ones find done.

    Servers are left out: nothing warms up here, and each of their calls costs.

    Args:
        backend: The backend.
        note: Shows a line about that.
    """
    if not backend.takes_limits:
        return
    note("warming up, not timed")
    _read_all([backend.open_call] * (_WARM_ROWS if backend.baselines else 1))
    for baseline in backend.baselines:
        _read_all([baseline.open_call])


def _read_all(opens: Sequence[Open]) -> None:
    prompt = Prompt(Conversation.of("Hello").messages, hints=Hints(max_tokens=_WARM_TOKENS, min_tokens=_WARM_TOKENS))
    streams = [open_call(Call(index, "direct", prompt), 0) for index, open_call in enumerate(opens, 1)]
    try:
        for stream in streams:
            for _ in stream:
                pass
    finally:
        for stream in streams:
            close_stream(stream)


def compare(
    answer: Answer, conversation: Conversation, backend: ModelBackend, view: View, repeat: Callable[[], Answer]
) -> Comparison:
    """Answers the question by each baseline of the backend.

    The answer is made again between the baselines, so that a temporary slowdown of the machine affects all of them.

    Args:
        answer: The answer by Skeleton-of-Thought.
        conversation: The question.
        backend: The backend that answered it.
        view: Shows the progress.
        repeat: Makes the answer once more, at the cost of the first time.

    Raises:
        Exception: As raised by a call of the backend.
    """
    limit = (length(answer) or None) if backend.takes_limits else None
    baselines = list(backend.baselines) or [Baseline(_ORDINARY_CALL, backend.open_call)]
    # Answers of a server cost, and vary by more than a few repetitions would show.
    repeats = len(backend.baselines)
    turns = 1 + len(baselines) + repeats
    runs = [answer.timings.total]
    answers = []
    for number, baseline in enumerate(baselines):
        view.note(f"{baseline.name}, turn {2 + number + min(number, repeats)} of {turns}")
        answers.append(_answer(baseline, conversation, limit, view))
        if number < repeats:
            view.note(f"Skeleton-of-Thought again, turn {3 + 2 * number} of {turns}")
            runs.append(_seconds_at_length(repeat(), answer))
    return Comparison(tuple(answers), tuple(runs))


def _seconds_at_length(repeated: Answer, answer: Answer) -> float:
    """The seconds of a repetition, scaled to the tokens of the first answer: sampled answers differ in length."""
    seconds = repeated.timings.total
    return seconds * length(answer) / length(repeated) if length(answer) and length(repeated) else seconds


def _answer(baseline: Baseline, conversation: Conversation, limit: int | None, view: View) -> BaselineAnswer:
    """One call with the plain question; it writes exactly `limit` tokens if there is a limit."""
    call = Call(1, "direct", Prompt(conversation.messages, hints=Hints(max_tokens=limit, min_tokens=limit or 0)))
    pieces: list[str] = []
    usage: Usage | None = None
    first: float | None = None
    start = time.perf_counter()
    stream = baseline.open_call(call, 0)
    try:
        for item in stream:
            if isinstance(item, Reply):
                usage = item.usage
            elif item:
                first = first or time.perf_counter() - start
                pieces.append(item)
                view.show_baseline(item)
    finally:
        close_stream(stream)
    return BaselineAnswer("".join(pieces), time.perf_counter() - start, first, usage, limit, baseline.name)
