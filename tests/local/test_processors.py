"""A row's processors see and change that row alone, in any company, and a grammar holds whatever they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generation_cases import PROMPTS, TOKENS, cases, own_tokens, tokens_of
from transformers import LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import Grammar, LocalEngine, SamplingParams
from skeleton_of_thought.types import Hints, Message, Prompt

# --- the caller's processors ---


class Watching(LogitsProcessor):
    """Forbids one token and keeps what it saw."""

    def __init__(self, forbidden: int) -> None:
        self.forbidden = forbidden
        self.seen: list[list[int]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert input_ids.shape[0] == scores.shape[0] == 1
        assert scores.dtype == torch.float32
        self.seen.append(input_ids[0].tolist())
        scores[:, self.forbidden] = -torch.inf  # in place: it is this row's own
        return scores


@pytest.mark.parametrize("as_list", [list, tuple, LogitsProcessorList, lambda items: items[0]])
def test_a_callers_processor_sees_its_own_row_once_a_step(
    as_list: Any, model: Any, tokenizer: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    mine = Watching(free[0][2])
    beside = [shared.stream(prompt, max_new_tokens=TOKENS) for prompt in PROMPTS[1:]]
    text = tokens_of(shared, logits_processor=as_list([mine]))
    prompt = tokenizer(PROMPTS[0]).input_ids
    assert mine.seen == [prompt + text[:n] for n in range(len(text))]
    assert text == own_tokens(
        model, tokenizer, PROMPTS[0], {}, logits_processor=LogitsProcessorList([Watching(free[0][2])])
    )
    assert [list(stream.completion.token_ids) for stream in beside if list(stream) is not None] == free[1:]


def test_a_processor_of_a_class_that_a_setting_makes_takes_its_place(
    model: Any, tokenizer: Any, shared: LocalEngine
) -> None:
    length = len(tokenizer(PROMPTS[0]).input_ids)
    own = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.9, length)])
    settings = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    expected = own_tokens(model, tokenizer, PROMPTS[0], settings, logits_processor=own)
    assert tokens_of(shared, logits_processor=own, **settings) == expected


def raising(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    if ids.shape[1] > 20:
        raise LookupError("no such word")
    return scores


def mostly(value: float) -> Any:
    def processor(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, value) if ids.shape[1] > 20 else scores

    return processor


@pytest.mark.parametrize(
    ("processor", "error", "message"),
    [
        (raising, LookupError, "no such word"),
        (mostly(torch.nan), InvalidInput, "not numbers"),
        (mostly(-torch.inf), InvalidInput, "forbids all tokens"),
        (lambda ids, scores: scores[:, :9], InvalidInput, r"returned \(1, 9\)"),
        (lambda ids, scores: scores[0], InvalidInput, "of shape"),
        (lambda ids, scores: None, InvalidInput, "returned NoneType"),
        (lambda ids, scores, more: scores, TypeError, "more"),
    ],
)
def test_a_processor_that_fails_fails_its_own_row_alone(
    processor: Any, error: type[Exception], message: str, shared: LocalEngine, free: list[list[int]]
) -> None:
    other = Watching(399)
    before = shared.stats().failed
    streams = [
        shared.stream(PROMPTS[0], max_new_tokens=TOKENS, logits_processor=processor),
        shared.stream(PROMPTS[0], max_new_tokens=TOKENS, logits_processor=[other]),
        shared.stream(PROMPTS[1], max_new_tokens=TOKENS),
        shared.stream(PROMPTS[2], max_new_tokens=TOKENS, temperature=1.0, seed=1),
    ]
    with pytest.raises(error, match=message):
        list(streams[0])
    assert [list(one.completion.token_ids) for one in streams[1:3] if list(one) is not None] == free[:2]
    assert len(other.seen) == TOKENS, "once a step, whatever happens to another row"
    assert list(streams[3]) is not None
    assert shared.stats().failed == before + 1


@pytest.mark.parametrize("bad", [[3], "text", 5, [Watching], {"a": 1}])
def test_what_is_no_processor_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInput, match="logits_processor"):
        SamplingParams(logits_processor=bad)


# --- in company ---


def test_rows_with_and_without_settings_keep_their_texts_in_any_company(
    model: Any, tokenizer: Any, shared: LocalEngine, free: list[list[int]]
) -> None:
    """Rows that join while others run, behind a prefill too; some have processors, some faster forms, some neither."""
    every = list(cases(free).values())
    wanted: list[list[int]] = []
    streams = []
    for turn, settings in enumerate(every):
        prompt, prefill = PROMPTS[turn % 3], ("", " And", " So it")[turn % 3]
        expected = own_tokens(model, tokenizer, prompt + prefill, {**settings, "do_sample": False})
        streams.append(shared.stream(prompt, prefill=prefill, max_new_tokens=TOKENS, generation_config={
            **settings, "do_sample": None}))  # fmt: skip
        streams.append(shared.stream(prompt, max_new_tokens=TOKENS))
        wanted += [expected, free[turn % 3]]
        if turn % 4 == 3:
            next(iter(streams[-1]))
    texts = []
    for stream in streams:
        list(stream)
        texts.append(list(stream.completion.token_ids))
    assert texts == wanted


def test_count_penalties_are_the_same_with_processors(shared: LocalEngine) -> None:
    both: dict[str, Any] = {"frequency_penalty": 0.7, "presence_penalty": 0.4, "repetition_penalty": 1.2}
    watching = Watching(399)
    assert tokens_of(shared, **both) == tokens_of(shared, **both, logits_processor=[watching])
    assert len(watching.seen) == TOKENS


def test_rows_without_processors_do_not_go_through_any(shared: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a processor was made")

    monkeypatch.setattr("skeleton_of_thought.local.processors.RowProcessors", refuse)
    fast = {"repetition_penalty": 1.2, "suppress_tokens": [5], "bad_words_ids": [[6]], "begin_suppress_tokens": [7]}
    assert len(tokens_of(shared, **fast, min_new_tokens=TOKENS)) == TOKENS
    assert len(tokens_of(shared, min_p=0.1, top_k=5, temperature=1.0, min_new_tokens=TOKENS)) == TOKENS


def test_a_grammar_holds_whatever_processors_do(shared: LocalEngine, tokenizer: Any) -> None:
    pytest.importorskip("llguidance", reason="output by a grammar needs llguidance")
    digits = Grammar.from_regex("[0-9]{5}")
    letter, nine = (tokenizer.convert_tokens_to_ids(mark) for mark in "a9")

    def tempting(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, letter], scores[:, nine] = 1e6, 1e5
        return scores

    for more in ({}, {"temperature": 0.7, "seed": 1, "generation_config": {"typical_p": 0.9}}):
        [done] = shared.generate(PROMPTS[:1], grammar=digits, logits_processor=tempting, max_new_tokens=9, **more)
        assert done.text == "99999"
    forced = {"forced_eos_token_id": letter}
    with pytest.raises(RuntimeError, match="forbid all tokens that its grammar allows"):
        shared.generate(PROMPTS[:1], grammar=digits, generation_config=forced, max_new_tokens=2)


def test_a_grammar_decides_on_the_end_whatever_the_config_says(model: Any, shared: LocalEngine) -> None:
    pytest.importorskip("llguidance", reason="output by a grammar needs llguidance")
    model.generation_config.min_new_tokens = 15
    [done] = shared.generate(PROMPTS[:1], grammar=Grammar.from_regex("[0-9]{3}"), max_new_tokens=TOKENS)
    assert len(done.text) == 3


def test_a_prompts_hints_of_zero_leave_the_configs_minimum(model: Any, shared: LocalEngine) -> None:
    messages = (Message("user", "Hello"),)
    [free] = shared.generate([Prompt(messages)], max_new_tokens=TOKENS)
    model.generation_config.eos_token_id = [free.token_ids[2], 2]
    assert len(shared.generate([Prompt(messages)], max_new_tokens=TOKENS)[0].token_ids) == 3
    model.generation_config.min_new_tokens = 8
    assert len(shared.generate([Prompt(messages, hints=Hints())], max_new_tokens=TOKENS)[0].token_ids) >= 8
    short = Prompt(messages, hints=Hints(min_tokens=1))
    assert len(shared.generate([short], max_new_tokens=TOKENS)[0].token_ids) == 3
