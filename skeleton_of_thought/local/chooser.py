"""The choice of the next tokens of a whole batch, whose rows may have different settings.

Plain greedy rows cost one argmax. Penalties, bans and minimum lengths change single entries of the logits; the list of
these entries is kept from step to step. Other settings are processors, which get the logits of their row alone. A
grammar masks the tokens that it forbids, before the processors and after them. A row that samples draws one number from
its own generator and looks it up in its distribution, so its token depends on nothing but its logits and its seed.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from skeleton_of_thought.local.grammar import Constraint
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.sampling import Nucleus, SamplingParams, TopK, WholeVocabulary

__all__ = ["Chooser"]

_Sampler = type[TopK] | type[Nucleus] | type[WholeVocabulary]

_ROOM = 64
"""Tokens per row that the changes of a batch can grow by before their tensors are rebuilt."""


class Chooser:
    """Chooses the next tokens of one batch. Rows may join, leave and change places between steps."""

    def __init__(self) -> None:
        self._plan: _Plan | None = None

    def choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Choose a token for every row and have the row accept it.

        An error that one row's settings or text cause fails that row alone.

        Args:
            rows: The rows, none of them finished.
            logits: The logits of their next tokens, in float32, `[rows, vocabulary]`; unchanged afterwards.
        """
        try:
            plan = self._plan_for(rows, logits)
            tokens = plan.tokens(logits)
        except BaseException as error:  # libraries in Rust raise panics, which are no Exception
            self.clear()
            if len(rows) == 1:
                rows[0].fail(error)
            for i, row in enumerate(rows if len(rows) > 1 else ()):
                if not row.finished:
                    Chooser().choose([row], logits[i : i + 1])
            return
        going = True
        for row, token in zip(rows, tokens, strict=True):
            if row.finished:  # one of its processors failed
                going = False
                continue
            try:
                if token < 0:
                    raise ArithmeticError("The model's logits are not numbers (NaN), so no token can be sampled.")
                row.accept(token)
            except BaseException as error:
                row.fail(error)
            going = going and row.result is None
        if not going:
            self.clear()  # the next rows are others, and the plan must not keep finished rows alive

    def clear(self) -> None:
        """Forget the rows."""
        self._plan = None

    def _plan_for(self, rows: Sequence[Row], logits: torch.Tensor) -> _Plan:
        plan = self._plan
        # Equal lists hold the same row objects. The plan keeps them alive, so no new row can reuse their ids.
        if plan is None or plan.rows != list(rows) or not plan.update():
            plan = self._plan = _Plan(rows, logits)
        return plan


