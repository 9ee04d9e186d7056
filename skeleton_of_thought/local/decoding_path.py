"""The decoding path of a model, inferred from its configuration and then checked by a trial run.

A configuration and a signature can mislead: transformers renames arguments, and remote code follows no rules. So a
trial run decodes a few tokens on the inferred path and compares their logits with one plain forward of the whole text.
If they differ, the model gets the next slower path, and the path keeps the reason.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import transformers
from transformers import DynamicCache

from skeleton_of_thought.local.kv import Caches, Layout, RowsCache
from skeleton_of_thought.local.trial import Run, Trial, logit_distance

__all__ = [
    "CacheKind",
    "DecodingPath",
    "batch_fits",
    "cache_argument",
    "check_path",
    "fault_of",
    "forward_parameters",
    "infer_path",
    "plain_logits",
]

logger = logging.getLogger(__name__)

CacheKind = Literal["batched", "separate", "none"]
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""The names of the cache argument in transformers: the first since 5.24, the others before."""

_CACHE_TYPE = re.compile(r"\b\w*Cache\b")


@dataclass(frozen=True)
class DecodingPath:
    """How a model's rows are decoded.

    Attributes:
        kind: `"batched"`: keys and values of several rows in one batch; `"separate"`: a cache of the model's own kind
            for each row, see `own_cache.py`; `"none"`: no cache, so each token runs the whole text.
        reason: Why the kind is not `"batched"`, as the end of a sentence; otherwise empty.
        expected: Whether the model's architecture requires this kind. False if a trial run failed for another reason.
        layout: The number of states in each layer, if some layers have states or neither keys nor values.
        pieces: Whether a text can go on with several tokens at once. False for models that continue their states by
            single tokens only.
        reads: Whether single tokens give the logits of the whole text. False for models that compute them in another
            way: then only pieces of several tokens give the text that the model itself writes.
    """

    kind: CacheKind
    reason: str = ""
    expected: bool = True
    layout: Layout | None = None
    pieces: bool = True
    reads: bool = True

    @property
    def stateful(self) -> bool:
        """Whether its layers have states, which exist only where a forward has ended."""
        return any(self.layout or ())

    def caches(self) -> Caches:
        """The caches of rows that are decoded as a batch."""
        if self.layout is None:
            return Caches()
        from skeleton_of_thought.local.states import StateCaches

        return StateCaches(self.layout)

    def warning(self, model: str) -> str:
        """A line for the log; empty for a batched path."""
        if self.kind == "batched":
            return ""
        how = " and runs the whole text for each token" if self.kind == "none" else ""
        line = f"{model} decodes its rows one after another{how}: {self.reason}."
        if self.expected:
            return line
        return f"{line} A trial run with transformers {transformers.__version__} found that; please report it."


# --- inference from the configuration and the signature ---------------------------------------------


