"""What models, servers, files and names put into the command's output does not control the terminal."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler

import pytest
import scripted_cli
from quiet_server import QuietServer
from terminals import Terminal

from skeleton_of_thought import cli
from skeleton_of_thought._cli.models import _progress
from skeleton_of_thought._cli.streams import CommandStream
from skeleton_of_thought._cli.terminal_text import toml_text
from skeleton_of_thought.errors import ReplyError
from skeleton_of_thought.routers.embedded import EmbeddedRouter

EVIL = (
    "\x1b]52;c;aGk=\x07\x1b]0;TITLE\x1b\\\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\\x1b[77;7H\x1b[99m\x1bP+q\x1b\\\x1b_a\x1b\\"
    "\x1bc \x1b \x9b77;7H \x9d0;x\x9c \x7f\x00\x08\x85x \u202eabc\u202c \u2066d\u2069 \U000e0041\U000e0042 \ud800"
)
FORGED = "\rsot: all is well\nsot: error: forged\n"
HOSTILE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
OURS = re.compile(r"\x1b\[(?:\??\d+(?:;\d+)?[hlmAK]|[HK])")
"""The control sequences of rich and of the chat."""
SECRET = "hunter2"


def assert_harmless(shown):
    assert not HOSTILE.findall(OURS.sub("", shown))
    assert "\x1b[77" not in shown
    assert "\x1b[99" not in shown


class Evil(scripted_cli.Script):
    """A model whose skeleton, points and direct answers are hostile."""

    def __init__(self, **settings):
        super().__init__(skeleton=f"1. First {EVIL}\n2. Second\n", **settings)

    def text(self, call):
        return (
            self.skeleton if call.stage == "skeleton" else f"It {EVIL} helps{FORGED} \U0001f468\u200d\U0001f469 \u05d0."
        )


@pytest.fixture
def run(monkeypatch):
    """Runs the command on a terminal, or with pipes; returns the exit code, the output and the errors."""

    def run(*words, terminal=True, script=None, stdin=""):
        kind = Terminal if terminal else io.StringIO
        out, err = kind(), kind()
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        code = cli.main(words, backend=None if script is None else script.backend())
        assert (sys.stdout, sys.stderr) == (out, err)
        return code, out.getvalue(), err.getvalue()

    return run


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize(
    "words",
    [
        ["ask", "--no-router"],
        ["ask", "--no-router", "--plain", "--stats"],
        ["ask", "--no-router", "--join", "headings"],
        ["ask", "--no-router", "--merge"],
        ["ask", "What is 17 * 4?"],
        ["compare"],
    ],
    ids=" ".join,
)
def test_text_of_a_model_is_harmless_in_every_view(run, words, terminal):
    code, out, err = run(*words, f"Why {EVIL}?".replace("\ud800", ""), terminal=terminal, script=Evil())
    assert code == 0
    assert_harmless(out + err)
    assert "\U0001f468\u200d\U0001f469 \u05d0." in out
    assert "�]52;c;aGk=�" in out


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_chat_and_its_file_are_harmless(run, terminal, tmp_path):
    lines = f"Why {EVIL}?\n/retry\n/{EVIL}\n/save {tmp_path / 'chat.md'}\n/save {EVIL}/x\n".replace("\ud800", "")
    code, out, err = run("chat", "--no-router", terminal=terminal, script=Evil(), stdin=lines)
    assert code == 1
    assert_harmless(out + err)
    assert_harmless(saved := (tmp_path / "chat.md").read_text(encoding="utf-8"))
    assert "�]52;c;aGk=�" in saved


def test_the_file_of_the_answer_is_harmless_and_that_of_json_is_exact(run, tmp_path):
    text, data = tmp_path / "a.txt", tmp_path / "a.json"
    assert run("ask", "--no-router", "-o", str(text), "q", script=Evil())[0] == 0
    assert run("ask", "--no-router", "--json", "-o", str(data), "q", script=Evil())[0] == 0
    assert_harmless(shown := text.read_text(encoding="utf-8"))
    assert "�]52;c;aGk=�" in shown
    assert_harmless(document := data.read_text(encoding="utf-8"))
    assert (
        f"It {EVIL} helps{FORGED.rstrip()}".replace("\ud800", "\ufffd") in json.loads(document)["expansions"][1]["text"]
    )


@pytest.mark.parametrize("options", [[], ["--stream"]], ids=["object", "lines"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_escapes_what_is_harmful_and_stands_for_the_same_text(monkeypatch, options, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", stdout := io.TextIOWrapper(raw, encoding))
    fail = lambda call: ValueError(EVIL) if call.point is not None and call.point.index == 2 else None  # noqa: E731
    words = ["ask", "--no-router", "--json", *options, "--retries", "0", "--on-point-error", "placeholder", "q"]
    assert cli.main(words, backend=Evil(fail=fail).backend()) == 0
    stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert_harmless(shown)
    *events, last = map(json.loads, shown.splitlines())
    answer = last["answer"] if options else last
    first, second = answer["expansions"]
    assert f"It {EVIL} helps".replace("\ud800", "\ufffd") in first["text"]
    assert second["error"]["message"] == EVIL
    assert bool(events) == bool(options)


# --- errors ---


@pytest.fixture(scope="module")
def server():
    """A server whose every reply is a hostile error. The name of the model is the status and the form of the body."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.answer(404, b"")

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, _, form = asked["model"].partition("-")
            said = f"It {EVIL} broke{FORGED}; see http://me:{SECRET}@host/?api_key={SECRET}"
            body = json.dumps({"error": {"message": said}}, ensure_ascii=form == "escaped")
            if form == "text":
                body = said
            if form == "event":
                body = f"data: {body}\n\n"
            self.answer(int(status), body.encode("utf-8", "replace"), "text/event-stream" if form == "event" else None)

        def answer(self, status, body, kind=None):
            self.send_response(status)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    made = QuietServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://me:{SECRET}@127.0.0.1:{made.server_port}/v1"
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("400-escaped", ["ask", "--no-router"]),
        ("401-raw", ["ask", "--json"]),
        ("404-text", ["ask", "--no-router"]),
        ("422-raw", ["ask", "--json", "--stream"]),
        ("500-raw", ["ask"]),
        ("200-event", ["ask", "--json"]),
    ],
)
def test_an_error_of_a_server_is_one_harmless_line_without_secrets(run, server, words, model):
    options = ["-m", f"openai:{model}@{server}", "--prefill", "no", "--retries", "0"]
    code, out, err = run(*words, *options, "Why?", terminal=False)
    assert code == 1
    assert_harmless(out + err)
    assert err.startswith("sot: error: ")
    assert err.count("\n") == 1
    assert SECRET not in out + err
    assert "--json" not in words or json.loads(out.splitlines()[-1])["error"]


