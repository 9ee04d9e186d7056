"""A scripted model for the page's tests. A word of the question chooses how it behaves.

"breaks"    a point fails for good, and so does the normal answer, both in mid-stream
"refused"   everything fails before the first text
"again"     a point is written at the second attempt
"capital"   a short direct answer
"markup"    the model writes HTML that would run if it became markup
"cut"       a point reaches the limit of its length
"endless"   nothing ends by itself
"weigh"     the skeleton is a plan: what points cover, and which points the last one builds on
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from starlette.applications import Starlette

from skeleton_of_thought.serve.app import create_app
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings
from skeleton_of_thought.serve.upstream import Passed
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Reply, Stage, Usage

__all__ = ["PLAN", "POINTS", "ScriptedModel", "server"]

POINTS = {
    "Light and darkness": (
        "Your body reads light as the time of day. **Bright light at the start of a shift** keeps you awake; dark "
        "glasses on the way home tell it that the night has begun. At home, curtains that let nothing through do "
        "more than any pill.\n\n- A lamp of 10,000 lux for half an hour\n- Sunglasses after a night shift\n- Tape "
        "over the lights of chargers"
    ),
    "A fixed anchor": (
        "Keep one stretch of sleep that never moves, even on free days: four hours at the *same* time give the body a "
        "point of reference. Add the rest as a nap before the shift."
    ),
    "Coffee, with a plan": (
        "Caffeine works for five to six hours. Drink it in the first half of the shift, in small amounts, and stop "
        "early enough:\n\n| Shift ends | Last cup |\n| --- | ---: |\n| 6 am | 12 pm |\n| 2 pm | 8 am |\n"
        "| 10 pm | 4 pm |"
    ),
    "Meals that do not wake you": (
        "Eat the main meal before the shift and something light during it. Heavy food at 3 am burdens a stomach that "
        "sleeps already; soup, bread and fruit do not."
    ),
    "The people around you": (
        "Tell family and neighbours when you sleep, and put a note on the door. A phone that only lets two numbers "
        "through ends most of what wakes you."
    ),
    "When to see a doctor": (
        "Three months of poor sleep in spite of all this are a reason to ask for help. `Shift work disorder` is a "
        "diagnosis with treatments that work, see [an overview](https://example.org/sleep)."
    ),
}

PLAN = (
    "1. Price: tickets, fees and what a day costs\n2. Comfort: seats, noise and sleep\n"
    "3. Speed: from door to door\n4. Which one to choose (after 1, 3)"
)
ROLES = {
    "opening": "Both take you there; they differ in **what** they cost you.",
    "closing": "So take the train up to five hours, and the plane beyond.",
}

MARKUP = (
    "Look: <script>window.ran = 'script'</script> and <img src=x onerror=\"window.ran = 'image'\"> and "
    "[a link](javascript:window.ran='link') and <iframe srcdoc='<script>parent.ran=1</script>'></iframe>\n\n"
    "<svg onload=\"window.ran='svg'\"></svg>"
)
DIRECT = "The capital of Mongolia is **Ulaanbaatar**."


class ScriptedModel:
    """An `Upstream` that writes word by word.

    Attributes:
        pace: Seconds for a word.
        cancelled: How many calls were ended by the caller.
        open: How many calls are open.
    """

    prefill: Collection[Stage] = ()
    stop_loops = False
    remark: str | None = None

    def __init__(self, pace: float = 0.002, *, local: bool = False, remark: str | None = None) -> None:
        self.pace, self.local, self.remark = pace, local, remark
        self.open = self.cancelled = 0
        self.asked: list[str] = []

    def check(self, sampling: Mapping[str, Any]) -> None:
        pass

    async def open_call(
        self, call: Call, sampling: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        assert call.prompt is not None
        prompt = "\n".join(message.text for message in call.prompt.messages)
        words = 0
        with self._counted():
            for word in self._words(call, prompt):
                await asyncio.sleep(self.pace)
                words += 1
                yield word
            if "endless" in prompt and call.stage != "skeleton":
                await asyncio.Event().wait()
        cut = call.point is not None and call.point.index == 5 and "cut" in prompt
        yield Reply(usage=Usage(40 + len(prompt) // 4, words), finish_reason="length" if cut else "stop")

    def _words(self, call: Call, prompt: str) -> Iterator[str]:
        if "refused" in prompt:
            raise ConnectionError("the model is not there")
        if call.stage in ROLES:
            yield from _split(ROLES[call.stage])
        elif call.stage == "skeleton" and "weigh" in prompt:
            yield from _split(PLAN)
        elif call.stage == "skeleton":
            yield from _split("\n".join(f"{i}. {title}" for i, title in enumerate(self._titles(prompt), 1)))
        elif call.point is None:
            yield from _split(DIRECT if call.stage == "direct" else "One text. " + "\n\n".join(POINTS.values()))
        elif call.point.index == 3 and "breaks" in prompt:
            yield from _split("This point breaks off")
            raise ConnectionError("the connection was lost")
        elif call.point.index == 2 and "again" in prompt and call.attempt == 1:
            raise ConnectionError("the connection was lost")
        elif "markup" in prompt:
            yield from _split(MARKUP)
        elif "weigh" in prompt:
            yield from _split(POINTS["A fixed anchor"])
        else:
            yield from _split(POINTS.get(call.point.title, "A few words."))

    def _titles(self, prompt: str) -> list[str]:
        return ["<img src=x onerror=\"window.ran='title'\">", "Second"] if "markup" in prompt else [*POINTS]

    async def pass_through(self, request: ChatRequest) -> Passed:
        self.asked.append(str(request.body["messages"][-1]["content"]))
        if "refused" in self.asked[-1]:
            raise ServeError("The model's server cannot be reached: start it.", 502, "server_error")
        return Passed(200, {"content-type": "text/event-stream"}, self._stream(self.asked[-1]))

    async def _stream(self, question: str) -> AsyncGenerator[bytes]:
        text = MARKUP if "markup" in question else DIRECT if "capital" in question else _whole()
        words = 0
        with self._counted():
            await asyncio.sleep(8 * self.pace)
            for word in _split(text):
                await asyncio.sleep(self.pace)
                words += 1
                yield _data(_chunk({"content": word}))
                if "breaks" in question and words > 20:
                    yield _data({"error": {"message": "The model broke off.", "type": "server_error"}})
                    return
            if "endless" in question:
                await asyncio.Event().wait()
        yield _data(_chunk({}, "stop"))
        usage = {"prompt_tokens": 24, "completion_tokens": words, "total_tokens": words + 24}
        yield _data({**_chunk({}), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    def explain(self, error: BaseException) -> str:
        return f"The scripted model failed: {error}"

    async def close(self) -> None:
        pass


def _whole() -> str:
    parts = (f"### {title}\n\n{text}" for title, text in POINTS.items())
    return "Sleep in shifts is a matter of light, rhythm and rest.\n\n" + "\n\n".join(parts)


def _split(text: str) -> list[str]:
    return [word for line in text.splitlines(keepends=True) for word in line.replace(" ", " \0").split("\0") if word]


def _data(chunk: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def _chunk(delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo", "choices": [choice]}


def server(model: ScriptedModel, key: str | None = None) -> Starlette:
    """The server with this model, named "demo"."""
    settings = Settings(on_point_error="placeholder", backoff=0.05)
    served = ServeSettings((ModelSettings("demo", settings=settings),), keys=(key,) if key else ())
    return create_app(served, {"demo": model})
