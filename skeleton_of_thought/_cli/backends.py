"""What the `sot` command asks: a local model, or an OpenAI-compatible server. No framework in between.

A `Backend` opens calls for `skeleton_of_thought.drive.run`. Its streams have a `cancel` that any thread may
call, so that Ctrl-C and a timeout end a call at once, also while its server keeps silent.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.drive import GRACE, Open
from skeleton_of_thought.errors import InvalidInput, MissingExtra
from skeleton_of_thought.types import Call, Message, Prompt, Reply, Stage, Usage

if TYPE_CHECKING:
    import openai

    from skeleton_of_thought.local import CompletionStream, LocalEngine
    from skeleton_of_thought.local.plain_generate import GenerateStream

__all__ = ["DEMO", "Backend", "ModelSpec", "Way", "local_backend", "one_line", "openai_backend"]

_OPENAI = "openai:"

DEMO = "demo"
"""The name of the embedded model's backend."""

_TINY = "a tiny model (135M): its speed is the point, not what it says"
_HOST = re.compile(r"@[\w.-]+:\d+(?:/|$)")


def _nothing() -> None:
    """What there is to close where nothing is open."""


def one_line(error: BaseException) -> str:
    """An error as one line of at most 400 characters, with its type where its text alone says little."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 400 else text[:399] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _no_checkpoint() -> Callable[[], None]:
    """Where nothing is kept for later prompts, there is nothing to go back to."""
    return _nothing


@dataclass(frozen=True)
class Way:
    """A way to have the same model answer one prompt without a skeleton, for comparisons.

    Attributes:
        name: How it is called, as in "twice as fast as NAME".
        open_call: Opens a call. It writes as many tokens as `Prompt.min_tokens` and `max_tokens` say.
    """

    name: str
    open_call: Open


@dataclass(frozen=True)
class Backend:
    """Something that answers prompts.

    Attributes:
        name: How it is called in what the user reads.
        open_call: Opens a call, see `skeleton_of_thought.drive.run`.
        prefill: The stages whose prefill the backend continues.
        takes_limits: Whether it honours `Prompt.max_tokens`.
        capacity: How many calls it can serve at a time; None for as many as there are points.
        remark: What a reader should know of the model beside its answers; None for nothing.
        stop_loops: Whether its model may say the same until it is stopped, as small models do.
        explain: An error of the backend as one line that says what to do.
        close: Ends what is still open.
        ways: What Skeleton-of-Thought is compared with; where there are none, with one normal call.
        checkpoint: Gives a function that goes back to what is kept now for prompts that begin alike, so that
            a question can be asked again at its first cost.
        notice: Says why the model's rows are not decoded in one batch; empty where they are, or where nobody knows.
        loading: Seconds that it took to load the model.
    """

    name: str
    open_call: Open
    prefill: Collection[Stage] = ()
    takes_limits: bool = False
    capacity: int | None = None
    remark: str | None = None
    stop_loops: bool = False
    explain: Callable[[BaseException], str] = one_line
    close: Callable[[], None] = _nothing
    ways: Sequence[Way] = ()
    checkpoint: Callable[[], Callable[[], None]] = _no_checkpoint
    notice: Callable[[], str] = str
    loading: float = 0.0


@dataclass(frozen=True)
class ModelSpec:
    """What `--model` says.

    Attributes:
        name: A hub id, directory or file for a local model (None for the embedded one); else the server's name
            for its model.
        server: Whether it is a model of a server.
        base_url: The server's address; None for the SDK's own.
    """

    name: str | None = None
    server: bool = False
    base_url: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> ModelSpec:
        """Reads `--model`, and checks what can be checked before anything is loaded.

        Raises:
            InvalidInput: A file that is not there, or an address that is none.
        """
        if text is None:
            return cls()
        if text.startswith(_OPENAI):
            return cls._parse_server(text)
        path = Path(text).expanduser()
        if text.endswith(".gguf") or path.is_absolute() or text.startswith((".", "~")):
            if not path.exists():
                raise InvalidInput(f"The model {text!r} is not there: no such file or directory.")
            return cls(str(path))
        if not text.strip():
            raise InvalidInput("The model's name is empty: give a hub id, a directory, a .gguf file or openai:NAME.")
        return cls(text)

    @classmethod
    def _parse_server(cls, text: str) -> ModelSpec:
        name, url = text.removeprefix(_OPENAI), None
        # Names of models may hold an "@" themselves, so only one that begins an address counts.
        if (at := re.search(r"@(?=https?://)", name)) is not None:
            name, url = name[: at.start()], name[at.end() :]
        elif _HOST.search(name):
            raise InvalidInput(f"The server's address in {text!r} needs http:// or https:// in front of it.")
        if not name:
            raise InvalidInput(f"{text!r} names no model: write openai:NAME or openai:NAME@http://host:port/v1.")
        return cls(name, server=True, base_url=url)


# --- a local model ----------------------------------------------------------------------------------


class _LocalStream:
    """One completion of the engine, as a driver reads it."""

    def __init__(self, stream: CompletionStream) -> None:
        self._stream = stream
        self.cancel = stream.close
        self.close = stream.close

    def __iter__(self) -> Iterator[str | Reply]:
        yield from self._stream
        # A cancelled completion ends here too, so that what it had cost is counted.
        done = self._stream.completion
        yield Reply(done.usage, done.finish_reason, decoding=done.decoding)


def local_backend(engine: LocalEngine, *, name: str = "local model", **settings: Any) -> Backend:
    """A backend over a loaded engine; `settings` are those of `LocalEngine.stream`."""

    def open_call(call: Call, index: int) -> _LocalStream:
        assert call.prompt is not None
        return _LocalStream(engine.stream(call.prompt, **settings))

    def checkpoint() -> Callable[[], None]:
        return engine.checkpoint()

    return Backend(
        name,
        open_call,
        prefill=frozenset({"skeleton", "point"}),
        takes_limits=True,
        remark=_TINY if name == DEMO else None,
        stop_loops=True,
        close=engine.close,
        ways=_local_ways(engine, settings),
        checkpoint=checkpoint,
        notice=lambda: engine.stats().reason,
    )


def _local_ways(engine: LocalEngine, settings: dict[str, Any]) -> Sequence[Way]:
    """What people have without us, and what of our speed is the engine's and not the skeleton's."""
    # The length of a comparison is its prompt's, whatever a call of the answer is limited to.
    limitless = {name: value for name, value in settings.items() if name != "max_new_tokens"}

    def generate(call: Call, index: int) -> GenerateStream:
        from skeleton_of_thought.local.plain_generate import GenerateStream

        assert call.prompt is not None
        drawing = {name: value for name, value in settings.items() if name in ("temperature", "seed")}
        return GenerateStream(engine, call.prompt, **drawing)

    def single_row(call: Call, index: int) -> _LocalStream:
        assert call.prompt is not None
        return _LocalStream(engine.stream(call.prompt, **limitless))

    return Way("model.generate", generate), Way("the engine's single row", single_row)


# --- an OpenAI-compatible server ---------------------------------------------------------------------


class _LoopThread:
    """An event loop in a thread. A task on it can be cancelled at any moment, unlike a blocked thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sot-openai", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def stop(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2 * GRACE)


