"""Raw HTTP: bodies in chunks, pipelines, HTTP/1.0, and headers that clients write in other ways."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket

import pytest
from serving import events_of, text_of

PATH = "/v1/chat/completions"


@pytest.fixture
def connection(server):
    made = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    yield made
    made.close()


@pytest.fixture
def content(question):
    """`content(model="x-sot", **fields)`: a body."""

    def make(model="x-sot", **fields):
        return json.dumps({"model": model, "messages": [{"role": "user", "content": question}], **fields}).encode()

    return make


def head(content: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {PATH} HTTP/{version}", "Host: 127.0.0.1", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def exchange(server, sent: bytes, *more: bytes) -> bytes:
    """All bytes that come back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for piece in (sent, *more):
            connection.sendall(piece)
        read = b""
        while piece := connection.recv(65536):
            read += piece
    return read


def text(response) -> str:
    return json.loads(response.read())["choices"][0]["message"]["content"]


def test_a_body_in_chunks(connection, content, answer):
    whole = content()
    connection.request("POST", PATH, iter([whole[:1], whole[1:50], whole[50:]]), encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, text(response)) == (200, answer)


def test_a_body_in_single_bytes(server, content, answer):
    sent = head(content(), "Connection: close")
    read = exchange(server, *(sent[i : i + 1] for i in range(len(sent))))
    assert json.loads(read.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == answer


def test_one_connection_for_many_requests(connection, content, answer):
    for i in range(4):
        connection.request("POST", PATH, content(stream=i % 2 == 1))
        response = connection.getresponse()
        if i % 2 == 0:
            assert text(response) == answer
        else:
            assert text_of(events_of(response.read().decode())) == answer
        assert response.getheader("connection") != "close"
    connection.request("POST", PATH, b"{")
    refused = connection.getresponse()
    assert (refused.status, json.loads(refused.read())["error"]["code"]) == (400, "invalid_json")
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["object"] == "list", "the connection lives on"


@pytest.mark.parametrize("stream", [False, True])
def test_requests_in_a_pipeline_are_answered_in_their_order(server, upstream, content, stream):
    models = ["x", "x-sot", "y", "x"]
    requests = [head(content(model, stream=stream)) for model in models[:-1]]
    read = exchange(server, b"".join(requests) + head(content(models[-1], stream=stream), "Connection: close"))
    statuses = [part.split()[0] for part in read.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"404", b"200"]
    assert len(upstream.passed) == 2
    assert len(upstream.calls) == 4


def test_http_1_0(server, content, answer):
    whole = exchange(server, head(content(), version="1.0"))
    assert json.loads(whole.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == answer
    about, _, stream = exchange(server, head(content(stream=True), version="1.0")).partition(b"\r\n\r\n")
    assert b"chunked" not in about.lower(), "HTTP/1.0 has no chunks: the end of the connection is the end of the body"
    events = events_of(stream.decode())
    assert (text_of(events), events[-1]) == (answer, "[DONE]")


def test_the_client_may_ask_before_it_sends(server, content, answer):
    whole = content()
    about, _, _ = head(whole, "Expect: 100-continue", "Connection: close").partition(whole)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(about)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(whole)
        read = b""
        while piece := connection.recv(65536):
            read += piece
    assert answer in json.loads(read.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "headers",
    [
        {"CONTENT-TYPE": "text/plain"},
        {"content-type": "application/json; charset=utf-8", "accept": "text/event-stream"},
        {"accept-encoding": "gzip, br, zstd"},
        {"x-long": "a" * 8000},
        {"x-latin": "caf\xe9", "x-empty": ""},
        {"x-openwebui-task": ""},
        {"cookie": "a=b", "referer": "http://elsewhere/", "user-agent": ""},
    ],
)
def test_headers_of_other_clients(connection, upstream, content, answer, headers):
    connection.request("POST", PATH, content(), headers)
    response = connection.getresponse()
    assert (response.status, text(response)) == (200, answer)
    assert response.getheader("content-encoding") is None
    assert all(sent.keys() == {"x-session-id"} for sent in upstream.call_headers)


def test_the_name_of_a_key_s_scheme_is_in_any_case(start, upstream, content):
    server = start(upstream, keys=("k-123456",))
    for scheme, status in (
        ("Bearer", b"200"),
        ("bearer", b"200"),
        ("BEARER ", b"200"),
        ("Basic", b"401"),
        ("", b"401"),
    ):
        read = exchange(server, head(content(), f"Authorization: {scheme} k-123456", "Connection: close"))
        assert read.split()[1] == status
    twice = head(content(), "Authorization: Bearer k-123456", "Authorization: Bearer k-123456", "Connection: close")
    assert exchange(server, twice).split()[1] == b"401"


@pytest.mark.parametrize(
    "sent",
    [b"\r\n\r\n", b"nonsense\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"],
)
def test_what_is_no_http_is_refused_and_the_server_goes_on(server, connection, content, answer, sent):
    assert exchange(server, sent + b"GET /x HTTP/1.0\r\n\r\n").split()[1:2] in ([b"400"], [b"404"], [b"403"])
    connection.request("POST", PATH, content())
    assert text(connection.getresponse()) == answer


def test_half_a_request_reaches_no_model(server, upstream, content):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head(content())[:-5])
    exchange(server, b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert not upstream.calls
    assert not upstream.passed


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_is_reset_ends_all_calls(server, upstream, content, stream):
    upstream.script |= {title: ["Begun ", asyncio.Event()] for title in ("Diet", "Sleep", "Exercise")}
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(head(content(stream=stream)))
    server.until(lambda: upstream.open_calls == 3, "three points are being written")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset in place of an end
    connection.close()
    server.until(lambda: upstream.open_calls == 0, "all calls upstream end")
    assert len(upstream.calls) == 4


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/v1/models"), ("OPTIONS", PATH), ("PUT", PATH), ("GET", "/v1")])
def test_other_methods_leave_the_connection_usable(connection, method, path):
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    assert response.status in (200, 404, 405)
    assert method == "HEAD" or "error" in json.loads(body)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
