"""Generation configs of transformers as settings of an engine."""

from __future__ import annotations

from typing import Any

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.generation import fit_settings, read_generation, sampling_settings

GREEDY = {"max_tokens": 9, "temperature": 0.0}
SAMPLED = {"max_tokens": 9, "temperature": 1.0, "top_p": 1.0}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ({"max_tokens": 9, "temperature": 0.0}, {})),
        ({"temperature": 0.5, "do_sample": False}, ({"max_tokens": 9, "temperature": 0.0}, {})),
        (
            {"do_sample": True, "temperature": 0.5, "top_k": 3, "top_p": 0.9},
            ({"max_tokens": 9, "temperature": 0.5, "top_k": 3, "top_p": 0.9}, {}),
        ),
        (
            {"repetition_penalty": 1.2, "stop_strings": "x"},
            ({"max_tokens": 9, "temperature": 0.0, "stop": ["x"]}, {"repetition_penalty": 1.2}),
        ),
        ({"do_sample": True, "min_p": 0.1}, ({**SAMPLED, "top_k": 50}, {"min_p": 0.1})),
        (
            {"min_p": 0.1, "logits_processor": [print]},
            ({"max_tokens": 9, "temperature": 0.0}, {"logits_processor": [print]}),
        ),
        ({"repetition_penalty": 1.0, "eos_token_id": 2}, ({"max_tokens": 9, "temperature": 0.0}, {})),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_supported_settings_are_read(llama: Any, tokenizer: Any, given: Any, expected: Any) -> None:
    assert sampling_settings(read_generation(llama, tokenizer, {"max_new_tokens": 9, **given})) == expected


def test_keywords_override_the_generation_config(llama: Any, tokenizer: Any) -> None:
    config = type(llama.generation_config)(max_new_tokens=4, do_sample=True, temperature=0.3)
    given = {"generation_config": config, "max_new_tokens": 6}
    assert sampling_settings(read_generation(llama, tokenizer, given))[0]["max_tokens"] == 6
    assert sampling_settings(read_generation(llama, tokenizer, given))[0]["temperature"] == 0.3
    assert "generation_config" in given, "the caller's dict is not changed"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
        ({"do_sample": True, "dola_layers": "low"}, "dola_layers='low'"),
        ({"prefix_allowed_tokens_fn": print}, "prefix_allowed_tokens_fn"),
        ({"eos_token_id": [2, 5]}, r"\[5\]"),
        ({"stopping_criteria": [print]}, "stopping_criteria"),
    ],
)
def test_unsupported_settings_are_refused(llama: Any, tokenizer: Any, given: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_generation(llama, tokenizer, {"max_new_tokens": 9, **given})


def test_an_object_that_is_no_transformers_model_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidInput, match="object is no model of transformers"):
        read_generation(object(), tokenizer, {})


@pytest.mark.parametrize(
    ("wanted", "used", "windows", "limit"),
    [(10, 5, (None,), 10), (10, 5, (12, None), 7), (10, 5, (12, 9), 4), (10, 12, (12,), 1), (10, 5, (), 10)],
)
def test_lengths_are_cut_to_the_window(wanted: int, used: int, windows: Any, limit: int) -> None:
    given = {"max_new_tokens": wanted, "min_new_tokens": 6, "top_k": 3}
    fitted = fit_settings(given, used, *windows)
    assert fitted == {"max_new_tokens": limit, "min_new_tokens": min(6, limit), "top_k": 3}
