"""The embedded demo model itself."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from skeleton_of_thought._cli.local_backend import local_backend
from skeleton_of_thought.cli import main
from skeleton_of_thought.local import LocalEngine, gguf_cache, models
from skeleton_of_thought.types import Hints, Message, Prompt

pytestmark = pytest.mark.model

QUESTIONS = ["Name a colour.", "What is bread made of? Answer in one short sentence.", "你好"]


def chat(question: str) -> list[Message]:
    return [Message("user", question)]


def test_greedy_text_is_that_of_transformers(demo_engine: LocalEngine) -> None:
    done = demo_engine.generate([chat(q) for q in QUESTIONS], max_new_tokens=16)
    tokenizer = demo_engine.tokenizer
    for question, completion in zip(QUESTIONS, done, strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).input_ids
        with torch.inference_mode():
            out = demo_engine.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16
            )
        assert list(completion.token_ids) == out[0, ids.shape[1] :].tolist()


def test_a_prefill_is_continued(demo_engine: LocalEngine) -> None:
    prompt = Prompt(
        (Message("user", "List three colours as a numbered list."),),
        prefill="1.",
        hints=Hints(stop=("\n",), max_tokens=12),
    )
    done = demo_engine.generate([prompt])[0]
    assert done.text.startswith(" ")
    assert "\n" not in done.text


@pytest.mark.usefixtures("demo_engine")
def test_the_converted_copy_is_kept() -> None:
    folder = gguf_cache.cache_root() / gguf_cache.copy_name(models.demo_model_path())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}


def test_token_counts_include_the_template(demo_engine: LocalEngine) -> None:
    assert demo_engine.has_chat_template
    assert demo_engine.context_window == 8192
    assert demo_engine.count_tokens(chat("Hello")) > 20


# --- the command ---


def asked(engine: LocalEngine, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The output of `sot ask --json` over this engine, which stays open for other tests."""
    backend = dataclasses.replace(local_backend(engine, max_new_tokens=24), close=lambda: None)
    assert main(["ask", "--json", *arguments], backend=backend) == 0
    return json.loads(capsys.readouterr().out)


def test_the_router_answers_a_sum_directly(demo_engine: LocalEngine, capsys: pytest.CaptureFixture[str]) -> None:
    question = "What is 17 * 4?"
    answer = asked(demo_engine, capsys, question)
    assert (answer["route"], answer["reason"]) == ("direct", "gate (arithmetic): something to be calculated")
    assert answer["text"] == demo_engine.generate([chat(question)], max_new_tokens=24)[0].text


def test_the_router_can_be_left_out(demo_engine: LocalEngine, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(demo_engine, capsys, "How can I sleep better?", "--no-router", "--max-points", "2")
    # The quality of the small model's list does not matter here.
    assert answer["decision"] is None
    assert "skeleton" in answer["usage_by_stage"]


def test_a_comparison_has_both_baselines_at_the_answers_length(
    demo_engine: LocalEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = asked(demo_engine, capsys, "How can I sleep better?", "--compare", "--max-points", "2")
    tokens = answer["usage"]["output_tokens"]
    ways = answer["compare"]["ways"]
    assert [way["name"] for way in ways] == ["model.generate", "the engine's single row"]
    assert [way["usage"]["output_tokens"] for way in ways] == [tokens, tokens]
    # The same model and the same prompt, run by different code.
    assert ways[0]["text"][:40] == ways[1]["text"][:40]
    assert len(answer["compare"]["runs"]) == 3
