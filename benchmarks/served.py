"""The processes of `benchmarks/serve.py`: an upstream of known pace, and `sot serve` over it; one request to either."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from paced_upstream import PROMPTS, WORD

__all__ = ["BY_POINTS", "MODEL", "Bench", "Told", "ask", "bench"]

ROOT = Path(__file__).resolve().parents[1]
MODEL, BY_POINTS = "paced", "paced-sot"
LIST, SUM = "What are good ways to stay healthy?", "What is 2 + 2?"
# Tells on a signal what no path of the server does: its asyncio tasks, and the objects that no collection removes.
_SERVER = """
import asyncio, gc, os, signal, sys
def tell(*_):
    gc.collect()
    os.write(1, b"inside %d %d\\n" % (len(asyncio.all_tasks()), len(gc.get_objects())))
signal.signal(signal.SIGUSR1, tell)
from skeleton_of_thought.cli import main
sys.exit(main())
"""
_PATIENCE = 60.0
_WORD = WORD.strip().encode()


# --- processes --------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(*command: str, address: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server for the length of a block, and its address, which is a word of its first line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {"SOT_CONFIG": os.devnull, "SOT_API_KEY": "", "OPENAI_API_KEY": "none"}
    run = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert run.stdout is not None
    try:
        if not (line := run.stdout.readline()):
            raise SystemExit(f"{command[0]} has not started")
        yield run, line.split()[address]
    finally:
        run.terminate()
        run.wait()
        run.stdout.close()


@dataclass
class Bench:
    """What the parts measure: both servers, and a client.

    Attributes:
        upstream: The upstream's address.
        server: That of `sot serve`.
        run: The process of `sot serve`.
        client: A client for both.
    """

    upstream: str
    server: str
    run: subprocess.Popen[str]
    client: httpx.AsyncClient

    async def stats(self) -> dict[str, Any]:
        """The upstream's counts since the last time."""
        return dict((await self.client.get(f"{self.upstream}/stats")).json())

    async def health(self) -> dict[str, Any]:
        """What the server says about itself."""
        return dict((await self.client.get(f"{self.server}/health")).json())

    def inside(self) -> dict[str, int]:
        """The asyncio tasks of the server, and its Python objects."""
        assert self.run.stdout is not None
        self.run.send_signal(signal.SIGUSR1)
        while not (line := self.run.stdout.readline()).startswith("inside"):
            assert line, "the server has ended"
        tasks, objects = map(int, line.split()[1:])
        return {"tasks": tasks, "objects": objects}

    def status(self, name: str) -> int:
        """A number of `/proc/PID/status` of the server."""
        lines = Path(f"/proc/{self.run.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def sockets(self) -> int:
        """The open sockets of the server."""
        count = 0
        for file in Path(f"/proc/{self.run.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(file).startswith("socket:")
        return count

    def cpu(self) -> float:
        """Seconds of processor time that the server has taken."""
        fields = Path(f"/proc/{self.run.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def bench(*options: str) -> AsyncIterator[Bench]:
    """Starts both servers; `options` are those of `sot serve`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prompts = folder / "prompts.json"
        prompts.write_text(json.dumps(PROMPTS), encoding="utf-8")
        _, upstream = stack.enter_context(process(str(ROOT / "benchmarks" / "paced_upstream.py"), address=0))
        command = ["-c", _SERVER, "serve", "--model", f"{MODEL}=openai:paced@{upstream}/v1", "--port", "0", "--quiet"]
        run, server = stack.enter_context(process(*command, "--prompts", str(prompts), *options, address=2))
        # Connections are kept, as clients do; of the upstream's and of a server's that idle, none is used again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=1.0)
        async with httpx.AsyncClient(timeout=_PATIENCE, limits=limits, trust_env=False) as client:
            yield Bench(upstream, server, run, client)


# --- one request ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """A response.

    Attributes:
        first_byte: Seconds to the first byte of its body.
        first_text: The monotonic time of the first text.
        seconds: Seconds in all.
        tokens: Its tokens.
        route: The route that the server took.
        complete: Whether the stream has its end.
    """

    first_byte: float
    first_text: float
    seconds: float
    tokens: int
    route: str | None
    complete: bool


async def ask(b: Bench, address: str, model: str, pace: dict[str, Any], **fields: Any) -> Told:
    """Asks, and reads the response as it comes."""
    question = LIST if "points" in pace else SUM
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True, "pace": pace}
    first_byte = first_text = 0.0
    content = bytearray()
    began = time.monotonic()
    async with b.client.stream("POST", f"{address}/v1/chat/completions", json={**body, **fields}) as response:
        async for piece in response.aiter_raw():
            now = time.monotonic()
            first_byte = first_byte or now - began
            if not first_text and _WORD in piece:
                first_text = now
            content += piece
        seconds = time.monotonic() - began
        if response.status_code != 200:
            raise SystemExit(f"status {response.status_code}: {content.decode()[:300]}")
    complete = content.endswith(b"data: [DONE]\n\n") or not fields.get("stream", True)
    # Tokens may come together, but none is cut.
    tokens = content.count(_WORD)
    return Told(first_byte, first_text, seconds, tokens, response.headers.get("x-sot-route"), complete)
