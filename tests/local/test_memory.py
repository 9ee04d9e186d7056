"""Memory for keys and values, requests that wait for it, and prompts that run in pieces."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.local import LocalEngine, prefix, worker
from skeleton_of_thought.local.prefix import shared_tokens

WORD = " river"
TOKEN_BYTES = 2 * 3 * 2 * 8 * 4
"""Keys and values of a token of the tiny model: layers, key heads, size of heads, float32."""


def unending(engine: LocalEngine) -> LocalEngine:
    engine._eos_ids = frozenset()
    return engine


@pytest.fixture(scope="module")
def long_llama(tiny: Any) -> Any:
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(**{**tiny.COMMON, "max_position_embeddings": 8192})).eval()


def tokens_of(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text)["input_ids"])


# --- a shared beginning ---------------------------------------------------------------------------


def test_a_shared_beginning_is_held_once(long_llama: Any, tokenizer: Any) -> None:
    shared = "The boat" + WORD * 2000
    prompts = [f"{shared} {i}" for i in range(10)]
    held = {}
    texts = {}
    for share in (True, False):
        with LocalEngine(long_llama, tokenizer, share_prefix=share, prefix_cache_tokens=0) as engine:
            texts[share] = [done.token_ids for done in unending(engine).generate(prompts, max_new_tokens=8)]
            held[share] = engine.stats().peak_kv_bytes / TOKEN_BYTES
            assert engine.stats().prefix_tokens_reused >= 9 * 2000
    assert texts[True] == texts[False]
    prefix = tokens_of(tokenizer, shared)
    assert held[False] > 10 * prefix
    # Once, and room for a few hundred tokens of their own in each of twelve rows.
    assert prefix <= held[True] < prefix + 12 * 300


def test_a_follow_up_reuses_the_whole_kept_dialogue(llama: Any, tokenizer: Any) -> None:
    with LocalEngine(llama, tokenizer) as engine:
        unending(engine)
        prompt = "Bread needs flour, water, salt and a little patience."
        first = engine.generate([prompt], max_new_tokens=30)[0]
        before = engine.stats()
        whole = prompt + first.text + " Why?"
        again = engine.generate([whole], max_new_tokens=5)[0]
        after = engine.stats()
        reused = after.prefix_tokens_reused - before.prefix_tokens_reused
        assert after.prefix_hits == before.prefix_hits + 1
        # The end of the text may become other tokens when more text follows.
        ids = tokenizer(whole)["input_ids"]
        written = [*tokenizer(prompt)["input_ids"], *first.token_ids]
        same = next((i for i, (a, b) in enumerate(zip(ids, written, strict=False)) if a != b), len(written))
        assert reused >= min(same, len(written) - 1) - 1
        fresh = LocalEngine(llama, tokenizer, prefix_cache_tokens=0)
        with fresh:
            assert unending(fresh).generate([whole], max_new_tokens=5)[0].token_ids == again.token_ids


# --- the budget -----------------------------------------------------------------------------------


def test_rows_wait_for_memory_and_start_in_order(
    llama: Any, tokenizer: Any, local_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"{i}{WORD * (5 + i)}" for i in range(9)]
    with LocalEngine(llama, tokenizer) as engine:
        alone = [unending(engine).generate([prompt], max_new_tokens=20)[0].token_ids for prompt in prompts]
    longest = max(tokens_of(tokenizer, prompt) for prompt in prompts) + 20
    with LocalEngine(llama, tokenizer, kv_memory=3 * longest * TOKEN_BYTES, prefix_cache_tokens=0) as engine:
        lane = engine._worker._lanes["batched"]
        admit, admitted = lane.admit, []

        def noted(rows: Any) -> Any:
            admitted.extend(row.prompt_ids for row in rows)
            return admit(rows)

        monkeypatch.setattr(lane, "admit", noted)
        with local_models.gathered(2):
            streams = [unending(engine).stream(prompt, max_new_tokens=20) for prompt in prompts]
        for stream in streams:
            for _ in stream:
                pass
        assert [stream.completion.token_ids for stream in streams] == alone
        assert 2 <= engine.stats().peak_batch_size <= 4
        assert engine.stats().completed == 9
    assert admitted == [tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts]


def test_a_prompt_that_never_fits_is_refused_at_once_and_the_rest_runs(llama: Any, tokenizer: Any) -> None:
    with LocalEngine(llama, tokenizer, kv_memory=60 * TOKEN_BYTES) as engine:
        running = unending(engine).stream(WORD * 5, max_new_tokens=30)
        with pytest.raises(PromptTooLong, match="kv_memory"):
            engine.stream(WORD * 50, max_new_tokens=30)
        for _ in running:
            pass
        assert len(running.completion.token_ids) == 30


def test_kept_prompts_make_room_for_rows(llama: Any, tokenizer: Any) -> None:
    with LocalEngine(llama, tokenizer, kv_memory=150 * TOKEN_BYTES, prefix_cache_tokens=4096) as engine:
        unending(engine)
        for i in range(6):
            engine.generate([f"{i}{WORD * 20}"], max_new_tokens=30)
        assert engine._worker._store.tokens <= 150
        running = engine.stream(f"x{WORD * 30}", max_new_tokens=80)
        next(running)
        # Its own prompt is kept, and counts for both.
        assert engine._worker._store.tokens + 80 <= 150
        for _ in running:
            pass
        assert len(running.completion.token_ids) == 80


@pytest.mark.parametrize("bad", [0, -1, 0.0, 1.5, True, "1GB", float("nan")])
def test_an_invalid_budget_is_refused(llama: Any, tokenizer: Any, bad: Any) -> None:
    with pytest.raises(InvalidInput, match="kv_memory"):
        LocalEngine(llama, tokenizer, kv_memory=bad)


def test_a_prompt_piece_has_at_least_one_token(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(InvalidInput, match="prefill_chunk"):
        LocalEngine(llama, tokenizer, prefill_chunk=0)


# --- out of memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_prompts_without_memory_are_retried_in_smaller_groups(
    gated: LocalEngine, gate: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prompts = [f"{i}{WORD * 9} {i}" for i in range(8)]
    unending(gated)
    expected = [gated.generate([prompt], max_new_tokens=6)[0].token_ids for prompt in prompts]
    gated._worker._store.clear()
    whole, refused = gate.model.forward, []

    def little_memory(input_ids: Any = None, **kwargs: Any) -> Any:
        if input_ids.shape[1] > 1 and input_ids.shape[0] > 2:
            refused.append(input_ids.shape)
            raise error
        return whole(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(gate.model, "forward", little_memory)
    done = gated.generate(prompts, max_new_tokens=6)
    assert [one.token_ids for one in done] == expected
    assert refused
    assert gated.stats().failed == 0


def test_a_prompt_without_memory_waits_for_a_row_to_leave(
    gated: LocalEngine, gate: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unending(gated)
    expected = gated.generate([WORD * 30], max_new_tokens=6)[0].token_ids
    running = gated.stream("Why do the leaves", max_new_tokens=100)
    next(running)
    whole, refused = gate.model.forward, []

    def little_memory(input_ids: Any = None, **kwargs: Any) -> Any:
        if input_ids.shape[1] > 1 and gated.stats().completed < 2:
            refused.append(input_ids.shape)
            raise torch.OutOfMemoryError("no room")
        return whole(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(gate.model, "forward", little_memory)
    second = gated.stream(WORD * 30, max_new_tokens=6)
    for _ in running:
        pass
    for _ in second:
        pass
    assert len(running.completion.token_ids) == 100
    assert second.completion.token_ids == expected
    # Once, not once per step.
    assert len(refused) <= 2


def test_a_prompt_alone_without_memory_fails(gated: LocalEngine, gate: Any) -> None:
    gate.error = torch.OutOfMemoryError("no room")
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        gated.generate([WORD * 9])
    gate.error = None
    assert gated.generate([WORD * 9], max_new_tokens=3)


# --- prompts in pieces ----------------------------------------------------------------------------


def test_a_long_prompt_lets_rows_take_steps_between_its_pieces(gate: Any, tokenizer: Any) -> None:
    with LocalEngine(gate, tokenizer, prefill_chunk=32) as engine:
        expected = unending(engine).generate([WORD * 200], max_new_tokens=4)[0].token_ids
        engine._worker._store.clear()
        # Held until both have joined, so that the first does not end before the second begins.
        gate.open.clear()
        gate.entered.clear()
        running = engine.stream("Why do the leaves of a tree", max_new_tokens=60)
        assert gate.entered.wait(60)
        gate.batches.clear()
        late = engine.stream(WORD * 200, max_new_tokens=4)
        gate.open.set()
        for _ in late:
            pass
        pieces = [at for at, (_, tokens) in enumerate(gate.batches) if tokens > 1]
        assert len(pieces) >= 400 // 32
        assert all(gate.batches[at][1] <= 32 for at in pieces)
        assert all(later - earlier > 1 for earlier, later in itertools.pairwise(pieces))
        assert late.completion.token_ids == expected
        for _ in running:
            pass
        assert len(running.completion.token_ids) == 60


def test_a_prompt_runs_in_one_piece_if_no_row_waits(gate: Any, tokenizer: Any) -> None:
    with LocalEngine(gate, tokenizer, prefill_chunk=8) as engine:
        gate.batches.clear()
        unending(engine).generate([WORD * 200], max_new_tokens=1)
        assert len(gate.batches) == 1


def test_closing_a_stream_during_its_prompt_ends_the_prompt(gate: Any, tokenizer: Any, tiny: Any) -> None:
    with LocalEngine(gate, tokenizer, prefill_chunk=4) as engine:
        running = unending(engine).stream("Why do the leaves of a tree", max_new_tokens=300)
        next(running)
        gate.batches.clear()
        late = engine.stream(WORD * 200, max_new_tokens=4)
        tiny.eventually(lambda: any(tokens > 1 for _, tokens in gate.batches))
        late.close()
        tiny.eventually(lambda: engine.stats().cancelled == 1)
        seen = sum(tokens > 1 for _, tokens in gate.batches)
        assert seen < 400 / 4
        for _ in running:
            pass
        assert sum(tokens > 1 for _, tokens in gate.batches) == seen
        assert len(running.completion.token_ids) == 300


# --- numbers --------------------------------------------------------------------------------------


def test_statistics_add_up(llama: Any, tokenizer: Any) -> None:
    with LocalEngine(llama, tokenizer, prefix_cache_tokens=0) as engine:
        assert engine.stats().tokens_per_second == 0.0
        assert engine.stats().padding_share == 0.0
        prompts = ["Why", WORD * 40]
        done = unending(engine).generate(prompts, max_new_tokens=10)
        stats = engine.stats()
    assert stats.decode_tokens == sum(len(one.token_ids) for one in done) == 20
    assert stats.prefill_tokens == sum(tokens_of(tokenizer, prompt) for prompt in prompts)
    assert stats.completed == 2
    assert stats.kv_bytes <= stats.peak_kv_bytes
    assert stats.peak_kv_bytes > 0
    # One row of 40 tokens and one of few: nearly half of the slots of a step are empty.
    assert 0.3 < stats.padding_share < 0.5
    assert stats.prefill_seconds > 0
    assert stats.decode_seconds > 0
    assert 0 < stats.python_seconds < stats.prefill_seconds + stats.decode_seconds
    assert stats.tokens_per_second == pytest.approx(20 / stats.decode_seconds)


@pytest.mark.parametrize(
    ("worth", "prompts", "saved"),
    [
        (1, [b"abcde"], 0),
        (1, [b"abcX", b"abcY"], 3),
        (1, [b"abc", b"abc"], 2),  # the last token of a prompt is never shared
        (1, [b"aaaabbX", b"aaaabbY", b"aaaaccZ"], 2 * 4 + 2),
        (4, [b"aaaabbX", b"aaaabbY", b"aaaaccZ"], 2 * 4),
        (9, [b"aaaabbX", b"aaaabbY", b"aaaaccZ"], 0),
        (1, [b"ab", b"abcdX", b"abcdY"], 2 * 1 + 3),
        (1, [b"abcX", b"abcY", b"defX", b"defY", b"ghi"], 3 + 3),
    ],
)
def test_shared_tokens_counts_only_beginnings_worth_sharing(
    monkeypatch: pytest.MonkeyPatch, worth: int, prompts: list[bytes], saved: int
) -> None:
    monkeypatch.setattr(prefix, "_MIN_SEGMENT_BYTES", worth)
    assert shared_tokens(sorted(prompts), 1.0) == saved


def test_points_of_several_questions_share_their_questions_beginning(llama: Any, tokenizer: Any) -> None:
    examples, questions = WORD * 20, ("Why do leaves fall?", "Bread needs salt.", "Start early, rest.")
    tails = [[f"{question * 3}{point}" for point in "abc"] for question in questions]
    with LocalEngine(llama, tokenizer) as engine:
        # Several beginnings that have the examples in common, as earlier questions leave them.
        for question in ("1. Plan the day", "2. Start early", "3. Rest at noon"):
            engine.generate([examples + question], max_new_tokens=1)
        before = engine.stats().prefill_tokens
        engine.generate([examples + tail for group in tails for tail in group], max_new_tokens=1)
        computed = engine.stats().prefill_tokens - before
    once = sum(tokens_of(tokenizer, group[0]) for group in tails)
    own = sum(tokens_of(tokenizer, "a") + 2 for group in tails for _ in group)
    assert computed <= once + own


def test_a_failure_at_admission_ends_only_its_rows(llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> int:
        raise ZeroDivisionError("a mistake")

    with LocalEngine(llama, tokenizer) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(worker, "shared_tokens", broken)
            with pytest.raises(ZeroDivisionError, match="a mistake"):
                engine.generate([WORD * 3], max_new_tokens=2)
        assert engine.generate([WORD * 3], max_new_tokens=2)
