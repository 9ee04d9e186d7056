"""The server as an ASGI app: its paths, and its errors in OpenAI's shape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.serve.access import middleware
from skeleton_of_thought.serve.answers import ServedModel
from skeleton_of_thought.serve.chunks import json_bytes
from skeleton_of_thought.serve.completions import ChatCompletions, unknown_model
from skeleton_of_thought.serve.errors import ServeError, server_failed
from skeleton_of_thought.serve.limits import CallLimit
from skeleton_of_thought.serve.metrics import CONTENT_TYPE, Metrics
from skeleton_of_thought.serve.settings import SUFFIX, ServeSettings

if TYPE_CHECKING:
    from skeleton_of_thought.serve.upstream import Upstream

__all__ = ["create_app"]


def create_app(
    settings: ServeSettings,
    upstreams: Mapping[str, Upstream],
    *,
    limit: CallLimit | None = None,
    metrics: Metrics | None = None,
) -> Starlette:
    """Makes the server's app. Whoever opened the upstreams closes them, after the app has ended.

    Args:
        settings: How the server behaves.
        upstreams: An upstream for each of the models in the settings, by the model's name.
        limit: The limit of open calls; None for one as the settings say.
        metrics: Counts the answers; None for new counts.

    Raises:
        InvalidInput: Two models have the same name, or the names of one include that of another.
    """
    _check_names(settings)
    limit = limit or CallLimit(settings.max_open_calls, settings.max_waiting)
    metrics = metrics or Metrics()
    models = {
        model.name: ServedModel(model, upstreams[model.name], settings.max_open_calls) for model in settings.models
    }
    cards, state = _ModelCards(models), _State(models, limit, metrics)
    routes: list[BaseRoute] = [
        Route("/v1/chat/completions", ChatCompletions(settings, models, limit, metrics), methods=["POST"]),
        Route("/v1/models", cards.all),
        Route("/v1/models/{name:path}", cards.one),
        Route("/health", state.health),
        Route("/metrics", state.metrics),
    ]
    if settings.page:
        from skeleton_of_thought.serve.page_files import page_routes

        routes += page_routes()
    handlers: Mapping[Any, Any] = {ServeError: _serve_error, HTTPException: _http_error, Exception: _server_error}
    app = Starlette(routes=routes, middleware=middleware(settings), exception_handlers=handlers)
    # A redirect would send the client, and its key, to the host that the request names, without TLS behind a proxy.
    app.router.redirect_slashes = False
    return app


def _check_names(settings: ServeSettings) -> None:
    if not settings.models:
        raise InvalidInput("The server has no model: name one.")
    served = Counter(name for model in settings.models for name in (model.name, f"{model.name}{SUFFIX}"))
    for name, count in served.items():
        if count > 1:
            raise InvalidInput(
                f"Two models would be served as {name!r}: give them other names (each is also served with {SUFFIX} "
                "at the end of its name)."
            )


class _ModelCards:
    """What there is under `/v1/models`."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = models
        created = int(time.time())
        self._cards = {
            name: _card(name, model, created, by_points=by_points)
            for model in models.values()
            for name, by_points in ((model.settings.name, False), (f"{model.settings.name}{SUFFIX}", True))
        }

    async def all(self, _: Request) -> Response:
        return _json({"object": "list", "data": [*self._cards.values()]})

    async def one(self, request: Request) -> Response:
        name = request.path_params["name"]
        if (card := self._cards.get(name)) is None:
            raise unknown_model(name, self._models)
        return _json(card)


def _card(name: str, model: ServedModel, created: int, *, by_points: bool) -> dict[str, Any]:
    upstream = model.upstream
    about = {
        "by_points": by_points,
        "model": model.settings.name,
        "local": upstream.local,
        "remark": upstream.remark,
    }
    return {"id": name, "object": "model", "created": created, "owned_by": "sot", "sot": about}


class _State:
    """How the server is, for those who watch it."""

    def __init__(self, models: Mapping[str, ServedModel], limit: CallLimit, metrics: Metrics) -> None:
        self._names, self._limit, self._metrics = [*models], limit, metrics

    async def health(self, _: Request) -> Response:
        stopping = self._limit.closing
        about = {
            "status": "stopping" if stopping else "ok",
            "models": self._names,
            "open_calls": self._limit.open_calls,
            "waiting": self._limit.waiting,
        }
        return _json(about, 503 if stopping else 200)

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.render(self._limit), media_type=CONTENT_TYPE)


# --- responses --------------------------------------------------------------------------------------


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, headers, media_type="application/json")


async def _serve_error(_: Request, error: ServeError) -> Response:
    return _json(error.to_dict(), error.status, error.headers())


async def _http_error(request: Request, error: HTTPException) -> Response:
    where = f"{request.method[:20]} {request.url.path[:100]}"
    if error.status_code == 404:
        known = "POST /v1/chat/completions, GET /v1/models, GET /health, GET /metrics"
        message = f"There is no {where}. There are {known}; the base URL for clients ends with /v1."
    elif error.status_code == 405:
        message = f"There is no {where}, only {(error.headers or {}).get('Allow')}."
    else:
        message = error.detail
    about = ServeError(message, error.status_code, code="not_found" if error.status_code == 404 else None)
    return _json(about.to_dict(), error.status_code, error.headers)


async def _server_error(request: Request, _: Exception) -> Response:
    return await _serve_error(request, server_failed())
