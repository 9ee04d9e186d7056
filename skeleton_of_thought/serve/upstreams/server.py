"""Models on OpenAI-compatible servers: requests pass through as bytes, calls of answers go by the openai SDK."""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from skeleton_of_thought._cli.backend import prefilled_stages
from skeleton_of_thought._cli.diagnostics import explain_openai, one_line
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought._cli.openai_backend import ChatCompletions
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.serve.errors import ServeError, without_key
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstream import Passed
from skeleton_of_thought.serve.upstreams.connections import CancellingClient
from skeleton_of_thought.types import Call, Reply, Stage

__all__ = ["ServerUpstream", "open_server"]

_CONNECT_SECONDS = 10.0
"""Seconds within which a server has to accept a connection. It may take any time to answer: the request has a limit."""
_IDLE_CONNECTIONS = 100
_IDLE_SECONDS = 30.0
"""Idle connections that are kept for later requests, and for how long. Open ones have no limit here: the server bounds
its open calls itself, and a second bound would only make them wait in secret."""

_TO_CALLER = frozenset(
    {"content-type", "content-encoding", "retry-after", "retry-after-ms", "x-should-retry", "x-request-id"}
)
_STATUSES = range(200, 600)
"""The statuses that a response can have."""
_TO_CALLER_PREFIXES = ("openai-", "x-ratelimit-")


async def open_server(model: ModelSettings, spec: ModelSpec) -> ServerUpstream:
    """Makes the clients of a model's server, and asks it whether it continues prefills.

    Raises:
        MissingExtra: The `openai` SDK is not installed.
        InvalidInput: There is no key for OpenAI's own server, or the address is invalid.
    """
    assert spec.name is not None
    settings = {"max_tokens": model.max_tokens}
    chat = ChatCompletions.of(spec.name, spec.base_url, model.key, http_client=_sdk_client, **settings)
    try:
        continues = model.prefill == "yes" or (model.prefill == "auto" and await chat.continues_prefill())
        return ServerUpstream(chat, spec.name, prefilled_stages(continues))
    except BaseException:
        await chat.client.close()
        raise


class _HttpClient(CancellingClient, httpx.AsyncClient):
    """The client of requests that pass through."""


def _sdk_client() -> Any:
    import openai

    class SdkClient(CancellingClient, openai.DefaultAsyncHttpxClient):
        """The client of calls of answers, with the SDK's defaults."""

    return SdkClient(cookies=_no_cookies())


