"""A twin: a second set of modules over a model's own weights, which the engine can change without the model."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from skeleton_of_thought.local.attention import ATTENTION, register_attention
from skeleton_of_thought.local.packed import PackedLinear, packable_layers, packing_works

__all__ = ["Twin"]


class Twin:
    """A copy of a model's modules with the same weights, in evaluation mode and with packed linear layers.

    Users may train the model, change its attention or generate with it meanwhile.

    Args:
        model: The model; unchanged.
        pack: Whether to pack its linear layers.
        least: The least number of weights of a layer to pack.

    Attributes:
        model: The copy.
        packed: The number of packed layers.
        shares: Whether its layers attend to the segments of a cache.
    """

    def __init__(self, model: nn.Module, *, pack: bool = True, least: int = 0) -> None:
        self.model = _clone(model, {})
        layers = packable_layers(model) if pack else ()
        names = [
            name for name, linear in layers if linear.weight.numel() >= least and packing_works(linear.weight.dtype)
        ]
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, PackedLinear(model.get_submodule(name)))  # type: ignore[arg-type]
        self.packed = len(names)
        self.shares = False

    def share(self) -> bool:
        """Make the layers attend to segments. Returns False if they have another kind of attention."""
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
        """Whether the model consists of transformers' own modules only, which work as copies."""
        return type(model).__module__.startswith("transformers.models.") and not any(
            module._forward_hooks
            or module._forward_pre_hooks
            or "forward" in vars(module)
            or hasattr(module, "_hf_hook")
            or not type(module).__module__.startswith(("transformers.", "torch.nn."))
            for module in model.modules()
        )


def _clone(module: nn.Module, known: dict[int, Any]) -> nn.Module:
    """A copy of a module and of all modules in it, with the same parameters and buffers."""
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
        # An attribute that refers to another module of the tree, or to the configuration.
        if isinstance(value, nn.Module) and name != "_modules":
            state[name] = _clone(value, known)
        elif name == "config":
            state[name] = known.setdefault(id(value), copy.copy(value))
    return twin
