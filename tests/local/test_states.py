"""Models with states run as one batch: their states stack, prompts begin only where a forward has ended."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

pytest.importorskip("transformers.models.qwen3_5", reason="this transformers has no Qwen3.5")

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.kv import Layers, States
from skeleton_of_thought.local.prefix import PrefixStore, Strip
from skeleton_of_thought.local.runner import ModelRunner
from skeleton_of_thought.local.states import StateBatch

BASE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.4, "eos_token_id": 2,
}  # fmt: skip
LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "head_dim": 16, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
SPACES = {
    "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16,
}  # fmt: skip
TEXT = {**BASE, **LINEAR, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
PICTURES = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
MARKS = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3.5": ("Qwen3_5ForCausalLM", {**BASE, **LINEAR}),
    "qwen3.5 with pictures": (
        "Qwen3_5ForConditionalGeneration",
        {"text_config": TEXT, "vision_config": PICTURES, **MARKS},
    ),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        {
            **BASE, **LINEAR, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "mamba2": ("Mamba2ForCausalLM", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 16}),
    "jamba": (
        "JambaForCausalLM",
        {"mamba_d_state": 8, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "falcon-h1": ("FalconH1ForCausalLM", {**SPACES, "mamba_d_ssm": 64}),
    "granite hybrid": (
        "GraniteMoeHybridForCausalLM",
        {**SPACES, "layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "nemotron-h": (
        "NemotronHForCausalLM",
        {
            "num_hidden_layers": 2, "hybrid_override_pattern": "M*", "ssm_state_size": 8, "mamba_num_heads": 8,
            "mamba_head_dim": 8, "n_groups": 2, "chunk_size": 16, "head_dim": 8,
        },
    ),
    "qwen2-vl, positions of three dimensions": (
        "Qwen2VLForConditionalGeneration",
        {
            "text_config": {key: value for key, value in TEXT.items() if key not in LINEAR},
            "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1}, **MARKS,
        },
    ),
}  # fmt: skip
VOCABULARY = 200
TOKENS = 8
POISON = 7
"""The model that fails alone raises an error whenever it runs this token."""


def make_tokenizer() -> Any:
    """One letter per token, so that texts have as many tokens as letters."""
    core = Tokenizer(models.WordLevel({chr(0x100 + i): i for i in range(VOCABULARY)}, unk_token="\u0100"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core)


TOKENIZER = make_tokenizer()


def letters(count: int, seed: int) -> str:
    """A random text of this many tokens."""
    source = random.Random(seed)
    return "".join(chr(0x100 + source.randrange(10, VOCABULARY)) for _ in range(count))


BEGINNING, OTHER = letters(60, 1), letters(40, 2)
POINTS = [BEGINNING + letters(n, n) for n in (3, 5, 5, 9, 14)]
MIXED = [letters(1, 21), letters(2, 22), letters(2, 23), letters(17, 24), OTHER, OTHER[:36] + letters(7, 25)]


def make_model(name: str) -> Any:
    """A tiny model whose next token depends on its whole text."""
    kind, changes = KINDS[name]
    if not hasattr(hf, kind):
        pytest.skip(f"this transformers has no {kind}")
    size: dict[str, Any] = {"vocab_size": VOCABULARY}
    nested = "text_config" in changes
    settings = {**changes, "text_config": {**changes["text_config"], **size}} if nested else {**BASE, **changes, **size}
    torch.manual_seed(3)
    model = getattr(hf, kind)(getattr(hf, kind).config_class(**settings)).eval()
    with torch.no_grad():
        for key, weights in model.named_parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.4)
            elif "A_log" not in key and "dt_bias" not in key:
                weights.add_(0.2 * torch.randn_like(weights))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


def alone(model: Any, prompt: str, tokens: int = TOKENS) -> tuple[int, ...]:
    """What `generate` writes."""
    ids = torch.tensor([TOKENIZER(prompt)["input_ids"]])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    return tuple(out[0, ids.shape[1] :].tolist())


def all_alone(model: Any, prompts: Sequence[str], tokens: int = TOKENS) -> list[tuple[int, ...]]:
    return [alone(model, prompt, tokens) for prompt in prompts]


def written(engine: LocalEngine, prompts: Sequence[str], tokens: int = TOKENS) -> list[tuple[int, ...]]:
    return [c.token_ids for c in engine.generate(prompts, max_new_tokens=tokens, ignore_eos=True)]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


@pytest.fixture(scope="module")
def qwen() -> Any:
    return make_model("qwen3.5")


@pytest.fixture
def engine(qwen: Any) -> Iterator[LocalEngine]:
    with LocalEngine(qwen, TOKENIZER) as engine:
        yield engine


def test_points_and_mixed_prompts_run_as_one_batch(model: Any) -> None:
    prompts = [*POINTS, *MIXED]
    expected = all_alone(model, prompts)
    with LocalEngine(model, TOKENIZER) as engine:
        assert engine.stats().cache_kind == "batched"
        assert written(engine, prompts) == expected
        stats = engine.stats()
        assert stats.steps < len(prompts) * TOKENS / 2
        assert stats.peak_batch_size > len(POINTS)
        assert stats.prefix_tokens_reused >= (len(POINTS) - 1) * len(BEGINNING)
        assert written(engine, prompts) == expected


def test_rows_join_and_leave_while_others_are_written(model: Any) -> None:
    prompts = [OTHER, *POINTS[:3], MIXED[0], MIXED[4]]
    lengths = [20, 3, TOKENS, 1, 6, 2]
    with LocalEngine(model, TOKENIZER, prefill_chunk=7) as engine:
        streams = []
        for prompt, length in zip(prompts, lengths, strict=True):
            streams.append(engine.stream(prompt, max_new_tokens=length, ignore_eos=True))
            next(streams[0], None)
        got = [_rest(stream) for stream in streams]
    assert got == [alone(model, prompt, length) for prompt, length in zip(prompts, lengths, strict=True)]


def _rest(stream: Any) -> tuple[int, ...]:
    for _ in stream:
        pass
    return tuple(stream.completion.token_ids)


@pytest.mark.parametrize(
    ("name", "pieces", "reads"),
    [("qwen3.5", True, True), ("mamba2", True, True), ("jamba", False, True), ("nemotron-h", True, False)],
)
def test_the_trial_finds_how_a_model_continues_its_states(name: str, pieces: bool, reads: bool) -> None:
    path = ModelRunner(make_model(name)).path
    assert (path.kind, path.pieces, path.reads) == ("batched", pieces, reads)


def test_an_answer_is_continued_from_the_state_at_its_end(engine: LocalEngine, qwen: Any) -> None:
    first = engine.generate([OTHER], max_new_tokens=TOKENS)[0]
    follow_up = OTHER + TOKENIZER.decode(first.token_ids) + letters(5, 31)
    second = engine.generate([follow_up], max_new_tokens=TOKENS)[0]
    assert second.token_ids == alone(qwen, follow_up)
    # The last token of the answer has not run.
    assert second.usage.cached_tokens == len(OTHER) + TOKENS - 1


def test_a_prompt_begins_again_before_its_last_token(engine: LocalEngine) -> None:
    done = [engine.generate([OTHER], max_new_tokens=2)[0] for _ in range(2)]
    assert [c.usage.cached_tokens for c in done] == [0, len(OTHER) - 1]
    assert done[0].token_ids == done[1].token_ids


def test_a_beginning_that_calls_share_is_kept_where_they_part(engine: LocalEngine, qwen: Any) -> None:
    prompts = [BEGINNING + letters(12, seed) for seed in (41, 42, 43)]
    done = [engine.generate([prompt], max_new_tokens=2)[0] for prompt in prompts]
    # The second prompt shows where they part, the third one begins there.
    assert [c.usage.cached_tokens for c in done] == [0, 0, len(BEGINNING)]
    assert [c.token_ids for c in done] == all_alone(qwen, prompts, 2)


def test_unequal_ends_of_prompts_are_read_with_the_steps(engine: LocalEngine, qwen: Any) -> None:
    assert written(engine, POINTS, 1) == all_alone(qwen, POINTS, 1)
    stats = engine.stats()
    # One forward of the beginning, one of what all ends have, and a step for each further token of the longest end.
    steps = len(POINTS[-1]) - len(POINTS[0]) + 1
    assert (stats.forwards, stats.steps) == (2 + steps, steps)


def test_states_count_as_memory_of_rows_and_of_kept_prompts(qwen: Any) -> None:
    runner = ModelRunner(qwen)
    state = sum(part.nbytes for layer in _begun(runner)[1] for part in layer if part is not None)
    # One layer of two attends.
    assert runner.text_bytes == runner.token_bytes
    assert runner.state_tokens == -(-state // runner.token_bytes) > 0
    assert runner.memory_of(10, 2) == 10 + 2 * runner.state_tokens
    store = PrefixStore(100, stateful=True, state_tokens=runner.state_tokens)
    for length in (40, 20):
        store.add(Strip(tuple(range(length)), 0, _begun(runner, length)[0], None, _begun(runner, length)[1]))
    assert store.tokens == 60 + 2 * runner.state_tokens
    assert store.strips[0].nbytes == 40 * runner.token_bytes + state
    prompts = [letters(20, seed) for seed in range(61, 65)]
    row = state + (20 + TOKENS) * runner.token_bytes
    with LocalEngine(qwen, TOKENIZER, kv_memory=int(2.5 * row)) as engine:
        assert written(engine, prompts) == all_alone(qwen, prompts)
        assert engine.stats().peak_batch_size == 2


def test_some_states_are_kept_however_large_they_are() -> None:
    store = PrefixStore(160, stateful=True, state_tokens=1000)
    for start in range(10):
        store.add(Strip(tuple(range(start, start + 8)), 0, []))
    # Each counts as 8 tokens and an eighth of all.
    assert [strip.ids[0] for strip in store.strips] == [5, 6, 7, 8, 9] == list(range(10 - 160 // (8 + 20), 10))
    store.shrink(2100)  # the memory of the states counts where rows need it
    assert [strip.ids[0] for strip in store.strips] == [8, 9]


def test_a_cancelled_row_leaves_the_states_of_the_others_alone(engine: LocalEngine, qwen: Any) -> None:
    streams = [engine.stream(prompt, max_new_tokens=20, ignore_eos=True) for prompt in (OTHER, MIXED[3], BEGINNING)]
    for stream in streams:
        next(stream)
    streams[0].close()
    assert [_rest(stream) for stream in streams[1:]] == all_alone(qwen, [MIXED[3], BEGINNING], 20)


class Brittle(hf.Qwen3_5ForCausalLM):
    """Fails in the middle of a forward that has a certain token, when it has changed the states of its first layers."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        if not (input_ids == POISON).any():
            return super().forward(input_ids=input_ids, **kwargs)
        with torch.no_grad():
            super().forward(input_ids=input_ids, **kwargs)
        raise ValueError("this token")


