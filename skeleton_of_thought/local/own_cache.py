"""Caches of a model's own kind: how one is made, passed, returned, copied and stacked.

Models with recurrent states or unusual attention keep something of their own between forwards: a transformers cache, a
list of tensors, or tensors in their modules. Nothing is assumed about it: an output with the name of an argument is
passed to the next forward, and tensors that a forward leaves in modules are exchanged when another row runs.
`own_trial.py` tries out what of this gives the model's own logits.
"""

from __future__ import annotations

import copy
import enum
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig

from skeleton_of_thought.local.decoding_path import cache_argument, forward_parameters

__all__ = ["OwnCache", "RowState", "Way", "stacked", "takes_dynamic_cache"]


Way = Literal["given", "made", "prepared", "whole"]

# --- the state of rows ------------------------------------------------------------------------------


@dataclass
class RowState:
    """What a model keeps of the texts of some rows between two forwards.

    Attributes:
        lengths: The number of tokens of each row that have run.
        given: The caches: arguments of the next forward, by name.
        modules: The tensors that the model keeps in its modules.
        text: All tokens, `[rows, tokens]`, for models that must get them again; otherwise None.
    """

    lengths: list[int] = field(default_factory=lambda: [0])
    given: dict[str, Any] = field(default_factory=dict)
    modules: list[Any] = field(default_factory=list)
    text: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of all its tensors."""
        return sum(leaf.nbytes for leaf in _leaves(self._parts) if isinstance(leaf, torch.Tensor))

    def copied(self) -> RowState:
        """A copy that later forwards of this one do not change."""
        return self._with(torch.Tensor.clone, self.lengths)

    def selected(self, rows: Sequence[int]) -> RowState:
        """A copy of some of the rows."""
        index, count = torch.tensor(rows), len(self.lengths)

        def pick(part: torch.Tensor) -> torch.Tensor:
            return part.index_select(0, index.to(part.device)) if _has_rows(part, count) else part.clone()

        return self._with(pick, [self.lengths[row] for row in rows])

    @property
    def kept(self) -> bool:
        """Whether it holds anything but tokens."""
        return any(isinstance(leaf, torch.Tensor) for leaf in _leaves((self.given, self.modules)))

    @property
    def selects(self) -> bool:
        """Whether layers attend to tokens that an index selects."""
        layers = (layer for cache in self.given.values() for layer in getattr(cache, "layers", ()))
        return any("Indexed" in type(layer).__name__ for layer in layers)

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.given, self.modules, self.text

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor], lengths: Sequence[int]) -> RowState:
        return RowState(list(lengths), *_changed(self._parts, change, {}))


def stacked(first: RowState, second: RowState) -> RowState | None:
    """The rows of both states as one; None if their tensors or other values do not fit together."""
    ours, theirs = list(_leaves(first._parts)), list(_leaves(second._parts))
    counts = len(first.lengths), len(second.lengths)
    if len(ours) != len(theirs) or not all(_fit(*pair, *counts) for pair in zip(ours, theirs, strict=True)):
        return None
    others = iter([leaf for leaf in theirs if isinstance(leaf, torch.Tensor)])

    def join(part: torch.Tensor) -> torch.Tensor:
        other = next(others)
        return torch.cat((part, other)) if _has_rows(part, counts[0]) else part.clone()

    return first._with(join, [*first.lengths, *second.lengths])


def _has_rows(part: torch.Tensor, count: int) -> bool:
    """Whether the first dimension of a tensor is that of the rows. Others are common to all rows."""
    return part.dim() > 0 and len(part) == count


def _fit(one: Any, other: Any, rows: int, more: int) -> bool:
    """Whether two leaves of states of so many rows can be joined: tensors by rows, all others if they are equal."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if _has_rows(one, rows) and _has_rows(other, more):
            return one.shape[1:] == other.shape[1:] and one.dtype == other.dtype
        return not _has_rows(one, rows) and torch.equal(one, other)
    return one is other or (type(one) is type(other) and isinstance(one, bool | int | float | str) and one == other)


def _opaque(value: Any) -> bool:
    """Whether a value holds no state of a row: settings, classes and functions."""
    shared = (nn.Module, PretrainedConfig, type, enum.Enum, torch.dtype, torch.device)
    return isinstance(value, shared) or inspect.isroutine(value)


