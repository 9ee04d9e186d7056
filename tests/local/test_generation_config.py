"""What a model's generation config, or a request's, says about the text: in any batch the text of `model.generate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from generation_cases import PROMPTS, TOKENS, cases, own_tokens, tokens_of
from transformers import (
    GenerationConfig,
)

from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.local import LocalEngine, SamplingParams

NAMES = tuple(cases([[0] * TOKENS] * 3))
UNCHANGED = ("remove_invalid_values", "renormalize_logits", "prompt_lookup", "sampling is off")
"""Settings that change nothing of a greedy text."""


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_that_of_generate_with_the_same_config(
    name: str, model: Any, tokenizer: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    settings = cases(free)[name]
    for key, value in settings.items():
        setattr(model.generation_config, key, value)
    greedy: dict[str, Any] = {"do_sample": False, "top_k": None, "top_p": None, "min_p": None, "temperature": None}
    expected = [own_tokens(model, tokenizer, prompt, {**settings, **greedy}) for prompt in PROMPTS]
    assert (expected != free) == (name not in UNCHANGED)
    assert [list(done.token_ids) for done in shared.generate(PROMPTS, max_new_tokens=TOKENS)] == expected


# --- whose setting counts ---


def test_the_config_is_read_with_each_request(model: Any, shared: LocalEngine, free: list[list[int]]) -> None:
    assert tokens_of(shared) == free[0]
    model.generation_config.suppress_tokens = [free[0][0]]
    assert free[0][0] not in tokens_of(shared)
    model.generation_config = GenerationConfig(eos_token_id=free[0][4])
    assert tokens_of(shared) == free[0][:5]
    model.generation_config = None
    assert tokens_of(shared) == free[0]


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        ("repetition_penalty", 1.6, {"repetition_penalty": 1.0}),
        ("no_repeat_ngram_size", 1, {"no_repeat_ngram_size": 0}),
        ("suppress_tokens", [191, 28, 10], {"suppress_tokens": ()}),
        ("begin_suppress_tokens", [191], {"begin_suppress_tokens": []}),
        ("bad_words_ids", [[191, 28]], {"bad_words_ids": []}),
        ("sequence_bias", [[[191], -40.0]], {"sequence_bias": {}}),
        ("min_new_tokens", 12, {"min_new_tokens": 0}),
        ("forced_eos_token_id", 9, {"generation_config": {"forced_eos_token_id": None}}),
        ("encoder_repetition_penalty", 3.0, {"generation_config": {"encoder_repetition_penalty": 1.0}}),
        ("no_repeat_ngram_size", 1, {"generation_config": GenerationConfig(no_repeat_ngram_size=0)}),
        ("no_repeat_ngram_size", 1, {"generation_config": "ignore"}),
    ],
)
def test_a_request_overrules_the_config(
    name: str, value: Any, own: Any, model: Any, tokenizer: Any, shared: LocalEngine
) -> None:
    # The second prompt's text ends by itself, which a least length prevents.
    before = [tokens_of(shared, prompt) for prompt in PROMPTS[:2]]
    setattr(model.generation_config, name, value)
    assert [tokens_of(shared, prompt) for prompt in PROMPTS[:2]] != before
    assert [tokens_of(shared, prompt, **own) for prompt in PROMPTS[:2]] == before
    assert [tokens_of(shared, prompt, **dict.fromkeys(own)) for prompt in PROMPTS[:2]] != before, "None is no setting"


def test_an_engines_overrides_come_before_the_config_and_after_the_request(
    model: Any, tokenizer: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    model.generation_config.suppress_tokens = [free[0][0]]
    model.generation_config.repetition_penalty = 1.5
    model.generation_config.num_beams = 4
    with pytest.raises(InvalidInput, match="num_beams=4"):
        tokens_of(shared)
    half = {"suppress_tokens": None, "num_beams": 1}
    with LocalEngine(model, tokenizer, generation_config=half) as engine:
        assert tokens_of(engine, repetition_penalty=1.0) == free[0]
        assert tokens_of(engine) == own_tokens(model, tokenizer, PROMPTS[0], {"num_beams": 1, "suppress_tokens": []})
        assert tokens_of(engine, suppress_tokens=[free[0][0]])[0] != free[0][0]
    with LocalEngine(model, tokenizer, generation_config="ignore") as engine:
        assert tokens_of(engine) == free[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4),
        ("guidance_scale", 1.5),
        ("dola_layers", "high"),
        ("penalty_alpha", 0.6),
        ("constraints", [object()]),
        ("force_words_ids", [[3]]),
        ("token_healing", True),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(name: str, value: Any, model: Any, shared: LocalEngine) -> None:
    before = shared.stats().forwards
    setattr(model.generation_config, name, value)
    for call in (shared.generate, lambda prompts: shared.stream(prompts[0])):
        with pytest.raises(InvalidInput, match=f"{name}=.*generation_config={{'{name}': None}}"):
            call(PROMPTS[:1])
    assert shared.stats().forwards == before
    assert len(tokens_of(shared, generation_config={name: None})) == TOKENS
    assert len(tokens_of(shared, generation_config="ignore")) == TOKENS


@pytest.mark.parametrize(
    "given",
    [
        {"num_beam_groups": 2, "diversity_penalty": 0.5, "length_penalty": 2.0, "early_stopping": True},
        {"assistant_early_exit": 1, "num_return_sequences": 2, "use_cache": False},
        {"forced_bos_token_id": 3, "guidance_scale": 1.0, "num_beams": 1, "token_healing": False},
    ],
)
def test_settings_without_effect_on_greedy_text_are_no_reason_to_refuse(
    given: dict[str, Any], model: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    for name, value in given.items():
        setattr(model.generation_config, name, value)
    assert tokens_of(shared) == free[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"generation_config": {"nonsense": 1}}, "nonsense"),
        ({"generation_config": {"num_beams": 3}}, "num_beams=3"),
        ({"generation_config": "skip"}, "'skip'; it must be a dict"),
        ({"generation_config": 3}, "it must be a dict"),
        ({"generation_config": {"forced_eos_token_id": 4000}}, "forced_eos_token_id has the token 4000"),
        ({"generation_config": {"exponential_decay_length_penalty": 3}}, "exponential_decay_length_penalty is 3"),
        ({"bad_words_ids": [[3, 4000]]}, "bad_words_ids has the token 4000"),
        ({"sequence_bias": {(4000,): 1.0}}, "sequence_bias has the token 4000"),
        ({"no_repeat_ngram": 3}, "There is no setting no_repeat_ngram"),
    ],
)
def test_bad_settings_are_refused_before_any_forward(given: Any, message: str, shared: LocalEngine) -> None:
    before = shared.stats().forwards
    with pytest.raises(InvalidInput, match=message):
        shared.generate(PROMPTS, **given)
    assert shared.stats().forwards == before


def test_an_engine_refuses_bad_overrides_at_once(model: Any, tokenizer: Any) -> None:
    for bad in ({"nonsense": 1}, {"num_beams": 2}, "skip", 7):
        with pytest.raises(InvalidInput):
            LocalEngine(model, tokenizer, generation_config=bad)
    with pytest.raises(InvalidInput, match="contradict"):
        LocalEngine(model, tokenizer, generation_config="ignore", use_checkpoint_sampling=True)


def test_a_bad_value_in_the_checkpoint_is_said_to_be_there(model: Any, shared: LocalEngine) -> None:
    model.generation_config.repetition_penalty = 0.0
    with pytest.raises(InvalidInput, match=r"generation_config cannot be followed: repetition_penalty is 0\.0"):
        tokens_of(shared)
    with pytest.raises(InvalidInput, match=r"^top_k"):
        tokens_of(shared, top_k=-1)


# --- lengths, stop strings, time ---


def test_the_configs_lengths_apply_where_the_request_has_none(
    model: Any, tokenizer: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    prompt = len(tokenizer(PROMPTS[0]).input_ids)
    model.generation_config.max_length = prompt + 5
    assert tokens_of(shared, max_new_tokens=None) == free[0][:5]
    assert tokens_of(shared, max_new_tokens=7) == free[0][:7]
    model.generation_config.max_new_tokens = 3
    assert tokens_of(shared, max_new_tokens=None) == free[0][:3]
    model.generation_config.max_new_tokens, model.generation_config.max_length = None, prompt
    with pytest.raises(PromptTooLong, match=f"max_length={prompt}"):
        tokens_of(shared, max_new_tokens=None)


def test_the_configs_stop_strings_end_the_text(model: Any, tokenizer: Any, shared: LocalEngine) -> None:
    [whole] = shared.generate(PROMPTS[:1], max_new_tokens=TOKENS)
    stop = next(whole.text[i : i + 2] for i in range(4, len(whole.text)) if whole.text[i : i + 2].isascii())
    own = own_tokens(model, tokenizer, PROMPTS[0], {"stop_strings": [stop]}, tokenizer=tokenizer)
    model.generation_config.stop_strings = stop
    [done] = shared.generate(PROMPTS[:1], max_new_tokens=TOKENS)
    assert done.finish_reason == "stop"
    assert list(done.token_ids) == own
    assert done.text == whole.text[: whole.text.index(stop)]
    assert shared.generate(PROMPTS[:1], max_new_tokens=TOKENS, stop=())[0].text == whole.text


def test_a_time_limit_ends_the_text_after_the_current_token(model: Any, shared: LocalEngine) -> None:
    model.generation_config.max_time = 1e-9
    [done] = shared.generate(PROMPTS[:1], max_new_tokens=TOKENS)
    assert (done.finish_reason, len(done.token_ids)) == ("length", 1)
    assert len(tokens_of(shared, max_time=1e6)) == TOKENS


# --- sampling of the checkpoint ---


def test_the_checkpoints_sampling_is_off_unless_asked_for(
    model: Any, tokenizer: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    config = model.generation_config
    config.do_sample, config.temperature, config.top_k, config.top_p, config.min_p = True, 1.7, 9, 0.8, 0.05
    assert tokens_of(shared, seed=1) == free[0]
    named = {"temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.05}
    with LocalEngine(model, tokenizer, use_checkpoint_sampling=True) as engine:
        assert tokens_of(engine, seed=1) == tokens_of(shared, seed=1, **named) != free[0]
        assert tokens_of(engine, temperature=0) == free[0]
        assert tokens_of(engine, seed=1, top_k=1) == free[0], "one setting of the request, the others of the config"
        config.top_k = None  # then `generate` takes 50
        assert tokens_of(engine, seed=2) == tokens_of(shared, seed=2, **{**named, "top_k": 50})
        config.do_sample = False
        assert tokens_of(engine) == free[0]


def test_a_config_given_with_a_request_is_sampled_as_it_says(shared: LocalEngine, free: list[list[int]]) -> None:
    config = GenerationConfig(do_sample=True, temperature=1.5, top_k=7)
    assert tokens_of(shared, seed=3, generation_config=config) == tokens_of(shared, seed=3, temperature=1.5, top_k=7)


@pytest.mark.parametrize("name", ["typical_p", "top_h", "epsilon_cutoff", "eta_cutoff", "min_p"])
def test_rarer_limits_of_sampling_are_those_of_transformers(name: str, shared: LocalEngine) -> None:
    """With a tight limit, few tokens can be drawn: those that transformers' own class leaves."""
    import transformers

    value = {"epsilon_cutoff": 0.05, "eta_cutoff": 0.05, "min_p": 0.6}.get(name, 0.1)
    maker = {"typical_p": "Typical", "top_h": "TopH", "epsilon_cutoff": "Epsilon", "eta_cutoff": "Eta", "min_p": "MinP"}
    left: set[int] = set()

    def seen(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        warped = getattr(transformers, f"{maker[name]}LogitsWarper")(value)(ids, scores.clone() / 3.0)
        left.update((warped[0] > -torch.inf).nonzero().flatten().tolist())
        return scores

    settings = {"generation_config": {name: value}, "temperature": 3.0, "max_new_tokens": 1, "logits_processor": seen}
    drawn = {tokens_of(shared, seed=seed, **settings)[0] for seed in range(60)}
    assert drawn <= left
    assert len(drawn) > 1 or len(left) == 1
    assert len(left) < 400


# --- numbers of numpy ---


def test_numbers_of_numpy_are_numbers(model: Any, tokenizer: Any, shared: LocalEngine) -> None:
    plain: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0.5, "top_p": 0.5, "top_k": 4, "min_p": 0.25,
                             "seed": 3, "repetition_penalty": 1.5, "frequency_penalty": 0.5, "presence_penalty": 0.5,
                             "min_new_tokens": 2, "no_repeat_ngram_size": 2}  # fmt: skip
    kinds = {float: np.float32, int: np.int64}
    given: dict[str, Any] = {name: kinds[type(value)](value) for name, value in plain.items()}
    lists = {"stop_token_ids": np.array([3, 4]), "suppress_tokens": [np.int32(5)], "bad_words_ids": np.array([[6, 7]])}
    assert tokens_of(shared, **given, **lists) == tokens_of(
        shared, **plain, stop_token_ids=[3, 4], suppress_tokens=[5], bad_words_ids=[[6, 7]]
    )
    params = SamplingParams(**given)
    assert {type(getattr(params, name)) for name in plain} == {int, float}
    sizes = {"max_batch_size": np.int64(2), "prefix_cache_tokens": np.int32(64), "prefill_chunk": np.int64(16)}
    with LocalEngine(model, tokenizer, kv_memory=np.int64(1 << 24), **sizes) as engine:
        assert engine.parallel_rows == 2
        assert tokens_of(engine) == tokens_of(shared)
    for name in ("max_batch_size", "prefill_chunk", "prefix_cache_tokens", "kv_memory"):
        with pytest.raises(InvalidInput, match=name):
            LocalEngine(model, tokenizer, **{name: np.bool_(True)})