@pytest.mark.parametrize("last", [False, True], ids=["in a prompt", "at the end of a prompt"])
def test_a_row_that_fails_fails_alone(last: bool, qwen: Any) -> None:
    model = Brittle(qwen.config).eval()
    model.load_state_dict(qwen.state_dict())
    model.generation_config = qwen.generation_config
    poison = letters(3, 51) + chr(0x100 + POISON) + ("" if last else letters(3, 52))
    with LocalEngine(model, TOKENIZER) as engine:
        streams = [engine.stream(prompt, max_new_tokens=20, ignore_eos=True) for prompt in (OTHER, MIXED[3])]
        for stream in streams:
            next(stream)
        bad = engine.stream(poison, max_new_tokens=4)
        with pytest.raises(ValueError, match="this token"):
            list(bad)
        assert [_rest(stream) for stream in streams] == all_alone(qwen, [OTHER, MIXED[3]], 20)
        assert engine.stats().failed == 1


class Lonely(hf.Lfm2ForCausalLM):
    """Takes one row at a time."""

    def forward(self, input_ids: Any = None, cache: Any = None, **kwargs: Any) -> Any:
        if len(input_ids) > 1:
            raise RuntimeError("one row at a time")
        return super().forward(input_ids=input_ids, cache=cache, **kwargs)


