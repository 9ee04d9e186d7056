"""A second set of modules over a model's own weights, which the engine may change without touching the model."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from skeleton_of_thought.local.packed import PackedLinear, packable, packing_works, stamp

__all__ = ["Twin"]


class Twin:
    """A model's modules once more, with the same weights, in evaluation mode, its linear layers packed.

    Whoever holds the model may train it, change its attention or generate with it meanwhile.

    Args:
        model: The model; stays as it is.

    Attributes:
        model: The twin.
        packed: How many layers are packed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._original = model
        self.model = _clone(model, {})
        names = [name for name, linear in packable(model) if packing_works(linear.weight.dtype)]
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, PackedLinear(model.get_submodule(name)))  # type: ignore[arg-type]
        self.packed = len(names)
        self._stamp = self._now()

    @staticmethod
    def possible(model: Any) -> bool:
        """Whether the model is made of transformers' own modules alone, which are known to bear it."""
        return type(model).__module__.startswith("transformers.models.") and not any(
            module._forward_hooks
            or module._forward_pre_hooks
            or "forward" in vars(module)
            or hasattr(module, "_hf_hook")
            or not type(module).__module__.startswith(("transformers.", "torch.nn."))
            for module in model.modules()
        )

    def stale(self) -> bool:
        """Whether the model's weights were changed or replaced since."""
        return self._stamp != self._now()

    def _now(self) -> tuple[int, ...]:
        return stamp(self._original.parameters())


def _clone(module: nn.Module, known: dict[int, Any]) -> nn.Module:
    """The module and all below it, anew, over the same parameters and buffers."""
    if id(module) in known:
        return known[id(module)]  # type: ignore[no-any-return]
    twin = copy.copy(module)
    known[id(module)] = twin
    state = twin.__dict__
    for name in ("_parameters", "_buffers"):
        state[name] = dict(state[name])
    state["_modules"] = {
        name: None if child is None else _clone(child, known) for name, child in state["_modules"].items()
    }
    state["training"] = False
    for name, value in state.items():
        # A reference to another module of the tree beside the tree itself, or to a configuration.
        if isinstance(value, nn.Module) and name != "_modules":
            state[name] = _clone(value, known)
        elif name == "config":
            state[name] = known.setdefault(id(value), copy.copy(value))
    return twin
