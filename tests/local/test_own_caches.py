"""Models whose rows have caches of their own kind: the texts of `generate`, one token a step, states kept and copied.

A tokenizer of one character a token makes lengths exact.
"""

from __future__ import annotations

import random
from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.own_cache import RowState, stacked
from skeleton_of_thought.local.snapshots import Snapshot, SnapshotStore

VOCABULARY = 120
TOKENS = 8
LEAST_GAP = 2e-4
"""A tie that is nearer than this may fall the other way after another order of summation."""


def letters(count: int, seed: int) -> str:
    source = random.Random(seed)
    return "".join(chr(0x100 + source.randrange(3, VOCABULARY)) for _ in range(count))


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
    ids = torch.tensor([TOKENIZER(prompt)["input_ids"]])
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    best = torch.stack(out.logits)[:, 0].float().topk(2).values
    return tuple(out.sequences[0, ids.shape[1] :].tolist()), float((best[:, 0] - best[:, 1]).min())


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


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return of(request.param)


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


# --- the texts --------------------------------------------------------------------------------------


def test_each_kind_is_found_and_keeps_the_texts_of_generate(subject: Subject) -> None:
    with subject.engine(prefill_chunk=5) as engine:
        assert engine.stats().cache_kind == subject.kind.path
        own = engine._runner._own
        assert (own.copies, own.stacks) == (subject.kind.kept, subject.kind.together)
        assert done(engine, SHORT) == subject.expected(SHORT)
        assert done(engine, SHARED) == subject.expected(SHARED)
        assert done(engine, SHARED) == subject.expected(SHARED)
        assert done(engine, [LASTING], LONG) == subject.expected([LASTING])
        assert done(engine, [subject.follow_up]) == subject.expected([subject.follow_up])
        assert engine.stats().rows == 0


def test_rows_that_join_and_leave_keep_their_texts(subject: Subject) -> None:
    prompts = [LASTING, SHARED[0], SHORT[1], SHARED[2], SHORT[2]]
    with subject.engine(prefill_chunk=5) as engine:
        streams = []
        for prompt in prompts:
            streams.append(engine.stream(prompt, max_new_tokens=LONG if prompt is LASTING else TOKENS))
            next(streams[0], None)
        for stream in streams:
            for _ in stream:
                pass
        assert engine.stats().peak_batch_size > 1
    assert [stream.completion.token_ids for stream in streams] == subject.expected(prompts)


