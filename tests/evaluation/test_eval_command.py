"""`sot eval` in this process: what it checks, asks, keeps, reports and says."""

from __future__ import annotations

import json
import re
import sys

import pytest
import scripted_cli

from skeleton_of_thought._cli import eval_plan
from skeleton_of_thought.cli import main

Script = scripted_cli.Script

QUESTIONS = ("How can I sleep better?", "What should I check before I buy a used bicycle?", "What is 17 * 4?")
SECRET = "hunter2"


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text("\n".join(QUESTIONS) + "\n")
    return str(path)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(capsys):
    """Runs the command over a scripted model; returns the exit code, the texts, and the script."""

    def run(*words, script=None):
        script = Script() if script is None else script
        code = main(["eval", *map(str, words)], backend=script.backend())
        shown = capsys.readouterr()
        return code, shown.out, shown.err, script

    return run


def rows_of(folder, name="rows"):
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else None


def fails_on(text):
    def fail(call):
        return ConnectionError("line cut") if call.prompt and text in call.prompt.messages[-1].text else None

    return fail


# --- a run ---


def test_a_run_asks_each_question_in_each_way_and_reports(run, questions, out):
    code, said, err, script = run(questions, "--out", out, "--seed", 3, "--quiet")
    assert (code, err) == (0, "")
    rows = rows_of(out)
    assert sorted((row["number"], row["way"]) for row in rows) == sorted(
        (number, way) for number in (1, 2, 3) for way in ("normal", "sot", "auto")
    )
    assert {row["number"]: row["way"] for row in reversed(rows)} != dict.fromkeys((1, 2, 3), "normal")  # ways rotate
    assert all(row["text"] and not row["error"] for row in rows)
    assert {row["route"] for row in rows if row["way"] == "normal"} == {"direct"}
    assert {row["route"] for row in rows if row["way"] == "sot"} == {"skeleton"}
    assert {name for name in files_of(out) if name.startswith("report")} == {"report.html", "report.json", "report.md"}
    assert said.splitlines()[-1] == f"Report: {out / 'report.html'}"
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["sot", "auto"]
    assert len({line.index("of 3") for line in lines[2:4]}) == 1, "the columns stand below each other"
    assert max(map(len, lines[:-1])) <= 80
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["ways"] == ["normal", "sot", "auto"]
    assert manifest["settings"]["seed"] == 3
    assert manifest["runs"][0]["arguments"] == ["eval", questions, "--out", str(out), "--seed", "3", "--quiet"]
    assert script.closed
    assert sum(row["calls"] for row in rows) == len(script.calls) - 1  # one call warms up


def test_the_same_command_again_asks_nothing_and_more_ways_and_repeats_are_added(run, questions, out):
    run(questions, "--out", out)
    kept = rows_of(out)
    code, said, _, again = run(questions, "--out", out)
    assert (code, again.calls) == (0, [])
    assert said.splitlines()[-1].startswith("Report: ")
    code, *_ = run(questions, "--out", out, "--ways", "normal,merge", "--repeats", 2)
    assert code == 0
    rows = rows_of(out)
    assert rows[: len(kept)] == kept
    assert [(row["way"], row["repeat"]) for row in rows[len(kept) :]].count(("merge", 1)) == 3
    assert len(rows) == 9 + 3 + 6
    assert json.loads((out / "manifest.json").read_text())["ways"] == ["normal", "sot", "auto", "merge"]


def test_a_question_that_moved_keeps_its_answers_and_gets_its_new_number(run, questions, out, tmp_path):
    run(questions, "--out", out, "--ways", "normal,sot")
    (tmp_path / "questions.txt").write_text("\n".join(["Why do cities flood?", *QUESTIONS]))
    code, *_ = run(questions, "--out", out, "--ways", "normal,sot")
    assert code == 0
    assert {row["question"] for row in rows_of(out)[6:]} == {"Why do cities flood?"}
    figures = json.loads((out / "report.json").read_text())
    assert [each["number"] for each in figures["speed"]["sot"]["by_question"]] == [1, 2, 3, 4]
    assert figures["missing"] == 0


