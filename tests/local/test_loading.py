"""Models loaded or changed in many forms run with their own weights, and the engine does not change them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from skeleton_of_thought.local import LocalEngine

STORY = "The small boat crossed the wide river before the evening came."
PROMPTS = [STORY + " Then", STORY + " Why do the leaves of a tree", "Bread needs flour", "x"]
TOKENS = 12
LEAST_GAP = 2e-4
"""Between the two likeliest tokens: below it, another order of summation might well choose the other one."""


def alone(model: Any, tokenizer: Any, prompt: str) -> list[int]:
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, pad_token_id=2,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    best = torch.stack(out.logits)[:, 0].float().topk(2).values
    # At lower precision near ties are common, so texts are not compared.
    assert model.dtype.itemsize < 4 or (best[:, 0] - best[:, 1]).min() > LEAST_GAP, f"a near tie after {prompt!r}"
    return out.sequences[0, ids.shape[1] :].tolist()


def all_alone(model: Any, tokenizer: Any) -> list[list[int]]:
    return [alone(model, tokenizer, prompt) for prompt in PROMPTS]


def written(engine: LocalEngine, **settings: Any) -> list[list[int]]:
    return [list(c.token_ids) for c in engine.generate(PROMPTS, max_new_tokens=TOKENS, **settings)]


# --- state that the engine must not change ----------------------------------------------------------------


def facts(model: Any) -> dict[str, Any]:
    """The state of a model that users can observe."""
    return {
        "modules": [(name, type(module), module.training) for name, module in model.named_modules()],
        "hooks": [
            (name, len(module._forward_hooks), len(module._forward_pre_hooks))
            for name, module in model.named_modules()
        ],
        "own forwards": [name for name, module in model.named_modules() if "forward" in vars(module)],
        "weights": [
            (name, id(weight), weight.data_ptr(), weight.dtype, weight.device, weight.requires_grad)
            for name, weight in model.named_parameters()
        ],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "attention": [
            module.config._attn_implementation for module in model.modules() if hasattr(module, "config")
        ],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_the_model_is_left_as_it_was(kind: str, tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model(kind)
    before, weights = facts(model), {name: value.clone() for name, value in model.state_dict().items()}
    expected = all_alone(model, tokenizer)
    with LocalEngine(model, tokenizer) as engine:
        assert facts(model) == before
        assert written(engine) == expected
        assert facts(model) == before
        assert all_alone(model, tokenizer) == expected
    assert facts(model) == before
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all_alone(model, tokenizer) == expected


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_model_generates_by_itself_while_the_engine_runs(kind: str, tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model(kind)
    expected = all_alone(model, tokenizer)
    with LocalEngine(model, tokenizer) as engine:
        streams = [engine.stream(prompt, max_new_tokens=150, ignore_eos=True) for prompt in PROMPTS[2:]]
        next(streams[0])
        ended = threading.Event()
        reader = threading.Thread(target=lambda: ([list(stream) for stream in streams], ended.set()))
        reader.start()
        rounds = 0
        while rounds == 0 or not ended.is_set():
            assert all_alone(model, tokenizer) == expected
            rounds += 1
        reader.join()
        assert [list(s.completion.token_ids[:TOKENS]) for s in streams] == [
            list(c.token_ids) for c in engine.generate(PROMPTS[2:], max_new_tokens=TOKENS, ignore_eos=True)
        ]


def test_weights_can_be_trained_after_the_engine_ran(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    with LocalEngine(model, tokenizer) as engine:
        written(engine)
    ids = tokenizer(STORY, return_tensors="pt").input_ids
    model(ids, labels=ids).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


# --- weights that change ----------------------------------------------------------------------------


def in_place(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(-1)


def through_its_data(layer: nn.Linear) -> None:
    layer.weight.data.mul_(-1)  # autograd's version counter misses this change, by which adapters are merged


def new_data(layer: nn.Linear) -> None:
    layer.weight.data = -layer.weight.data


def new_parameter(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(-layer.weight.detach())


def loaded(layer: nn.Linear) -> None:
    layer.load_state_dict({name: -value for name, value in layer.state_dict().items()})


def trained(layer: nn.Linear) -> None:
    layer.weight.grad = 2 * layer.weight.detach().clone()
    torch.optim.SGD([layer.weight], lr=1.0).step()
    layer.weight.grad = None


CHANGES = [in_place, through_its_data, new_data, new_parameter, loaded, trained]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"])
def test_changed_weights_are_used(name: str, change: Callable[[nn.Linear], None], tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    with LocalEngine(model, tokenizer, prefix_cache_tokens=0) as engine:
        before = written(engine)
        change(model.get_submodule(name))
        after = written(engine)
    assert after != before
    assert after == all_alone(model, tokenizer)


def test_kept_prompts_are_not_reused_with_other_weights(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    with LocalEngine(model, tokenizer) as engine:
        before = written(engine)
        in_place(model.model.layers[0].mlp.down_proj)
        after = written(engine)
    assert after != before
    assert after == all_alone(model, tokenizer)


# --- layers that are not the model's own ------------------------------------------------------------


class Adapted(nn.Module):
    """A linear layer with a low-rank correction."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base(hidden) + self.up(self.down(hidden))


