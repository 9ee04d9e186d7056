"""The logits processors of one row: settings without a faster form, as classes of transformers, and the caller's own.

They see the row as `model.generate` shows it to them: its own prompt and text, without padding and without the other
rows of the batch. A row with one of them has all its settings applied here, in the order of `generate`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.sampling import LogitsProcessor, SamplingParams, as_integer

__all__ = ["RowProcessors", "row_processors"]


@dataclass(frozen=True)
class _Facts:
    """What processors are made of, besides their settings.

    Attributes:
        prompt_ids: The tokens of the prompt.
        start: The length of the text before its first free token.
        limit: The most tokens to generate.
        eos_ids: The tokens that end the text.
        own_eos_ids: Those that end it for `generate`.
        vocabulary: The number of tokens that the model knows; None where its config does not say.
        device: The device of the logits.
    """

    prompt_ids: Sequence[int]
    start: int
    limit: int
    eos_ids: Sequence[int]
    own_eos_ids: Sequence[int]
    vocabulary: int | None
    device: torch.device

    def prompt(self) -> torch.Tensor:
        """The prompt, `[1, tokens]`."""
        return torch.tensor([self.prompt_ids], device=self.device)

    def known(self, name: str, value: Any) -> list[int]:
        """The token or tokens of a setting, as a list.

        Raises:
            InvalidInput: The model has no such token.
        """
        tokens = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        tokens = [as_integer(f"an entry of {name}", token, 0) for token in tokens]
        if self.vocabulary is not None and (strange := [token for token in tokens if token >= self.vocabulary]):
            raise InvalidInput(f"{name} has the token {strange[0]}, but the model has {self.vocabulary} tokens.")
        return tokens


_Maker = Callable[[Any, Any, _Facts], Any]
"""Makes a processor from the module of transformers, the value of its setting, and facts about the row."""


def _sequence_bias(hf: Any, value: Any, row: _Facts) -> Any:
    return hf.SequenceBiasLogitsProcessor([[row.known("sequence_bias", ids), float(bias)] for ids, bias in value])


def _bad_words(hf: Any, value: Any, row: _Facts) -> Any:
    words = [row.known("bad_words_ids", word) for word in value]
    return hf.NoBadWordsLogitsProcessor(words, list(row.own_eos_ids) or None)


def _minimum(hf: Any, value: Any, row: _Facts) -> Any:
    ends = list(row.eos_ids)
    return hf.MinNewTokensLengthLogitsProcessor(len(row.prompt_ids), value, ends, device=row.device)


def _forced_end(hf: Any, value: Any, row: _Facts) -> Any:
    ends, length = row.known("forced_eos_token_id", value), len(row.prompt_ids) + row.limit
    return hf.ForcedEOSTokenLogitsProcessor(length, ends, device=row.device)


def _forced_start(hf: Any, value: Any, row: _Facts) -> Any:
    [start] = row.known("forced_bos_token_id", value)
    return hf.ForcedBOSTokenLogitsProcessor(start)


def _decay(hf: Any, value: Any, row: _Facts) -> Any:
    ends = [token for token in row.own_eos_ids if row.vocabulary is None or token < row.vocabulary]
    return hf.ExponentialDecayLengthPenalty(tuple(value), ends, len(row.prompt_ids))


def _watermark(hf: Any, value: Any, row: _Facts) -> Any:
    config = hf.WatermarkingConfig.from_dict(dict(value)) if isinstance(value, Mapping) else value
    return config.construct_processor(row.vocabulary, row.device)


class _CountPenalties:
    """Penalties by how often a token was generated.

    Args:
        amounts: What is subtracted for each time, and once.
        prompt: The length of the prompt, in tokens.
    """

    def __init__(self, amounts: tuple[float, float], prompt: int) -> None:
        self._frequency, self._presence = amounts
        self._prompt = prompt

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.bincount(ids[0, self._prompt :], minlength=scores.shape[-1])[: scores.shape[-1]]
        return scores - self._frequency * counts - self._presence * (counts > 0)


# In the order of `generate`. Our own penalties follow the one for repetition.
_CHANGES: dict[str, _Maker] = {
    "sequence_bias": _sequence_bias,
    "encoder_repetition_penalty": lambda hf, value, row: hf.EncoderRepetitionPenaltyLogitsProcessor(
        float(value), row.prompt()
    ),
    "repetition_penalty": lambda hf, value, row: hf.RepetitionPenaltyLogitsProcessor(value),
    "count_penalties": lambda hf, value, row: _CountPenalties(value, len(row.prompt_ids)),
    "no_repeat_ngram_size": lambda hf, value, row: hf.NoRepeatNGramLogitsProcessor(value),
    "encoder_no_repeat_ngram_size": lambda hf, value, row: hf.EncoderNoRepeatNGramLogitsProcessor(value, row.prompt()),
    "bad_words_ids": _bad_words,
    "min_new_tokens": _minimum,
    "forced_bos_token_id": _forced_start,
    "forced_eos_token_id": _forced_end,
    "remove_invalid_values": lambda hf, value, row: hf.InfNanRemoveLogitsProcessor(),
    "exponential_decay_length_penalty": _decay,
    "suppress_tokens": lambda hf, value, row: hf.SuppressTokensLogitsProcessor(value, device=row.device),
    "begin_suppress_tokens": lambda hf, value, row: hf.SuppressTokensAtBeginLogitsProcessor(
        value, row.start, device=row.device
    ),
}

# After the caller's processors.
_WARPERS: dict[str, _Maker] = {
    "temperature": lambda hf, value, row: hf.TemperatureLogitsWarper(value),
    "top_h": lambda hf, value, row: hf.TopHLogitsWarper(float(value)),
    "top_k": lambda hf, value, row: hf.TopKLogitsWarper(value),
    "top_p": lambda hf, value, row: hf.TopPLogitsWarper(value),
    "min_p": lambda hf, value, row: hf.MinPLogitsWarper(value),
    "typical_p": lambda hf, value, row: hf.TypicalLogitsWarper(float(value)),
    "epsilon_cutoff": lambda hf, value, row: hf.EpsilonLogitsWarper(float(value)),
    "eta_cutoff": lambda hf, value, row: hf.EtaLogitsWarper(float(value), device=row.device),
}

_NEUTRAL = {
    **{"encoder_repetition_penalty": 1.0, "repetition_penalty": 1.0, "count_penalties": (0.0, 0.0)},
    **{"temperature": 1.0, "top_h": 1.0, "top_p": 1.0, "typical_p": 1.0},
}
"""Values without effect, where that is not 0, None or an empty list."""

_FAST_CHANGES = frozenset({"repetition_penalty", "count_penalties", "min_new_tokens", "bad_words_ids"})
_FAST_CHANGES |= {"suppress_tokens", "begin_suppress_tokens"}
_FAST_WARPERS = frozenset({"temperature", "top_k", "top_p", "min_p"})


class RowProcessors:
    """The processors of one row, in their order. Used by one thread at a time.

    Args:
        before: Processors that the row's settings ask for.
        own: The caller's; one of the same class as one of `before` takes its place.
        after: Processors that the settings ask for, behind the caller's.
        prompt_ids: The tokens of the prompt.
        device: The device of the logits.
        warps: Whether the processors have left nothing to do but to draw from all tokens.
    """

    def __init__(
        self,
        before: Sequence[LogitsProcessor],
        own: Sequence[LogitsProcessor],
        after: Sequence[LogitsProcessor],
        *,
        prompt_ids: Sequence[int],
        device: torch.device,
        warps: bool,
    ) -> None:
        instead = {type(processor): processor for processor in reversed(own)}
        first = [instead.get(type(processor), processor) for processor in before]
        self._changes = [*first, *(one for one in own if not any(one is other for other in first))]
        self._own, self._after = own, after
        self.warps = warps
        self._ids = torch.tensor([prompt_ids], device=device)
        self._prompt = self._filled = len(prompt_ids)
        self._step = -1
        self._scores: torch.Tensor | None = None

    def __call__(
        self, output_ids: Sequence[int], scores: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The changed logits.

        A second call for the same token returns the result of the first, so that each processor sees each step once.

        Args:
            output_ids: The tokens generated so far.
            scores: The logits of the next token, `[1, vocabulary]`.
            allowed: The tokens that the row's grammar allows, `[vocabulary]`; None without a grammar.

        Raises:
            InvalidInput: A processor of the caller's returned no logits.
            RuntimeError: The processors forbid all tokens that the grammar allows.
            Exception: A processor's own error.
        """
        if self._scores is not None and len(output_ids) == self._step:
            return self._scores
        ids = self._text(output_ids)
        if self._own:
            scores = scores.clone()  # they may change it in place
        for processor in self._changes:
            changed: Any = processor(ids, scores)
            scores = _checked(processor, changed, scores) if any(processor is one for one in self._own) else changed
        if allowed is not None:  # before the choice of the likeliest tokens, which must not fall on others
            scores = scores.masked_fill(~allowed, -math.inf)
            if not bool((scores > -math.inf).any()):
                raise RuntimeError("The settings of the row forbid all tokens that its grammar allows.")
        for processor in self._after:
            scores = processor(ids, scores)
        self._step, self._scores = len(output_ids), scores
        return scores

    def _text(self, output_ids: Sequence[int]) -> torch.Tensor:
        """Prompt and output, `[1, tokens]`, in a tensor that grows from step to step."""
        length = self._prompt + len(output_ids)
        if length > self._ids.shape[1]:
            longer = self._ids.new_empty((1, 2 * length))
            longer[:, : self._filled] = self._ids[:, : self._filled]
            self._ids = longer
        new = output_ids[self._filled - self._prompt :]
        if new:
            self._ids[0, self._filled : length] = self._ids.new_tensor(new)
            self._filled = length
        return self._ids[:, :length]