def _leaves(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The tensors and plain values in a cache, in a fixed order, each tensor once."""
    seen = set() if seen is None else seen
    if _opaque(value):
        return
    if not (isinstance(value, torch.Tensor | list | tuple | dict) or hasattr(value, "__dict__")):
        yield value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
        return
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _leaves(part, seen)
    for part in vars(value).values() if hasattr(value, "__dict__") else ():
        yield from _leaves(part, seen)


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor], known: dict[int, Any]) -> Any:
    """A copy of a cache with each of its tensors changed, in the order of `_leaves`."""
    if id(value) in known:
        return known[id(value)]
    made: Any
    if isinstance(value, torch.Tensor):
        known[id(value)] = made = change(value)
        return made
    if _opaque(value) or not (isinstance(value, list | tuple | dict) or hasattr(value, "__dict__")):
        return value
    if isinstance(value, tuple):
        items = [_changed(part, change, known) for part in value]
        known[id(value)] = made = type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        return made
    known[id(value)] = made = copy.copy(value)
    if isinstance(value, dict):
        for key, part in value.items():
            made[key] = _changed(part, change, known)
    elif isinstance(value, list):
        made[:] = [_changed(part, change, known) for part in value]
    if hasattr(value, "__dict__"):
        for name, part in vars(value).items():
            made.__dict__[name] = _changed(part, change, known)
    return made


# --- how a model continues --------------------------------------------------------------------------


class OwnCache:
    """Runs rows on caches of a model's own kind.

    Args:
        model: The model.
        config: The configuration of its text part.
        way: How a row begins: `"given"` passes an empty transformers cache; `"made"` none, and the model makes its own;
            `"prepared"` leaves all arguments to the model's `prepare_inputs_for_generation`, as `generate` does;
            `"whole"` uses no cache, so each forward runs the whole text.

    Attributes:
        caches: Whether a step runs only the new token.
        pieces: Whether a prompt may run in pieces of several tokens.
        copies: Whether a copy of a row's state continues as the original does.
        stacks: Whether rows of equal length can run as one batch.
        stacks_all: Whether rows of any lengths can.
        fixed_bytes: The bytes of a row's state that do not depend on its length.
        token_bytes: The bytes by which each token lets it grow.
    """

    def __init__(self, model: Any, config: Any, way: Way) -> None:
        self.way = way
        self.caches = way != "whole"
        self.pieces = self.copies = self.stacks = self.stacks_all = False
        self.fixed_bytes = self.token_bytes = 0.0
        self._config = config
        # What the model keeps in its modules: the module, `"_buffers"` or nothing, the name; and the values at first.
        self._names: list[_Key] = []
        self._initial: list[object] = []
        self._learned = False
        self._fields: tuple[str, ...] = ()
        self._bind(model)

    def bound(self, model: Any) -> OwnCache:
        """The same for another model with the same modules."""
        other = copy.copy(self)
        other._bind(model)
        return other

    def begin(self) -> RowState:
        """The state of a row before its first token."""
        initial = [part.clone() if isinstance(part, torch.Tensor) else part for part in self._initial]
        state = RowState(modules=initial)
        if self.way == "given" or (self.way == "prepared" and takes_dynamic_cache(self._model)):
            state.given[self._cache or ""] = DynamicCache(config=self._config)
        return state

    def run(self, ids: torch.Tensor, state: RowState) -> torch.Tensor:
        """Run the next tokens of rows, `[rows, tokens]`. Returns the logits of the last ones, `[rows, vocabulary]`."""
        tokens = ids.shape[1]
        if self.way in ("prepared", "whole"):
            state.text = ids if state.text is None else torch.cat((state.text, ids), 1)
        arguments = self._prepared(state, tokens) if self.way == "prepared" else self._direct(ids, state)
        before = None if self._learned else _tensors_in_modules(self._model)
        self._exchange(state)
        try:
            out = self._model(**arguments)
        finally:
            self._exchange(state)
        if before is not None:
            self._learn(before, out, state)
        for name in self._fields:
            if (value := getattr(out, name, None)) is not None:
                state.given[name] = value
        state.lengths = [length + tokens for length in state.lengths]
        return out.logits[:, -1]  # type: ignore[no-any-return]

    def _bind(self, model: Any) -> None:
        self._model = model
        self._accepts = forward_parameters(model)
        self._cache = cache_argument(model)
        loose = any(parameter.kind is parameter.VAR_KEYWORD for parameter in self._accepts.values())
        settings = {"use_cache": self.way != "whole", "return_dict": True}
        self._settings: dict[str, Any] = {
            name: value for name, value in settings.items() if loose or name in self._accepts
        }
        if "logits_to_keep" in self._accepts:
            self._settings["logits_to_keep"] = 1
        self._places = self._find_places()

    def _direct(self, ids: torch.Tensor, state: RowState) -> dict[str, Any]:
        """The arguments of a forward that gets the new tokens, or without a cache the whole text."""
        tokens, device = ids.shape[1], ids.device
        arguments = {**self._settings, **state.given, "input_ids": ids if state.text is None else state.text}
        if "position_ids" in self._accepts:
            whole = None if state.text is None else _range(0, state.text.shape[1], device)
            arguments["position_ids"] = _positions(state, tokens, device) if whole is None else whole
        # Caches of earlier versions of transformers tell a prompt from a step by it.
        if "cache_position" in self._accepts and state.text is None and (state.lengths[0] or self.way == "given"):
            arguments["cache_position"] = _range(state.lengths[0], state.lengths[0] + tokens, device)[0]
        return arguments

    def _prepared(self, state: RowState, tokens: int) -> dict[str, Any]:
        """The arguments of a forward as `generate` passes them."""
        assert state.text is not None
        first, length, device = not state.lengths[0], state.text.shape[1], state.text.device
        arguments: dict[str, Any] = {**self._settings, **state.given}
        arguments.pop("return_dict", None)
        if "position_ids" in self._accepts:
            arguments["position_ids"] = _range(0, length, device).expand(len(state.text), -1)
        if "next_sequence_length" in _PREPARES:
            arguments |= {"is_first_iteration": first, "next_sequence_length": None if first else tokens}
        else:
            arguments = {_EARLIER_NAMES.get(name, name): value for name, value in arguments.items()}
            arguments["cache_position"] = _range(length - tokens, length, device)[0]
            arguments["attention_mask"] = torch.ones_like(state.text)
        return {**self._model.prepare_inputs_for_generation(state.text, **arguments), "return_dict": True}

    # --- tensors that a model keeps in its modules

    def _exchange(self, state: RowState, first: int = 0) -> None:
        """Swap the values in the modules and those of some rows."""
        for i, (holder, name) in enumerate(self._places[first:], first):
            theirs = holder.pop(name, _ABSENT)
            if state.modules[i] is not _ABSENT:
                holder[name] = state.modules[i]
            state.modules[i] = theirs

    def _learn(self, before: dict[_Key, _Held], out: Any, state: RowState) -> None:
        """Find what the first forward of all returned, and what it left in the modules."""
        names = out.keys() if hasattr(out, "keys") else vars(out)
        self._learned = True
        if self.way == "whole":
            return
        self._fields = tuple(name for name in names if name in self._accepts and name != "labels")
        found: list[tuple[_Key, object]] = []
        for key, held in _tensors_in_modules(self._model).items():
            was = before.get(key, _Held(_ABSENT, 0, _ABSENT))
            if key not in self._names and (held.value is not was.value or held.version != was.version):
                found.append((key, was.copy))
        self._hold(found)
        # The modules have the row's new values: only those that were not exchanged yet are.
        state.modules += [value for _, value in found]
        self._exchange(state, len(state.modules) - len(found))

    def _hold(self, found: Sequence[tuple[_Key, object]]) -> None:
        """Exchange these values in modules from now on."""
        self._names = [*self._names, *(key for key, _ in found)]
        self._initial = [*self._initial, *(value for _, value in found)]
        self._places = self._find_places()

    def hold_ropes(self) -> None:
        """Exchange the frequencies of rotary embeddings that grow with the longest text so far."""
        found: list[tuple[_Key, object]] = []
        for path, module in self._model.named_modules():
            parts = {"": vars(module), "_buffers": vars(module)["_buffers"]}
            if any("max_seq_len_cached" in name for name in vars(module)):
                found += [((path, part, name), value.clone() if isinstance(value, torch.Tensor) else value)
                          for part, values in parts.items() for name, value in values.items()
                          if name.endswith(("inv_freq", "max_seq_len_cached", "attention_scaling"))]  # fmt: skip
        self._hold(found)

    def _find_places(self) -> list[tuple[dict[str, Any], str]]:
        modules = dict(self._model.named_modules()) if self._names else {}
        holders: list[tuple[Any, str, str]] = [(vars(modules[path]), part, name) for path, part, name in self._names]
        return [(holder[part] if part else holder, name) for holder, part, name in holders]


_Key = tuple[str, str, str]
_ABSENT: Any = object()


@dataclass(frozen=True)
class _Held:
    """What a module has in one place: a tensor, how often it was written to, and a copy; or None, or nothing."""

    value: object
    version: int
    copy: object


def _tensors_in_modules(model: Any) -> dict[_Key, _Held]:
    """The tensors that modules hold beside their parameters, and the attributes that are None."""
    found: dict[_Key, _Held] = {}
    for path, module in model.named_modules():
        for part in ("", "_buffers"):
            for name, value in (vars(module)[part] if part else vars(module)).items():
                if isinstance(value, torch.Tensor):
                    version = 0 if value.is_inference() else value._version
                    found[path, part, name] = _Held(value, version, value.clone())
                elif value is None:
                    found[path, part, name] = _Held(None, 0, None)
    return found


_EARLIER_NAMES = {"mems": "past_key_values", "past_buckets_states": "past_key_values"}
"""Outputs that `generate` of earlier versions of transformers passes on by another name."""

_PREPARES = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters


def takes_dynamic_cache(model: Any) -> bool:
    """Whether `generate` passes a cache of transformers' usual kind to this model."""
    # transformers keeps this in a private method; remote code may have none.
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    return cache_argument(model) is not None and (supports is None or bool(supports()))


def _positions(state: RowState, tokens: int, device: torch.device) -> torch.Tensor:
    """The positions of the next tokens, `[rows, tokens]`."""
    starts = torch.tensor(state.lengths, device=device)[:, None]
    return starts if tokens == 1 else starts + torch.arange(tokens, device=device)


def _range(start: int, stop: int, device: torch.device) -> torch.Tensor:
    return torch.arange(start, stop, device=device)[None]
