"""The `sot` command in this process, with a scripted backend."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from types import SimpleNamespace

import pytest
import scripted_cli as scripted
from terminals import Terminal, live_view

from skeleton_of_thought import cli
from skeleton_of_thought._cli.live_view import LiveView, _columns
from skeleton_of_thought._cli.local_backend import local_backend
from skeleton_of_thought._cli.report import statistics
from skeleton_of_thought._cli.views import AnswerResult
from skeleton_of_thought.errors import ReasoningShown, install_line
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerRestarted,
    MergeStarted,
    PointDelta,
    PointFound,
    PointRestarted,
    PointStarted,
    SkeletonRestarted,
)
from skeleton_of_thought.text.assembly import render
from skeleton_of_thought.types import Answer, Decoding, Expansion, Point, Skeleton, Span, Timings

Script = scripted.Script

QUESTION = "How can I sleep better?"


def main(argv, **kwargs):
    """Runs the command with a skeleton for every question."""
    return cli.main([*argv, "--no-router"] if argv[:1] == ["ask"] else argv, **kwargs)


def ask(script, *options, capsys):
    code = main(["ask", QUESTION, *options], backend=script.backend())
    out, err = capsys.readouterr()
    assert script.closed
    assert script.open == 0
    return code, out, err


def fails(index, error=None, attempts=99):
    def fail(call):
        hit = call.point is not None and call.point.index == index and call.attempt <= attempts
        return (error or ConnectionError("line cut")) if hit else None

    return fail


# --- output ---


def test_plain_writes_the_answers_text_and_nothing_else(capsys):
    code, out, err = ask(Script(), "--plain", capsys=capsys)
    assert code == 0
    assert out.startswith("1. Keep a schedule: This helps")
    assert out.endswith("\n")
    assert out.count("\n\n") == 4
    assert "\x1b" not in out
    assert err == ""


def test_plain_and_json_have_the_same_text(capsys):
    _, plain, _ = ask(Script(), "--plain", capsys=capsys)
    code, out, err = ask(Script(), "--json", capsys=capsys)
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert plain == answer["text"] + "\n"
    assert answer["question"] == QUESTION
    assert answer["skeleton"] == list(scripted.TITLES)


def test_piped_output_is_plain(capsys):
    _, default, _ = ask(Script(), capsys=capsys)
    _, plain, _ = ask(Script(), "--plain", capsys=capsys)
    assert default == plain


def test_json_lines_add_up_to_the_answer(capsys):
    code, out, _ = ask(Script(), "--json", "--stream", capsys=capsys)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [e["event"] for e in events].count("AnswerDone") == 1
    answer = events[-1]["answer"]
    assert "".join(e["text"] for e in events if e["event"] == "AnswerDelta") == answer["text"]
    for expansion in answer["expansions"]:
        deltas = (e for e in events if e["event"] == "PointDelta" and e["point"]["index"] == expansion["index"])
        assert "".join(e["text"] for e in deltas) == expansion["text"]
    done = [e["expansion"] for e in events if e["event"] == "PointDone"]
    assert sorted(done, key=lambda e: e["index"]) == answer["expansions"]


def test_json_stays_valid_on_an_ascii_terminal(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    script = Script(skeleton="1. Früh schlafen\n2. 早睡\n")
    assert main(["ask", QUESTION, "--json"], backend=script.backend()) == 0
    assert json.loads(raw.getvalue())["skeleton"] == ["Früh schlafen", "早睡"]


def test_a_direct_answer_is_written(capsys):
    code, out, err = ask(Script(skeleton="No list."), "--plain", "--stats", capsys=capsys)
    assert code == 0
    assert out.startswith("This helps")
    assert "answered directly" in err
    assert "steps" not in err


def test_unreported_tokens_are_not_made_up(capsys):
    _, _, err = ask(Script(usage=False), "--plain", "--stats", capsys=capsys)
    assert "did not say" in err
    assert "steps" not in err


def decoded(call):
    """A local engine's record: five points in a batch, of which the last decoded its second half alone."""
    if call.stage != "point":
        return Decoding(0.0, 0.1, 1.0, 20, 1.0, 20)
    return Decoding(0.0, 0.1, 1.0, 20, 3.0 if call.point.index == 5 else 5.0, 20)


