"""The overhead of a direct answer over the same call without this project.

The scripted models answer at once, so all of the difference is overhead. A pair is two functions that begin an answer
and return its text piece by piece, as an iterator or an async iterator. `PAIRS` holds the pairs of the core,
`direct_frameworks.py` those of LangChain and LlamaIndex. `router.py` measures all of them in its section `overhead`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from skeleton_of_thought.drive import arun, run
from skeleton_of_thought.events import AnswerDelta
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.routers.auto import as_router
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.types import Call, Conversation, Prompt, Reply, Usage

QUESTIONS = {"gate": "What is 17 * 4?", "model": "How is cheese made?"}
"""A question that a rule of the gate answers directly, and one that only the embedded model does."""

Pieces = Iterator[str] | AsyncIterator[str]


@dataclass(frozen=True)
class Pair:
    """Two calls that return the same text.

    Attributes:
        plain: The call without this project.
        ours: The same question through this project, answered directly.
    """

    plain: Callable[[], Pieces]
    ours: Callable[[], Pieces]


# --- the core ---------------------------------------------------------------------------------------------

PIECES = ("word ",) * 50
"""The text of the scripted model."""
_ROUTER = as_router("auto", guard=CostGuard())


def reply(call: Call, index: int) -> Iterator[str | Reply]:
    """The scripted model as a call of the drivers. It writes no skeletons."""
    assert call.stage == "direct", call.stage
    yield from PIECES
    yield Reply(Usage(20, len(PIECES)), "stop")


async def areply(call: Call, index: int) -> AsyncIterator[str | Reply]:
    """Async twin of `reply`."""
    assert call.stage == "direct", call.stage
    for piece in PIECES:
        yield piece
    yield Reply(Usage(20, len(PIECES)), "stop")


def core_pairs(name: str, question: str) -> dict[str, Pair]:
    """`AnswerFlow` under each driver, with a new flow for every answer, as in use."""

    def plain() -> Iterator[str]:
        call = Call(1, "direct", Prompt(Conversation.of(question).messages))
        return (item for item in reply(call, 0) if isinstance(item, str))

    async def aplain() -> AsyncIterator[str]:
        call = Call(1, "direct", Prompt(Conversation.of(question).messages))
        async for item in areply(call, 0):
            if isinstance(item, str):
                yield item

    def ours() -> Iterator[str]:
        flow = AnswerFlow(Conversation.of(question), router=_ROUTER)
        return (event.text for _, event in run([flow], reply) if isinstance(event, AnswerDelta))

    async def aours() -> AsyncIterator[str]:
        flow = AnswerFlow(Conversation.of(question), router=_ROUTER)
        async with contextlib.aclosing(arun([flow], areply)) as events:  # type: ignore[type-var]
            async for _, event in events:
                if isinstance(event, AnswerDelta):
                    yield event.text

    return {f"core run, {name}": Pair(plain, ours), f"core arun, {name}": Pair(aplain, aours)}


PAIRS: dict[str, Pair] = {}
for _name, _question in QUESTIONS.items():
    PAIRS |= core_pairs(_name, _question)


# --- measuring --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Took:
    """One answer: its text, and the seconds until its first piece and its end."""

    text: str
    first: float
    total: float


def overhead(pairs: Mapping[str, Pair], runs: int) -> dict[str, Any]:
    """Prints and returns the milliseconds of both calls, medians of `runs` runs in turns.

    Raises:
        AssertionError: The two calls of a pair return different texts.
    """
    rows: dict[str, Any] = {}
    print(f"overhead of a direct answer, ms, median of {runs}; `first` is until the first text")
    print(" " * 28 + "".join(f"{head:>13}" for head in ("plain first", "added", "plain total", "added")))
    for name, pair in pairs.items():
        rows[name] = row = asyncio.run(_measured(name, pair, runs))
        values = (row["plain_first"], row["added_first"], row["plain_total"], row["added_total"])
        print(f"  {name:26}" + "".join(f"{value:>13.3f}" for value in values), flush=True)
    print()
    return {"runs": runs, "pairs": rows}


async def _measured(name: str, pair: Pair, runs: int) -> dict[str, float]:
    # Both calls, sync or not, run on the thread of an event loop, so that only the calls themselves differ.
    await _timed(pair.plain), await _timed(pair.ours)  # the first run fills caches
    plain, ours = [], []
    for turn in range(runs):
        for way, found in ((pair.plain, plain), (pair.ours, ours))[:: 1 if turn % 2 else -1]:
            found.append(await _timed(way))
    assert {one.text for one in plain} == {one.text for one in ours}, f"{name}: the texts differ"
    figures: dict[str, float] = {}
    for part in ("first", "total"):
        without, within = (median(getattr(one, part) for one in way) * 1e3 for way in (plain, ours))
        figures |= {f"plain_{part}": round(without, 4), f"added_{part}": round(within - without, 4)}
    return figures


async def _timed(way: Callable[[], Pieces]) -> Took:
    first: float | None = None
    texts = []
    began = time.perf_counter()
    pieces = way()
    if isinstance(pieces, AsyncIterator):
        async for piece in pieces:
            first = first or time.perf_counter() - began
            texts.append(piece)
    else:
        for piece in pieces:
            first = first or time.perf_counter() - began
            texts.append(piece)
    total = time.perf_counter() - began
    return Took("".join(texts), total if first is None else first, total)
