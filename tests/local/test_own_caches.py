"""Models whose rows have caches of their own kind: the texts of `generate`, a token a step, rows that run together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from own_cache_models import (
    KINDS,
    LASTING,
    LEAST_GAP,
    LONG,
    LONGROPE,
    SHARED,
    SHORT,
    TOKENIZER,
    TOKENS,
    Kind,
    Subject,
    Tokens,
    alone,
    build,
    done,
    letters,
    of,
)

from skeleton_of_thought.local import LocalEngine


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return of(request.param)


# --- the texts --------------------------------------------------------------------------------------


def test_each_kind_is_found_and_keeps_the_texts_of_generate(subject: Subject) -> None:
    with subject.engine(prefill_chunk=5) as engine:
        assert engine.stats().cache_kind == subject.kind.path
        own = engine._runner._own
        assert (own.copies, own.stacks) == (subject.kind.kept, subject.kind.together)
        assert done(engine, SHORT) == subject.expected(SHORT)
        assert done(engine, SHARED) == subject.expected(SHARED)
        assert done(engine, SHARED) == subject.expected(SHARED)
        assert done(engine, [LASTING], LONG) == subject.expected([LASTING])
        assert done(engine, [subject.follow_up]) == subject.expected([subject.follow_up])
        assert engine.stats().rows == 0


def test_rows_that_join_and_leave_keep_their_texts(subject: Subject) -> None:
    prompts = [LASTING, SHARED[0], SHORT[1], SHARED[2], SHORT[2]]
    with subject.engine(prefill_chunk=5) as engine:
        streams = []
        for prompt in prompts:
            streams.append(engine.stream(prompt, max_new_tokens=LONG if prompt is LASTING else TOKENS))
            next(streams[0], None)
        for stream in streams:
            for _ in stream:
                pass
        assert engine.stats().peak_batch_size > 1
    assert [stream.completion.token_ids for stream in streams] == subject.expected(prompts)


def test_a_step_runs_one_token(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    if subject.kind.name == "XLNetLMHeadModel":
        pytest.skip("its own inputs have three tokens a step")
    with subject.engine(prefix_cache_tokens=0) as engine:
        count = Tokens(engine, monkeypatch)
        engine.generate([LASTING], max_new_tokens=LONG)
        steps = LONG - 1
        whole = sum(len(LASTING) + i for i in range(LONG))
        assert count.total == (whole if subject.kind.path == "none" else len(LASTING) + steps)
        assert len(count.shapes) == LONG


# --- rows that run together -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no positions", "tensors in modules", "a cache class of the model's"])
def test_rows_of_equal_length_run_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of(name)
    prompts = [SHORT[1], SHORT[0], SHORT[2]]
    with subject.engine() as engine:
        count = Tokens(engine, monkeypatch)
        assert done(engine, prompts) == subject.expected(prompts)
        # Two prompts of seven tokens run together, and so do their rows.
        assert len(count.shapes) == 2 + 2 * (TOKENS - 1)
        assert count.rows == 2
        assert engine.parallel_rows == 1


def test_a_row_that_leaves_its_group_does_not_disturb_the_others() -> None:
    subject = of("no positions")
    prompts = [SHORT[1], SHORT[2], letters(7, 30)]
    expected = [alone(subject.model, prompt, LONG)[0] for prompt in prompts]
    with subject.engine() as engine:
        streams = [engine.stream(prompt, max_new_tokens=n) for prompt, n in zip(prompts, (3, LONG, LONG), strict=True)]
        for _ in zip(streams[1], range(5), strict=False):
            pass
        streams[2].close()
        for stream in streams[:2]:
            for _ in stream:
                pass
        assert done(engine, prompts, LONG) == expected
    assert [stream.completion.token_ids for stream in streams[:2]] == [expected[0][:3], expected[1]]


def test_rows_of_any_length_run_together_where_states_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of("an object of the model's")
    with subject.engine() as engine:
        if not engine._runner._own.stacks_all:
            pytest.skip("this version of the model counts the tokens in its state")
        count = Tokens(engine, monkeypatch)
        assert done(engine, SHORT) == subject.expected(SHORT)
        assert count.rows == len(SHORT)
        assert engine.parallel_rows > 1


# --- failures ---------------------------------------------------------------------------------------


def test_a_row_that_fails_fails_alone() -> None:
    subject = of("no positions")
    # The middle row fails at a token that it writes, and that the others neither read nor write.
    for seed in range(30, 60):
        prompts = [SHORT[1], letters(7, seed), SHORT[2]]
        expected = [alone(subject.model, prompt)[0] for prompt in prompts]
        read = [TOKENIZER(prompt)["input_ids"] for prompt in prompts]
        others = {token for row in (0, 2) for token in (*read[row], *expected[row])}
        if written := [t for t in expected[1][:-1] if t not in others and t not in read[1]]:
            token = written[-1]
            break
    model = copy.deepcopy(subject.model)

    def refuse(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        # After the forward, so that it has changed the caches of all its rows.
        if (kwargs["input_ids"] == token).any():
            raise ValueError("not this token")

    with LocalEngine(model, TOKENIZER) as engine:
        engine._eos_ids = frozenset()
        assert engine._runner._own.stacks
        hook = engine._runner._own._model.register_forward_hook(refuse, with_kwargs=True)
        streams = [engine.stream(prompt, max_new_tokens=TOKENS) for prompt in prompts]
        for stream in (streams[0], streams[2]):
            for _ in stream:
                pass
        with pytest.raises(ValueError, match="not this token"):
            for _ in streams[1]:
                pass
        assert [streams[i].completion.token_ids for i in (0, 2)] == [expected[0], expected[2]]
        stats = engine.stats()
        assert (stats.failed, stats.completed, stats.rows) == (1, 2, 0)
        # A prompt that fails harms no other either.
        bad = chr(0x100 + token) + letters(4, 31)
        with pytest.raises(ValueError, match="not this token"):
            engine.generate([bad], max_new_tokens=TOKENS)
        assert done(engine, [prompts[0]]) == [expected[0]]
        hook.remove()


# --- rotary embeddings that a text outgrows -----------------------------------------------------------

GROWING = {
    "begins again": Kind("Phi3ForCausalLM", {"original_max_position_embeddings": 40, "rope_parameters": LONGROPE}),
    "goes on": Kind("LlamaForCausalLM", {"rope_parameters": LONGROPE}),
    "grows with each token": Kind(
        "LlamaForCausalLM",
        {"max_position_embeddings": 40, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 6.0}},
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_texts_that_outgrow_their_rotary_embeddings_are_those_of_generate(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [letters(30, 50), letters(36, 51), letters(60, 52), letters(5, 53)]
    lengths = [30, 14, 14, 10]
    for seed in range(20):
        # The frequencies that a text leaves behind must not reach another one, so each text has a model of its own.
        texts, gaps = zip(
            *(alone(build(GROWING[name], seed), p, n) for p, n in zip(prompts, lengths, strict=True)), strict=True
        )
        if min(gaps) > LEAST_GAP and len({token for text in texts for token in text}) > 12:
            break
    with LocalEngine(build(GROWING[name], seed), TOKENIZER, optimize="none") as engine:
        engine._eos_ids = frozenset()
        count = Tokens(engine, monkeypatch)
        streams = []
        for prompt, length in zip(prompts, lengths, strict=True):
            streams.append(engine.stream(prompt, max_new_tokens=length))
            next(streams[0], None)
        for stream in streams:
            for _ in stream:
                pass
        # Where the model begins again, two texts run once more as a whole.
        again = 41 + 41 if name == "begins again" else 0
        assert count.total <= sum(map(len, prompts)) + sum(lengths) + again
    assert [stream.completion.token_ids for stream in streams] == list(texts)
