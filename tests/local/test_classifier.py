"""Sequence classifiers as routers, on a tiny encoder with random weights: no network."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("torch", reason="the extra local is not installed")

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import skeleton_of_thought
from skeleton_of_thought.cli import main
from skeleton_of_thought.errors import InvalidInput, ModelLoadError
from skeleton_of_thought.routers.classifier import ClassifierRouter, encode, train_classifier, tversky_loss
from skeleton_of_thought.routers.measures import LabelledQuestion
from skeleton_of_thought.types import Conversation

SUITED = [f"tips for {thing}" for thing in ("sleep", "work", "sport", "tea", "trips", "boats", "cats", "dogs")]
UNSUITED = [
    f"write poem about {thing}" for thing in ("sleep", "work", "sport", "tea", "trips", "boats", "cats", "dogs")
]
LABELLED = [LabelledQuestion(q, True) for q in SUITED] * 3 + [LabelledQuestion(q, False) for q in UNSUITED] * 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A directory with a tiny encoder and a tokenizer of whole words."""
    words = sorted({word for question in SUITED + UNSUITED for word in question.split()} | {"first", "last", "."})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=2,
    )
    path = tmp_path_factory.mktemp("encoder")
    BertForSequenceClassification(config).save_pretrained(path)
    fast.save_pretrained(path)
    return path


def test_scores_are_the_same_alone_and_in_a_batch(base):
    router = ClassifierRouter.from_pretrained(base)
    questions = [*SUITED, *UNSUITED, "tea", "tips " * 200]
    alone = [router.scores([question])[0] for question in questions]
    assert router.scores(questions, batch_size=5) == pytest.approx(alone, abs=1e-5)
    assert all(0 < score < 1 for score in alone)
    assert router.scores([]) == []


def test_a_long_question_keeps_its_beginning_and_its_end(base):
    router = ClassifierRouter.from_pretrained(base, max_length=24)
    text = "first " + "tea " * 500 + "last"
    ids = encode(router._tokenizer, [text, "tea"], 24)["input_ids"]
    tokens = router._tokenizer.convert_ids_to_tokens(ids[0])
    assert len(tokens) <= 24
    assert (tokens[0], tokens[1]) == ("[CLS]", "first")
    assert "last" in tokens


def test_the_models_positions_limit_the_length(base):
    assert 0 < ClassifierRouter.from_pretrained(base, max_length=4096).scores(["tea " * 5000])[0] < 1


def test_one_logit_is_a_probability_and_the_positive_class_is_selectable(base):
    other = BertForSequenceClassification.from_pretrained(base, num_labels=1, ignore_mismatched_sizes=True)
    router = ClassifierRouter.from_pretrained(base)
    single = ClassifierRouter(other, router._tokenizer)
    assert 0 < single.scores(["tea"])[0] < 1
    flipped = ClassifierRouter.from_pretrained(base, positive=0)
    assert flipped.scores(["tea"])[0] == pytest.approx(1 - router.scores(["tea"])[0], abs=1e-5)


def test_threads_and_the_event_loop_get_the_same_scores(base):
    router = ClassifierRouter.from_pretrained(base, threshold=0.0)
    expected = router.scores(SUITED)
    found: dict[int, list[float]] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: router.scores(SUITED)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(scores == pytest.approx(expected, abs=1e-5) for scores in found.values())
    decision = asyncio.run(router.aroute(Conversation.of(SUITED[0])))
    assert decision == router.route(Conversation.of(SUITED[0]))
    assert decision.use_skeleton is True


def test_unusable_models_and_settings_are_refused(base, tmp_path):
    with pytest.raises(ModelLoadError):
        ClassifierRouter.from_pretrained(tmp_path / "none")
    for wrong in ({"threshold": 2.0}, {"positive": 5}):
        with pytest.raises(InvalidInput):
            ClassifierRouter.from_pretrained(base, **wrong)


def test_the_core_exports_the_classifier_router():
    assert skeleton_of_thought.ClassifierRouter is ClassifierRouter


class TestTraining:
    def test_a_false_positive_costs_more_than_a_false_negative(self):
        labels = torch.tensor([1.0, 0.0])
        positive, negative = (
            tversky_loss(torch.tensor([1.0, 1.0]), labels),
            tversky_loss(torch.tensor([0.0, 0.0]), labels),
        )
        assert tversky_loss(labels, labels) == 0
        assert positive > 0
        many = torch.tensor([1.0] * 5 + [0.0] * 5)
        one_more, one_less = many.clone(), many.clone()
        one_more[5], one_less[0] = 1.0, 0.0
        assert tversky_loss(one_more, many) > 0
        assert negative > 0

    def test_training_learns_saves_and_reports(self, base, tmp_path):
        messages: list[str] = []
        report = train_classifier(
            LABELLED,
            base=base,
            out=tmp_path / "out",
            test=LABELLED[:4],
            epochs=12,
            learning_rate=5e-3,
            report=messages.append,
        )
        assert report["held_out"]["router"]["accuracy"] == 1.0
        assert report["test"]["majority"]["questions"] == 4
        assert report["milliseconds"] > 0
        assert messages
        router = ClassifierRouter.from_pretrained(tmp_path / "out")
        assert router.threshold == report["threshold"]
        assert router.route(Conversation.of("tips for boats")).use_skeleton is True
        assert router.route(Conversation.of("write poem about boats")).use_skeleton is False

    def test_the_same_seed_gives_the_same_model(self, base, tmp_path):
        scores = []
        for name in ("a", "b"):
            train_classifier(LABELLED, base=base, out=tmp_path / name, epochs=1, seed=5)
            scores.append(ClassifierRouter.from_pretrained(tmp_path / name).scores(SUITED))
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)

    def test_too_few_of_a_label_are_refused(self, base, tmp_path):
        with pytest.raises(InvalidInput, match="either label"):
            train_classifier(LABELLED[:10], base=base, out=tmp_path)

    def test_the_commands_train_and_use_it(self, base, tmp_path, capsys):
        labels = tmp_path / "labels.csv"
        labels.write_text("label,question\n" + "".join(f"{int(one.use_skeleton)},{one.question}\n" for one in LABELLED))
        out = str(tmp_path / "model")
        command = ["train-router", "--data", str(labels), "--base", str(base), "--out", out, "--epochs", "1", "--json"]
        assert main(command) == 0
        assert '"held_out"' in capsys.readouterr().out
        assert main(["route", "--model", out, "--no-gate", "--json", "tips for tea"]) == 0
        assert "classifier" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["\ud800", "tea \udfff tips", "\ud83d " * 500, "7" * 4301, "\0", "[" * 5000])
def test_any_text_has_a_score(base, text):
    router = ClassifierRouter.from_pretrained(base, max_length=24)
    (score,) = router.scores([text])
    assert 0 < score < 1
    assert router.scores([text.replace("\ud800", "\ufffd")]) == pytest.approx([score])
