"""Faster forwards: the engine picks the right one, and each gives the model's own text."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import transformers as hf

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.attention import attend
from skeleton_of_thought.local.kv import RowsCache, Segment
from skeleton_of_thought.local.lean import LeanModel
from skeleton_of_thought.local.packed import PackedWeight, packing_works

PROMPTS = ["The small boat crossed the wide river", "The small boat crossed a bridge", "Bread needs flour, water, salt"]

needs_packing = pytest.mark.skipif(
    not packing_works(torch.float32), reason="this build of torch has no oneDNN products with packed weights"
)


def make(kind: str, common: dict[str, Any]) -> Any:
    torch.manual_seed(11)
    if kind == "llama with biases":
        config: Any = hf.LlamaConfig(**common, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
        model: Any = hf.LlamaForCausalLM(config)
        for name, part in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(part, std=0.3)
    elif kind == "llama":
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**common))
    elif kind == "qwen2":
        model = hf.Qwen2ForCausalLM(hf.Qwen2Config(**common))
    elif kind == "qwen3":
        model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**common, head_dim=16))
    elif kind == "mistral":
        model = hf.MistralForCausalLM(hf.MistralConfig(**common, sliding_window=None))
    elif kind == "mistral with a window":
        model = hf.MistralForCausalLM(hf.MistralConfig(**common, sliding_window=12))
    elif kind == "gemma2":
        model = hf.Gemma2ForCausalLM(hf.Gemma2Config(**common, head_dim=8))
    else:
        sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
        model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=400, **sizes, initializer_range=0.4))
    for name, part in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            torch.nn.init.uniform_(part, 0.5, 1.5)  # ones would hide missing norms
    return model.eval()


LEAN = ("llama", "llama with biases", "qwen2", "qwen3", "mistral")
PICKED = {**dict.fromkeys(LEAN, "lean"), "mistral with a window": "none", "gemma2": "none"}
"""The choice of `auto`, which packs no layers as tiny as these."""


@needs_packing
@pytest.mark.parametrize("kind", PICKED)
def test_each_optimization_gives_the_models_own_text_and_reports_its_name(kind: str, tiny: Any, tokenizer: Any) -> None:
    model = make(kind, tiny.COMMON)
    texts = []
    for optimize, expected in {"auto": PICKED[kind], "lean": PICKED[kind], "packed": "packed", "none": "none"}.items():
        with LocalEngine(model, tokenizer, optimize=optimize) as engine:  # type: ignore[arg-type]
            engine._eos_ids = frozenset()
            assert engine.optimization == expected
            texts.append([done.token_ids for done in engine.generate(PROMPTS, max_new_tokens=24)])
    own = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        out = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=24,
            min_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=2,
        )  # fmt: skip
        own.append(tuple(out[0, inputs["input_ids"].shape[1] :].tolist()))
    assert texts == [own] * 4


@needs_packing
def test_a_lean_forward_gives_the_models_logits_in_any_pieces(tiny: Any) -> None:
    for kind in LEAN:
        model = make(kind, tiny.COMMON)
        lean = LeanModel(model)
        for rows in (1, 2):  # a single row's earlier tokens are a segment
            ids = torch.randint(3, 400, (rows, 24))
            with torch.inference_mode():
                whole = model(ids).logits
                cache, got = RowsCache(rows, 24), []
                for start, stop in ((0, 9), (9, 22), (22, 23), (23, 24)):
                    positions = torch.arange(start, stop).expand(rows, -1)
                    got.append(lean(ids[:, start:stop], cache, positions, keep=stop - start))
                    cache.advance(stop - start)
            assert torch.allclose(torch.cat(got, 1), whole, atol=1e-4 * float(whole.abs().max())), (kind, rows)


@needs_packing
def test_a_model_with_another_forward_does_not_run_lean(
    tiny: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = make("llama", tiny.COMMON)
    model.model.layers[1].self_attn.scaling *= 1.5  # has the usual structure, but another forward
    with caplog.at_level(logging.WARNING), LocalEngine(model, tokenizer) as engine:
        assert engine.optimization == "none"
    assert "runs by its own modules" in caplog.text


@needs_packing
def test_without_memory_for_copies_a_model_runs_unchanged(
    tiny: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("llama", tiny.COMMON)
    bytes_of_weights = sum(part.nbytes for part in model.parameters())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=bytes_of_weights // 2))
    with LocalEngine(model, tokenizer, kv_memory=10**8) as engine:
        assert engine.optimization == "none"
        assert engine.generate(PROMPTS, max_new_tokens=4)


def test_other_layer_types_run_unchanged(tiny: Any, tokenizer: Any) -> None:
    with LocalEngine(make("gpt2", tiny.COMMON), tokenizer) as engine:
        engine.generate(PROMPTS, max_new_tokens=4)
        assert engine.optimization in ("packed", "none")


@pytest.mark.parametrize("bad", ["fast", "", None, True])
def test_an_unknown_optimization_is_refused(llama: Any, tokenizer: Any, bad: Any) -> None:
    with pytest.raises(InvalidInput, match="optimize"):
        LocalEngine(llama, tokenizer, optimize=bad)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_products_equal_plain_products(dtype: torch.dtype) -> None:
    if not packing_works(dtype):
        pytest.skip(f"no packed products in {dtype} here")
    torch.manual_seed(1)
    for rows in (1, 3, 16, 70):
        weight, bias, x, other = (torch.randn(*shape).to(dtype) for shape in ((48, 40), (48,), (rows, 40), (rows, 48)))
        packed, plain = PackedWeight(weight, bias), x.float() @ weight.float().t() + bias.float()
        slack = 1e-4 if dtype == torch.float32 else 0.3
        assert torch.allclose(packed(x).float(), plain, atol=slack)
        assert torch.allclose(packed.add(x, other).float(), plain + other.float(), atol=slack)


# --- attention in parts ---------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("value_size", [8, 12])
def test_attention_in_parts_equals_plain_attention(tokens: int, heads: tuple[int, int], value_size: int) -> None:
    torch.manual_seed(tokens + heads[0])
    rows, slots, size, scale = 4, 9, 8, 0.3
    count, kv_heads = heads
    past = slots - tokens
    query = torch.randn(rows, count, tokens, size)
    key, value = torch.randn(rows, kv_heads, slots, size), torch.randn(rows, kv_heads, slots, value_size)
    own_mask = torch.ones(tokens, slots, dtype=torch.bool).tril(past)[None].repeat(rows, 1, 1)
    own_mask[2, :, :3] = False  # a shorter row
    bias = torch.zeros(rows, 1, tokens, slots).masked_fill(~own_mask[:, None], float("-inf"))
    lengths: list[tuple[Any, int]] = [(None, 30), (slice(1, 3), 7), ((0, 2, 3), 11), (slice(3, 4), 5)]
    segments, seen = [], [[] for _ in range(rows)]
    for which, length in lengths:
        layers = [(torch.randn(1, kv_heads, length, size), torch.randn(1, kv_heads, length, value_size))] * 2
        index: Any = torch.tensor(which) if isinstance(which, tuple) else which
        segments.append(Segment(layers, index))
        for row in torch.arange(rows)[slice(None) if index is None else index].tolist():
            seen[row].append(layers[1])
    got = attend(query, key, value, segments, 1, bias=bias, scale=scale)
    assert got.shape == (rows, tokens, count, value_size)
    for row in range(rows):
        keys = torch.cat([*(part[0][0] for part in seen[row]), key[row]], 1).repeat_interleave(count // kv_heads, 0)
        values = torch.cat([*(part[1][0] for part in seen[row]), value[row]], 1).repeat_interleave(count // kv_heads, 0)
        scores = query[row] @ keys.transpose(1, 2) * scale
        before = keys.shape[1] - slots
        scores[:, :, before:] += bias[row]
        wanted = (scores.softmax(-1) @ values).transpose(0, 1)
        assert torch.allclose(got[row], wanted, atol=1e-5), row
