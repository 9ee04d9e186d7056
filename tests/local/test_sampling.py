"""Settings are checked at once, and sampling is each row's own affair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine, SamplingParams
from skeleton_of_thought.local.sampling import RowSampler

STORY = "The small boat crossed the wide river before the evening came."


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"top_k": 2.5},
        {"repetition_penalty": 0},
        {"max_new_tokens": 0},
        {"max_new_tokens": True},
        {"seed": -1},
        {"stop": [""]},
        {"stop": [3]},
        {"frequency_penalty": float("inf")},
        {"presence_penalty": float("nan")},
        {"min_new_tokens": -1},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        SamplingParams(**bad)


def test_one_stop_string_may_stand_alone() -> None:
    assert SamplingParams(stop="\n").stop == ("\n",)


def draws(logits: torch.Tensor, count: int = 300, **settings: Any) -> list[int]:
    sampler = RowSampler(SamplingParams(temperature=1.0, seed=1, **settings), [0])
    return [sampler.choose(logits) for _ in range(count)]


def test_top_k_leaves_the_most_likely() -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, 2.9, -1.0])
    assert set(draws(logits, top_k=3)) == {1, 2, 3}
    assert set(draws(logits, top_k=99)) >= {0, 1, 2, 3}


def test_top_p_leaves_the_fewest_that_reach_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert set(draws(logits, top_p=0.75)) == {0, 1}
    assert set(draws(logits, top_p=0.4)) == {0}
    assert set(draws(logits, top_p=0.9, top_k=2)) == {0, 1}
    assert set(draws(logits, top_p=0.5, top_k=2)) == {0}


def test_top_p_looks_past_the_first_few_hundred_where_it_must() -> None:
    flat = torch.zeros(5000)
    assert len(set(draws(flat, count=2000, top_p=0.9))) > 1000


def test_a_frequency_penalty_counts_what_was_generated() -> None:
    sampler = RowSampler(SamplingParams(frequency_penalty=1.0), [1, 1, 1])
    logits = torch.tensor([0.0, 2.5, 1.8])
    assert [sampler.choose(logits) for _ in range(4)] == [1, 2, 1, 2]


def test_a_presence_penalty_counts_a_token_once() -> None:
    sampler = RowSampler(SamplingParams(presence_penalty=1.0), [1, 1, 1])
    logits = torch.tensor([0.0, 2.5, 1.8])
    assert [sampler.choose(logits) for _ in range(4)] == [1, 2, 1, 1]


def test_a_seed_gives_the_same_text_in_any_company(engine: LocalEngine) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 11, "max_new_tokens": 25, "top_p": 0.95}
    alone = engine.generate([STORY], **settings)[0]
    crowd = [engine.stream(f"{i} Bread", temperature=1.0, max_new_tokens=40) for i in range(5)]
    amid = engine.generate([STORY], **settings)[0]
    for stream in crowd:
        stream.close()
    assert alone.token_ids == amid.token_ids
    assert engine.generate([STORY], **{**settings, "seed": 12})[0].token_ids != alone.token_ids


def test_without_a_seed_texts_differ_and_the_global_state_is_left_alone(engine: LocalEngine) -> None:
    before = torch.random.get_rng_state()
    done = engine.generate([STORY] * 3, temperature=1.5, max_new_tokens=20)
    assert len({c.token_ids for c in done}) == 3
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_of_one_batch_keep_their_own_settings(engine: LocalEngine) -> None:
    greedy = engine.generate([STORY], max_new_tokens=20)[0]
    streams = [
        engine.stream(STORY, max_new_tokens=20),
        engine.stream(STORY, max_new_tokens=20, temperature=2.0, seed=3),
        engine.stream(STORY, max_new_tokens=5),
    ]
    for stream in streams:
        list(stream)
    first, second, third = (stream.completion.token_ids for stream in streams)
    assert first == greedy.token_ids
    assert second != first
    assert third == first[:5]


def test_the_text_cannot_end_before_its_least_length_but_for_that_is_greedy() -> None:
    sampler = RowSampler(SamplingParams(min_new_tokens=2), [1], eos_ids={0, 2})
    logits = torch.tensor([3.0, 1.0, 2.0, 0.5])
    chosen = [int(logits.argmax()) if sampler.plain else sampler.choose(logits) for _ in range(4)]
    assert chosen == [1, 1, 0, 0]
    assert sampler.plain


def test_a_least_length_holds_the_end_of_the_text_back(
    llama: Any, tokenizer: PreTrainedTokenizerFast, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = engine.generate([STORY], max_new_tokens=12)[0].token_ids
    end = next(i for i, token in enumerate(free) if i >= 2 and token not in free[:i])
    monkeypatch.setattr(llama.generation_config, "eos_token_id", free[end])
    with LocalEngine(llama, tokenizer) as ending:
        assert ending.generate([STORY], max_new_tokens=12)[0].token_ids == free[: end + 1]
        longer = ending.generate([STORY], max_new_tokens=12, min_new_tokens=end + 2)[0]
    assert longer.token_ids[:end] == free[:end]
    assert free[end] not in longer.token_ids[: end + 2]