def test_the_figures_show_how_parallel_a_local_model_was(capsys):
    _, out, err = ask(Script(decoding=decoded), "--plain", "--stats", capsys=capsys)
    (line,) = (line for line in err.splitlines() if line.startswith("decoding: "))
    assert "skeleton: 1 row at once, " in line
    assert "points: 4.6 rows at once, " in line
    assert "answer" not in line
    assert "at once" not in out


def test_the_pace_of_a_stage_is_its_tokens_over_its_own_time():
    # Four rows of two seconds in parallel: 40 tokens in 2 seconds, although the seconds of the rows add up to 8.
    decoding = {"point": Decoding(0.0, 0.0, 8.0, 40, 4.0, 40)}
    answer = Answer("", "", "skeleton", timings=Timings(3.0, None, {"point": Span(1.0, 3.0)}, decoding))
    assert "decoding: points: 4 rows at once, 20 tokens/s" in statistics(answer)


def test_a_direct_answer_has_its_pace(capsys):
    _, _, err = ask(Script(skeleton="No list.", decoding=decoded), "--plain", "--stats", capsys=capsys)
    (line,) = (line for line in err.splitlines() if line.startswith("decoding: "))
    assert [part.split(":")[0] for part in line.removeprefix("decoding: ").split("; ")] == ["skeleton", "answer"]


def test_a_server_that_reports_no_decoding_has_no_decoding_line(capsys):
    _, _, err = ask(Script(), "--plain", "--stats", capsys=capsys)
    assert "normal decoding: about" in err
    assert "decoding: " not in err.replace("normal decoding: ", "")


def test_json_has_the_decoding_of_each_stage(capsys):
    _, out, _ = ask(Script(decoding=decoded), "--json", capsys=capsys)
    decoding = json.loads(out)["timings"]["decoding"]
    assert list(decoding) == ["skeleton", "point"]
    assert decoding["point"]["output_tokens"] == decoding["point"]["steps"] == 100
    assert decoding["point"]["mean_rows"] == pytest.approx(4.6)
    assert decoding["point"]["tokens_per_second"] == pytest.approx(20.0)


# --- settings ---


def test_options_reach_the_flow(capsys):
    script = Script()
    code, out, _ = ask(script, "--max-points", "2", "--words", "77", "--system", "Be kind.", "--plain", capsys=capsys)
    assert code == 0
    assert "2. Dim" in out
    assert "3. " not in out
    points = [call for call in script.calls if call.stage == "point"]
    assert len(points) == 2
    assert "77 words" in points[0].prompt.messages[-1].text
    assert points[0].prompt.messages[0].text == "Be kind."


def test_a_prompt_file_is_used(tmp_path, capsys):
    file = tmp_path / "prompts.json"
    file.write_text(
        json.dumps({"outline_prompt": "LIST {request}[ROLESWITCHING assistant:]1.", "point_prompt": "P{point}"}),
        encoding="utf-8",
    )
    script = Script()
    ask(script, "--prompts", str(file), capsys=capsys)
    assert script.calls[0].prompt.messages[-1].text.startswith(f"LIST {QUESTION}")


def test_the_question_is_read_from_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Why is the sky blue?\n"))
    assert main(["ask", "-", "--json"], backend=Script().backend()) == 0
    assert json.loads(capsys.readouterr().out)["question"] == "Why is the sky blue?"


def test_words_of_an_unquoted_question_are_joined(capsys):
    assert main(["ask", "--json", "why", "so", "slow"], backend=Script().backend()) == 0
    assert json.loads(capsys.readouterr().out)["question"] == "why so slow"


# --- comparison ---


def test_the_baseline_gets_as_many_tokens_as_the_answer(capsys):
    script = Script(sentences=1)
    code, out, _ = ask(script, "--compare", "--json", capsys=capsys)
    answer = json.loads(out)
    last = script.calls[-1]
    assert code == 0
    assert last.stage == "direct"
    assert last.prompt.messages[-1].text == QUESTION
    assert last.prompt.hints.max_tokens == answer["usage"]["output_tokens"]
    assert answer["compare"]["normal"]["text"].startswith("This helps")
    assert answer["compare"]["speedup"].keys() == {"wall", "per_token"}


def test_compare_is_a_command(capsys):
    assert main(["compare", QUESTION, "--plain"], backend=Script().backend()) == 0
    out, err = capsys.readouterr()
    assert out.count("1. Keep a schedule") == 1
    assert "x as fast as one normal call" in err


