"""What the `sot` command asks: a local model, or an OpenAI-compatible server. No framework in between.

Models of LangChain have a module of their own, `langchain_backend`.

A `Backend` opens calls for `skeleton_of_thought.drive.run`. Its streams have a `cancel` that any thread may
call, so that Ctrl-C and a timeout end a call at once, also while its server keeps silent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from skeleton_of_thought._cli.models import check_address
from skeleton_of_thought.drive import GRACE, Open
from skeleton_of_thought.errors import InvalidInput, MissingExtra
from skeleton_of_thought.types import Call, Message, Prompt, Reply, Stage, Usage

if TYPE_CHECKING:
    import openai

    from skeleton_of_thought.local import CompletionStream, LocalEngine
    from skeleton_of_thought.local.plain_generate import GenerateStream

__all__ = [
    "DEMO",
    "PREFILL",
    "Backend",
    "LoopThread",
    "Prefill",
    "RemoteStream",
    "Way",
    "as_dict",
    "local_backend",
    "one_line",
    "openai_backend",
    "prefilled",
]

logger = logging.getLogger(__name__)

DEMO = "demo"
"""The name of the embedded model's backend."""

_TINY = "a tiny model (135M): its speed is the point, not what it says"

Prefill = Literal["auto", "yes", "no"]
PREFILL: tuple[Prefill, ...] = get_args(Prefill)
"""Whether a model is given the start of its turns; "auto" is where it is known to continue them."""


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
        open_call: Opens a call. It writes as many tokens as the prompt's `hints` say.
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
        takes_limits: Whether it follows `Hints.max_tokens`.
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

    def room(self, wanted: int | None) -> int | None:
        """The most calls at a time: what is wanted and what it can serve, each None for any number."""
        return min(filter(None, (wanted, self.capacity)), default=None)


def prefilled(wanted: bool) -> Collection[Stage]:
    """The stages whose prompts end with a prefill, where that is wanted."""
    return frozenset[Stage]({"skeleton", "point"} if wanted else ())


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


