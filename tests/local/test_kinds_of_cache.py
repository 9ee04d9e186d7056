"""A part of `benchmarks/architectures.py`: one type for each kind of cache writes what `generate` writes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

KINDS = {
    "gemma4_text": "batched",  # layers with heads of their own sizes
    "gemma4_text, shared layers": "batched",  # the last layers read the keys and values of others
    "deepseek_v2": "batched",  # latent attention: keys and values of different sizes
    "camembert": "batched",  # counts from another position than 0 if it gets none
    "roformer, small weights": "separate",  # the same, with an effect below the tolerance for rounding
    "hrm_text": "separate",  # prompts padded at the right change its keys
    "cpmant": "separate",  # prepares its own inputs
    "glm_moe_dsa": "separate",  # selects other tokens where a prompt runs in pieces
    "prophetnet": "separate",  # reads more than the plain text in `generate`
    "git": "separate",  # shifts the mask by the places of an image that is not there
    "jamba": "",  # recurrent states in some layers
}
"""The kind of each type's path; empty where any kind is right."""


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("architectures")
    monkeypatch.setattr(module, "SEEDS", 1)
    return module


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_cache_has_the_models_own_text(name: str, sweep: Any) -> None:
    kind = next((kind for kind in sweep.kinds() if kind.name == name), None)
    if kind is None:
        pytest.skip("this transformers has no such type")
    report = sweep.examine(kind, speed=False)
    if report.outcome == "not run":
        pytest.skip(report.reason)
    assert (report.outcome, sum(report.cases.values())) == ("equal", 0), report
    assert set(report.cases) == {"short", "shared", "follow-up", "mid-flight"}
    assert report.cache_kind == (KINDS[name] or report.cache_kind)


def test_the_sweep_tells_a_wrong_text_and_a_refused_type(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = sweep.Kind("llama", "LlamaForCausalLM")

    class Changing(sweep.LocalEngine):  # type: ignore[misc]
        def __init__(self, model: Any, tokenizer: Any, **settings: Any) -> None:
            super().__init__(model, tokenizer, **settings)
            model.lm_head.weight.data.mul_(-1)

    class Refusing(sweep.LocalEngine):  # type: ignore[misc]
        def __init__(self, model: Any, tokenizer: Any, **settings: Any) -> None:
            raise ValueError("not this one")

    for engine, outcome in ((Changing, "wrong"), (Refusing, "refused")):
        monkeypatch.setattr(sweep, "LocalEngine", engine)
        assert sweep.examine(kind, speed=False).outcome == outcome


def test_every_causal_type_is_in_the_sweep(sweep: Any) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = [kind.name for kind in sweep.kinds()]
    assert len(names) == len(set(names))
    assert {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} <= {*names}


def test_a_type_that_cannot_be_built_is_no_failure_of_the_engine(sweep: Any) -> None:
    report = sweep.examine(sweep.Kind("musicgen", "MusicgenForCausalLM"), speed=False)
    assert report.outcome == "not run"
    assert report.reason