def _checked(processor: LogitsProcessor, changed: Any, before: torch.Tensor) -> torch.Tensor:
    name = getattr(processor, "__name__", type(processor).__name__)
    if not isinstance(changed, torch.Tensor) or changed.shape != before.shape:
        found = tuple(changed.shape) if isinstance(changed, torch.Tensor) else type(changed).__name__
        raise InvalidInput(
            f"The logits processor {name} returned {found}; it must return the changed scores, a tensor of shape "
            f"{tuple(before.shape)}."
        )
    scores: torch.Tensor = changed.to(before)
    most = float(scores.max())  # NaN if any of them is
    if math.isnan(most):
        raise InvalidInput(f"The logits processor {name} returned scores that are not numbers (NaN).")
    if most == -math.inf:
        raise InvalidInput(f"The logits processor {name} forbids all tokens: their scores are -inf.")
    return scores


def row_processors(
    params: SamplingParams,
    prompt_ids: Sequence[int],
    *,
    limit: int,
    eos_ids: Collection[int],
    own_eos_ids: Collection[int],
    vocabulary: int | None,
    device: torch.device,
) -> RowProcessors | None:
    """The processors that a row needs; None where the faster forms do.

    Args:
        params: The row's settings.
        prompt_ids: The tokens of the prompt.
        limit: The most tokens to generate.
        eos_ids: The tokens that end the text.
        own_eos_ids: Those that end it for `generate`, which may be fewer.
        vocabulary: The number of tokens that the model knows; None where its config does not say.
        device: The device of the logits.

    Raises:
        InvalidInput: A setting has a value that transformers refuses, or a token that the model lacks.
    """
    changes = _in_effect(params, len(prompt_ids))
    if not eos_ids or params.ignore_eos:
        changes.pop("min_new_tokens", None)
    if not own_eos_ids:
        changes.pop("exponential_decay_length_penalty", None)
    warpers = {} if params.greedy else {name: v for name, v in _values(params, _WARPERS).items() if _acts(name, v)}
    watermark = (params.generation_config or {}).get("watermarking_config")
    warps = not params.greedy and (watermark is not None or not warpers.keys() <= _FAST_WARPERS)
    several = any(len(word) > 1 for word in params.bad_words_ids)
    if changes.keys() <= _FAST_CHANGES and not (several or params.logits_processor or watermark or warps):
        return None
    start = len(prompt_ids) + ("forced_bos_token_id" in changes)
    row = _Facts(prompt_ids, start, limit, sorted(eos_ids), sorted(own_eos_ids), vocabulary, device)
    hf = importlib.import_module("transformers")
    before = [_made(hf, name, value, _CHANGES[name], row) for name, value in changes.items()]
    after = [_made(hf, name, value, _WARPERS[name], row) for name, value in warpers.items()] if warps else []
    if watermark is not None:
        after.append(_made(hf, "watermarking_config", watermark, _watermark, row))
    own: Any = params.logits_processor
    return RowProcessors(before, own, after, prompt_ids=prompt_ids, device=device, warps=warps)


def _values(params: SamplingParams, names: Collection[str]) -> dict[str, Any]:
    """The values of these settings, in this order."""
    further = params.generation_config or {}
    penalties = (params.frequency_penalty, params.presence_penalty)
    given = {**further, "count_penalties": penalties}
    return {name: given[name] if name in given else getattr(params, name, None) for name in names}


def _in_effect(params: SamplingParams, prompt: int) -> dict[str, Any]:
    """The settings that change logits of a row, and their values."""
    values = _values(params, _CHANGES)
    if prompt != 1:
        values["forced_bos_token_id"] = None  # `generate` forces the second token of a text, never a later one
    # A token may have the id 0.
    return {name: v for name, v in values.items() if _acts(name, v) or (name.startswith("forced") and v is not None)}


def _acts(name: str, value: Any) -> bool:
    return bool(value) and value != _NEUTRAL.get(name)


def _made(hf: Any, name: str, value: Any, maker: _Maker, row: _Facts) -> Any:
    try:
        return maker(hf, value, row)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"{name} is {value!r:.80}, which transformers refuses: {error}") from error
