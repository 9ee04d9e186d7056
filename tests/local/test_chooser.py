"""A batch's tokens are chosen together, and each row gets the same tokens as alone."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from skeleton_of_thought.local import chooser as chooser_module
from skeleton_of_thought.local.chooser import Chooser
from skeleton_of_thought.local.codec import EncodedPrompt
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.sampling import RowSampler, SamplingParams
from skeleton_of_thought.types import Completion

VOCABULARY = 90


class Silence:
    """A sink that keeps all text and results."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.results: list[Completion | BaseException] = []

    def text(self, piece: str) -> bool:
        self.pieces.append(piece)
        return True

    def end(self, result: Completion | BaseException) -> None:
        self.results.append(result)


def letters(ids: Sequence[int]) -> str:
    return "".join(chr(33 + token) for token in ids)


def make_row(prompt: Sequence[int] = (1, 2, 3), *, limit: int = 1000, eos: Sequence[int] = (), **given: Any) -> Row:
    return Row(
        EncodedPrompt(tuple(prompt)),
        SamplingParams(**given),
        limit=limit,
        eos_ids=frozenset(eos),
        decode=letters,
        sink=Silence(),
    )


def noise(seed: int, rows: int = 1, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def model(row: Row) -> torch.Tensor:
    """Logits that depend on the row's text alone."""
    return noise(hash((row.prompt_ids, tuple(row.output_ids))) % 2**31)


def step(chooser: Chooser, rows: Sequence[Row]) -> None:
    chooser.choose(rows, torch.cat([model(row) for row in rows]))


def text_alone(tokens: int, **given: Any) -> list[int]:
    row, chooser = make_row(**given), Chooser()
    while len(row.output_ids) < tokens and not row.finished:
        step(chooser, [row])
    return row.output_ids


def plainly(row: Row, logits: torch.Tensor) -> torch.Tensor:
    """The logits under a row's settings, computed in the simplest form."""
    params, logits = row.sampler.params, logits.clone()
    for token in range(len(logits)):
        count = row.output_ids.count(token)
        if token in row.prompt_ids or count:
            penalty = params.repetition_penalty
            logits[token] = logits[token] * penalty if logits[token] < 0 else logits[token] / penalty
        logits[token] -= params.frequency_penalty * count + params.presence_penalty * (count > 0)
        if token in row.sampler.eos_ids and len(row.output_ids) < params.min_new_tokens:
            logits[token] = -torch.inf
    return logits


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.sampled_from([0.7, 1.0, 1.3]),
        "frequency_penalty": st.sampled_from([0.0, 0.4, -0.2]),
        "presence_penalty": st.sampled_from([0.0, 0.6]),
        "min_new_tokens": st.integers(0, 6),
        "temperature": st.sampled_from([0.0, 0.6, 1.5]),
        "top_p": st.sampled_from([0.3, 0.9, 1.0]),
        "top_k": st.sampled_from([0, 1, 2, 40, 500]),
        "seed": st.integers(0, 3),
        "prompt": st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12).map(tuple),
        "eos": st.just((4, VOCABULARY + 9)),
    },
)


def seeded(given: dict[str, Any]) -> dict[str, Any]:
    return {"seed": 5, **given}


@settings(max_examples=60, deadline=None)
@given(st.lists(SETTINGS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_rows_that_join_and_leave_keep_the_text_that_they_have_alone(
    every: list[dict[str, Any]], chance: random.Random
) -> None:
    waiting = [make_row(limit=12, **seeded(given)) for given in every]
    everyone, batch, chooser = list(waiting), [], Chooser()
    while waiting or batch:
        while waiting and (not batch or chance.random() < 0.4):
            batch.append(waiting.pop())
        if chance.random() < 0.3:
            chance.shuffle(batch)
        if chance.random() < 0.2:
            step(chooser, batch[:1])  # as when a prompt's first token is chosen separately
            batch = [row for row in batch if not row.finished]
        if batch:
            step(chooser, batch)
        batch = [row for row in batch if not row.finished]
    assert [row.output_ids for row in everyone] == [text_alone(12, limit=12, **seeded(given)) for given in every]


@settings(max_examples=40, deadline=None)
@given(st.lists(SETTINGS, min_size=1, max_size=5))
def test_greedy_rows_take_the_likeliest_under_their_penalties(every: list[dict[str, Any]]) -> None:
    rows = [make_row(**{**given, "temperature": 0.0}) for given in every]
    chooser = Chooser()
    for _ in range(15):
        rows = [row for row in rows if not row.finished]
        if not rows:
            break
        expected = [int(plainly(row, model(row)[0]).argmax()) for row in rows]
        step(chooser, rows)
        assert [row.output_ids[-1] for row in rows] == expected


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ({"frequency_penalty": 1.0}, [1, 2, 1, 2]),  # counts what was generated, not the prompt
        ({"presence_penalty": 1.0}, [1, 2, 1, 1]),  # counts a token once
        ({"repetition_penalty": 1.5}, [2, 1, 1, 1]),  # counts the prompt too
        ({"min_new_tokens": 2, "eos": [1, 2]}, [0, 0, 1]),  # and then greedily
    ],
)
def test_penalties_and_minimum_lengths_change_the_chosen_tokens(given: dict[str, Any], tokens: list[int]) -> None:
    row, chooser, logits = make_row([1, 1, 1], **given), Chooser(), torch.tensor([[0.0, 2.5, 1.8]])
    for _ in tokens:
        chooser.choose([row], logits)
    assert row.output_ids == tokens


