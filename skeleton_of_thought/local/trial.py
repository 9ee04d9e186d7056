"""The trial run of a batch: a few tokens of a model as the engine runs them, compared with the model's own logits.

What the engine does with rows is done once with a few tokens: a common beginning on one row; remainders of unequal
length as one batch, padded at the right, in two pieces; then two steps of all rows, which end at the same slot of the
cache. A model can be wrong for all but the longest row: if it counts positions from the cache's length, ignores the
positions or the mask, or uses them in its own way. So the longest row shows what rounding alone does, and the others
must not differ much more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from skeleton_of_thought.local.kv import BatchCache, Caches, Layers, RowsCache, Segment

__all__ = ["PROBE_TOKENS", "Run", "Trial", "logit_distance", "logit_tolerance", "probe_tokens"]

Run = Callable[[torch.Tensor, Any, torch.Tensor], torch.Tensor]
"""A forward of tokens `[rows, tokens]`, a cache or None, and positions `[rows, tokens]`; returns the last logits."""

PROBE_TOKENS = 16
_SHARED = 3
"""The tokens of the common beginning."""

_LENGTHS = (14, 4, 7)
"""The lengths of the rows when they join, the longest one first. All are beginnings of the same text."""

_CUT = 8
"""Where the remainders are cut into two pieces; the shorter rows end before it."""

_STEPS = 2
_ROUNDING = 16
"""By which factor the shorter rows may differ more than the longest one."""


def probe_tokens(model: Any, device: torch.device) -> torch.Tensor:
    """Tokens of a model's vocabulary, far apart, `[1, PROBE_TOKENS]`."""
    size = int(model.get_input_embeddings().weight.shape[0])
    return torch.arange(1, PROBE_TOKENS + 1, device=device)[None] * max(1, size // (PROBE_TOKENS + 1)) % size


def logit_tolerance(model: Any) -> float:
    """The allowed difference between logits of the same text, relative to the largest, as sums may differ in order."""
    weight = model.get_input_embeddings().weight
    if weight.dtype != torch.float32:
        return 0.02
    # Accelerators may multiply float32 with fewer bits.
    return 1e-4 if weight.device.type == "cpu" else 1e-2


_FORBIDDEN = -3e4
"""No logit of an allowed token is lower. Some models set forbidden tokens to minus infinity or their type's minimum."""


def logit_distance(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """The largest difference between two sets of logits, relative to the largest wanted one.

    Tokens that the model forbids do not count. NaN if it forbids all tokens, or if `got` has NaN.
    """
    usable = torch.isfinite(wanted) & (wanted > _FORBIDDEN)
    if not usable.any():
        return math.nan
    wanted, got = wanted[usable], got[usable]
    return float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30))


