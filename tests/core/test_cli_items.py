"""Answers item by item in the command: options, views, figures, `sot route`, `sot eval`."""

from __future__ import annotations

import csv
import io
import json

import pytest
import scripted_cli as scripted
from terminals import live_view

from skeleton_of_thought import cli
from skeleton_of_thought._cli import models
from skeleton_of_thought._cli.live_view import _document
from skeleton_of_thought._cli.options import parse
from skeleton_of_thought._cli.report import figures, statistics
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.answering import AnswerOnce, row_of
from skeleton_of_thought.evaluation.notes import notes_of
from skeleton_of_thought.evaluation.quality import quality
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import from_json, to_json
from skeleton_of_thought.evaluation.runner import Job
from skeleton_of_thought.evaluation.speed import speed, summary
from skeleton_of_thought.evaluation.ways import WAYS
from skeleton_of_thought.events import PointDelta, PointDone, PointStarted, Routed, SkeletonDone
from skeleton_of_thought.types import Answer, Call, Expansion, Item, ItemList, ItemsDecision, Skeleton

SENTENCES = ("Good morning to you.", "How are you today?", "See you tomorrow.")
QUESTION = "Translate these sentences into French:\n" + "\n".join(
    f"{i}) {sentence}" for i, sentence in enumerate(SENTENCES, 1)
)
TARGETS = "Translate this text into French, Spanish and German: The cat sits on the mat and looks at the old dog."
PLAIN = "What are the benefits of tea?"
ITEMS = tuple(Item(i, text, mark=f"{i})", tight=True, ask=text) for i, text in enumerate(SENTENCES, 1))


class Script(scripted.Script):
    """Names each item in its answer."""

    def text(self, call: Call) -> str:
        return f"Voici la réponse {call.point.index}." if call.point else super().text(call)


pytestmark = pytest.mark.usefixtures("no_file")


def stages(script: Script) -> list[str]:
    return sorted(call.stage for call in script.calls)


# --- options ---


@pytest.mark.parametrize("command", [["ask", QUESTION], ["chat"], ["eval", "q.txt"], ["batch", "q.txt", "out"]])
def test_an_option_and_the_file_switch_items_off(command, no_file):
    assert models.settings_of(parse(command)).items == "auto"
    assert models.settings_of(parse([command[0], "--items", "off", *command[1:]])).items == "off"
    path = no_file / "sot" / "config.toml"
    path.parent.mkdir()
    path.write_text('items = "off"\n')
    assert models.settings_of(parse(command)).items == "off"
    assert models.settings_of(parse([command[0], "--items=auto", *command[1:]])).items == "auto"
    path.write_text('items = "often"\n')
    with pytest.raises(InvalidInput, match="items must be one of auto, off"):
        parse(command)


def test_a_mistake_is_one_line_before_any_call(capsys):
    script = Script()
    assert cli.main(["ask", "--items", "some", QUESTION], backend=script.backend()) == 2
    assert "invalid choice: 'some'" in capsys.readouterr().err
    assert script.calls == []


# --- answers ---


def test_a_pipe_gets_the_answers_in_the_form_of_the_list(capsys):
    script = Script()
    assert cli.main(["ask", "--stats", QUESTION], backend=script.backend()) == 0
    out, err = capsys.readouterr()
    assert out == "1) Voici la réponse 1.\n2) Voici la réponse 2.\n3) Voici la réponse 3.\n"
    assert stages(script) == ["point"] * 3
    assert [
        call.prompt.messages[-1].text.splitlines()[-1] for call in sorted(script.calls, key=lambda call: call.id)
    ] == [*SENTENCES]
    assert "3 items, " in err
    assert "answered item by item: " in err
    assert "--items off for one call" in err
    assert "here: longest item " in err


@pytest.mark.parametrize("words", [["--items", "off"], ["--no-router"]])
def test_without_items_or_router_there_is_a_direct_answer_or_a_skeleton(words, capsys):
    script = Script()
    assert cli.main(["ask", *words, QUESTION], backend=script.backend()) == 0
    assert stages(script) == (["direct"] if "off" in words else ["point"] * 5 + ["skeleton"])
    assert "answered item by item" not in capsys.readouterr().err


