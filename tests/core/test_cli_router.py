"""`sot ask` with its router: the calls of the model, and the display of direct answers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import scripted_cli as scripted
from terminals import Terminal, live_view

from skeleton_of_thought import drive
from skeleton_of_thought._cli import backend
from skeleton_of_thought._cli.views import AnswerResult
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
    """Answers every call with the same pieces."""

    def __init__(self, *pieces, **settings):
        super().__init__(**settings)
        self.whole = "".join(pieces)

    def text(self, call):
        return self.whole


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


def test_a_direct_answer_sends_only_the_question(capsys):
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


def test_the_threshold_decides_if_no_rule_of_the_gate_does(capsys):
    """Like `sot route`, which asks the gate first."""
    routes = {}
    for question in (DIRECT, POINTS):
        for threshold in ("0", "1"):
            _, out, _ = ask(Script(), question, "--json", "--threshold", threshold, capsys=capsys)
            routes[question, threshold] = json.loads(out)["route"]
    assert [routes[DIRECT, "0"], routes[DIRECT, "1"]] == ["direct", "direct"]
    assert [routes[POINTS, "0"], routes[POINTS, "1"]] == ["skeleton", "direct"]


def test_one_call_at_a_time_means_a_direct_answer(capsys):
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
    """A backend that serves `capacity` calls at a time."""

    def __init__(self, capacity):
        super().__init__()
        self.capacity = capacity

    def backend(self):
        return dataclasses.replace(super().backend(), capacity=self.capacity)


@pytest.mark.parametrize(("capacity", "option", "room"), [(1, "4", 1), (2, "4", 2), (4, "2", 2), (3, None, 3)])
def test_the_smaller_of_capacity_and_option_is_the_limit(capacity, option, room, monkeypatch, capsys):
    limits = []

    def noting(flows, open_call, *, max_concurrency):
        limits.append(max_concurrency)
        return drive.run(flows, open_call, max_concurrency=max_concurrency)

    monkeypatch.setattr(backend, "run", noting)
    routed, forced = Narrow(capacity), Narrow(capacity)
    limit = () if option is None else ("--max-concurrency", option)
    ask(routed, POINTS, "--json", *limit, capsys=capsys)
    ask(forced, POINTS, "--json", "--no-router", *limit, capsys=capsys)
    assert stages(routed)[0] == ("direct" if room == 1 else "skeleton")
    assert stages(forced)[0] == "skeleton"
    assert limits == [room, room]


def test_a_failed_router_leads_to_a_direct_answer_and_is_reported(monkeypatch, capsys):
    def fail(self, conversation):
        raise OSError("weights\nare gone")

    monkeypatch.setattr(EmbeddedRouter, "at_once", fail)
    script = Script()
    code, _, err = ask(script, POINTS, "--plain", capsys=capsys)
    assert (code, stages(script)) == (0, ["direct"])
    assert err == "sot: the router failed: OSError: weights are gone; the model answered directly\n"


# --- output ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  68.\n\n- That is it: `17 * 4`.", "  68.\n\n- That is it: `17 * 4`.\n"),
        ("68\n", "68\n"),
        ("ä 早 👨\u200d👩 \t x", "ä 早 👨\u200d👩 \t x\n"),
        ("ä \x1b[1mbold\x1b[0m \x1b]0;x\x07", "ä bold �]0;x�\n"),
        ("\n\n68 \r\n", "\n\n68 \n"),
    ],
)
def test_plain_output_is_the_models_text_byte_for_byte(text, shown, capsys):
    """But for a newline at the end, and for what would control a terminal."""
    whole = shown.encode()
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


def test_json_of_a_skeleton_has_the_decision(capsys):
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


def test_a_decision_for_a_skeleton_is_not_reported(capsys):
    _, _, routed = ask(Script(), POINTS, "--plain", "--stats", capsys=capsys)
    assert "router" not in routed
    assert "directly" not in routed


def test_a_skeleton_without_points_has_no_hint_at_the_router(capsys):
    script = Script(skeleton="No list.")
    _, _, err = ask(script, POINTS, "--plain", "--stats", capsys=capsys)
    assert stages(script) == ["skeleton", "direct"]
    assert err.splitlines()[1] == "answered directly: the skeleton had 0 usable point(s)"
    assert "router" not in err


@pytest.fixture
def terminal(monkeypatch):
    """Replaces standard output by a terminal; called in the test, since pytest sets its own before that."""

    def make():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        return terminal

    return make


def test_the_live_view_ends_with_the_answer_and_the_reason_in_one_dim_line(terminal):
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
    """Makes a live view on one of rich's terminals, and a function that renders it."""

    def make(width=100):
        return live_view(DIRECT, width, 20)

    return make


