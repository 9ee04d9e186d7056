"""Vectors of texts by a tiny encoder, as `sot eval --embeddings` uses them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from skeleton_of_thought._cli.embeddings import EmbeddingModel
from skeleton_of_thought.errors import InvalidInput, ModelLoadError
from skeleton_of_thought.local.sentence_encoder import SentenceEncoder

TEXTS = ["sleep at night", "night", "ride a bicycle " * 80, ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with a tiny encoder and a tokenizer of whole words."""
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    return path


def test_vectors_have_length_1_and_are_the_same_alone_and_in_a_batch(folder):
    embed = EmbeddingModel.of(str(folder)).load()
    vectors = embed(TEXTS)
    assert [len(vector) for vector in vectors] == [16] * len(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert math.hypot(*vector) == pytest.approx(1)
        assert embed([text])[0] == pytest.approx(vector, abs=1e-5)


def test_a_model_says_whether_its_first_token_or_the_mean_counts(folder):
    mean = SentenceEncoder.from_pretrained(folder).vectors(TEXTS[:1])
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert SentenceEncoder.from_pretrained(folder).vectors(TEXTS[:1]) != mean


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="not there"):
        EmbeddingModel.of(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError):
        EmbeddingModel.of(str(tmp_path / "empty")).load()
