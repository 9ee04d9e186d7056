"""A row writes the same text as alone, with any other rows in the batch and any kept beginnings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from skeleton_of_thought.local import LocalEngine

KINDS = ["llama", "qwen2", "gpt2", "mistral"]

STORY = "The small boat crossed the wide river before the evening came."
PROMPTS = [
    "The",
    "Bread needs flour",
    STORY + " Why do the leaves of a tree change their colour in autumn?",
    STORY + " Then",
    STORY + " Then the leaves of a tree, and",
    "Ein Käfer läuft über die Straße. 你好，世界！ 🙂🚀",
    "x",
]
NO_TOKEN = 400  # the first past the vocabulary: the text goes on to its limit
LEAST_GAP = 5e-4
"""Between the two likeliest tokens: below it, another order of summation might well choose the other one."""

SAMPLED: list[dict[str, Any]] = [
    {"temperature": 0.8, "seed": 1},
    {"temperature": 1.3, "seed": 2, "top_k": 20},
    {"temperature": 0.9, "seed": 3, "top_p": 0.7},
    {"temperature": 0.7, "seed": 4, "frequency_penalty": 0.4, "presence_penalty": 0.3, "repetition_penalty": 1.2},
    {"temperature": 1.0, "seed": 5, "top_k": 50, "top_p": 0.9, "min_new_tokens": 20},
]


def settled(**settings: Any) -> dict[str, Any]:
    """The settings that this engine has."""
    known = inspect.signature(LocalEngine.__init__).parameters
    return {name: value for name, value in settings.items() if name in known}


class Alone:
    """A model, and its texts for single prompts."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._known: dict[Any, list[int]] = {}

    def engine(self, **settings: Any) -> LocalEngine:
        return LocalEngine(self.model, self.tokenizer, **settled(**settings))

    def texts(self, prompts: Sequence[str], tokens: int | Sequence[int], **settings: Any) -> list[list[int]]:
        """The greedy tokens of `model.generate` for each prompt."""
        counts = [tokens] * len(prompts) if isinstance(tokens, int) else tokens
        return [self._text(prompt, count, settings)[:count] for prompt, count in zip(prompts, counts, strict=True)]

    def _text(self, prompt: str, tokens: int, settings: dict[str, Any]) -> list[int]:
        # The longest text of a prompt holds all shorter ones.
        key = (prompt, max(tokens, 50), *settings.items())
        if key not in self._known:
            ids = self.tokenizer(prompt, return_tensors="pt").input_ids
            with torch.inference_mode():
                out = self.model.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=key[1], pad_token_id=2,
                    return_dict_in_generate=True, output_scores=True, **settings,
                )  # fmt: skip
            best = torch.stack(out.scores)[:, 0].float().topk(2).values
            assert (best[:, 0] - best[:, 1]).min() > LEAST_GAP, f"a near tie, take another prompt than {prompt!r}"
            self._known[key] = out.sequences[0, ids.shape[1] :].tolist()
        return self._known[key]


@pytest.fixture(scope="module", params=KINDS)
def own(request: pytest.FixtureRequest, tiny: Any) -> Alone:
    alone = Alone(tiny.make_model(request.param), tiny.make_tokenizer())
    texts = alone.texts(PROMPTS, 50)
    assert len({tuple(text) for text in texts}) == len(texts)
    assert len({token for text in texts for token in text}) > 50, "dull texts would hide mistakes"
    return alone


def tokens_of(streams: Sequence[Any]) -> list[list[int]]:
    for stream in streams:
        for _ in stream:
            pass
    return [list(stream.completion.token_ids) for stream in streams]


def test_prompts_of_mixed_lengths_keep_their_texts(own: Alone) -> None:
    with own.engine() as engine:
        done = engine.generate(PROMPTS, max_new_tokens=40)
    assert [list(c.token_ids) for c in done] == own.texts(PROMPTS, 40)


@pytest.mark.parametrize("chunk", [3, 4096])
def test_rows_that_join_and_leave_keep_their_texts(own: Alone, chunk: int) -> None:
    lengths = [50, 3, 30, 17, 1, 44, 9]
    with own.engine(max_batch_size=4, prefix_cache_tokens=0, prefill_chunk=chunk) as engine:
        streams = []
        for prompt, length in zip(PROMPTS, lengths, strict=True):
            streams.append(engine.stream(prompt, max_new_tokens=length))
            next(streams[0], None)  # let the first row run on before the next one joins
        got = tokens_of(streams)
    assert got == own.texts(PROMPTS, lengths)