def test_a_question_that_the_file_has_twice_is_asked_and_counted_once(run, out, tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("Why?\nHow?\nWhy?\n")
    for words in ([path, "--ways", "normal,sot"], ["--report-only"]):
        assert run(*words, "--out", out)[0] == 0
        figures = json.loads((out / "report.json").read_text())
        assert (len(rows_of(out)), figures["questions"], figures["missing"]) == (4, 2, 0)
        assert [each["number"] for each in figures["speed"]["sot"]["by_question"]] == [1, 2]


def test_answers_to_questions_that_were_taken_out_do_not_hide_missing_ones(run, questions, out, tmp_path):
    run(questions, "--out", out, "--ways", "normal,sot")
    (tmp_path / "questions.txt").write_text("\n".join([QUESTIONS[0], "Why do cities flood?", "Why do rivers?"]))
    code, *_ = run(questions, "--out", out, "--ways", "normal,sot", "--budget", "1calls")
    assert code == 0
    figures = json.loads((out / "report.json").read_text())
    assert figures["missing"] == 10 - len(rows_of(out)) > 0
    assert any(note["kind"] == "missing" for note in figures["notes"])


def test_a_question_that_stands_in_the_file_twice_is_asked_and_counted_once(run, out, tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"question": text, "id": str(at)}) + "\n" for at, text in enumerate("aba")))
    code, _, err, _ = run(path, "--out", out, "--ways", "normal,sot")
    assert code == 0
    assert "1 of the 3 questions repeats another one" in err
    figures = json.loads((out / "report.json").read_text())
    assert (figures["questions"], figures["missing"], figures["manifest"]["questions"]["count"]) == (2, 0, 2)
    assert [(row["number"], row["id"]) for row in rows_of(out)[::2]] == [(1, "0"), (2, "1")]
    assert [each["number"] for each in figures["speed"]["sot"]["by_question"]] == [1, 2]


def test_columns_categories_ids_and_the_limit(run, out, tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("task,kind,name\nWhy?,a,one\nHow?,b,two\nWho?,b,three\n")
    columns = ["--column", "task", "--category-column", "kind", "--id-column", "name"]
    code, *_ = run(path, "--out", out, *columns, "--limit", 2, "--ways", "normal")
    assert code == 0
    assert [(row["id"], row["category"]) for row in rows_of(out)] == [("one", "a"), ("two", "b")]


def test_failed_answers_are_kept_told_and_asked_again_with_retry_only(run, questions, out):
    failing = Script(fail=fails_on("bicycle"))
    code, _, err, _ = run(questions, "--out", out, "--ways", "normal,sot", "--retries", 0, script=failing)
    assert code == 0
    assert "2 answers failed; --retry asks for them once more" in err
    code, _, _, script = run(questions, "--out", out, "--ways", "normal,sot", "--retries", 0)
    assert script.calls == []
    code, _, err, script = run(questions, "--out", out, "--ways", "normal,sot", "--retries", 0, "--retry")
    assert (code, len(rows_of(out))) == (0, 8)
    assert "failed" not in err
    assert json.loads((out / "report.json").read_text())["failed"] == []


def test_if_all_answers_fail_the_exit_code_is_1_and_the_rows_are_kept(run, questions, out):
    script = Script(fail=lambda call: ConnectionError("line cut"))
    options = ["--ways", "normal", "--retries", 0, "--quiet", "--no-warm-up"]
    code, said, err, _ = run(questions, "--out", out, *options, script=script)
    assert (code, said) == (1, "")
    assert err.count("\n") == 1
    assert "All 3 answers failed" in err
    assert len(rows_of(out)) == 3


def test_a_dead_model_stops_the_run_with_one_error_and_the_report_is_written(run, out, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"Why is number {n} odd?\n" for n in range(40)))
    dead = Script()
    dead.fail = lambda call: ConnectionError("the server is gone") if len(dead.calls) > 4 else None
    code, _, err, _ = run(path, "--out", out, "--ways", "normal", "--retries", 0, "--quiet", script=dead)
    assert code == 1
    assert err.count("\n") == 1
    assert "the server is gone" in err
    assert len(rows_of(out)) < 12
    assert (out / "report.html").exists()
    code, *_ = run(path, "--out", out, "--ways", "normal", "--retry", "--quiet")
    assert code == 0
    assert len({row["key"] for row in rows_of(out) if not row["error"]}) == 40


def test_a_budget_stops_cleanly_and_the_same_command_goes_on(run, questions, out):
    code, said, err, _ = run(questions, "--out", out, "--ways", "normal", "--budget", "2calls")
    assert code == 0
    assert len(rows_of(out)) == 2
    assert "the budget is spent" in err
    assert said.splitlines()[-1].startswith("Report: ")
    run(questions, "--out", out, "--ways", "normal", "--budget", "2calls")
    assert len(rows_of(out)) == 3


def test_several_answers_at_a_time(run, questions, out):
    code, _, err, _ = run(questions, "--out", out, "--parallel", 4)
    assert code == 0
    assert len(rows_of(out)) == 9
    assert "4 answers at a time" in err


