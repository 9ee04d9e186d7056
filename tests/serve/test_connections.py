"""Requests that are cancelled at awkward moments leave no connection behind, over a transport that stops at each."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

pytest.importorskip("httpx")

import httpx

from skeleton_of_thought.serve.upstreams.connections import CancellingClient

CONNECTING, READY = "connection.connect_tcp.started", "http11.send_request_headers.started"


class Client(CancellingClient, httpx.AsyncClient):
    """The client of the tests."""


class Transport(httpx.AsyncBaseTransport):
    """Reports as httpcore does, and waits at the steps that have a gate."""

    def __init__(self, *gates):
        self.gates = {name: asyncio.Event() for name in gates}
        self.log = []

    async def step(self, name):
        self.log.append(name)
        if name in self.gates:
            try:
                await self.gates[name].wait()
            except asyncio.CancelledError:
                self.log.append(f"{name} broken off")
                raise

    async def handle_async_request(self, request):
        trace = request.extensions["trace"]
        await trace(CONNECTING, {})
        await self.step("connect")
        try:
            await trace(READY, {})
        except asyncio.CancelledError:
            self.log.append("not sent")
            raise
        await self.step("send")
        return httpx.Response(200, stream=Stream(self))


class Stream(httpx.AsyncByteStream):
    def __init__(self, transport):
        self.transport = transport

    async def __aiter__(self):
        yield b"text"

    async def aclose(self):
        await self.transport.step("close")
        self.transport.log.append("closed")


@contextlib.asynccontextmanager
async def client(*gates):
    transport = Transport(*gates)
    async with contextlib.aclosing(Client(transport=transport)) as made:
        yield made, transport


async def get(made):
    return await made.send(made.build_request("GET", "http://host/"), stream=True)


async def cancelled(task):
    """Cancels a task, which ends at once."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_that_is_left_while_it_connects_is_never_sent(eventually):
    async with client("connect") as (made, transport):
        task = asyncio.create_task(get(made))
        await eventually(lambda: transport.log == ["connect"], "it connects")
        await cancelled(task)
        assert transport.log == ["connect"]
        transport.gates["connect"].set()
        await eventually(lambda: transport.log == ["connect", "not sent"], "the connection is given back")
        await eventually(lambda: not made._endings, "its task has ended")


async def test_closing_the_client_ends_what_still_connects(eventually):
    async with client("connect") as (made, transport):
        task = asyncio.create_task(get(made))
        await eventually(lambda: transport.log == ["connect"], "it connects")
        await cancelled(task)
    assert transport.log == ["connect", "connect broken off"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_request_that_was_sent_ends_with_its_caller(eventually):
    async with client("send") as (made, transport):
        task = asyncio.create_task(get(made))
        await eventually(lambda: transport.log == ["connect", "send"], "it was sent")
        await cancelled(task)
        assert transport.log == ["connect", "send", "send broken off"]


async def test_a_response_that_comes_with_the_cancellation_is_closed(eventually):
    async with client("send") as (made, transport):
        task = asyncio.create_task(get(made))
        await eventually(lambda: "send" in transport.log, "it was sent")
        transport.gates["send"].set()
        while "closed" not in transport.log and not task.done():
            # At one of these moments the response is there, and its reader has not got it yet.
            await asyncio.sleep(0)
            if len(asyncio.all_tasks()) == 2:
                break
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).aclose()
        assert transport.log[-1] == "closed"


async def test_a_response_is_closed_to_the_end_though_its_reader_is_cancelled(eventually):
    async with client("close") as (made, transport):
        response = await get(made)
        task = asyncio.create_task(response.aclose())
        await eventually(lambda: transport.log[-1] == "close", "it is being closed")
        await cancelled(task)
        assert transport.log[-1] == "close"
        transport.gates["close"].set()
        await eventually(lambda: transport.log[-1] == "closed", "it is closed")


async def test_a_trace_of_the_caller_is_kept():
    seen = []

    async def trace(event, info):
        seen.append(event)

    async with client() as (made, transport):
        request = made.build_request("GET", "http://host/", extensions={"trace": trace})
        response = await made.send(request, stream=True)
        assert [chunk async for chunk in response.aiter_raw()] == [b"text"]
    assert seen == [CONNECTING, READY]
    assert transport.log == ["connect", "send", "close", "closed"]