class _RemoteStream:
    """A stream that runs on an event loop and is read from a thread."""

    def __init__(self, items: AsyncIterator[str | Reply], thread: _LoopThread) -> None:
        self._inbox: queue.SimpleQueue[str | Reply | Exception | None] = queue.SimpleQueue()
        self._future = asyncio.run_coroutine_threadsafe(self._pump(items), thread.loop)
        # Not at the end of `_pump`: a task that is cancelled before its first step never runs any of it.
        self._future.add_done_callback(lambda _: self._inbox.put(None))

    async def _pump(self, items: AsyncIterator[str | Reply]) -> None:
        try:
            async for item in items:
                self._inbox.put(item)
        except Exception as error:
            self._inbox.put(error)

    def __iter__(self) -> Iterator[str | Reply]:
        while (item := self._inbox.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        """Ends the call at once; the connection is closed."""
        self._future.cancel()

    close = cancel


class _Chat:
    """Chat completions of one model on one server."""

    def __init__(self, client: openai.AsyncOpenAI, model: str, settings: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._settings = settings
        self._usage_option: dict[str, Any] = {"stream_options": {"include_usage": True}}

    async def stream(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        usage: Usage | None = None
        finish: str | None = None
        stream = await self._open([_as_dict(message) for message in prompt.messages])
        async with stream:
            async for chunk in stream:
                usage = _usage(chunk) or usage
                # The last chunk, with the usage, has no choices.
                for choice in chunk.choices or ():
                    finish = choice.finish_reason or finish
                    if choice.delta is not None and choice.delta.content:
                        yield choice.delta.content
        if finish is None and usage is None:
            # A connection that is cut between two chunks looks like the end; only these two tell it apart.
            raise ConnectionError("The server's stream ended before its answer was complete.")
        yield Reply(usage, finish)

    async def _open(self, messages: list[Any]) -> openai.AsyncStream[Any]:
        from openai import BadRequestError, UnprocessableEntityError

        create: Any = self._client.chat.completions.create
        request = {"model": self._model, "messages": messages, "stream": True, **self._settings}
        try:
            return await create(**request, **self._usage_option)  # type: ignore[no-any-return]
        except (BadRequestError, UnprocessableEntityError) as error:
            if not self._usage_option or "stream_options" not in str(error):
                raise
        # Some servers reject what they do not know. An answer without token counts is better than none.
        self._usage_option = {}
        return await create(**request)  # type: ignore[no-any-return]


def _as_dict(message: Message) -> dict[str, Any]:
    content = message.content
    return {"role": message.role, "content": content if isinstance(content, str) else [dict(b) for b in content]}


def _usage(chunk: Any) -> Usage | None:
    usage = getattr(chunk, "usage", None)
    if usage is None:
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) or 0
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached)


def openai_backend(
    model: str,
    *,
    base_url: str | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
) -> Backend:
    """A backend over an OpenAI-compatible server. The key is `OPENAI_API_KEY`.

    Raises:
        MissingExtra: The `openai` SDK is not installed.
        InvalidInput: No key is set for OpenAI's own server.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingExtra("Models of the form openai:NAME need the openai SDK", "openai") from error
    url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    key = os.environ.get("OPENAI_API_KEY")
    if not key and url is None:
        raise InvalidInput(
            "OPENAI_API_KEY is not set. Set it, or name a server: --model openai:NAME@http://host:port/v1."
        )
    # Servers of one's own seldom want a key, but the SDK always does.
    client = openai.AsyncOpenAI(api_key=key or "none", base_url=url)
    settings = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    chat = _Chat(client, model, {name: value for name, value in settings.items() if value is not None})
    thread = _LoopThread()

    def open_call(call: Call, index: int) -> _RemoteStream:
        assert call.prompt is not None
        return _RemoteStream(chat.stream(call.prompt), thread)

    def explain(error: BaseException) -> str:
        return _explain(error, model, str(client.base_url))

    def close() -> None:
        if not thread.loop.is_closed():
            asyncio.run_coroutine_threadsafe(client.close(), thread.loop).result(GRACE)
        thread.stop()

    return Backend(model, open_call, explain=explain, close=close)


def _explain(error: BaseException, model: str, url: str) -> str:
    import openai

    if isinstance(error, openai.APITimeoutError):
        return f"The server at {url} did not answer in time."
    if isinstance(error, openai.APIConnectionError):
        cause = f" ({one_line(error.__cause__)})" if error.__cause__ is not None else ""
        return f"The server at {url} cannot be reached, or broke off{cause}."
    if isinstance(error, openai.AuthenticationError):
        return f"The server at {url} does not accept the key in OPENAI_API_KEY: {one_line(error)}"
    if isinstance(error, openai.NotFoundError):
        return f"The server at {url} does not know the model {model!r}, or has no /chat/completions: {one_line(error)}"
    if isinstance(error, ValueError):
        return f"The server at {url} sent something that is no chat completion: {one_line(error)}"
    return one_line(error)