def test_nothing_of_questions_answers_and_keys_is_on_standard_errors(run, out, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    path = tmp_path / "q.txt"
    path.write_text("A private question?\nMy bicycle secret?\n")
    script = Script(fail=fails_on("bicycle"))
    code, _, err, _ = run(
        path, "--out", out, "--system", "Be private.", "--ways", "normal,sot", "--retries", 0, script=script
    )
    assert code == 0
    for text in ("private", "bicycle", SECRET, "This helps", "schedule"):
        assert text not in err
    manifest = (out / "manifest.json").read_text()
    assert "Be private." not in manifest
    assert SECRET not in manifest


# --- without questions ---


def test_a_report_alone_asks_nothing_and_changes_no_rows(run, questions, out):
    run(questions, "--out", out)
    before = files_of(out)
    (out / "report.html").unlink()
    code, said, _, script = run("--report-only", "--out", out)
    assert (code, script.calls) == (0, [])
    assert said.splitlines()[-1].startswith("Report: ")
    after = files_of(out)
    assert after.keys() == before.keys()
    assert after["rows.jsonl"] == before["rows.jsonl"]
    assert after["report.html"] == before["report.html"]


def saved_votes(page, choice):
    text = page.read_text()
    data = json.loads(text[text.index('{"kind"') : text.index("</script>", text.index('{"kind"'))])
    return {
        "kind": data["kind"],
        "version": data["version"],
        "run": data["run"],
        "seed": data["seed"],
        "votes": [{"pair": pair["id"], "choice": choice, "at": "2026-01-01"} for pair in data["pairs"]],
    }


def test_votes_are_all_checked_before_the_first_counts_and_none_counts_twice(run, questions, out, tmp_path):
    code, _, err, _ = run(questions, "--out", out, "--ways", "normal,sot", "--human")
    assert (code, "vote.html" in err) == (0, True)
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(saved_votes(out / "vote.html", "left")))
    bad.write_text("{}")
    code, _, err, _ = run("--out", out, "--votes", good, "--votes", bad)
    assert (code, err.count("\n")) == (2, 1)
    assert str(bad) in err
    assert rows_of(out, "votes") == []
    for _ in range(2):
        code, said, _, script = run("--out", out, "--votes", good)
        assert (code, script.calls) == (0, [])
        assert len(rows_of(out, "votes")) == 3
        assert re.search(r"sot +normal +people +as written .* 3\n", said)
    (figures,) = [
        each for each in json.loads((out / "report.json").read_text())["verdicts"] if each["form"] == "written"
    ]
    assert (figures["judge"], figures["questions"]) == ("human", 3)