def test_a_step_runs_one_token(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    if subject.kind.name == "XLNetLMHeadModel":
        pytest.skip("its own inputs have three tokens a step")
    with subject.engine(prefix_cache_tokens=0) as engine:
        count = Tokens(engine, monkeypatch)
        engine.generate([LASTING], max_new_tokens=LONG)
        steps = LONG - 1
        whole = sum(len(LASTING) + i for i in range(LONG))
        assert count.total == (whole if subject.kind.path == "none" else len(LASTING) + steps)
        assert len(count.shapes) == LONG


# --- kept states ------------------------------------------------------------------------------------


def test_a_common_beginning_runs_once(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    with subject.engine() as engine:
        count = Tokens(engine, monkeypatch)
        completions = engine.generate(SHARED, max_new_tokens=1)
        cached = [completion.usage.cached_tokens for completion in completions]
        if engine._runner._own.pieces:
            assert cached == [0, len(BEGINNING), len(BEGINNING)]
            assert count.total == len(BEGINNING) + 3 + 3 + 5
            assert engine.stats().prefix_tokens_reused == 2 * len(BEGINNING)
        else:
            assert cached == [0, 0, 0]


@pytest.mark.parametrize("name", ["a list of tensors", "no positions"])
def test_a_follow_up_continues_the_state_of_the_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of(name)
    with subject.engine() as engine:
        engine.generate([LASTING], max_new_tokens=LONG)
        count = Tokens(engine, monkeypatch)
        completion = engine.generate([subject.follow_up], max_new_tokens=TOKENS)[0]
        # The last token of the answer was chosen, but not run.
        assert completion.usage.cached_tokens == len(LASTING) + LONG - 1
        assert count.total == 1 + 3 + TOKENS - 1
    assert completion.token_ids == subject.texts[subject.follow_up]


def test_prompts_that_come_one_by_one_share_the_beginning_from_the_third_on(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of("a list of tensors")
    with subject.engine() as engine:
        cached = [engine.generate([prompt], max_new_tokens=1)[0].usage.cached_tokens for prompt in SHARED]
    # A state cannot be cut: the second prompt shows where they part.
    assert cached == [0, 0, len(BEGINNING)]


def test_states_that_need_single_tokens_are_continued_only_where_that_is_short() -> None:
    subject = of("tensors in modules")
    long = letters(70, 20)
    with subject.engine() as engine:
        assert not engine._runner._own.pieces
        engine.generate([long], max_new_tokens=1)
        near, far = long + letters(2, 21), long + letters(9, 22)
        completions = engine.generate([near], max_new_tokens=TOKENS) + engine.generate([far], max_new_tokens=TOKENS)
    assert [completion.usage.cached_tokens for completion in completions] == [len(long), 0]
    assert [completion.token_ids for completion in completions] == [alone(subject.model, p)[0] for p in (near, far)]


def test_no_state_is_kept_without_room(subject: Subject) -> None:
    with subject.engine(prefix_cache_tokens=0) as engine:
        assert done(engine, SHARED) == subject.expected(SHARED)
        assert done(engine, [LASTING], LONG) == subject.expected([LASTING])
        assert engine.generate([subject.follow_up], max_new_tokens=1)[0].usage.cached_tokens == 0
        assert engine.stats().kv_bytes == 0


def test_new_weights_drop_the_states_of_the_old_ones() -> None:
    subject = subject_of(KINDS["a list of tensors"])
    with subject.engine() as engine:
        assert done(engine, SHARED) == subject.expected(SHARED)
        with torch.no_grad():
            subject.model.head.weight.mul_(-1)
            subject.model.rwkv.blocks[0].attention.key.weight.mul_(0.5)
        expected = [alone(subject.model, prompt)[0] for prompt in SHARED]
        assert expected != subject.expected(SHARED)
        completions = engine.generate(SHARED[:1], max_new_tokens=TOKENS)
        assert completions[0].usage.cached_tokens == 0
        assert done(engine, SHARED) == expected


def test_a_checkpoint_forgets_later_states() -> None:
    subject = of("a list of tensors")
    with subject.engine() as engine:
        engine.generate([BEGINNING], max_new_tokens=1)
        restore = engine.checkpoint()
        engine.generate([LASTING], max_new_tokens=1)
        restore()
        again = [engine.generate([text + letters(3, 5)], max_new_tokens=1)[0] for text in (BEGINNING, LASTING)]
    assert [completion.usage.cached_tokens for completion in again] == [len(BEGINNING), 0]


# --- rows that run together -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no positions", "tensors in modules", "a cache class of the model's"])
def test_rows_of_equal_length_run_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of(name)
    prompts = [SHORT[1], SHORT[0], SHORT[2]]
    with subject.engine() as engine:
        count = Tokens(engine, monkeypatch)
        assert done(engine, prompts) == subject.expected(prompts)
        # Two prompts of seven tokens run together, and so do their rows.
        assert len(count.shapes) == 2 + 2 * (TOKENS - 1)
        assert count.rows == 2
        assert engine.parallel_rows == 1


def test_a_row_that_leaves_its_group_does_not_disturb_the_others() -> None:
    subject = of("no positions")
    prompts = [SHORT[1], SHORT[2], letters(7, 30)]
    expected = [alone(subject.model, prompt, LONG)[0] for prompt in prompts]
    with subject.engine() as engine:
        streams = [engine.stream(prompt, max_new_tokens=n) for prompt, n in zip(prompts, (3, LONG, LONG), strict=True)]
        for _ in zip(streams[1], range(5), strict=False):
            pass
        streams[2].close()
        for stream in streams[:2]:
            for _ in stream:
                pass
        assert done(engine, prompts, LONG) == expected
    assert [stream.completion.token_ids for stream in streams[:2]] == [expected[0][:3], expected[1]]


def test_rows_of_any_length_run_together_where_states_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of("an object of the model's")
    with subject.engine() as engine:
        if not engine._runner._own.stacks_all:
            pytest.skip("this version of the model counts the tokens in its state")
        count = Tokens(engine, monkeypatch)
        assert done(engine, SHORT) == subject.expected(SHORT)
        assert count.rows == len(SHORT)
        assert engine.parallel_rows > 1


# --- failures ---------------------------------------------------------------------------------------


class Picky(hf.BartForCausalLM):
    """Fails for one token, after it has changed the cache."""

    refused = 5

    def forward(self, input_ids: Any = None, attention_mask: Any = None, use_cache: Any = None, **kwargs: Any) -> Any:
        out = super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **kwargs)
        if (input_ids == self.refused).any():
            raise ValueError("not this token")
        return out


def test_a_row_that_fails_fails_alone() -> None:
    subject = of("no positions")
    # The middle row fails at a token that it writes, and that the others neither read nor write.
    for seed in range(30, 60):
        prompts = [SHORT[1], letters(7, seed), SHORT[2]]
        expected = [alone(subject.model, prompt)[0] for prompt in prompts]
        read = [TOKENIZER(prompt)["input_ids"] for prompt in prompts]
        others = {token for row in (0, 2) for token in (*read[row], *expected[row])}
        if written := [t for t in expected[1][:-1] if t not in others and t not in read[1]]:
            token = written[-1]
            break
    model = Picky(subject.model.config).eval()
    model.load_state_dict(subject.model.state_dict())
    model.generation_config = subject.model.generation_config
    with LocalEngine(model, TOKENIZER) as engine:
        engine._eos_ids = frozenset()
        if not engine._runner._own.stacks:
            pytest.skip("this version runs these rows one by one")
        model.refused = token
        streams = [engine.stream(prompt, max_new_tokens=TOKENS) for prompt in prompts]
        for stream in (streams[0], streams[2]):
            for _ in stream:
                pass
        with pytest.raises(ValueError, match="not this token"):
            for _ in streams[1]:
                pass
        assert [streams[i].completion.token_ids for i in (0, 2)] == [expected[0], expected[2]]
        stats = engine.stats()
        assert (stats.failed, stats.completed, stats.rows) == (1, 2, 0)
        # A prompt that fails harms no other either.
        bad = chr(0x100 + token) + letters(4, 31)
        with pytest.raises(ValueError, match="not this token"):
            engine.generate([bad], max_new_tokens=TOKENS)
        assert done(engine, [prompts[0]]) == [expected[0]]


# --- memory -----------------------------------------------------------------------------------------


def test_a_state_that_does_not_grow_takes_no_memory_per_token() -> None:
    subject = of("a list of tensors")
    state = 5 * 32 * 2 * 4
    with subject.engine(kv_memory=2 * state + 4096, prefix_cache_tokens=0) as engine:
        held = []
        for length in (10, 150):
            stream = engine.stream(letters(length, 40), max_new_tokens=20)
            held.extend(engine._worker._lanes["separate"].kv_bytes() for _ in stream)
        assert set(held) - {0} == {state}
        assert engine.stats().completed == 2


def test_rows_wait_for_the_memory_of_their_states() -> None:
    subject = of("a list of tensors")
    state = 5 * 32 * 2 * 4
    with subject.engine(kv_memory=2 * state + 400, prefix_cache_tokens=0) as engine:
        assert done(engine, [*SHORT, SHORT[0]]) == subject.expected([*SHORT, SHORT[0]])
        assert engine.stats().peak_batch_size == 2


def test_the_users_model_keeps_the_tensors_in_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(KINDS["tensors in modules"])

    def states() -> list[Any]:
        return [module.conv1d_state for module in subject.model.modules() if hasattr(module, "conv1d_state")]

    with subject.engine() as engine:
        before = states()
        assert done(engine, SHORT) == subject.expected(SHORT)
    assert len(before) > 0
    assert all(a is b for a, b in zip(before, states(), strict=True))


# --- rotary embeddings that a text outgrows -----------------------------------------------------------

GROWING = {
    "begins again": Kind("Phi3ForCausalLM", {"original_max_position_embeddings": 40, "rope_parameters": LONGROPE}),
    "goes on": Kind("LlamaForCausalLM", {"rope_parameters": LONGROPE}),
    "grows with each token": Kind(
        "LlamaForCausalLM",
        {"max_position_embeddings": 40, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 6.0}},
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_texts_that_outgrow_their_rotary_embeddings_are_those_of_generate(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [letters(30, 50), letters(36, 51), letters(60, 52), letters(5, 53)]
    lengths = [30, 14, 14, 10]
    for seed in range(20):
        # The frequencies that a text leaves behind must not reach another one, so each text has a model of its own.
        texts, gaps = zip(
            *(alone(build(GROWING[name], seed), p, n) for p, n in zip(prompts, lengths, strict=True)), strict=True
        )
        if min(gaps) > LEAST_GAP and len({token for text in texts for token in text}) > 12:
            break
    with LocalEngine(build(GROWING[name], seed), TOKENIZER, optimize="none") as engine:
        engine._eos_ids = frozenset()
        count = Tokens(engine, monkeypatch)
        streams = []
        for prompt, length in zip(prompts, lengths, strict=True):
            streams.append(engine.stream(prompt, max_new_tokens=length))
            next(streams[0], None)
        for stream in streams:
            for _ in stream:
                pass
        # Where the model begins again, two texts run once more as a whole.
        again = 41 + 41 if name == "begins again" else 0
        assert count.total <= sum(map(len, prompts)) + sum(lengths) + again
    assert [stream.completion.token_ids for stream in streams] == list(texts)


# --- states as values -------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["first", "second"])


class Holder:
    def __init__(self, tensor: torch.Tensor, config: Any) -> None:
        self.parts = {"a": tensor, "b": [Pair(tensor + 1, None), 3]}
        self.alias = tensor
        self.config = config


def holder(rows: int, value: float) -> RowState:
    config = hf.LlamaConfig()
    return RowState([4] * rows, {"cache": Holder(torch.full((rows, 2), value), config)}, [torch.zeros(rows, 1)])


def test_a_copy_of_a_state_shares_no_tensor_and_keeps_its_structure() -> None:
    state = holder(1, 1.0)
    copied = state.copied()
    one, other = state.given["cache"], copied.given["cache"]
    one.parts["a"].fill_(9)
    one.parts["b"].append("later")
    assert isinstance(other, Holder)
    assert isinstance(other.parts["b"][0], Pair)
    assert other.parts["a"].tolist() == [[1, 1]]
    assert len(other.parts["b"]) == 2
    assert other.alias is other.parts["a"]
    assert other.config is one.config


def test_states_are_stacked_and_selected_by_rows() -> None:
    config = hf.LlamaConfig()
    states = [RowState([n], {"cache": Holder(torch.full((1, 2), float(n)), config)}) for n in (4, 7)]
    both = stacked(*states)
    assert both is not None
    assert both.lengths == [4, 7]
    assert both.given["cache"].parts["a"].tolist() == [[4, 4], [7, 7]]
    left = both.selected([1])
    assert (left.lengths, left.given["cache"].parts["b"][0].first.tolist()) == ([7], [[8, 8]])


@pytest.mark.parametrize("change", ["shape", "type", "number", "structure"])
def test_states_that_do_not_fit_are_not_stacked(change: str) -> None:
    one, other = holder(1, 1.0), holder(1, 2.0)
    cache = other.given["cache"]
    if change == "shape":
        cache.parts["a"] = torch.zeros(1, 3)
    elif change == "type":
        cache.parts["a"] = torch.zeros(1, 2, dtype=torch.float64)
    elif change == "number":
        cache.parts["b"][1] = 4
    else:
        cache.parts["c"] = None
    assert stacked(one, other) is None


def test_the_store_of_states_keeps_what_was_used_last() -> None:
    def snapshot(*ids: int) -> Snapshot:
        return Snapshot(tuple(ids), holder(1, 0.0))

    store = SnapshotStore(30)
    first, second = snapshot(*range(10)), snapshot(*range(5), *range(50, 55))
    store.add(first)
    store.add(second)
    assert store.find((*range(10), 11, 12)) is first
    assert store.find(tuple(range(10))) is None  # nothing is left to run
    assert store.find(tuple(range(9))) is None
    store.add(snapshot(*range(20, 35)))
    assert store.find((*second.ids, 1)) is None
    assert store.find((*first.ids, 1)) is first
    assert not store.wants(tuple(range(31)))
    store.clear()
    assert store.held == ()