def test_an_error_of_a_server_is_harmless_in_a_chat(run, server):
    code, out, err = run("chat", "--no-router", "-m", f"openai:400-raw@{server}", "--prefill", "no", stdin="Why?\n")
    assert code == 1
    assert_harmless(out + err)
    assert err.count("\n") == 1
    assert SECRET not in out + err


@pytest.mark.parametrize("error", [ValueError, ReplyError])
@pytest.mark.parametrize(
    "command", [["ask", "--no-router"], ["ask", "--no-router", "--plain"], ["chat", "--no-router"]]
)
def test_lines_about_failed_points_and_merges_are_single_and_harmless(run, command, error):
    said = f"{EVIL}{FORGED} http://me:{SECRET}@host " + "x" * 9000
    fail = lambda call: error(said) if call.stage == "merge" or call.index == 2 else None  # noqa: E731
    options = ["--merge", "--retries", "0", "--on-point-error", "placeholder"]
    words = [*command, "--no-router", *options, *(["Why?"] if command[0] == "ask" else [])]
    _, out, err = run(*words, terminal=False, script=Evil(fail=fail), stdin="Why?\n")
    assert_harmless(out + err)
    lines = err.splitlines()
    assert any(line.startswith("sot: ") for line in lines)
    assert all(line.startswith("sot: ") and len(line) < 2100 for line in lines)
    assert not any(line.startswith("sot: error: forged") for line in lines)
    assert SECRET not in out + err


def test_the_reason_of_a_failed_router_is_harmless_and_has_no_password(run, monkeypatch):
    def fail(self, conversation):
        raise ValueError(f"{EVIL}{FORGED} http://me:{SECRET}@host")

    monkeypatch.setattr(EmbeddedRouter, "at_once", fail)
    for options in ([], ["--plain", "--stats"], ["--json"]):
        _, out, err = run("ask", *options, "How can I sleep better?", script=Evil())
        assert_harmless(out + err)
        assert SECRET not in out + err
        assert "the router failed" in err


@pytest.mark.parametrize(
    "words",
    [
        ["ask", f"--{EVIL}", "q"],
        [EVIL, "q"],
        ["ask", "-m", f"./{EVIL}.gguf", "q"],
        ["ask", "-m", f"openai:m@http://{EVIL}/", "q"],
        ["ask", "--words", EVIL, "q"],
        ["ask", "-o", f"{EVIL}/x", "q"],
        ["ask", "--prompts", EVIL, "q"],
        ["route", "--weights", EVIL, "q"],
        ["route", "--csv", EVIL],
        ["train-router", "--embedded", "--out", "x", "--data", EVIL],
    ],
)
def test_names_in_messages_are_harmless(run, words):
    code, out, err = run(*(word.replace("\ud800", "\n\udcff").replace("\x00", "") for word in words))
    assert (code, out) == (2, "")
    assert_harmless(err)
    assert err.count("\n") == 1