def forward_parameters(model: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a model's forward, by name."""
    # Adapters of peft and torch.compile accept any arguments and pass them on: the inner model's signature counts.
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base = getattr(base, "_orig_mod", base)
    return dict(inspect.signature(base.forward).parameters)


def cache_argument(model: Any) -> str | None:
    """The name of the cache argument of a model's forward; None if there is none.

    A known name, otherwise the argument whose annotation is a cache.
    """
    known = forward_parameters(model)
    for name in _CACHE_NAMES:
        if name in known:
            return name
    for name, parameter in known.items():
        note = parameter.annotation
        text = note if isinstance(note, str) else getattr(note, "__name__", "") + " " + str(note)
        if note is not inspect.Parameter.empty and _CACHE_TYPE.search(text):
            return name
    return None


def infer_path(model: Any, config: Any) -> DecodingPath:
    """The decoding path that a model's configuration and signature suggest.

    Args:
        model: A causal language model.
        config: The configuration of its text part.
    """
    stateful = DecodingPath("separate", "it keeps its own state instead of keys and values")
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    if supports is not None and not supports():
        return stateful
    if cache_argument(model) is None:
        names = ", ".join(forward_parameters(model)) or "none"
        return DecodingPath("none", f"its forward takes no cache (its arguments: {names:.200})")
    try:
        layers = DynamicCache(config=config).layers
    except Exception as error:
        # Remote code whose configuration names no layers that transformers could build a cache from.
        return DecodingPath("none", f"transformers builds no cache from its configuration ({type(error).__name__})")
    # Before they had several states, layers of transformers held one tensor in place of a dict.
    old = {type(layer).__name__ for layer in layers if not isinstance(getattr(layer, "conv_states", {}), dict)}
    others = ({type(layer).__name__ for layer in layers} - _BATCHED_LAYERS) | old
    layout = None if old else _layout(layers)
    if getattr(model, "_is_stateful", False) and layout is None:
        return stateful
    if others:
        return DecodingPath("separate", f"it has layers whose state cannot be batched ({', '.join(sorted(others))})")
    return DecodingPath("batched", layout=layout)


_BATCHED_LAYERS = {
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "LinearAttentionLayer",
    "LinearAttentionAndFullAttentionLayer",
    "LinearAttentionAndSlidingWindowAttentionLayer",
    "DummyLayer",
}
"""The layers that a batch can hold (`kv.py`, `states.py`). Dummy layers hold nothing: they read another layer's."""


def _layout(layers: Sequence[Any]) -> Layout | None:
    """The number of states in each of these layers; None if no layer has any."""
    states = tuple(len(getattr(layer, "conv_states", None) or ()) for layer in layers)
    return states if any(states) else None


# --- the trial run --------------------------------------------------------------------------


def check_path(
    model: Any, path: DecodingPath, run: Run, new_cache: Callable[[], Any], device: torch.device
) -> DecodingPath:
    """The path if it is batched and gives the model's own logits, otherwise the separate one, still to be tried.

    Runs eight forwards of a few tokens if the path is right.

    Args:
        model: The model, in evaluation mode.
        path: The inferred path.
        run: A forward of the model.
        new_cache: Makes an empty cache of the model's own kind.
        device: The device of tokens.
    """
    if path.kind != "batched":
        return path
    try:
        trial = Trial.of(model, device, lambda ids: plain_logits(model, ids))
    except Exception as error:
        # Without logits to compare with, each row runs by itself on the model's own cache, as in `generate`.
        logger.debug("The trial run of %s failed", type(model).__name__, exc_info=error)
        return DecodingPath("separate", f"in a trial run {_told(error)}", expected=False)
    failure = ""
    for way in _ways(path):
        if not (failure := fault_of(functools.partial(batch_fits, trial, way, run, new_cache))):
            return way
    # Decoders of transformers that take no positions count them from the cache's length: right for single rows only.
    known = type(model).__module__.startswith("transformers.") and "position_ids" not in forward_parameters(model)
    return DecodingPath("separate", f"in a batch {failure}", expected=known)


def plain_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The logits after each token of a text, without a cache, `[tokens, vocabulary]` in float32."""
    known = forward_parameters(model)
    loose = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    settings: dict[str, Any] = {name: value for name, value in _PLAIN.items() if loose or name in known}
    if "position_ids" in known:
        # As `generate` passes them. Some models count from another number if they get none.
        settings["position_ids"] = torch.arange(ids.shape[1], device=ids.device)[None]
    return model(input_ids=ids, **settings).logits[0].float()  # type: ignore[no-any-return]


_PLAIN = {"use_cache": False, "return_dict": True}


def fault_of(trial: Callable[[], bool]) -> str:
    """The failure of a trial, as the end of a sentence; empty if it succeeded."""
    try:
        return "" if trial() else "its logits differ from those of the whole text"
    except Exception as error:
        logger.debug("A trial run failed", exc_info=error)
        return _told(error)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"its forward fails with {type(error).__name__}: {text:.200}".rstrip(": .")


def _ways(path: DecodingPath) -> Sequence[DecodingPath]:
    """The ways to decode rows as a batch, the fastest first."""
    if not path.stateful:
        return [path]
    return [replace(path, pieces=pieces, reads=reads) for reads in (True, False) for pieces in (True, False)]


def batch_fits(
    trial: Trial, path: DecodingPath, run: Run, new_cache: Callable[[], Any], *, share: bool = False
) -> bool:
    """Whether rows of unequal length have the model's logits in a batch.

    Args:
        trial: The text and the model's logits.
        path: The way to decode the rows.
        run: A forward.
        new_cache: Makes an empty cache of the model's own kind.
        share: Whether rows attend to a common beginning in place.
    """
    if not path.stateful:
        return trial.batch_fits(run, share=share)
    return _states_fit(trial.ids, trial.own, run, path, new_cache=new_cache, slack=trial.slack)


def _states_fit(
    ids: torch.Tensor,
    own: torch.Tensor,
    run: Run,
    path: DecodingPath,
    *,
    new_cache: Callable[[], Any],
    slack: float,
) -> bool:
    """One row in two pieces, the second one on a copy of the first, then both rows of these lengths in one step."""
    device, caches = ids.device, path.caches()

    def last_of(cache: Any, start: int, stop: int) -> torch.Tensor:
        logits = run(ids[:, start:stop], cache, torch.arange(start, stop, device=device)[None])
        if isinstance(cache, RowsCache):
            cache.advance(stop - start)
        return logits[0, -1].float()

    short, long = caches.rows(1, 3), caches.rows(1, 7)
    for cache, start, stop in ((short, 0, 3), (long, 3 if path.pieces else 0, 7)):
        if start:
            long.preload([short.own(0, 0, start)])
            long.restore(short.states_of(0))
        if not logit_distance(own[stop - 1], last_of(cache, start, stop)) <= slack:
            return False
    wanted = {at: own[at] for at in (7, 3)}
    if path.reads:
        steps = caches.rows(1, 8)
        if not all(logit_distance(own[at], last_of(steps, at, at + 1)) <= slack for at in range(8)):
            return False
    else:
        for at in wanted:
            cache = new_cache()
            last_of(cache, 0, at)
            wanted[at] = last_of(cache, at, at + 1)
    rows = caches.batch()
    # The shorter row is the beginning of the longer one, so one run of the whole text has the right logits of both.
    # Most hidden slots hold the other row's tokens: an ignored mask makes a far larger difference than rounding.
    rows.join([[long.own(0, 0, 7)], [short.own(0, 0, 3)]], [long.states_of(0), short.states_of(0)])
    rows.reserve(1)
    got = run(ids[0, [7, 3]][:, None], rows, torch.tensor([[7], [3]], device=device))
    return all(logit_distance(wanted[at], got[row, -1].float()) <= slack for row, at in enumerate(wanted))