def test_an_answer_survives_a_failure_of_the_baseline(capsys):
    fail = lambda call: ConnectionError("gone") if call.stage == "direct" and len(script.calls) > 2 else None  # noqa: E731
    script = Script(fail=fail)
    code, out, err = ask(script, "--compare", "--plain", capsys=capsys)
    assert code == 1
    assert "5. Put screens away: This" in out
    assert err == "sot: error: gone\n"


# --- errors ---


def test_a_failed_point_leaves_the_partial_answer_then_the_error(capsys):
    code, out, err = ask(Script(fail=fails(2)), "--plain", "--retries", "0", capsys=capsys)
    assert code == 1
    assert out.startswith("1. Keep a schedule: This helps")
    assert "2. Dim the lights: This helps" in out
    assert err.startswith("sot: error: Point 2 ('Dim the lights') failed: line cut")
    assert err.count("\n") == 1


def test_a_failed_point_in_json_has_its_error_beside_the_partial_answer(capsys):
    code, out, _ = ask(Script(fail=fails(2)), "--json", "--retries", "0", capsys=capsys)
    assert code == 1
    assert json.loads(out)["error"]["type"] == "PointError"
    assert json.loads(out)["skeleton"] == list(scripted.TITLES)


def test_the_last_json_line_reports_a_failure(capsys):
    code, out, _ = ask(Script(fail=fails(2)), "--json", "--stream", "--retries", "0", capsys=capsys)
    last = json.loads(out.splitlines()[-1])
    assert code == 1
    assert last["event"] == "AnswerFailed"
    assert last["error"]["type"] == "PointError"


def test_a_placeholder_keeps_the_place_of_a_failed_point(capsys):
    options = ("--plain", "--retries", "0", "--on-point-error", "placeholder")
    code, out, err = ask(Script(fail=fails(2)), *options, capsys=capsys)
    assert code == 0
    assert "(This point could not be completed.)" in out
    assert "5. Put screens away: This" in out
    assert "sot: point 2 failed: line cut" in err


def test_a_point_is_retried(capsys):
    code, out, _ = ask(Script(fail=fails(3, attempts=1)), "--json", "--retries", "1", capsys=capsys)
    assert code == 0
    assert json.loads(out)["expansions"][2]["attempts"] == 2


def test_an_error_of_the_skeleton_is_one_line(capsys):
    script = Script(fail=lambda call: OSError("first\nsecond"))
    code, out, err = ask(script, "--plain", "--retries", "0", capsys=capsys)
    assert (code, out) == (1, "")
    assert err == "sot: error: first second\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["ask", ""], "question is empty"),
        (["ask", "q", "--max-points", "0"], "whole number of at least 1"),
        (["ask", "q", "--max-points", "x"], "whole number of at least 1"),
        (["ask", "q", "--retries", "-1"], "at least 0"),
        (["ask", "q", "--point-timeout", "0"], "must be a number of more than 0"),
        (["ask", "q", "--temperature", "nan"], "a number of at least 0"),
        (["ask", "q", "--max-concurrency", "0"], "at least 1"),
        (["ask", "q", "--stream"], "--stream goes with --json"),
        (["ask", "q", "--plain", "--json"], "not allowed with"),
        (["ask", "q", "--on-point-error", "ignore"], "invalid choice"),
        (["ask", "q", "--prompts", "/no/such/file.json"], "cannot be read"),
        (["ask", "q", "--model", "/no/such/model.gguf"], "no such file"),
        (["ask", "q", "--model", "./nowhere"], "no such file"),
        (["ask", "q", "--model", ""], "name is empty"),
        (["ask", "q", "--model", "openai:"], "names no model"),
        (["ask", "q", "--model", "openai:m@localhost:80/v1"], "http://"),
        (["ask", "q", "--max_points", "3"], "did you mean --max-points?"),
        (["ask", "q", "--wrods=3"], "did you mean --words? (see sot ask --help)"),
        (["answer", "q"], 'sot ask "QUESTION"'),
        (["How can I sleep better?"], 'sot ask "QUESTION"'),
        (["aks", "q"], "did you mean sot ask?"),
        (["xyzzy"], "but ask, compare, chat"),
        ([], "there is no command"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, words, capsys):
    script = Script()
    assert main(argv, backend=script.backend()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sot: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert script.calls == []


def test_a_missing_openai_key_is_reported_before_anything_is_sent(monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main(["ask", "q", "--model", "openai:gpt-4o-mini"]) == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err


def test_a_missing_sdk_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert main(["ask", "q", "--model", "openai:x@http://127.0.0.1:1/v1"]) == 1
    assert install_line("openai") in capsys.readouterr().err


def test_a_missing_local_extra_names_the_extra(monkeypatch, capsys):
    for name in [m for m in sys.modules if m.startswith("skeleton_of_thought.local")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["ask", "q"]) == 1
    assert install_line("local") in capsys.readouterr().err


COMMANDS = ("ask", "compare", "chat", "route", "train-router", "config", "completion")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_fits_eighty_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    if not command:
        assert all(f"\n    {name}" in out for name in COMMANDS)
    if not command or command[0] in ("ask", "compare", "chat"):
        assert all(code in out for code in ("0 done", "1 an error", "2 a mistake", "130 interrupted"))


def test_version_and_help_succeed(capsys):
    assert main(["--version"]) == 0
    assert main(["ask", "--help"]) == 0
    assert capsys.readouterr().out.startswith("sot ")


# --- the live view ---


@pytest.fixture
def screen():
    """Makes a view on one of rich's terminals, and a function that renders it."""

    def make(width, height, encoding="utf-8"):
        return live_view(QUESTION, width, height, encoding)

    return make


def fill(view, count, text="word " * 400):
    points = [Point(i, f"Title number {i}") for i in range(1, count + 1)]
    for point in points:
        view.show(PointFound(point))
    for point in points:
        view.show(PointStarted(point))
        view.show(PointDelta(point, text + f"end{point.index}"))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 24])
