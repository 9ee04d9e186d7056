"""The routers' benchmark: its counts, on our own questions and a scripted model."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought.types import Conversation, Reply, Usage

ROOT = Path(__file__).parent.parent.parent
OWN = ROOT / "tests" / "data" / "router_questions.csv"
LABELS = "label,question\n1,What are the benefits of tea?\n0,What is 2 + 2?\n0,Write a poem about tea.\n"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("router")


@pytest.fixture
def direct(bench):
    return importlib.import_module("direct")


def test_every_router_is_measured_on_every_file(bench, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text(LABELS)
    bench.main(["--train", str(OWN), "--test", str(labels), "--limit", "60", "--overhead", "0"])
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    sets = result["sets"]
    assert "overhead" not in result
    assert set(sets) == {"router_questions", "labels"}
    own = sets["router_questions"]["auto"]
    assert own["questions"] == 60
    assert min(own["tp"] + own["fn"], own["tn"] + own["fp"]) > 10  # though the file is sorted by label
    rows = sets["labels"]
    assert set(rows) == {"majority", "gate", "embedded", "auto"}
    assert [rows[name]["accuracy"] for name in ("gate", "embedded", "auto")] == [1.0, 1.0, 1.0]
    assert (rows["majority"]["tn"], rows["majority"]["fn"]) == (2, 1)
    assert "labels: 3 questions, 1 labelled 1" in out


TASKS = """label,split,kind,system,prompt
1,train,persona,You are Nora.,What are the benefits of tea?
1,heldout,no system,,What are the benefits of tea?
0,train,code,,Write a Python function that counts the words of a question.
0,heldout,code,,Write a Python function that reverses a question.
0,heldout,poem,,Write a poem about tea.
"""


def test_tasks_are_measured_by_split_and_kind(bench, tmp_path, capsys):
    tasks = tmp_path / "pairs.csv"
    tasks.write_text(TASKS)
    bench.main(["--train", "--test", "--tasks", str(tasks), "--overhead", "0"])
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result["sets"] == {}
    rows = result["tasks"]["pairs"]
    assert set(rows) == {"majority", "gate", "auto"}
    for name in ("gate", "auto"):
        assert [rows[name][key] for key in ("tp", "fp", "tn", "fn")] == [2, 0, 3, 0]
        assert [rows[name][split]["questions"] for split in ("train", "heldout")] == [2, 3]
        assert [rows[name][split]["tn"] for split in ("train", "heldout")] == [1, 2]
        assert rows[name]["ms"] > 0
        assert rows[name]["kinds"] == {
            "0 code": {"prompts": 2, "wrong": 0},
            "0 poem": {"prompts": 1, "wrong": 0},
            "1 no system": {"prompts": 1, "wrong": 0},
            "1 persona": {"prompts": 1, "wrong": 0},
        }
    assert "pairs: 5 prompts with a question in them, 2 labelled 1" in out
    assert out.count("mistakes by label and kind: none") == 2


def test_mistakes_on_tasks_are_named_by_kind(bench, tmp_path, capsys):
    tasks = tmp_path / "pairs.csv"
    tasks.write_text(TASKS.replace("1,train,persona", "0,train,persona").replace("0,heldout,poem", "1,heldout,poem"))
    bench.main(["--train", "--test", "--tasks", str(tasks), "--overhead", "0"])
    out = capsys.readouterr().out
    row = json.loads(out.splitlines()[-1])["tasks"]["pairs"]["gate"]
    assert [row[key] for key in ("tp", "fp", "tn", "fn")] == [1, 1, 2, 1]
    assert [row["train"]["fp"], row["heldout"]["fn"]] == [1, 1]
    assert "mistakes by label and kind: 0 persona 1/1, 1 poem 1/1\n" in out


def test_the_system_message_is_part_of_a_task(bench):
    seen = []

    class Direct:
        def route(self, conversation):
            seen.append([(message.role, message.text) for message in conversation.messages])
            return bench.RouteDecision(False)

    tasks = [bench.LabelledTask("Why?", False, "One word."), bench.LabelledTask("Why not?", False)]
    bench.measured_tasks("pairs", tasks, [bench.Candidate("gate", Direct())])
    assert seen == [[("system", "One word."), ("user", "Why?")], [("user", "Why not?")]]


def test_a_file_without_prompts_is_refused(bench, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(LABELS)
    with pytest.raises(SystemExit, match="need the columns label and prompt"):
        bench.main(["--train", "--test", "--tasks", str(labels), "--overhead", "0"])


def test_a_missing_file_is_named(bench, tmp_path):
    with pytest.raises(SystemExit, match=r"router.py: The labels '.*none.csv' cannot be read"):
        bench.main(["--train", str(tmp_path / "none.csv"), "--test"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "--test", "--tasks", "--overhead", "0"], "give files of labels with --train and --test"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--overhead", "-1"], "--overhead must be at least 0"),
        (["--prompt-tokens", "0"], "--prompt-tokens at least 1"),
    ],
)
def test_bad_options_are_refused(bench, options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "limit", "places"), [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (6, 3, [0, 2, 4])]
)
def test_a_limit_takes_questions_from_the_whole_file(bench, count, limit, places):
    assert bench.some(list(range(count)), limit) == places


# --- a model as the router ---


class Asked:
    """A backend that replies to the router's prompt by the question in it, and records the questions."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.calls = []
        self.settings = {}
        self.closed = False

    def load(self, spec, **settings):
        self.settings = settings
        return ModelBackend("asked", self._open, explain=lambda error: f"explained: {error}", close=self._close)

    def _close(self):
        self.closed = True

    def _open(self, call, index):
        self.calls.append(call)
        reply = self.replies[(len(self.calls) - 1) % len(self.replies)]
        if isinstance(reply, Exception):
            raise reply
        yield reply
        yield Reply(Usage(200, 3))