def test_the_live_view_shows_a_direct_decision_before_the_first_text(view):
    shown, lines, _ = view()
    assert "writing the skeleton" in lines()[1]
    shown.show(Routed(RouteDecision(False, 0.0, "gate (x):\n \x1b[2Jit is so")))
    assert lines()[1].startswith("answering directly: gate (x): �[2Jit is so - ")
    shown.show(AnswerDelta("It is 68."))
    assert lines()[1].startswith("answering directly: gate (x)")
    assert any("It is 68." in line for line in lines())
    shown.note("one normal call, turn 2 of 2")
    shown.show_baseline("Again.")
    assert lines()[1].startswith("one normal call, turn 2 of 2 - ")
    assert lines()[1].endswith(" s")


@pytest.mark.parametrize("width", [10, 20, 40])
def test_the_reason_does_not_outgrow_the_terminal(view, width):
    shown, lines, _ = view(width)
    shown.show(Routed(RouteDecision(False, 0.0, "a reason of very many words " * 9)))
    assert max(map(len, lines())) <= width


def test_the_live_view_does_not_show_a_decision_for_a_skeleton(view):
    shown, lines, _ = view()
    shown.show(Routed(RouteDecision(True, 0.9, "independent points")))
    assert "writing the skeleton" in lines()[1]
    assert "independent" not in lines()[1]


def test_an_interrupted_live_view_prints_the_answer_so_far(view):
    shown, _, console = view()
    with console.capture() as captured:
        shown.interrupt(Answer("It is", DIRECT, "direct"))
    assert captured.get().strip() == f"{DIRECT}\n\nIt is"


# --- errors ---


def breaks(call):
    return ConnectionError("line\ncut")


def test_a_failed_direct_answer_leaves_its_text_then_the_error(capsys):
    code, out, err = ask(Says("It is", " 17", " times", " 4.", fail=breaks), DIRECT, "--plain", capsys=capsys)
    assert code == 1
    assert out == "It is\n"
    assert err == "sot: error: line cut\n"


def test_json_has_the_error_beside_the_partial_answer(capsys):
    code, out, err = ask(Says("It is 17 times 4.", fail=breaks), DIRECT, "--json", capsys=capsys)
    answer = json.loads(out)
    assert (code, answer["text"], answer["route"]) == (1, "It is", "direct")
    assert answer["error"] == {"type": "ConnectionError", "message": "line\ncut"}
    assert err == "sot: error: line cut\n"
    code, out, _ = ask(Says("It is 17 times 4.", fail=breaks), DIRECT, "--json", "--stream", capsys=capsys)
    last = json.loads(out.splitlines()[-1])
    assert (code, last["event"], last["answer"]["text"]) == (1, "AnswerFailed", "It is")


def test_the_live_view_keeps_a_failed_direct_answer(terminal, capsys):
    screen = terminal()
    assert main(["ask", DIRECT], backend=Says("It is 17 times 4.", fail=breaks).backend()) == 1
    after = screen.getvalue().split("\x1b[?1049l")[1]
    assert "It is" in after
    assert capsys.readouterr().err == "sot: error: line cut\n"


def test_without_text_the_live_view_prints_nothing(view):
    shown, _, console = view()
    with console.capture() as captured:
        shown.finish(AnswerResult(None, ConnectionError("gone")))
    assert captured.get() == ""


class Impatient(Script):
    """Interrupts the command at the first call."""

    def backend(self):
        return dataclasses.replace(super().backend(), open_call=self._interrupted)

    def _interrupted(self, call, index):
        raise KeyboardInterrupt


@pytest.mark.parametrize("view", ["--plain", "--json"])
@pytest.mark.parametrize("question", [DIRECT, POINTS])
def test_an_interrupt_ends_either_route_alike(question, view, capsys):
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


# --- imports ---


def test_the_router_is_imported_only_if_it_is_used():
    code = (
        "import sys\nfrom skeleton_of_thought.cli import main\nmain(['ask', '--help'])\n"
        "main(['ask', 'q', '--no-router', '--model', './nowhere'])\nmain(['ask', 'q', '--model', './nowhere'])\n"
        "names = ['auto', 'gate', 'embedded', 'cost', 'question']\n"
        "print([name for name in names if 'skeleton_of_thought.routers.' + name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
