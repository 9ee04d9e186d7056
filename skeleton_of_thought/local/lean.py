"""The forward of Llama and its close relatives, in as few operations as it can be done.

Small models on few rows spend more time between the operations of a step than in some of them. Here a layer is
ten: what is done to the same input is one product (query, key and value), what follows a product goes along with
it (activation, gate, residual), and the rotation of queries and keys is one complex product. It is used only where
the model's layout is one of those below and its logits were found equal to the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from skeleton_of_thought.local.attention import attend
from skeleton_of_thought.local.kv import BatchCache, RowsCache
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

    before_attention: torch.Tensor
    query_key_value: PackedWeight
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    output: PackedWeight
    before_mlp: torch.Tensor
    gate: PackedWeight
    up: PackedWeight
    down: PackedWeight


class LeanModel:
    """Runs a model's weights without its modules.

    Args:
        model: A model for which `fits` holds.

    Attributes:
        dtype: The type it computes in.
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
        self._embedding = model.model.embed_tokens.weight.detach()
        self._norm = model.model.norm.weight.detach()
        self._head = PackedWeight(model.lm_head.weight, model.lm_head.bias)
        self._layers = [self._pack(layer) for layer in model.model.layers]
        self._rotations = torch.empty(0)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model is laid out as this module expects it."""
        if type(model).__name__ not in _FAMILY or not hasattr(model, "lm_head"):
            return False
        config, inner = model.config, model.model
        weight = inner.embed_tokens.weight
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = set(getattr(config, "layer_types", None) or ())
        return (
            weight.device.type == "cpu"
            and weight.dtype in (torch.float32, torch.bfloat16)
            and packing_works(weight.dtype)
            and len({(p.dtype, p.device) for p in model.parameters()}) == 1
            and rope.get("rope_type") in _STATIC_ROPE
            and rope.get("partial_rotary_factor", 1.0) == 1.0
            and kinds <= {"full_attention"}
            and (type(model).__name__ != "MistralForCausalLM" or not config.sliding_window)
            and config.hidden_act == "silu"
            and inner.layers[0].self_attn.head_dim % 2 == 0
            and all(set(dict(layer.named_children())) == _PARTS for layer in inner.layers)
            and all(type(m) is nn.Linear for name, m in model.named_modules() if name.endswith(("_proj", "lm_head")))
        )

    def __call__(self, ids: torch.Tensor, cache: Any, positions: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """One forward.

        Args:
            ids: New tokens, `[rows, tokens]`.
            cache: A `RowsCache` to extend, or a cache of transformers; None for none.
            positions: Of the new tokens, `[rows, tokens]`.
            keep: How many of the last positions need logits.

        Returns:
            `[rows, keep, vocabulary]`.
        """
        rows, tokens = ids.shape
        segments = cache.segments if isinstance(cache, RowsCache) else ()
        bias = self._bias(cache, tokens)
        rotations = self._table(int(positions.max()) + 1)[positions.reshape(-1)]
        hidden = self._embedding[ids.reshape(-1)]
        for number, layer in enumerate(self._layers):
            normed = functional.rms_norm(hidden, (hidden.shape[1],), layer.before_attention, self._eps)
            heads = self._rotated(layer, layer.query_key_value(normed), rotations)
            heads = heads.view(rows, tokens, -1, self._size).transpose(1, 2)
            query, key, value = torch.split(heads, [self._heads, self._kv_heads, self._kv_heads], 1)
            if cache is not None:
                key, value = cache.update(key, value, number)
            attended = attend(query, key, value, segments, number, bias=bias, scale=self._scale)
            hidden = layer.output.add(attended.reshape(rows * tokens, -1), hidden)
            normed = functional.rms_norm(hidden, (hidden.shape[1],), layer.before_mlp, self._eps)
            hidden = layer.down.add(layer.up.mul(normed, layer.gate.silu(normed)), hidden)
        last = hidden.view(rows, tokens, -1)[:, -keep:]
        return self._head(functional.rms_norm(last, (last.shape[-1],), self._norm, self._eps))

    def _bias(self, cache: Any, tokens: int) -> torch.Tensor | None:
        """What is added to the scores of own tokens, see `attend`."""
        if isinstance(cache, BatchCache):
            return cache.bias(tokens, self._embedding)
        past = 0 if cache is None else cache.get_seq_length()
        if tokens == 1 or not past:
            return None
        hidden = torch.ones(tokens, past + tokens, dtype=torch.bool).triu(past + 1)
        return torch.zeros(hidden.shape, dtype=self.dtype).masked_fill_(hidden, float("-inf"))[None, None]

    def _rotated(self, layer: _Layer, heads: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """Queries and keys turned by their positions, values as they are, `[tokens, heads, size]`."""
        heads = heads.view(len(heads), -1, self._size)
        if layer.query_norm is not None:
            query, key, value = torch.split(heads, [self._heads, self._kv_heads, self._kv_heads], 1)
            query = functional.rms_norm(query, (self._size,), layer.query_norm, self._eps)
            key = functional.rms_norm(key, (self._size,), layer.key_norm, self._eps)
            heads = torch.cat((query, key, value), 1)
        pairs = torch.view_as_complex(heads.float().view(*heads.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * rotations).flatten(-2).to(heads.dtype)

    def _table(self, length: int) -> torch.Tensor:
        """Rotations by position, head and pair; those of values are 1."""
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
        return _Layer(
            before_attention=layer.input_layernorm.weight.detach(),
            query_key_value=PackedWeight(weight, bias),
            query_norm=None if norms[0] is None else self._interleaved(norms[0]),
            key_norm=None if norms[1] is None else self._interleaved(norms[1]),
            output=PackedWeight(attention.o_proj.weight, attention.o_proj.bias),
            before_mlp=layer.post_attention_layernorm.weight.detach(),
            gate=PackedWeight(mlp.gate_proj.weight, mlp.gate_proj.bias),
            up=PackedWeight(mlp.up_proj.weight, mlp.up_proj.bias),
            down=PackedWeight(mlp.down_proj.weight, mlp.down_proj.bias),
        )

    def _interleaved(self, part: torch.Tensor) -> torch.Tensor:
        """The rows of each head in the order 0, half, 1, half + 1, ..."""
        heads = part.detach().view(-1, 2, self._size // 2, *part.shape[1:])
        return heads.transpose(1, 2).reshape(part.shape)
