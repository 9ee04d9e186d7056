"""A model for tests of the server that writes what its script says, waits where it says, and counts its open calls.

upstream = ScriptedUpstream(points=["Diet", "Sleep"])
upstream.script["skeleton"] = ["1. Diet\\n", gate, "2. Sleep\\n"]      # an asyncio.Event is waited for
upstream.script["Diet"] = Attempts([ConnectionError("gone")], ["Eat ", "well."])    # first and later attempts
upstream.script["Sleep"] = [0.2, "Sleep ", "enough.", Reply(finish_reason="length")]   # a number: seconds
upstream.script["direct"] = [...]      # a direct answer that the flow asks for
upstream.script["merge"] = [...]
upstream.script["passed"] = [...]      # a request that passes through; `bytes` go to the caller as they are
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from skeleton_of_thought._cli.diagnostics import one_line
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.upstream import Passed
from skeleton_of_thought.types import Call, Reply, Stage, Usage

__all__ = ["Attempts", "Item", "ScriptedUpstream"]

Item = str | bytes | float | asyncio.Event | Reply | Exception


class Attempts:
    """A script for each attempt at a call; the last one repeats."""

    def __init__(self, *scripts: Sequence[Item]) -> None:
        self.scripts = scripts


class ScriptedUpstream:
    """An `Upstream` by script.

    Attributes:
        script: What a call writes: under `skeleton`, `direct`, `merge`, `passed`, or the title of a point. Without an
            entry it writes a short text at once.
        calls: All calls of answers, in order of opening.
        samplings: The sampling that came with them.
        call_headers: The headers that came with them.
        refused: Fields of requests that no call takes.
        passed: All requests that passed through.
        open: The keys of the calls that are open now, with their numbers.
        most: The most calls that were open at a time.
        closed: Whether `close` was called.
    """

    prefill: Collection[Stage] = ()
    stop_loops = False
    local = False
    remark: str | None = None

    def __init__(
        self, *, points: Sequence[str] = ("Diet", "Sleep", "Exercise"), script: Mapping[str, Any] | None = None
    ) -> None:
        self.script: dict[str, Sequence[Item] | Attempts] = {
            "skeleton": [f"{i}. {title}\n" for i, title in enumerate(points, 1)],
            "direct": ["A direct ", "answer."],
            "merge": ["A merged ", "answer."],
            "passed": ["A passed ", "answer."],
            **(script or {}),
        }
        self.usage: Usage | None = Usage(10, 5)
        self.calls: list[Call] = []
        self.samplings: list[Mapping[str, Any]] = []
        self.call_headers: list[dict[str, str]] = []
        self.refused: set[str] = set()
        self.passed: list[ChatRequest] = []
        self.open: Counter[str] = Counter()
        self.most = 0
        self.closed = False
        self._attempts: dict[str, int] = defaultdict(int)

    @property
    def open_calls(self) -> int:
        """The number of calls that are open now."""
        return sum(self.open.values())

    async def open_call(
        self, call: Call, sampling: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        """See `Upstream.open_call`."""
        self.calls.append(call)
        self.samplings.append(sampling)
        self.call_headers.append(dict(headers or {}))
        key = call.point.title if call.point else call.stage
        ended = False
        async with contextlib.aclosing(self._play(key, ["All about ", f"{key}."])) as items:
            async for item in items:
                if isinstance(item, Reply):
                    ended = True
                    yield item
                else:
                    yield item if isinstance(item, str) else item.decode()
        if not ended:
            yield Reply(usage=self.usage, finish_reason="stop")

    def check(self, sampling: Mapping[str, Any]) -> None:
        """See `Upstream.check`."""
        for name in self.refused & sampling.keys():
            raise ServeError(f"`{name}` is refused.", param=name)

    async def pass_through(self, request: ChatRequest) -> Passed:
        """See `Upstream.pass_through`. Its first piece is awaited, as the headers of a server are."""
        self.passed.append(request)
        body = _as_stream(self._play("passed", ())) if request.stream else _as_whole(self._play("passed", ()))
        first = await anext(body)
        kind = "text/event-stream" if request.stream else "application/json"
        return Passed(200, {"content-type": kind, "x-upstream": "scripted"}, _Body(first, body))

    def explain(self, error: BaseException) -> str:
        """See `Upstream.explain`."""
        return (
            str(error) if isinstance(error, SotError | ServeError) else f"The scripted model failed: {one_line(error)}"
        )

    async def close(self) -> None:
        """See `Upstream.close`."""
        self.closed = True

    async def _play(self, key: str, default: Sequence[Item]) -> AsyncGenerator[str | bytes | Reply]:
        script = self.script.get(key, default)
        if isinstance(script, Attempts):
            attempt = min(self._attempts[key], len(script.scripts) - 1)
            self._attempts[key] += 1
            script = script.scripts[attempt]
        self.open[key] += 1
        self.most = max(self.most, self.open_calls)
        try:
            for item in script:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, asyncio.Event):
                    await item.wait()
                elif isinstance(item, int | float):
                    await asyncio.sleep(item)
                else:
                    await asyncio.sleep(0)
                    yield item
        finally:
            self.open[key] -= 1
            self.open += Counter()  # drops what is 0


class _Body:
    """The rest of a body whose first piece is known. It can be closed before anyone has read it."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if (first := self._first) is not None:
            self._first = None
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        await self._rest.aclose()


def _chunk(delta: Mapping[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


async def _as_stream(items: AsyncGenerator[str | bytes | Reply]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(items):
        async for item in items:
            if isinstance(item, bytes):
                yield item
            elif isinstance(item, str):
                yield _chunk({"role": "assistant", "content": item})
        yield _chunk({}, "stop")
        yield b"data: [DONE]\n\n"


async def _as_whole(items: AsyncGenerator[str | bytes | Reply]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(items):
        text = ""
        async for item in items:
            if isinstance(item, bytes):
                yield item
            elif isinstance(item, str):
                text += item
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    about = {"id": "up-1", "object": "chat.completion", "created": 1, "model": "scripted"}
    yield json.dumps({**about, "choices": [choice], "usage": usage}).encode()