def ask_model(bench, monkeypatch, tmp_path, capsys, *replies):
    """The benchmark with a model that gives these replies; the first answers the probe before all questions."""
    backend = Asked(*replies)
    monkeypatch.setattr("skeleton_of_thought._cli.models.load_backend", backend.load)
    labels = tmp_path / "labels.csv"
    labels.write_text(LABELS)
    bench.main(["--train", "--test", str(labels), "--prompt-model", "demo", "--overhead", "0"])
    assert backend.closed
    out = capsys.readouterr().out
    return backend, json.loads(out.splitlines()[-1]), out


def test_a_prompt_router_is_measured_beside_the_others(bench, monkeypatch, tmp_path, capsys):
    backend, result, out = ask_model(bench, monkeypatch, tmp_path, capsys, "NONE", "INDEPENDENT", "Well.", "DEPENDENT")
    row = result["sets"]["labels"]["prompt"]
    assert [row[key] for key in ("tp", "fp", "tn", "fn")] == [1, 0, 2, 0]
    assert (row["not_understood"], row["tokens_per_question"]) == (1, 203.0)
    assert "failed" not in row
    assert "  1 not understood\n" in out
    assert [call.stage for call in backend.calls] == ["route"] * 4
    assert {call.prompt.hints.max_tokens for call in backend.calls} == {16}
    assert backend.settings == {"temperature": 0.0, "max_tokens": 16}


def test_a_failed_call_counts_as_direct_and_is_reported(bench, monkeypatch, tmp_path, capsys):
    replies = ("NONE", ConnectionError("cut"), "NONE", ConnectionError("cut again"))
    _, result, out = ask_model(bench, monkeypatch, tmp_path, capsys, *replies)
    row = result["sets"]["labels"]["prompt"]
    assert [row[key] for key in ("tp", "fp", "tn", "fn")] == [0, 0, 2, 1]
    assert (row["failed"], row["first_error"]) == (2, "explained: cut")
    assert "  2 failed\n" in out


def test_an_unreachable_model_is_left_out(bench, monkeypatch, tmp_path, capsys):
    backend, result, out = ask_model(bench, monkeypatch, tmp_path, capsys, ConnectionError("refused"))
    assert len(backend.calls) == 1
    assert result["skipped"] == {"prompt": "explained: refused"}
    assert set(result["sets"]["labels"]) == {"majority", "gate", "embedded", "auto"}
    assert "prompt: skipped: explained: refused\n" in out


def test_a_missing_model_is_reported_in_one_line(bench, tmp_path):
    with pytest.raises(SystemExit, match=r"router.py: The model './nowhere' is not there"):
        bench.main(["--train", str(OWN), "--test", "--prompt-model", "./nowhere"])


# --- the overhead ---


def test_the_benchmark_measures_the_overhead_of_direct_answers(direct):
    for question in direct.QUESTIONS.values():
        assert not direct._ROUTER.route(Conversation.of(question)).use_skeleton
    assert {direct._ROUTER.route(Conversation.of(q)).reason.split()[0] for q in direct.QUESTIONS.values()} == {
        "gate",
        "the",
    }


def test_both_ways_of_every_pair_are_measured_and_named(direct, capsys):
    result = direct.overhead(direct.PAIRS, 3)
    assert result["runs"] == 3
    assert set(result["pairs"]) == {f"core {way}, {by}" for way in ("run", "arun") for by in ("gate", "model")}
    for row in result["pairs"].values():
        assert set(row) == {"plain_first", "added_first", "plain_total", "added_total"}
        assert 0 < row["plain_first"] <= row["plain_total"]
    assert capsys.readouterr().out.count("core ") == 4


def test_the_ways_of_a_pair_take_turns_in_being_first(direct):
    began = []

    def way(name):
        def pieces():
            began.append(name)
            return iter(("text",))

        return pieces

    direct.overhead({"two": direct.Pair(way("plain"), way("ours"))}, 3)
    assert began == ["plain", "ours", *("ours", "plain"), *("plain", "ours"), *("ours", "plain")]


def test_answers_with_different_texts_are_no_pair(direct):
    with pytest.raises(AssertionError, match="two: the texts differ"):
        direct.overhead({"two": direct.Pair(lambda: iter("ab"), lambda: iter("ac"))}, 1)
