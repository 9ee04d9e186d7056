"""The page that shows both ways of answering side by side: its files, and the routes that serve them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import PurePosixPath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["HEADERS", "page_routes"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}

HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # A browser asks each time whether its copy is still the newest, so an update of the package shows at once.
    "cache-control": "no-cache",
}
"""Headers of every file. What a model wrote is text on the page; if it ever became markup, it still could not run."""


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "etag", f'"{hashlib.sha256(self.content).hexdigest()[:32]}"')

    def response(self, request: Request) -> Response:
        headers = {**HEADERS, "etag": self.etag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def page_routes() -> list[Route]:
    """The routes of the page: `/` and `/page/NAME` for each of its other files. They need no key."""
    served = dict(_read())

    async def index(request: Request) -> Response:
        return served["index.html"].response(request)

    async def other(request: Request) -> Response:
        if (file := served.get(request.path_params["name"])) is None:
            raise HTTPException(404)
        return file.response(request)

    return [Route("/", index, name="page"), Route("/page/{name}", other, name="page_file")]


def _read() -> Iterator[tuple[str, _File]]:
    # They are few and small, so they are read once; a name that is not among them cannot reach any other file.
    for entry in (files("skeleton_of_thought.serve") / "page").iterdir():
        media_type = _TYPES.get(PurePosixPath(entry.name).suffix)
        if media_type is not None:
            yield entry.name, _File(entry.read_bytes(), media_type)
