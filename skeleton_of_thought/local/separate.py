"""The lane of models whose rows have caches of their own: one row after another, or rows of equal length together."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from skeleton_of_thought.local.chooser import Chooser
from skeleton_of_thought.local.failures import fail_rows, out_of_memory, release
from skeleton_of_thought.local.own_cache import OwnCache, RowState, stacked
from skeleton_of_thought.local.prefill import branches_of, shared_length
from skeleton_of_thought.local.prefix import MIN_SHARED_TOKENS, common_prefix
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import MAX_FORWARD_TOKENS, CacheKind, ModelRunner
from skeleton_of_thought.local.snapshots import Snapshot, SnapshotStore
from skeleton_of_thought.local.stats import Counters

__all__ = ["SeparateLane"]

logger = logging.getLogger(__name__)

_TOKENS_PER_STEP = 16
"""About the number of prompt tokens of one forward that take as long as a single one."""


@dataclass(eq=False)
class _Group:
    """Rows that run together, and their state."""

    rows: list[Row]
    state: RowState


class SeparateLane:
    """Decodes rows on caches of the model's own kind.

    Args:
        runner: The model.
        store: The states after beginnings of earlier texts.
        counters: The engine's counters.
        chunk: The most prompt tokens in one forward while rows are being decoded.
        kind: The kind of its rows: `"separate"` or `"none"`.
    """

    def __init__(
        self, runner: ModelRunner, store: SnapshotStore, counters: Counters, chunk: int, kind: CacheKind
    ) -> None:
        self.rows: list[Row] = []
        self._runner = runner
        self._store = store
        self._counters = counters
        self._chunk = chunk
        self._kind = kind
        self._groups: list[_Group] = []
        self._chooser = Chooser()

    @property
    def _own(self) -> OwnCache:
        return self._runner.own_cache(self._kind)

    # --- prompts

    def admit(self, rows: Sequence[Row]) -> Iterator[None]:
        """Run the prompts of new rows, common beginnings once, and add the rows."""
        groups: dict[int, tuple[Snapshot | None, list[Row]]] = {}
        for row in rows:
            if not (row.cancelled or row.finished):
                found = self._store.find(row.prompt_ids) if self._own.copies else None
                if found and not self._worth(len(found.ids), len(row.prompt_ids)):
                    found = None
                row.reused = len(found.ids) if found else 0
                groups.setdefault(id(found), (found, []))[1].append(row)
        for place, members in groups.values():
            yield from self._descend(members, place)

    def _worth(self, depth: int, length: int) -> bool:
        """Whether a text of this length should continue a state after `depth` tokens."""
        return self._own.pieces or (length - depth) * _TOKENS_PER_STEP <= depth

    def _saves(self, rows: Sequence[Row], depth: int) -> bool:
        """Whether a common state of these rows saves work, if they have one after `depth` tokens."""
        shared, longest = shared_length(rows), max(len(row.prompt_ids) for row in rows)
        saved = (shared - depth) * (len(rows) - 1)
        return saved >= MIN_SHARED_TOKENS and self._own.copies and self._worth(shared, longest)

    def _descend(self, rows: list[Row], place: Snapshot | None) -> Iterator[None]:
        """Run the prompts of rows that all begin with the tokens of this snapshot."""
        depth, shared = len(place.ids) if place else 0, shared_length(rows)
        if self._saves(rows, depth):
            place = yield from self._snapshot(rows[0].prompt_ids[:shared], place)
            for row in rows[1:]:
                row.reused += shared - depth
            depth = shared
        leaves: list[Row] = []
        for branch in branches_of(rows, depth):
            if self._saves(branch, depth):
                yield from self._descend(branch, place)
            else:
                leaves.extend(branch)
        # A state may count the tokens of its rows together, and then fits no row of another length.
        equal = self._own.stacks and not self._own.stacks_all
        lengths: dict[int, list[Row]] = {}
        for row in leaves:
            lengths.setdefault(len(row.prompt_ids) if equal else id(row), []).append(row)
        for members in lengths.values():
            yield from self._tails(members, place)

    def _tails(self, rows: list[Row], place: Snapshot | None) -> Iterator[None]:
        """Run the rest of prompts of equal length, and add their rows."""
        rows = [row for row in rows if not (row.cancelled or row.finished)]
        if not rows:
            return
        if len(rows) == 1 and (parting := self._parting(rows[0].prompt_ids, place)):
            place = yield from self._snapshot(rows[0].prompt_ids[:parting], place)
        state = self._begin(place, len(rows))
        logits = yield from self._run([row.prompt_ids for row in rows], state)
        self._add(rows, state, logits)
        yield

    def _add(self, rows: Sequence[Row], state: RowState, logits: torch.Tensor) -> None:
        """Add rows whose prompts have run, each with its first token."""
        going = [i for i, row in enumerate(rows) if not (row.cancelled or row.finished)]
        for i in going:
            self._keep(rows[i].prompt_ids, state, i)
        if going:
            self._choose([rows[i] for i in going], logits[going])
        # A row can end with its first token.
        left = [i for i in going if not (rows[i].cancelled or rows[i].finished)]
        if not left:
            return
        for i in left:
            rows[i].started = time.perf_counter()
            self.rows.append(rows[i])
        self._join([rows[i] for i in left], state if len(left) == len(rows) else state.selected(left))

    def _parting(self, ids: tuple[int, ...], place: Snapshot | None) -> int:
        """Where this text parts from an earlier one: later ones may part there as well. 0 if nowhere."""
        at = max((common_prefix(text, ids[:-1]) for text in self._store.texts), default=0)
        new = at >= (len(place.ids) if place else 0) + MIN_SHARED_TOKENS
        return at if new and self._own.copies and self._worth(at, len(ids)) and self._store.wants(ids[:at]) else 0

    def _snapshot(self, ids: tuple[int, ...], place: Snapshot | None) -> Generator[None, None, Snapshot]:
        """Run the tokens after a snapshot, and keep the new state."""
        state = self._begin(place, 1)
        yield from self._run([ids], state)
        yield
        snapshot = Snapshot(ids, state)
        self._store.add(snapshot)
        return snapshot

    def _begin(self, place: Snapshot | None, rows: int) -> RowState:
        """The state of rows that begin with the tokens of a snapshot, or with nothing."""
        one = place.state.copied() if place else self._own.begin()
        state: RowState | None = one
        for _ in range(rows - 1):
            state = None if state is None else stacked(state, one)
        if state is None:
            raise ValueError("states of equal texts do not fit together")
        return state

    def _run(self, texts: Sequence[tuple[int, ...]], state: RowState) -> Generator[None, None, torch.Tensor]:
        """Run the tokens of texts of equal length that a state lacks, in pieces. Returns the logits after the last."""
        logits: torch.Tensor | None = None
        length = len(texts[0])
        while logits is None or state.lengths[0] < length:
            if logits is not None:
                yield
            at = state.lengths[0]
            most = max(1, (self._chunk if self.rows else MAX_FORWARD_TOKENS) // len(texts))
            size = most if self._own.pieces else 1 if at else length
            part = torch.tensor([ids[at : at + size] for ids in texts], device=self._runner.device)
            logits = self._runner.forward_own(self._own, part, state)
        return logits

    # --- steps

    def step(self) -> None:
        """Decode one more token for every row, by one forward per group."""
        chosen: list[torch.Tensor] = []
        rows: list[Row] = []
        for group in list(self._groups):
            for members, logits in self._step(group):
                self._counters.steps += 1
                for row in members:
                    row.steps += 1
                    row.step_rows += len(members)
                rows += members
                chosen.append(logits)
        if rows:
            self._choose(rows, chosen[0] if len(chosen) == 1 else torch.cat(chosen))
        for row in [row for row in self.rows if row.finished]:
            self._leave(row)

    def _step(self, group: _Group) -> list[tuple[list[Row], torch.Tensor]]:
        """Run the next token of a group's rows. Returns the rows that did not fail, and their logits."""
        ids = torch.tensor([[row.next_input] for row in group.rows], device=self._runner.device)
        try:
            return [(group.rows, self._runner.forward_own(self._own, ids, group.state))]
        except Exception as error:
            if out_of_memory(error):
                raise
            if len(group.rows) == 1:
                fail_rows(group.rows, error)
                return []
            release(error)
        # The state may be half changed. So each row runs its text again, alone.
        self._groups.remove(group)
        done: list[tuple[list[Row], torch.Tensor]] = []
        for row in group.rows:
            state = self._own.begin()
            try:
                logits = self._at_once((*row.prompt_ids, *row.output_ids), state)
            except Exception as error:
                if out_of_memory(error):
                    raise
                fail_rows([row], error)
                state = self._own.begin()
            else:
                done.append(([row], logits))
            self._groups.append(_Group([row], state))
        return done

    def _at_once(self, ids: tuple[int, ...], state: RowState) -> torch.Tensor:
        """Run the tokens of a text that a state lacks. Returns the logits after the last one."""
        run = self._run([ids], state)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Choose each row's next token, from logits of shape `[rows, vocabulary]`."""
        self._counters.decode_tokens += len(rows)
        self._chooser.choose(rows, logits)

    # --- who runs together

    def _join(self, rows: list[Row], state: RowState) -> None:
        """Add rows to a group whose rows have as many tokens, if the model can run them together."""
        own = self._own
        for group in self._groups if own.stacks else ():
            fits = own.stacks_all or group.state.lengths[0] == state.lengths[0]
            if fits and (both := stacked(group.state, state)) is not None:
                group.state = both
                group.rows += rows
                return
        self._groups.append(_Group(rows, state))

    def _leave(self, row: Row) -> None:
        """Remove a row that has ended, and keep its state for prompts that continue its text."""
        group = next(group for group in self._groups if row in group.rows)
        if not (row.mixed or row.cancelled or isinstance(row.result, BaseException)):
            at = group.rows.index(row)
            self._keep((*row.prompt_ids, *row.output_ids)[: group.state.lengths[at]], group.state, at)
        self.drop(row)

    def _keep(self, ids: tuple[int, ...], state: RowState, at: int) -> None:
        """Keep the state of one of its rows, which has run these tokens, for prompts that begin with them."""
        if self._own.copies:
            self._store.note(ids)
            if self._store.wants(ids):
                self._store.add(Snapshot(ids, state.copied() if len(state.lengths) == 1 else state.selected([at])))

    def drop(self, row: Row) -> None:
        """Remove a row and its state."""
        self.rows.remove(row)
        group = next(group for group in self._groups if row in group.rows)
        left = [i for i, other in enumerate(group.rows) if other is not row]
        if left:
            group.state = group.state.selected(left)
            group.rows = [group.rows[i] for i in left]
        else:
            self._groups.remove(group)
        self._chooser.clear()

    def clear(self) -> None:
        """Remove all rows and free their memory."""
        self.rows, self._groups = [], []
        self._chooser.clear()

    def kv_bytes(self) -> int:
        """The bytes of all rows' states, those kept for later prompts included."""
        return sum(group.state.nbytes for group in self._groups) + self._store.nbytes
