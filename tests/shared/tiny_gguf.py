"""A tiny llama as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path, model: Any, tokenizer: Any, *, parts: int = 0, margin: int = 0) -> Path:
    """Write a llama of float32 weights with a byte-level tokenizer and its chat template.

    Args:
        path: The file.
        model: The llama.
        tokenizer: Its tokenizer.
        parts: The number of files that the model claims to be split into.
        margin: Bytes before and after the weights that every such file has.
    """
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    if margin:
        writer.add_string("general.description", "x" * margin)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if parts:
        writer.add_uint16("split.count", parts)
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*tokens, *(f"<unused{at}>" for at in range(config.vocab_size - len(tokens)))])
    writer.add_token_types([3 if at < 5 else 1 for at in range(config.vocab_size)])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(_gguf_name(name), _ordered(name, tensor, config).contiguous().numpy())
    if margin:
        writer.add_tensor("rope_freqs.weight", numpy.ones(margin, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    for own, other in (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")):
        name = name.replace(own, other)
    for own, other in _NAMES.items():
        name = name.replace(own, other)
    return name.replace("model.layers.", "blk.")


def _ordered(name: str, tensor: Any, config: Any) -> Any:
    """Weights of queries and keys in GGUF's order of the two halves of a head."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            return tensor.reshape(count, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
    return tensor