def test_the_configuration_is_shown_without_controls_and_passwords(run, monkeypatch, tmp_path):
    file = tmp_path / f"{EVIL[:-1]}.toml".replace("/", "").replace("\x00", "")
    file.write_text(f"system = {toml_text(json.dumps(EVIL[:-1], ensure_ascii=False))}\n")
    monkeypatch.setenv("SOT_CONFIG", str(file))
    monkeypatch.setenv("SOT_MODEL", f"openai:m@http://me:{SECRET}@host/v1?key={SECRET}")
    code, out, _ = run("config")
    assert code == 0
    assert_harmless(out)
    assert SECRET not in out
    assert "http://***@host/v1?key=***" in out


@pytest.mark.parametrize(
    "model",
    [
        f"openai:m@http://me:{SECRET}@127.0.0.1:1/v1",
        f"openai:m@http://127.0.0.1:1/v1?api_key={SECRET}",
        f"openai:m@http://me:{SECRET}#x@127.0.0.1:1/v1",
        f"openai:m@http://me:a/{SECRET}@127.0.0.1:1/v1",
        f"openai:m@http://me:{SECRET}@[::1/v1",
        f"openai:@http://me:{SECRET}@host/v1",
        f"openai:m@ftp://me:{SECRET}@host/v1",
        f"https://me:{SECRET}@host/v1",
        f"OpenAI:m@https://me:{SECRET}@host/v1",
        f"openai:m@me:{SECRET}@host:8000/v1",
        f"openai:m@//me:{SECRET}@host/v1",
        f"openai:m@http:me:{SECRET}@host/v1",
        f"openai:m@http:/me:{SECRET}@host/v1",
        f"openai:m@http://me:{SECRET} @host/v1",
    ],
)
def test_the_password_of_an_address_is_never_shown(run, model):
    code, out, err = run("ask", "-m", model, "--json", "--prefill", "no", "--retries", "0", "Why?", terminal=False)
    assert code in (1, 2)
    assert err.count("\n") == 1
    assert SECRET not in out + err


@pytest.mark.parametrize(
    "address",
    ["me:{}@host/v1", "//me:{}@host", "http:me:{}@host", "http:/me:{}@host/v1", "http://me:{} @host", "{}@host"],
)
def test_the_password_of_an_address_in_the_environment_is_never_shown(run, monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address.format(SECRET))
    code, out, err = run("ask", "-m", "openai:m", "--prefill", "no", "Why?", terminal=False)
    assert code == 2
    assert "***@host" in err
    assert SECRET not in out + err


# --- what others write ---


@pytest.mark.parametrize("options", [[], ["--plain"], ["--json"]])
def test_log_messages_and_warnings_are_harmless_and_survive_the_live_view(run, options):
    class Chatty(Evil):
        def text(self, call):
            # Without a parent: pytest-xdist cannot send a captured record that has a lone surrogate.
            other = logging.Logger("other")
            other.addHandler(logging.StreamHandler())
            other.warning("log %s http://me:%s@host", EVIL, SECRET)
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = _show_warning
                warnings.warn(f"warned {EVIL}", stacklevel=1)
            return super().text(call)

    _, out, err = run("ask", *options, "What is 17 * 4?", script=Chatty())
    assert_harmless(out + err)
    assert err.count("log �]52;c;aGk=�") == 1
    assert err.count("warned �]52;c;aGk=�") == 1
    assert SECRET not in err


def _show_warning(message, *_, **__):
    sys.stderr.write(f"{message}\n")  # pytest records warnings in place of Python's own function


def test_lines_of_others_wait_while_the_live_view_has_the_screen(monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")

    class Chatty(Evil):
        def text(self, call):
            print("from another package", file=sys.stderr)
            return super().text(call)

    assert cli.main(["ask", "What is 17 * 4?"], backend=Chatty().backend()) == 0
    during, after = screen.getvalue().split("\x1b[?1049l")
    assert "another package" not in during
    assert "another package" in after


def test_progress_bars_still_move_the_cursor():
    written = io.StringIO()
    stream = CommandStream(written, is_log=True)
    for text in ("\r 10%|#  |", "\n", "\x1b[A", "\r 90%|## | \x1b[A", "\x1b[A log"):
        stream.write(text)
    assert written.getvalue() == "\r 10%|#  |\n\x1b[A\r 90%|## | �[A�[A log"


def test_progress_while_a_model_loads_is_harmless(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with _progress(False) as report:
        report(f"Loading {EVIL} ...")
        print(f"warned {EVIL}", file=sys.stderr)
        report(f"Downloading {EVIL} ...")
        print("bar", file=sys.stderr)
    assert sys.stderr is screen
    assert_harmless(screen.getvalue())
    assert "warned �]52;c;aGk=�" in screen.getvalue()
