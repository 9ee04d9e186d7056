"""How the next token is chosen: settings of one request, and the sampler that applies them to logits."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from skeleton_of_thought.errors import InvalidInput

__all__ = ["RowSampler", "SamplingParams"]

_NUCLEUS = 512
"""How many of the most likely tokens are looked at before the whole vocabulary is sorted."""


@dataclass(frozen=True)
class SamplingParams:
    """The settings of one completion.

    Attributes:
        max_new_tokens: The longest completion, in tokens; None for the model's own default, as far as its
            window allows.
        min_new_tokens: The model may not end the text before so many tokens; stop strings still may.
        temperature: 0 takes the most likely token (greedy); higher is more varied.
        top_p: Sample among the most likely tokens that together have this probability, 0 < top_p <= 1.
        top_k: Sample among this many of the most likely tokens; 0 for no limit.
        repetition_penalty: Above 1 makes tokens of the prompt and of the text so far less likely.
        frequency_penalty: Taken from a token's logit for each time it was generated.
        presence_penalty: Taken once from the logit of every token that was generated.
        seed: Makes sampling repeatable, whatever else is decoded at the same time.
        stop: Strings that end the completion; not part of the text.
        stop_after_text: The same, but counted only once there is something to see before them.
        ignore_eos: Go on to `max_new_tokens` whatever the model says, for measurements at equal lengths.

    Raises:
        InvalidInput: A value is out of its range.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_after_text: str | Sequence[str] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check_int("max_new_tokens", self.max_new_tokens, 1, optional=True)
        _check_int("min_new_tokens", self.min_new_tokens, 0)
        _check_int("top_k", self.top_k, 0)
        _check_int("seed", self.seed, 0, optional=True)
        _check_number("temperature", self.temperature, 0.0)
        _check_number("frequency_penalty", self.frequency_penalty, -math.inf)
        _check_number("presence_penalty", self.presence_penalty, -math.inf)
        _check_number("top_p", self.top_p, 0.0, above=True)
        _check_number("repetition_penalty", self.repetition_penalty, 0.0, above=True)
        if self.top_p > 1.0:
            raise InvalidInput(f"top_p is {self.top_p!r}; it must be above 0 and at most 1.")
        for name in ("stop", "stop_after_text"):
            given = getattr(self, name)
            stop = (given,) if isinstance(given, str) else tuple(given)
            if not all(isinstance(s, str) and s for s in stop):
                raise InvalidInput(f"{name} is {given!r:.80}; it must be a string or strings, none of them empty.")
            object.__setattr__(self, name, stop)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature == 0.0


def _check_int(name: str, value: object, least: int, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"{name} is {value!r:.40}; it must be an integer of at least {least}.")


def _check_number(name: str, value: object, least: float, *, above: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{name} is {value!r:.40}; it must be a finite number.")
    if value < least or (above and value == least):
        raise InvalidInput(f"{name} is {value!r}; it must be {'above' if above else 'at least'} {least:g}.")


class RowSampler:
    """Chooses the tokens of one row. Keeps the row's own random generator and penalty counts.

    Args:
        params: The row's settings.
        prompt_ids: The prompt, which a repetition penalty counts as seen.
        eos_ids: The tokens that `min_new_tokens` holds back.
    """

    def __init__(
        self, params: SamplingParams, prompt_ids: Sequence[int], eos_ids: Collection[int] = frozenset()
    ) -> None:
        self.params = params
        self._prompt_ids = prompt_ids
        self._eos_ids = sorted(eos_ids)
        # Tokens that are still to come before the text may end.
        self._to_come = params.min_new_tokens if eos_ids else 0
        self._generator: torch.Generator | None = None
        self._seen: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether the choice is a bare argmax, which the batch can do for all such rows at once."""
        p = self.params
        return p.greedy and p.repetition_penalty == 1.0 and not self._counting and not self._to_come

    @property
    def _counting(self) -> bool:
        return self.params.frequency_penalty != 0.0 or self.params.presence_penalty != 0.0

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, from the row's logits of shape `[vocabulary]` in float32."""
        logits = self._penalised(logits)
        token = int(logits.argmax()) if self.params.greedy else self._sample(logits)
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1.0
        return token

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        penalty = self.params.repetition_penalty
        if penalty != 1.0:
            if self._seen is None:
                self._seen = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
                self._seen[torch.tensor(self._prompt_ids, device=logits.device)] = True
            less = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(self._seen, less, logits)
        if self._counting:
            if self._counts is None:
                self._counts = torch.zeros_like(logits)
            logits = logits - self.params.frequency_penalty * self._counts
            logits = logits - self.params.presence_penalty * self._counts.clamp(max=1.0)
        if self._to_come:
            self._to_come -= 1
            logits = logits.index_fill(-1, torch.tensor(self._eos_ids, device=logits.device), -math.inf)
        return logits

    def _sample(self, logits: torch.Tensor) -> int:
        values, tokens = _most_likely(logits / self.params.temperature, self.params)
        generator = self._random(logits.device)
        return int(tokens[torch.multinomial(torch.softmax(values, -1), 1, generator=generator)])

    def _random(self, device: torch.device) -> torch.Generator:
        # A generator per row: what a row draws depends on neither its neighbours nor the global state.
        if self._generator is None:
            self._generator = torch.Generator(device=device)
            if self.params.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self.params.seed % 2**63)
        return self._generator


def _most_likely(logits: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits and ids of the tokens that top_k and top_p leave."""
    size = logits.shape[-1]
    kept = min(params.top_k or size, size)
    if params.top_p >= 1.0:
        return torch.topk(logits, kept) if kept < size else (logits, torch.arange(size, device=logits.device))
    if kept < size:  # top_p applies to what top_k leaves
        values, tokens = torch.topk(logits, kept)
        return _nucleus(values, tokens, torch.logsumexp(values, -1), params.top_p)
    # Sorting a whole vocabulary costs more than the rest of a small model's step, and the nucleus
    # nearly always lies within the first few hundred.
    total = torch.logsumexp(logits, -1)
    values, tokens = torch.topk(logits, min(_NUCLEUS, size))
    if float(torch.exp(torch.logsumexp(values, -1) - total)) < params.top_p:
        values, tokens = torch.sort(logits, descending=True)
    return _nucleus(values, tokens, total, params.top_p)


def _nucleus(
    values: torch.Tensor, tokens: torch.Tensor, total: torch.Tensor, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    mass = torch.exp(values - total).cumsum(-1)
    count = int((mass < top_p).sum()) + 1
    return values[:count], tokens[:count]