class Quantised(nn.Linear):
    """A linear layer with few levels, packed in bytes of another shape; a subclass, as quantisers make them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=False)
        scale = base.weight.detach().abs().max() / 5
        packed = (base.weight.detach() / scale).round().to(torch.int8).reshape(-1, 1)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scale", scale)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight.reshape(self.out_features, self.in_features).to(input.dtype) * self.scale
        return nn.functional.linear(input, weight)


def adapt(model: Any) -> None:
    torch.manual_seed(1)
    model.model.layers[0].mlp.up_proj = Adapted(model.model.layers[0].mlp.up_proj)
    model.model.layers[1].self_attn.v_proj = Adapted(model.model.layers[1].self_attn.v_proj)


def quantise(model: Any) -> None:
    for layer in model.model.layers:
        for part, names in ((layer.mlp, ("gate_proj", "down_proj")), (layer.self_attn, ("q_proj", "o_proj"))):
            for name in names:
                setattr(part, name, Quantised(getattr(part, name)))


def hook(model: Any) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: output.flip(-1))


def pre_hook(model: Any) -> None:
    model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def own_forward(model: Any) -> None:
    norm = model.model.norm
    norm.forward = lambda hidden: type(norm).forward(norm, hidden).roll(1, -1)


@pytest.mark.parametrize("change", [adapt, quantise, hook, pre_hook, own_forward])
@pytest.mark.parametrize("when", ["before the engine is made", "after its first text"])
def test_the_engine_runs_other_layers_and_hooks(
    change: Callable[[Any], None], when: str, tiny: Any, tokenizer: Any
) -> None:
    model = tiny.make_model("llama")
    plain = all_alone(model, tokenizer)
    if when.startswith("before"):
        change(model)
    with LocalEngine(model, tokenizer, prefix_cache_tokens=0) as engine:
        if when.startswith("after"):
            assert written(engine) == plain
            change(model)
        after = written(engine)
    assert after != plain
    assert after == all_alone(model, tokenizer)


# --- types and devices --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_low_precision_writes_the_same_number_of_tokens(
    kind: str, dtype: torch.dtype, tiny: Any, tokenizer: Any, record_property: Callable[[str, object], None]
) -> None:
    model = tiny.make_model(kind).to(dtype)
    with LocalEngine(model, tokenizer) as engine:
        got = written(engine, ignore_eos=True)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert [len(text) for text in got] == [TOKENS] * len(PROMPTS)
    expected = all_alone(model, tokenizer)
    agreeing = sum(a == b for got_, own in zip(got, expected, strict=True) for a, b in zip(got_, own, strict=False))
    # Rounding differs with the shape of a batch, so texts may differ: the test reports by how much.
    record_property("agreeing_tokens", f"{agreeing} of {sum(len(own) for own in expected)}")


def test_double_precision_is_exact(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama").to(torch.float64)
    with LocalEngine(model, tokenizer) as engine:
        assert written(engine) == all_alone(model, tokenizer)


@pytest.fixture(scope="module")
def saved(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tiny.make_model("llama").save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    return folder


def on_the_cpu(folder: Path, scratch: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"})


def dispatched(folder: Path, scratch: Path) -> Any:
    accelerate = pytest.importorskip("accelerate")
    model = AutoModelForCausalLM.from_pretrained(folder)
    return accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)


def offloaded(folder: Path, scratch: Path) -> Any:
    accelerate = pytest.importorskip("accelerate")
    return accelerate.cpu_offload(AutoModelForCausalLM.from_pretrained(folder), execution_device=torch.device("cpu"))


def offloaded_to_disk(folder: Path, scratch: Path) -> Any:
    accelerate = pytest.importorskip("accelerate")
    model = AutoModelForCausalLM.from_pretrained(folder)
    return accelerate.disk_offload(model, str(scratch), execution_device=torch.device("cpu"))


@pytest.mark.parametrize("load", [on_the_cpu, dispatched, offloaded, offloaded_to_disk])
def test_models_spread_over_devices_stay_where_they_are(
    load: Callable[[Path, Path], Any], saved: Path, tmp_path: Path, llama: Any, tokenizer: Any
) -> None:
    model = load(saved, tmp_path).eval()
    devices = [weight.device for weight in model.parameters()]
    with LocalEngine(model, tokenizer) as engine:
        assert written(engine) == all_alone(llama, tokenizer)
    assert [weight.device for weight in model.parameters()] == devices
    assert all_alone(model, tokenizer) == all_alone(llama, tokenizer)


def test_an_engine_loads_with_a_device_map(saved: Path, llama: Any, tokenizer: Any) -> None:
    with LocalEngine.from_pretrained(saved, device_map={"": "cpu"}, dtype=torch.float32) as engine:
        assert written(engine) == all_alone(llama, tokenizer)
