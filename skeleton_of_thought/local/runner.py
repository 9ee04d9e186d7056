"""The forwards of a model, and the facts about it in its configuration."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import psutil
import torch
from transformers import DynamicCache

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.attention import CurrentCache
from skeleton_of_thought.local.decoding_path import (
    CacheKind,
    Run,
    cache_argument,
    check_path,
    forward_parameters,
    infer_path,
    logit_distance,
    logit_tolerance,
    plain_logits,
    probe_tokens,
)
from skeleton_of_thought.local.kv import BatchCache, RowsCache, Segment
from skeleton_of_thought.local.lean import LeanModel, first_layers
from skeleton_of_thought.local.packed import fingerprint, packing_fits_memory
from skeleton_of_thought.local.twin import Twin

__all__ = ["MAX_FORWARD_TOKENS", "CacheKind", "ModelRunner", "Optimization", "Optimize"]

logger = logging.getLogger(__name__)

Optimization = Literal["lean", "packed", "none", "unbatched", "uncached"]
Optimize = Literal["auto", "lean", "packed", "none"]

MAX_FORWARD_TOKENS = 2048
"""The most prompt tokens in one forward; it bounds the memory for attention masks and scores."""

_HALF_TOLERANCE = {torch.bfloat16: 0.2, torch.float16: 0.02}
"""The allowed difference of logits, relative to the largest, between a model of known layout that rounds all its values
to a type and one that rounds few of them. The demo model's own error in bfloat16 is up to 0.09."""

_GROWING_ROPE = ("dynamic", "longrope")


