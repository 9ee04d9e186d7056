"""The examples of README, the docs and docstrings run, and so do benchmarks."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "1. ", "docs/local.md": "lean EngineStats(", "docs/agents.md": "1. ", "docs/llama_index.md": "1 "}
"""Pages whose Python blocks run on the demo model, and a text that each prints."""


def modules() -> list[str]:
    names = []
    for package in ("skeleton_of_thought", "langchain_sot", "llama_index_sot"):
        root = importlib.import_module(package)
        names += [
            package,
            *(m.name for m in pkgutil.walk_packages(root.__path__, package + ".") if "__main__" not in m.name),
        ]
    return names


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.model
@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_of_a_page_runs(page, capsys):
    run_blocks(page)
    assert PAGES[page] in capsys.readouterr().out


@pytest.mark.parametrize("page", ["docs/langchain.md", "docs/routers.md"])
def test_every_python_block_prints_the_text_below_it(page, capsys):
    run_blocks(page)
    printed = re.findall(r"^```text\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    assert capsys.readouterr().out == "".join(printed)


def run_blocks(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def last_json(*command: str) -> dict:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.model
def test_the_decoding_benchmark_measures_every_column():
    result = last_json(
        "benchmarks/decoding.py",
        "--questions",
        "1",
        "--max-points",
        "3",
        "--skeleton-tokens",
        "4",
        "--point-tokens",
        "4",
    )
    assert set(result["median_seconds"]) == {"normal", "single", "sequential", "threads", "padded", "engine"}
    assert result["questions"] == 1
    assert all(seconds > 0 for seconds in result["median_seconds"].values())


@pytest.mark.model
def test_the_prompt_benchmark_counts_tokens():
    assert last_json("benchmarks/prompts.py", "--questions", "1")["questions"] == 1


@pytest.mark.model
def test_the_retrieval_benchmark_finds_only_the_engines_form_without_a_gap():
    result = last_json("benchmarks/retrieval.py")
    assert result["points"] == 96
    worst = {
        form: min(places[where]["hit@2"] for where in ("handbook", "articles"))
        for form, places in result["forms"].items()
    }
    assert max(worst, key=worst.get) == "the mean of {title} and {title} ({query_str})"
    assert worst["{title}"] < 0.5 < 0.7 < worst["the mean of {title} and {title} ({query_str})"]