def test_a_model_that_cannot_be_batched_is_slower_and_right() -> None:
    torch.manual_seed(3)
    config = hf.Lfm2Config(**{**BASE, "vocab_size": VOCABULARY, "layer_types": ["conv", "full_attention"]})
    model = Lonely(config).eval()
    model.generation_config.eos_token_id = None
    with LocalEngine(model, TOKENIZER) as engine:
        assert engine.stats().cache_kind != "batched"
        assert written(engine, MIXED[:3]) == all_alone(model, MIXED[:3])


def _begun(runner: ModelRunner, length: int = 1) -> tuple[Layers, States]:
    """Keys, values and states of some tokens."""
    cache = runner.caches.rows(1, length)
    runner.forward(torch.arange(length)[None] % 100 + 10, cache, torch.arange(length)[None])
    cache.advance(length)
    return cache.own(0, 0, length), cache.states_of(0)


def test_rows_keep_their_states_while_others_come_and_go(qwen: Any) -> None:
    runner = ModelRunner(qwen, "none")
    texts = [_begun(runner, length) for length in (3, 7, 1, 300, 2, 5)]
    batch = runner.caches.batch()
    assert isinstance(batch, StateBatch)
    batch.join([[own] for own, _ in texts[:3]], [states for _, states in texts[:3]])
    batch.join([[own] for own, _ in texts[3:]], [states for _, states in texts[3:]])  # more room for rows and slots
    batch.remove(1)  # the last row takes the place
    batch.remove(0)
    here = [4, 5, 2, 3]
    for row, text in enumerate(here):
        length = texts[text][0][1][0].shape[2]
        assert batch.lengths()[row] == length
        own = batch.own(row, batch.frame.end - length, batch.frame.end)
        for (keys, values), (old_keys, old_values) in zip(own, texts[text][0], strict=True):
            assert torch.equal(keys, old_keys)
            assert torch.equal(values, old_values)
        for now, old in zip(batch.states_of(row), texts[text][1], strict=True):
            for part, was in zip(now, old, strict=True):
                assert (part is None) == (was is None)
                assert part is None or was is None or torch.equal(part, was)