@pytest.mark.parametrize("size", [(100, 30), (80, 24), (40, 15), (20, 5), (200, 60), (10, 3)])
def test_the_view_never_outgrows_the_terminal(screen, size, count):
    view, lines, _ = screen(*size)
    fill(view, count)
    from rich.cells import cell_len

    shown = lines()
    assert len(shown) <= size[1]
    assert max(map(cell_len, shown)) <= size[0]


def test_every_point_shows_the_end_of_its_text(screen):
    view, lines, _ = screen(100, 30)
    fill(view, 7)
    shown = "\n".join(lines())
    assert all(f"end{i}" in shown for i in range(1, 8))
    assert all(f"{i}. Title number {i}" in shown for i in range(1, 8))


def test_points_are_boxes_only_if_they_fit():
    assert _columns(6, 100, 27) >= 2
    assert _columns(6, 40, 12) == 0
    assert _columns(1, 30, 10) == 1


def test_the_skeleton_appears_line_by_line(screen):
    view, lines, _ = screen(80, 24)
    assert "writing the skeleton" in lines()[1]
    view.show(PointFound(Point(1, "First thing")))
    assert any("1. First thing" in line for line in lines())


def test_a_models_text_does_not_control_the_terminal(screen):
    view, lines, _ = screen(80, 24)
    fill(view, 2, text="\x1b[2Jred [bold]not markup[/bold] ")
    shown = "\n".join(lines())
    assert "\x1b" not in shown
    assert "[bold]not markup[/bold]" in shown


def test_an_ascii_terminal_gets_ascii(screen):
    view, lines, _ = screen(80, 24, encoding="ascii")
    fill(view, 3)
    shown = "\n".join(line for line in lines()[2:])
    assert not set(shown) & set("▸✓╭│")


def test_a_direct_answer_is_shown_while_it_is_written(screen):
    view, lines, _ = screen(60, 12)
    view.show(AnswerDelta("The sky is "))
    view.show(AnswerDelta("blue."))
    assert any("The sky is blue." in line for line in lines())


def test_the_live_view_ends_with_the_whole_answer(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["ask", QUESTION, "--compare"], backend=Script().backend()) == 0
    out = terminal.getvalue()
    entered, left = "\x1b[?1049h", "\x1b[?1049l"
    assert out.count(entered) == out.count(left) == 1
    after = out.split(left)[1]
    for index, title in enumerate(scripted.TITLES, 1):
        assert f"{index}. {title}" in after
    assert "one normal call, " in after
    assert "x as fast as one normal call" in after
    assert "\x1b[?25h" in out


