"""README as a newcomer follows it: its commands and Python, in order, from the wheel in an empty environment.

`make test-readme` builds the wheel and runs these tests. `INSTEAD` lists the commands that cannot run unchanged here,
with their replacements and the reasons.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DIST = os.environ.get("DIST", "")
needs_wheel = pytest.mark.skipif(not DIST, reason="needs the wheel that would be released: make test-readme")
PATIENCE = 1500
"""Seconds after which a command fails the test, so that the test does not hang."""


class Block(NamedTuple):
    """A block of README: its kind (`console` or `python`), the line at which it begins, and its text."""

    kind: str
    line: int
    text: str


def blocks() -> list[Block]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", readme, re.M | re.S)
    return [Block(m[1], readme.count("\n", 0, m.start()) + 1, m[2]) for m in found if m[1] != "text"]


INSTEAD = [
    (r"^git clone \S+ && cd \S+$", "", "no network; the wheel is installed instead of a clone"),
    (r'"\.(\[[\w,-]+\])"', r'"{wheel}\1"', "installs the wheel that would be released"),
    (r" --model Qwen/\S+", "", "no network to load a model: the demo model answers"),
    (r"http://127\.0\.0\.1:8000", "{server}", "a scripted server on a free port"),
    (r"^.* langchain:anthropic:\S+$", "", "needs an account"),
    (r"^sot chat$", 'echo "Name a colour." | sot chat', "a question from standard input"),
    (r"\| less$", "| cat", "no terminal for a pager"),
    (r"~/\.sot-completion", "completion", "the tests do not write to the home folder"),
]
"""Patterns in commands, their replacements (an empty command is skipped), and the reasons."""

AT_HAND = (r" --index-url https://download\.pytorch\.org/whl/cpu$", "", "pip finds torch without the index here")
"""A further replacement, for machines whose pip is configured to find torch (`find-links`)."""

SAYS = [
    (r"^sot ask .*--json", r'"text": "1\. Plan the lesson'),
    (r"^sot ask .*--compare", r"(?s)1\. .*\b2\. .*\d\.\d+x"),  # the ratio of the times
    (r"sot ask .*-o ", r"(?m)^1\. .*"),
    (r"^sot ask", r"(?m)^1\. "),
    (r"^sot route", r"direct"),
    (r"^sot chat", r"\w+"),
    (r"^sot config", r"model"),
]
"""Patterns of commands and of their output on either stream. The first pattern that fits a command counts."""

SILENT = r"^pip |.* > \S+$"
"""Commands that may print nothing: they install, or redirect their output."""


def check_printed(command: str, printed: str) -> None:
    """Checks that a command printed what `SAYS` expects of it."""
    if re.match(SILENT, command):
        return
    says = next((says for pattern, says in SAYS if re.search(pattern, command)), None)
    assert says is not None, f"add what {command!r} prints to SAYS, or let it be silent in SILENT"
    assert re.search(says, printed), f"$ {command}\n{printed}"


def commands(block: Block) -> list[str]:
    """The commands of a block, without comments."""
    lines = [line for line in block.text.splitlines() if line.startswith("$ ")]
    assert lines
    return [re.sub(r"\s+#.*$", "", line.removeprefix("$ ")) for line in lines]


class Handler(BaseHTTPRequestHandler):
    """A server of OpenAI's protocol, with scripted answers about planning a lesson."""

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"object": "list", "data": [{"id": "my-model", "object": "model"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = str(body["messages"])
        point = re.search(r"Plan the lesson|Ask the class", asked)
        text = "It helps everyone." if point else "1. Plan the lesson\n2. Ask the class\n"
        deltas = [({"content": text}, None), ({}, "stop")]
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
        more = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "my-model"}
        self._send(
            "text/event-stream", "".join(f"data: {json.dumps(more | c)}\n\n" for c in chunks) + "data: [DONE]\n\n"
        )

    def _send(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


NOTEBOOK = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    printed, failed = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), names)
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failed]), flush=True)
"""
"""Runs the code that it reads in one interpreter, as a notebook does: later blocks use variables of earlier ones."""


class Newcomer:
    """A new environment, an empty working folder, and one interpreter for all Python blocks."""

    def __init__(self, home: Path, server: str) -> None:
        self.home = home
        (home / "config.toml").touch()
        subprocess.run([sys.executable, "-m", "venv", str(home / "env")], check=True, timeout=PATIENCE)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "SOT_", "OPENAI_", "VIRTUAL_ENV")) and name != "COLUMNS"
        }
        self.env = kept | {
            "PATH": f"{home / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            # A newcomer has neither a converted model nor a configuration.
            "XDG_CACHE_HOME": str(home / "cache"),
            "SOT_CONFIG": str(home / "config.toml"),
            "PIP_CACHE_DIR": self._pip("cache", "dir"),
            "PIP_CONSTRAINT": str(ROOT / "tests" / "newest.txt"),
            # To compile all modules takes as long as their installation; Python compiles those that are imported.
            "PIP_COMPILE": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "1",
            "OPENAI_API_KEY": "none",
            "NO_PROXY": "127.0.0.1",
        }
        (wheel,) = Path(DIST).glob("*.whl")
        at_hand = [AT_HAND] if os.environ.get("PIP_FIND_LINKS") or "find-links" in self._pip("config", "list") else []
        self.instead = [
            (pattern, new.replace("{wheel}", str(wheel)).replace("{server}", server))
            for pattern, new, _ in [*INSTEAD, *at_hand]
        ]
        self._python: subprocess.Popen[str] | None = None

    def _pip(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def types(self, command: str) -> str | None:
        """Runs a command and returns what it printed; None if the command is skipped."""
        for pattern, new in self.instead:
            command = re.sub(pattern, new, command)
        if not command:
            return None
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        said = f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, said
        if not command.startswith("pip "):
            assert not re.search(r"Traceback|Warning", done.stderr), said
        return done.stdout + done.stderr

    def runs(self, code: str) -> str:
        """Runs Python in the interpreter of all earlier blocks, and returns what it printed."""
        if self._python is None:
            self._python = subprocess.Popen(
                [str(self.home / "env" / "bin" / "python"), "-c", NOTEBOOK],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(code) + "\n")
        self._python.stdin.flush()
        printed, failed = json.loads(self._python.stdout.readline())
        assert not failed, failed
        return str(printed)

    def leaves(self) -> None:
        if self._python is not None:
            self._python.communicate(timeout=PATIENCE)
            assert self._python.returncode == 0


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"), server)
    yield newcomer
    newcomer.leaves()


@pytest.mark.model
@needs_wheel
@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"line {block.line}")
def test_every_block_runs_in_order(newcomer: Newcomer, block: Block) -> None:
    if block.kind == "python":
        assert re.search(r"(?m)^1\. ", newcomer.runs(block.text))
        return
    assert block.kind == "console"
    for command in commands(block):
        if (printed := newcomer.types(command)) is not None:
            check_printed(command, printed)


@pytest.mark.model
@needs_wheel
def test_the_points_are_decoded_in_one_batch(newcomer: Newcomer) -> None:
    assert newcomer.runs("print(chain.llm.engine.parallel_rows > 1, chain.llm.engine.stats().peak_batch_size > 1)") == (
        "True True\n"
    )


TYPED = [command for block in blocks() if block.kind == "console" for command in commands(block)]


@needs_wheel
def test_the_wheel_has_every_file_of_the_packages() -> None:
    (wheel,) = Path(DIST).glob("*.whl")
    packages = [ROOT / name for name in ("skeleton_of_thought", "langchain_sot", "llama_index_sot")]
    files = {path.relative_to(ROOT).as_posix() for folder in packages for path in folder.rglob("*") if path.is_file()}
    wanted = {name for name in files if "/__pycache__/" not in name}
    assert {"skeleton_of_thought/serve/page/index.html", "skeleton_of_thought/py.typed"} <= wanted
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_every_replacement_is_needed() -> None:
    for pattern, _, reason in [*INSTEAD, AT_HAND]:
        assert any(re.search(pattern, command) for command in TYPED), f"README has no {pattern!r} any more ({reason})"


def test_a_silent_command_is_an_error_unless_it_installs_or_redirects() -> None:
    silent = [command for command in TYPED if re.match(SILENT, command)]
    assert any("> " in command for command in silent)
    assert all(command.startswith("pip ") or " > " in command for command in silent)
    for command in TYPED:
        if command in silent:
            check_printed(command, "")
        elif not re.match(r"git clone ", command):
            with pytest.raises(AssertionError):
                check_printed(command, "")
