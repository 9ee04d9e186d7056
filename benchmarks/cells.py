"""The cells in the tables of the engine's benchmark: their prompts, their figures, and the tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from columns import SEQUENTIAL_ROWS, Column, Run
from limit import Machine, Probe, Shape
from workload import Tails, Workload, tail_lengths

__all__ = ["Cell", "Measured", "measure", "show"]


@dataclass(frozen=True)
class Cell:
    """The prompts that the columns decode in one cell.

    Attributes:
        rows: The number of prompts.
        prefix: Tokens that the prompts share.
        tails: The kind of lengths after the prefix.
        columns: Names of the columns that decode the prompts.
    """

    rows: int
    prefix: int
    tails: Tails
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"prefix {self.prefix}, {self.tails} tails, {self.rows} rows"


@dataclass(frozen=True)
class Measured:
    """The figures of a cell.

    Attributes:
        cell: The cell.
        runs: The runs of each column.
        skipped: The errors of columns without figures.
        machine: The rates of the machine, medians over the time of the cell.
        limit: The least possible seconds of a step.
        limited_by: `bytes` or `flops`.
    """

    cell: Cell
    runs: Mapping[str, Sequence[Run]]
    skipped: Mapping[str, str]
    machine: Machine
    limit: float
    limited_by: str

    def rate(self, name: str) -> float | None:
        """Tokens per second of a column, including the time for the prompts."""
        runs = self.runs.get(name)
        return statistics.median(run.tokens / run.seconds for run in runs) if runs else None

    def step(self, name: str) -> float | None:
        """Seconds of one step of a column."""
        steps = [run.step for run in self.runs.get(name, ()) if run.step is not None]
        return statistics.median(steps) if steps else None

    @property
    def share(self) -> float | None:
        """The engine's speed as a share of the limit: 1 reaches it."""
        step = self.step("engine")
        return None if step is None else self.limit / step

    def ratio(self, name: str) -> float | None:
        """The engine's tokens per second over a column's."""
        ours, rate = self.rate("engine"), self.rate(name)
        return None if ours is None or rate is None else ours / rate

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-safe data."""
        return {
            "rows": self.cell.rows,
            "prefix": self.cell.prefix,
            "tails": self.cell.tails,
            "tokens_per_second": {name: _rounded(self.rate(name)) for name in self.runs},
            "step_ms": {name: _rounded(self.step(name), 1e3) for name in self.runs},
            "repeats": {name: len(runs) for name, runs in self.runs.items()},
            "rows_measured": {name: measured_rows(name, self.cell.rows) for name in self.runs},
            "limit_ms": _rounded(self.limit, 1e3),
            "limited_by": self.limited_by,
            "engine_share_of_limit": _rounded(self.share),
            "engine_over": {name: _rounded(self.ratio(name)) for name in self.runs if name != "engine"},
            "gb_per_second": _rounded(self.machine.bandwidth, 1e-9),
            "gflop_per_second": _rounded(self.machine.rate, 1e-9),
            "skipped": dict(self.skipped),
        }


def measured_rows(name: str, rows: int) -> int:
    """The number of a cell's rows that a column decodes."""
    return min(rows, SEQUENTIAL_ROWS) if name == "sequential" else rows


def measure(
    cell: Cell,
    columns: Mapping[str, Column],
    *,
    workload: Workload,
    shape: Shape,
    probe: Probe,
    tokens: int,
    repeats: int,
    patience: float,
) -> Measured:
    """Decodes a cell with each of its columns, in turns.

    Args:
        cell: The cell to decode.
        columns: The available columns by name; the others of the cell are left out.
        workload: Makes the prompts.
        shape: The shape of the model.
        probe: Measures the machine.
        tokens: New tokens for each row.
        repeats: The number of runs of each column.
        patience: Seconds; a column that takes longer is not repeated.
    """
    runs: dict[str, list[Run]] = {}
    skipped: dict[str, str] = {}
    machines: list[Machine] = []
    names = [name for name in cell.columns if name in columns]
    lengths = tail_lengths(cell.tails, cell.rows)
    for repeat in range(repeats):
        prompts = workload.prompts(cell.prefix, lengths)
        shift = repeat % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            if name in skipped or (repeat and runs[name][0].seconds > patience):
                continue
            machines.append(probe())
            try:
                run = columns[name](prompts, tokens)
                wanted = measured_rows(name, cell.rows) * tokens
                if run.tokens != wanted:
                    raise RuntimeError(f"it decoded {run.tokens} tokens, not {wanted}")
            except Exception as error:
                # An error of one column must not cost the figures of the others.
                skipped[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                print(f"{cell}: {name} skipped: {skipped[name]}", flush=True)
                continue
            runs.setdefault(name, []).append(run)
            print(f"{cell}: {name} {run.tokens / run.seconds:.1f} tokens/s in {run.seconds:.1f} s", flush=True)
    machine = Machine.median(machines or [probe()])
    limit, limited_by = shape.step_seconds(machine, prefix=cell.prefix, tails=lengths, tokens=tokens)
    kept = {name: runs[name] for name in names if name in runs and name not in skipped}
    return Measured(cell, kept, skipped, machine, limit, limited_by)


def show(group: Sequence[Measured]) -> None:
    """Prints the tables of cells that differ only in their rows."""
    names = [name for name in group[0].cell.columns if any(name in cell.runs for cell in group)]
    print(f"\nprefix {group[0].cell.prefix}, {group[0].cell.tails} tails")
    _table("tokens/s", group, names, lambda cell, name: _text(cell.rate(name)))
    _table("ms a step", group, names, lambda cell, name: _text(cell.step(name), 1e3))
    print(f"{'limit':<12}{'ms a step':>15}{'engine':>15}{'GB/s':>15}{'GFLOP/s':>15}")
    for cell in group:
        share = "-" if cell.share is None else f"{cell.share:.0%}"
        line = (f"{cell.limit * 1e3:.1f}", share, _text(cell.machine.bandwidth, 1e-9), _text(cell.machine.rate, 1e-9))
        print(f"{f'{cell.cell.rows} rows':<12}" + "".join(f"{text:>15}" for text in line), f" {cell.limited_by}")
    if "sequential" in names and any(cell.cell.rows > SEQUENTIAL_ROWS for cell in group):
        print(f"(sequential: measured on {SEQUENTIAL_ROWS} rows)")
    others = [name for name in names if name != "engine"]
    _table("engine over", group, others, lambda cell, name: _text(cell.ratio(name), unit="x"))


def _table(title: str, group: Sequence[Measured], names: Sequence[str], text: Callable[[Measured, str], str]) -> None:
    if not names:
        return
    print(f"{title:<12}" + "".join(f"{name:>15}" for name in names))
    for cell in group:
        print(f"{f'{cell.cell.rows} rows':<12}" + "".join(f"{text(cell, name):>15}" for name in names))


def _text(value: float | None, factor: float = 1.0, unit: str = "") -> str:
    return "-" if value is None else f"{value * factor:.1f}{unit}"


def _rounded(value: float | None, factor: float = 1.0) -> float | None:
    return None if value is None else round(value * factor, 3)
