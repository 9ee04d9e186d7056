"""Choosing the next tokens of a whole batch: settings differ from row to row, the work is done once for all.

Plain greedy rows cost one argmax. Penalties and least lengths are changes at single places of the logits, which are
kept from step to step. Rows that sample draw one number each from a generator of their own and look it up in their
distribution, so what a row draws hangs on nothing but its own logits and seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.sampling import Nucleus, SamplingParams, TopK, WholeVocabulary

__all__ = ["Chooser"]

_Sampler = type[TopK] | type[Nucleus] | type[WholeVocabulary]

_ROOM = 64
"""Tokens per row that come to the changes of a batch before these are laid out anew."""


class Chooser:
    """Gives the rows of one batch their next tokens. Rows may come, go and change places between steps."""

    def __init__(self) -> None:
        self._plan: _Plan | None = None

    def choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Choose a token for every row and have the row accept it.

        What a row's own settings or text break fails that row and no other.

        Args:
            rows: The rows, none of them finished.
            logits: Of their next tokens, in float32, `[rows, vocabulary]`. They are left as they were.
        """
        try:
            plan = self._plan_for(rows, logits)
            tokens = plan.tokens(logits)
        except Exception as error:
            self.clear()
            if len(rows) == 1:
                rows[0].fail(error)
            for i, row in enumerate(rows if len(rows) > 1 else ()):
                Chooser().choose([row], logits[i : i + 1])
            return
        going = True
        for row, token in zip(rows, tokens, strict=True):
            try:
                if token < 0:
                    raise ArithmeticError("The model's logits are no numbers (NaN): nothing can be sampled from them.")
                row.accept(token)
            except Exception as error:
                row.fail(error)
            going = going and row.result is None
        if not going:
            self.clear()  # the rows differ from now on, and finished ones shall not be kept alive here

    def clear(self) -> None:
        """Forget the rows."""
        self._plan = None

    def _plan_for(self, rows: Sequence[Row], logits: torch.Tensor) -> _Plan:
        plan = self._plan
        # Lists of rows are equal when they hold the same objects, and those live as long as the plan holds them.
        if plan is None or plan.rows != list(rows) or not plan.follow():
            plan = self._plan = _Plan(rows, logits)
        return plan


