"""Sampling: the settings of one request, the random numbers of one row, and samplers for many rows at once."""

from __future__ import annotations

import functools
import math
import numbers
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.grammar import Grammar
from skeleton_of_thought.settings import is_whole

if TYPE_CHECKING:
    from skeleton_of_thought.local.processors import RowProcessors

__all__ = [
    "LogitsProcessor",
    "Nucleus",
    "RowSampler",
    "SamplingParams",
    "TopK",
    "WholeVocabulary",
    "as_integer",
    "as_number",
]

LogitsProcessor = Callable[[Any, Any], Any]
"""Changes the logits of a row: `(ids, scores) -> scores`, like transformers' class of this name. `ids` are the tokens
of prompt and text so far, `[1, tokens]`; `scores` are the logits of the next token in float32, `[1, vocabulary]`."""

_PARTS = 32
"""Parts of a vocabulary whose maxima give a bound for its k-th most likely token."""

_FEW = 1024
"""A number of tokens that have most of the mass of a usual distribution."""

_COLDEST = 1e-30
"""The lowest temperature to divide by: lower ones leave one choice as well, and would divide logits to infinity."""


@dataclass(frozen=True)
class SamplingParams:
    """The settings of one completion.

    Attributes:
        max_new_tokens: The longest completion, in tokens; None for the model's own default, within its window.
        min_new_tokens: The model cannot end the text before this many tokens; stop strings can.
        temperature: 0 chooses the most likely token (greedy); higher is more varied.
        top_p: Sample among the most likely tokens that together have this probability, 0 < top_p <= 1.
        top_k: Sample among this many of the most likely tokens; 0 for no limit.
        min_p: Sample among the tokens that are at least this share as likely as the most likely one; 0 for all.
        repetition_penalty: Above 1 makes tokens of the prompt and of the text so far less likely.
        frequency_penalty: Subtracted from a token's logit for each time that it was generated.
        presence_penalty: Subtracted once from the logit of each token that was generated.
        no_repeat_ngram_size: No sequence of this many tokens comes twice in prompt and text; 0 for no such limit.
        bad_words_ids: Sequences of tokens that the text does not contain. End tokens by themselves stay allowed.
        suppress_tokens: Tokens that the text does not contain.
        begin_suppress_tokens: Tokens that the text does not begin with.
        sequence_bias: Numbers that are added to the logit of a sequence's last token where the others precede it:
            a dict of tuples of tokens, or pairs of a list of tokens and a number.
        logits_processor: Functions, or `LogitsProcessor`s of transformers, which change the logits of this row, in
            this order. They run on the engine's thread, with each step, after all other settings but for those that
            only concern sampling. If one raises an error, or returns something else than logits, the row fails.
        seed: Makes sampling repeatable, whatever else is decoded at the same time.
        stop: Strings that end the completion; not part of the text.
        stop_after_text: Strings that end the completion once it has visible text; not part of the text.
        stop_token_ids: Tokens that end the completion, besides the model's own end tokens and at any length. Their
            text is part of the completion, unless they are special tokens.
        max_time: Seconds after which the text ends, counted from the beginning of its prompt; None for no limit.
        ignore_eos: Go on to `max_new_tokens` past the model's end tokens, for measurements at equal lengths.
        grammar: The grammar that the text follows; it also decides when the text may end.
        skip_special_tokens: Leave the tokenizer's special tokens out of the text, as is usual. Some models mark
            tool calls by them.
        generation_config: Further settings of transformers' `GenerationConfig`, by name, such as
            `forced_eos_token_id`; those in `FURTHER` of `skeleton_of_thought.local.generation`.

    Raises:
        InvalidInput: A value is out of its range.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: Sequence[Sequence[int]] = ()
    suppress_tokens: Sequence[int] = ()
    begin_suppress_tokens: Sequence[int] = ()
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Any] = ()
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] = ()
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_after_text: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    max_time: float | None = None
    ignore_eos: bool = False
    grammar: Grammar | None = None
    skip_special_tokens: bool = True
    generation_config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # Numbers of numpy are numbers, too; transformers' classes take Python's only.
        for name, least in (("min_new_tokens", 0), ("top_k", 0), ("no_repeat_ngram_size", 0)):
            self._set(name, as_integer(name, getattr(self, name), least))
        for name, least in (("max_new_tokens", 1), ("seed", 0)):
            if getattr(self, name) is not None:
                self._set(name, as_integer(name, getattr(self, name), least))
        self._set("temperature", as_number("temperature", self.temperature, 0.0))
        for name in ("frequency_penalty", "presence_penalty"):
            self._set(name, as_number(name, getattr(self, name), -math.inf))
        for name in ("top_p", "repetition_penalty"):
            self._set(name, as_number(name, getattr(self, name), 0.0, above=True))
        self._set("min_p", as_number("min_p", self.min_p, 0.0))
        if self.max_time is not None:
            self._set("max_time", as_number("max_time", self.max_time, 0.0, above=True))
        if self.top_p > 1.0:
            raise InvalidInput(f"top_p is {self.top_p!r}; it must be above 0 and at most 1.")
        if self.min_p > 1.0:
            raise InvalidInput(f"min_p is {self.min_p!r}; it must be at least 0 and at most 1.")
        for name in ("stop", "stop_after_text"):
            given = getattr(self, name)
            stop = (given,) if isinstance(given, str) else tuple(given)
            if not all(isinstance(s, str) and s for s in stop):
                raise InvalidInput(f"{name} is {given!r:.80}; it must be a string or strings, none of them empty.")
            self._set(name, stop)
        self._check_tokens()
        if self.grammar is not None:
            self._check_grammar(self.grammar)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_tokens(self) -> None:
        for name in ("stop_token_ids", "suppress_tokens", "begin_suppress_tokens"):
            self._set(name, _tokens(name, getattr(self, name)))
        words = _items("bad_words_ids", self.bad_words_ids, "a list of lists of token ids")
        self._set("bad_words_ids", tuple(_tokens("an entry of bad_words_ids", word, 1) for word in words))
        self._set("sequence_bias", _biases(self.sequence_bias))
        # One processor may stand alone. A `LogitsProcessorList` is callable, too, but its processors are its items.
        given = self.logits_processor
        processors = (given,) if callable(given) and not isinstance(given, list) else given
        processors = _items("logits_processor", processors, "a list of functions (ids, scores) -> scores")
        for processor in processors:
            if not callable(processor) or isinstance(processor, type):
                raise InvalidInput(
                    f"logits_processor has {processor!r:.80}; it must hold functions (ids, scores) -> scores, such as "
                    "objects of transformers' LogitsProcessor."
                )
        self._set("logits_processor", processors)

    def _check_grammar(self, grammar: object) -> None:
        if not isinstance(grammar, Grammar):
            raise InvalidInput(
                f"grammar is {grammar!r:.80}; it must be a Grammar, such as Grammar.from_json_schema(...)."
            )
        if self.min_new_tokens or self.ignore_eos:
            raise InvalidInput("A grammar decides when the text may end: leave out min_new_tokens and ignore_eos.")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always chosen."""
        return self.temperature == 0.0


