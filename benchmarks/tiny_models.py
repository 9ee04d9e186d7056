"""Tiny models with random weights of all causal types of the installed transformers, built from their configurations.

A rule shrinks the configuration of any type: known names of sizes get small values, and lists with an entry per layer
keep the first layer of each kind. A table has what the rule cannot know.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

__all__ = ["EOS", "PAD", "VOCABULARY", "Kind", "build", "kinds"]

VOCABULARY = 200
PAD, BOS, EOS = 0, 1, 2
WINDOW = 512

_SIZES: dict[str, Any] = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "embedding_size": 32, "emb_dim": 32, "word_embed_proj_dim": 32,
    "embedding_dim": 32, "input_embedding_size": 16, "output_embedding_size": 32, "lru_width": 32, "dim_head": 8,
    "intermediate_size": 64, "ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64, "ffn_hidden_size": 64,
    "n_inner": 64, "dim_ff": 64, "dff": 64, "d_inner": 64, "feed_forward_size": 64, "intermediate_size_mlp": 64,
    "dense_intermediate_size": 64, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "shared_experts_intermediate_size": 16, "shared_intermediate_size": 16, "expert_ffn_hidden_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4, "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4, "head_dim": 8, "v_head_dim": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "d_head": 8, "attention_head_dim": 8, "attention_head_size": 8, "kv_channels": 8, "global_head_dim": 16,
    "kv_lora_rank": 8, "q_lora_rank": 8, "o_lora_rank": 8, "o_groups": 2,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "num_experts_per_token": 2, "moe_topk": 2, "moe_k": 2, "top_k_experts": 2, "n_group": 1, "topk_group": 1,
    "num_expert_group": 1, "zero_expert_num": 2,
    "index_head_dim": 8, "index_n_heads": 2, "index_topk": 16,
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY, "decoder_vocab_size": VOCABULARY,
    "hidden_size_per_layer_input": 8, "laurel_rank": 4, "rotary_dim": 4,
    "max_position_embeddings": WINDOW, "n_positions": WINDOW, "n_ctx": WINDOW, "max_seq_len": WINDOW,
    "max_target_positions": WINDOW, "max_source_positions": 32, "context_length": WINDOW, "model_max_length": WINDOW,
    "sliding_window": 12, "sliding_window_size": 12, "window_size": 12, "local_attention": 12,
    "attention_window_size": 12, "attention_chunk_size": 12, "keep_window_size": 64,
    "mamba_d_state": 8, "state_size": 8, "ssm_state_size": 8, "mamba_d_head": 8, "mamba_head_dim": 8,
    "mamba_headdim": 8, "mamba_n_heads": 8, "mamba_num_heads": 8, "mamba_dt_rank": 4, "time_step_rank": 4,
    "mamba_d_ssm": 64, "n_groups": 2, "mamba_n_groups": 1, "chunk_size": 8, "mamba_chunk_size": 8,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_head_dim": 8, "linear_num_heads": 4,
    "initializer_range": 0.4, "init_std": 0.4, "decoder_start_token_id": BOS,
    "num_mel_bins": 8, "num_channels": 3, "image_size": 16, "patch_size": 8, "depth": 2, "image_seq_length": 4,
}  # fmt: skip
"""Values by the names of fields; a field gets its value only where the default is a number."""

_LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_decoder_layers",
    "num_encoder_layers", "num_blocks",
)  # fmt: skip
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads")
_MOST_LAYERS = 6

_PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_ROPES = {"sliding_attention": _PLAIN_ROPE, "full_attention": _PLAIN_ROPE}
_SLIDES = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
_INDEXED = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 16,
    "indexer_compress_ratio": 4, "hc_lowrank": 8,
}  # fmt: skip
_SHARED = {
    "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2
}  # fmt: skip
_SLIDING_HEADS = {
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 8, "swa_kv_lora_rank": 8,
    "swa_head_dim": 12, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
}  # fmt: skip
_SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "cohere_compass_text": {**_SLIDES, "rope_parameters": _ROPES},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": _SLIDING_HEADS,
    "dots3_note_text": _SLIDING_HEADS,
    "gemma3n_text": {**_SHARED, "intermediate_size": 64, "activation_sparsity_pattern": [0.0] * 4},
    "granitemoehybrid": {
        "num_hidden_layers": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"]
    },
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling2_text": {"unpadded_vocab_size": VOCABULARY},
    "jamba": {"num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8, **_SLIDES},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": _INDEXED,
    "qwen4_exp_text": _INDEXED,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_shape": [16, 32], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"]},
    "roc_bert": {
        "pronunciation_vocab_size": 50, "shape_vocab_size": 50, "pronunciation_embed_dim": 16, "shape_embed_dim": 16
    },
    "xlstm": {
        "hidden_size": 128, "embedding_dim": 128, "autocast_kernel_dtype": "float32", "num_blocks": 2
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""Changes beyond the rule, by type."""

