"""Whatever changes what a model computes shows in the next text, and nothing computed before the change is reused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.fingerprint import ModelState

STORY = "The small boat crossed the wide river before the evening came."
TOKENS = 8


class Lora(nn.Module):
    """A linear layer with low-rank adapters, in the form of peft's."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self._active_adapter: list[str] = ["one"]
        self._disable_adapters = False
        for name in ("one", "two"):
            self.lora_A[name] = nn.Linear(base.in_features, 4, bias=False)
            self.lora_B[name] = nn.Linear(4, base.out_features, bias=False)
            self.scaling[name] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base_layer(x)
        for name in () if self._disable_adapters else self._active_adapter:
            out = out + self.scaling[name] * self.lora_B[name](self.lora_A[name](x))
        return out


class Adapted(nn.Module):
    """A linear layer with a factor in a buffer and in an attribute."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("factor", torch.ones(()))
        self.kind = "plain"
        self.inner: Callable[[torch.Tensor], torch.Tensor] = torch.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base(x) * self.factor
        return out if self.kind == "plain" else self.inner(out)


def adapted(tiny: Any, kind: type[Lora | Adapted]) -> Any:
    model = tiny.make_model("llama")
    torch.manual_seed(5)
    for layer in model.model.layers:
        layer.self_attn.v_proj = kind(layer.self_attn.v_proj)
        layer.mlp.down_proj = kind(layer.mlp.down_proj)
    return model.eval()


def parts(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, Lora | Adapted)]


def own_text(model: Any, tokenizer: Any) -> list[int]:
    ids = tokenizer(STORY, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
                             pad_token_id=2, eos_token_id=400)  # fmt: skip
    return out[0, ids.shape[1] :].tolist()  # type: ignore[no-any-return]


def check(engine: LocalEngine, changed: bool = True) -> list[int]:
    """The engine's text is the model's own, and begins without keys and values from before a change."""
    done = engine.generate([STORY], max_new_tokens=TOKENS, ignore_eos=True)[0]
    assert list(done.token_ids) == own_text(engine.model, engine.tokenizer)
    assert (done.usage.cached_tokens == 0) == changed
    again = engine.generate([STORY], max_new_tokens=TOKENS, ignore_eos=True)[0]
    assert again.usage.cached_tokens > 0
    assert again.token_ids == done.token_ids
    return list(done.token_ids)


def each(model: Any, name: str, value: Any) -> None:
    for part in parts(model):
        setattr(part, name, value)


LORA: dict[str, Callable[[Any], None]] = {
    "disabled": lambda model: each(model, "_disable_adapters", True),
    "enabled again": lambda model: each(model, "_disable_adapters", False),
    "another adapter": lambda model: each(model, "_active_adapter", ["two"]),
    "two adapters": lambda model: [part._active_adapter.append("one") for part in parts(model)] and None,
    "scaled": lambda model: [part.scaling.update(two=5.0) for part in parts(model)] and None,
    "merged": lambda model: [merge(part) for part in parts(model)] and None,
}


def merge(part: Lora) -> None:
    with torch.no_grad():
        for name in part._active_adapter:
            part.base_layer.weight += part.scaling[name] * part.lora_B[name].weight @ part.lora_A[name].weight
    part._disable_adapters = True


def test_each_change_of_an_adapter_shows_and_reuses_nothing(tiny: Any, tokenizer: Any) -> None:
    model = adapted(tiny, Lora)
    with LocalEngine(model, tokenizer) as engine:
        texts = {"one": check(engine)}
        for name, change in LORA.items():
            change(model)
            texts[name] = check(engine)
    assert texts["disabled"] != texts["one"] == texts["enabled again"] != texts["another adapter"]
    assert texts["scaled"] not in (texts["two adapters"], texts["another adapter"])
    assert texts["merged"] == texts["scaled"]


def halved(module: nn.Module, args: Any, output: Any) -> Any:
    return output * 0.3


CHANGES: dict[str, Callable[[Any], object]] = {
    "a buffer": lambda model: [part.factor.fill_(0.3) for part in parts(model)],
    "a buffer's data": lambda model: [part.factor.data.fill_(0.3) for part in parts(model)],
    "an attribute": lambda model: each(model, "kind", "bent"),
    "a weight": lambda model: model.lm_head.weight.data.mul_(-1),
    "a hook": lambda model: [part.register_forward_hook(halved) for part in parts(model)],
    "a hook of a linear layer": lambda model: model.model.layers[0].mlp.up_proj.register_forward_hook(halved),
    "a forward": lambda model: setattr(model.model.layers[1].mlp, "forward", torch.zeros_like),
    "the activation": lambda model: [setattr(layer.mlp, "act_fn", nn.Tanh()) for layer in model.model.layers],
    "the activation as a function": lambda model: (
        [setattr(part, "kind", "bent") for part in parts(model)],
        [setattr(part, "inner", torch.tanh) for part in parts(model)],
    ),
    "a number in a module": lambda model: [setattr(layer.self_attn, "scaling", 3.0) for layer in model.model.layers],
    "a module": lambda model: setattr(model.model.layers[1], "mlp", nn.Identity()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_a_module_shows_and_reuses_nothing(tiny: Any, tokenizer: Any, change: str) -> None:
    model = adapted(tiny, Adapted)
    with LocalEngine(model, tokenizer) as engine:
        before = check(engine)
        CHANGES[change](model)
        assert check(engine) != before


PLAIN: dict[str, Callable[[Any], object]] = {
    name: CHANGES[name] for name in ("a weight", "a hook of a linear layer", "the activation", "a number in a module")
}


@pytest.mark.parametrize("change", PLAIN)
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_faster_forwards_follow_each_change(tiny: Any, tokenizer: Any, kind: str, change: str) -> None:
    model = tiny.make_model(kind)
    with LocalEngine(model, tokenizer) as engine:
        before = check(engine)
        PLAIN[change](model)
        assert check(engine) != before


def test_a_removed_hook_shows(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    with LocalEngine(model, tokenizer) as engine:
        before, fast = check(engine), engine.optimization
        hook = model.model.layers[0].mlp.register_forward_hook(halved)
        assert check(engine) != before
        assert engine.optimization == "none"
        hook.remove()
        assert check(engine) == before
        assert engine.optimization == fast


def test_a_setting_that_forwards_read_from_the_configuration_shows(tiny: Any, tokenizer: Any) -> None:
    class Scaled(GPT2LMHeadModel):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * self.config.factor
            return out

    import inspect

    Scaled.forward.__signature__ = inspect.signature(GPT2LMHeadModel.forward)  # type: ignore[attr-defined]
    model = tiny.make_model("gpt2")
    model.__class__, model.config.factor = Scaled, 1.0
    with LocalEngine(model, tokenizer) as engine:
        before = check(engine)
        model.config.factor = -1.0
        assert check(engine) != before


def test_another_attention_is_followed(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("mistral")
    with LocalEngine(model, tokenizer) as engine:
        before = check(engine)
        model.set_attn_implementation("eager")
        assert check(engine) == before


HARMLESS: dict[str, Callable[[Any], object]] = {
    "nothing": lambda model: None,
    "the mode": lambda model: model.train(),
    "a setting of generate": lambda model: setattr(model.generation_config, "temperature", 0.5),
    "use_cache": lambda model: setattr(model.config, "use_cache", False),
    "a forward": lambda model: model(torch.tensor([[5, 6, 7]])),
    "a text": lambda model: model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, pad_token_id=2),
}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("change", HARMLESS)
def test_what_changes_no_text_keeps_all_prompts(tiny: Any, tokenizer: Any, kind: str, change: str) -> None:
    model = tiny.make_model(kind)
    with LocalEngine(model, tokenizer) as engine:
        check(engine)
        HARMLESS[change](model)
        model_mode = model.training
        model.eval()
        check(engine, changed=False)
        model.train(model_mode)


def test_what_a_models_own_forwards_change_is_no_change() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.seen: list[int] = []
            self.factor = 1.0

        def forward(self, x: int) -> None:
            self.calls += 1
            self.seen.append(x)

    model = Counting()
    state = ModelState(model)
    model(1)
    state.settle()
    model(2)
    assert not state.changed()
    model.factor = 2.0
    assert state.changed()
    assert not state.changed()


def test_quantised_weights_without_address_or_values_are_compared_by_identity() -> None:
    class Odd(torch.Tensor):
        def data_ptr(self) -> int:
            raise RuntimeError("no address")

    model = nn.Module()
    model.register_buffer("weight", torch.ones(3).as_subclass(Odd))
    state = ModelState(model)
    assert not state.changed()
    model.weight = torch.ones(3).as_subclass(Odd)
    assert state.changed()
    meta = nn.Linear(2, 2, device="meta")
    assert not ModelState(meta).changed()


def test_a_row_that_ran_across_a_change_leaves_nothing_to_reuse(tiny: Any, tokenizer: Any) -> None:
    model = adapted(tiny, Lora)
    with LocalEngine(model, tokenizer) as engine:
        running = engine.stream(STORY, max_new_tokens=60, ignore_eos=True)
        next(running)
        LORA["disabled"](model)
        engine.generate(["Bread needs"], max_new_tokens=2)  # the engine notices the change, while the row runs
        with contextlib.suppress(StopIteration):
            while True:
                next(running)
        assert len(running.completion.token_ids) == 60
        check(engine)


@pytest.fixture
def peft_model(tiny: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["v_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    model = peft.get_peft_model(tiny.make_model("llama"), config)
    torch.manual_seed(4)
    model.add_adapter("two", config)
    return model.eval()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_of_peft(peft_model: Any, tokenizer: Any) -> None:
    model = peft_model
    with LocalEngine(model, tokenizer) as engine:
        first = check(engine)
        with model.disable_adapter():
            plain = check(engine)
        assert check(engine) == first
        model.set_adapter("two")
        second = check(engine)
        model.set_adapter("default")
        assert check(engine) == first
        model.merge_adapter()
        check(engine)
        model.unmerge_adapter()
        assert check(engine) == first
    assert len({tuple(text) for text in (first, plain, second)}) == 3