def as_integer(name: str, value: object, least: int) -> int:
    """The value as an int, if it is an integer of Python's or numpy's.

    Raises:
        InvalidInput: It is none, or below `least`; the message has the name.
    """
    if not is_whole(value, least):
        raise InvalidInput(f"{name} is {value!r:.40}; it must be an integer of at least {least}.")
    return int(cast(int, value))


def as_number(name: str, value: object, least: float, *, above: bool = False) -> float:
    """The value as a float, if it is a finite number of Python's or numpy's.

    Raises:
        InvalidInput: It is none, or below `least`, or `above` is true and it equals `least`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InvalidInput(f"{name} is {value!r:.40}; it must be a finite number.")
    if value < least or (above and value == least):
        raise InvalidInput(f"{name} is {value!r}; it must be {'above' if above else 'at least'} {least:g}.")
    return float(value)


def _items(name: str, value: Any, what: str) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise InvalidInput(f"{name} is {value!r:.80}; it must be {what}.")
    return tuple(value)


def _tokens(name: str, value: Any, least: int = 0) -> tuple[int, ...]:
    tokens = _items(name, value, "a list of token ids")
    if len(tokens) < least:
        raise InvalidInput(f"{name} is empty; it must have at least one token id.")
    return tuple(as_integer(f"an entry of {name}", token, 0) for token in tokens)


def _biases(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    what = "a dict of tuples of token ids and numbers, or a list of pairs of these"
    pairs = tuple(value.items()) if isinstance(value, Mapping) else _items("sequence_bias", value, what)
    biases: dict[tuple[int, ...], float] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InvalidInput(f"sequence_bias has {pair!r:.80}; it must be {what}.")
        tokens = _tokens("a sequence of sequence_bias", pair[0], 1)
        # A bias may be -inf, which forbids the sequence.
        biases[tokens] = pair[1] if pair[1] == -math.inf else as_number("a bias of sequence_bias", pair[1], -math.inf)
    return tuple(biases.items())


class RowSampler:
    """The settings of one row and its random numbers.

    Args:
        params: The row's settings.
        prompt_ids: The prompt's tokens, to which a repetition penalty applies.
        eos_ids: The tokens that `min_new_tokens` excludes.
        processors: The functions that change the row's logits, if its settings need any; they then follow all
            settings but for the drawing itself.

    Attributes:
        drawing: The settings by which a token is drawn from the changed logits.
        banned: Tokens that the text does not contain, where no processor sees to that.
        banned_first: The same for its first token.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int],
        eos_ids: Collection[int] = frozenset(),
        processors: RowProcessors | None = None,
    ) -> None:
        self.params = params
        self.eos_ids = tuple(sorted(eos_ids))
        self.processors = processors
        self.drawing = params
        self.banned: tuple[int, ...] = ()
        self.banned_first: tuple[int, ...] = ()
        if processors is None:
            words = [word[0] for word in params.bad_words_ids if len(word) == 1 and word[0] not in eos_ids]
            self.banned = (*params.suppress_tokens, *words)
            self.banned_first = tuple(params.begin_suppress_tokens)
        elif processors.warps:
            self.drawing = replace(params, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
        self._random: random.Random | None = None
        self._draw = (-1, 0.0)
        self._prompt_ids = prompt_ids

    @functools.cached_property
    def prompt_tokens(self) -> tuple[int, ...]:
        """The tokens of the prompt, each once."""
        return tuple(dict.fromkeys(self._prompt_ids))

    def draw(self, step: int) -> float:
        """The row's random number for a step, at least 0 and below 1; the same for the same step."""
        if step != self._draw[0]:
            # A generator per row: its numbers depend on neither other rows nor the global state.
            if self._random is None:
                self._random = random.Random(self.params.seed)
            # As many bits as float32 holds: a longer number could be rounded up to 1 on the device.
            self._draw = (step, self._random.getrandbits(24) * 2.0**-24)
        return self._draw[1]


class WholeVocabulary:
    """Draws from all tokens, for rows that set only a temperature.

    Args:
        params: The rows' settings.
        vocabulary: The number of tokens in the logits.
        device: The device of the logits.
    """

    def __init__(self, params: Sequence[SamplingParams], vocabulary: int, device: torch.device) -> None:
        self._temperature = _temperatures(params, device)

    def pick(self, logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """The drawn tokens, `[rows]`; -1 where logits are NaN.

        Args:
            logits: `[rows, vocabulary]`.
            draws: A number per row, at least 0 and below 1, `[rows, 1]`.
        """
        mass = torch.softmax(logits / self._temperature, -1).cumsum(-1)
        return _look_up(mass, mass[:, -1:], draws)[:, 0]


class Nucleus:
    """Draws from the most likely tokens that together reach `top_p`, and none of them below `min_p`.

    Arguments as for `WholeVocabulary`.
    """

    def __init__(self, params: Sequence[SamplingParams], vocabulary: int, device: torch.device) -> None:
        self._temperature = _temperatures(params, device)
        self._top_p = _column([p.top_p for p in params], device)
        self._min_p = _column([p.min_p for p in params], device) if any(p.min_p for p in params) else None
        # Less likely tokens are not in the nucleus: all of them together have less than 1 - top_p.
        self._floor = (1.0 - self._top_p) / vocabulary
        # If few tokens have most of the mass, the nucleus lies above this floor.
        self._high_floor = (1.0 - self._top_p) / min(_FEW, vocabulary)

    def pick(self, logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """As for `WholeVocabulary`."""
        likely, tokens = self._likely(torch.softmax(logits / self._temperature, -1))
        mass = likely.cumsum(-1)
        last = (mass < self._top_p).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)
        if self._min_p is not None:
            likeliest = (likely >= self._min_p * likely[:, :1]).sum(-1, keepdim=True)
            last = torch.minimum(last, (likeliest - 1).clamp(min=0))
        return _tokens_at(tokens, _look_up(mass, mass.gather(-1, last), draws))

    def _likely(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if _sorts_fast(probabilities.device):
            return probabilities.sort(dim=-1, descending=True, stable=True)
        low, high = self._floor, self._high_floor
        if self._min_p is not None:
            least = self._min_p * probabilities.amax(-1, keepdim=True)
            low, high = torch.maximum(low, least), torch.maximum(high, least)
        likely, tokens = _at_least(probabilities, high, 0.0)
        short = (likely.sum(-1, keepdim=True) < self._top_p) & (low < high)
        if bool(short.any()):
            likely, tokens = _at_least(probabilities, low.where(short, high), 0.0)
        return _sorted(likely, tokens)


class TopK:
    """Draws from the `top_k` most likely tokens, or from the first of them that reach `top_p` of their common mass.

    Leaves out those below `min_p`. Arguments as for `WholeVocabulary`.
    """

    def __init__(self, params: Sequence[SamplingParams], vocabulary: int, device: torch.device) -> None:
        self._temperature = _temperatures(params, device)
        self._top_p = _column([p.top_p for p in params], device)
        self._top_k = torch.tensor([p.top_k for p in params], device=device)[:, None]
        self._min_p = _column([p.min_p for p in params], device) if any(p.min_p for p in params) else None
        self._part = vocabulary // _PARTS
        self._most = max((p.top_k for p in params if p.top_k <= self._part), default=0)

    def pick(self, logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """As for `WholeVocabulary`."""
        best, tokens = self._likely(logits)
        # Not a softmax: the last bits of its sums would depend on the number of tokens that other rows keep.
        shares = ((best - best[:, :1]) / self._temperature).exp()
        mass = shares.cumsum(-1)
        last = self._top_k.clamp(max=mass.shape[-1]) - 1
        last = torch.minimum(last, (mass < self._top_p * mass.gather(-1, last)).sum(-1, keepdim=True))
        if self._min_p is not None:
            last = torch.minimum(last, ((shares >= self._min_p).sum(-1, keepdim=True) - 1).clamp(min=0))
        return _tokens_at(tokens, _look_up(mass, mass.gather(-1, last), draws))

    def _likely(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if _sorts_fast(logits.device):
            return logits.sort(dim=-1, descending=True, stable=True)
        floor = torch.full_like(self._top_p, -math.inf)
        if self._most:
            # The k-th largest maximum of disjoint parts is a bound: k parts hold a token that is at least as likely.
            maxima = logits[:, : self._part * _PARTS].reshape(-1, _PARTS, self._part).amax(1)
            bound = maxima.topk(self._most).values.gather(-1, self._top_k.clamp(max=self._most) - 1)
            floor = bound.where(self._top_k <= self._part, floor)
        return _sorted(*_at_least(logits, floor, -math.inf))


def _sorts_fast(device: torch.device) -> bool:
    # On a CPU, sorting whole vocabularies takes longer than a small model's step, so there only the tokens that can be
    # drawn are sorted. On a GPU, finding their number would mean waiting for the device.
    return device.type != "cpu"


def _at_least(values: torch.Tensor, floor: torch.Tensor, padding: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of each row that reach its floor, and their tokens, in the order of tokens; short rows are padded."""
    size, vocabulary = values.shape
    # numpy finds the places several times as fast as torch.
    found = torch.from_numpy((values.numpy() >= floor.numpy()).ravel().nonzero()[0])
    rows = found // vocabulary
    counts = rows.bincount(minlength=size)
    columns = torch.arange(len(found)) - (counts.cumsum(0) - counts)[rows]
    kept = values.new_full((size, max(1, int(counts.max()))), padding)
    tokens = torch.zeros_like(kept, dtype=torch.int64)
    kept[rows, columns] = values.ravel()[found]
    tokens[rows, columns] = found - rows * vocabulary
    return kept, tokens


def _sorted(values: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values and their tokens, largest first; equal values keep their order."""
    values, order = values.sort(dim=-1, descending=True, stable=True)
    return values, tokens.gather(-1, order)


def _look_up(mass: torch.Tensor, total: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The place of a share of the total in growing sums, `[rows, 1]`; -1 where the total is NaN."""
    return torch.searchsorted(mass, draws * total, right=True).where(total > 0.0, -1)


def _tokens_at(tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return tokens.gather(-1, at.clamp(min=0)).where(at >= 0, -1)[:, 0]


def _temperatures(params: Sequence[SamplingParams], device: torch.device) -> torch.Tensor:
    return _column([max(p.temperature, _COLDEST) for p in params], device)


def _column(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None]
