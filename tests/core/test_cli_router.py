"""`sot ask` with its router: what is asked of the model, and what the user sees of a direct answer."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import scripted_cli as scripted
from terminals import Terminal, live_view

from skeleton_of_thought import cli, drive
from skeleton_of_thought._cli.views import Outcome
from skeleton_of_thought.cli import main
from skeleton_of_thought.events import AnswerDelta, Routed
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.types import Answer, RouteDecision

Script = scripted.Script

DIRECT = "What is 17 * 4?"
POINTS = "What are the benefits of drinking tea?"
REASON = "gate (arithmetic): something to be calculated"
WHY = f"answered directly: {REASON} (--no-router for a skeleton)"


class Says(Script):
    """Says one thing whatever it is asked, in these pieces."""

    def __init__(self, *pieces, **settings):
        super().__init__(**settings)
        self.said = "".join(pieces)

    def text(self, call):
        return self.said


def ask(script, *arguments, capsys):
    code = main(["ask", *arguments], backend=script.backend())
    out, err = capsys.readouterr()
    assert script.closed
    assert script.open == 0
    return code, out, err


def stages(script):
    return [call.stage for call in script.calls]


# --- the route ---


def test_the_router_is_the_default(capsys):
    direct, points = Script(), Script()
    ask(direct, DIRECT, "--json", capsys=capsys)
    ask(points, POINTS, "--json", capsys=capsys)
    assert stages(direct) == ["direct"]
    assert stages(points) == ["skeleton", *["point"] * 5]


def test_a_direct_answer_asks_the_model_what_the_user_asked_and_nothing_else(capsys):
    script = Script()
    ask(script, DIRECT, "--json", "--system", "Be brief.", capsys=capsys)
    (call,) = script.calls
    assert [(m.role, m.text) for m in call.prompt.messages] == [("system", "Be brief."), ("user", DIRECT)]
    assert (call.prompt.prefill, call.prompt.hints.stop, call.prompt.hints.max_tokens) == ("", (), None)


@pytest.mark.parametrize("options", [("--no-router",), ("--compare",)])
def test_without_a_router_every_question_gets_a_skeleton(options, capsys):
    script = Script()
    code, out, _ = ask(script, DIRECT, "--json", *options, capsys=capsys)
    answer = json.loads(out)
    assert (code, answer["route"], answer["decision"]) == (0, "skeleton", None)
    assert len(answer["expansions"]) == 5


def test_sot_compare_has_no_router(capsys):
    script = Script()
    assert main(["compare", DIRECT, "--json"], backend=script.backend()) == 0
    assert json.loads(capsys.readouterr().out)["decision"] is None
    assert "skeleton" in stages(script)


def test_the_threshold_decides_what_no_rule_has_decided(capsys):
    """As in `sot route`: the gate stands before it."""
    routes = {}
    for question in (DIRECT, POINTS):
        for threshold in ("0", "1"):
            _, out, _ = ask(Script(), question, "--json", "--threshold", threshold, capsys=capsys)
            routes[question, threshold] = json.loads(out)["route"]
    assert [routes[DIRECT, "0"], routes[DIRECT, "1"]] == ["direct", "direct"]
    assert [routes[POINTS, "0"], routes[POINTS, "1"]] == ["skeleton", "direct"]


def test_with_room_for_one_call_points_would_only_wait(capsys):
    script = Script()
    _, out, err = ask(script, POINTS, "--plain", "--stats", "--max-concurrency", "1", capsys=capsys)
    assert stages(script) == ["direct"]
    assert "cost guard: there is room for one call at a time, points would wait (--no-router" in err
    assert out.startswith("This helps")
    forced = Script()
    ask(forced, POINTS, "--plain", "--max-concurrency", "1", "--no-router", capsys=capsys)
    assert stages(forced) == ["skeleton", *["point"] * 5]
    two = Script()
    ask(two, POINTS, "--plain", "--max-concurrency", "2", capsys=capsys)
    assert stages(two) == ["skeleton", *["point"] * 5]


class Narrow(Script):
    """A backend that can serve so many calls at a time."""

    def __init__(self, capacity):
        super().__init__()
        self.capacity = capacity

    def backend(self):
        return dataclasses.replace(super().backend(), capacity=self.capacity)


@pytest.mark.parametrize(("capacity", "option", "room"), [(1, "4", 1), (2, "4", 2), (4, "2", 2), (3, None, 3)])
def test_a_backends_own_capacity_counts_beside_the_option(capacity, option, room, monkeypatch, capsys):
    limits = []

    def noting(flows, open_call, *, max_concurrency):
        limits.append(max_concurrency)
        return drive.run(flows, open_call, max_concurrency=max_concurrency)

    monkeypatch.setattr(cli, "run", noting)
    routed, forced = Narrow(capacity), Narrow(capacity)
    limit = () if option is None else ("--max-concurrency", option)
    ask(routed, POINTS, "--json", *limit, capsys=capsys)
    ask(forced, POINTS, "--json", "--no-router", *limit, capsys=capsys)
    assert stages(routed)[0] == ("direct" if room == 1 else "skeleton")
    assert stages(forced)[0] == "skeleton"
    assert limits == [room, room]


def test_a_router_that_fails_costs_no_answer_and_is_told(monkeypatch, capsys):
    def fail(self, conversation):
        raise OSError("weights\nare gone")

    monkeypatch.setattr(EmbeddedRouter, "at_once", fail)
    script = Script()
    code, _, err = ask(script, POINTS, "--plain", capsys=capsys)
    assert (code, stages(script)) == (0, ["direct"])
    assert err == "sot: the router failed: OSError: weights are gone; the model answered directly\n"


# --- what the user sees ---


@pytest.mark.parametrize(
    "text", ["  68.\n\n- That is it: `17 * 4`.", "68\n", "ä 早 \x1b[1mbold\x1b[0m \t x", "\n\n68 \r\n"]
)
def test_plain_output_is_the_models_text_byte_for_byte(text, capsys):
    """With the line ended, as every text in a pipe is."""
    whole = (text if text.endswith("\n") else text + "\n").encode()
    _, out, err = ask(Says(text), DIRECT, "--plain", capsys=capsys)
    assert (out.encode(), err) == (whole, "")
    _, out, err = ask(Says(text), DIRECT, "--plain", "--stats", capsys=capsys)
    assert out.encode() == whole
    figures, why, times, *_ = err.splitlines()
    assert figures.startswith(f"answered directly ({REASON}), ")
    assert why == WHY
    assert times.startswith("time: ")
    assert "skeleton" not in "".join(err.splitlines()[2:])


def test_json_has_the_route_and_the_decision_and_leaves_stderr_alone(capsys):
    code, out, err = ask(Says("68."), DIRECT, "--json", capsys=capsys)
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert (answer["text"], answer["route"]) == ("68.", "direct")
    assert answer["reason"] == "gate (arithmetic): something to be calculated"
    assert answer["decision"] == {
        "use_skeleton": False,
        "score": 0.0,
        "reason": answer["reason"],
        "usage": None,
    }
    assert (answer["skeleton"], answer["expansions"]) == ([], [])


def test_json_of_a_skeleton_has_the_decision_too(capsys):
    _, out, _ = ask(Script(), POINTS, "--json", capsys=capsys)
    decision = json.loads(out)["decision"]
    assert decision["use_skeleton"] is True
    assert 0 < decision["score"] < 1


def test_json_lines_begin_with_the_decision(capsys):
    _, out, _ = ask(Says("The ", "answer ", "is 68."), DIRECT, "--json", "--stream", capsys=capsys)
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["event"] for e in events] == ["Routed", *["AnswerDelta"] * 4, "AnswerDone"]
    assert events[0]["decision"] == events[-1]["answer"]["decision"]
    assert "".join(e["text"] for e in events if e["event"] == "AnswerDelta") == events[-1]["answer"]["text"]
    _, out, _ = ask(Script(), POINTS, "--json", "--stream", capsys=capsys)
    assert json.loads(out.splitlines()[0])["decision"]["use_skeleton"] is True


def test_of_a_skeleton_that_is_used_nothing_more_is_said(capsys):
    _, _, routed = ask(Script(), POINTS, "--plain", "--stats", capsys=capsys)
    assert "router" not in routed
    assert "directly" not in routed


def test_a_skeleton_that_came_to_nothing_has_no_hint_at_the_router(capsys):
    script = Script(skeleton="No list.")
    _, _, err = ask(script, POINTS, "--plain", "--stats", capsys=capsys)
    assert stages(script) == ["skeleton", "direct"]
    assert err.splitlines()[1] == "answered directly: the skeleton had 0 usable point(s)"
    assert "router" not in err


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output a terminal, and returns that; in the test itself, for pytest has its own before."""

    def make():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        return terminal

    return make


