"""Settings are checked at once, and rows sample independently of each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine, SamplingParams, sampling
from skeleton_of_thought.local.sampling import Nucleus, RowSampler, TopK, WholeVocabulary

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
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"no_repeat_ngram_size": -1},
        {"no_repeat_ngram_size": 1.5},
        {"bad_words_ids": [3]},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": "word"},
        {"suppress_tokens": 3},
        {"suppress_tokens": ["a"]},
        {"begin_suppress_tokens": [-1]},
        {"sequence_bias": {(): 1.0}},
        {"sequence_bias": [[[1], float("nan")]]},
        {"sequence_bias": [[1, 2.0, 3]]},
        {"logits_processor": ["a"]},
        {"max_time": 0},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        SamplingParams(**bad)


def test_one_stop_string_may_stand_alone() -> None:
    assert SamplingParams(stop="\n").stop == ("\n",)


def draws(logits: torch.Tensor, count: int = 300, **limits: Any) -> list[int]:
    params = SamplingParams(temperature=1.0, seed=1, **limits)
    row, vocabulary = RowSampler(params, [0]), len(logits)
    nucleus = params.top_p < 1.0 or params.min_p > 0.0
    cut = TopK if 0 < params.top_k < vocabulary else Nucleus if nucleus else WholeVocabulary
    sampler = cut([params] * count, vocabulary, logits.device)
    numbers = torch.tensor([row.draw(step) for step in range(count)])
    return sampler.pick(logits.expand(count, -1), numbers[:, None]).tolist()


def test_top_k_keeps_the_most_likely_tokens() -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, 2.9, -1.0])
    assert set(draws(logits, top_k=3)) == {1, 2, 3}
    assert set(draws(logits, top_k=99)) >= {0, 1, 2, 3}


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert set(draws(logits, top_p=0.75)) == {0, 1}
    assert set(draws(logits, top_p=0.4)) == {0}
    assert set(draws(logits, top_p=0.9, top_k=2)) == {0, 1}
    assert set(draws(logits, top_p=0.5, top_k=2)) == {0}


def test_min_p_keeps_tokens_by_their_share_of_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert set(draws(logits, min_p=0.5)) == {0, 1}
    assert set(draws(logits, min_p=1.0)) == {0}
    assert set(draws(logits, min_p=0.25, top_p=0.75)) == {0, 1}
    assert set(draws(logits, min_p=0.25, top_k=3)) == {0, 1, 2}
    assert set(draws(logits, min_p=0.7, top_k=3)) == {0}
    assert len(set(draws(torch.zeros(5000), count=2000, min_p=0.9))) > 1000


def test_top_p_reads_the_whole_vocabulary_if_needed() -> None:
    flat = torch.zeros(5000)
    assert len(set(draws(flat, count=2000, top_p=0.9))) > 1000


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    shares = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    for limits in ({}, {"top_p": 0.9999}, {"top_k": 4}):
        drawn = torch.tensor(draws(shares.log(), count=20_000, **limits)).bincount(minlength=5) / 20_000
        assert torch.allclose(drawn, shares, atol=0.015), limits
        assert drawn[1] == 0


def likelihood(params: SamplingParams, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that may be drawn and their cumulated probabilities, most likely first, from a full sort."""
    shares, tokens = torch.softmax(logits / params.temperature, -1).sort(descending=True, stable=True)
    # Relative to the shares: a share of a flat distribution may be as small as an absolute tolerance.
    likely = int((shares >= params.min_p * shares[0] * (1 - 1e-6)).sum())
    kept = min(params.top_k or len(shares), len(shares))
    mass = shares[:kept].cumsum(-1)
    count = int((mass < params.top_p * (mass[-1] if params.top_k else 1.0)).sum()) + 1
    return mass[: min(count, kept, likely)], tokens


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([3, 40, 700, 6000]), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 3.0, 12.0]))
def test_only_candidate_tokens_are_sorted_and_none_is_missed(
    data: st.DataObject, vocabulary: int, noise: int, spread: float
) -> None:
    # Rounded as in low precision, so that many tokens are equally likely.
    generator = torch.Generator().manual_seed(noise)
    rows = data.draw(st.integers(1, 5))
    logits = (torch.randn(rows, vocabulary, generator=generator) * spread).to(torch.bfloat16).to(torch.float32)
    kind = data.draw(st.sampled_from([Nucleus, TopK]))
    least = 1 if kind is TopK else 0
    every = [
        SamplingParams(
            temperature=data.draw(st.sampled_from([0.05, 0.8, 2.0])),
            # Uneven, so that no number of equally likely tokens has exactly this share.
            top_p=data.draw(st.sampled_from([1e-6, 0.3123, 0.9017, 0.9871])),
            min_p=data.draw(st.sampled_from([0.0, 0.0, 0.0413, 0.5313])),
            top_k=least * data.draw(st.one_of(st.integers(1, 4), st.integers(1, vocabulary - 1))),
        )
        for _ in range(rows)
    ]
    numbers = torch.tensor([[data.draw(st.integers(0, 2**24 - 1)) * 2.0**-24] for _ in range(rows)])
    picked = kind(every, vocabulary, logits.device).pick(logits, numbers).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_sorts_fast", lambda device: True)
        assert kind(every, vocabulary, logits.device).pick(logits, numbers).tolist() == picked
    for i, params in enumerate(every):
        alone = kind([params], vocabulary, logits.device).pick(logits[i : i + 1], numbers[i : i + 1])
        assert picked[i] == int(alone)
        mass, tokens = likelihood(params, logits[i])
        place = tokens.tolist().index(picked[i])
        below = float(mass[place - 1]) if place else 0.0
        # The sums of thousands of shares differ by their order in the fifth digit, much less than one share.
        assert below - 4e-5 <= float(numbers[i] * mass[-1]) <= float(mass[place]) + 4e-5


def test_a_row_draws_a_number_per_step_from_its_own_seed() -> None:
    params = SamplingParams(temperature=1.0, seed=4)
    row, twin = RowSampler(params, [0]), RowSampler(params, [7])
    first = [row.draw(step) for step in range(5)]
    assert row.draw(4) == first[4]  # a repeated step draws the same number
    assert [twin.draw(step) for step in range(5)] == first
    assert len(set(first)) == 5
    unseeded = SamplingParams(temperature=1.0)
    assert RowSampler(unseeded, [0]).draw(0) != RowSampler(unseeded, [0]).draw(0)


def test_a_seed_gives_the_same_text_in_any_batch(engine: LocalEngine) -> None:
    chosen: dict[str, Any] = {"temperature": 1.0, "seed": 11, "max_new_tokens": 25, "top_p": 0.95}
    alone = engine.generate([STORY], **chosen)[0]
    crowd = [engine.stream(f"{i} Bread", temperature=1.0, max_new_tokens=40) for i in range(5)]
    amid = engine.generate([STORY], **chosen)[0]
    for stream in crowd:
        stream.close()
    assert alone.token_ids == amid.token_ids
    assert engine.generate([STORY], **{**chosen, "seed": 12})[0].token_ids != alone.token_ids


def test_without_a_seed_texts_differ_and_the_global_state_is_kept(engine: LocalEngine) -> None:
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


def test_a_minimum_length_delays_the_end_of_the_text(
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
