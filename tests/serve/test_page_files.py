"""The files of the page: what they are served as, what they may do, and that they are all there."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the server needs its extra: pip install 'skeleton-of-thought[serve]'")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from skeleton_of_thought.serve.page_files import page_routes

FOLDER = Path(str(files("skeleton_of_thought.serve") / "page"))
NAMES = sorted(path.name for path in FOLDER.iterdir())
MOST_LINES = 450


async def get(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """A response of an app that has the page's routes only."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": named,
    }
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80)}
    await Starlette(routes=[*page_routes()])(scope, receive, send)
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(message.get("body", b"") for message in bodies)


async def test_the_root_is_the_page():
    status, headers, body = await get("/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert body == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize("name", NAMES)
async def test_every_file_is_served_as_what_it_is(name):
    status, headers, body = await get(f"/page/{name}")
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert status == 200
    assert headers["content-type"].split(";")[0] == kinds[Path(name).suffix]
    assert body == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/base.css"])
async def test_every_response_forbids_what_the_page_does_not_need(path):
    _, headers, _ = await get(path)
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_a_copy_that_is_the_newest_is_not_sent_again():
    _, headers, _ = await get("/page/app.js")
    for known in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
        status, again, body = await get("/page/app.js", if_none_match=known)
        assert (status, body) == (304, b"")
        assert again["etag"] == headers["etag"]
        assert "content-security-policy" in again
    status, _, body = await get("/page/app.js", if_none_match='"other"')
    assert status == 200
    assert body
    assert (await get("/page/dom.js"))[1]["etag"] != headers["etag"]


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/none.js", "/page/../page_files.py", "/page/..%2fpage_files.py", "/page//etc/passwd", "/page"],
)
async def test_nothing_else_is_served(path):
    status, _, _ = await get(path)
    assert status == 404


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("DELETE", 405)])
async def test_the_page_can_only_be_read(method, status):
    assert (await get("/", method))[0] == status


def test_the_routes_take_their_place_in_another_app():
    async def models(_: Request) -> Response:
        return Response("models")

    paths = [route.path for route in page_routes()]
    assert paths == ["/", "/page/{name}"]
    assert not any(path.startswith("/v1") for path in paths)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_reaches_another_host_or_makes_markup(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    hosts = set(re.findall(r"https?://([\w.-]+)", text))
    assert hosts <= {"www.w3.org"}, hosts  # the namespace of SVG
    for risky in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"):
        assert risky not in text
    if name.endswith(".html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", text)
    assert text.count("\n") <= MOST_LINES


def test_every_file_that_is_named_exists():
    for name in NAMES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        for found in re.findall(r'from "\./([\w.-]+)"|(?:src|href)="page/([\w.-]+)"', text):
            assert "".join(found) in NAMES, f"{name} names {found}"