@dataclass(frozen=True)
class Trial:
    """A text and a model's own logits of it.

    Attributes:
        ids: The tokens, `[1, PROBE_TOKENS]`.
        own: The model's logits after each token, `[PROBE_TOKENS, vocabulary]`.
        slack: The allowed distance from them, see `logit_distance`.
        noise: The distance of the model's own logits of a part of the text from those of the whole.
        least: The distance that rounding may make in any row, however little it makes in the longest one.
    """

    ids: torch.Tensor
    own: torch.Tensor
    slack: float
    noise: float
    least: float

    @classmethod
    def of(
        cls,
        model: Any,
        device: torch.device,
        plain: Callable[[torch.Tensor], torch.Tensor],
        tolerance: float | None = None,
    ) -> Trial:
        """The trial of a model.

        Args:
            model: The model.
            device: The device of tokens.
            plain: Returns the model's logits after each token of a text, `[tokens, vocabulary]`.
            tolerance: The allowed distance, by default that of the model's type.

        Raises:
            ValueError: The logits are not numbers.
        """
        ids = probe_tokens(model, device)
        own = plain(ids)
        # A model that quantises the activations of all tokens together has different logits for parts of its text.
        short = logit_distance(own[:5], plain(ids[:, :5]))
        # Nearly the whole text shows where rounding grows. Where it grows much, a batch would write another text.
        long = logit_distance(own[: _LENGTHS[0]], plain(ids[:, : _LENGTHS[0]]))
        if not math.isfinite(short + long):
            raise ValueError("its logits are not numbers")
        noise = max(short, long)
        if tolerance is not None:
            return cls(ids, own, tolerance, noise, tolerance)
        tolerance = logit_tolerance(model)
        slack = max(tolerance, min(4 * short, 0.2), min(4 * long, 5 * tolerance))
        exact = model.get_input_embeddings().weight.dtype == torch.float32 and slack == tolerance
        return cls(ids, own, slack, noise, tolerance / 30 if exact else slack)

    def fits_at_once(self, run: Run, caches: Caches) -> bool:
        """Whether the whole text at once has the model's logits."""
        positions = torch.arange(self.ids.shape[1], device=self.ids.device)[None]
        got = run(self.ids, caches.rows(1, self.ids.shape[1]), positions)[0]
        return self._distance(self.ids.shape[1] - 1, got) <= self.slack

    def batch_fits(self, run: Run, *, share: bool = False) -> bool:
        """Whether rows of unequal length have the model's logits in a batch. Runs five forwards.

        Args:
            run: The forward.
            share: Whether rows attend to the common beginning in place, as `ModelRunner.shares` means it; otherwise
                each row has a copy.
        """
        rounding = self.noise
        for row, distance in self._distances(run, share):
            if row == 0:
                if not distance <= self.slack:
                    return False
                rounding = max(rounding, distance)
            elif not distance <= min(self.slack, max(_ROUNDING * rounding, self.least)):
                return False
        return True

    def _distances(self, run: Run, share: bool) -> Iterator[tuple[int, float]]:
        """The distances of the logits of each row from the model's own, the longest row first in each forward."""
        first = RowsCache(1, _SHARED)
        yield 0, self._distance(_SHARED - 1, run(*self._inputs(0, _SHARED, [_SHARED], first))[0])
        first.advance(_SHARED)
        beginning = first.own(0, 0, _SHARED)
        longest = _LENGTHS[0]
        if share:
            tails, held = RowsCache(len(_LENGTHS), longest - _SHARED, [Segment(beginning)]), 0
        else:
            tails, held = RowsCache(len(_LENGTHS), longest), _SHARED
            tails.preload([beginning])
        for start, stop in ((_SHARED, _CUT), (_CUT, longest)):
            got = run(*self._inputs(start, stop, _LENGTHS, tails))
            tails.advance(stop - start)
            yield 0, self._distance(stop - 1, got[0])
        own = [tails.own(row, held, held + length - _SHARED) for row, length in enumerate(_LENGTHS)]
        rows = self._joined(beginning, own, share)
        for step in range(_STEPS):
            at = [length + step for length in _LENGTHS]
            positions = torch.tensor(at, device=self.ids.device)[:, None]
            rows.reserve(1)
            got = run(self.ids[0, at][:, None], rows, positions)
            rows.advance()
            yield from ((row, self._distance(place, got[row])) for row, place in enumerate(at))

    def _inputs(
        self, start: int, stop: int, lengths: Sequence[int], cache: Any
    ) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """The tokens of some places of each row, padded at the right with its last token, as `Prefiller` runs them."""
        places = torch.arange(start, stop, device=self.ids.device).expand(len(lengths), -1)
        last = torch.tensor(lengths, device=self.ids.device)[:, None] - 1
        return self.ids[0][places.minimum(last + 1)], cache, places.minimum(last)

    def _joined(self, beginning: Layers, own: Sequence[Layers], share: bool) -> BatchCache:
        """The rows in the cache of a batch; with `share` the last row alone has a copy of the beginning."""
        rows = BatchCache()
        apart = len(own) - 1 if share else 0
        rows.join([[layers] if row < apart else [beginning, layers] for row, layers in enumerate(own)])
        if share:
            rows.segments = [Segment(beginning, slice(0, apart))]
        # Zeros in hidden slots change little where a mask is ignored; the keys and values of another text do. They are
        # in reverse order: the rows begin alike, so a mask that is shifted would show a row its own tokens.
        for layer in rows.layers:
            for part in (layer.keys, layer.values):
                for row, begins in enumerate(rows.starts):
                    part[row, :, rows.frame.start : begins] = part[0, :, rows.frame.start : begins].flip(1)
        return rows

    def _distance(self, at: int, got: torch.Tensor) -> float:
        return logit_distance(self.own[at], got[-1].float())
