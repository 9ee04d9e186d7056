"""`sot route` and `sot train-router` in this process: no model, no network."""

from __future__ import annotations

import csv
import io
import json

import pytest

from skeleton_of_thought.cli import main


def run(capsys, *argv):
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def test_a_question_gets_a_line(capsys):
    code, out, err = run(capsys, "route", "What are the benefits of tea?")
    assert (code, err) == (0, "")
    assert out.startswith("skeleton (score 0.")
    assert run(capsys, "route", "What", "is", "2", "+", "2?")[1] == (
        "direct (score 0.00): gate (arithmetic): something to be calculated\n"
    )


def test_json_has_only_the_decision(capsys):
    code, out, _ = run(capsys, "route", "--json", "Schreibe ein Gedicht über Tee.")
    assert code == 0
    assert json.loads(out) == {"use_skeleton": False, "score": 0.0, "reason": "gate (writing): a text in one piece"}


def test_each_question_of_a_file_gets_a_row(capsys, tmp_path):
    path = tmp_path / "questions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "text"], [7, 'What are\nthe "benefits" of tea?'], [8, ""], [9, "なぜ？"], [10]])
    code, out, err = run(capsys, "route", "--csv", str(path), "--column", "text")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert list(rows[0]) == ["index", "use_skeleton", "score", "reason"]
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["use_skeleton"] for row in rows] == ["true", "false", "false", "false"]
    assert 0 < float(rows[0]["score"]) < 1
    assert "empty" in rows[1]["reason"]
    assert rows[1]["score"] == ""


def test_a_file_as_json_has_a_line_for_each_question(capsys, tmp_path):
    path = tmp_path / "questions.csv"
    path.write_text('question\nWhat is 2 + 2?\n""\n"Describe each of these animals: cat, dog, cow"\n', encoding="utf-8")
    told = [json.loads(line) for line in run(capsys, "route", "--csv", str(path), "--json")[1].splitlines()]
    assert [decision["index"] for decision in told] == [0, 1, 2]
    assert "arithmetic" in told[0]["reason"]
    assert "empty" in told[1]["reason"]
    assert [item["title"] for item in told[2]["items"]] == ["cat", "dog", "cow"]


def test_questions_can_come_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("question\nWhy?\n"))
    assert run(capsys, "route", "--csv", "-")[1].splitlines()[1].startswith("0,false,0.0,gate (follow_up)")
    monkeypatch.setattr("sys.stdin", io.StringIO("Is tea a fruit?"))
    assert "yes_no" in run(capsys, "route", "-")[1]


def test_threshold_and_gate_are_options(capsys):
    question = "What are the benefits of tea?"
    assert run(capsys, "route", "--threshold", "1", question)[1].startswith("direct")
    assert "embedded router" in run(capsys, "route", "--no-gate", "What is 2 + 2?")[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["route", "-", "-"], "only once"),
        (["route", ""], "empty"),
        (["route", "--csv", "none.csv"], "cannot be read"),
        (["route", "--csv", "none.csv", "Why?"], "Either a question"),
        (["route", "--threshold", "2", "Why?"], "from 0 to 1"),
        (["route", "--weights", "none.bin", "Why?"], "holds no weights"),
        (["train-router", "--data", "x.csv", "--out", "y"], "Either --embedded"),
        (["train-router", "--embedded", "--data", "none.csv", "--out", "y"], "cannot be read"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(capsys, argv, message):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_error_about_a_missing_column_lists_the_columns(capsys, tmp_path):
    path = tmp_path / "questions.csv"
    path.write_text("id,text\n1,Why?\n")
    assert "'id', 'text'" in run(capsys, "route", "--csv", str(path))[2]


def test_a_system_message_counts(capsys, tmp_path):
    question = "What are the benefits of tea?"
    assert run(capsys, "route", "--system", "Be kind.", question)[1].startswith("skeleton")
    out = run(capsys, "route", "--system", "Translate into French.", "--json", question)[1]
    assert json.loads(out)["reason"].startswith("gate (task)")
    path = tmp_path / "questions.csv"
    path.write_text(f"question\n{question}\n", encoding="utf-8")
    out = run(capsys, "route", "--system", "Answer in one sentence.", "--csv", str(path))[1]
    assert "gate (length)" in out


def test_with_planning_a_comparison_gets_a_graph(capsys, tmp_path):
    question = "Compare cats and dogs as pets and recommend one."
    assert run(capsys, "route", "--planning", "auto", question)[1].startswith("skeleton (graph): ")
    assert json.loads(run(capsys, "route", "--planning", "graph", "--json", question)[1])["planning"] == "graph"
    assert "planning" not in json.loads(run(capsys, "route", "--json", question)[1])
    path = tmp_path / "questions.csv"
    path.write_text(f"question\n{question}\nWhat are the benefits of tea?\n")
    rows = list(csv.reader(run(capsys, "route", "--planning", "auto", "--csv", str(path))[1].splitlines()))
    assert [row[-1] for row in rows] == ["planning", "graph", ""]
