"""Greedy text is what `model.generate` writes for each prompt alone, whatever shares the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from skeleton_of_thought.local import LocalEngine, prefill, runner

KINDS = ["llama", "qwen2", "gpt2", "mistral"]

STORY = "The small boat crossed the wide river before the evening came."
PROMPTS = [
    "The",
    "Bread needs flour",
    STORY + " Why do the leaves of a tree change their colour in autumn?",
    STORY + " Then",
    STORY + " Then the leaves of a tree",
    "Ein Käfer läuft über die Straße. 你好，世界！ 🙂🚀",
    "x",
]


def alone(model: Any, tokenizer: Any, prompt: str, tokens: int, **settings: Any) -> list[int]:
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=2,
            **settings,
        )
    return out[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tiny: Any) -> tuple[Any, Any]:
    return tiny.make_model(request.param), tiny.make_tokenizer()


def test_a_batch_of_mixed_lengths(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    with LocalEngine(model, tokenizer) as engine:
        done = engine.generate(PROMPTS, max_new_tokens=40)
    assert [list(c.token_ids) for c in done] == [alone(model, tokenizer, p, 40) for p in PROMPTS]


def test_rows_that_join_and_leave_in_mid_flight(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    lengths = [50, 3, 30, 17, 1, 44, 9]
    with LocalEngine(model, tokenizer, max_batch_size=4, prefix_cache_tokens=0) as engine:
        streams = []
        for prompt, length in zip(PROMPTS, lengths, strict=True):
            streams.append(engine.stream(prompt, max_new_tokens=length))
            next(streams[0], None)  # let the first row run on before the next one joins
        for stream in streams:
            for _ in stream:
                pass
        got = [list(stream.completion.token_ids) for stream in streams]
    assert got == [alone(model, tokenizer, p, n) for p, n in zip(PROMPTS, lengths, strict=True)]


def test_a_prompt_whose_beginning_was_kept_from_an_earlier_one(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    with LocalEngine(model, tokenizer) as engine:
        first = engine.generate([PROMPTS[4]], max_new_tokens=30)[0]
        again = engine.generate([PROMPTS[4]], max_new_tokens=30)[0]
        other = engine.generate([PROMPTS[3]], max_new_tokens=30)[0]
    assert again.usage.cached_tokens > 0
    assert other.usage.cached_tokens > 0
    assert first.token_ids == again.token_ids
    assert list(other.token_ids) == alone(model, tokenizer, PROMPTS[3], 30)


def test_a_batch_that_outgrows_its_memory(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    prompts = [PROMPTS[0], PROMPTS[2]]
    tokens = 190 if model.config.model_type == "gpt2" else 300
    with LocalEngine(model, tokenizer) as engine:
        streams = [engine.stream(p, max_new_tokens=tokens) for p in prompts]
        for stream in streams:
            for _ in stream:
                pass
        got = [list(s.completion.token_ids) for s in streams]
    assert got == [alone(model, tokenizer, p, tokens) for p in prompts]


def test_eager_attention(tiny: Any) -> None:
    model, tokenizer = tiny.make_model("llama"), tiny.make_tokenizer()
    model.set_attn_implementation("eager")
    with LocalEngine(model, tokenizer) as engine:
        done = engine.generate(PROMPTS, max_new_tokens=20)
    assert [list(c.token_ids) for c in done] == [alone(model, tokenizer, p, 20) for p in PROMPTS]


def test_repetition_penalty_is_that_of_transformers(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    with LocalEngine(model, tokenizer) as engine:
        done = engine.generate(PROMPTS[:3], max_new_tokens=25, repetition_penalty=1.3)
    expected = [alone(model, tokenizer, p, 25, repetition_penalty=1.3) for p in PROMPTS[:3]]
    assert [list(c.token_ids) for c in done] == expected


@pytest.mark.parametrize("kind", ["separate", "none"])
def test_the_slow_ways_are_right_too(kind: Any, tiny: Any) -> None:
    model, tokenizer = tiny.make_model("mistral"), tiny.make_tokenizer()
    with LocalEngine(model, tokenizer) as engine:
        engine._runner.cache_kind = kind
        done = engine.generate(PROMPTS, max_new_tokens=20)
    assert [list(c.token_ids) for c in done] == [alone(model, tokenizer, p, 20) for p in PROMPTS]


def test_prompts_run_in_pieces_give_the_same_text(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = pair
    monkeypatch.setattr(runner, "_PREFILL_CHUNK", 7)
    monkeypatch.setattr(prefill, "_TAIL_BUDGET", 20)
    with LocalEngine(model, tokenizer) as engine:
        done = engine.generate(PROMPTS, max_new_tokens=12)
    assert [list(c.token_ids) for c in done] == [alone(model, tokenizer, p, 12) for p in PROMPTS]