def test_rows_keep_their_texts_when_their_neighbours_close(own: Alone) -> None:
    with own.engine() as engine:
        streams = [engine.stream(prompt, max_new_tokens=50) for prompt in PROMPTS]
        for stream in streams:
            next(stream, None)
        for gone in streams[::2]:
            gone.close()
        got = tokens_of(streams)
        assert engine.stats().rows == 0
    expected = own.texts(PROMPTS, 50)
    assert got[1::2] == expected[1::2]
    assert got[::2] == [text[: len(part)] for text, part in zip(expected[::2], got[::2], strict=True)]


def test_a_prompt_that_reuses_a_kept_beginning_keeps_its_text(own: Alone) -> None:
    with own.engine() as engine:
        first = engine.generate([PROMPTS[4]], max_new_tokens=30)[0]
        again = engine.generate([PROMPTS[4]], max_new_tokens=30)[0]
        other = engine.generate([PROMPTS[3]], max_new_tokens=30)[0]
    assert again.usage.cached_tokens > 0
    assert other.usage.cached_tokens > 0
    assert first.token_ids == again.token_ids
    assert list(other.token_ids) == own.texts([PROMPTS[3]], 30)[0]


def test_evicted_beginnings_do_not_change_a_text(own: Alone) -> None:
    prompts = [PROMPTS[2], PROMPTS[5], PROMPTS[4], PROMPTS[3]] * 2
    with own.engine(prefix_cache_tokens=own.engine().count_tokens(PROMPTS[2]) + 4) as engine:
        got = [list(engine.generate([prompt], max_new_tokens=12)[0].token_ids) for prompt in prompts]
        assert engine.stats().prefix_tokens_reused > 0
    assert got == own.texts(prompts, 12)


def test_a_batch_that_outgrows_its_memory_keeps_its_texts(own: Alone) -> None:
    small = own.model.config.model_type == "gpt2"  # its window is no longer
    prompts, lengths = [PROMPTS[0 if small else 6], PROMPTS[4]], [230 if small else 270, 40]
    with own.engine() as engine:
        streams = []
        for prompt, length in zip(prompts, lengths, strict=True):
            streams.append(engine.stream(prompt, max_new_tokens=length, ignore_eos=True))
        got = tokens_of(streams)
    assert [len(text) for text in got] == lengths
    assert got == own.texts(prompts, lengths, eos_token_id=NO_TOKEN)


def test_repetition_penalty_is_that_of_transformers(own: Alone) -> None:
    prompts = [PROMPTS[0], PROMPTS[2], PROMPTS[6]]
    with own.engine() as engine:
        done = engine.generate(prompts, max_new_tokens=25, repetition_penalty=1.3)
    assert [list(c.token_ids) for c in done] == own.texts(prompts, 25, repetition_penalty=1.3)


def test_a_seeded_text_is_the_same_in_any_batch(own: Alone) -> None:
    requests = [{**settings, "max_new_tokens": 24} for settings in SAMPLED]
    prompts = [PROMPTS[4], PROMPTS[3], PROMPTS[4], PROMPTS[0], PROMPTS[5]]
    alone = []
    for prompt, request in zip(prompts, requests, strict=True):
        with own.engine() as engine:
            alone.append(list(engine.generate([prompt], **request)[0].token_ids))
    with own.engine(max_batch_size=6, prefill_chunk=6) as engine:
        others = [engine.stream(prompt, max_new_tokens=50) for prompt in PROMPTS[:2]]
        next(others[0], None)
        streams = []
        for prompt, request in zip(reversed(prompts), reversed(requests), strict=True):
            streams.append(engine.stream(prompt, **request))
            next(streams[0], None)
            others.append(engine.stream(prompt, max_new_tokens=7, temperature=1.0))
        assert tokens_of(streams)[::-1] == alone
        greedy = tokens_of(others)[:2]
    assert greedy == own.texts(PROMPTS[:2], 50)
    assert len({tuple(text) for text in alone}) == len(alone)


def test_rows_with_equal_seeds_draw_equal_texts(own: Alone) -> None:
    with own.engine() as engine:
        streams = [engine.stream(STORY, max_new_tokens=24, temperature=1.0, seed=seed) for seed in (1, 2, 1, 3)]
        one, two, again, three = tokens_of(streams)
    assert one == again
    assert len({tuple(text) for text in (one, two, three)}) == 3
