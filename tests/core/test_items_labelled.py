"""Items side by side, on labelled prompts: which are found, with which items, and which prompts need one answer."""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from pathlib import Path

import pytest

from skeleton_of_thought.routers.question import LANGUAGES

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"
FOR_SEVERAL = (
    "Classify each of these reviews as positive, negative or mixed: ",
    "Question: How can a gardener improve poor soil?\n\nPassages:",
    "Traduce al inglés y al francés la pregunta del turista",
    "Translate this proverb into French and Japanese",
)
"""How those of the routers' prompts begin that do ask for several items, judged by hand."""


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("items_found")


def test_the_labelled_prompts_are_what_they_claim(bench):
    prompts = bench.read()
    assert len({prompt.text for prompt in prompts}) == len(prompts) >= 800
    asked = sum(bool(prompt.items) for prompt in prompts)
    assert 0.45 < asked / len(prompts) < 0.55
    assert 0.3 < sum(prompt.part == "held_out" for prompt in prompts) / len(prompts) < 0.37
    languages = Counter(prompt.language for prompt in prompts)
    assert set(languages) == set(LANGUAGES)
    assert min(languages.values()) >= 20
    for prompt in prompts:
        assert prompt.part in ("seen", "held_out")
        assert bool(prompt.items) == bool(prompt.form)
        assert len(prompt.items) != 1
        if prompt.form == "different":
            assert prompt.items == tuple(str(at) for at in range(1, len(prompt.items) + 1))
            continue
        at = 0
        for item in prompt.items:  # in their order, and as they stand there
            at = prompt.text.index(item, at) + len(item)


@pytest.mark.parametrize("part", ["seen", "held_out"])
def test_items_are_found_and_hardly_ever_where_none_are(bench, part):
    counts = bench.figures(bench.look(prompt) for prompt in bench.read() if prompt.part == part)
    assert counts["false"] <= 0.02 * counts["others"], counts
    assert counts["found"] >= 0.8 * counts["items"], counts
    assert counts["exact"] >= 0.9 * counts["found"], counts


def test_prompts_of_the_routers_are_hardly_ever_split_wrongly(bench):
    """Questions with passages, tools, mails and minutes around them, which were written without a thought of items."""
    prompts = []
    for path in [*sorted(DATA.glob("router_*.csv")), DATA / "comparison_questions.csv"]:
        rows = csv.DictReader(path.read_text("utf-8").splitlines(keepends=True))
        prompts += [row.get("prompt") or row["question"] for row in rows]
    assert len(prompts) > 6000
    found = [text for text in prompts if bench.look(bench.Labelled(text, (), "", "", "", "")).found is not None]
    wrong = [text for text in found if not text.startswith(FOR_SEVERAL)]
    assert len(wrong) <= 0.001 * len(prompts), wrong


def test_the_benchmark_counts_by_part_and_shows_only_what_may_be_seen(bench, tmp_path, capsys):
    asked, other = (
        "Translate each word into French:\n- bread\n- salt\n- rice",
        "Write one sentence with all of these words:\nbread",
    )
    rows = [
        {"text": asked, "items": ["bread", "salt", "rice"], "form": "list", "kind": "words", "part": "seen"},
        {
            "text": asked + "\n- oil",
            "items": ["bread", "salt", "rice", "tea"],
            "form": "list",
            "kind": "words",
            "part": "seen",
        },
        {"text": asked + "\n- tea", "items": [], "form": "", "kind": "wrong", "part": "held_out"},
        {"text": other, "items": [], "form": "", "kind": "wrong", "part": "seen"},
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({**row, "language": "en"}) + "\n" for row in rows), "utf-8")
    bench.main(["--labels", str(path), "--show"])
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result["parts"]["seen"] == {"items": 2, "found": 2, "exact": 1, "others": 1, "false": 0}
    assert result["parts"]["held_out"] == {"items": 0, "found": 0, "exact": 0, "others": 1, "false": 1}
    assert result["kinds"]["wrong"] == {"items": 0, "found": 0, "exact": 0, "others": 2, "false": 1}
    assert "- oil" in out
    assert "- tea" not in out
    with pytest.raises(SystemExit):
        bench.main(["--labels", str(tmp_path / "none.jsonl")])
