"""Batches of the chat model that are left: by Ctrl-C, by an error, or by their iterator. No answer goes on."""

from __future__ import annotations

import threading

import pytest
from always import skeleton_chain

from langchain_sot.chat_model import batches
from skeleton_of_thought.budget import Budget, Ended
from tests.shared.interrupting import (
    Starts,
    at_each_line,
    interrupt_after,
    interrupt_before,
    interrupt_that_becomes_an_error,
    no_thread,
    nothing_left,
    nothing_stale,
)

__all__ = ["nothing_stale"]

pytestmark = pytest.mark.usefixtures("nothing_stale")

QUESTIONS = ["A?", "B?", "C?"]


def slowly(seen):
    """Texts that take some milliseconds."""
    tick = threading.Event()
    for word in ["1. Move\n", "2. Rest"] if seen.stage == "skeleton" else ["on and "] * 10:
        tick.wait(0.0005)
        yield word


@pytest.fixture
def left(kit, monkeypatch):
    """A gate that opens when a batch is left."""
    gate, end = kit.Gate(), Budget.end

    def patched(budget):
        end(budget)
        gate.open()

    monkeypatch.setattr(Budget, "end", patched)
    return gate


def chat_model(llm, **settings):
    return skeleton_chain(llm=llm, max_retries=0, **settings).as_chat_model()


@pytest.mark.parametrize("way", ["batch", "batch_as_completed"])
def test_an_interrupt_at_any_line_of_a_batch_leaves_no_answer(kit, way):
    llm, runs = kit.Chat(script=slowly), kit.Runs()
    model = chat_model(llm)
    nothing = nothing_left(llm.watch)

    def answers():
        list(getattr(model, way)(QUESTIONS, {"callbacks": [runs]}))

    def check(where):
        nothing(where)
        assert set(runs.ended) == set(runs.started), where

    seen = at_each_line(answers, check, (batches.__file__, threading.__file__), step=1 if way == "batch" else 3)
    assert {"batches.py", "threading.py"} <= {line.partition(":")[0] for line in seen}
    assert len(llm.watch.seen) > 20  # many of the interrupts came while calls were open


@pytest.mark.parametrize("instead", [interrupt_before, interrupt_after, interrupt_that_becomes_an_error])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_an_interrupt_within_the_start_of_a_thread_leaves_no_answer(kit, monkeypatch, instead, which):
    llm = kit.Chat(script=slowly)
    starts = Starts(monkeypatch, which, instead, names="sot-answers")
    with pytest.raises(KeyboardInterrupt):
        chat_model(llm).batch(QUESTIONS)
    nothing_left(llm.watch)("start")
    assert starts.count == which


def test_answers_that_find_no_thread_are_made_in_the_threads_that_there_are(kit, monkeypatch):
    llm = kit.Chat(script=kit.answering(["Move", "Rest"]))
    Starts(monkeypatch, 2, no_thread, names="sot-answers")
    messages = chat_model(llm).batch(QUESTIONS)
    assert [message.text for message in messages] == ["1. Move: All about move.\n\n2. Rest: All about rest."] * 3


def test_a_batch_that_finds_no_thread_at_all_says_so(kit, monkeypatch):
    Starts(monkeypatch, 1, no_thread, names="sot-answers")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        chat_model(kit.Chat(script=slowly)).batch(QUESTIONS)


def test_the_first_error_ends_the_other_answers(kit, left):
    runs = kit.Runs()

    def script(seen):
        asked = " ".join(m.text for m in seen.messages)
        return [llm.watch.together(3), ValueError("boom")] if "B?" in asked else ["1. Move\n2. Rest", left]

    llm = kit.Chat(script=script)
    with pytest.raises(ValueError, match="boom"):
        chat_model(llm).batch(QUESTIONS, {"callbacks": [runs]})
    assert llm.watch.open == 0
    assert llm.watch.of("point") == []
    assert {type(error) for error in runs.errors.values()} == {ValueError, Ended}
    runs.assert_all_ended_before_the_root()


def test_an_iterator_that_is_closed_ends_the_other_answers(kit, left):
    def script(seen):
        asked = " ".join(m.text for m in seen.messages)
        return kit.answering(["Move"])(seen) if "B?" in asked else ["1. Move\n2. Rest", left]

    llm = kit.Chat(script=script)
    completed = chat_model(llm).batch_as_completed(QUESTIONS)
    position, _ = next(completed)
    completed.close()
    assert position == 1
    assert llm.watch.open == 0
    assert len(llm.watch.of("point")) == 1


def test_answers_that_wait_for_room_do_not_begin_after_the_first_error(kit):
    llm = kit.Chat(script=lambda seen: [ValueError("boom")])
    with pytest.raises(ValueError, match="boom"):
        chat_model(llm).batch(QUESTIONS, {"max_concurrency": 1})
    nothing_left(llm.watch)("the end")
    assert len(llm.watch.seen) == 1
