"""Random schedules of requests, reads, cancellations and continuations: each text equals that of one request."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from skeleton_of_thought.local import LocalEngine, prefix

VOCABULARY = 200
TOKENS = 20
LONGEST_PROMPT = 110
LEAST_GAP = 1e-3
"""Between the two likeliest tokens: below it, another order of summation might well choose the other one."""

BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    "max_position_embeddings": 256, "initializer_range": 0.4,
}  # fmt: skip
MIXED_LAYERS = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (hf.LlamaForCausalLM, {}),
    "mistral": (hf.MistralForCausalLM, {"sliding_window": 12}),
    "gemma2": (hf.Gemma2ForCausalLM, {**MIXED_LAYERS, "head_dim": 8, "tie_word_embeddings": False}),
    "gpt2": (hf.GPT2LMHeadModel, {}),
}


def letters(count: int, seed: int) -> str:
    """A random text of this many tokens."""
    source = random.Random(seed)
    return "".join(chr(0x100 + source.randrange(3, VOCABULARY)) for _ in range(count))


def make_tokenizer() -> Any:
    """One letter per token, so that a prompt that continues an answer has exactly the answer's tokens."""
    letter = {2: "</s>"}
    core = Tokenizer(models.WordLevel({letter.get(i, chr(0x100 + i)): i for i in range(VOCABULARY)}, unk_token="Ā"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")


TOKENIZER = make_tokenizer()
START = letters(40, 1)
PROMPTS = [START, START, START[:25] + letters(9, 2), START + letters(3, 3), START[:30], letters(20, 4), START[:2]]


@dataclass(frozen=True)
class Request:
    """A request of a schedule.

    Attributes:
        prompt: The text to continue.
        tokens: The most tokens to write.
        seed: The seed for sampling; None for greedy.
        stop_at: The place in its whole text of the two letters that stop it; None for none.
    """

    prompt: str
    tokens: int
    seed: int | None = None
    stop_at: int | None = None


class Alone:
    """A model, and its text for a single request."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._known: dict[tuple[str, int | None], tuple[int, ...] | None] = {}

    def engine(self, **wanted: Any) -> LocalEngine:
        """An engine with the settings that this version has."""
        known = inspect.signature(LocalEngine.__init__).parameters
        return LocalEngine(self.model, TOKENIZER, **{name: v for name, v in wanted.items() if name in known})

    def tokens(self, prompt: str, seed: int | None) -> tuple[int, ...] | None:
        """The first tokens after a prompt; None if they depend on a near tie."""
        key = (prompt, seed)
        if key not in self._known:
            self._known[key] = self._greedy(prompt) if seed is None else self._sampled(prompt, seed)
        return self._known[key]

    def expected(self, request: Request) -> tuple[str, tuple[int, ...], str] | None:
        """Text, tokens and finish reason; None if they depend on a near tie."""
        known = self.tokens(request.prompt, request.seed)
        if known is None:
            return None
        ids = known[: request.tokens]
        text, stop = TOKENIZER.decode(ids, skip_special_tokens=True), self._stop(request)
        at = text.find(stop) if stop else -1
        if at >= 0:
            return text[:at], ids[: at + len(stop)], "stop"
        return text, ids, "stop" if 2 in ids else "length"

    def kv_bytes(self, tokens: int) -> int:
        """The bytes of the keys and values of this many tokens."""
        with torch.inference_mode():
            cache = self.model(torch.arange(3, 11)[None], use_cache=True).past_key_values
        return tokens * sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values)) // 8

    def settings(self, request: Request) -> dict[str, Any]:
        sampled = {} if request.seed is None else {"temperature": 0.8, "top_k": 5, "seed": request.seed}
        return {"max_new_tokens": request.tokens, "stop": self._stop(request) or (), **sampled}

    def _stop(self, request: Request) -> str:
        if request.stop_at is None:
            return ""
        text = TOKENIZER.decode(self.tokens(request.prompt, request.seed) or (), skip_special_tokens=True)
        return str(text[request.stop_at : request.stop_at + 2])

    def _greedy(self, prompt: str) -> tuple[int, ...] | None:
        ids = torch.tensor([TOKENIZER(prompt)["input_ids"]])
        with torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
                return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
        best = torch.stack(out.logits)[:, 0].float().topk(2).values
        clear = bool((best[:, 0] - best[:, 1]).min() > LEAST_GAP)
        return tuple(out.sequences[0, ids.shape[1] :].tolist()) if clear else None

    def _sampled(self, prompt: str, seed: int) -> tuple[int, ...]:
        request = Request(prompt, TOKENS, seed)
        with self.engine() as engine:
            return engine.generate([prompt], **self.settings(request))[0].token_ids


@dataclass
class Reader:
    """The reader of one request."""

    request: Request
    stream: Any
    pieces: list[str] = field(default_factory=list)
    left: bool = False

    def read(self, pieces: int | None = None) -> None:
        while not self.left and (pieces is None or pieces > 0):
            piece = next(self.stream, None)
            if piece is None:
                return
            self.pieces.append(piece)
            pieces = None if pieces is None else pieces - 1

    def leave(self) -> None:
        self.left = True
        self.stream.close()

    def check(self, expected: tuple[str, tuple[int, ...], str] | None) -> None:
        done = self.stream.completion
        if expected is None:
            assert done.usage.output_tokens <= self.request.tokens
        elif done.finish_reason == "cancelled":
            assert self.left
            assert expected[0].startswith(done.text)
            assert expected[1][: len(done.token_ids)] == done.token_ids
        else:
            assert (done.text, done.token_ids, done.finish_reason) == expected
        # A reader that leaves early has read a beginning.
        read = "".join(self.pieces)
        assert done.text.startswith(read) if self.left else done.text == read


class Schedule:
    """Plays a list of actions on one engine. The numbers in actions choose among the readers of that moment."""

    def __init__(self, alone: Alone, engine: LocalEngine) -> None:
        self._alone, self._engine = alone, engine
        self.readers: list[Reader] = []

    def ask(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.readers.append(Reader(request, self._engine.stream(request.prompt, **self._alone.settings(request))))

    def follow(self, which: int, tail: str, tokens: int) -> None:
        """Wait for an answer and continue it by another request."""
        if reader := self._pick(which):
            reader.read()
            prompt = reader.request.prompt + reader.stream.completion.text + tail
            if len(prompt) <= LONGEST_PROMPT:
                self.ask([Request(prompt, tokens)])

    def play(self, actions: Sequence[tuple[Any, ...]]) -> None:
        for name, *given_ in actions:
            if name == "ask":
                self.ask(*given_)
            elif name == "follow":
                self.follow(*given_)
            elif reader := self._pick(given_[0]):
                reader.read(given_[1]) if name == "read" else reader.leave()
        for reader in self.readers:
            reader.read()

    def _pick(self, which: int) -> Reader | None:
        return self.readers[which % len(self.readers)] if self.readers else None


WHICH = st.integers(0, 20)
LENGTHS = st.integers(1, TOKENS)
REQUESTS = st.builds(
    Request, st.sampled_from(PROMPTS), LENGTHS, st.sampled_from([None, None, 1, 2]), st.sampled_from([None, 1, 6])
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.lists(REQUESTS, min_size=1, max_size=6)),
        st.tuples(st.just("follow"), WHICH, st.sampled_from(["Č", "ĠĬ"]), LENGTHS),
        st.tuples(st.just("read"), WHICH, st.integers(1, 8)),
        st.tuples(st.just("leave"), WHICH),
    ),
    min_size=4,
    max_size=14,
)
ENGINES = st.fixed_dictionaries(
    {
        "max_batch_size": st.sampled_from([2, 4, 64]),
        "prefix_cache_tokens": st.sampled_from([0, 60, 4096]),
        "prefill_chunk": st.sampled_from([1, 7, 512]),
        "share_prefix": st.booleans(),
    }
)
WORTH = st.sampled_from([1, 2_000, 1_000_000_000])
"""Bytes from which a beginning is shared in place: always, mostly, never."""
ROOMS = st.sampled_from([None, 2 * (LONGEST_PROMPT + TOKENS)])


@pytest.fixture(scope="module", params=KINDS)
def alone(request: pytest.FixtureRequest) -> Alone:
    build, changes = KINDS[request.param]
    torch.manual_seed(5)
    model = build(build.config_class(**{**BASE, **changes})).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 2
    reference = Alone(model)
    # Computed beforehand, so that a schedule does not wait for them while its rows end.
    texts = {reference.tokens(prompt, seed) for prompt in PROMPTS for seed in (None, 1, 2)} - {None}
    assert len(texts) >= 3 * (len(set(PROMPTS)) - 1), "near ties or equal texts: take another seed"
    return reference


@settings(derandomize=True, max_examples=20, deadline=None, database=None)
@given(actions=ACTIONS, engine_settings=ENGINES, room=ROOMS, worth=WORTH)
def test_any_schedule_gives_each_request_its_own_text(
    alone: Alone, actions: list[tuple[Any, ...]], engine_settings: dict[str, Any], room: int | None, worth: int
) -> None:
    memory = {} if room is None else {"kv_memory": alone.kv_bytes(room)}
    with pytest.MonkeyPatch.context() as patch, alone.engine(**engine_settings, **memory) as engine:
        patch.setattr(prefix, "_MIN_SEGMENT_BYTES", worth)
        schedule = Schedule(alone, engine)
        schedule.play(actions)
        for reader in schedule.readers:
            reader.check(alone.expected(reader.request))
        stats = engine.stats()
    assert (stats.rows, stats.waiting, stats.failed) == (0, 0, 0)
    assert stats.completed + stats.cancelled == len(schedule.readers)
    assert stats.peak_batch_size <= engine_settings["max_batch_size"]
