"""A forward of Llama and its close relatives with few operations.

Each product of a small batch reads megabytes of weights, which push all other data out of the processor's caches. The
small operations between products then wait for memory. This forward therefore has few operations: products of the same
input are one product (query, key and value; gate and up), a residual is added within its product, the weights of norms
are folded into the next product, one complex product rotates queries and keys, keys and values are written together,
and views for all layers are cut once per step. The engine uses this forward only for the layouts below, and only after
its logits were found equal to the model's own.

All operations are in float32. Only weights stay in half precision, so that a step reads fewer bytes. The products
depend on the type of the weights and on the number of tokens:

    float32     a single token: `SplitWeight`; more: `PackedWeight`
    float16     `HalfWeight`
    bfloat16    few tokens: `HalfWeight`; more: `RoundedWeight`, where processors have products in bfloat16
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from skeleton_of_thought.local.attention import attend
from skeleton_of_thought.local.kv import BatchCache, RowsCache, Segment, bias_of
from skeleton_of_thought.local.packed import (
    HalfWeight,
    PackedWeight,
    Product,
    RoundedWeight,
    SplitWeight,
    halves_work,
    multiplies_bfloat16,
    packing_works,
    splitting_works,
)
from skeleton_of_thought.local.twin import Twin

__all__ = ["LeanModel", "first_layers"]

_FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
_TABLE = 1024
"""Positions by which the table of rotations grows."""

_FEW = 8
"""The most tokens for which a bfloat16 weight is multiplied as `HalfWeight`. `benchmarks/options.py` measures both."""


@dataclass(frozen=True)
class _Layer:
    """A layer's weights. Query and key heads have their two halves interleaved, as complex numbers."""

    before_attention: torch.Tensor | None
    query_key_value: Product
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    output: Product
    before_mlp: torch.Tensor | None
    gate_up: Product
    down: Product


@dataclass(frozen=True)
class _Weights:
    """All weights but the embeddings, in the order of one kind of product."""

    layers: list[_Layer]
    norm: torch.Tensor | None
    head: Product


