"""Attention over segments that rows share and over each row's own keys and values, merged exactly.

A softmax over two sets of keys is the mean of the softmaxes over each, weighted by the sums of their exponentials.
So one read of a shared beginning's keys serves all rows, and nothing is copied. (The idea comes from cascade inference
in FlashInfer and from Hydragen, arXiv 2402.05099.)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from skeleton_of_thought.local.kv import RowsCache, Segment, bias_of

__all__ = ["ATTENTION", "CurrentCache", "attend", "register_attention"]

ATTENTION = "skeleton_of_thought"
"""The name of `attend` in transformers' registry."""


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[Segment],
    layer: int,
    *,
    bias: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Attention of new tokens to segments, to their rows' own tokens, and causally to each other.

    Args:
        query: `[rows, heads, tokens, size]`.
        key: Keys of the rows' own tokens, the new ones included, `[rows, key heads, slots, size]`.
        value: Values of the same tokens.
        segments: The tokens before the rows' own.
        layer: The number of the layer.
        bias: Added to the scores of own tokens, `[rows or 1, 1, tokens or 1, slots]`. None for plain causal
            attention: then either each row has one new token, or its own tokens are all new.
        scale: The factor of the scores.

    Returns:
        `[rows, tokens, heads, size of values]`.
    """
    rows, heads, tokens, size = query.shape
    kv_heads = key.shape[1]
    if tokens == 1:
        # Queries that share a key head become queries of one head, so that no key is repeated.
        query = query.reshape(rows, kv_heads, -1, size)
    causal = tokens > 1 and bias is None
    if not segments:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=causal, scale=scale, enable_gqa=tokens > 1
        )
    else:
        out, weight = _part(query, key, value, bias=bias, causal=causal, scale=scale)
        grouped = query.reshape(rows, kv_heads, -1, size)
        out, weight = out.reshape(rows, kv_heads, -1, out.shape[-1]), weight.reshape(rows, kv_heads, -1)
        for i, segment in enumerate(segments):
            out = _merged(
                out, weight, grouped, segment.layers[layer], segment.rows, scale=scale, last=i == len(segments) - 1
            )
    if tokens == 1:
        return out.reshape(rows, 1, heads, -1)
    return out.reshape(rows, heads, tokens, -1).transpose(1, 2)


def _merged(
    out: torch.Tensor,
    weight: torch.Tensor,
    query: torch.Tensor,
    segment: tuple[torch.Tensor, torch.Tensor],
    rows: torch.Tensor | slice | None,
    *,
    scale: float,
    last: bool,
) -> torch.Tensor:
    """Attention so far, `out`, merged with a segment. Updates `weight`, the logarithms of its sums, in place."""
    some, kept, before = (query, out, weight) if rows is None else (query[rows], out[rows], weight[rows])
    count, kv_heads, queries, size = some.shape
    # All rows' queries to one key head become queries of one sequence.
    together = some.transpose(0, 1).reshape(1, kv_heads, count * queries, size)
    part, sums = _part(together, *segment, scale=scale)
    part = part.view(kv_heads, count, queries, -1).transpose(0, 1)
    sums = sums.view(kv_heads, count, queries).transpose(0, 1)
    share = torch.sub(sums, before).sigmoid_().unsqueeze(-1).to(out.dtype)
    if not last:
        weight[slice(None) if rows is None else rows] = torch.logaddexp(before, sums)
    if rows is None:
        # In the memory order of the next product.
        return torch.lerp(kept, part, share, out=out.new_empty(out.shape))
    out[rows] = torch.lerp(kept, part, share)
    return out


def _part(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float,
    bias: torch.Tensor | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the logarithms of the sums of exponentials, `[rows, heads, tokens]` in float32."""
    if query.device.type == "cpu" and key.shape[-1] == value.shape[-1]:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        return flash(query, key, value, 0.0, causal, attn_mask=bias, scale=scale)  # type: ignore[no-any-return]
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = torch.matmul(query, key.transpose(2, 3)).float() * scale
    if causal:
        tokens = query.shape[2]
        hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    elif bias is not None:
        scores = scores + bias
    return torch.matmul(scores.softmax(-1).to(value.dtype), value), scores.logsumexp(-1)


# --- attention of transformers' own modules ---------------------------------------------------------


class _Running(threading.local):
    """The cache of the forward that runs on this thread, since attention functions do not receive it."""

    cache: RowsCache | None = None


_running = _Running()


class CurrentCache:
    """A context in which attention functions find the cache of the running forward."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache if isinstance(cache, RowsCache) and cache.segments else None

    def __enter__(self) -> None:
        _running.cache = self._cache

    def __exit__(self, *error: object) -> None:
        _running.cache = None


def register_attention() -> None:
    """Register `attend` in transformers under the name `ATTENTION`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def forward(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        cache = _running.cache
        if cache is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        if kwargs.get("position_bias") is not None or kwargs.get("s_aux") is not None:
            raise NotImplementedError("attention with its own bias cannot be split into segments")
        bias = attention_mask
        if bias is not None and bias.dtype == torch.bool:
            bias = bias_of(~bias, query.dtype)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        layer: Any = module.layer_idx
        return attend(query, key, value, cache.segments, layer, bias=bias, scale=scale), None

    interface: Any = AttentionInterface
    if ATTENTION not in interface():
        AttentionInterface.register(ATTENTION, forward)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