def local_backend(
    engine: LocalEngine, *, name: str = "local model", prefill: Prefill = "auto", **settings: Any
) -> Backend:
    """A backend over a loaded engine; `settings` are those of `LocalEngine.stream`."""

    def open_call(call: Call, index: int) -> _LocalStream:
        assert call.prompt is not None
        return _LocalStream(engine.stream(call.prompt, **settings))

    def checkpoint() -> Callable[[], None]:
        return engine.checkpoint()

    return Backend(
        name,
        open_call,
        prefill=prefilled(prefill != "no"),
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


class LoopThread:
    """An event loop in a thread. A task on it can be cancelled at any moment, unlike a blocked thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sot-calls", daemon=True)
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
        """Ends the loop; what still runs on it is cancelled."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2 * GRACE)


class RemoteStream:
    """A stream that runs on an event loop and is read from a thread."""

    def __init__(self, items: AsyncIterator[str | Reply], thread: LoopThread) -> None:
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


_CONTINUING = frozenset({"llamacpp", "vllm", "sglang"})
"""Servers that can continue the last message, as they call themselves in their lists of models."""
_ASKING = 5.0
"""Seconds that a server has to say whether it continues a prefill."""
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""Tells vLLM and SGLang to continue the last message. llama.cpp does so anyway, and takes these too."""


class _Chat:
    """Chat completions of one model on one server."""

    def __init__(self, client: openai.AsyncOpenAI, model: str, settings: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._settings = settings
        self._usage_option: dict[str, Any] = {"stream_options": {"include_usage": True}}
        self._continuing: dict[str, Any] = dict(_CONTINUE)

    async def stream(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        usage: Usage | None = None
        finish: str | None = None
        messages = [as_dict(message) for message in prompt.messages]
        if prompt.prefill:
            messages.append({"role": "assistant", "content": prompt.prefill})
        stream = await self._open(messages, continued=bool(prompt.prefill))
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

    async def try_prefill(self) -> None:
        """Has the server continue a turn by one token.

        Raises:
            openai.OpenAIError: It does not take such a turn. Not with every template: those of models that think first
                may refuse it.
        """
        messages = [{"role": "user", "content": "Count to three."}, {"role": "assistant", "content": "1, 2,"}]
        async with await self._open(messages, continued=True, max_tokens=1):
            pass

    async def _open(self, messages: list[Any], *, continued: bool, **more: Any) -> openai.AsyncStream[Any]:
        from openai import BadRequestError, UnprocessableEntityError

        create: Any = self._client.chat.completions.create
        request = {"model": self._model, "messages": messages, "stream": True, **self._settings, **more}
        while True:
            extra = {"extra_body": self._continuing} if continued and self._continuing else {}
            try:
                return await create(**request, **self._usage_option, **extra)  # type: ignore[no-any-return]
            except (BadRequestError, UnprocessableEntityError) as error:
                # Some servers reject what they do not know. An answer without token counts is better than none, and
                # a server that knows none of these fields may continue its turn all the same.
                if self._usage_option and "stream_options" in str(error):
                    self._usage_option = {}
                elif extra and any(name in str(error) for name in _CONTINUE):
                    self._continuing = {}
                else:
                    raise


def as_dict(message: Message) -> dict[str, Any]:
    """A message as OpenAI's protocol has it, which LangChain takes too."""
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
    prefill: Prefill = "auto",
) -> Backend:
    """A backend over an OpenAI-compatible server. The key is `OPENAI_API_KEY`.

    Args:
        model: The server's name for its model.
        base_url: The server's address; None for `OPENAI_BASE_URL`, or OpenAI's own.
        temperature: None for the server's own, as for the others.
        seed: For sampling.
        max_tokens: The most tokens of a call.
        prefill: Whether the server continues a last message of the assistant; "auto" asks it.

    Raises:
        MissingExtra: The `openai` SDK is not installed.
        InvalidInput: No key is set for OpenAI's own server, or the address is none.
    """
    try:
        import httpx
        import openai
    except ImportError as error:
        raise MissingExtra("Models of the form openai:NAME need the openai SDK", "openai") from error
    url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if url is not None:
        check_address(url, f"The server's address {url!r}" + ("" if base_url else " in OPENAI_BASE_URL"))
    key = os.environ.get("OPENAI_API_KEY")
    if not key and url is None:
        raise InvalidInput(
            "OPENAI_API_KEY is not set. Set it, or name a server: --model openai:NAME@http://host:port/v1."
        )
    # Servers of one's own seldom want a key, but the SDK always does.
    try:
        client = openai.AsyncOpenAI(api_key=key or "none", base_url=url)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"The server's address {url!r} cannot be used: {error}") from error
    settings = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    chat = _Chat(client, model, {name: value for name, value in settings.items() if value is not None})
    thread = LoopThread()

    def open_call(call: Call, index: int) -> RemoteStream:
        assert call.prompt is not None
        return RemoteStream(chat.stream(call.prompt), thread)

    def explain(error: BaseException) -> str:
        return _explain(error, model, str(client.base_url))

    def close() -> None:
        if not thread.loop.is_closed():
            asyncio.run_coroutine_threadsafe(client.close(), thread.loop).result(GRACE)
        thread.stop()

    wanted = prefill == "yes"
    if prefill == "auto" and url is not None:
        wanted = asyncio.run_coroutine_threadsafe(_continues(client, chat, model), thread.loop).result()
    return Backend(model, open_call, prefill=prefilled(wanted), explain=explain, close=close)


async def _continues(client: openai.AsyncOpenAI, chat: _Chat, model: str) -> bool:
    """Whether a server continues a last message of the assistant: it has to be one that can, and to take one."""
    try:
        async with asyncio.timeout(_ASKING):
            served = [card async for card in client.with_options(max_retries=0).models.list()]
            owners = {getattr(card, "owned_by", None) for card in served if card.id == model or len(served) == 1}
            if not owners & _CONTINUING:
                return False
            await chat.try_prefill()
    except Exception as error:
        # What is wrong with the server is for the question's own call to say.
        logger.debug("The server was asked in vain whether it continues a prefill: %s", one_line(error))
        return False
    return True


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
    if isinstance(error, openai.RateLimitError):
        return (
            f"The server at {url} takes no more calls for now, or the account has no credit: {one_line(error)} "
            "(--max-concurrency asks fewer at a time.)"
        )
    if isinstance(error, openai.InternalServerError):
        return f"The server at {url} failed; ask again later, or look into its log: {one_line(error)}"
    if isinstance(error, openai.APIStatusError):
        return f"The server at {url} does not take this call of the model {model!r}: {one_line(error)}"
    if isinstance(error, openai.APIError | ConnectionError):
        return f"The server at {url} broke off: {one_line(error)}"
    if isinstance(error, ValueError):
        return f"The server at {url} sent something that is no chat completion: {one_line(error)}"
    return one_line(error)
