"""The values that travel through an answer: their sums, and their JSON."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from skeleton_of_thought import PromptSet
from skeleton_of_thought.types import Answer, Completion, Decoding, Hints, Reply, Span, Timings, Usage

alone = Decoding(waiting=0.5, prefill=1.0, decode=2.0, steps=10, mean_rows=1.0, output_tokens=11)
crowded = Decoding(waiting=0.25, prefill=0.5, decode=4.0, steps=30, mean_rows=5.0, output_tokens=31)
unrun = Decoding(waiting=3.0)


def test_the_pace_is_tokens_over_the_time_in_the_batch():
    assert alone.tokens_per_second == 5.5
    assert unrun.tokens_per_second == 0.0
    assert Decoding(decode=0.0, output_tokens=7).tokens_per_second == 0.0


def test_a_sum_of_decoding_weighs_rows_by_steps():
    assert alone + crowded == Decoding(0.75, 1.5, 6.0, 40, 4.0, 42)
    assert alone + unrun == Decoding(3.5, 1.0, 2.0, 10, 1.0, 11)
    assert alone + Decoding() == alone
    assert unrun + unrun == Decoding(waiting=6.0)


@pytest.mark.parametrize("order", list(permutations([alone, crowded, unrun])))
def test_a_sum_of_decoding_is_the_same_in_any_order(order):
    assert sum(order, Decoding()) == Decoding(3.75, 1.5, 6.0, 40, 4.0, 42)


def test_backends_may_omit_decoding():
    assert Reply().decoding is None
    assert Completion("", (), "stop", Usage()).decoding is None
    assert Timings().decoding == {}


def test_timings_become_json_with_the_pace():
    timings = Timings(4.0, None, {"skeleton": Span(0.0, 1.0)}, {"skeleton": alone})
    data = Answer("", "", "direct", timings=timings).to_dict()["timings"]
    assert json.loads(json.dumps(data)) == {
        "total": 4.0,
        "first_text": None,
        "stages": {"skeleton": {"start": 0.0, "end": 1.0, "first": None}},
        "decoding": {
            "skeleton": {
                "waiting": 0.5,
                "prefill": 1.0,
                "decode": 2.0,
                "steps": 10,
                "mean_rows": 1.0,
                "output_tokens": 11,
                "tokens_per_second": 5.5,
            }
        },
        "points": [],
    }


def test_events_are_still_found_among_the_types() -> None:
    from skeleton_of_thought import events, types

    assert types.AnswerDone is events.AnswerDone
    with pytest.raises(AttributeError, match="NoSuchEvent"):
        _ = types.NoSuchEvent


def test_modules_that_moved_are_found_by_their_old_names() -> None:
    code = (
        "import importlib.util, skeleton_of_thought.auto\n"
        "from skeleton_of_thought.cost import *\n"
        "from skeleton_of_thought.routers.cost import CostGuard as now\n"
        "print(skeleton_of_thought.auto.AutoRouter.__name__, CostGuard is now)\n"
        "print(importlib.util.find_spec('skeleton_of_thought.routing').name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AutoRouter", "True", "skeleton_of_thought.routing"]


def test_prompts_that_0_1_pickled_get_their_hints() -> None:
    dumps = Path(__file__).parents[1] / "data" / "dumps"
    prompts = pickle.loads((dumps / "prompt_set.pickle").read_bytes())
    assert prompts == PromptSet()
    prompt = pickle.loads((dumps / "prompt.pickle").read_bytes())
    assert (prompt.prefill, prompt.hints) == ("1.", Hints(stop=("END",), max_tokens=7, frequency_penalty=0.5))
