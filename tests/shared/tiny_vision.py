"""Tiny random vision-language models, and other models that are no text models, saved to folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

_TEXT: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.4,
}
_CLIP: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_QWEN = {"depth": 1, "hidden_size": 32, "num_heads": 4, "intermediate_size": 64, "out_hidden_size": 32}
_HYBRID = {
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": {**_ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25},
}


def _llama() -> dict[str, Any]:
    return {"model_type": "llama", **_TEXT}


VISION: Mapping[str, dict[str, Any]] = {
    "Qwen2VL": {
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 14},
    },
    "Qwen2_5_VL": {"text_config": {**_TEXT, "rope_parameters": _ROPE}, "vision_config": _QWEN},
    "Qwen3VL": {
        "text_config": {**_TEXT, "head_dim": 8, "rope_parameters": _ROPE},
        "vision_config": {**_QWEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    },
    "Llava": {"text_config": _llama(), "vision_config": {"model_type": "clip_vision_model", **_CLIP}},
    "LlavaNext": {"text_config": _llama(), "vision_config": {"model_type": "clip_vision_model", **_CLIP}},
    "Mistral3": {
        "text_config": {"model_type": "mistral", **_TEXT, "head_dim": 8},
        "vision_config": {"model_type": "pixtral", **_CLIP, "head_dim": 8},
    },
    "SmolVLM": {"text_config": _llama(), "vision_config": _CLIP, "scale_factor": 2},
    "Idefics3": {"text_config": _llama(), "vision_config": _CLIP, "scale_factor": 2},
    "Gemma3": {
        "text_config": {**_TEXT, "head_dim": 8, "sliding_window": 16},
        "vision_config": _CLIP,
        "mm_tokens_per_image": 4,
    },
    "Qwen3_5": {
        "text_config": {**_TEXT, **_HYBRID},
        "vision_config": {**_QWEN, "num_position_embeddings": 16},
    },
}
"""Settings of the configuration of each kind, by the beginning of its class's name."""


def vision_model(kind: str) -> Any:
    """A tiny random vision-language model; None if the installed transformers does not know the kind."""
    config = getattr(transformers, f"{kind}Config", None)
    if config is None:
        return None
    torch.manual_seed(7)
    made = getattr(transformers, f"{kind}ForConditionalGeneration")(config(**VISION[kind])).eval()
    made.generation_config.eos_token_id = 2
    return made


def save(model: Any, tokenizer: Any, folder: Path) -> str:
    """Saves both to a folder; returns its name."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
