"""`sot eval --judge`: judges on servers, their prompt, their verdicts, and what goes wrong with them."""

from __future__ import annotations

import json
import re

import pytest
from completion_server import CompletionServer
from scripted_cli import Script
from scripted_judge import texts_of

from skeleton_of_thought.cli import main

QUESTIONS = ("How can I sleep better?", "What should I check before I buy a used bicycle?")
FORMS, ORDERS = 2, 2


def longer_wins(asked, model):
    _, first, second = texts_of(asked)
    return f"The better one says more.\nVerdict: {'A' if len(first) > len(second) else 'B'}"


@pytest.fixture
def judge():
    with CompletionServer(longer_wins) as made:
        yield made


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(judge, tmp_path, out, capsys, monkeypatch):
    """Runs the command on two questions; `JUDGE` in its words is the judge."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    path = tmp_path / "questions.txt"
    path.write_text("\n".join(QUESTIONS))

    def run(*words, questions=True):
        script = Script()
        asked = [str(path), "--ways", "normal,sot", "--no-warm-up"] if questions else []
        given = [str(word).replace("JUDGE", f"openai:strict@{judge.address}") for word in words]
        code = main(["eval", *asked, "--out", str(out), *given], backend=script.backend())
        shown = capsys.readouterr()
        return code, shown.out, shown.err, script

    return run


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def pair_of(out, form="written", judge="strict"):
    pairs = json.loads((out / "report.json").read_text())["verdicts"]
    (found,) = [pair for pair in pairs if (pair["form"], pair["judge"]) == (form, judge)]
    return found


def test_a_judge_sees_both_orders_and_forms_greedily_and_nothing_is_asked_twice(run, judge, out):
    code, said, err, _ = run("--judge", "JUDGE")
    assert code == 0
    assert len(judge.bodies) == len(QUESTIONS) * FORMS * ORDERS
    assert {body["temperature"] for body in judge.bodies} == {0}
    assert not any(way in asked.split("<<<", 1)[1] for asked, _ in judge.asked for way in ("normal", "skeleton"))
    verdicts = lines_of(out / "verdicts.jsonl")
    assert [(each["judge"], bool(each["winner"])) for each in verdicts] == [("strict", True)] * len(judge.bodies)
    pair = pair_of(out)
    assert (pair["questions"], pair["pairs"], pair["flips"]) == (2, 2, 0)
    assert re.search(r"sot +normal +strict +as written ", said)
    assert "8 of 8 verdicts of strict" in err
    assert "The better one" not in err
    assert json.loads((out / "manifest.json").read_text())["judge"] == ["strict"]
    assert run("--judge", "JUDGE")[0] == 0
    assert len(judge.bodies) == len(verdicts)


def test_a_judge_and_its_prompt_come_later_without_questions(run, judge, out, tmp_path):
    run()
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("My own prompt.\n{question}\n{first}\n{second}\n")
    code, _, _, script = run("--judge", "JUDGE", "--judge-prompt", prompt, "--no-plain", questions=False)
    assert (code, script.calls) == (0, [])
    assert len(judge.bodies) == len(QUESTIONS) * ORDERS
    assert all(asked.startswith("My own prompt.") for asked, _ in judge.asked)
    for _ in range(2):
        assert "My own prompt." in (out / "report.html").read_text()
        assert run("--report-only", questions=False)[0] == 0
    # Another prompt makes other verdicts, and those by the old one do not count any more.
    run("--judge", "JUDGE", "--no-plain", questions=False)
    assert len(judge.bodies) == 2 * len(QUESTIONS) * ORDERS
    assert pair_of(out)["pairs"] == 2


def test_every_pair_and_the_temperature_of_the_server(run, judge, out):
    code, *_ = run("--ways", "normal,sot,merge", "--judge", "JUDGE", "--pairs", "all", "--judge-temperature", "server")
    assert code == 0
    verdicts = lines_of(out / "verdicts.jsonl")
    assert len(verdicts) == len(QUESTIONS) * FORMS * ORDERS * 3
    # The script merges to the text of its direct answers, and the same text is a tie without a call.
    assert len(judge.bodies) == len(verdicts) * 2 // 3
    assert not any("temperature" in body for body in judge.bodies)


def test_a_question_that_moved_keeps_its_verdicts(run, judge, out, tmp_path):
    run("--judge", "JUDGE")
    asked = len(judge.bodies)
    (tmp_path / "questions.txt").write_text("\n".join(["Why do cities flood?", *QUESTIONS]))
    code, *_ = run("--judge", "JUDGE")
    assert code == 0
    assert len(judge.bodies) == asked + FORMS * ORDERS
    assert [each["number"] for each in pair_of(out)["by_question"]] == [1, 2, 3]


def test_two_questions_that_shared_a_number_stay_two_without_the_file(run, judge, out, tmp_path):
    run("--judge", "JUDGE")
    (tmp_path / "questions.txt").write_text("Why do cities flood?")
    run("--judge", "JUDGE")
    figures = []
    for words in (["--report-only"], ["--judge", "JUDGE"]):
        asked = len(judge.bodies)
        assert run(*words, questions=False)[0] == 0
        assert len(judge.bodies) == asked
        pair = pair_of(out)
        assert (pair["questions"], pair["pairs"], [each["number"] for each in pair["by_question"]]) == (3, 3, [1, 2, 3])
        figures.append(json.loads((out / "report.json").read_text()))
    assert [each["number"] for each in figures[0]["speed"]["sot"]["by_question"]] == [1, 2, 3]
    assert figures[0]["controlled"] == figures[1]["controlled"]
    assert figures[0]["controlled"][0]["length"]["questions"] == 3


def test_a_report_shows_the_prompt_of_each_judge(run, judge, out, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("My own prompt.\n{question}\n{first}\n{second}\n")
    run("--judge", "JUDGE", "--judge-prompt", prompt)
    run("--judge", f"openai:b@{judge.address}")
    for words in ([], ["--report-only"]):
        run(*words, questions=bool(words) is False)
        page = (out / "report.html").read_text()
        assert "Of strict:\n\nMy own prompt." in page
        assert "Of b:" in page
        assert pair_of(out)["pairs"] == pair_of(out, judge="b")["pairs"] == 2
    (out / "judge-prompts.json").write_text("[1]")
    code, _, err, _ = run("--report-only", questions=False)
    assert (code, err.count("\n")) == (2, 1)
    assert "judge-prompts.json" in err


def test_several_judges_and_a_warning_where_a_judge_wrote_the_answers(run, judge, out):
    code, _, err, _ = run(
        "-m", "openai:strict@http://127.0.0.1:9/v1", "--judge", "JUDGE", "--judge", f"openai:b@{judge.address}"
    )
    assert code == 0
    assert "the judge strict has written the answers itself" in err
    assert {model for _, model in judge.asked} == {"strict", "b"}
    assert pair_of(out, judge="b")["pairs"] == 2


def test_a_judge_that_always_fails_is_one_error_and_the_report_is_there(run, judge, out):
    judge.reply = lambda asked, model: "I cannot say."
    code, said, err, _ = run("--judge", "JUDGE", "--quiet")
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert "no judge" in err or "verdict that can be read" in err
    assert len(lines_of(out / "rows.jsonl")) == 4
    assert (out / "report.html").exists()
    code, said, err, _ = run("--judge", "JUDGE", "--quiet")
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert "All 8 verdicts of strict failed" in err
    judge.reply = longer_wins
    code, *_ = run("--judge", "JUDGE", "--retry")
    assert code == 0
    assert pair_of(out)["none"] == 0


def test_a_budget_covers_judges(run, judge, out):
    code, _, err, script = run("--judge", "JUDGE", "--budget", "15calls")
    assert code == 0
    assert "the budget is spent" in err
    assert len(script.calls) + len(judge.bodies) <= 15
    assert judge.bodies


def test_a_judge_named_twice_is_refused(run, judge):
    code, _, err, script = run("--judge", "JUDGE", "--judge", "JUDGE")
    assert (code, err.count("\n"), script.calls, judge.bodies) == (2, 1, [], [])
    assert "'strict' twice" in err


def test_a_judge_without_a_key_is_refused_before_the_first_answer(run, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, _, err, script = run("--judge", "openai:strict")
    assert (code, err.count("\n"), script.calls) == (2, 1, [])
    assert "OPENAI_API_KEY" in err


def test_similarity_by_an_embedding_model_on_a_server(run, judge, out):
    code, *_ = run("--embeddings", f"openai:vectors@{judge.address}")
    assert code == 0
    quality = json.loads((out / "report.json").read_text())["quality"]
    assert quality["sot"]["similarity"] is not None
    assert quality["normal"]["similarity"] is None


def test_if_the_embedding_model_fails_there_is_one_error_and_a_report_without_it(run, judge, out):
    judge.status = 400
    code, said, err, _ = run("--embeddings", f"openai:vectors@{judge.address}", "--quiet")
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert (out / "report.html").exists()
