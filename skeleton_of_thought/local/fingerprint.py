"""A value that changes with whatever decides what a model computes: modules, weights, attributes, hooks, configuration.

Keys and values that were computed before such a change must not be reused after it, and faster forwards must be made
again. The value is compared when prompts are admitted, so it is cheap: it takes a few samples of each weight, and no
attributes of plain linear layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

__all__ = ["ModelState"]

_SAMPLES = 8
"""Values of each weight that are compared to detect changes."""

_PLAIN = (nn.Linear, nn.Embedding, nn.Dropout, nn.LayerNorm, nn.ModuleList)
"""Modules that compute by their weights alone."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

_IGNORED = {
    name for name in vars(nn.Module()) if name not in _HOOKS
} | {"generation_config", "warnings_issued", "gradient_checkpointing"}  # fmt: skip
"""Attributes of modules that decide nothing. The mode of training is one: the engine runs all in evaluation mode."""

_CONFIG_IGNORED = frozenset(
    {"use_cache", "transformers_version", "_name_or_path", "architectures", "dtype"}
    | {"eos_token_id", "bos_token_id", "pad_token_id", "_output_attentions", "output_hidden_states", "return_dict"}
)

_GROWING = ("dynamic", "longrope")
_GROWN = ("max_seq_len_cached", "inv_freq", "original_inv_freq", "long_inv_freq")

_ATOMS = frozenset({bool, int, float, str, type(None), torch.dtype, torch.device})

_LONGEST = 256
"""The most entries of a list or dict that are compared."""

_Key = tuple[int, str]


class _Same:
    """An object that equals itself alone. Holding it keeps another from getting its id."""

    __slots__ = ("_held",)

    def __init__(self, held: object) -> None:
        self._held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._held is other._held

    __hash__ = None  # type: ignore[assignment]


class ModelState:
    """Detects changes of a model.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._volatile: set[_Key] = set()
        self._known = self._now()

    def settle(self) -> None:
        """Ignore from now on what has changed since the last look: the model's own forwards changed it."""
        now = self._now()
        self._volatile |= {key for key in now.keys() | self._known.keys() if now.get(key) != self._known.get(key)}
        self._known = self._now()

    def changed(self) -> bool:
        """Whether the model has changed since the last look."""
        now = self._now()
        changed = now != self._known
        self._known = now
        return changed

    def _now(self) -> dict[_Key, object]:
        found: dict[_Key, object] = {}
        configs: dict[int, PretrainedConfig] = {}
        for module in self._model.modules():
            number, state = id(module), module.__dict__
            growing = "rope_type" in state and _grows(state)
            found[number, ""] = type(module)
            for name, tensor in (*state["_parameters"].items(), *state["_buffers"].items()):
                if tensor is not None and not (growing and name.endswith("inv_freq")):
                    found[number, name] = _tensor(tensor)
            for name in _HOOKS:
                if state[name]:
                    found[number, name] = [_Same(hook) for hook in state[name].values()]
            # A forward of its own, which accelerate or a user gave the object, counts for all.
            for name in () if type(module) in _PLAIN and "forward" not in state else state.keys() - _IGNORED:
                value = state[name]
                if type(value) in _ATOMS:
                    found[number, name] = value
                elif isinstance(value, PretrainedConfig):
                    configs[id(value)] = value
                elif not (growing and name in _GROWN):
                    found[number, name] = _value(value)
        for number, config in configs.items():
            found.update(_config(number, config))
        for key in self._volatile:
            found.pop(key, None)
        return found


def _grows(state: dict[str, Any]) -> bool:
    """Whether a module is a rotary embedding that its own forwards change, when a text outgrows its window."""
    kind = state.get("rope_type")
    kinds: Iterable[object] = kind.values() if isinstance(kind, dict) else (kind,)
    return any(one in _GROWING for one in kinds)


def _config(number: int, config: PretrainedConfig) -> Iterable[tuple[_Key, object]]:
    # By the dict: attributes of some configurations differ per layer, and raise where they are read for all.
    for name, value in vars(config).items():
        if name in _CONFIG_IGNORED:
            continue
        if isinstance(value, PretrainedConfig):
            yield from _config(id(value), value)
        else:
            yield (number, name), _value(value)


def _value(value: object, depth: int = 3) -> object:
    """A copy of what a value says, or the object itself where it is no data."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, nn.Module):
        return id(value)
    if depth and isinstance(value, list | tuple | set | frozenset | dict) and len(value) <= _LONGEST:
        if isinstance(value, dict):
            return [(_value(key, 0), _value(part, depth - 1)) for key, part in value.items()]
        return [_value(part, depth - 1) for part in (sorted(value, key=str) if isinstance(value, set) else value)]
    return _Same(value)


def _tensor(part: torch.Tensor) -> tuple[object, ...]:
    # Tensors made in inference mode have no version count, and changes through `.data` are not counted: a few samples
    # show these changes, unless they leave most of a weight unchanged.
    try:
        version = 0 if part.is_inference() else part._version
        if part.device.type != "cpu":
            return part.data_ptr(), version, part.dtype
        flat = part.detach().view(-1) if part.is_contiguous() else part.detach().flatten()
        return part.data_ptr(), version, part.dtype, flat[:: max(1, part.numel() // _SAMPLES)].tolist()
    except Exception:  # quantised weights may have neither an address nor values to look at
        return id(part), type(part)