def test_the_live_view_ends_with_the_answer_and_one_dim_line_of_why(terminal):
    screen = terminal()
    assert main(["ask", DIRECT], backend=Says("It is 68.").backend()) == 0
    after = screen.getvalue().split("\x1b[?1049l")[1]
    lines = [line.rstrip() for line in after.splitlines()]
    assert lines.count("It is 68.") == 1
    (why,) = (line for line in lines if "answered directly" in line)
    assert why.startswith("\x1b[2m")
    assert f"answered directly ({REASON})" in why
    assert "--no-router" in why


@pytest.fixture
def view():
    """A live view on a terminal of rich's own making, and a function that renders it."""

    def make(width=100):
        return live_view(DIRECT, width, 20)

    return make


def test_the_live_view_tells_of_the_direct_way_before_there_is_text(view):
    shown, lines, _ = view()
    assert "writing the skeleton" in lines()[1]
    shown.show(Routed(RouteDecision(False, 0.0, "gate (x):\n \x1b[2Jit is so")))
    assert lines()[1].startswith("answering directly: gate (x): [2Jit is so - ")
    shown.show(AnswerDelta("It is 68."))
    assert lines()[1].startswith("answering directly: gate (x)")
    assert any("It is 68." in line for line in lines())
    shown.note("one normal call, turn 2 of 2")
    shown.show_normal("Again.")
    assert lines()[1].startswith("one normal call, turn 2 of 2 - ")
    assert lines()[1].endswith(" s")


