"""Lanes: groups of rows that share their kind of cache and are decoded step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from skeleton_of_thought.local.chooser import Chooser
from skeleton_of_thought.local.failures import fail_rows, in_halves, out_of_memory, release
from skeleton_of_thought.local.kv import Layers, RowsCache, Segment
from skeleton_of_thought.local.prefill import Prefilled, Prefiller
from skeleton_of_thought.local.prefix import (
    MIN_SHARED_TOKENS,
    Place,
    PrefixStore,
    Strip,
    attached_tokens,
    reachable,
    segments_of,
)
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import MAX_FORWARD_TOKENS, ModelRunner
from skeleton_of_thought.local.stats import Counters

__all__ = ["BatchedLane", "Lane"]


class Lane(Protocol):
    """A group of rows, each of which can join and leave between two steps."""

    rows: list[Row]

    def admit(self, rows: Sequence[Row]) -> Iterator[None]:
        """Run the prompts of new rows piece by piece and add the rows.

        Raises:
            Exception: The model failed. The rows that have not joined can be admitted again, fewer at once.
        """

    def step(self) -> None:
        """Decode one more token for every row. Rows that the model fails for end with its error.

        Raises:
            Exception: No row can go on: memory ran out.
        """

    def drop(self, row: Row) -> None:
        """Remove a row."""

    def clear(self) -> None:
        """Remove all rows and free their memory."""

    def kv_bytes(self) -> int:
        """The bytes of what its rows attend to or continue from, and of what is kept for later prompts."""


class BatchedLane:
    """All rows in one forward per step.

    Args:
        runner: The model.
        store: The kept beginnings of prompts.
        counters: The engine's counters.
        chunk: The most prompt tokens in one forward while rows are being decoded.
    """

    def __init__(self, runner: ModelRunner, store: PrefixStore, counters: Counters, chunk: int) -> None:
        self.rows: list[Row] = []
        self._runner = runner
        self._store = store
        self._counters = counters
        self._chooser = Chooser()
        self._prefiller = _prefiller(runner, store, lambda: chunk if self.rows else MAX_FORWARD_TOKENS)
        self._cache = runner.caches.batch()
        self._places: list[Place] = []  # the part of each row's text that lies in strips
        self._attached: list[int] = []  # the tokens of that part that the row attends to there, without a copy
        self._reading: list[Row] = []  # rows that read the rest of their prompts with the steps

    def admit(self, rows: Sequence[Row]) -> Iterator[None]:
        """Run the prompts of new rows, common beginnings once, and add the rows to the batch."""
        for group in self._prefiller.run(rows):
            if group is None:
                yield
                continue
            if group.logits is not None:
                _choose(self._chooser, group.rows, group.logits, self._counters)
            self._join(group)
            yield

    def step(self) -> None:
        """Decode one more token for every row, by one forward."""
        device = self._runner.device
        self._cache.reserve(1)
        ids = torch.tensor([[row.next_input] for row in self.rows], device=device)
        owned = self._cache.lengths()
        positions = torch.tensor([a + n for a, n in zip(self._attached, owned, strict=True)], device=device)[:, None]
        logits, errors = self._forward(ids, positions)
        self._cache.advance()
        counters = self._counters
        counters.steps += 1
        counters.slots += len(owned) * (max(owned) + 1)
        counters.padding += len(owned) * max(owned) - sum(owned)
        for i, error in errors.items():
            fail_rows([self.rows[i]], error)
        going: Sequence[Row] = self.rows
        last = logits[:, -1]
        if errors:
            going = [row for row in self.rows if not row.finished]
        if self._reading:
            going, last = self._read_on(going, last)
        for row in going:
            row.steps += 1
            row.step_rows += len(self.rows)
        if going:
            _choose(self._chooser, going, last, counters)
        if finished := [row for row in self.rows if row.finished]:
            for row in finished:
                self._keep(row)
                self._remove(row)
            self._attach(self._wanted())

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[int, Exception]]:
        """Run the next token of all rows; if that fails, of the rows in halves.

        Args:
            ids: The tokens, `[rows, 1]`.
            positions: Their positions, `[rows, 1]`.

        Returns:
            The logits of the rows that did not fail alone, `[rows, 1, vocabulary]`; and the errors of the others.
        """
        cache, new = self._cache, not self._cache.layers

        def run(first: int, stop: int) -> torch.Tensor:
            if stop - first < len(ids):
                part = cache.part(first, stop, self._segments(first, stop))
                logits = self._runner.forward(ids[first:stop], part, positions[first:stop])
                cache.take(first, part)
                return logits
            try:
                return self._runner.forward(ids, cache, positions)
            except BaseException:
                if new:
                    cache.forget()
                raise

        if self._runner.path.stateful:
            return self._forward_states(run)
        done, errors = in_halves(len(ids), run)
        parts = [logits for _, _, logits in done]
        return parts[0] if len(parts) == 1 else torch.cat(parts or [positions.float()[:0, :, None]]), errors

    def _forward_states(self, run: Callable[[int, int], torch.Tensor]) -> tuple[torch.Tensor, dict[int, Exception]]:
        """Like `_forward`, for a model with states: a forward that fails spoils them, so the rows run again alone."""
        try:
            return run(0, len(self.rows)), {}
        except Exception as error:
            if out_of_memory(error):
                raise
            release(error)
        from skeleton_of_thought.local.state_prefill import run_alone

        lengths = [a + n + 1 for a, n in zip(self._attached, self._cache.lengths(), strict=True)]
        done: dict[int, tuple[RowsCache, torch.Tensor]] = {}
        errors: dict[int, Exception] = {}
        for at, row in enumerate(self.rows):
            try:
                done[at] = run_alone(self._runner, row, lengths[at])
            except Exception as error:
                if out_of_memory(error):
                    raise
                errors[at] = error
        if not done:
            return torch.empty(0, 1, 1), errors
        caches = [done.get(at, next(iter(done.values())))[0] for at in range(len(self.rows))]
        self._cache = self._runner.caches.batch()
        own = [[cache.own(0, 0, cache.frame.end)] for cache in caches]
        self._cache.join(own, [cache.states_of(0) for cache in caches])
        self._cache.advance(-1)
        self._attached = [0 for _ in self.rows]
        return torch.cat([logits for _, logits in done.values()]), errors

    def _read_on(self, rows: Sequence[Row], logits: torch.Tensor) -> tuple[Sequence[Row], torch.Tensor]:
        """Have rows read the next tokens of their prompts. Returns the rows that have read all, and their logits.

        Args:
            rows: The rows whose step has not failed.
            logits: Their logits, `[rows, vocabulary]`.
        """
        run = [attached + own for attached, own in zip(self._attached, self._cache.lengths(), strict=True)]
        self._reading = []
        for row, tokens in zip(self.rows, run, strict=True):
            if tokens < len(row.prompt_ids):
                row.next_input = row.prompt_ids[tokens]
                self._reading.append(row)
        done = [i for i, row in enumerate(rows) if row not in self._reading]
        return [rows[i] for i in done], logits[done]

    def drop(self, row: Row) -> None:
        """Remove a row."""
        self._remove(row)
        self._attach(self._wanted())

    def _remove(self, row: Row) -> None:
        """Remove a row; the last one takes its place. Call `_attach` afterwards: what the others share may change."""
        at = self.rows.index(row)
        self._cache.remove(at)
        for items in (self.rows, self._places, self._attached):
            last: Any = items.pop()
            if at < len(items):
                items[at] = last
        self._chooser.clear()

    def clear(self) -> None:
        """Remove all rows and free their memory."""
        self.rows, self._places, self._attached, self._reading = [], [], [], []
        self._cache = self._runner.caches.batch()
        self._chooser.clear()

    def kv_bytes(self) -> int:
        """The bytes of all keys and values, those kept for later prompts included."""
        strips = reachable([*self._store.strips, *(place.strip for place in self._places)])
        return self._cache.nbytes + sum(strip.nbytes for strip in strips)

    def _join(self, group: Prefilled) -> None:
        # A row can end with its first token, or be cancelled meanwhile.
        going = [i for i, row in enumerate(group.rows) if not row.finished and not row.cancelled]
        if not going:
            return
        wanted = self._wanted([group.place for _ in going])
        new = wanted[len(self.rows) :]
        copies: list[list[Layers]] = [
            [*group.place.layers(start), *group.own[i]] for i, start in zip(going, new, strict=True)
        ]
        self._cache.join(copies, [group.states[i] for i in going] if group.states else ())
        now = time.perf_counter()
        for i in going:
            group.rows[i].started = now
            self.rows.append(group.rows[i])
            self._places.append(group.place)
        if group.states:
            self._read(group, going)
        self._attached.extend(new)
        self._attach(wanted)

    def _read(self, group: Prefilled, going: Sequence[int]) -> None:
        """Have rows of a model with states read what is left of their prompts with the steps."""
        for i in going:
            row = group.rows[i]
            run = group.place.depth + sum(piece[0][0].shape[2] for piece in group.own[i])
            if run < len(row.prompt_ids) - 1:
                row.next_input = row.prompt_ids[run]
                self._reading.append(row)

    def _wanted(self, more: Sequence[Place] = ()) -> list[int]:
        """The tokens that each row should attend to in strips, once rows with these places join."""
        attached = [*self._attached, *(0 for _ in more)]
        return attached_tokens([*self._places, *more], attached) if self._runner.shares else attached

    def _attach(self, wanted: Sequence[int]) -> None:
        """Have each row attend to this many tokens in strips, and drop its copies of them."""
        if not self._runner.shares:
            return
        for row, depth in enumerate(wanted):
            if depth > self._attached[row]:
                self._cache.trim(row, depth - self._attached[row])
                self._attached[row] = depth
        self._cache.segments = self._segments(0, len(self.rows))

    def _segments(self, first: int, stop: int) -> list[Segment]:
        """What the rows from `first` up to `stop` attend to in strips."""
        if not self._runner.shares:
            return []
        shared = zip(self._places[first:stop], self._attached[first:stop], strict=True)
        return segments_of([Place(place.strip, depth) for place, depth in shared], self._runner.device)

    def _keep(self, row: Row) -> None:
        """Keep a row's keys and values for prompts that continue its text."""
        at = self.rows.index(row)
        place, owned = self._places[at], self._cache.lengths()[at]
        total = self._attached[at] + owned
        if (
            total - place.depth < MIN_SHARED_TOKENS
            or row.mixed
            or row.cancelled
            or isinstance(row.result, BaseException)
        ):
            return
        ids = (*row.prompt_ids, *row.output_ids)[:total]
        if not self._store.wants(ids) or not self._runner.path.reads:
            return
        end = self._cache.frame.end
        views = self._cache.own(at, end - (total - place.depth), end)
        own = [(keys.clone(), values.clone()) for keys, values in views]
        states = [[None if state is None else state.clone() for state in layer] for layer in self._cache.states_of(at)]
        self._store.add(Strip(ids, place.depth, own, place.strip, states))


def _prefiller(runner: ModelRunner, store: PrefixStore, chunk: Callable[[], int]) -> Prefiller:
    if not runner.path.stateful:
        return Prefiller(runner, store, chunk)
    from skeleton_of_thought.local.state_prefill import StatePrefiller

    return StatePrefiller(runner, store, chunk)


def _choose(chooser: Chooser, rows: Sequence[Row], logits: torch.Tensor, counters: Counters) -> None:
    """Choose each row's next token, from logits of shape `[rows, vocabulary]`."""
    counters.decode_tokens += len(rows)
    chooser.choose(rows, logits)
