"""The forwards of a model, and the facts about it in its configuration."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, Literal

import psutil
import torch
from transformers import DynamicCache

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.attention import CurrentCache
from skeleton_of_thought.local.configuration import attends_to_all, context_window, growing_rope, original_window, read
from skeleton_of_thought.local.decoding_path import (
    CacheKind,
    batch_fits,
    cache_argument,
    check_path,
    forward_parameters,
    infer_path,
    plain_logits,
)
from skeleton_of_thought.local.fingerprint import ModelState
from skeleton_of_thought.local.kv import BatchCache
from skeleton_of_thought.local.lean import LeanModel, first_layers
from skeleton_of_thought.local.own_cache import OwnCache, RowState
from skeleton_of_thought.local.own_trial import Reference, continues, try_outgrowing, try_own_cache
from skeleton_of_thought.local.packed import packing_fits_memory
from skeleton_of_thought.local.trial import Run, Trial, probe_tokens
from skeleton_of_thought.local.twin import Twin

__all__ = ["MAX_FORWARD_TOKENS", "CacheKind", "ModelRunner", "Optimization", "Optimize"]

logger = logging.getLogger(__name__)

Optimization = Literal["lean", "packed", "none", "unbatched", "uncached"]
Optimize = Literal["auto", "lean", "packed", "none"]

MAX_FORWARD_TOKENS = 2048
"""The most prompt tokens in one forward; it bounds the memory for attention masks and scores."""

_LEAST_PACKED = 1 << 19
"""The weights of a layer from which packing does not slow down a single row."""

_LEAST_BATCHED = 1 << 16
"""The same where rows are decoded as a batch, which gains more. Tiny layers take longer packed."""

_HALF_TOLERANCE = {torch.bfloat16: 0.2, torch.float16: 0.02}
"""The allowed difference of logits, relative to the largest, between a model of known layout that rounds all its values
to a type and one that rounds few of them. The demo model's own error in bfloat16 is up to 0.09."""


