"""Models that decode in ways of their own: each is batched only where that gives its own text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf

from skeleton_of_thought.local import LocalEngine

STORY = "The small boat crossed the wide river before the evening came."
PROMPTS = ["The", STORY + " Why do the leaves of a tree", STORY + " Then", "x"]

BASE: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    "max_position_embeddings": 512, "initializer_range": 0.4,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 40,
    "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}


def alibi() -> Any:
    config = hf.BloomConfig(vocab_size=400, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.4)
    return hf.BloomForCausalLM(config)


def sliding_and_full() -> Any:
    kinds = ["sliding_attention", "full_attention"] * 2
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**BASE, head_dim=8, sliding_window=12, layer_types=kinds))


def convolutions() -> Any:
    return hf.Lfm2ForCausalLM(hf.Lfm2Config(**BASE, layer_types=["conv", "full_attention"] * 2))


def state_space() -> Any:
    config = hf.MambaConfig(vocab_size=400, hidden_size=32, state_size=8, num_hidden_layers=3, initializer_range=0.4)
    return hf.MambaForCausalLM(config)


def growing_rope() -> Any:
    config = hf.Phi3Config(**BASE, original_max_position_embeddings=40, rope_parameters=LONGROPE)
    return hf.Phi3ForCausalLM(config)


def experts() -> Any:
    return hf.MixtralForCausalLM(hf.MixtralConfig(**BASE, num_local_experts=4, num_experts_per_tok=2))


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (alibi, "batched"),
        (sliding_and_full, "batched"),
        (experts, "batched"),
        (growing_rope, "batched"),
        (convolutions, "separate"),
        (state_space, "none"),
    ],
)
def test_its_text_is_what_it_writes_alone(
    build: Callable[[], Any], kind: str, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(3)
    model = build().eval()
    model.generation_config.eos_token_id = 2
    with LocalEngine(model, tokenizer) as engine:
        assert engine._runner.cache_kind == kind
        assert ("one after another" in caplog.text) == (kind != "batched")
        done = engine.generate(PROMPTS, max_new_tokens=16)
    for prompt, completion in zip(PROMPTS, done, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16, pad_token_id=2
            )
        assert list(completion.token_ids) == out[0, ids.shape[1] :].tolist()


def test_text_past_the_original_window_of_a_growing_rope_is_computed_anew(tokenizer: Any) -> None:
    torch.manual_seed(3)
    with LocalEngine(growing_rope().eval(), tokenizer) as engine:
        assert engine._runner.kind_for(40) == "batched"
        assert engine._runner.kind_for(41) == "none"


def test_the_window_of_a_dynamic_rope_is_the_stretched_one(tokenizer: Any) -> None:
    config = hf.LlamaConfig(**{**BASE, "max_position_embeddings": 64}, rope_parameters=DYNAMIC)
    with LocalEngine(hf.LlamaForCausalLM(config), tokenizer) as engine:
        assert engine.context_window == 512


def test_a_model_without_a_window_takes_any_length(tokenizer: Any) -> None:
    with LocalEngine(alibi().eval(), tokenizer) as engine:
        assert engine.context_window is None
        assert engine.generate([STORY], max_new_tokens=3)[0].usage.output_tokens == 3