class LeanModel:
    """Runs a model's weights without its modules.

    Args:
        model: A model that `supports` accepts.
        two_kinds: Whether bfloat16 weights may be held twice, for few and for many tokens.
    """

    def __init__(self, model: Any, *, two_kinds: bool = True) -> None:
        config = model.config
        self._original = model
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        attention = model.model.layers[0].self_attn
        self._size: int = attention.head_dim
        self._scale: float = attention.scaling
        self._eps: float = model.model.norm.variance_epsilon
        width = model.config.hidden_size
        self._floor = torch.tensor((self._eps * width) ** 0.5)
        self._embedding = model.model.embed_tokens.weight.detach()
        many, few, self._few = _kinds(model.dtype, two_kinds)
        self._weights = self._packed(many)
        self._weights_for_few = self._weights if few is None else self._packed(few)
        self._rotations = torch.empty(0)

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether the model has a layout that this module knows."""
        if type(model).__name__ not in _FAMILY or not hasattr(model, "lm_head"):
            return False
        config, inner = model.config, model.model
        weight = inner.embed_tokens.weight
        rope = getattr(config, "rope_parameters", None) or {}
        layer_types = set(getattr(config, "layer_types", None) or ())
        return (
            weight.device.type == "cpu"
            and (
                (weight.dtype in (torch.float32, torch.bfloat16) and packing_works(weight.dtype))
                or (weight.dtype == torch.float16 and halves_work())
            )
            and len({(p.dtype, p.device) for p in model.parameters()}) == 1
            and rope.get("rope_type") in _STATIC_ROPE
            and rope.get("partial_rotary_factor", 1.0) == 1.0
            and layer_types <= {"full_attention"}
            and (type(model).__name__ != "MistralForCausalLM" or not config.sliding_window)
            and config.hidden_act == "silu"
            and inner.layers[0].self_attn.head_dim % 2 == 0
            and all(set(dict(layer.named_children())) == _PARTS for layer in inner.layers)
            and all(type(m) is nn.Linear for name, m in model.named_modules() if name.endswith(("_proj", "lm_head")))
        )

    def __call__(self, ids: torch.Tensor, cache: RowsCache, positions: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """One forward.

        Args:
            ids: New tokens, `[rows, tokens]`.
            cache: The cache to extend.
            positions: The positions of the new tokens, `[rows, tokens]`.
            keep: The number of last positions that need logits.

        Returns:
            `[rows, keep, vocabulary]`.
        """
        rows, tokens = ids.shape
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        new, keys, values = cache.open(tokens, len(self._weights.layers), kv_heads, size, self._floor)
        segments, past = cache.segments, cache.width
        if rows == 1 and tokens > 1 and past:
            # The row's earlier tokens become another segment, so that no hidden score is computed.
            before = [(key[:, :, :past], value[:, :, :past]) for key, value in zip(keys, values, strict=True)]
            segments = (*segments, Segment(before))
            keys, values = [key[:, :, past:] for key in keys], [value[:, :, past:] for value in values]
            past = 0
        bias = self._bias(cache, tokens, past)
        rotations = self._table(int(positions.max()) + 1).index_select(0, positions.reshape(-1))
        hidden = self._embedding.index_select(0, ids.reshape(-1)).float()
        weights = self._weights_for_few if rows * tokens <= self._few else self._weights
        for number, layer in enumerate(weights.layers):
            projected = layer.query_key_value(self._normed(hidden, layer.before_attention))
            turned = self._rotated(layer, projected, rotations)
            query, own = torch.split(turned.view(rows, tokens, -1, size), [heads, 2 * kv_heads], 2)
            new[number].copy_(own.view(rows, tokens, 2, kv_heads, size))
            attended = attend(
                query.transpose(1, 2),
                keys[number],
                values[number],
                segments,
                number,
                bias=bias,
                scale=self._scale,
            )
            hidden = layer.output.add(attended.reshape(rows * tokens, -1), hidden)
            gate, up = layer.gate_up(self._normed(hidden, layer.before_mlp)).chunk(2, 1)
            hidden = layer.down.add(functional.silu(gate, inplace=True) * up, hidden)
        last = hidden.view(rows, tokens, -1)[:, -keep:]
        return weights.head(self._normed(last.reshape(rows * keep, -1), weights.norm)).view(rows, keep, -1)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """`x` over its length, times the weight if there is one; both have the root of their size as another factor."""
        size: torch.Tensor = torch.linalg.vector_norm(x, 2, -1, True)
        normed = x / size.hypot_(self._floor)
        return normed if weight is None else normed.mul_(weight)

    def _bias(self, cache: RowsCache, tokens: int, past: int) -> torch.Tensor | None:
        """The `bias` of `attend`, for rows with `past` own tokens before the new ones."""
        if isinstance(cache, BatchCache):
            return cache.bias(tokens, self._floor)
        if tokens == 1 or not past:
            return None
        hidden = torch.ones(tokens, past + tokens, dtype=torch.bool).triu(past + 1)
        return bias_of(hidden, torch.float32)[None, None]

    def _rotated(self, layer: _Layer, heads: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """Queries and keys rotated by their positions, and values unchanged, `[tokens, heads, size]`."""
        if layer.query_norm is not None:
            heads = heads.view(len(heads), -1, self._size)
            query, key, value = torch.split(heads, [self._heads, self._kv_heads, self._kv_heads], 1)
            query = functional.rms_norm(query, (self._size,), layer.query_norm, self._eps)
            key = functional.rms_norm(key, (self._size,), layer.key_norm, self._eps)
            heads = torch.cat((query, key, value), 1)
        pairs = torch.view_as_complex(heads.view(len(heads), -1, self._size // 2, 2))
        return torch.view_as_real(pairs * rotations)

    def _table(self, length: int) -> torch.Tensor:
        """The rotations by position, head and pair; 1 for values."""
        if length > len(self._rotations):
            length = -(-length // _TABLE) * _TABLE
            rotary = self._original.model.rotary_emb
            cos, sin = rotary(torch.zeros(1, 1), position_ids=torch.arange(length)[None])
            half = self._size // 2
            turns = torch.complex(cos[0, :, :half], sin[0, :, :half])[:, None]
            table = torch.ones(length, self._heads + 2 * self._kv_heads, half, dtype=torch.complex64)
            table[:, : self._heads + self._kv_heads] = turns
            self._rotations = table
        return self._rotations

    def _packed(self, kind: Callable[..., Product]) -> _Weights:
        model = self._original
        final, head = model.model.norm.weight, model.lm_head
        # Norms fold into weights that are copied in float32. Weights of fewer digits would be rounded twice.
        folds, separate = kind is PackedWeight, _factors(final)
        weight = head.weight.detach() * separate if folds else head.weight
        return _Weights(
            layers=[self._layer(layer, kind) for layer in model.model.layers],
            norm=None if folds else separate,
            head=kind(weight, bias=head.bias),
        )

    def _layer(self, layer: Any, kind: Callable[..., Product]) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        weight = torch.cat([self._interleaved(query.weight), self._interleaved(key.weight), value.weight.detach()])
        bias = None
        if query.bias is not None:
            bias = torch.cat([self._interleaved(query.bias), self._interleaved(key.bias), value.bias.detach()])
        norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
        first, second = _factors(layer.input_layernorm.weight), _factors(layer.post_attention_layernorm.weight)
        gate_up = [mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()]
        gate_up_bias = None if mlp.gate_proj.bias is None else torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
        if kind is not SplitWeight:
            gate_up = [torch.cat(gate_up)]
        folds = kind is PackedWeight
        return _Layer(
            before_attention=None if folds else first,
            query_key_value=kind(weight * first if folds else weight, bias=bias),
            query_norm=None if norms[0] is None else self._interleaved(norms[0]).float(),
            key_norm=None if norms[1] is None else self._interleaved(norms[1]).float(),
            output=kind(attention.o_proj.weight, bias=attention.o_proj.bias),
            before_mlp=None if folds else second,
            gate_up=kind(*([part * second for part in gate_up] if folds else gate_up), bias=gate_up_bias),
            down=kind(mlp.down_proj.weight, bias=mlp.down_proj.bias),
        )

    def _interleaved(self, part: torch.Tensor) -> torch.Tensor:
        """The rows of each head in the order 0, half, 1, half + 1, ..."""
        heads = part.detach().view(-1, 2, self._size // 2, *part.shape[1:])
        return heads.transpose(1, 2).reshape(part.shape)


def _kinds(dtype: torch.dtype, two_kinds: bool) -> tuple[Callable[..., Product], Callable[..., Product] | None, int]:
    """The products of many tokens; those of few, if these are others; and the most tokens that are few."""
    if dtype == torch.float32:
        return PackedWeight, SplitWeight if splitting_works() else None, 1
    if dtype == torch.float16 or (halves_work() and not multiplies_bfloat16()):
        return HalfWeight, None, 0
    return RoundedWeight, HalfWeight if two_kinds and halves_work() else None, _FEW


def _factors(norm: torch.Tensor) -> torch.Tensor:
    """The weight of a norm, for `_normed`."""
    return norm.detach().float().mul(len(norm) ** 0.5)


def first_layers(model: Any, layers: int = 2, vocabulary: int = 64) -> Any:
    """A copy of a model's first layers and first tokens in float32, which shows its layout without rounding."""
    small: Any = Twin(model, pack=False).model
    config: Any = small.config
    config.num_hidden_layers = min(layers, config.num_hidden_layers)
    small.model.layers = nn.ModuleList(list(small.model.layers)[: config.num_hidden_layers])
    small.model.embed_tokens = _rows_of(nn.Embedding, small.model.embed_tokens, vocabulary)
    small.lm_head = _rows_of(nn.Linear, small.lm_head, vocabulary)
    return copy.deepcopy(small).float()


def _rows_of(kind: Any, module: Any, count: int) -> Any:
    """An embedding or a linear layer with the first rows of another one's weight."""
    rows = min(count, len(module.weight))
    new = kind(rows, module.weight.shape[1]) if kind is nn.Embedding else kind(module.weight.shape[1], rows, bias=False)
    new.weight = nn.Parameter(module.weight.detach()[:rows], requires_grad=False)
    if getattr(module, "bias", None) is not None:
        new.bias = nn.Parameter(module.bias.detach()[:rows], requires_grad=False)
    return new
