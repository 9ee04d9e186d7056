"""A forward of Llama and its close relatives with few operations.

Each product of a small batch reads megabytes of weights, which push all other data out of the processor's caches. The
small operations between products then wait for memory. This forward therefore has few operations: products of the same
input are one product (query, key and value; gate and up), a residual is added within its product, the weights of norms
are folded into the next product, one complex product rotates queries and keys, keys and values are written together,
and views for all layers are cut once per step. The engine uses this forward only for the layouts below, and only after
its logits were found equal to the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from skeleton_of_thought.local.attention import attend
from skeleton_of_thought.local.kv import BatchCache, RowsCache, Segment, bias_of
from skeleton_of_thought.local.packed import PackedWeight, packing_works

__all__ = ["LeanModel"]

_FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
_TABLE = 1024
"""Positions by which the table of rotations grows."""


@dataclass(frozen=True)
class _Layer:
    """A layer's weights. Query and key heads have their two halves interleaved, as complex numbers."""

    before_attention: torch.Tensor | None
    query_key_value: PackedWeight
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    output: PackedWeight
    before_mlp: torch.Tensor | None
    gate_up: PackedWeight
    down: PackedWeight


class LeanModel:
    """Runs a model's weights without its modules.

    Args:
        model: A model that `supports` accepts.

    Attributes:
        dtype: The type of its weights and results.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self._original = model
        self.dtype: torch.dtype = model.dtype
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        attention = model.model.layers[0].self_attn
        self._size: int = attention.head_dim
        self._scale: float = attention.scaling
        self._eps: float = model.model.norm.variance_epsilon
        # Types of few digits keep the weights of norms separate: folded in, they would be rounded twice.
        self._folds = self.dtype == torch.float32
        width = model.config.hidden_size
        self._floor = torch.tensor((self._eps * width) ** 0.5)
        self._embedding = model.model.embed_tokens.weight.detach()
        final = model.model.norm.weight
        self._norm = self._separate(final)
        self._head = PackedWeight(self._folded(model.lm_head.weight, final), model.lm_head.bias)
        self._layers = [self._pack(layer) for layer in model.model.layers]
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
            and weight.dtype in (torch.float32, torch.bfloat16)
            and packing_works(weight.dtype)
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
        new, keys, values = cache.open(tokens, len(self._layers), kv_heads, size, self._embedding)
        segments, past = cache.segments, cache.width
        if rows == 1 and tokens > 1 and past:
            # The row's earlier tokens become another segment, so that no hidden score is computed.
            before = [(key[:, :, :past], value[:, :, :past]) for key, value in zip(keys, values, strict=True)]
            segments = (*segments, Segment(before))
            keys, values = [key[:, :, past:] for key in keys], [value[:, :, past:] for value in values]
            past = 0
        bias = self._bias(cache, tokens, past)
        rotations = self._table(int(positions.max()) + 1).index_select(0, positions.reshape(-1))
        hidden = self._embedding.index_select(0, ids.reshape(-1))
        for number, layer in enumerate(self._layers):
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
        return self._head(self._normed(last.reshape(rows * keep, -1), self._norm)).view(rows, keep, -1)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """`x` over its root mean square, times the weight; without one, the input of products with folded weights."""
        if weight is not None:
            return functional.rms_norm(x, (x.shape[-1],), weight, self._eps)
        size: torch.Tensor = torch.linalg.vector_norm(x, 2, -1, True)
        return x / size.hypot_(self._floor)

    def _bias(self, cache: RowsCache, tokens: int, past: int) -> torch.Tensor | None:
        """The `bias` of `attend`, for rows with `past` own tokens before the new ones."""
        if isinstance(cache, BatchCache):
            return cache.bias(tokens, self._embedding)
        if tokens == 1 or not past:
            return None
        hidden = torch.ones(tokens, past + tokens, dtype=torch.bool).triu(past + 1)
        return bias_of(hidden, self.dtype)[None, None]

    def _rotated(self, layer: _Layer, heads: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """Queries and keys rotated by their positions, and values unchanged, `[tokens, heads, size]`."""
        if layer.query_norm is not None:
            heads = heads.view(len(heads), -1, self._size)
            query, key, value = torch.split(heads, [self._heads, self._kv_heads, self._kv_heads], 1)
            query = functional.rms_norm(query, (self._size,), layer.query_norm, self._eps)
            key = functional.rms_norm(key, (self._size,), layer.key_norm, self._eps)
            heads = torch.cat((query, key, value), 1)
        pairs = torch.view_as_complex(heads.float().view(len(heads), -1, self._size // 2, 2))
        return torch.view_as_real(pairs * rotations).to(heads.dtype)

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

    def _pack(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        weight = torch.cat([self._interleaved(query.weight), self._interleaved(key.weight), value.weight])
        bias = None
        if query.bias is not None:
            bias = torch.cat([self._interleaved(query.bias), self._interleaved(key.bias), value.bias])
        norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
        first, second = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        gate_up_bias = None if mlp.gate_proj.bias is None else torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
        return _Layer(
            before_attention=self._separate(first),
            query_key_value=PackedWeight(self._folded(weight, first), bias),
            query_norm=None if norms[0] is None else self._interleaved(norms[0]),
            key_norm=None if norms[1] is None else self._interleaved(norms[1]),
            output=PackedWeight(attention.o_proj.weight, attention.o_proj.bias),
            before_mlp=self._separate(second),
            gate_up=PackedWeight(
                self._folded(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]), second), gate_up_bias
            ),
            down=PackedWeight(mlp.down_proj.weight, mlp.down_proj.bias),
        )

    def _folded(self, weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """A product's weight with the weight of the norm before it folded in, for `_normed` without a weight."""
        weight = weight.detach()
        return weight * (norm.detach() * len(norm) ** 0.5) if self._folds else weight

    def _separate(self, norm: torch.Tensor) -> torch.Tensor | None:
        return None if self._folds else norm.detach()

    def _interleaved(self, part: torch.Tensor) -> torch.Tensor:
        """The rows of each head in the order 0, half, 1, half + 1, ..."""
        heads = part.detach().view(-1, 2, self._size // 2, *part.shape[1:])
        return heads.transpose(1, 2).reshape(part.shape)