class _Plan:
    """How the tokens of certain rows are chosen, as long as they stay the same rows."""

    def __init__(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        self.rows = list(rows)
        vocabulary, device = logits.shape[-1], logits.device
        changed = [(i, row) for i, row in enumerate(rows) if _Changes.concern(row)]
        self._changes = _Changes(changed, vocabulary, device) if changed else None
        places: dict[_Sampler | None, list[int]] = {}
        for i, row in enumerate(rows):
            places.setdefault(_sampler(row.sampler.params, vocabulary), []).append(i)
        self._greedy = places.pop(None, [])
        self._samplers = [
            (at, sampler([rows[i].sampler.params for i in at], vocabulary, device))
            for sampler, at in places.items()
            if sampler is not None
        ]

    def follow(self) -> bool:
        """Take up what the rows generated since. Returns whether the plan still holds."""
        return self._changes is None or self._changes.follow()

    def tokens(self, logits: torch.Tensor) -> list[int]:
        """A token per row; below 0 where there is none to be had."""
        if self._changes is None:
            return self._pick(logits)
        before = self._changes.apply(logits)
        try:
            return self._pick(logits)
        finally:
            self._changes.undo(logits, before)

    def _pick(self, logits: torch.Tensor) -> list[int]:
        if not self._samplers:
            return _likeliest(logits).tolist()
        order = list(self._greedy)
        picked = [_likeliest(logits[self._greedy])] if self._greedy else []
        for at, sampler in self._samplers:
            own = logits if len(at) == len(self.rows) else logits[at]
            draws = [self.rows[i].sampler.draw(len(self.rows[i].output_ids)) for i in at]
            picked.append(sampler.pick(own, torch.tensor(draws, device=logits.device)[:, None]))
            order += at
        tokens = [0] * len(order)
        for i, token in zip(order, torch.cat(picked).tolist(), strict=True):
            tokens[i] = token
        return tokens


class _Changes:
    """What penalties and least lengths change in the logits of a batch: an entry per row and token concerned.

    Args:
        rows: The rows concerned, each with its place in the batch.
        vocabulary: Tokens that the logits know.
        device: Where the logits are.
    """

    def __init__(self, rows: Sequence[tuple[int, Row]], vocabulary: int, device: torch.device) -> None:
        self._rows = list(rows)
        self._known = [len(row.output_ids) for _, row in rows]
        self._held = [_held(row) for _, row in rows]
        self._counts = [Counter(row.output_ids) if _counts(row) else Counter[int]() for _, row in rows]
        self._repeats = any(row.sampler.params.repetition_penalty != 1.0 for _, row in rows)
        self._entries: list[dict[int, int]] = []
        self._size = 0
        places: list[tuple[int, int]] = []
        amounts: list[tuple[float, float]] = []
        for (at, row), counts, held in zip(self._rows, self._counts, self._held, strict=True):
            penalty = row.sampler.params.repetition_penalty
            less = dict.fromkeys(row.sampler.prompt_tokens, 0.0) if penalty != 1.0 else {}
            less.update((token, _less(row, count)) for token, count in counts.items())
            less.update(dict.fromkeys(row.sampler.eos_ids if held else (), math.inf))
            # A tokenizer can know ends of text that the model has no logits for.
            less = {token: amount for token, amount in less.items() if token < vocabulary}
            self._entries.append({token: len(places) + n for n, token in enumerate(less)})
            places += [(at, token) for token in less]
            amounts += [(penalty, amount) for amount in less.values()]
        room = _ROOM * len(self._rows)
        self._places = torch.zeros((2, len(places) + room), dtype=torch.int64, device=device)
        self._amounts = torch.zeros((2, len(places) + room), dtype=torch.float32, device=device)
        self._append(places, amounts)

    @staticmethod
    def concern(row: Row) -> bool:
        """Whether a row's next logits are to be changed."""
        return _counts(row) or _held(row)

    def follow(self) -> bool:
        """Take up what the rows generated since. Returns whether the entries can go on being used."""
        places: list[tuple[int, int]] = []
        amounts: list[tuple[float, float]] = []
        more: dict[int, float] = {}
        for n, (at, row) in enumerate(self._rows):
            fresh = len(row.output_ids) - self._known[n]
            if fresh > 1 or (self._held[n] and not _held(row)):
                return False
            if not fresh or not _counts(row):
                continue
            token = row.output_ids[-1]
            self._known[n] += 1
            self._counts[n][token] += 1
            less = _less(row, self._counts[n][token])
            entry = self._entries[n].get(token)
            if entry is not None:
                more[entry] = less
            else:
                self._entries[n][token] = self._size + len(places)
                places.append((at, token))
                amounts.append((row.sampler.params.repetition_penalty, less))
        if self._size + len(places) > self._places.shape[1]:
            return False
        if more:
            self._amounts[1, list(more)] = torch.tensor(list(more.values()), device=self._amounts.device)
        self._append(places, amounts)
        return True

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Change the logits in place. Returns what `undo` needs."""
        rows, tokens = self._places[:, : self._size]
        penalty, less = self._amounts[:, : self._size]
        before = logits[rows, tokens]
        after = torch.where(before < 0, before * penalty, before / penalty) if self._repeats else before
        logits[rows, tokens] = after - less
        return before

    def undo(self, logits: torch.Tensor, before: torch.Tensor) -> None:
        """Make the logits what they were."""
        rows, tokens = self._places[:, : self._size]
        logits[rows, tokens] = before

    def _append(self, places: list[tuple[int, int]], amounts: list[tuple[float, float]]) -> None:
        if places:
            start, self._size = self._size, self._size + len(places)
            device = self._places.device
            self._places[:, start : self._size] = torch.tensor(places, device=device).T
            self._amounts[:, start : self._size] = torch.tensor(amounts, device=device).T


def _sampler(params: SamplingParams, vocabulary: int) -> _Sampler | None:
    """What draws with these settings; None where the most likely token is taken."""
    if params.greedy:
        return None
    if 0 < params.top_k < vocabulary:
        return TopK
    return Nucleus if params.top_p < 1.0 else WholeVocabulary


def _counts(row: Row) -> bool:
    """Whether it matters to a row's logits what it generated."""
    params = row.sampler.params
    return params.repetition_penalty != 1.0 or params.frequency_penalty != 0.0 or params.presence_penalty != 0.0


def _held(row: Row) -> bool:
    """Whether a row may not end its text yet."""
    return bool(row.sampler.eos_ids) and len(row.output_ids) < row.sampler.params.min_new_tokens


def _less(row: Row, count: int) -> float:
    """What is taken from the logit of a token that was generated so many times."""
    return row.sampler.params.frequency_penalty * count + row.sampler.params.presence_penalty


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    # On a CPU numpy's argmax is several times as fast as torch's. Both take the first of equals.
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)