class ModelRunner:
    """Runs forwards of a causal language model, on its own device and with its own types.

    Args:
        model: A Hugging Face causal language model.
        optimize: `"auto"` picks the forward that was measured to be fastest on the device: on CPUs `"lean"` if the
            model's layout allows it, otherwise `"packed"`; on other devices `"none"`, the unchanged model.
        share: Whether rows may attend to a common beginning without copies, if the model allows it.

    Attributes:
        path: The decoding path of its rows.
        caches: Makes the caches of rows that are decoded as a batch.
        state_tokens: The number of tokens that take as much memory as what a row keeps whatever its length.
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
        if read(config, "is_encoder_decoder", False):
            raise InvalidInput(
                f"{type(model).__name__} is an encoder-decoder model; the local engine runs decoder-only "
                "(causal) language models."
            )
        self.model = model
        self.forwards = 0
        self.seconds = 0.0
        self.config = config.get_text_config(decoder=True)
        self.context_window = context_window(self.config)
        rope = growing_rope(self.config)
        self._rope_limit = None if rope is None else original_window(self.config, rope)
        self._accepts = forward_parameters(model).keys()
        self._cache_argument = cache_argument(model)
        self._optimize = optimize
        self._share = share
        self._fast: LeanModel | Twin | None = None
        self._state = ModelState(model)
        # Not inference mode: tensors that a model caches in its first forward would be unusable for training it later.
        with torch.no_grad(), _trying(model, self.device):
            path = infer_path(model, self.config)
            self.path = check_path(model, path, self._run, self._new_cache, self.device)
            self.caches = self.path.caches()
            self._token_layers, states = self._measure() if self.path.kind == "batched" else ([], 0)
            self._own = self._outgrowing = OwnCache(model, self.config, "whole")
            if self.path.kind != "batched":
                self.path, self._own = try_own_cache(model, self.config, self.path, self.device)
            if self._rope_limit is not None:
                self._outgrowing = try_outgrowing(model, self.config, self.device)
        self.state_tokens = -int(-(states + self._own.fixed_bytes) // self.text_bytes)
        if (warning := self.path.warning(type(model).__name__)) and not self.batches:
            logger.warning(warning)
        self._state.settle()
        self._fast = self._faster()
        logger.info("%s runs with optimization %r", type(model).__name__, self.optimization)

    def _new_cache(self) -> Any:
        return DynamicCache(config=self.config)

    @property
    def cache_kind(self) -> CacheKind:
        """The kind of its decoding path, see `DecodingPath`."""
        return self.path.kind

    @property
    def batches(self) -> bool:
        """Whether rows of any lengths run together."""
        return self.cache_kind == "batched" or self._own.stacks_all

    @property
    def optimization(self) -> Optimization:
        """The forward in use; for models that cannot be batched, `"unbatched"` or `"uncached"`."""
        if not self.batches:
            return "unbatched" if self.cache_kind == "separate" else "uncached"
        if isinstance(self._fast, LeanModel):
            return "lean"
        return "packed" if self._fast is not None and self._fast.packed else "none"

    def refresh(self) -> bool:
        """Detect changes of the model since the last call and follow them. Returns whether there were any."""
        changed = self._state.changed()
        if changed:
            self._fast = None
            self._bind(self.model)
            self._fast = self._faster()
        return changed

    @property
    def shares(self) -> bool:
        """Whether rows can attend to a common beginning without copies of it."""
        return self._share and (isinstance(self._fast, LeanModel) or (self._fast is not None and self._fast.shares))

    def _faster(self) -> LeanModel | Twin | None:
        """The fastest forward that gives the model's own logits; None for the unchanged model."""
        if not Twin.supports(self.model):
            return None
        packing = self._optimize != "none" and packing_fits_memory(self.model)
        if packing and self._optimize in ("auto", "lean") and LeanModel.supports(self.model):
            if lean := self._lean():
                return lean
            logger.warning("%s has an unexpected layout: it runs by its own modules", type(self.model).__name__)
        if self.cache_kind != "batched":
            twin = Twin(self.model, pack=packing and self._own.stacks, least=_LEAST_PACKED)
            return twin if self._continues(twin) else None
        least = 0 if self._optimize == "packed" else _LEAST_BATCHED
        self._fast = twin = Twin(self.model, pack=packing, least=least)
        shares = self._share and not self.path.stateful and attends_to_all(self.config) and twin.share()
        if shares and not self._equal(self._run, share=True):
            twin.unshare()
        if twin.shares or (twin.packed and self._equal(self._run, share=False)):
            self._outgrowing = self._outgrowing.bound(twin.model)
            return twin
        return None

    def _lean(self) -> LeanModel | None:
        """A lean forward if it gives the model's own logits."""
        tolerance = _HALF_TOLERANCE.get(self.model.dtype)
        if tolerance is not None:
            # The model's own rounding would hide an error in the layout.
            small = first_layers(self.model)
            if not self._equal(LeanModel(small), share=True, model=small):
                return None
        lean = LeanModel(self.model, two_kinds=packing_fits_memory(self.model, copies=2))
        return lean if self._equal(lean, share=True, tolerance=tolerance) else None

    def _bind(self, model: Any) -> None:
        """Have rows with caches of the model's own kind, and those without a cache, run this model."""
        self._own, self._outgrowing = self._own.bound(model), self._outgrowing.bound(model)

    def _continues(self, twin: Twin) -> bool:
        """Whether rows with caches of the model's own kind can run this twin. If so, they do."""
        with torch.no_grad(), _trying(self.model, self.device):
            try:
                reference = Reference(self.model, self.device)
                equal = continues(self._own.bound(twin.model), reference, pieces=self._own.pieces)
            except Exception as error:
                logger.debug("A twin of %s failed", type(self.model).__name__, exc_info=error)
                equal = False
        if equal:
            self._bind(twin.model)
        return equal

    def _equal(self, run: Run, *, share: bool, model: Any = None, tolerance: float | None = None) -> bool:
        """Whether a forward gives a model's own logits for a few tokens, in a batch and at once.

        Args:
            run: The forward.
            share: Whether rows attend to a common beginning in place.
            model: By default the runner's model.
            tolerance: The allowed difference, by default that of the model's type.
        """
        model = self.model if model is None else model
        with torch.inference_mode(), _trying(model, self.device):
            try:
                trial = Trial.of(model, self.device, lambda ids: plain_logits(model, ids), tolerance)
                return trial.fits_at_once(run, self.caches) and batch_fits(
                    trial, self.path, run, self._new_cache, share=share
                )
            except Exception as error:
                logger.debug("A faster forward of %s failed", type(model).__name__, exc_info=error)
                return False

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
        return int(memory / self.text_bytes)

    @property
    def text_bytes(self) -> float:
        """The bytes that a row keeps for each of its tokens."""
        if self.cache_kind == "separate":
            return max(1.0, self._own.token_bytes)
        if self.cache_kind == "batched":
            return max(1.0, self._widening * sum(self._token_layers))
        return max(1.0, self.token_bytes * self._number("num_hidden_layers"))

    def memory_of(self, tokens: int, rows: int = 1) -> int:
        """The memory of rows with this many tokens in all, in tokens as `tokens_in` counts."""
        return tokens + rows * self.state_tokens

    def longest_in(self, budget: int) -> int:
        """The most tokens of one row in this much memory, in tokens as `tokens_in` counts."""
        return max(0, budget - self.state_tokens)

    @property
    def token_bytes(self) -> float:
        """The bytes of one token's keys and values in one layer, as a mean of all layers."""
        if self._token_layers:
            return self._widening * sum(self._token_layers) / len(self._token_layers)
        heads = self._number("num_attention_heads")
        size = self._number("head_dim", self._number("hidden_size") // heads)
        each = int(self.model.get_input_embeddings().weight.element_size())
        return self._widening * 2 * self._number("num_key_value_heads", heads) * size * each

    @property
    def _widening(self) -> float:
        """By how much the forward in use keeps larger keys and values than the model: the lean one has float32."""
        return 4 / self.model.dtype.itemsize if isinstance(self._fast, LeanModel) else 1.0

    def _measure(self) -> tuple[list[int], int]:
        """The bytes of one token's keys and values in each layer that keeps them, and those of a row's states."""
        cache, first = self.caches.rows(1, 1), probe_tokens(self.model, self.device)[:, :1]
        self._run(first, cache, torch.zeros_like(first))
        sizes = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.is_initialized]
        return [size for size in sizes if size], cache.nbytes - sum(sizes)

    def _number(self, name: str, otherwise: int = 1) -> int:
        return int(read(self.config, name) or otherwise)

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

    def own_cache(self, kind: CacheKind) -> OwnCache:
        """How rows of this kind run on caches of the model's own kind, or on none."""
        return self._own if kind == self.cache_kind else self._outgrowing

    def forward_own(self, own: OwnCache, ids: torch.Tensor, state: RowState) -> torch.Tensor:
        """One forward of the next tokens of rows, `[rows, tokens]`, on their state.

        Returns:
            The logits of the last position in float32, `[rows, vocabulary]`.
        """
        self.forwards += 1
        began = time.perf_counter()
        logits = own.run(ids, state).to(torch.float32)
        self.seconds += time.perf_counter() - began
        return logits


@contextlib.contextmanager
def _trying(model: Any, device: torch.device) -> Iterator[None]:
    """A context for trial runs: no dropout, and models that draw random numbers leave the user's as they are."""
    with _evaluating(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


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
