"""The private names of torch, transformers and accelerate, used here as our code uses them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import contract, version
from torch import nn
from transformers import GenerationConfig, TextGenerationPipeline

# --- torch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("torch.nn.Module._parameters", lambda module: module.named_parameters(recurse=False)),
        ("torch.nn.Module._buffers", lambda module: module.named_buffers(recurse=False)),
        ("torch.nn.Module._modules", nn.Module.named_children),
    ],
)
def test_parts_of_a_module(name, public):
    with contract(name):
        module = nn.BatchNorm1d(3)
        module.inner = nn.Linear(2, 2)
        found = dict(public(module))
        assert found
        # Twins are made of copies of these.
        assert module.__dict__[name.rpartition(".")[2]] == found


@pytest.mark.parametrize(
    ("name", "register"),
    [
        ("torch.nn.Module._forward_hooks", nn.Module.register_forward_hook),
        ("torch.nn.Module._forward_pre_hooks", nn.Module.register_forward_pre_hook),
    ],
)
def test_hooks_of_a_module(name, register):
    attribute = name.rpartition(".")[2]
    with contract(name):
        module = nn.Linear(2, 2)
        assert not getattr(module, attribute)
        register(module, lambda *_: None)
        assert getattr(module, attribute)


def test_version_of_a_tensor():
    with contract("torch.Tensor._version"):
        weight = torch.zeros(2)
        before = weight._version
        weight.add_(1)
        assert weight._version > before


def test_orig_mod():
    with contract("torch._dynamo.OptimizedModule._orig_mod"):
        # Its text, since an import of torch's compiler takes seconds. `test_path.py` compiles a model.
        module = Path(torch.__file__).with_name("_dynamo") / "eval_frame.py"
        found = re.search(r"^class OptimizedModule\b.*?(?=^class )", module.read_text(encoding="utf-8"), re.M | re.S)
        assert "self._orig_mod = mod" in found[0]


def test_reorder_linear_weight():
    with contract("torch.ops.mkldnn._reorder_linear_weight"):
        assert torch.ops.mkldnn._reorder_linear_weight(torch.ones(4, 3), 1) is not None


def test_linear_pointwise():
    with contract("torch.ops.mkldnn._linear_pointwise"):
        ops, x, weight = torch.ops.mkldnn, torch.ones(2, 3), torch.arange(12.0).view(4, 3)
        packed = ops._reorder_linear_weight(weight, 1)
        expected = x @ weight.t()
        assert torch.allclose(ops._linear_pointwise.default(x, packed, None, "none", [], ""), expected)
        assert torch.allclose(ops._linear_pointwise.binary(x, torch.ones(2, 4), packed, None, "add"), expected + 1)


@pytest.mark.skipif(torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="fbgemm is for x86 processors")
def test_products_with_float16_weights():
    ops, x, weight, bias = torch.ops.quantized, torch.ones(2, 3), torch.arange(12.0).view(4, 3), torch.ones(4)
    with contract("torch.ops.quantized.linear_prepack_fp16"):
        held = ops.linear_prepack_fp16(weight, bias)
    with contract("torch.ops.quantized.linear_dynamic_fp16"):
        assert torch.allclose(ops.linear_dynamic_fp16.default(x, held), x @ weight.t() + 1)


def test_flash_attention_for_cpu():
    with contract("torch.ops.aten._scaled_dot_product_flash_attention_for_cpu"):
        query, key, value = torch.randn(3, 1, 2, 4, 8).unbind()
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        out, sums = flash(query, key, value, 0.0, False, attn_mask=None, scale=0.5)
        scores = query @ key.transpose(2, 3) * 0.5
        assert torch.allclose(out, scores.softmax(-1) @ value, atol=1e-5)
        assert torch.allclose(sums, scores.logsumexp(-1), atol=1e-5)


# --- transformers ------------------------------------------------------------------------------------


def test_prepare_generation_config(llama):
    with contract("transformers.PreTrainedModel._prepare_generation_config"):
        config, rest = llama._prepare_generation_config(None, max_new_tokens=7, unheard_of=1)
        assert config.max_new_tokens == 7
        assert rest["unheard_of"] == 1


def test_get_default_generation_params():
    with contract("transformers.GenerationConfig._get_default_generation_params"):
        plain = GenerationConfig()
        neutral = {**vars(plain), **plain._get_default_generation_params()}
        assert (neutral["temperature"], neutral["num_beams"], neutral["repetition_penalty"]) == (1.0, 1, 1.0)


def test_attn_implementation(llama):
    with contract("transformers.PreTrainedConfig._attn_implementation"):
        config = type(llama.config)()
        assert llama.config._attn_implementation == "sdpa"
        config._attn_implementation = "eager"
        assert config._attn_implementation == "eager"


def test_supports_default_dynamic_cache(llama):
    with contract("transformers.PreTrainedModel._supports_default_dynamic_cache"):
        assert llama._supports_default_dynamic_cache() is True


def test_is_stateful(llama):
    from transformers import MambaForCausalLM

    with contract("transformers.PreTrainedModel._is_stateful"):
        assert (llama._is_stateful, MambaForCausalLM._is_stateful) == (False, True)


def test_model_mapping():
    from transformers import AutoModelForCausalLM, BertConfig, BlipConfig, LlamaConfig

    with contract("transformers.AutoModelForCausalLM._model_mapping"):
        found = [kind in AutoModelForCausalLM._model_mapping for kind in (LlamaConfig, BertConfig, BlipConfig)]
        assert found == [True, True, False]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("transformers.PreTrainedConfig._name_or_path", {"name_or_path": "abc"}),
        ("transformers.PreTrainedConfig._output_attentions", {"output_attentions": True}),
    ],
)
def test_settings_that_decide_no_logit(name, given):
    from transformers import LlamaConfig

    with contract(name):
        # The fingerprint of a model leaves these out by their place in a config.
        ((_, value),) = given.items()
        assert vars(LlamaConfig.from_dict({}, **given))[name.rpartition(".")[2]] == value


@pytest.fixture
def pipeline(llama: Any, tokenizer: Any) -> Any:
    """A pipeline with a setting for each of its steps."""
    settings = {"prefix": "P", "max_new_tokens": 3, "skip_special_tokens": False}
    return TextGenerationPipeline(model=llama, tokenizer=tokenizer, **settings)


def test_preprocess_params(pipeline):
    with contract("transformers.Pipeline._preprocess_params"):
        assert pipeline._preprocess_params["prefix"] == "P"


def test_forward_params(pipeline):
    with contract("transformers.Pipeline._forward_params"):
        # Settings of the generation config have a place of their own since transformers 5.
        assert {**pipeline._forward_params, "top_k": 5}["top_k"] == 5


def test_postprocess_params(pipeline):
    with contract("transformers.Pipeline._postprocess_params"):
        assert pipeline._postprocess_params["skip_special_tokens"] is False


def test_sanitize_parameters(pipeline):
    with contract("transformers.TextGenerationPipeline._sanitize_parameters"):
        before, forward, after = pipeline._sanitize_parameters(add_special_tokens=False, top_k=5, return_full_text=True)
        assert before["add_special_tokens"] is False
        assert forward["top_k"] == 5
        assert after["return_type"].name == "FULL_TEXT"


@pytest.mark.skipif(version("transformers") < (5, 20), reason="pipelines hold their generation config openly")
def test_prepare_generate_kwargs(pipeline):
    with contract("transformers.TextGenerationPipeline._prepare_generate_kwargs"):
        assert pipeline._prepare_generate_kwargs({"top_k": 5})["top_k"] == 5


# --- accelerate --------------------------------------------------------------------------------------


def test_hf_hook():
    hooks = pytest.importorskip("accelerate.hooks", reason="accelerate is not installed")
    with contract("accelerate.hooks._hf_hook"):
        module = nn.Embedding(2, 2)
        hooks.add_hook_to_module(module, hooks.AlignDevicesHook(execution_device="cpu", offload=False))
        assert module._hf_hook.execution_device == "cpu"
