"""Connections have a bound; those whose clients neither send nor read end after a while, with their answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json

import pytest
from serving import serving

from skeleton_of_thought.serve import protocol
from skeleton_of_thought.serve.protocol import BoundedProtocol

PATIENCE = 30.0
SOON = 0.25
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class App:
    """Answers with the text of its requests, or with an endless text; counts its ends."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        while scope["path"] != "/early" and (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            leaving = asyncio.create_task(receive())
            while not leaving.done():
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)
            self.gone.set()
            return
        if scope["path"] in ("/early", "/later"):
            await self.gate.wait()
        await send({"type": "http.response.body", "body": b"the end", "more_body": False})


@contextlib.asynccontextmanager
async def connection(app):
    async with connections(app, 1) as ((reader, writer),):
        yield reader, writer


@contextlib.asynccontextmanager
async def connections(app, count, most=10):
    """So many connections, to a server that has room for `most`."""
    async with serving(app, functools.partial(BoundedProtocol, most=most)) as url, contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            stack.callback(writer.close)
            opened.append((reader, writer))
        yield opened


async def ended(reader):
    """All that comes until the server closes the connection."""
    return await asyncio.wait_for(reader.read(), PATIENCE)


@pytest.mark.parametrize("begun", [b"", b"G", WHOLE[:-2], b"POST / HTTP/1.1\r\nX: "])
async def test_headers_that_never_end_close_the_connection(monkeypatch, begun):
    monkeypatch.setattr(protocol, "_TO_SEND", SOON)
    async with connection(App()) as (reader, writer):
        writer.write(begun)
        assert await ended(reader) == b""


async def test_headers_of_a_later_request_have_their_time_too(monkeypatch):
    monkeypatch.setattr(protocol, "_TO_SEND", SOON)
    async with connection(App()) as (reader, writer):
        writer.write(WHOLE)
        assert await asyncio.wait_for(reader.readuntil(b"the end\r\n0\r\n\r\n"), PATIENCE)
        writer.write(WHOLE[:-2])
        assert await ended(reader) == b""


async def test_a_request_that_has_its_headers_may_take_its_time(monkeypatch):
    monkeypatch.setattr(protocol, "_TO_SEND", SOON)
    app = App()
    async with connection(app) as (reader, writer):
        writer.write(b"POST /later HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n1")
        await asyncio.sleep(3 * SOON)
        writer.write(b"2")
        await asyncio.sleep(3 * SOON)
        app.gate.set()
        assert await asyncio.wait_for(reader.readuntil(b"the end"), PATIENCE)


async def error_in(reader, status):
    """The error of the last response on a connection, with this status."""
    head, _, body = (await ended(reader)).rpartition(b"\r\n\r\n")
    assert f"HTTP/1.1 {status} " in head.decode()
    assert b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


async def test_requests_past_the_bound_of_connections_are_refused_until_others_end():
    async with connections(App(), 3, most=2) as ((ends, first), (other, second), (refused, third)):
        third.write(WHOLE)
        assert (await error_in(refused, 503))["code"] == "too_many_connections"
        second.write(WHOLE)
        assert await asyncio.wait_for(other.readuntil(b"the end"), PATIENCE)
        first.write(WHOLE.replace(b"Host", b"Connection: close\r\nHost"))
        assert b"the end" in await ended(ends)
        reader, again = await asyncio.open_connection(*third.get_extra_info("peername"))
        again.write(WHOLE)
        assert await asyncio.wait_for(reader.readuntil(b"the end"), PATIENCE)
        again.close()


async def test_connections_past_the_bound_have_less_time_and_end_at_once_where_they_are_many(monkeypatch):
    monkeypatch.setattr(protocol, "_TO_BE_TOLD", SOON)
    monkeypatch.setattr(protocol, "_TOLD", 1)
    async with connections(App(), 3, most=1) as ((reader, writer), (told, _), (closed, _)):
        with contextlib.suppress(ConnectionResetError):
            assert await ended(closed) == b""
        assert await ended(told) == b""
        writer.write(WHOLE)
        assert await asyncio.wait_for(reader.readuntil(b"the end"), PATIENCE)


@pytest.mark.parametrize("before", [b"", WHOLE])
@pytest.mark.parametrize("begun", [b"\0\0\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"])
async def test_what_is_no_request_gets_an_error_in_the_shape_of_openai_s(before, begun):
    async with connection(App()) as (reader, writer):
        writer.write(before)
        if before:
            await asyncio.wait_for(reader.readuntil(b"the end\r\n0\r\n\r\n"), PATIENCE)
        writer.write(begun)
        assert (await error_in(reader, 400))["type"] == "invalid_request_error"


CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_body_that_breaks_its_form_gets_an_error():
    async with connection(App()) as (reader, writer):
        writer.write(CHUNKED + b"no number\r\n")
        assert (await error_in(reader, 400))["type"] == "invalid_request_error"


async def test_an_error_is_not_written_into_a_response_that_has_begun():
    app = App()
    async with connection(app) as (reader, writer):
        writer.write(CHUNKED.replace(b"/ ", b"/early "))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        writer.write(b"no number\r\n")
        assert await ended(reader) == b""
        app.gate.set()


async def test_a_client_that_stops_reading_is_gone_for_its_answer(monkeypatch):
    monkeypatch.setattr(protocol, "_TO_READ", SOON)
    app = App()
    async with connection(app) as (_, writer):
        writer.write(WHOLE.replace(b"/ ", b"/endless "))
        writer.transport.pause_reading()
        await asyncio.wait_for(app.gone.wait(), PATIENCE)
        assert len(asyncio.all_tasks()) < 6


async def test_a_client_that_reads_slowly_gets_all(monkeypatch):
    monkeypatch.setattr(protocol, "_TO_READ", PATIENCE)
    app = App()
    async with connection(app) as (reader, writer):
        writer.write(WHOLE.replace(b"/ ", b"/endless "))
        for _ in range(40):
            assert await asyncio.wait_for(reader.readexactly(65536), PATIENCE)
        assert not app.gone.is_set()