@pytest.mark.parametrize("width", [10, 20, 40])
def test_the_reason_does_not_outgrow_the_terminal(view, width):
    shown, lines, _ = view(width)
    shown.show(Routed(RouteDecision(False, 0.0, "a reason of very many words " * 9)))
    assert max(map(len, lines())) <= width


def test_the_live_view_says_nothing_of_a_decision_for_a_skeleton(view):
    shown, lines, _ = view()
    shown.show(Routed(RouteDecision(True, 0.9, "independent points")))
    assert "writing the skeleton" in lines()[1]
    assert "independent" not in lines()[1]


def test_the_live_view_shows_what_there_was_when_it_is_interrupted(view):
    shown, _, console = view()
    with console.capture() as captured:
        shown.interrupt(Answer("It is", DIRECT, "direct"))
    assert captured.get().strip() == f"{DIRECT}\n\nIt is"


# --- errors ---


def breaks(call):
    return ConnectionError("line\ncut")


def test_a_direct_answer_that_breaks_leaves_what_there_is_then_the_error(capsys):
    code, out, err = ask(Says("It is", " 17", " times", " 4.", fail=breaks), DIRECT, "--plain", capsys=capsys)
    assert code == 1
    assert out == "It is\n"
    assert err == "sot: error: line cut\n"


def test_in_json_the_error_is_beside_the_partial_answer(capsys):
    code, out, err = ask(Says("It is 17 times 4.", fail=breaks), DIRECT, "--json", capsys=capsys)
    answer = json.loads(out)
    assert (code, answer["text"], answer["route"]) == (1, "It is", "direct")
    assert answer["error"] == {"type": "ConnectionError", "message": "line\ncut"}
    assert err == "sot: error: line cut\n"
    code, out, _ = ask(Says("It is 17 times 4.", fail=breaks), DIRECT, "--json", "--stream", capsys=capsys)
    last = json.loads(out.splitlines()[-1])
    assert (code, last["event"], last["answer"]["text"]) == (1, "AnswerFailed", "It is")


def test_the_live_view_keeps_a_direct_answer_that_broke(terminal, capsys):
    screen = terminal()
    assert main(["ask", DIRECT], backend=Says("It is 17 times 4.", fail=breaks).backend()) == 1
    after = screen.getvalue().split("\x1b[?1049l")[1]
    assert "It is" in after
    assert capsys.readouterr().err == "sot: error: line cut\n"


def test_a_finish_prints_nothing_where_nothing_was_written(view):
    shown, _, console = view()
    with console.capture() as captured:
        shown.finish(Outcome(None, ConnectionError("gone")))
    assert captured.get() == ""


class Impatient(Script):
    """Interrupts the command as soon as anything is asked."""

    def backend(self):
        return dataclasses.replace(super().backend(), open_call=self._interrupted)

    def _interrupted(self, call, index):
        raise KeyboardInterrupt


@pytest.mark.parametrize("view", ["--plain", "--json"])
@pytest.mark.parametrize("question", [DIRECT, POINTS])
def test_an_interrupt_ends_either_way_alike(question, view, capsys):
    code, out, err = ask(Impatient(), question, view, capsys=capsys)
    assert (code, out, err) == (130, "", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["ask", "q", "--threshold", "1.5"], "from 0 to 1"),
        (["ask", "q", "--threshold", "x"], "a number of at least 0"),
        (["ask", "q", "--threshold", "0.5", "--no-router"], "not allowed with"),
        (["ask", "q", "--threshold", "0.5", "--compare"], "--threshold goes without --compare"),
        (["compare", "q", "--threshold", "0.5"], "unrecognized arguments: --threshold"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, words, capsys):
    script = Script()
    assert main(argv, backend=script.backend()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert script.calls == []


# --- what is loaded ---


def test_the_router_is_loaded_only_where_it_is_used():
    code = (
        "import sys\nfrom skeleton_of_thought.cli import main\nmain(['ask', '--help'])\n"
        "main(['ask', 'q', '--no-router', '--model', './nowhere'])\nmain(['ask', 'q', '--model', './nowhere'])\n"
        "names = ['auto', 'gate', 'embedded', 'cost', 'question']\n"
        "print([name for name in names if 'skeleton_of_thought.routers.' + name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