def test_the_guard_of_the_command_refuses_what_does_not_pay(capsys):
    script = Script()
    assert cli.main(["ask", "--max-concurrency", "1", "--stats", QUESTION], backend=script.backend()) == 0
    assert stages(script) == ["direct"]
    assert "cost guard: there is room for one call at a time" in capsys.readouterr().err


def test_json_tells_of_items(capsys):
    assert cli.main(["ask", "--json", QUESTION], backend=Script().backend()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["route"], answer["skeleton"]) == ("items", list(SENTENCES))
    assert [each["text"] for each in answer["expansions"]] == [
        "Voici la réponse 1.",
        "Voici la réponse 2.",
        "Voici la réponse 3.",
    ]
    assert cli.main(["ask", "--json", "--stream", QUESTION], backend=Script().backend()) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] == "PointFound"] == []
    assert events[0]["decision"]["items"]["form"] == "list"
    assert events[-1]["answer"]["route"] == "items"


def test_a_failed_item_is_named_as_one(capsys):
    fail = lambda call: ConnectionError("gone") if call.point and call.point.index == 2 else None  # noqa: E731
    words = ["ask", "--retries", "0", QUESTION]
    assert cli.main(words, backend=Script(fail=fail).backend()) == 1
    assert "Item 2 ('How are you today?') failed: " in capsys.readouterr().err
    words = ["ask", "--on-point-error", "placeholder", *words[1:]]
    assert cli.main(words, backend=Script(fail=fail).backend()) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith("(This point could not be completed.)")
    assert [line[:2] for line in out.splitlines()] == ["1)", "2)", "3)"]
    assert "sot: item 2 failed: " in err


def test_a_chat_counts_items(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(TARGETS + "\n"))
    assert cli.main(["chat"], backend=Script().backend()) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines() == [
        "French: Voici la réponse 1.",
        "Spanish: Voici la réponse 2.",
        "German: Voici la réponse 3.",
    ]


# --- sot route ---


def routed(capsys, *words):
    assert cli.main(["route", *words]) == 0
    return capsys.readouterr().out


def test_route_says_how_many_items_and_where_they_come_from(capsys):
    assert routed(capsys, QUESTION).startswith("items (3 items of a list): ")
    assert routed(capsys, TARGETS).startswith("items (one text for 3 targets): ")
    assert routed(capsys, "Write five different poems about the sea.").startswith("items (5 separate texts): ")
    assert not routed(capsys, "--items", "off", QUESTION).startswith("items")
    short = "Translate this text into French and Spanish: The cat sleeps."
    assert routed(capsys, short).startswith("direct: cost guard: 2 answers of about 12 tokens save too little")


def test_route_as_json_has_the_items_and_nothing_new_without(capsys):
    told = json.loads(routed(capsys, "--json", QUESTION))
    assert (told["route"], told["form"], told["language"]) == ("items", "list", "en")
    assert told["instruction"] == "Translate these sentences into French:"
    assert told["items"][1] == {"mark": "2)", "title": "How are you today?"}
    assert json.loads(routed(capsys, "--json", PLAIN)).keys() == {"use_skeleton", "score", "reason"}


@pytest.mark.parametrize("planning", ["titles", "auto"])
def test_route_adds_a_column_only_where_there_are_items(capsys, tmp_path, planning):
    path, extra = tmp_path / "questions.csv", ["planning"] if planning == "auto" else []
    for questions, more in (([PLAIN, ""], []), ([PLAIN, QUESTION, ""], ["items"])):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["question"], *([question] for question in questions)])
        out = routed(capsys, "--csv", str(path), "--planning", planning)
        rows = list(csv.DictReader(io.StringIO(out)))
        assert list(rows[0]) == ["index", "use_skeleton", "score", "reason", *extra, *more]
    assert [row["items"] for row in rows] == ["", "3", ""]
    assert "items" not in routed(capsys, "--csv", str(path), "--items", "off").splitlines()[0]


# --- the live view ---


def shown(view):
    view.show(Routed(ItemsDecision(True, reason="items", items=ItemList("Translate:", ITEMS))))
    view.show(SkeletonDone(Skeleton(ITEMS)))
    for item in ITEMS:
        view.show(PointStarted(item))


@pytest.mark.parametrize("size", [(100, 24), (60, 8)])
def test_the_live_view_shows_marks_and_items(size):
    view, lines, _ = live_view(QUESTION, *size)
    shown(view)
    view.show(PointDelta(ITEMS[0], "Bonjour."))
    view.show(PointDone(Expansion(ITEMS[0], "Bonjour.")))
    text = "\n".join(lines())
    assert "items done: 1 of 3" in text
    assert all(f"{i}) {sentence}" in text for i, sentence in enumerate(SENTENCES, 1))
    assert "Bonjour." in text


