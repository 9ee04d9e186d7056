"""One loaded model for all who ask for it by the same name and in the same way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from skeleton_of_thought.local.engine import LocalEngine

__all__ = ["shared_engine"]

_DEMO = "demo"

_engines: WeakValueDictionary[tuple[str, ...], LocalEngine] = WeakValueDictionary()
_loading = threading.Lock()


def shared_engine(model: str | None, kwargs: Mapping[str, Any]) -> LocalEngine:
    """The engine of a model: the one that others already use, or a new one. It goes when nobody holds it any more.

    Args:
        model: As for `LocalEngine.from_pretrained`.
        kwargs: The keyword arguments for it. Who asks for others gets an engine of their own.

    Raises:
        ModelLoadError, MissingExtra, InvalidInput: As for `LocalEngine.from_pretrained`.
    """
    key = (model or _DEMO, *(f"{name}={_told(value)}" for name, value in sorted(kwargs.items())))
    # Under the lock: two threads that ask at once shall not load the same weights twice.
    with _loading:
        engine = _engines.get(key)
        if engine is None or engine.closed:
            engine = _engines[key] = LocalEngine.from_pretrained(model, **kwargs)
        return engine


def _told(value: Any) -> str:
    # torch.bfloat16 and "bfloat16", torch.device("cpu") and "cpu" ask for the same.
    kind = f"{type(value).__module__}.{type(value).__name__}"
    return repr(str(value).removeprefix("torch.") if kind in ("torch.dtype", "torch.device") else value)
