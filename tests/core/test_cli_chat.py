"""`sot chat` as a process on a terminal, and with piped input."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scripted_cli
from pty_process import CTRL_C, CTRL_D, PtyProcess
from terminals import Terminal

from skeleton_of_thought import cli
from skeleton_of_thought._cli.typewriter import Typewriter
from skeleton_of_thought.errors import PromptTooLong
from skeleton_of_thought.events import AnswerDelta, AnswerRestarted

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
HELD, AT_ONCE = "held", "0"
FIRST = "How can I sleep better?"


def chatting(delay=AT_ONCE, *options):
    return PtyProcess([sys.executable, scripted_cli.__file__, delay, "chat", "--no-router", *options], ENV)


# --- on a terminal ---


def test_questions_are_answered_until_ctrl_d():
    with chatting() as chat:
        assert "Ctrl-D" in chat.until("> ")
        chat.type(f"{FIRST}\n")
        answer = chat.until("(5 points")
        assert "1. Keep a schedule" in answer
        chat.until("> ")
        chat.type("And then?\n")
        chat.until("(5 points")
        chat.until("> ")
        chat.type(CTRL_D)
        chat.rest()
        assert chat.code() == 0


@pytest.mark.parametrize("configured", [True, False])
def test_a_quiet_chat_writes_only_the_answers(tmp_path, monkeypatch, configured):
    config = tmp_path / "config.toml"
    config.write_text(f"quiet = {str(configured).lower()}\n")
    monkeypatch.setitem(ENV, "SOT_CONFIG", str(config))
    with chatting(AT_ONCE, *([] if configured else ["-q"])) as chat:
        chat.until("> ")
        chat.type(f"{FIRST}\n")
        chat.until("> ")
        chat.type("/help\n")
        chat.until("/retry")
        # Only at the prompt is Ctrl-D a key of the line: typed before, the terminal drops it.
        chat.until("> ")
        chat.type(CTRL_D)
        chat.rest()
        assert chat.code() == 0
    assert "1. Keep a schedule" in chat.shown
    assert not any(word in chat.shown for word in ("Model:", "listing", "(5 points"))


@pytest.mark.parametrize("words", ["/exit\n", "/quit\n", CTRL_C, CTRL_D])
def test_the_chat_ends_at_the_prompt(words):
    with chatting() as chat:
        chat.until("> ")
        chat.type(words)
        chat.rest()
        assert chat.code() == 0
        assert "Traceback" not in chat.shown


def test_ctrl_c_stops_the_answer_and_not_the_chat():
    with chatting(HELD) as chat:
        chat.until("> ")
        for _ in range(3):
            chat.type(f"{FIRST}\n")
            chat.until("because")
            chat.type(CTRL_C)
            chat.until("(stopped)")
            chat.until("> ")
        chat.type(CTRL_D)
        chat.rest()
        assert chat.code() == 0
        assert "Traceback" not in chat.shown


def test_ctrl_c_before_the_first_text_stops_the_answer():
    with chatting("3600") as chat:
        chat.until("> ")
        chat.type(f"{FIRST}\n")
        chat.until("thinking")
        chat.type(CTRL_C)
        chat.until("(stopped)")
        chat.until("> ")
        chat.type("/exit\n")
        chat.rest()
        assert chat.code() == 0


def test_ctrl_c_while_typing_drops_the_line():
    pytest.importorskip("readline")
    with chatting() as chat:
        chat.until("> ")
        chat.type("never mind")
        chat.until("never mind")
        chat.type(CTRL_C)
        chat.until("> ")
        chat.type("/help\n")
        assert "/new" in chat.until("/exit")
        chat.until("> ")
        chat.type(CTRL_C)
        chat.rest()
        assert chat.code() == 0


def test_words_are_not_broken_at_the_edge_of_the_terminal():
    with chatting() as chat:
        chat.until("> ")
        chat.type(f"{FIRST}\n")
        lines = chat.until("(5 points").replace("\r", "").split("\x1b[K")[-1].splitlines()
    words = set(f"{scripted_cli.SENTENCE} {' '.join(scripted_cli.TITLES)}".split())
    assert all(len(line) <= 80 for line in lines)
    written = {word.rstrip(":") for line in lines[:-1] for word in line.split() if not word[0].isdigit()}
    assert written <= words


# --- piped ---


@pytest.fixture
def say(monkeypatch, capsys):
    """Runs a chat with lines as standard input; returns its code, output and errors."""

    def run(script, *lines, options=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = cli.main(["chat", *options], backend=script.backend())
        out, err = capsys.readouterr()
        return code, out, err

    return run


def asked(script):
    return [[message.text for message in call.prompt.messages] for call in script.calls]


def test_each_line_is_a_turn_and_only_answers_are_written(say):
    script = scripted_cli.Script(sentences=1)
    code, out, err = say(script, FIRST, "", "Why?", options=["--no-router"])
    assert (code, err) == (0, "")
    first, second = out.split("\n\n1. Keep a schedule")
    assert first.startswith("1. Keep a schedule: This helps")
    assert second.endswith("habit. \n") or second.endswith("habit.\n")
    assert script.closed


def test_a_question_sees_the_questions_and_answers_before_it_and_no_prompt(say):
    script = scripted_cli.Script(sentences=1)
    say(script, FIRST, "Why?", options=["--no-router", "--system", "Be brief."])
    skeletons = [call for call in script.calls if call.stage == "skeleton"]
    system, question, answer, asks = skeletons[1].prompt.messages
    assert (system.role, system.text) == ("system", "Be brief.")
    assert (question.role, question.text) == ("user", FIRST)
    assert answer.role == "assistant"
    assert answer.text.startswith("1. Keep a schedule: This helps")
    assert "5. Put screens away" in answer.text
    assert asks.text.startswith("Why?")


def test_the_router_decides_for_every_question(say):
    script = scripted_cli.Script()
    assert say(script, "What is 17 * 4?", "What are good ways to save money on food?")[0] == 0
    assert [call.stage for call in script.calls][:2] == ["direct", "skeleton"]


def test_new_forgets_the_conversation_and_keeps_the_system_message(say):
    script = scripted_cli.Script()
    say(script, FIRST, "/new", "Why?", options=["--no-router", "--system", "Be brief."])
    last = [call for call in script.calls if call.stage == "skeleton"][-1]
    assert [message.role for message in last.prompt.messages] == ["system", "user"]


def test_retry_replaces_the_last_answer(say):
    script = scripted_cli.Script()
    say(script, FIRST, "/retry", options=["--no-router"])
    first, again = (call for call in script.calls if call.stage == "skeleton")
    assert first.prompt.messages == again.prompt.messages


def test_the_system_message_can_be_set_and_removed(say):
    script = scripted_cli.Script()
    say(script, "/system Answer in French.", FIRST, "/new", "/system -", "Why?", options=["--no-router"])
    first, last = (call for call in script.calls if call.stage == "skeleton")
    assert first.prompt.messages[0].text == "Answer in French."
    assert last.prompt.messages[0].role == "user"


def test_save_writes_the_conversation(say, tmp_path):
    file = tmp_path / "chat.md"
    code, _, err = say(scripted_cli.Script(sentences=1), FIRST, f"/save {file}", options=["--no-router"])
    assert (code, err) == (0, "")
    assert file.read_text().startswith(f"## {FIRST}\n\n1. Keep a schedule")
    code, _, err = say(scripted_cli.Script(), f"/save {tmp_path / 'no' / 'file'}")
    assert code == 1
    assert "there is no directory" in err


def test_a_failed_answer_does_not_end_the_chat_and_is_not_kept(say):
    failing = lambda call: ConnectionError("line\ncut") if call.prompt.messages[-1].text.startswith("One") else None  # noqa: E731
    script = scripted_cli.Script(fail=failing)
    code, out, err = say(script, "One?", "Two?", options=["--no-router", "--retries", "0"])
    assert code == 1
    assert err == "sot: error: line cut\n"
    assert "Put screens away" in out
    assert [message.text for message in script.calls[-6].prompt.messages if message.text == "One?"] == []


def test_failed_parts_of_an_answer_are_reported(say):
    second = lambda call: ConnectionError("cut") if call.point is not None and call.point.index == 2 else None  # noqa: E731
    options = ["--no-router", "--retries", "0", "--on-point-error", "placeholder"]
    code, out, err = say(scripted_cli.Script(fail=second), FIRST, options=options)
    assert (code, err) == (0, "sot: point 2 failed: cut\n")
    assert "5. Put screens away" in out
    merge = lambda call: ConnectionError("cut") if call.stage == "merge" else None  # noqa: E731
    code, out, err = say(scripted_cli.Script(fail=merge), FIRST, options=["--no-router", "--retries", "0", "--merge"])
    assert (code, err) == (0, "sot: merge failed, so the points stand as they are: cut\n")
    assert "5. Put screens away" in out


class Looping(scripted_cli.Script):
    """A small model that repeats itself in direct answers."""

    def text(self, call):
        return scripted_cli.SENTENCE * 60 if call.stage == "direct" else super().text(call)

    def backend(self):
        return dataclasses.replace(super().backend(), stop_loops=True, notice=lambda: "it has a state")


def test_a_small_models_loop_is_ended_and_reported(say):
    code, out, err = say(Looping(skeleton="No list."), FIRST, options=["--no-router"])
    assert code == 0
    assert out.strip() == (scripted_cli.SENTENCE * 2).strip()
    assert err.splitlines() == [
        "sot: this model's rows are not decoded in one batch: it has a state",
        "sot: the model repeated itself, so its answer was ended",
    ]


def test_the_error_of_a_conversation_that_is_too_long_says_what_helps(say):
    too_long = lambda call: PromptTooLong("too long; lower max_new_tokens") if len(call.prompt.messages) > 1 else None  # noqa: E731
    code, _, err = say(scripted_cli.Script(fail=too_long), FIRST, "Why?", options=["--no-router", "--retries", "0"])
    assert code == 1
    assert "--max-tokens" in err
    assert "/new forgets the conversation" in err


def test_an_unknown_command_is_not_sent_to_the_model_but_a_path_is(say):
    script = scripted_cli.Script()
    code, _, err = say(script, "/nwe")
    assert (code, script.calls) == (1, [])
    assert "/help" in err
    assert say(script, "/etc/hosts is what?", options=["--no-router"])[0] == 0
    assert script.calls


def test_ctrl_c_ends_a_chat_without_a_terminal(say):
    class Impatient(scripted_cli.Script):
        def backend(self):
            return dataclasses.replace(super().backend(), open_call=self._interrupted)

        def _interrupted(self, call, index):
            raise KeyboardInterrupt

    script = Impatient()
    assert say(script, FIRST)[0] == 130
    assert script.closed


def test_a_chat_can_be_piped():
    command = [sys.executable, scripted_cli.__file__, AT_ONCE, "chat", "--no-router"]
    lines = b"One?\nTwo?\n/exit\nThree?\n"
    done = subprocess.run(command, env=ENV, input=lines, capture_output=True, check=True, timeout=120)
    assert done.stderr == b""
    assert done.stdout.count(b"1. Keep a schedule") == 2
    assert b"\x1b" not in done.stdout


# --- the typewriter ---


@pytest.fixture
def typed(monkeypatch):
    """Feeds events to a typewriter on a terminal of 20 columns; returns the screen and the kept text."""

    def write(*events):
        monkeypatch.setenv("COLUMNS", "20")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys, "stdout", screen := Terminal())
        with Typewriter() as writer:
            for event in events:
                writer.show(event)
        return screen.getvalue(), writer.text

    return write


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["One two three four ", "five six"], ["One two three four", "five six"]),
        (["un", "break", "able ", "words ", "stay"], ["unbreakable words", "stay"]),
        (["first\n\n", "  - indented"], ["first", "", "  - indented"]),
        (["x" * 25, " y"], ["x" * 25, "y"]),
        (["月が光る 月が光る 月が光る"], ["月が光る 月が光る", "月が光る"]),
        (["\x1b[31mred\x07"], ["red�"]),
        (["\x1b[3", "1mred ", "\x9b2J"], ["red �2J"]),
        ([], []),
    ],
)
def test_lines_end_between_words(typed, pieces, lines):
    shown, text = typed(*map(AnswerDelta, pieces))
    assert shown.splitlines() == lines
    assert text == "".join(pieces)


def test_the_text_after_a_restart_is_the_answer(typed):
    restart = (AnswerDelta("\n\n"), AnswerRestarted(ValueError("no")))
    shown, text = typed(AnswerDelta("Half a me"), *restart, AnswerDelta("1. The points"))
    assert shown.splitlines() == ["Half a me", "", "1. The points"]
    assert text == "1. The points"
