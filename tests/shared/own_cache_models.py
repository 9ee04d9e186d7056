"""Tiny models with random weights whose rows have caches of their own kind, and the texts that `generate` has of them.

A tokenizer of one character a token makes lengths exact.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import own_texts
import pytest
import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from skeleton_of_thought.local import LocalEngine

VOCABULARY = 120
TOKENS = 8
LEAST_GAP = 2e-4
"""A tie that is nearer than this may fall the other way after another order of summation."""

letters = functools.partial(own_texts.letters, vocabulary=VOCABULARY)


def make_tokenizer() -> Any:
    core = Tokenizer(models.WordLevel({chr(0x100 + i): i for i in range(VOCABULARY)}, unk_token="Ā"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core)


TOKENIZER = make_tokenizer()
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 40,
    "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A tiny model, and what its rows can do.

    Attributes:
        name: Its class.
        changes: Changes of its configuration.
        path: Its `cache_kind`.
        kept: Whether its states are kept for later prompts.
        together: Whether rows of equal length run together.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    path: str = "separate"
    kept: bool = True
    together: bool = True


KINDS = {
    "a list of tensors": Kind("RwkvForCausalLM", {"context_length": 256}, together=False),
    "an object of the model's": Kind(
        "xLSTMForCausalLM",
        {"hidden_size": 128, "embedding_dim": 128, "num_heads": 4, "num_blocks": 2, "autocast_kernel_dtype": "float32"},
    ),
    "tensors in modules": Kind(
        "RecurrentGemmaForCausalLM",
        {"num_hidden_layers": 3, "lru_width": 32, "head_dim": 8, "attention_window_size": 12},
    ),
    "no positions": Kind(
        "BartForCausalLM",
        {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "is_decoder": True,
         "is_encoder_decoder": False, "init_std": 0.4},
    ),
    "a cache class of the model's": Kind(
        "MiniMaxForCausalLM",
        {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 2, "block_size": 8, "head_dim": 8},
    ),
    "inputs that the model prepares": Kind(
        "XLNetLMHeadModel",
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "max_position_embeddings": None},
        kept=False, together=False
    ),
    "no cache": Kind(
        "OpenAIGPTLMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}, "none", False, False
    ),
}  # fmt: skip


def build(kind: Kind, seed: int) -> Any:
    torch.manual_seed(seed)
    model_class = getattr(hf, kind.name)
    sizes = {name: value for name, value in {**SIZES, **kind.changes}.items() if value is not None}
    model = model_class(model_class.config_class(**sizes)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.2 * torch.randn_like(weights))
    model.generation_config = hf.GenerationConfig(pad_token_id=0)
    return model


def alone(model: Any, prompt: str, tokens: int = TOKENS) -> tuple[tuple[int, ...], float]:
    """The model's text for one prompt, and the smallest gap between its two likeliest tokens at any step."""
    return own_texts.alone(model, TOKENIZER, prompt, tokens)


SHORT = [letters(2, 1), letters(7, 2), letters(7, 3)]
BEGINNING = letters(30, 4)
SHARED = [BEGINNING + letters(3, 5), BEGINNING + letters(3, 6), BEGINNING + letters(5, 7)]
LASTING = letters(20, 8)
LONG = 24


@dataclass
class Subject:
    """A model and its own texts."""

    kind: Kind
    model: Any
    texts: dict[str, tuple[int, ...]]
    follow_up: str

    def engine(self, **settings: Any) -> LocalEngine:
        engine = LocalEngine(self.model, TOKENIZER, **settings)
        engine._eos_ids = frozenset()
        return engine

    def expected(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        return [self.texts[prompt] for prompt in prompts]


def subject_of(kind: Kind) -> Subject:
    """A model whose texts have no near ties and differ: otherwise wrong and right texts could be equal."""
    for seed in range(20):
        model = build(kind, seed)
        texts: dict[str, tuple[int, ...]] = {}
        gaps: list[float] = []
        for prompt in [LASTING, *SHORT, *SHARED]:
            texts[prompt], gap = alone(model, prompt, LONG if prompt is LASTING else TOKENS)
            gaps.append(gap)
        follow_up = LASTING + TOKENIZER.decode(texts[LASTING]) + letters(3, 9)
        texts[follow_up], gap = alone(model, follow_up)
        various = len(set(texts.values())) == len(texts) and len({t for text in texts.values() for t in text}) > 12
        if various and min([*gaps, gap]) > LEAST_GAP:
            return Subject(kind, model, texts, follow_up)
    raise AssertionError("no seed gives this model lively texts without near ties: change its configuration")


def of(name: str) -> Subject:
    if name not in _made:
        _made[name] = subject_of(KINDS[name])
    return _made[name]


_made: dict[str, Subject] = {}


def done(engine: LocalEngine, prompts: Sequence[str], tokens: int = TOKENS) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in engine.generate(prompts, max_new_tokens=tokens)]


class Tokens:
    """Counts the tokens, and the rows, of each forward of an engine from now on."""

    def __init__(self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        inner = engine._runner._own._model
        forward = inner.forward

        @functools.wraps(forward)  # the engine reads the signature again
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.shapes.append(tuple(kwargs["input_ids"].shape))
            return forward(*args, **kwargs)

        monkeypatch.setattr(inner, "forward", counted)

    @property
    def total(self) -> int:
        return sum(rows * tokens for rows, tokens in self.shapes)

    @property
    def rows(self) -> int:
        return max(rows for rows, _ in self.shapes)