def test_without_rich_a_terminal_gets_plain_text(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delitem(sys.modules, "skeleton_of_thought._cli.live_view", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["ask", QUESTION], backend=Script().backend()) == 0
    assert terminal.getvalue().startswith("1. Keep a schedule")
    assert install_line("demo") in capsys.readouterr().err


# --- forms of the answer, and the merge ---


def merges(*, fail=None, **settings):
    """A script of two points whose merge fails with the error `fail`."""

    def failing(call):
        return fail if call.stage == "merge" else None

    return Script(skeleton="1. Dim the lights\n2. Cool the room\n", sentences=1, fail=failing, **settings)


def test_the_style_option_joins_points_by_headings_or_paragraphs(capsys):
    _, out, _ = ask(merges(), "--plain", "--join", "headings", capsys=capsys)
    assert out.startswith("## Dim the lights\n\nThis helps")
    assert out.count("## ") == 2
    _, out, _ = ask(merges(), "--plain", "--join", "paragraphs", capsys=capsys)
    assert out.startswith("This helps")
    assert "Dim" not in out
    code, _, err = ask_badly("--join", "bullets", capsys=capsys)
    assert code == 2
    assert "bullets" in err


def ask_badly(*options, capsys):
    code = main(["ask", QUESTION, *options], backend=Script().backend())
    return (code, *capsys.readouterr())


def test_a_merge_is_the_answer_and_its_cost_is_reported(capsys):
    script = merges()
    code, out, err = ask(script, "--plain", "--merge", "--stats", capsys=capsys)
    assert code == 0
    assert out == scripted.SENTENCE.strip() + (" " + scripted.SENTENCE.strip()) * 4 + "\n"
    assert [call.stage for call in script.calls] == ["skeleton", "point", "point", "merge"]
    merge = next(call for call in script.calls if call.stage == "merge")
    assert "1. Dim the lights: This helps" in merge.prompt.messages[-1].text
    assert ", merge " in err
    assert " + merge 81 = " in err
    assert "merge 50/81" in err


def test_json_has_the_merge_and_its_usage(capsys):
    _, out, _ = ask(merges(), "--json", "--merge", capsys=capsys)
    answer = json.loads(out)
    assert (answer["merged"], answer["merge_error"]) == (True, None)
    assert set(answer["usage_by_stage"]) == {"skeleton", "point", "merge"}
    assert len(answer["expansions"]) == 2
    _, out, _ = ask(merges(), "--json", "--stream", "--merge", capsys=capsys)
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["event"] for e in events if "Merge" in e["event"]] == ["MergeStarted", "MergeDone"]
    assert "".join(e["text"] for e in events if e["event"] == "AnswerDelta") == events[-1]["answer"]["text"]


def test_a_failed_merge_gives_the_points_and_is_reported(capsys):
    code, out, err = ask(merges(fail=ConnectionError("line cut")), "--plain", "--merge", capsys=capsys)
    assert code == 0
    assert out.startswith("This helps\n\n1. Dim the lights: This helps")
    assert "sot: merge failed, so the points stand as they are: line cut" in err


def test_the_baseline_is_as_long_as_the_merge(capsys):
    script = merges()
    ask(script, "--plain", "--merge", "--compare", capsys=capsys)
    assert script.calls[-1].stage == "direct"
    assert script.calls[-1].prompt.hints.max_tokens == 81


def test_the_live_view_shows_the_merge_and_then_prints_it(screen):
    view, lines, console = screen(80, 24)
    fill(view, 2)
    view.show(MergeStarted())
    assert any("merging the points into one text" in line for line in lines())
    view.show(AnswerDelta("One text "))
    assert "One text " in lines()
    view.show(AnswerRestarted(OSError("down")))
    assert "One text " not in lines()
    points = (Expansion(Point(1, "Sleep"), "Long."), Expansion(Point(2, "Eat")))
    with console.capture() as shown:
        view.finish(AnswerResult(Answer("One text.", QUESTION, "skeleton", expansions=points, merged=True)))
    assert shown.get().strip() == f"{QUESTION}\n\nOne text."