def test_a_name_before_an_answer_stands_once():
    view, lines, _ = live_view(TARGETS, 80, 24)
    named = Item(1, "French", mark="French:", tight=True)
    view.show(SkeletonDone(Skeleton((named,))))
    assert "French" in "\n".join(lines())
    assert "French:" not in "\n".join(lines()[1:])


def test_the_document_is_the_answer_with_bold_marks():
    texts = ("Bonjour.", "Comment\nallez-vous ?", "- À\n- demain", "")
    points = (*ITEMS, Item(4, "d", mark="4)", tight=True))
    expansions = tuple(Expansion(point, text) for point, text in zip(points, texts, strict=True))
    whole = "1) Bonjour.\n2) Comment\nallez-vous ?\n\n3)\n\n- À\n- demain\n\n4)"
    document = _document(Answer(whole, QUESTION, "items", Skeleton(points), expansions), "headings")
    assert document.plain == whole
    assert [document.plain[span.start : span.end] for span in document.spans if span.style == "bold"] == [
        *("1)", "2)", "3)", "4)")
    ]


def test_figures_of_a_local_model_name_items():
    answer = Answer(
        "x", QUESTION, "items", Skeleton(ITEMS), tuple(Expansion(item, "x") for item in ITEMS), reason="why"
    )
    assert figures(answer).startswith("3 items in ")
    assert statistics(answer)[0] == "answered item by item: why (--items off for one call)"


# --- figures of evaluations ---


def rows_of(script: Script, *ways: str):
    rows = []
    for number, question in ((1, QUESTION), (2, PLAIN)):
        for way in ways:
            once = AnswerOnce(script.backend(), model="scripted")
            rows.append(once(Job(Question(number, question, f"q{number}"), WAYS[way], 1, f"{way} {number}", 0)))
    return rows


@pytest.mark.parametrize("usage", [True, False])
def test_an_evaluation_counts_items_and_its_figures_hold(usage):
    rows = rows_of(Script(usage=usage), "normal", "auto")
    assert [row.route for row in rows] == ["direct", "items", "direct", "skeleton"]
    row = rows[1]
    assert [point.title for point in row.points] == list(SENTENCES)
    assert (row.calls, row.ok, row.tokens_estimated) == (3, True, not usage)
    assert row.output_tokens == row.answer_tokens > 0, "no skeleton was written"
    assert from_json(to_json(row)) == row
    assert len(row.timeline().bars) == 3
    found = {way: quality(rows, way, "normal") for way in ("normal", "auto")}
    assert found["auto"]["routes"] == {"items": 1, "skeleton": 1}
    assert found["auto"]["points"] == 8
    told = notes_of(
        rows,
        base="normal",
        questions=2,
        missing=0,
        summaries={way: summary(rows, way) for way in found},
        qualities=found,
        speeds={"auto": speed(rows, "auto", "normal")},
    )
    assert not [note for note in told if note["kind"] == "direct"]
    assert set(speed(rows, "auto", "normal")["by_route"]) == {"items", "skeleton"}


def test_a_row_without_a_count_of_calls_counts_no_skeleton_either():
    expansions = tuple(Expansion(item, "x" * 40, attempts=1) for item in ITEMS)
    answer = Answer("x", QUESTION, "items", Skeleton(ITEMS), expansions)
    row = row_of(answer, Job(Question(1, QUESTION, "q"), WAYS["auto"], 1, "key", 0), model="m")
    assert (row.calls, row.output_tokens, row.answer_tokens) == (3, 30, 30)


def test_the_report_of_an_evaluation_has_the_items(tmp_path, capsys):
    questions, out = tmp_path / "q.jsonl", tmp_path / "out"
    questions.write_text("".join(json.dumps({"question": each}) + "\n" for each in (QUESTION, PLAIN)))
    words = ["eval", str(questions), "--out", str(out), "--ways", "normal,auto", "--no-warm-up", "--quiet"]
    assert cli.main(words, backend=Script().backend()) == 0, capsys.readouterr().err
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "Route: items" in report
    assert "| auto | items | 1 |" in report