def test_penalties_follow_a_text_beyond_the_allocated_length() -> None:
    given: dict[str, Any] = {"frequency_penalty": 0.5, "repetition_penalty": 1.1}
    row, chooser, vocabulary = make_row(**given), Chooser(), 400
    for turn in range(150):
        logits = noise(turn, vocabulary=vocabulary)
        expected = int(plainly(row, logits[0]).argmax())
        chooser.choose([row], logits)
        assert row.output_ids[-1] == expected
    assert len(set(row.output_ids)) > 64


def test_the_logits_are_left_as_they_were() -> None:
    rows = [
        make_row(presence_penalty=1.0, min_new_tokens=9, eos=[0]),
        make_row(repetition_penalty=1.5, temperature=1.0),
    ]
    logits, chooser = noise(3, rows=2), Chooser()
    before = logits.clone()
    for _ in range(3):
        chooser.choose(rows, logits)
    assert torch.equal(logits, before)


def test_penalties_are_laid_out_once_while_the_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(chooser_module._Changes):
        def __init__(self, rows: Sequence[tuple[int, Row]], vocabulary: int, device: torch.device) -> None:
            made.append(len(rows))
            super().__init__(rows, vocabulary, device)

    monkeypatch.setattr(chooser_module, "_Changes", Counted)
    ending = make_row(limit=10, repetition_penalty=1.2)
    rows = [make_row(), make_row(min_new_tokens=20, eos=[0]), make_row(frequency_penalty=0.1), ending]
    chooser = Chooser()
    while not ending.finished:
        step(chooser, rows)
    rows.remove(ending)
    for _ in range(25):
        step(chooser, rows)
    assert made == [3, 2, 1]  # until one row ends, until another may end, and after that


def test_plain_greedy_rows_cost_one_argmax() -> None:
    rows, chooser = [make_row(), make_row(min_new_tokens=1, eos=[0]), make_row()], Chooser()
    logits = noise(1, rows=3).double()  # not float32, for which numpy would do the work unseen
    chooser.choose(rows, logits)
    with Operations() as operations:
        chooser.choose(rows, logits)
    assert operations.names == ["aten.argmax.default"]


class Operations(TorchDispatchMode):
    """Records the names of tensor operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Broken(Silence):
    """A sink that fails on the first text."""

    def text(self, piece: str) -> bool:
        raise ValueError("the text goes nowhere")


class Loaded(RowSampler):
    """A sampler that fails at the third draw."""

    def draw(self, step: int) -> float:
        if step == 2:
            raise OverflowError("no more numbers")
        return super().draw(step)


def test_an_error_of_one_row_fails_that_row_alone() -> None:
    given: dict[str, Any] = {"temperature": 0.8, "seed": 2, "frequency_penalty": 0.5}
    good, broken, loaded, plain = make_row(**given), make_row(), make_row(**given), make_row()
    broken._sink = Broken()
    loaded.sampler = Loaded(loaded.sampler.params, loaded.prompt_ids)
    chooser, rows = Chooser(), [good, broken, loaded, plain]
    while rows and len(good.output_ids) < 6:
        step(chooser, rows)
        rows = [row for row in rows if not row.finished]
    assert isinstance(broken.result, ValueError)
    assert isinstance(loaded.result, OverflowError)
    assert len(loaded.output_ids) == 2
    assert good.output_ids == text_alone(6, **given)
    assert plain.output_ids == text_alone(6)


@pytest.mark.parametrize("given", [{}, {"top_p": 0.9}, {"top_k": 5}])
def test_nan_logits_are_not_sampled(given: dict[str, Any]) -> None:
    sick, well = make_row(temperature=1.0, **given), make_row(temperature=1.0, seed=1, **given)
    logits = torch.cat([torch.full((1, VOCABULARY), torch.nan), noise(8)])
    Chooser().choose([sick, well], logits)
    assert isinstance(sick.result, ArithmeticError)
    assert len(well.output_ids) == 1


def test_finished_rows_are_not_kept_alive() -> None:
    rows, chooser = [make_row(limit=1), make_row()], Chooser()
    gone = weakref.ref(rows[0])
    step(chooser, rows)
    assert rows[0].finished
    del rows[0]
    gc.collect()
    assert gone() is None


def test_a_row_in_the_place_of_another_gets_its_own_penalties() -> None:
    chooser = Chooser()
    for turn in range(40):  # often enough for a new row to get an old one's address
        row = make_row([turn], presence_penalty=50.0, repetition_penalty=1.3)
        for _ in range(3):
            expected = int(plainly(row, model(row)[0]).argmax())
            step(chooser, [row])
            assert row.output_ids[-1] == expected
        if turn % 2:
            chooser.clear()


def test_a_batch_without_rows_does_no_work() -> None:
    Chooser().choose([], torch.empty(0, VOCABULARY))
