"""Connections whose clients neither send nor read end after a while, and their answers with them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from serving import serving

from skeleton_of_thought.serve import slow_clients
from skeleton_of_thought.serve.slow_clients import BoundedProtocol

PATIENCE = 30.0
SOON = 0.05
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class App:
    """Answers with the text of its requests, or with an endless text; counts its ends."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            leaving = asyncio.create_task(receive())
            while not leaving.done():
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)
            self.gone.set()
            return
        if scope["path"] == "/later":
            await self.gate.wait()
        await send({"type": "http.response.body", "body": b"the end", "more_body": False})


@contextlib.asynccontextmanager
async def connection(app):
    async with serving(app, BoundedProtocol) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        try:
            yield reader, writer
        finally:
            writer.close()


async def ended(reader):
    """All that comes until the server closes the connection."""
    return await asyncio.wait_for(reader.read(), PATIENCE)


@pytest.mark.parametrize("begun", [b"", b"G", WHOLE[:-2], b"POST / HTTP/1.1\r\nX: "])
async def test_headers_that_never_end_close_the_connection(monkeypatch, begun):
    monkeypatch.setattr(slow_clients, "_TO_SEND", SOON)
    async with connection(App()) as (reader, writer):
        writer.write(begun)
        assert await ended(reader) == b""


async def test_headers_of_a_later_request_have_their_time_too(monkeypatch):
    monkeypatch.setattr(slow_clients, "_TO_SEND", SOON)
    async with connection(App()) as (reader, writer):
        writer.write(WHOLE)
        assert await asyncio.wait_for(reader.readuntil(b"the end\r\n0\r\n\r\n"), PATIENCE)
        writer.write(WHOLE[:-2])
        assert await ended(reader) == b""


async def test_a_request_that_has_its_headers_may_take_its_time(monkeypatch):
    monkeypatch.setattr(slow_clients, "_TO_SEND", SOON)
    app = App()
    async with connection(app) as (reader, writer):
        writer.write(b"POST /later HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n1")
        await asyncio.sleep(3 * SOON)
        writer.write(b"2")
        await asyncio.sleep(3 * SOON)
        app.gate.set()
        assert await asyncio.wait_for(reader.readuntil(b"the end"), PATIENCE)


async def test_a_client_that_stops_reading_is_gone_for_its_answer(monkeypatch):
    monkeypatch.setattr(slow_clients, "_TO_READ", SOON)
    app = App()
    async with connection(app) as (_, writer):
        writer.write(WHOLE.replace(b"/ ", b"/endless "))
        writer.transport.pause_reading()
        await asyncio.wait_for(app.gone.wait(), PATIENCE)
        assert len(asyncio.all_tasks()) < 6


async def test_a_client_that_reads_slowly_gets_all(monkeypatch):
    monkeypatch.setattr(slow_clients, "_TO_READ", PATIENCE)
    app = App()
    async with connection(app) as (reader, writer):
        writer.write(WHOLE.replace(b"/ ", b"/endless "))
        for _ in range(40):
            assert await asyncio.wait_for(reader.readexactly(65536), PATIENCE)
        assert not app.gone.is_set()