def test_two_people_count_and_a_later_file_replaces_what_the_same_person_voted_before(run, questions, out, tmp_path):
    run(questions, "--out", out, "--ways", "normal,sot", "--human", "--quiet")

    def file(voter, choice, at):
        data = saved_votes(out / "vote.html", choice)
        path = tmp_path / f"{voter}-{at}.json"
        votes = [vote | {"at": at} for vote in data["votes"]]
        path.write_text(json.dumps(data | {"votes": votes} | ({"voter": voter} if voter else {})))
        return path

    def score():
        figures = json.loads((out / "report.json").read_text())
        (pair,) = figures["verdicts"]
        return figures["voters"], pair["wins"], pair["ties"], pair["losses"]

    ann, ann_later, bob = file("ann", "left", "2026-01-01"), file("ann", "tie", "2026-01-02"), file("", "left", "2026")
    run("--out", out, "--votes", ann)
    assert (score()[0], score()[2]) == (1, 0)
    _, _, err, _ = run("--out", out, "--votes", ann_later)
    assert "3 new votes; 1 person has voted" in err
    assert score() == (1, 0, 3, 0)
    _, _, err, _ = run("--out", out, "--votes", ann)
    assert "0 new votes" in err
    assert score() == (1, 0, 3, 0), "an older file takes nothing back"
    _, _, err, _ = run("--out", out, "--votes", bob, "--votes", bob)
    assert "3 new votes; 2 people have voted" in err
    assert score()[0] == 2
    assert len(rows_of(out, "votes")) == 9
    assert "compared blind by 2 people" in (out / "report.md").read_text()


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no questions"),
        (["QUESTIONS"], "--out DIR"),
        (["--demo", "QUESTIONS"], "--demo"),
        (["QUESTIONS", "--out", "OUT", "--ways", "normal,quick"], "no way 'quick'"),
        (["QUESTIONS", "--out", "OUT", "--budget", "much"], "budget"),
        (["TABLE", "--out", "OUT", "--column", "task"], "no column 'task', but 'question'"),
        (["nothere.csv", "--out", "OUT"], "nothere.csv"),
        (["QUESTIONS", "--out", "OUT", "--judge", "gpt-4o"], "openai:gpt-4o"),
        (["QUESTIONS", "--out", "OUT", "--judge", "openai:m@ftp://h/v1"], "ftp"),
        (["QUESTIONS", "--out", "OUT", "--ways", "sot", "--judge", "openai:m@http://h/v1"], "two ways"),
        (["QUESTIONS", "--out", "OUT", "--judge", "openai:m@http://h/v1", "--judge-prompt", "BAD"], "{question}"),
        (["QUESTIONS", "--out", "OUT", "--judge-prompt", "BAD"], "--judge"),
        (["QUESTIONS", "--out", "OUT", "--embeddings", "langchain:x:y"], "--embeddings"),
        (["QUESTIONS", "--out", "OUT", "--votes", "BAD"], "BAD"),
        (["QUESTIONS", "--out", "OUT", "-m", "gpt-4o"], "openai:gpt-4o"),
        (["QUESTIONS", "--out", "OUT", "--prompts", "BAD"], "BAD"),
        (["QUESTIONS", "--out", "QUESTIONS"], "is a file"),
        (["QUESTIONS", "--out", ""], "--out"),
        (["--report-only", "--out", "OUT"], "OUT"),
        (["--votes", "BAD", "--out", "OUT"], "OUT"),
        (["QUESTIONS", "--out", "OTHER"], "other files"),
        (["QUESTIONS", "--out", "OUT", "--repeats", "0"], "--repeats"),
    ],
)
def test_bad_input_is_one_line_before_any_call_and_makes_no_folder(run, questions, out, tmp_path, words, told):
    (tmp_path / "BAD").write_text("a prompt without fields")
    (tmp_path / "OTHER").mkdir()
    (tmp_path / "OTHER" / "mine.txt").write_text("mine")
    (tmp_path / "TABLE.csv").write_text("question\nWhy?\n")
    places = {"TABLE": str(tmp_path / "TABLE.csv")}
    places |= {"QUESTIONS": questions, "OUT": str(out), "BAD": str(tmp_path / "BAD"), "OTHER": str(tmp_path / "OTHER")}
    code, said, err, script = run(*(places.get(word, word) for word in words))
    assert (code, said, err.count("\n")) == (2, "", 1), err
    assert places.get(told, told) in err
    assert script.calls == []
    assert not out.exists() or not rows_of(out)
    assert files_of(tmp_path / "OTHER") == {"mine.txt": b"mine"}


def test_a_folder_of_another_run_is_refused_and_left_as_it_is(run, questions, out):
    run(questions, "--out", out, "--ways", "normal", "--temperature", 0)
    before = files_of(out)
    code, _, err, script = run(questions, "--out", out, "--ways", "normal", "--temperature", 0.7)
    assert (code, err.count("\n"), script.calls) == (2, 1, [])
    assert "temperature" in err
    assert files_of(out) == before


def test_plots_are_checked_before_the_first_call(run, questions, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err, script = run(questions, "--out", out)
    assert (code, err.count("\n"), script.calls) == (1, 1, [])
    assert "eval]" in err
    assert not out.exists()


# --- defaults and the demo ---


def test_the_file_of_defaults_and_the_environment_count(run, questions, out, tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text('words = 25\nmerge = true\nstats = true\nmodel = "openai:of-the-file"\n')
    monkeypatch.setenv("SOT_CONFIG", str(file))
    monkeypatch.setenv("SOT_MODEL", "openai:of-the-environment")
    code, *_ = run(questions, "--out", out, "--ways", "normal,sot")
    assert code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"] == "of-the-environment"
    assert manifest["settings"]["point_words"] == 25
    assert not any(row["merged"] for row in rows_of(out))  # it is a way, and no setting of the others


def test_the_demo_asks_six_questions_of_the_demo_model_in_bounded_texts(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOT_MODEL", "openai:other")
    code, said, _, _ = run("--demo")
    assert code == 0
    folder = tmp_path / "sot-eval-demo"
    assert len(rows_of(folder)) == 18
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["model"], manifest["questions"]["count"]) == ("demo", 6)
    assert manifest["settings"]["max_tokens"] == eval_plan._DEMO_TOKENS
    assert said.splitlines()[-1] == "Report: sot-eval-demo/report.html"
