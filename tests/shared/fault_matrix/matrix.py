"""Runs cells of the matrix and judges them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from fault_matrix.cells import Cell
from fault_matrix.clients import AFTER_THE_POINTS, SHORT, Steering
from fault_matrix.leftovers import Before
from fault_matrix.server import Due, FaultServer
from fault_matrix.surfaces import Seen, ask_async, ask_sync, is_async
from fault_matrix.verdict import judge

_MORE_RUNS = 5
"""How often a cell that is wrong only for a socket is run again."""


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    Attributes:
        cell: The cell.
        outcome: The name of its outcome, see `rules.py`.
        wrong: All that is wrong with it; nothing, if it is right.
    """

    cell: Cell
    outcome: str
    wrong: tuple[str, ...]


def run_cell(cell: Cell, server: FaultServer) -> Result:
    """Asks for one answer while the server breaks.

    A cell that is wrong only for a socket that it left is run again. asyncio's cancellations pass through the shield
    that httpcore puts around its closing of a connection (https://github.com/encode/httpcore/pull/927): where one
    comes just then, the client keeps the socket until it is closed itself. In a cell whose calls end together that is
    so in one of some fifteen runs, and more often on a busy machine. What this project leaves open is left open each
    time. A wrong cell with a `point_timeout` is run once more, because a busy machine may not keep it for the sound
    points.
    """
    result = _run_once(cell, server)
    if result.wrong and cell.policy.point_timeout is not None:
        result = _run_once(cell, server)
    for _ in range(_MORE_RUNS):
        if not result.wrong or not all(each.startswith("left behind: a socket") for each in result.wrong):
            break
        result = _run_once(cell, server)
    return result


def _run_once(cell: Cell, server: FaultServer) -> Result:
    server.expect(Due(cell.fault, cell.stage, 1 if cell.policy.once else 1_000_000))
    steering = Steering(server, SHORT if cell.policy.point_timeout is None else AFTER_THE_POINTS)
    try:
        seen, left = asyncio.run(_arun(cell, steering)) if is_async(cell) else _run(cell, steering)
    finally:
        steering.close()
    outcome, wrong = judge(cell, seen, server.counts)
    wrong += [f"left behind: {each}" for each in left]
    wrong += [f"the server itself broke: {mistake!r}" for mistake in server.mistakes]
    server.mistakes.clear()
    return Result(cell, outcome, tuple(wrong))


def _run(cell: Cell, steering: Steering) -> tuple[Seen, list[str]]:
    before = Before(steering.server)
    closing, ask = ask_sync(cell, steering)
    with closing:
        seen = ask()
        return seen, before.settled()


async def _arun(cell: Cell, steering: Steering) -> tuple[Seen, list[str]]:
    before = Before(steering.server)
    async with contextlib.AsyncExitStack() as stack:
        ask = await ask_async(cell, steering, stack)
        seen = await ask()
        return seen, await before.asettled()
