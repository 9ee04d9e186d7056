"""The server as a process: its start, its stop, and what keeps it from starting."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.serve.listening import bind, is_loopback, url_of
from skeleton_of_thought.serve.running import check
from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings

PROGRAM = Path(__file__).parents[1] / "shared" / "scripted_server.py"
PATH = "/v1/chat/completions"
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.head: list[str] = []
        while not self.head or not self.head[-1].startswith("Page: "):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            self.head.append(line.rstrip())
        self.url = re.match(r"Listening on (\S+) ", self.head[0])[1]

    def end(self, *, release: bool = False) -> tuple[int, str]:
        """Waits for its end; returns its exit code and what it wrote to standard errors."""
        _, errors = self.process.communicate("\n" if release else None, timeout=30)
        return self.process.returncode, errors


def start(*words: str, **variables: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOT_", "OPENAI_"))}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"XDG_CONFIG_HOME": "/nowhere"} | variables,
    )


@contextlib.contextmanager
def running(*words: str, **variables: str) -> Iterator[Server]:
    process = start("--port", "0", *words, **variables)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def asked(server: Server) -> Iterator[Iterator[str]]:
    """The lines of a streamed answer that has begun."""
    with httpx.Client(timeout=30) as client, client.stream("POST", server.url + PATH, json={}) as response:
        lines = (line for line in response.iter_lines() if line)
        assert next(lines) == "data: 1"
        yield lines


def failed(*words: str, **variables: str) -> tuple[int, str]:
    process = start(*words, **variables)
    output, errors = process.communicate(timeout=30)
    assert output == ""
    return process.returncode, errors


# --- start and stop ---------------------------------------------------------------------------------


@posix
def test_a_server_says_where_it_listens_and_ends_at_a_signal():
    with running("-m", "a=openai:x", "-m", "openai:y", SOT_API_KEY="one, two") as server:
        port = int(server.url.rpartition(":")[2])
        assert server.url == f"http://127.0.0.1:{port}"
        assert port > 0
        assert server.head[1] == "Models: a, a-sot, y, y-sot"
        command = server.head[2].removeprefix("Try: ")
        assert command.startswith(f"curl {server.url}/v1/chat/completions -H 'Authorization: Bearer KEY'")
        assert json.loads(command.partition(" -d ")[2].strip("'"))["model"] == "a-sot"
        assert httpx.get(server.url + "/health").json() == {"status": "ok"}
        assert httpx.post(server.url + PATH).status_code == 401
        key = {"Authorization": "Bearer two"}
        # The client sends all of it before it reads, and sees the error all the same.
        assert httpx.post(server.url + PATH, headers=key, content=b"x" * 5_000_000).status_code == 413
        with httpx.Client() as idle:  # a connection without a request does not hold the stop up
            idle.get(server.url + "/health")
            server.process.send_signal(signal.SIGTERM)
            code, errors = server.end()
    assert code == 0
    assert "sot: loading a ...\n" in errors
    assert re.search(r"^\S+ POST /v1/chat/completions 401 ", errors, re.M)
    assert errors.endswith("sot: stopping\nclosed a\nclosed y\n")
    assert "one" not in errors
    assert "Traceback" not in errors


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_open_answers_end_and_new_requests_get_503(number):
    with running() as server, asked(server) as lines:
        server.process.send_signal(number)
        until_stopping(server)
        refused = httpx.post(server.url + PATH, json={})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_stopping"
        assert refused.headers["connection"] == "close"
        server.process.stdin.write("\n")
        server.process.stdin.flush()
        assert list(lines) == ["data: [DONE]"]
        code, errors = server.end()
    assert code == 0
    assert "stopping after 1 open request(s)" in errors
    assert re.search(rf"POST {PATH} 503 [0-9.]+s id={refused.headers['x-request-id']}$", errors, re.MULTILINE)
    assert "Traceback" not in errors


@contextlib.contextmanager
def asked_for_points(server: Server) -> Iterator[Iterator[str]]:
    """The lines of an answer whose first two points have begun."""
    body = {"model": "demo-sot", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
    body["sot"] = {"router": "always"}
    with httpx.Client(timeout=30) as client, client.stream("POST", server.url + PATH, json=body) as response:
        lines = (line for line in response.iter_lines() if line)
        while "Eat" not in next(lines):
            pass
        yield lines


@posix
def test_points_are_written_to_their_end_after_the_signal_and_new_requests_get_503():
    with running("--max-open-calls", "2", POINTS="1") as server, asked_for_points(server) as lines:
        server.process.send_signal(signal.SIGTERM)
        until_stopping(server)
        assert httpx.get(server.url + "/health").json()["open_calls"] == 2
        for model in ("demo", "demo-sot"):
            refused = httpx.post(server.url + PATH, json={"model": model, "messages": [], "stream": True})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
        server.process.stdin.write("\n")
        server.process.stdin.flush()
        *chunks, last = [line.removeprefix("data: ") for line in lines if not line.startswith(":")]
        code, errors = server.end()
    assert last == "[DONE]"
    rest = "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert rest == " well.\n\n2. Sleep: Rest enough.\n\n3. Exercise: All about Exercise."
    assert code == 0
    assert re.search(rf"POST {PATH} 200 .* route=skeleton ", errors)
    assert "Traceback" not in errors


@posix
def test_points_that_outlast_the_grace_end_with_an_error():
    with running("--grace", "0.1", POINTS="1") as server, asked_for_points(server) as lines:
        server.process.send_signal(signal.SIGTERM)
        (last,) = list(lines)
        code, errors = server.end()
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in errors


def until_stopping(server: Server) -> None:
    until = time.monotonic() + 10
    while (state := httpx.get(server.url + "/health")).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert state.headers["connection"] == "close"


@posix
def test_an_answer_that_outlasts_the_grace_ends_with_an_error():
    with running("--grace", "0.1", "--quiet") as server:
        with asked(server) as lines:
            server.process.send_signal(signal.SIGTERM)
            (last,) = list(lines)
        code, errors = server.end()
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert code == 128 + signal.SIGTERM
    assert errors.splitlines()[1:] == ["open after an answer: 0", "closed demo"]


@posix
def test_a_second_signal_ends_at_once():
    with running() as server, asked(server) as lines:
        server.process.send_signal(signal.SIGINT)
        until_stopping(server)
        time.sleep(0.5)  # signals that come together count as one
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx.HTTPError):
            list(lines)
        code, errors = server.end()
    assert code == 130
    assert errors.endswith("sot: stopped at once\n")


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_model_loads_ends_the_process_at_once(number):
    process = start("--port", "0", ENDLESS="demo")
    assert process.stderr.readline() == "sot: loading demo ...\n"
    time.sleep(0.2)  # the line comes just before
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (128 + number, "", "")


@posix
def test_a_browser_opens_the_page_when_the_server_listens(tmp_path):
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}.part && mv {seen}.part {seen}\n')
    browser.chmod(0o700)
    with running("--open", BROWSER=str(browser)) as server:
        until = time.monotonic() + 10
        while not seen.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert seen.read_text().strip() == server.url + "/"


# --- what keeps it from starting --------------------------------------------------------------------


def test_a_port_in_use_is_reported_before_a_model_is_loaded():
    with contextlib.closing(bind("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = failed("--port", str(port))
    assert code == 1
    assert errors.startswith(f"sot: error: 127.0.0.1:{port} is in use by another program")
    assert errors.count("\n") == 1


def test_an_address_that_others_reach_needs_a_key_before_a_model_is_loaded():
    code, errors = failed("--host", "0.0.0.0")
    assert code == 2
    assert "SOT_API_KEY" in errors
    assert "--allow-anyone" in errors
    assert errors.count("\n") == 1


def test_a_model_that_cannot_be_loaded_closes_the_others():
    code, errors = failed("--port", "0", "-m", "a=openai:x", "-m", "b=openai:y", BROKEN="b")
    assert code == 1
    assert errors.splitlines()[-2:] == ["closed a", "sot: error: b is broken."]


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_a_missing_package_is_named_with_what_to_install(package):
    code, errors = failed(MISSING=package)
    assert code == 1
    assert errors.startswith("sot: error: sot serve needs Starlette and uvicorn: pip install ")
    assert "serve]" in errors
    assert errors.count("\n") == 1


MODEL = ModelSettings("a", "openai:x")
FINE = ServeSettings((MODEL,))


@pytest.mark.parametrize(
    "settings",
    [
        FINE,
        dataclasses.replace(FINE, host="localhost"),
        dataclasses.replace(FINE, host="::1"),
        dataclasses.replace(FINE, host="127.8.9.1"),
        dataclasses.replace(FINE, host="0.0.0.0", keys=("one",)),
        dataclasses.replace(FINE, host="::", open_to_all=True),
        dataclasses.replace(FINE, keys=("one",), origins=("*",)),
        dataclasses.replace(
            FINE, origins=("https://a.example:8443", "http://localhost:3000", "chrome-extension://abc")
        ),
    ],
)
def test_settings_that_can_be_used(settings):
    check(settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": ()}, "no model"),
        ({"models": (MODEL, MODEL)}, "Two models have the name 'a'"),
        ({"models": (ModelSettings("a-sot"),)}, "-sot ends the names"),
        ({"models": (ModelSettings("a b"),)}, "cannot have the name 'a b'"),
        ({"models": (ModelSettings("a\n"),)}, "cannot have the name"),
        ({"models": (ModelSettings(""),)}, "cannot have the name"),
        ({"models": (ModelSettings("x" * 201),)}, "cannot have the name"),
        ({"models": (MODEL, ModelSettings("b", "gpt-4o"))}, "The model 'b': .*openai:gpt-4o"),
        ({"host": "0.0.0.0"}, "SOT_API_KEY"),
        ({"host": "::"}, "SOT_API_KEY"),
        ({"host": "0"}, "SOT_API_KEY"),
        ({"host": "::ffff:10.0.0.1"}, "SOT_API_KEY"),
        ({"host": ""}, "host is empty"),
        ({"host": "no.such.host.invalid"}, "There is no address"),
        ({"host": "x" * 5000}, "There is no address"),
        ({"port": 65536}, "port must be"),
        ({"keys": ("a b",)}, "A key must be"),
        ({"keys": ("a\n",)}, "A key must be"),
        ({"keys": ("",)}, "A key must be"),
        ({"origins": ("*",)}, "every page"),
        ({"origins": ("https://a.example/",)}, "without a path"),
        ({"origins": ("a.example",)}, "without a path"),
        ({"origins": ("https://me:pw@a.example",)}, "without a path"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_loaded(changes, said):
    with pytest.raises(InvalidInput, match=said) as refused:
        check(dataclasses.replace(FINE, **changes))
    assert len(str(refused.value)) < 1000


def test_names_and_addresses_of_this_machine_are_told_from_others():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.1", "localhost", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "0", "10.0.0.1", "192.168.1.1"))


def test_a_socket_is_bound_and_its_address_is_one_for_clients():
    with contextlib.closing(bind("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        with pytest.raises(SotError, match=f"{port} is in use"):
            bind("0.0.0.0", port)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_address_of_ipv6_stands_in_brackets():
    try:
        listener = bind("::1", 0)
    except (SotError, InvalidInput):
        pytest.skip("this machine has no IPv6")
    with contextlib.closing(listener):
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(InvalidInput, match="no address of this machine"):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_small_parts_of_a_response_are_sent_at_once(host):
    try:
        listener = bind(host, 0)
    except InvalidInput:
        pytest.skip("this machine has no IPv6")
    delays: asyncio.Queue[int] = asyncio.Queue()

    def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delays.put_nowait(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(accepted, sock=listener):
        with socket.create_connection(listener.getsockname()[:2]):
            assert await delays.get() == 1