class ModelRunner:
    """Runs forwards of a causal language model, on its own device and with its own types.

    Args:
        model: A Hugging Face causal language model.
        optimize: `"auto"` picks the forward that was measured to be fastest on the device: on CPUs `"lean"` if the
            model's layout allows it, otherwise `"packed"`; on other devices `"none"`, the unchanged model.
        share: Whether rows may attend to a common beginning without copies, if the model allows it.

    Attributes:
        path: The decoding path of its rows.
        context_window: The longest text in tokens; None when the configuration names no limit.
        forwards: The number of forwards so far.
        seconds: Their duration.

    Raises:
        InvalidInput: The model is no causal language model.
    """

    def __init__(self, model: Any, optimize: Optimize = "auto", *, share: bool = True) -> None:
        config = getattr(model, "config", None)
        if config is None or not callable(getattr(model, "forward", None)):
            raise InvalidInput(f"{type(model).__name__} is no Hugging Face model: it lacks config or forward.")
        if getattr(config, "is_encoder_decoder", False):
            raise InvalidInput(
                f"{type(model).__name__} is an encoder-decoder model; the local engine runs decoder-only "
                "(causal) language models."
            )
        self.model = model
        self.forwards = 0
        self.seconds = 0.0
        self.config = config.get_text_config(decoder=True)
        self.context_window = _context_window(self.config)
        rope = _growing_rope(self.config)
        self._rope_limit = None if rope is None else _original_window(self.config, rope)
        self._accepts = forward_parameters(model).keys()
        self._cache_argument = cache_argument(model)
        self._optimize = optimize
        self._share = share
        self._fast: LeanModel | Twin | None = None
        # Not inference mode: tensors that a model caches in its first forward would be unusable for training it later.
        with torch.no_grad(), _evaluating(model):
            self.path = check_path(model, infer_path(model, self.config), self._run, self.new_cache, self.device)
        if warning := self.path.warning(type(model).__name__):
            logger.warning(warning)
        self._known = self._now()
        self._fast = self._faster()
        logger.info("%s runs with optimization %r", type(model).__name__, self.optimization)

    @property
    def cache_kind(self) -> CacheKind:
        """The kind of its decoding path, see `DecodingPath`."""
        return self.path.kind

    @property
    def optimization(self) -> Optimization:
        """The forward in use; for models that cannot be batched, `"unbatched"` or `"uncached"`."""
        if self.cache_kind != "batched":
            return "unbatched" if self.cache_kind == "separate" else "uncached"
        if isinstance(self._fast, LeanModel):
            return "lean"
        return "packed" if self._fast is not None and self._fast.packed else "none"

    def refresh(self) -> bool:
        """Detect changes of the model since the last call and follow them. Returns whether there were any."""
        now = self._now()
        changed = now != self._known
        if changed:
            self._known, self._fast = now, None
            self._fast = self._faster()
        return changed

    def _now(self) -> tuple[bool, list[int], list[tuple[object, ...]]]:
        """A value that changes with the model's modules and weights."""
        return (
            Twin.supports(self.model),
            [id(module) for module in self.model.modules()],
            fingerprint(self.model.parameters()),
        )

    @property
    def shares(self) -> bool:
        """Whether rows can attend to a common beginning without copies of it."""
        return self._share and (isinstance(self._fast, LeanModel) or (self._fast is not None and self._fast.shares))

    def _faster(self) -> LeanModel | Twin | None:
        """The fastest forward that gives the model's own logits; None for the unchanged model."""
        if not Twin.supports(self.model) or self.cache_kind != "batched":
            return None
        packing = self._optimize != "none" and packing_fits_memory(self.model)
        if packing and self._optimize in ("auto", "lean") and LeanModel.supports(self.model):
            if lean := self._lean():
                return lean
            logger.warning("%s has an unexpected layout: it runs by its own modules", type(self.model).__name__)
        twin = Twin(self.model, pack=packing)
        if self._share and _full_attention(self.config) and twin.share():
            self._fast = twin
            if not self._equal(self._run):
                twin.unshare()
        return twin if twin.packed or twin.shares else None

    def _lean(self) -> LeanModel | None:
        """A lean forward if it gives the model's own logits."""
        tolerance = _HALF_TOLERANCE.get(self.model.dtype)
        if tolerance is not None:
            # The model's own rounding would hide an error in the layout.
            small = first_layers(self.model)
            if not self._equal(LeanModel(small), small):
                return None
        lean = LeanModel(self.model, two_kinds=packing_fits_memory(self.model, copies=2))
        return lean if self._equal(lean, tolerance=tolerance) else None

    def _equal(self, run: Run, model: Any = None, tolerance: float | None = None) -> bool:
        """Whether a forward gives a model's own logits for a few tokens: in four pieces, the first one shared; in one.

        Args:
            run: The forward.
            model: By default the runner's model.
            tolerance: The allowed difference, by default that of the model's type.
        """
        model, device = self.model if model is None else model, self.device
        tolerance = logit_tolerance(model) if tolerance is None else tolerance
        ids = probe_tokens(model, device)
        with torch.inference_mode(), _evaluating(model):
            try:
                own = plain_logits(model, ids)
            except Exception as error:
                logger.debug("%s cannot be compared with faster forwards", type(model).__name__, exc_info=error)
                return False
            cache = RowsCache(1, 3)
            for start, stop in ((0, 3), (3, 5), (5, 7), (7, 8), (0, 8)):
                if start == 3:
                    cache = RowsCache(1, 5, [Segment(cache.own(0, 0, 3))])
                elif stop - start == 8:
                    # Two rows: forwards of more tokens may have other products.
                    cache, ids = RowsCache(2, 8), ids.expand(2, -1)
                positions = torch.arange(start, stop, device=device).expand(len(ids), -1)
                try:
                    got = run(ids[:, start:stop], cache, positions)[0, -1].float()
                except Exception as error:
                    logger.debug("A faster forward of %s failed", type(model).__name__, exc_info=error)
                    return False
                cache.advance(stop - start)
                if not logit_distance(own[stop - 1], got) <= tolerance:
                    return False
        return True

    @property
    def device(self) -> torch.device:
        """The device of tokens."""
        embeddings = self.model.get_input_embeddings()
        # For weights that accelerate loads for each forward, only the hook names the device.
        hook = getattr(embeddings, "_hf_hook", None)
        return torch.device(getattr(hook, "execution_device", None) or embeddings.weight.device)

    def tokens_in(self, memory: int | float) -> int:
        """The number of tokens whose keys and values fit in this many bytes, or in this share of the free memory."""
        if isinstance(memory, float):
            if self.device.type == "cuda":
                memory = int(memory * torch.cuda.mem_get_info(self.device)[0])
            else:
                memory = int(memory * psutil.virtual_memory().available)
        return int(memory / max(1.0, self.token_bytes * self._layers))

    @property
    def _layers(self) -> int:
        return self._number("num_hidden_layers")

    @property
    def token_bytes(self) -> float:
        """The bytes of one token's keys and values in one layer, by the configuration."""
        heads = self._number("num_attention_heads")
        size = self._number("head_dim", self._number("hidden_size") // heads)
        # The lean forward keeps them in float32.
        each = 4 if isinstance(self._fast, LeanModel) else self.model.get_input_embeddings().weight.element_size()
        return 2.0 * self._number("num_key_value_heads", heads) * size * each

    def _number(self, name: str, otherwise: int = 1) -> int:
        return int(getattr(self.config, name, None) or otherwise)

    def kind_for(self, length: int) -> CacheKind:
        """The kind of decoding path for a row that may grow to this length."""
        # Some rotary embeddings change for all positions, past ones included, when a text outgrows the original
        # window. Then neither a cache nor a batch with other lengths is valid.
        if self._rope_limit is not None and length > self._rope_limit:
            return "none"
        return self.cache_kind

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """A context for inference without dropout; a model in training mode gets its mode back."""
        # The faster forwards are never in training mode.
        return contextlib.nullcontext() if self._fast is not None else _evaluating(self.model)

    def forward(self, ids: torch.Tensor, cache: Any, positions: torch.Tensor) -> torch.Tensor:
        """One forward.

        Args:
            ids: New tokens, `[rows, tokens]`.
            cache: The cache to extend; None for none.
            positions: The positions of the new tokens, `[rows, tokens]`.

        Returns:
            The logits of the last position in float32, `[rows, 1, vocabulary]`.
        """
        self.forwards += 1
        began = time.perf_counter()
        run = self._fast if isinstance(self._fast, LeanModel) else self._run
        logits = run(ids, cache, positions).to(torch.float32)
        self.seconds += time.perf_counter() - began
        return logits

    def _run(self, ids: torch.Tensor, cache: Any, positions: torch.Tensor) -> torch.Tensor:
        """One forward of transformers' own modules."""
        kwargs: dict[str, Any] = {"use_cache": cache is not None, "return_dict": True}
        if cache is not None:
            assert self._cache_argument is not None
            kwargs[self._cache_argument] = cache
        if isinstance(cache, BatchCache) and (mask := cache.mask(ids.shape[1], ids.device)) is not None:
            kwargs["attention_mask"] = mask
        if "position_ids" in self._accepts:
            kwargs["position_ids"] = positions
        if "logits_to_keep" in self._accepts:
            kwargs["logits_to_keep"] = 1
        model = self._fast.model if isinstance(self._fast, Twin) else self.model
        with CurrentCache(cache):
            logits: torch.Tensor = model(input_ids=ids, **kwargs).logits
        return logits[:, -1:]

    def prefill(self, ids: Sequence[int], cache: Any, start: int = 0) -> torch.Tensor:
        """Run the tokens of one row through a cache that already holds `start` of them.

        Returns:
            The logits after the last token, `[1, vocabulary]`.
        """
        device = self.device
        # Models with recurrent states run a prompt in one piece, then token by token: not all accept several pieces.
        step = MAX_FORWARD_TOKENS if self.cache_kind == "batched" and cache is not None else len(ids)
        for at in range(start, len(ids), step):
            part = torch.tensor([ids[at : at + step]], device=device)
            positions = torch.arange(at, at + part.shape[1], device=device)[None]
            logits = self.forward(part, cache, positions)
        return logits[:, -1]

    def new_cache(self) -> Any:
        """An empty cache of the model's own kind, for one row."""
        return DynamicCache(config=self.config)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = [module for module in model.modules() if module.training] if model.training else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _full_attention(config: Any) -> bool:
    """Whether all layers attend to all tokens, by the configuration."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types:
        return set(layer_types) == {"full_attention"}
    return not getattr(config, "sliding_window", None)


def _growing_rope(config: Any) -> dict[str, Any] | None:
    """The parameters of rotary embeddings that change when a text outgrows the original window."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # One set of parameters, or one per type of layer.
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if part.get("rope_type", part.get("type")) in _GROWING_ROPE:
            return dict(part)
    return None


def _original_window(config: Any, rope: dict[str, Any]) -> int | None:
    return (
        _positive(rope.get("original_max_position_embeddings"))
        or _positive(getattr(config, "original_max_position_embeddings", None))
        or _positive(getattr(config, "max_position_embeddings", None))
    )


def _context_window(config: Any) -> int | None:
    window = _positive(getattr(config, "max_position_embeddings", None))
    rope = _growing_rope(config)
    if window and rope and rope.get("rope_type", rope.get("type")) == "dynamic":
        # For this type the configuration names the window before it is stretched.
        return int(window * max(1.0, float(rope.get("factor") or 1.0)))
    return window


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