_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4_text, shared layers": ("gemma4_text", _SHARED),
    "gemma4_text, wide layers": ("gemma4_text", {"attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    "gemma4_text, experts": (
        "gemma4_text",
        {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    ),
    "gemma4_unified_text, shared layers": ("gemma4_unified_text", _SHARED),
    "roformer, small weights": ("roformer", {"initializer_range": 0.02}),
    "bart, small weights": ("bart", {"init_std": 0.02}),
}
"""More configurations of a type."""

_UNMAPPED = ("ForCausalLM", "LMHeadModel", "WithLMHead")
"""Endings of the classes that belong to the sweep although the auto class does not name them."""


@dataclass(frozen=True)
class Kind:
    """A causal type.

    Attributes:
        name: The type as transformers' auto classes call it, or for others the name of the class.
        model: The name of its class.
    """

    name: str
    model: str


def kinds() -> Iterator[Kind]:
    """All causal types of the installed transformers."""
    known = set()
    for name, model in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        for one in (model,) if isinstance(model, str) else model:
            known.add(one)
            yield Kind(name, one)
            yield from (Kind(variant, one) for variant, (of, _) in _VARIANTS.items() if of == name)
    for model in dir(hf):
        if model.endswith(_UNMAPPED) and model not in known and not model.startswith("Auto"):
            yield Kind(model, model)


def build(kind: Kind, seed: int) -> Any:
    """A tiny model with random weights in evaluation mode.

    Args:
        kind: Its type.
        seed: The seed of its weights.

    Raises:
        Exception: Whatever the class raises where the rule does not fit it.
    """
    model_class = getattr(hf, kind.model)
    torch.manual_seed(seed)
    base, more = _VARIANTS.get(kind.name, (kind.name, {}))
    config = shrunk(_config_class(base, model_class), {**_SPECIAL.get(base, {}), **more})
    model = model_class(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            # Biases and norms begin as zeros and ones, which would hide a missing one.
            if weights.dim() == 1 and weights.is_floating_point():
                weights.add_(0.2 * torch.randn_like(weights))
    model.generation_config = hf.GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    return model


def _config_class(name: str, model_class: Any) -> Any:
    if (found := getattr(model_class, "config_class", None)) is not None:
        return found
    return importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING[name]


def shrunk(config_class: Any, special: Mapping[str, Any]) -> Any:
    """A configuration of this class with small sizes, and with special values."""
    return config_class(**{**_changes(config_class()), **special})


def _changes(config: Any) -> dict[str, Any]:
    """The fields of a configuration that get other values, nested configurations as configurations."""
    fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    changes: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, hf.PreTrainedConfig):
            changes[name] = type(value)(**_changes(value))
        elif name in _SIZES and isinstance(value, int | float) and not isinstance(value, bool):
            changes[name] = type(value)(_SIZES[name])
        elif name in _KEY_HEADS and isinstance(value, int):
            changes[name] = min(value, 2) if value != fields.get("num_attention_heads") else 4
        elif name.endswith("token_id") and isinstance(value, int):
            changes[name] = {"eos_token_id": EOS, "bos_token_id": BOS}.get(name, PAD)
    if "qk_rope_head_dim" in fields:  # heads of latent attention
        changes |= {"num_key_value_heads": 4, "head_dim": 4, "qk_head_dim": 12}
    changes |= _layers(fields)
    if fields.get("tie_word_embeddings"):  # tied ones make a model repeat its last token
        changes["tie_word_embeddings"] = False
    if fields.get("is_decoder") is False:
        changes["is_decoder"] = True
    changes |= {"eos_token_id": EOS, "bos_token_id": BOS, "pad_token_id": PAD}
    return changes


def _layers(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The number of layers, and the lists with an entry per layer, cut to the first layer of each kind."""
    changes: dict[str, Any] = {}
    for name in _LAYERS:
        count = fields.get(name)
        if not isinstance(count, int) or isinstance(count, bool):
            continue
        lists = {key: list(value) for key, value in fields.items()
                 if isinstance(value, list | tuple) and len(value) == count > 2}  # fmt: skip
        chosen: dict[str, int] = {}
        for at in range(count):
            chosen.setdefault(repr([value[at] for value in lists.values()]), at)
        keep = sorted(chosen.values())[:_MOST_LAYERS]
        if len(keep) < 2:
            keep = [0, 1][:count]
        changes[name] = len(keep)
        changes |= {key: [copy.deepcopy(value[at]) for at in keep] for key, value in lists.items()}
    return changes
