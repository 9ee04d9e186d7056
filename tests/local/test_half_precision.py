"""Lean forwards of models in half precision, and of a single row: the products, their choice, and their exactness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import transformers as hf

from skeleton_of_thought.local import LocalEngine, lean, packed
from skeleton_of_thought.local.kv import RowsCache
from skeleton_of_thought.local.lean import LeanModel, first_layers
from skeleton_of_thought.local.packed import (
    HalfWeight,
    PackedWeight,
    RoundedWeight,
    SplitWeight,
    halves_work,
    packing_works,
    splitting_works,
)

pytestmark = pytest.mark.skipif(
    not (packing_works(torch.float32) and packing_works(torch.bfloat16) and halves_work()),
    reason="this build of torch has no products with packed weights",
)
PROMPTS = ["The small boat crossed the wide river", "The small boat crossed a bridge", "Bread needs flour, water, salt"]
KINDS = ("llama", "llama with biases", "qwen2", "qwen3", "mistral")
HALVES = (torch.bfloat16, torch.float16)
EXACT = 1e-4


def make(kind: str, common: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(7)
    biases = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    name, extra = {
        "llama": ("Llama", {}),
        "llama with biases": ("Llama", biases),
        "qwen2": ("Qwen2", {}),
        "qwen3": ("Qwen3", {"head_dim": 16}),
        "mistral": ("Mistral", {"sliding_window": None}),
    }[kind]
    model = getattr(hf, f"{name}ForCausalLM")(getattr(hf, f"{name}Config")(**{**common, **extra}))
    for part, weight in model.named_parameters():
        if part.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
        elif "norm" in part:
            torch.nn.init.uniform_(weight, 0.5, 1.5)  # ones would hide missing norms
    return model.eval().to(dtype)


def distance(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def in_pieces(forward: LeanModel, ids: torch.Tensor, *stops: int) -> torch.Tensor:
    cache, got, start = RowsCache(len(ids), ids.shape[1]), [], 0
    for stop in stops:
        positions = torch.arange(start, stop).expand(len(ids), -1)
        got.append(forward(ids[:, start:stop], cache, positions, keep=stop - start))
        cache.advance(stop - start)
        start = stop
    return torch.cat(got, 1)


def kinds_of(forward: LeanModel) -> tuple[type, type, int]:
    return type(forward._weights.head), type(forward._weights_for_few.head), forward._few


# --- products ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 7, 48, 97, 130])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_split_weight_multiplies_a_single_row(
    outputs: int, threads: int, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(packed, "_LEAST_SPLIT", 0)
    torch.manual_seed(outputs)
    weight, x, other = torch.randn(outputs, 40), torch.randn(1, 40), torch.randn(1, outputs)
    bias = torch.randn(outputs) if with_bias else None
    plain = torch.nn.functional.linear(x, weight, bias)
    product = SplitWeight(weight, bias=bias)
    assert product._weights[0].data_ptr() == weight.data_ptr()  # no copy
    if outputs % threads == 0:
        assert len(product._weights[0]) == threads
    before = other.clone()
    for _ in range(2):
        assert torch.allclose(product(x), plain, atol=1e-5)
        assert torch.allclose(product.add(x, other), plain + other, atol=1e-5)
    assert torch.equal(other, before)


def test_threads_share_no_small_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    weights = [torch.zeros(2, packed._LEAST_SPLIT // 2 + size) for size in (-1, 0)]
    assert [len(part) for part in SplitWeight(*weights)._weights] == [1, 2]


def test_several_split_weights_give_their_outputs_one_after_another() -> None:
    torch.manual_seed(3)
    weights, x, bias = [torch.randn(n, 24) for n in (10, 6, 33)], torch.randn(1, 24), torch.randn(49)
    wanted = x @ torch.cat(weights).t() + bias
    assert torch.allclose(SplitWeight(*weights, bias=bias)(x), wanted, atol=1e-5)
    transposed = torch.randn(24, 10).t()  # not contiguous
    assert torch.allclose(SplitWeight(transposed)(x), x @ transposed.t(), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 16, 70])
@pytest.mark.parametrize("with_bias", [False, True])
def test_products_with_weights_in_half_precision(rows: int, with_bias: bool) -> None:
    torch.manual_seed(rows)
    x, other = torch.randn(rows, 40), torch.randn(rows, 48)
    for kind, dtype, slack in (
        (HalfWeight, torch.float16, 1e-4), (HalfWeight, torch.bfloat16, 1e-4), (RoundedWeight, torch.bfloat16, 0.3),
    ):  # fmt: skip
        weight, bias = torch.randn(48, 40).to(dtype), torch.randn(48).to(dtype) if with_bias else None
        plain = torch.nn.functional.linear(x, weight.float(), None if bias is None else bias.float())
        product, before = kind(weight, bias), other.clone()
        got, added = product(x), product.add(x, other)
        assert got.dtype == added.dtype == torch.float32
        assert torch.allclose(got, plain, atol=slack)
        assert torch.allclose(added, plain + other, atol=slack)
        assert torch.equal(other, before)


# --- forwards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_lean_forward_of_half_weights_gives_the_logits_of_float32(kind: str, dtype: torch.dtype, tiny: Any) -> None:
    model = make(kind, tiny.COMMON, dtype)
    forward, full = LeanModel(model), make(kind, tiny.COMMON, dtype).float()
    for rows in (1, 2):
        ids = torch.randint(3, 400, (rows, 24))
        with torch.inference_mode():
            whole = full(ids).logits
            few = in_pieces(forward, ids, *range(2, 25, 2)) if rows == 1 else in_pieces(forward, ids, *range(1, 25))
            many = in_pieces(forward, ids, 9, 24)
        assert few.dtype == many.dtype == torch.float32
        assert distance(few, whole) < EXACT
        # Only products of many tokens in bfloat16 round their input.
        assert distance(many, whole) < (EXACT if dtype == torch.float16 else 0.1)


@pytest.mark.skipif(not splitting_works(), reason="no batches of products in threads here")
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_token_in_float32_multiplies_the_models_own_weights(kind: str, tiny: Any) -> None:
    model = make(kind, tiny.COMMON)
    forward = LeanModel(model)
    assert kinds_of(forward) == (PackedWeight, SplitWeight, 1)
    layer, own = forward._weights_for_few.layers[1], model.model.layers[1]
    for product, linear in ((layer.output, own.self_attn.o_proj), (layer.down, own.mlp.down_proj)):
        assert product._weights[0].data_ptr() == linear.weight.data_ptr()
    ids = torch.randint(3, 400, (1, 12))
    with torch.inference_mode():
        whole = model(ids).logits
        assert distance(in_pieces(forward, ids, *range(1, 13)), whole) < EXACT
        without = LeanModel(model)
        without._few = 0
        assert distance(in_pieces(without, ids, *range(1, 13)), whole) < EXACT


def test_the_products_depend_on_type_processor_and_memory(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds(dtype: torch.dtype, **settings: Any) -> tuple[type, type, int]:
        return kinds_of(LeanModel(make("llama", tiny.COMMON, dtype), **settings))

    monkeypatch.setattr(lean, "multiplies_bfloat16", lambda: True)
    assert kinds(torch.float16) == (HalfWeight, HalfWeight, 0)
    assert kinds(torch.bfloat16) == (RoundedWeight, HalfWeight, lean._FEW)
    assert kinds(torch.bfloat16, two_kinds=False)[:2] == (RoundedWeight, RoundedWeight)
    monkeypatch.setattr(lean, "multiplies_bfloat16", lambda: False)
    assert kinds(torch.bfloat16) == (HalfWeight, HalfWeight, 0)
    monkeypatch.setattr(lean, "halves_work", lambda: False)
    assert kinds(torch.bfloat16)[:2] == (RoundedWeight, RoundedWeight)
    assert not LeanModel.supports(make("llama", tiny.COMMON, torch.float16))
    monkeypatch.setattr(lean, "splitting_works", lambda: False)
    assert kinds(torch.float32)[:2] == (PackedWeight, PackedWeight)


@pytest.mark.parametrize("engine", [name for name in ("qnnpack", "none") if name != torch.backends.quantized.engine])
def test_halves_follow_the_library_for_quantised_products(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine != "none" and engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"no {engine} here")
    asked: list[Any] = []
    monkeypatch.setattr(packed, "_works", lambda *args: asked.append(args) or True)
    for name in ("one", engine):
        monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(engine=name))
        assert halves_work()
    assert asked[0] != asked[1]  # asks again


def test_processors_report_products_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (
        ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False), ({}, False),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert packed.multiplies_bfloat16() is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert packed.multiplies_bfloat16()


# --- engines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_engines_run_models_in_half_precision_lean(kind: str, dtype: torch.dtype, tiny: Any, tokenizer: Any) -> None:
    model, full = make(kind, tiny.COMMON, dtype), make(kind, tiny.COMMON, dtype).float()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    texts = []
    for each in (model, full):
        with LocalEngine(each, tokenizer) as engine:
            engine._eos_ids = frozenset()
            assert engine.optimization == "lean"
            # So few tokens that neither type rounds more than its weights.
            short = [text[:9] for text in PROMPTS]
            assert max(map(engine.count_tokens, short)) <= lean._FEW
            texts.append([engine.generate([text], max_new_tokens=12)[0].token_ids for text in short])
            assert [len(done.token_ids) for done in engine.generate(PROMPTS, max_new_tokens=12)] == [12] * 3
    assert texts[0] == texts[1]
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert {part.dtype for part in model.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("fault", ["scaling", "epsilon", "activation"])
def test_half_precision_hides_no_other_layout(dtype: torch.dtype, fault: str, tiny: Any, tokenizer: Any) -> None:
    model = make("llama", tiny.COMMON, dtype)
    if fault == "scaling":
        model.model.layers[1].self_attn.scaling *= 1.05
    elif fault == "epsilon":
        model.model.layers[0].input_layernorm.variance_epsilon = 0.1
    else:
        model.model.layers[1].mlp.act_fn = torch.nn.GELU()
    with LocalEngine(model, tokenizer) as engine:
        assert engine.optimization in ("packed", "none")
        assert [len(done.token_ids) for done in engine.generate(PROMPTS, max_new_tokens=3, ignore_eos=True)] == [3] * 3


def test_the_first_layers_share_nothing_with_their_model(tiny: Any) -> None:
    for kind in KINDS:
        model = make(kind, tiny.COMMON, torch.bfloat16)
        small = first_layers(model)
        assert len(small.model.layers) == small.config.num_hidden_layers == 2
        assert {part.dtype for part in small.parameters()} == {torch.float32}
        assert not {part.data_ptr() for part in small.parameters()} & {part.data_ptr() for part in model.parameters()}
        assert model.config.num_hidden_layers == len(model.model.layers) == tiny.COMMON["num_hidden_layers"]
        ids = torch.arange(8)[None]
        assert small(ids).logits.shape == (1, 8, 64)
        assert model(ids).logits.shape == (1, 8, tiny.COMMON["vocab_size"])


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_changed_weights_are_noticed_by_single_rows_and_batches(dtype: torch.dtype, tiny: Any, tokenizer: Any) -> None:
    model = make("llama", tiny.COMMON, dtype)
    with LocalEngine(model, tokenizer, prefix_cache_tokens=0) as engine:
        engine._eos_ids = frozenset()
        first = [engine.generate(texts, max_new_tokens=8) for texts in (PROMPTS[:1], PROMPTS)]
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.down_proj.weight.mul_(-2)
                layer.self_attn.q_proj.weight.mul_(3)
        second = [engine.generate(texts, max_new_tokens=8) for texts in (PROMPTS[:1], PROMPTS)]
    with LocalEngine(model, tokenizer, prefix_cache_tokens=0) as engine:
        engine._eos_ids = frozenset()
        fresh = [engine.generate(texts, max_new_tokens=8) for texts in (PROMPTS[:1], PROMPTS)]
    ids = [[[done.token_ids for done in group] for group in run] for run in (first, second, fresh)]
    assert ids[0] != ids[1] == ids[2]


def test_memory_for_one_copy_keeps_one(tiny: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama", tiny.COMMON, torch.bfloat16)
    linear = sum(layer.weight.nbytes for _, layer in packed.packable_layers(model))
    monkeypatch.setattr(lean, "multiplies_bfloat16", lambda: True)
    for share, expected in ((5, (RoundedWeight, HalfWeight)), (3, (RoundedWeight, RoundedWeight)), (1, None)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda share=share: SimpleNamespace(available=share * linear))
        with LocalEngine(model, tokenizer, kv_memory=10**8) as engine:
            forward = engine._runner._fast
            assert engine.optimization == ("none" if expected is None else "lean")
            assert expected is None or kinds_of(forward)[:2] == expected  # type: ignore[arg-type]
            assert engine.generate(PROMPTS, max_new_tokens=4)


@pytest.mark.parametrize("dtype", HALVES)
def test_keys_and_values_of_a_lean_forward_count_as_float32(dtype: torch.dtype, tiny: Any, tokenizer: Any) -> None:
    model = make("llama", tiny.COMMON, dtype)
    sizes = {}
    for optimize in ("auto", "none"):
        with LocalEngine(model, tokenizer, optimize=optimize, prefix_cache_tokens=0) as engine:  # type: ignore[arg-type]
            sizes[optimize] = engine._runner.token_bytes
    assert sizes["auto"] == 2 * sizes["none"]
