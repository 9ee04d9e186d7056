"""The embedded router: its decisions on our own questions, its weights, its training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.embedded import BUCKETS, EmbeddedRouter, Weights, features
from skeleton_of_thought.routers.measures import LabelledQuestion, best_threshold, majority, measure, read_labels
from skeleton_of_thought.routers.question import LANGUAGES, read_question
from skeleton_of_thought.routers.training import _calibrate, train_embedded
from skeleton_of_thought.types import Conversation, Message

DATA = Path(__file__).parent.parent / "data" / "router_questions.csv"
OWN = read_labels(DATA)
HELD_OUT = read_labels(DATA.with_name("router_heldout.csv"))
"""Questions of our own that no weights are trained on, set aside before the first measurement."""
SHIPPED = Path(sys.modules[EmbeddedRouter.__module__].__file__ or "").with_name("embedded_router.bin")

UNSEEN = {
    True: [
        "What are the advantages of keeping chickens?",
        "How can I get better at drawing hands?",
        "What is the difference between jam and marmalade?",
        "What if rivers ran uphill?",
        "Give me tips for a job interview in a bank.",
        "Welche Nachteile hat ein Pool im Garten?",
        "Quels sont les effets du café sur le sommeil ?",
        "¿Cuáles son las ventajas de viajar en tren?",
        "Quali sono i vantaggi di vivere in campagna?",
        "Quais são os benefícios de andar de bicicleta?",
        "Wat zijn de voordelen van een elektrische fiets?",
        "Какие преимущества у электромобилей?",
        "骑自行车有哪些好处？",
        "自転車通勤の利点は何ですか？",
    ],
    False: [
        "Write a poem about a lamp.",
        "What is 8 times 12?",
        "Who invented the bicycle?",
        "Implement quicksort in Haskell.",
        "Is glass a liquid?",
        "Translate 'bicycle' into Danish.",
        "Schreibe ein Gedicht über eine Lampe.",
        "Qui a inventé le vélo ?",
        "¿Quién inventó la bicicleta?",
        "Scrivi una poesia su una lampada.",
        "Escreva um poema sobre uma lâmpada.",
        "Schrijf een gedicht over een lamp.",
        "Напиши стихотворение о лампе.",
        "写一首关于灯的诗。",
        "ランプについての詩を書いてください。",
    ],
}


@pytest.mark.parametrize(("label", "question"), [(label, q) for label, of in UNSEEN.items() for q in of])
def test_the_router_decides_questions_outside_its_training_data(label, question):
    assert question not in {one.question for one in OWN}
    assert EmbeddedRouter().route(Conversation.of(question)).use_skeleton is label


def test_the_router_learns_every_form_and_language_of_our_questions():
    router = EmbeddedRouter()
    wrong = Counter(q.form for q in OWN if (router.score(q.question) >= router.threshold) != q.use_skeleton)
    assert sum(wrong.values()) <= len(OWN) / 50, wrong
    assert {q.language for q in OWN} == set(LANGUAGES)


def test_questions_held_out_from_training_are_decided_as_labelled():
    router = EmbeddedRouter()
    scores = [router.score(one.question) for one in HELD_OUT]
    labels = [one.use_skeleton for one in HELD_OUT]
    found = measure([score >= router.threshold for score in scores], labels, scores)
    assert found.accuracy >= 0.9, found
    assert found.false_positives <= 10, found


def test_no_question_is_labelled_twice_or_both_trained_on_and_held_out():
    def plain(text):
        return " ".join(re.findall(r"\w+", text.casefold()))

    counts = Counter(plain(one.question) for one in [*OWN, *HELD_OUT])
    assert [text for text, count in counts.items() if count > 1] == []
    assert {one.form for one in HELD_OUT} <= {one.form for one in OWN}


def test_the_end_of_a_long_text_counts():
    story = "We moved here in May. The house is old and the garden is large. My wife likes it. "
    router = EmbeddedRouter()
    points, fact = (
        router.score(story + ask)
        for ask in ("What are the benefits of a large garden?", "In which year did the house get its roof?")
    )
    assert fact < router.threshold <= points


def test_a_question_that_refers_to_an_answer_scores_lower_after_one():
    router = EmbeddedRouter()
    history = (Message("user", "Name two trees."), Message("assistant", "Oak and lime."))
    asked = Conversation.of("What about the second one?", history=history)
    assert router.route(asked).use_skeleton is False
    whole = Conversation.of("What are the benefits of planting trees in cities?", history=history)
    assert router.route(whole).use_skeleton is True


def test_the_threshold_is_adjustable_and_checked():
    question = Conversation.of("What are the benefits of tea?")
    score = EmbeddedRouter().route(question).score
    assert score is not None
    assert 0 < score < 1
    assert EmbeddedRouter(1.0).route(question).use_skeleton is False
    assert EmbeddedRouter(0.0).route(Conversation.of("2 + 2?")).use_skeleton is True
    for wrong in (-0.1, 1.1):
        with pytest.raises(InvalidInput, match="threshold"):
            EmbeddedRouter(wrong)


@pytest.mark.parametrize("text", ["", " ", "?", "\x00", "a" * 100_000, "🙂" * 50, "1" * 500, "\n" * 300 + "why"])
def test_any_text_gets_a_score(text):
    assert 0 <= EmbeddedRouter().score(text) <= 1
    assert all(0 <= bucket < BUCKETS for bucket, _ in features(read_question(text)))


def test_the_weights_are_small_and_hold_no_words():
    data = SHIPPED.read_bytes()
    assert len(data) < 150_000
    weights = Weights.from_bytes(data)
    assert len(weights.buckets) == BUCKETS
    strings = {value for value in weights.about.values() if isinstance(value, str)}
    assert not strings
    head = data[4 : data.index(b"}") + 2].decode()
    assert set(re.findall(r'"(\w+)":', head)) <= {
        "format", "unit", "bias", "slope", "offset", "threshold", "about", "questions", "seed",
    }  # fmt: skip


def test_an_invalid_weights_file_is_refused(tmp_path):
    bad = tmp_path / "bad.bin"
    for content in (b"", b"\x02\x00\x00\x00{}", b"\xff" * 40):
        bad.write_bytes(content)
        with pytest.raises(InvalidInput, match="sot train-router"):
            EmbeddedRouter(weights=bad)
    with pytest.raises(InvalidInput):
        EmbeddedRouter(weights=tmp_path / "none.bin")


SMALL = [one for one in OWN if one.language == "nl"]


class TestTraining:
    def test_training_is_repeatable_and_its_weights_load(self, tmp_path):
        first, second = (train_embedded({"nl": SMALL}, seed=3) for _ in range(2))
        assert first.weights == second.weights
        router, baseline = first.by_source["nl"]
        assert router.accuracy > baseline.accuracy
        path = tmp_path / "own.bin"
        first.weights.write(path)
        loaded = EmbeddedRouter(weights=path)
        assert loaded.threshold == first.weights.threshold
        right = [(loaded.score(q.question) >= loaded.threshold) == q.use_skeleton for q in SMALL]
        assert sum(right) > 0.9 * len(right)

    def test_calibration_weighs_each_question_by_its_share(self):
        sums, labels = [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], [False, False, True, False, True, True]
        alone = _calibrate(sums, labels, [1.0] * 6)
        others = _calibrate([*sums, -3.0, 3.0], [*labels, True, False], [1.0] * 6 + [0.0] * 2)
        assert others == pytest.approx(alone)
        assert _calibrate([*sums, -3.0, 3.0], [*labels, True, False], [1.0] * 8)[0] < alone[0]

    def test_too_few_questions_are_refused(self):
        with pytest.raises(InvalidInput, match="either label"):
            train_embedded({"one": [LabelledQuestion("What is tea?", False)] * 20})

    def test_the_command_writes_weights_and_a_report(self, tmp_path):
        labels = tmp_path / "labels.csv"
        lines = DATA.read_text(encoding="utf-8").splitlines(keepends=True)
        labels.write_text(lines[0] + "".join(line for line in lines if ",nl," in line), encoding="utf-8")
        out = tmp_path / "own.bin"
        command = ["train-router", "--embedded", "--data", str(labels), "--test", str(labels), "--out", str(out)]
        done = subprocess.run(
            [sys.executable, "-m", "skeleton_of_thought", *command], capture_output=True, text=True, check=True
        )
        report = json.loads(done.stdout)
        assert report["test"]["questions"] == len(SMALL)
        assert {"router", "majority"} == set(report["cross_validation"]["labels"])
        assert EmbeddedRouter(weights=out).threshold == report["threshold"]


class TestMeasures:
    def test_measures_report_counts_and_shares(self):
        found = measure([True, True, False, False], [True, False, False, True], [0.9, 0.8, 0.1, 0.2])
        assert (found.true_positives, found.false_positives, found.true_negatives, found.false_negatives) == (
            1,
            1,
            1,
            1,
        )
        assert (found.accuracy, found.precision, found.recall, found.tversky) == (0.5, 0.5, 0.5, 0.5)
        assert found.brier == pytest.approx((0.01 + 0.64 + 0.01 + 0.64) / 4)
        assert found.calibration == pytest.approx((0.1 + 0.8 + 0.1 + 0.8) / 4)
        assert majority([True, False, False]).accuracy == pytest.approx(2 / 3)

    def test_a_false_positive_costs_more_than_a_false_negative(self):
        # One question of either label: the threshold avoids the false positive.
        assert best_threshold([0.3, 0.5, 0.4, 0.9], [False, False, True, True]) > 0.5

    @pytest.mark.parametrize("text", ["question\nWhy?\n", "label,question\n2,Why?\n", "label,question\n1,\n", ""])
    def test_bad_labels_are_refused(self, tmp_path, text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        with pytest.raises(InvalidInput, match="labels"):
            read_labels(path)
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_labels(tmp_path / "none.csv")
