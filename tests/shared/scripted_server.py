"""`sot serve` over a scripted application, as a program: its arguments are those of the command.

An answer sends one event at once, and another one when a line comes on standard input. The environment may name a model
that cannot be loaded (`BROKEN`), one that loads without an end (`ENDLESS`), and a package that is not installed
(`MISSING`). With `POINTS` the application is the server's own, over a scripted model: the text of the first two points
waits in its middle for that line.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

from skeleton_of_thought.errors import ModelLoadError

PATH = "/v1/chat/completions"


def line_event() -> asyncio.Event:
    """An event that is set when a line comes on standard input."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def read() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(event.set)

    threading.Thread(target=read, daemon=True).start()
    return event


def create_app(settings, upstreams, *, limit, metrics):
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    from skeleton_of_thought.serve.access import middleware

    released = line_event()

    async def answer(request):
        await request.body()

        async def events():
            try:
                async with limit.place():
                    yield b"data: 1\n\n"
                    await released.wait()
                    yield b"data: [DONE]\n\n"
            finally:
                print(f"open after an answer: {limit.open_calls}", file=sys.stderr, flush=True)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def health(request):
        stopping = limit.closing
        return JSONResponse({"status": "stopping" if stopping else "ok"}, status_code=503 if stopping else 200)

    routes = [Route(PATH, answer, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, middleware=middleware(settings))


def load_forever() -> None:
    while True:
        time.sleep(0.01)  # in the thread of the event loop, as the load of a model may be


async def open_upstream(model):
    if model.name == os.environ.get("BROKEN"):
        raise ModelLoadError(f"{model.name} is broken.")
    if model.name == os.environ.get("ENDLESS"):
        load_forever()

    if os.environ.get("POINTS"):
        from scripted_upstream import ScriptedUpstream

        line = line_event()
        return ScriptedUpstream(script={"Diet": ["Eat ", line, "well."], "Sleep": ["Rest ", line, "enough."]})

    async def close() -> None:
        print(f"closed {model.name}", file=sys.stderr, flush=True)

    return SimpleNamespace(close=close)


def main() -> int:
    replaced = [("upstreams", open_upstream)]
    if not os.environ.get("POINTS"):
        replaced.append(("app", create_app))
    for name, function in replaced:
        module = ModuleType(f"skeleton_of_thought.serve.{name}")
        setattr(module, function.__name__, function)
        sys.modules[module.__name__] = module
    if missing := os.environ.get("MISSING"):
        sys.modules[missing] = None  # type: ignore[assignment]
    from skeleton_of_thought.cli import main

    return main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
