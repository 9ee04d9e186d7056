"""States of models with caches of their own kind: kept for later prompts, counted as memory, copied and stacked."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
import transformers as hf
from own_cache_models import (
    BEGINNING,
    KINDS,
    LASTING,
    LONG,
    SHARED,
    SHORT,
    TOKENS,
    Subject,
    Tokens,
    alone,
    done,
    letters,
    of,
    subject_of,
)

from skeleton_of_thought.local.own_cache import RowState, stacked
from skeleton_of_thought.local.snapshots import Snapshot, SnapshotStore


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return of(request.param)


# --- kept states ------------------------------------------------------------------------------------


def test_a_common_beginning_runs_once(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    with subject.engine() as engine:
        count = Tokens(engine, monkeypatch)
        completions = engine.generate(SHARED, max_new_tokens=1)
        cached = [completion.usage.cached_tokens for completion in completions]
        if engine._runner._own.pieces:
            assert cached == [0, len(BEGINNING), len(BEGINNING)]
            assert count.total == len(BEGINNING) + 3 + 3 + 5
            assert engine.stats().prefix_tokens_reused == 2 * len(BEGINNING)
        else:
            assert cached == [0, 0, 0]


@pytest.mark.parametrize("name", ["a list of tensors", "no positions"])
def test_a_follow_up_continues_the_state_of_the_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of(name)
    with subject.engine() as engine:
        engine.generate([LASTING], max_new_tokens=LONG)
        count = Tokens(engine, monkeypatch)
        completion = engine.generate([subject.follow_up], max_new_tokens=TOKENS)[0]
        # The last token of the answer was chosen, but not run.
        assert completion.usage.cached_tokens == len(LASTING) + LONG - 1
        assert count.total == 1 + 3 + TOKENS - 1
    assert completion.token_ids == subject.texts[subject.follow_up]


def test_prompts_that_come_one_by_one_share_the_beginning_from_the_third_on(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of("a list of tensors")
    with subject.engine() as engine:
        cached = [engine.generate([prompt], max_new_tokens=1)[0].usage.cached_tokens for prompt in SHARED]
    # A state cannot be cut: the second prompt shows where they part.
    assert cached == [0, 0, len(BEGINNING)]


def test_states_that_need_single_tokens_are_continued_only_where_that_is_short() -> None:
    subject = of("tensors in modules")
    long = letters(70, 20)
    with subject.engine() as engine:
        assert not engine._runner._own.pieces
        engine.generate([long], max_new_tokens=1)
        near, far = long + letters(2, 21), long + letters(9, 22)
        completions = engine.generate([near], max_new_tokens=TOKENS) + engine.generate([far], max_new_tokens=TOKENS)
    assert [completion.usage.cached_tokens for completion in completions] == [len(long), 0]
    assert [completion.token_ids for completion in completions] == [alone(subject.model, p)[0] for p in (near, far)]


def test_no_state_is_kept_without_room(subject: Subject) -> None:
    with subject.engine(prefix_cache_tokens=0) as engine:
        assert done(engine, SHARED) == subject.expected(SHARED)
        assert done(engine, [LASTING], LONG) == subject.expected([LASTING])
        assert engine.generate([subject.follow_up], max_new_tokens=1)[0].usage.cached_tokens == 0
        assert engine.stats().kv_bytes == 0


def test_new_weights_drop_the_states_of_the_old_ones() -> None:
    subject = subject_of(KINDS["a list of tensors"])
    with subject.engine() as engine:
        assert done(engine, SHARED) == subject.expected(SHARED)
        with torch.no_grad():
            subject.model.head.weight.mul_(-1)
            subject.model.rwkv.blocks[0].attention.key.weight.mul_(0.5)
        expected = [alone(subject.model, prompt)[0] for prompt in SHARED]
        assert expected != subject.expected(SHARED)
        completions = engine.generate(SHARED[:1], max_new_tokens=TOKENS)
        assert completions[0].usage.cached_tokens == 0
        assert done(engine, SHARED) == expected


def test_a_checkpoint_forgets_later_states() -> None:
    subject = of("a list of tensors")
    with subject.engine() as engine:
        engine.generate([BEGINNING], max_new_tokens=1)
        restore = engine.checkpoint()
        engine.generate([LASTING], max_new_tokens=1)
        restore()
        again = [engine.generate([text + letters(3, 5)], max_new_tokens=1)[0] for text in (BEGINNING, LASTING)]
    assert [completion.usage.cached_tokens for completion in again] == [len(BEGINNING), 0]


# --- memory -----------------------------------------------------------------------------------------


def test_a_state_that_does_not_grow_takes_no_memory_per_token() -> None:
    subject = of("a list of tensors")
    state = 5 * 32 * 2 * 4
    with subject.engine(kv_memory=2 * state + 4096, prefix_cache_tokens=0) as engine:
        held = []
        for length in (10, 150):
            stream = engine.stream(letters(length, 40), max_new_tokens=20)
            held.extend(engine._worker._lanes["separate"].kv_bytes() for _ in stream)
        assert set(held) - {0} == {state}
        assert engine.stats().completed == 2


def test_rows_wait_for_the_memory_of_their_states() -> None:
    subject = of("a list of tensors")
    state = 5 * 32 * 2 * 4
    with subject.engine(kv_memory=2 * state + 400, prefix_cache_tokens=0) as engine:
        assert done(engine, [*SHORT, SHORT[0]]) == subject.expected([*SHORT, SHORT[0]])
        assert engine.stats().peak_batch_size == 2


def test_the_users_model_keeps_the_tensors_in_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(KINDS["tensors in modules"])

    def states() -> list[Any]:
        return [module.conv1d_state for module in subject.model.modules() if hasattr(module, "conv1d_state")]

    with subject.engine() as engine:
        before = states()
        assert done(engine, SHORT) == subject.expected(SHORT)
    assert len(before) > 0
    assert all(a is b for a, b in zip(before, states(), strict=True))


# --- states as values -------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["first", "second"])


class Holder:
    def __init__(self, tensor: torch.Tensor, config: Any) -> None:
        self.parts = {"a": tensor, "b": [Pair(tensor + 1, None), 3]}
        self.alias = tensor
        self.config = config


def holder(rows: int, value: float) -> RowState:
    config = hf.LlamaConfig()
    return RowState([4] * rows, {"cache": Holder(torch.full((rows, 2), value), config)}, [torch.zeros(rows, 1)])


def test_a_copy_of_a_state_shares_no_tensor_and_keeps_its_structure() -> None:
    state = holder(1, 1.0)
    copied = state.copied()
    one, other = state.given["cache"], copied.given["cache"]
    one.parts["a"].fill_(9)
    one.parts["b"].append("later")
    assert isinstance(other, Holder)
    assert isinstance(other.parts["b"][0], Pair)
    assert other.parts["a"].tolist() == [[1, 1]]
    assert len(other.parts["b"]) == 2
    assert other.alias is other.parts["a"]
    assert other.config is one.config


def test_states_are_stacked_and_selected_by_rows() -> None:
    config = hf.LlamaConfig()
    states = [RowState([n], {"cache": Holder(torch.full((1, 2), float(n)), config)}) for n in (4, 7)]
    both = stacked(*states)
    assert both is not None
    assert both.lengths == [4, 7]
    assert both.given["cache"].parts["a"].tolist() == [[4, 4], [7, 7]]
    left = both.selected([1])
    assert (left.lengths, left.given["cache"].parts["b"][0].first.tolist()) == ([7], [[8, 8]])


@pytest.mark.parametrize("change", ["shape", "type", "number", "structure"])
def test_states_that_do_not_fit_are_not_stacked(change: str) -> None:
    one, other = holder(1, 1.0), holder(1, 2.0)
    cache = other.given["cache"]
    if change == "shape":
        cache.parts["a"] = torch.zeros(1, 3)
    elif change == "type":
        cache.parts["a"] = torch.zeros(1, 2, dtype=torch.float64)
    elif change == "number":
        cache.parts["b"][1] = 4
    else:
        cache.parts["c"] = None
    assert stacked(one, other) is None


def test_the_store_of_states_keeps_what_was_used_last() -> None:
    def snapshot(*ids: int) -> Snapshot:
        return Snapshot(tuple(ids), holder(1, 0.0))

    store = SnapshotStore(30)
    first, second = snapshot(*range(10)), snapshot(*range(5), *range(50, 55))
    store.add(first)
    store.add(second)
    assert store.find((*range(10), 11, 12)) is first
    assert store.find(tuple(range(10))) is None  # nothing is left to run
    assert store.find(tuple(range(9))) is None
    store.add(snapshot(*range(20, 35)))
    assert store.find((*second.ids, 1)) is None
    assert store.find((*first.ids, 1)) is first
    assert not store.wants(tuple(range(31)))
    store.clear()
    assert store.held == ()
