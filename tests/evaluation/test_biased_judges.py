"""Judges with a known bias, through the whole command: the report shows the bias, and the control finds the truth."""

from __future__ import annotations

import json
import random
import re

import pytest
from completion_server import CompletionServer
from scripted_cli import Script
from scripted_judge import texts_of

from skeleton_of_thought.cli import main

QUESTIONS = 24
BETTER = "certainly"
"""A word that the better answer has, in whatever form it is shown."""


class Answers(Script):
    """Plain normal answers and lists of five points, of any length; a share of the latter is better."""

    def __init__(self, truth: float) -> None:
        super().__init__()
        self.better = {number for number in range(1, QUESTIONS + 1) if number <= round(truth * QUESTIONS)}

    def text(self, call):
        number = int(re.search(r"Question number (\d+)", call.prompt.messages[-1].text)[1])
        if call.stage == "skeleton":
            return self.skeleton
        draw = random.Random(number)
        normal = draw.randint(60, 160)
        points = int(normal * draw.uniform(0.6, 1.9)) // 5
        if call.point is None:
            return said(normal, "n", better=number not in self.better)
        return said(points, call.point.index, better=number in self.better and call.point.index == 1)


def said(words, name, *, better):
    return " ".join([f"w{name}{word}" for word in range(words)] + [BETTER] * better) + "."


def is_list(text):
    return bool(re.search(r"(?m)^\d+\. ", text))


BIASES = {
    "first": lambda first, second: "A",
    "length": lambda first, second: "A" if len(first.split()) > len(second.split()) else "B",
    "lists": lambda first, second: {(True, False): "A", (False, True): "B"}.get((is_list(first), is_list(second))),
}


def judge(bias, share):
    """Follows its bias for a share of the pairs of texts, and says the truth for the others."""

    def reply(asked, model):
        _, first, second = texts_of(asked)
        biased = BIASES[bias](first, second) if random.Random(str(sorted((first, second)))).random() < share else None
        return f"I looked.\nVerdict: {biased or ('A' if BETTER in first else 'B')}"

    return reply


@pytest.mark.parametrize(
    ("bias", "share", "control"), [("first", 0.5, "length"), ("length", 0.6, "length"), ("lists", 1.0, "style")]
)
def test_the_report_shows_the_bias_and_the_controlled_rate_holds_the_truth(bias, share, control, tmp_path, capsys):
    truth = 1 / 3
    path, out = tmp_path / "questions.txt", tmp_path / "run"
    path.write_text("".join(f"Question number {number}?\n" for number in range(1, QUESTIONS + 1)))
    with CompletionServer(judge(bias, share)) as server:
        words = ["eval", path, "--out", out, "--ways", "normal,sot", "--no-warm-up", "--quiet", "--parallel", 2]
        words += ["--judge", f"openai:biased@{server.address}"]
        assert main([*map(str, words)], backend=Answers(truth).backend()) == 0
    report = json.loads((out / "report.json").read_text())
    written, plain = report["verdicts"]
    assert (written["form"], plain["form"], written["pairs"], plain["pairs"]) == (
        "written",
        "plain",
        QUESTIONS,
        QUESTIONS,
    )
    low, high = report["controlled"][0][control]["interval"]
    assert low <= truth <= high
    assert high - low < 0.7
    notes = " ".join(note["text"] for note in report["notes"] if note["kind"] == "judge")
    assert ("saw first" in notes) == ("changed the winner with the order" in notes) == (bias == "first")
    if bias == "first":
        assert written["first_place_interval"][0] > 0.5
        assert written["flips"] > QUESTIONS / 5
    elif bias == "length":
        assert written["interval"][0] > truth, "the raw rate takes the bias for the way"
        assert sum(report["controlled"][0]["length"]["effects"][name] for name in ("length", "longer")) > 0.6
    else:
        assert (written["rate"], plain["rate"]) == (1, pytest.approx(truth))
    capsys.readouterr()
