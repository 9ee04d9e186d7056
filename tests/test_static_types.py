"""Type checking and signatures of the classes whose first argument may be positional."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_sot import ChatTransformers, SkeletonOfThoughtChain, SkeletonOfThoughtChatModel, SkeletonOfThoughtRouter
from llama_index_sot import TransformersLLM

ROOT = Path(__file__).parents[1]

SNIPPET = """
from typing import Any
from langchain_core.language_models import BaseChatModel
from langchain_sot import ChatTransformers, SkeletonOfThoughtChain, SkeletonOfThoughtChatModel, SkeletonOfThoughtRouter
from llama_index.core.llms import LLM
from llama_index_sot import SkeletonOfThoughtQueryEngine, SkeletonOfThoughtSynthesizer, SkeletonOfThoughtWorkflow
from llama_index_sot import TransformersLLM
from skeleton_of_thought.local import LocalEngine, shared_engine

def use(llm: BaseChatModel, chain: SkeletonOfThoughtChain, lm: LLM, more: dict[str, Any]) -> None:
    SkeletonOfThoughtChain(llm, max_points=3, name="mine")
    SkeletonOfThoughtChain(llm=llm, router=None)
    SkeletonOfThoughtChain(None)  # Argument 1 .* incompatible type "None"
    SkeletonOfThoughtChain(llm=None)  # Argument "llm" .* incompatible type "None"
    SkeletonOfThoughtChain(llm, max_points="x")  # Argument "max_points" .* incompatible type "str"
    SkeletonOfThoughtChain(llm, max_pointz=3)  # Unexpected keyword argument "max_pointz"
    SkeletonOfThoughtChain(llm, llm)  # Too many positional arguments
    SkeletonOfThoughtChain(max_points=3)  # Missing positional argument "llm"
    SkeletonOfThoughtChatModel(chain, temperature=0.5, max_tokens=20, stop=["x"], timeout=3)
    SkeletonOfThoughtChatModel(chain=chain, streaming=True)
    SkeletonOfThoughtChatModel(llm)  # Argument 1 .* incompatible type "BaseChatModel"
    SkeletonOfThoughtChatModel(chain, temprature=0.5)  # Unexpected keyword argument "temprature"
    ChatTransformers()
    ChatTransformers("a/model", max_tokens=20)
    ChatTransformers(model="a/model", temperature=0.5)
    ChatTransformers("a/model", max_token=20)  # Unexpected keyword argument "max_token"
    ChatTransformers(5)  # Argument 1 .* incompatible type "int"
    SkeletonOfThoughtRouter("auto", name="mine")
    SkeletonOfThoughtRouter(router="auto")
    SkeletonOfThoughtRouter(rooter="auto")  # Unexpected keyword argument "rooter"
    TransformersLLM()
    TransformersLLM("a/model", max_new_tokens=20)
    TransformersLLM(model="a/model", max_tokens=20)
    TransformersLLM("a/model", max_token=20)  # Unexpected keyword argument "max_token"
    SkeletonOfThoughtQueryEngine.from_defaults(lm, router=None, max_points=3, point_template="{title}", streaming=True)
    SkeletonOfThoughtQueryEngine.from_defaults(lm, max_points="x")  # Argument "max_points" .* incompatible type "str"
    SkeletonOfThoughtQueryEngine.from_defaults(lm, max_pointz=3)  # Unexpected keyword argument "max_pointz"
    SkeletonOfThoughtSynthesizer(lm, on_no_nodes="answer", citations=True, merge=True)
    SkeletonOfThoughtSynthesizer(lm, retrieval="once")  # Unexpected keyword argument "retrieval"
    SkeletonOfThoughtWorkflow(llm=lm, eager=True, timeout=3)
    SkeletonOfThoughtWorkflow(llm=3)  # Argument "llm" .* incompatible type "int"
    LocalEngine.from_pretrained("demo", device="cpu", kv_memory=0.3, optimize="lean", revision="main", progress=print)
    LocalEngine.from_pretrained("demo", **more)
    LocalEngine.from_pretrained("demo", kv_memry=0.3)  # Unexpected keyword argument "kv_memry"
    LocalEngine.from_pretrained(max_batch_size="x")  # Argument "max_batch_size" .* incompatible type "str"
    LocalEngine.from_pretrained(optimize="fast")  # Argument "optimize" .* incompatible type
    shared_engine("demo", {"dtype": "bfloat16", "prefill_chunk": 32})
    shared_engine("demo", {"prefil_chunk": 32})  # Extra key "prefil_chunk"
"""
"""Calls, each with the type checker's error as its comment."""


def test_a_type_checker_accepts_valid_calls_and_reports_the_others(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    file = tmp_path / "use.py"
    file.write_text(SNIPPET, encoding="utf-8")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"), "--no-pretty"]
    said, failed, _ = api.run([*options, "--hide-error-context", "--no-error-summary", str(file)])
    assert not failed
    for number, line in enumerate(SNIPPET.splitlines(), 1):
        _, _, wanted = line.partition("  # ")
        reported = "\n".join(re.findall(rf"use\.py:{number}: error: (.*)", said))
        assert re.search(wanted, reported) if wanted else not reported, f"{line}\n{said}"


@pytest.mark.parametrize(
    ("cls", "first", "default"),
    [
        (SkeletonOfThoughtChain, "llm", inspect.Parameter.empty),
        (SkeletonOfThoughtChatModel, "chain", inspect.Parameter.empty),
        (ChatTransformers, "model", None),
        (SkeletonOfThoughtRouter, "router", "auto"),
        (TransformersLLM, "model", None),
    ],
)
def test_only_the_first_argument_may_be_positional(cls, first, default):
    signature = inspect.signature(cls)
    assert signature.bind("x").arguments == signature.bind(**{first: "x"}).arguments == {first: "x"}
    parameter, *others = signature.parameters.values()
    assert (parameter.name, parameter.default) == (first, default)
    assert {other.kind for other in others} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_signature_of_the_chain_class_lists_its_settings():
    code = "import inspect, langchain_sot; print(*inspect.signature(langchain_sot.SkeletonOfThoughtChain).parameters)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "llm"
    assert set(done.stdout.split()) == set(SkeletonOfThoughtChain.model_fields)