def test_the_live_view_goes_on_with_a_merge_whose_reasoning_was_shown(screen):
    view, lines, _ = screen(80, 24)
    fill(view, 2)
    for event in (MergeStarted(), AnswerDelta("Let me merge. "), AnswerRestarted(ReasoningShown("so"))):
        view.show(event)
    view.show(AnswerDelta("One text "))
    assert "One text " in lines()
    assert not any("Let me merge" in line for line in lines())


def test_the_live_view_drops_points_of_the_reasoning(screen):
    view, lines, _ = screen(80, 24)
    thought, point = Point(1, "Talk about light"), Point(1, "Dark room")
    view.show(PointFound(thought))
    view.show(PointStarted(thought))
    view.show(PointDelta(thought, "Light is bright."))
    assert any("Talk about light" in line for line in lines())
    view.show(SkeletonRestarted(Skeleton((thought,))))
    view.show(PointFound(point))
    assert not any("light" in line for line in lines())
    assert any("writing the skeleton" in line for line in lines())
    view.show(PointStarted(point))
    view.show(PointDelta(point, "Let me think."))
    view.show(PointRestarted(point, ReasoningShown("so")))
    view.show(PointDelta(point, "It helps."))
    assert any("It helps." in line for line in lines())
    assert not any("Let me think" in line for line in lines())


@pytest.mark.parametrize("join", ["numbered", "headings", "paragraphs"])
def test_the_live_view_prints_the_text_of_the_answer(screen, join):
    _, _, console = screen(80, 24)
    points = (Expansion(Point(1, "Sleep"), "Long."), Expansion(Point(2, "Eat")), Expansion(Point(3, "Walk"), "Far."))
    with console.capture() as shown:
        LiveView(QUESTION, console, join=join).finish(
            AnswerResult(Answer(render(points, join), QUESTION, "skeleton", expansions=points))
        )
    assert shown.get().strip() == f"{QUESTION}\n\n{render(points, join)}"


# --- small models ---


class Looping(Script):
    """Repeats itself in direct answers."""

    def text(self, call):
        return scripted.SENTENCE * 60 if call.stage == "direct" else super().text(call)

    def backend(self):
        return dataclasses.replace(super().backend(), stop_loops=True, remark="a tiny model")


def test_the_command_ends_and_reports_a_local_models_loop(capsys):
    _, out, err = ask(Looping(skeleton="No list."), "--plain", capsys=capsys)
    assert out.strip() == (scripted.SENTENCE * 2).strip()
    assert "sot: the model repeated itself, so its answer was ended" in err.splitlines()


def test_the_command_ends_and_reports_a_points_loop(capsys):
    _, out, err = ask(Looping(sentences=9), "--plain", capsys=capsys)
    assert out.count(scripted.SENTENCE.strip()) == 2 * len(scripted.TITLES)
    reported = [line for line in err.splitlines() if line.endswith("repeated itself, so it was ended")]
    assert [line.split()[2] for line in reported] == ["1", "2", "3", "4", "5"]


def test_json_has_the_finish_reason(capsys):
    _, out, _ = ask(Looping(skeleton="No list."), "--json", capsys=capsys)
    assert json.loads(out)["finish_reason"] == "loop"


def test_answers_of_a_server_are_not_cut(capsys):
    _, out, err = ask(Script(skeleton="No list.", sentences=12), "--plain", capsys=capsys)
    assert out.count(scripted.SENTENCE.strip()) == 12 * len(scripted.TITLES)
    assert "repeated itself" not in err


def test_the_remark_on_a_model_stands_beside_its_answer(capsys):
    _, out, err = ask(Looping(), "--plain", "--stats", capsys=capsys)
    assert err.splitlines().count("a tiny model") == 1
    assert "a tiny model" not in out
    assert "a tiny model" not in ask(Script(), "--plain", "--stats", capsys=capsys)[2]
    assert "a tiny model" not in ask(Looping(), "--plain", "--quiet", capsys=capsys)[2]


@pytest.mark.parametrize(("name", "remarks"), [("demo", 1), ("some/model", 0)])
def test_the_demo_model_has_a_remark_on_its_size(name, remarks):
    class Engine:
        takes_prefill = True

        def close(self):
            """Nothing is open."""

        def checkpoint(self):
            return self.close

        def stats(self):
            return SimpleNamespace(reason="")

    backend = local_backend(Engine(), name=name)
    assert backend.stop_loops
    remark = "a tiny model (135M): its speed is the point, not what it says"
    assert (backend.remark == remark) == bool(remarks)