class _Plan:
    """The samplers, masks and changes for one list of rows, used until the list changes."""

    def __init__(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        self.rows = list(rows)
        vocabulary, device = logits.shape[-1], logits.device
        changed = [(i, row) for i, row in enumerate(rows) if _Changes.concern(row)]
        self._changes = _Changes(changed, vocabulary, device) if changed else None
        processed = [(i, row) for i, row in enumerate(rows) if row.sampler.processors is not None]
        self._processed = _Processed(processed, device) if processed else None
        constrained = [(i, row.constraint) for i, row in enumerate(rows) if row.constraint is not None]
        self._masks = _Masks(constrained, vocabulary, device) if constrained else None
        places: dict[_Sampler | None, list[int]] = {}
        for i, row in enumerate(rows):
            places.setdefault(_sampler(row.sampler.drawing, vocabulary), []).append(i)
        self._greedy = places.keys() <= {None}
        self._groups: list[tuple[list[int], torch.Tensor, TopK | Nucleus | WholeVocabulary | None]] = []
        for kind, at in () if self._greedy else places.items():
            params = [rows[i].sampler.drawing for i in at]
            sampler = None if kind is None else kind(params, vocabulary, device)
            self._groups.append((at, torch.tensor(at, device=device), sampler))

    def update(self) -> bool:
        """Count the tokens that the rows generated since. Returns whether the plan is still valid."""
        return self._changes is None or self._changes.update()

    def tokens(self, logits: torch.Tensor) -> list[int]:
        """A token per row; below 0 where the logits are NaN."""
        with contextlib.ExitStack() as changed:
            # Masks first: no penalty can bring a masked token back. A processor could.
            for change in (self._masks, self._changes):
                if change is not None:
                    changed.callback(change.undo, logits, change.apply(logits))
            if self._processed is not None:
                allowed = {} if self._masks is None else self._masks.allowed
                changed.callback(self._processed.undo, logits, self._processed.apply(logits, allowed))
            return self._pick(logits)

    def _pick(self, logits: torch.Tensor) -> list[int]:
        if self._greedy:
            return _argmax(logits).tolist()
        order: list[int] = []
        picked: list[torch.Tensor] = []
        for at, index, sampler in self._groups:
            own = logits if len(at) == len(self.rows) else logits[index]
            if sampler is None:
                picked.append(_argmax(own))
            else:
                draws = [self.rows[i].sampler.draw(len(self.rows[i].output_ids)) for i in at]
                picked.append(sampler.pick(own, torch.tensor(draws, device=logits.device)[:, None]))
            order += at
        tokens = [0] * len(order)
        for i, token in zip(order, torch.cat(picked).tolist(), strict=True):
            tokens[i] = token
        return tokens


class _Processed:
    """The rows whose logits go through processors.

    Args:
        rows: These rows, each with its place in the batch.
        device: The device of the logits.
    """

    def __init__(self, rows: Sequence[tuple[int, Row]], device: torch.device) -> None:
        self._rows = rows
        self._at = torch.tensor([at for at, _ in rows], device=device)

    def apply(self, logits: torch.Tensor, allowed: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Change the logits in place, and fail the rows whose processors fail. Returns the argument of `undo`.

        Args:
            logits: `[rows, vocabulary]`.
            allowed: The tokens that grammars allow, `[vocabulary]`, by the row's place.
        """
        before = logits[self._at]
        for i, (at, row) in enumerate(self._rows):
            processors = row.sampler.processors
            assert processors is not None
            try:
                logits[at] = processors(row.output_ids, before[i : i + 1], allowed.get(at))[0]
            except Exception as error:
                row.fail(error)
        return before

    def undo(self, logits: torch.Tensor, before: torch.Tensor) -> None:
        """Restore the logits."""
        logits[self._at] = before


class _Masks:
    """The tokens that the grammars of some rows allow.

    Args:
        constrained: The rows that have a grammar: their places in the batch, and their constraints.
        vocabulary: The number of tokens in the logits.
        device: The device of the logits.

    Attributes:
        allowed: The allowed tokens of each row, `[vocabulary]`, by its place, as of the last `apply`.
    """

    def __init__(self, constrained: Sequence[tuple[int, Constraint]], vocabulary: int, device: torch.device) -> None:
        self.allowed: dict[int, torch.Tensor] = {}
        self._places = [at for at, _ in constrained]
        self._constraints = [constraint for _, constraint in constrained]
        self._at = torch.tensor([at for at, _ in constrained], device=device)
        self._vocabulary = vocabulary
        # At least as wide as the logits: tokens outside the tokenizer's vocabulary are not allowed.
        words = max((vocabulary + 31) // 32, *(constraint.words for constraint in self._constraints))
        self._bits = torch.zeros((len(constrained), words), dtype=torch.int32)
        self._shifts = torch.arange(32, dtype=torch.int32, device=device)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask the logits in place. Returns the argument of `undo`."""
        for bits, constraint in zip(self._bits, self._constraints, strict=True):
            constraint.fill(bits)
        bits = self._bits.to(logits.device)[:, :, None] >> self._shifts & 1
        allowed = bits.flatten(1)[:, : self._vocabulary] == 1
        if not bool(allowed.any(-1).all()):
            raise RuntimeError("The grammar of the output allows no token that the model has.")
        self.allowed = dict(zip(self._places, allowed, strict=True))
        before = logits[self._at]
        logits[self._at] = before.masked_fill(~allowed, -math.inf)
        return before

    def undo(self, logits: torch.Tensor, before: torch.Tensor) -> None:
        """Restore the logits."""
        logits[self._at] = before


class _Tally:
    """The tokens of one row whose logits change: how often each was generated, and the place of its entry.

    Args:
        at: The row's place in the batch.
        row: The row.
    """

    def __init__(self, at: int, row: Row) -> None:
        params = row.sampler.params
        self.at = at
        self.row = row
        self.penalty = params.repetition_penalty
        self.frequency, self.presence = params.frequency_penalty, params.presence_penalty
        self.penalised = _penalised(row)
        self.below_minimum = _below_minimum(row)
        self.at_first = _at_first(row)
        self.counted = len(row.output_ids)
        self.counts: dict[int, int] = Counter(row.output_ids) if self.penalised else {}
        self.entries: dict[int, int] = {}

    def amounts(self) -> dict[int, float]:
        """The amount to subtract from the logit of each token concerned."""
        amounts = dict.fromkeys(self.row.sampler.prompt_tokens, 0.0) if self.penalty != 1.0 else {}
        for token, count in self.counts.items():
            amounts[token] = self.frequency * count + self.presence
        sampler = self.row.sampler
        amounts |= dict.fromkeys(sampler.banned, math.inf)
        amounts |= dict.fromkeys(sampler.banned_first if self.at_first else (), math.inf)
        amounts |= dict.fromkeys(sampler.eos_ids if self.below_minimum else (), math.inf)
        return amounts


class _Changes:
    """The changes of a batch's logits by penalties, bans and minimum lengths: an entry per row and token concerned.

    Args:
        rows: The rows concerned, each with its place in the batch.
        vocabulary: The number of tokens in the logits.
        device: The device of the logits.
    """

    def __init__(self, rows: Sequence[tuple[int, Row]], vocabulary: int, device: torch.device) -> None:
        self._tallies = [_Tally(at, row) for at, row in rows]
        self._repeats = any(tally.penalty != 1.0 for tally in self._tallies)
        self._size = 0
        new = _Entries()
        for tally in self._tallies:
            for token, less in tally.amounts().items():
                # A tokenizer can have end tokens that the model has no logits for, and a configuration the end -1.
                if 0 <= token < vocabulary:
                    tally.entries[token] = len(new.tokens)
                    new.add(tally, token, less)
        room = len(new.tokens) + _ROOM * len(rows)
        self._places = torch.empty((2, room), dtype=torch.int64, device=device)
        self._amounts = torch.empty((2, room), dtype=torch.float32, device=device)
        self._append(new)

    @staticmethod
    def concern(row: Row) -> bool:
        """Whether a row's next logits change."""
        return _penalised(row) or _below_minimum(row) or bool(row.sampler.banned) or _at_first(row)

    def update(self) -> bool:
        """Count the tokens that the rows generated since. Returns whether the entries are still valid."""
        new = _Entries()
        more: dict[int, float] = {}
        for tally in self._tallies:
            if tally.below_minimum and not _below_minimum(tally.row):
                return False
            if tally.at_first and tally.row.output_ids:
                return False
            output = tally.row.output_ids
            if not tally.penalised or len(output) == tally.counted:
                continue
            if len(output) > tally.counted + 1:
                return False
            token = output[-1]
            tally.counted += 1
            tally.counts[token] = count = tally.counts.get(token, 0) + 1
            banned = token in tally.row.sampler.banned
            less = math.inf if banned else tally.frequency * count + tally.presence
            entry = tally.entries.setdefault(token, self._size + len(new.tokens))
            if entry < self._size:
                more[entry] = less
            else:
                new.add(tally, token, less)
        if self._size + len(new.tokens) > self._places.shape[1]:
            return False
        if more:
            entries = torch.tensor(list(more), device=self._amounts.device)
            self._amounts[1].index_copy_(0, entries, self._amounts.new_tensor(list(more.values())))
        self._append(new)
        return True

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Change the logits in place. Returns the argument of `undo`."""
        rows, tokens = self._places[:, : self._size]
        penalty, less = self._amounts[:, : self._size]
        before = logits[rows, tokens]
        after = torch.where(before < 0, before * penalty, before / penalty) if self._repeats else before
        logits[rows, tokens] = after - less
        return before

    def undo(self, logits: torch.Tensor, before: torch.Tensor) -> None:
        """Restore the logits."""
        rows, tokens = self._places[:, : self._size]
        logits[rows, tokens] = before

    def _append(self, new: _Entries) -> None:
        if new.tokens:
            start, self._size = self._size, self._size + len(new.tokens)
            self._places[:, start : self._size] = self._places.new_tensor([new.rows, new.tokens])
            self._amounts[:, start : self._size] = self._amounts.new_tensor([new.penalties, new.less])


class _Entries:
    """New entries, before they are written into the tensors of a batch."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.penalties: list[float] = []
        self.less: list[float] = []

    def add(self, tally: _Tally, token: int, less: float) -> None:
        """Add an entry for a token of a row."""
        self.rows.append(tally.at)
        self.tokens.append(token)
        self.penalties.append(tally.penalty)
        self.less.append(less)


def _sampler(params: SamplingParams, vocabulary: int) -> _Sampler | None:
    """The sampler for these settings; None for greedy decoding."""
    if params.greedy:
        return None
    if 0 < params.top_k < vocabulary:
        return TopK
    return Nucleus if params.top_p < 1.0 or params.min_p > 0.0 else WholeVocabulary


def _penalised(row: Row) -> bool:
    """Whether a row's logits depend on its earlier tokens, by a penalty. Processors apply those of their rows."""
    params = row.sampler.params
    return row.sampler.processors is None and (
        params.repetition_penalty != 1.0 or params.frequency_penalty != 0.0 or params.presence_penalty != 0.0
    )


def _below_minimum(row: Row) -> bool:
    """Whether a row must not end its text yet."""
    sampler = row.sampler
    return sampler.processors is None and bool(sampler.eos_ids) and len(row.output_ids) < sampler.params.min_new_tokens


def _at_first(row: Row) -> bool:
    """Whether some tokens are banned as the row's next one, which is its first."""
    return bool(row.sampler.banned_first) and not row.output_ids


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    # On CPUs numpy's argmax is several times as fast as torch's. Both return the first of equal values.
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)
