"""A second set of modules over a model's own weights, which the engine may change without touching the model."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from skeleton_of_thought.local.attention import ATTENTION, register_attention
from skeleton_of_thought.local.packed import PackedLinear, packable_layers, packing_works

__all__ = ["Twin"]


class Twin:
    """A model's modules once more, with the same weights, in evaluation mode, its linear layers packed.

    Whoever holds the model may train it, change its attention or generate with it meanwhile.

    Args:
        model: The model; stays as it is.
        pack: Whether to pack its linear layers.

    Attributes:
        model: The twin.
        packed: How many layers are packed.
        shares: Whether its layers attend to the segments of a cache.
    """

    def __init__(self, model: nn.Module, *, pack: bool = True) -> None:
        self.model = _clone(model, {})
        layers = packable_layers(model) if pack else ()
        names = [name for name, linear in layers if packing_works(linear.weight.dtype)]
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, PackedLinear(model.get_submodule(name)))  # type: ignore[arg-type]
        self.packed = len(names)
        self.shares = False

    def share(self) -> bool:
        """Have the layers attend to segments; False where they have an attention of another kind."""
        config: Any = self.model.config
        if getattr(config, "_attn_implementation", None) != "sdpa":
            return False
        register_attention()
        config._attn_implementation = ATTENTION
        self.shares = True
        return True

    def unshare(self) -> None:
        """Undo `share`."""
        config: Any = self.model.config
        config._attn_implementation = "sdpa"
        self.shares = False

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether the model is made of transformers' own modules alone, which are known to bear it."""
        return type(model).__module__.startswith("transformers.models.") and not any(
            module._forward_hooks
            or module._forward_pre_hooks
            or "forward" in vars(module)
            or hasattr(module, "_hf_hook")
            or not type(module).__module__.startswith(("transformers.", "torch.nn."))
            for module in model.modules()
        )


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
