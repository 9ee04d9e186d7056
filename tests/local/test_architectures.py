"""Every architecture writes greedily, token for token, what `model.generate` writes for each prompt alone.

The models are tiny and random, with weights so large that the next token depends on the whole text. Their tokenizer
has one letter per token, so a text has as many tokens as letters, and a prompt that continues an answer has exactly
the answer's tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import own_texts
import pytest
import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.decoding_path import cache_argument

VOCABULARY = 200
TOKENS = 10
LONG = 32
LEAST_GAP = 1e-3
"""Between the two likeliest tokens: below it, another order of summation might well choose the other one."""

BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    "max_position_embeddings": 512, "initializer_range": 0.4,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MIXED_LAYERS = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}
MULTIPLIERS = {
    "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 2.0,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6, "n_group": 1, "topk_group": 1,
}  # fmt: skip
LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MAMBA2 = {
    "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16,
}  # fmt: skip
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 40,
    "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}


@dataclass(frozen=True)
class Kind:
    """A tiny model of one architecture.

    Attributes:
        name: The name of its class, without the ending.
        changes: Changes of its configuration.
        seed: The first seed to try for texts without near ties.
        attention: The implementation of attention; empty for the model's own choice.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    attention: str = ""


BATCHED = {
    "llama": Kind("Llama"),
    "llama, eager": Kind("Llama", attention="eager"),
    "llama, tied, wide heads": Kind("Llama", {"tie_word_embeddings": True, "head_dim": 12}, seed=1),
    "llama, biases": Kind("Llama", {"attention_bias": True, "mlp_bias": True}, seed=1),
    "llama, one head for all, scaled rope": Kind(
        "Llama", {"num_key_value_heads": 1, "rope_parameters": LLAMA3_ROPE}, seed=1
    ),
    "qwen2": Kind("Qwen2"),
    "qwen2, some layers slide": Kind(
        "Qwen2", {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}
    ),
    "qwen3": Kind("Qwen3", {"head_dim": 16}),
    "qwen3, yarn": Kind("Qwen3", {"head_dim": 8, "rope_parameters": YARN}),
    "mistral, no window": Kind("Mistral", {"sliding_window": None}),
    "mistral, short window": Kind("Mistral", {"sliding_window": 12}, seed=3),
    "mistral, long window": Kind("Mistral", {"sliding_window": 300}),
    "mixtral": Kind("Mixtral", EXPERTS),
    "qwen3 moe": Kind(
        "Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8}
    ),
    "gpt-oss": Kind("GptOss", {**EXPERTS, "head_dim": 8, "sliding_window": 12, "rope_parameters": PLAIN_ROPE}, seed=2),
    "gemma": Kind("Gemma", {"head_dim": 16}),
    "gemma2": Kind("Gemma2", {**MIXED_LAYERS, "head_dim": 16, "tie_word_embeddings": False}, seed=1),
    "gemma2, capped": Kind(
        "Gemma2",
        {**MIXED_LAYERS, "head_dim": 16, "tie_word_embeddings": False, "attn_logit_softcapping": 2.0},
        attention="eager",
    ),
    "gemma3": Kind("Gemma3", {**MIXED_LAYERS, "head_dim": 8, "tie_word_embeddings": False}),
    "gpt2": Kind("GPT2"),
    "gpt-neox": Kind("GPTNeoX", {"rotary_pct": 0.5}, seed=1),
    "gpt-neo": Kind("GPTNeo", {"attention_types": [[["global", "local"], 1]], "window_size": 12}),
    "gpt-j": Kind("GPTJ", {"rotary_dim": 4}),
    "gpt-bigcode": Kind("GPTBigCode"),
    "phi": Kind("Phi", {"partial_rotary_factor": 0.5}),
    "phi3": Kind("Phi3", seed=1),
    "opt": Kind("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.4}),
    "bloom": Kind("Bloom"),
    "mpt": Kind("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}),
    "falcon": Kind("Falcon"),
    "falcon, alibi": Kind("Falcon", {"alibi": True, "bias": True}, seed=1),
    "falcon, new decoder": Kind("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "smollm3": Kind("SmolLM3", {"num_hidden_layers": 3, "no_rope_layers": [1, 0, 1]}),
    "olmo2": Kind("Olmo2"),
    "olmo3": Kind("Olmo3", MIXED_LAYERS),
    "cohere": Kind("Cohere", {"logit_scale": 0.25, "use_qk_norm": True}),
    "cohere2": Kind("Cohere2", {**MIXED_LAYERS, "logit_scale": 0.25}),
    "granite": Kind("Granite", MULTIPLIERS),
    "stablelm": Kind("StableLm", {"use_qkv_bias": True, "qk_layernorm": True}),
    "stablelm, parallel": Kind("StableLm", {"use_parallel_residual": True}),
    "starcoder2": Kind("Starcoder2", {"sliding_window": 12}),
    "glm4": Kind("Glm4", {"head_dim": 8}),
    "deepseek v3": Kind("DeepseekV3", LATENT),
    "gemma3n, shared caches": Kind(
        "Gemma3n",
        {
            "head_dim": 8, "num_hidden_layers": 4, "sliding_window": 12, "num_kv_shared_layers": 2, "laurel_rank": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8, "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "llama4, chunked attention": Kind(
        "Llama4",
        {
            "num_hidden_layers": 4, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64,
            "attention_chunk_size": 12, "interleave_moe_layer_step": 2, "no_rope_layers": [1, 1, 1, 0],
        },
    ),
    "lfm2, convolutions": Kind("Lfm2", {"layer_types": ["conv", "full_attention"]}),
    "mamba, a state space": Kind("Mamba", {"state_size": 8}),
    "qwen3.5, linear attention": Kind("Qwen3_5", LINEAR),
    "jamba, a state space beside attention": Kind(
        "Jamba",
        {"mamba_d_state": 8, "mamba_dt_rank": 4, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "falcon-h1, both in each layer": Kind("FalconH1", {**MAMBA2, "mamba_d_ssm": 64}),
}  # fmt: skip
SLOWER = {
    "phi3, a rope that grows": Kind(
        "Phi3", {"original_max_position_embeddings": 40, "rope_parameters": LONGROPE}
    ),
}  # fmt: skip


letters = partial(own_texts.letters, vocabulary=VOCABULARY)
SAME_END = letters(9, 1)
MIXED = [letters(1, 2), letters(2, 3), letters(5, 4), SAME_END, letters(8, 5) + SAME_END, letters(33, 6)]
FIRST, SECOND = letters(120, 7), letters(90, 8)
TWIN = FIRST + letters(7, 9)
SHARED = [FIRST + letters(3, 10), SECOND + letters(5, 11), TWIN, FIRST, TWIN, SECOND + letters(1, 12), TWIN + MIXED[2]]
LASTING = letters(60, 13)
"""Its text is longer than the others', so that they join while it is written, and a later prompt continues it."""


def make_tokenizer() -> Any:
    letter = {2: "</s>"}
    core = Tokenizer(models.WordLevel({letter.get(i, chr(0x100 + i)): i for i in range(VOCABULARY)}, unk_token="Ā"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")


TOKENIZER = make_tokenizer()


def make_model(kind: Kind, seed: int) -> Any:
    names = (f"{kind.name}ForCausalLM", f"{kind.name}LMHeadModel")
    found = [getattr(hf, name) for name in names if hasattr(hf, name)]
    if not found:
        pytest.skip(f"this transformers has no {kind.name}")
    torch.manual_seed(seed)
    model = found[0](found[0].config_class(**{**BASE, **kind.changes})).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() == 1:  # biases and norms begin as zeros and ones, which would hide a missing one
                weights.add_(0.2 * torch.randn_like(weights))
    if kind.attention:
        model.set_attn_implementation(kind.attention)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 2
    return model


def held_by(layer: Any) -> list[torch.Tensor]:
    """The tensors of a layer of transformers' cache."""
    states = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
    pairs = [getattr(layer, "keys", None), getattr(layer, "values", None), *states]
    return [part for part in pairs if part is not None]


def settled(**settings: Any) -> dict[str, Any]:
    """The settings that this engine has."""
    known = inspect.signature(LocalEngine.__init__).parameters
    return {name: value for name, value in settings.items() if name in known}


@dataclass(frozen=True)
class Subject:
    """A model, and the tokens it writes for each prompt alone."""

    model: Any
    texts: Mapping[str, tuple[int, ...]]
    follow_ups: Sequence[str]

    def engine(self, **settings: Any) -> LocalEngine:
        return LocalEngine(self.model, TOKENIZER, **settled(**settings))

    def expected(self, prompts: Sequence[str], lengths: Sequence[int] = ()) -> list[tuple[int, ...]]:
        return [self.texts[p][:n] for p, n in zip(prompts, lengths or [TOKENS] * len(prompts), strict=True)]

    def kv_bytes(self, rows: int, tokens: int) -> int:
        """The bytes of the keys and values of this many rows of this many tokens, and of the rows' states."""
        sizes = []
        for count in (8, 16):
            cache = hf.DynamicCache(config=self.model.config.get_text_config())
            with torch.inference_mode():
                self.model(torch.arange(3, 3 + count)[None], use_cache=True, **{cache_argument(self.model): cache})
            sizes.append(sum(part.nbytes for layer in cache.layers for part in held_by(layer)))
        each = (sizes[1] - sizes[0]) // 8
        return rows * (tokens * each + sizes[0] - 8 * each)


def subject_of(kind: Kind) -> Subject:
    """A model whose texts have no near ties and are not dull: otherwise wrong and right texts could be equal."""
    for seed in range(kind.seed, kind.seed + 12):
        model = make_model(kind, seed)
        texts, gaps = {}, []
        for prompt in dict.fromkeys([LASTING, *MIXED, *SHARED]):
            texts[prompt], gap = own_texts.alone(model, TOKENIZER, prompt, LONG if prompt is LASTING else TOKENS)
            gaps.append(gap)
        answer = TOKENIZER.decode(texts[LASTING], skip_special_tokens=True)
        follow_ups = [LASTING + answer + letters(4, 14), LASTING + answer[:5] + letters(6, 15)]
        for prompt in follow_ups:
            texts[prompt], gap = own_texts.alone(model, TOKENIZER, prompt, TOKENS)
            gaps.append(gap)
        various = len(set(texts.values())) >= len(texts) - 1 and len({t for text in texts.values() for t in text}) > 20
        if various and len(answer) > 20 and min(gaps) > LEAST_GAP:
            return Subject(model, texts, follow_ups)
    raise AssertionError("no seed gives this model lively texts without near ties: change its configuration")


@pytest.fixture(scope="module", params=BATCHED)
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(BATCHED[request.param])


@pytest.fixture(scope="module", params=SLOWER)
def slower(request: pytest.FixtureRequest) -> Subject:
    return subject_of(SLOWER[request.param])


def in_mid_flight(engine: LocalEngine, prompts: Sequence[str], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """The tokens of prompts that are submitted one by one, while the first of them is being written."""
    streams = []
    for prompt, length in zip(prompts, lengths, strict=True):
        streams.append(engine.stream(prompt, max_new_tokens=length))
        next(streams[0], None)
    for stream in streams:
        for _ in stream:
            pass
    return [stream.completion.token_ids for stream in streams]


def test_prompts_of_mixed_lengths_keep_their_texts(subject: Subject) -> None:
    with subject.engine() as engine:
        done = engine.generate(MIXED, max_new_tokens=TOKENS)
        assert engine.stats().peak_batch_size == len(MIXED)
        # Less than a step per token: the rows were decoded together.
        assert engine.stats().steps < sum(len(c.token_ids) for c in done) / 2
    assert [c.token_ids for c in done] == subject.expected(MIXED)


def test_groups_with_shared_beginnings_keep_their_texts(subject: Subject) -> None:
    prompts = [*SHARED, *MIXED[:2]]
    with subject.engine() as engine:
        first = engine.generate(prompts, max_new_tokens=TOKENS)
        assert engine.stats().prefix_tokens_reused >= 3 * len(FIRST) + len(SECOND)
        again = engine.generate(prompts, max_new_tokens=TOKENS)
    assert [c.token_ids for c in first] == subject.expected(prompts)
    assert [c.token_ids for c in again] == subject.expected(prompts)


def test_follow_ups_that_continue_an_answer_keep_their_texts(subject: Subject) -> None:
    with subject.engine() as engine:
        engine.generate([LASTING], max_new_tokens=LONG)
        done = engine.generate([*subject.follow_ups, LASTING], max_new_tokens=TOKENS)
    assert [c.token_ids for c in done] == subject.expected([*subject.follow_ups, LASTING])
    assert all(c.usage.cached_tokens > 0 for c in done)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch_size": 4, "prefill_chunk": 5},
        {"prefix_cache_tokens": 150, "prefill_chunk": 16, "share_prefix": False, "optimize": "packed"},
        {"prefix_cache_tokens": 0, "optimize": "none"},
    ],
    ids=["few places, small pieces", "prefixes copied and dropped, packed", "nothing kept, nothing optimised"],
)
def test_rows_that_join_and_leave_keep_their_texts(subject: Subject, settings: dict[str, Any]) -> None:
    prompts = [LASTING, subject.follow_ups[1], *SHARED, *MIXED]
    lengths = [LONG, *([TOKENS, 3, 9, 1, 6, TOKENS, 2] * 2)[: len(prompts) - 1]]
    with subject.engine(**settings) as engine:
        got = in_mid_flight(engine, prompts, lengths)
        assert 1 < engine.stats().peak_batch_size <= settings.get("max_batch_size", 64)
    assert got == subject.expected(prompts, lengths)


def test_rows_that_wait_for_memory_keep_their_texts(subject: Subject) -> None:
    prompts = [*SHARED, *MIXED]
    settings = {"kv_memory": subject.kv_bytes(3, 160), "share_prefix": False, "prefill_chunk": 32}
    with subject.engine(**settings) as engine:
        done = engine.generate(prompts, max_new_tokens=TOKENS)
        crowded = "kv_memory" not in settled(**settings)
        assert crowded or engine.stats().peak_batch_size < len(prompts)
    assert [c.token_ids for c in done] == subject.expected(prompts)


def test_models_that_are_not_batched_write_their_own_text(slower: Subject) -> None:
    prompts = [LASTING, *MIXED, SHARED[0], SHARED[2], SHARED[4], slower.follow_ups[1]]
    lengths = [16, *([7, 3, TOKENS] * 4)[: len(prompts) - 1]]
    with slower.engine(prefill_chunk=5) as engine:
        assert in_mid_flight(engine, prompts, lengths) == slower.expected(prompts, lengths)
        assert engine.stats().rows == 0


OWN_STATES = Kind("RecurrentGemma", {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 12})


@pytest.mark.parametrize(
    "kind",
    [BATCHED["llama"], BATCHED["gemma3"], BATCHED["lfm2, convolutions"], BATCHED["mamba, a state space"], OWN_STATES],
    ids=lambda kind: kind.name,
)
def test_a_model_that_is_not_batched_is_announced(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    LocalEngine(make_model(kind, kind.seed), TOKENIZER).close()
    assert ("one after another" in caplog.text) == (kind is OWN_STATES)


def test_the_window_of_a_dynamic_rope_is_the_stretched_one() -> None:
    model = make_model(Kind("Llama", {"max_position_embeddings": 64, "rope_parameters": DYNAMIC}), 0)
    with LocalEngine(model, TOKENIZER) as engine:
        assert engine.context_window == 512


def test_a_model_without_a_window_takes_any_length() -> None:
    config = hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    with LocalEngine(hf.BloomForCausalLM(config).eval(), TOKENIZER) as engine:
        assert engine.context_window is None
        assert engine.generate([MIXED[2]], max_new_tokens=3, ignore_eos=True)[0].usage.output_tokens == 3