def _no_cookies() -> CookieJar:
    """A jar that stays empty: a server's cookies are for one caller, and the next request is another's."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


class ServerUpstream:
    """A model on an OpenAI-compatible server; see `skeleton_of_thought.serve.upstream.Upstream`.

    Args:
        chat: The model's chat completions, for calls of answers.
        name: The server's name for the model.
        prefill: The stages whose prefill the model continues.
    """

    stop_loops = False
    local = False
    remark: str | None = None

    def __init__(self, chat: ChatCompletions, name: str, prefill: Collection[Stage] = ()) -> None:
        self.prefill = prefill
        self._chat = chat
        self._name = name
        self._url = f"{str(chat.client.base_url).rstrip('/')}/chat/completions"
        self._http = _HttpClient(
            headers={"user-agent": "skeleton-of-thought"},
            verify=_certificates(),
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=_IDLE_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
            ),
            cookies=_no_cookies(),
            follow_redirects=True,  # as the SDK does
        )

    def check(self, sampling: Mapping[str, Any]) -> None:
        """Refuses nothing: only the server knows which fields it takes."""

    def open_call(
        self, call: Call, sampling: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        """Opens one call of an answer, see the protocol."""
        assert call.prompt is not None, "only calls with a prompt reach a model"
        return self._chat.stream(call.prompt, sampling, headers)

    async def pass_through(self, request: ChatRequest) -> Passed:
        """Sends the request as it is, but for the model's name, and passes on what the server answers.

        The body comes as the server sends it, chunk by chunk. A status that reports an error passes like any other.

        Raises:
            ServeError: The server cannot be reached (502), or not in time (504). Later, from the body: it broke off.
        """
        body = {name: value for name, value in request.body.items() if name != "sot"} | {"model": self._name}
        try:
            # ASCII: half a surrogate pair, which JSON can hold, has no bytes in UTF-8.
            response = await self._send(json.dumps(body, separators=(",", ":")).encode("ascii"), request.headers)
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        headers = {name: value for name, value in response.headers.items() if _reaches_caller(name, value)}
        if response.status_code not in _STATUSES:
            await response.aclose()
            message = f"The model's server at {self._chat.address} answered with the status {response.status_code}."
            raise ServeError(message, 502, "upstream_error", code="upstream_failed")
        return Passed(response.status_code, headers, _Body(response, self._failure))

    async def _send(self, content: bytes, given: Mapping[str, str]) -> httpx.Response:
        connected: list[str] = []

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith("connect_tcp.started"):
                connected.append(event)

        headers = self._headers(given)
        while True:
            # A new one each time: a request keeps the stream that it was sent from.
            request = self._http.build_request(
                "POST", self._url, content=content, headers=headers, extensions={"trace": trace}
            )
            try:
                response: httpx.Response = await self._http.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A server may close a connection that was idle just as the next request comes. It has answered nothing,
                # so the request is sent again. Over a connection that is new, the failure is the server's.
                if connected:
                    raise
            else:
                return response

    def _headers(self, given: Mapping[str, str]) -> dict[str, str]:
        client = self._chat.client
        own = {
            "content-type": "application/json",
            # Compressed chunks would have to be unpacked to be shown as they come.
            "accept-encoding": "identity",
            "authorization": f"Bearer {self._chat.key}" if self._chat.key else None,
            "openai-organization": client.organization,
            "openai-project": client.project,
        }
        return {**given, **{name: value for name, value in own.items() if value is not None}}

    def _failure(self, error: httpx.HTTPError) -> ServeError:
        if isinstance(error, httpx.TimeoutException):
            message = f"The model's server at {self._chat.address} did not answer in time."
            return ServeError(message, 504, "upstream_error", code="upstream_timeout")
        cause = without_key(one_line(error), self._chat.key)
        message = f"The model's server at {self._chat.address} cannot be reached, or broke off ({cause})."
        return ServeError(message, 502, "upstream_error", code="upstream_unreachable")

    def explain(self, error: BaseException) -> str:
        """Describes an error of a call in one line."""
        if isinstance(error, SotError | ServeError):
            return str(error)
        return without_key(explain_openai(error, self._name, self._chat.address, serving=True), self._chat.key)

    async def close(self) -> None:
        """Ends calls that are still open, and closes all connections."""
        try:
            await self._http.aclose()
        finally:
            await self._chat.client.close()


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The authorities that are trusted, read once for all models."""
    return httpx.create_ssl_context()


def _reaches_caller(name: str, value: str) -> bool:
    name = name.lower()
    if not (value.isascii() and value.isprintable()):  # none of those that are listed has reason to
        return False
    return name in _TO_CALLER or name.startswith(_TO_CALLER_PREFIXES)


class _Body:
    """The bytes of a response. Closing it hangs up, whether or not it was read."""

    # A class, not a generator: a generator that was never read would not run its `finally`.
    def __init__(self, response: httpx.Response, failure: Callable[[httpx.HTTPError], ServeError]) -> None:
        self._response = response
        self._chunks: Any = response.aiter_raw()
        self._failure = failure

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await anext(self._chunks)
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        return chunk

    async def aclose(self) -> None:
        """Ends the response; the connection is used again only if all of it was read."""
        try:
            # Both: a generator that is left open would be closed by the garbage collector, perhaps without a loop.
            await self._chunks.aclose()
        finally:
            await self._response.aclose()
