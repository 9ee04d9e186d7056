"""The facts of a model's configuration.

Configurations differ between architectures: a field can be missing, can be None, and in newer ones can belong to each
layer. Then reading it from the whole raises an error that is no AttributeError (Gemma 4's head size).
"""

from __future__ import annotations

from typing import Any

__all__ = ["attends_to_all", "context_window", "growing_rope", "layer_values", "original_window", "read"]

_GROWING_ROPE = ("dynamic", "longrope")
_SLIDING = ("sliding_window", "attention_chunk_size")


def read(config: Any, name: str, otherwise: Any = None) -> Any:
    """The value of a field, where its layers differ that of the first layer which has one.

    Args:
        config: A configuration.
        name: The name of the field.
        otherwise: The value if the field is missing or None.
    """
    try:
        value = getattr(config, name, None)
    except Exception:
        value = next((value for value in layer_values(config, name) if value is not None), None)
    return otherwise if value is None else value


def layer_values(config: Any, name: str) -> list[Any]:
    """The values of a field for each layer; one value if the configuration has no layers of their own."""
    try:
        return [getattr(layer, name, None) for layer in config.per_layer_config]
    except Exception:
        # Before transformers 5.20, and for configurations of other libraries.
        return [getattr(config, name, None)]


def attends_to_all(config: Any) -> bool:
    """Whether all layers attend to all tokens."""
    layer_types = read(config, "layer_types")
    if layer_types:
        return set(layer_types) == {"full_attention"}
    return not any(value for name in _SLIDING for value in layer_values(config, name))


def growing_rope(config: Any) -> dict[str, Any] | None:
    """The parameters of rotary embeddings that change when a text outgrows the original window."""
    rope = read(config, "rope_parameters") or read(config, "rope_scaling") or {}
    # One set of parameters, or one per type of layer.
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if part.get("rope_type", part.get("type")) in _GROWING_ROPE:
            return dict(part)
    return None


def original_window(config: Any, rope: dict[str, Any]) -> int | None:
    """The window that these rotary embeddings were made for, in tokens."""
    return (
        _positive(rope.get("original_max_position_embeddings"))
        or _positive(read(config, "original_max_position_embeddings"))
        or _positive(read(config, "max_position_embeddings"))
    )


def context_window(config: Any) -> int | None:
    """The longest text in tokens; None if the configuration names no limit."""
    window = _positive(read(config, "max_position_embeddings"))
    rope = growing_rope(config)
    if window and rope and rope.get("rope_type", rope.get("type")) == "dynamic":
        # For this type the configuration names the window before it is stretched.
        return int(window * max(1.0, float(rope.get("factor") or 1.0)))
    return window


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
