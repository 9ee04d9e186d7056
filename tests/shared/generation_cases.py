"""Settings of a generation config that change texts, and the texts that `model.generate` writes by them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, WatermarkingConfig

PROMPTS = [
    "The small boat crossed the wide river before the evening came.",
    "Bread needs",
    "Why do the leaves of a tree change their colour in autumn? Bread needs flour.",
]
TOKENS = 18


def own_tokens(model: Any, tokenizer: Any, prompt: str, settings: dict[str, Any], /, **given: Any) -> list[int]:
    """The tokens that `model.generate` writes after one prompt alone, greedily, with these settings in its config."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    config = GenerationConfig.from_dict(model.generation_config.to_dict())
    config.update(**{"do_sample": False, **settings})
    given = {"max_new_tokens": TOKENS, **given}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **given)
    return out[0, ids.shape[1] :].tolist()


def cases(free: list[list[int]]) -> dict[str, dict[str, Any]]:
    """Settings of a config that change the texts: what the free texts say is forbidden, penalised or forced."""
    one, two, three = free
    ngram = [one[2], one[3]]
    return {
        "repetition_penalty": {"repetition_penalty": 1.4},
        "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.9},
        "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
        "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
        "suppress_tokens": {"suppress_tokens": [one[0], two[3]]},
        "begin_suppress_tokens": {"begin_suppress_tokens": [one[0], two[0], three[0]]},
        "bad words of one token": {"bad_words_ids": [[one[1]], [two[1]], [2]]},
        "bad words": {"bad_words_ids": [ngram, [two[0], two[1]], [three[4]]]},
        "sequence_bias": {"sequence_bias": [[ngram, -30.0], [[two[1]], -4.5], [[7], 2.5]]},
        "min_length": {"min_length": 16, "eos_token_id": [one[3], two[3], three[3], 2]},
        "min_new_tokens": {"min_new_tokens": 9, "eos_token_id": [one[3], two[3], three[3], 2]},
        "both minima": {"min_new_tokens": 4, "min_length": 14, "eos_token_id": [one[3], two[5], 2]},
        "eos_token_id": {"eos_token_id": [one[5], 2]},
        "forced_eos_token_id": {"forced_eos_token_id": [9, 11]},
        "remove_invalid_values": {"remove_invalid_values": True},
        "exponential_decay": {"exponential_decay_length_penalty": (3, 1.6), "eos_token_id": [40, 41, 2]},
        "watermark": {"watermarking_config": WatermarkingConfig(bias=9.0)},
        "renormalize_logits": {"renormalize_logits": True},
        "prompt_lookup": {"prompt_lookup_num_tokens": 3},
        "sampling is off": {"do_sample": True, "temperature": 0.3, "top_k": 3, "top_p": 0.5, "min_p": 0.2},
        "all fast": {"repetition_penalty": 1.3, "suppress_tokens": [one[0]], "begin_suppress_tokens": [two[0]],
                     "bad_words_ids": [[three[0]]], "min_new_tokens": 6, "eos_token_id": [one[2], 2]},
        "all": {"repetition_penalty": 1.3, "suppress_tokens": [one[0]], "begin_suppress_tokens": [two[0]],
                "bad_words_ids": [ngram], "min_new_tokens": 6, "eos_token_id": [one[2], 2], "no_repeat_ngram_size": 2,
                "sequence_bias": [[[7], 3.5]], "encoder_repetition_penalty": 1.2, "forced_eos_token_id": 9,
                "remove_invalid_values": True, "exponential_decay_length_penalty": (5, 1.1)},
    }  # fmt: skip


def tokens_of(engine: Any, prompt: str = PROMPTS[0], **settings: Any) -> list[int]:
    return list(engine.generate([prompt], **{"max_new_tokens": TOKENS, **settings})[0].token_ids)
