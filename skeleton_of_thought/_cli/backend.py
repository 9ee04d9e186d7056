"""Backends of the `sot` command: models that answer prompts, in this process or on a server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import threading
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from skeleton_of_thought._cli.diagnostics import one_line
from skeleton_of_thought.drive import GRACE, Open, run
from skeleton_of_thought.events import Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Message, Prompt, Reply, Request, Stage

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = [
    "PREFILL",
    "Baseline",
    "LoopThread",
    "ModelBackend",
    "Prefill",
    "RemoteStream",
    "prefilled_stages",
    "prompt_dicts",
]

Prefill = Literal["auto", "yes", "no"]
PREFILL: tuple[Prefill, ...] = get_args(Prefill)
"""Whether a model gets the start of its turns; "auto" means: if it is known to continue them."""


@dataclass(frozen=True)
class Baseline:
    """Another way to get an answer from the same model, without a skeleton, for comparisons.

    Attributes:
        name: Display name, as in "twice as fast as NAME".
        open_call: Opens a call, which writes as many tokens as the hints of its prompt ask for.
    """

    name: str
    open_call: Open


def _do_nothing() -> None:
    """The default of `close`, and of what `checkpoint` returns."""


@dataclass(frozen=True)
class ModelBackend:
    """A model that answers prompts.

    Its streams have a `cancel` that any thread may call, so that Ctrl-C and timeouts end a call at once, even while its
    server is silent.

    Attributes:
        name: Display name.
        open_call: Opens a call, see `skeleton_of_thought.drive.run`.
        prefill: The stages whose prefill the model continues.
        takes_limits: Whether calls follow `Hints.max_tokens`.
        capacity: The most calls that it serves at a time; None for no limit.
        remark: A line that readers need to judge the model's answers; None for nothing.
        stop_loops: Whether the model tends to repeat itself until it is stopped, as small models do.
        explain: Describes an error of the backend in one line that says what to do.
        close: Ends calls that are still open, and frees the model.
        baselines: The baselines for comparisons; if empty, one ordinary call is the baseline.
        checkpoint: Returns a function that resets the prefix cache to its present state, so that a repeated question
            costs as much as the first time.
        notice: Returns why the model's rows are not decoded in one batch; empty if they are, or if that is unknown.
        loading: Seconds that loading the model took.
        eager_pays: Whether `Settings.eager="auto"` starts points early even where nobody reads along.
    """

    name: str
    open_call: Open
    prefill: Collection[Stage] = ()
    takes_limits: bool = False
    capacity: int | None = None
    remark: str | None = None
    stop_loops: bool = False
    explain: Callable[[BaseException], str] = one_line
    close: Callable[[], None] = _do_nothing
    baselines: Sequence[Baseline] = ()
    checkpoint: Callable[[], Callable[[], None]] = lambda: _do_nothing
    notice: Callable[[], str] = str
    loading: float = 0.0
    eager_pays: bool = True

    def flow(
        self,
        conversation: Conversation,
        *,
        settings: Settings,
        prompts: PromptSet,
        router: AnyRouter | None = None,
        max_concurrency: int | None = None,
        live: bool = True,
        plans: PlanMemory | None = None,
    ) -> AnswerFlow:
        """Makes a flow that suits this backend.

        Args:
            conversation: The conversation to answer.
            settings: How the answer is made; `stop_loops` is the backend's own.
            prompts: The prompts of all stages.
            router: Decides whether the answer gets a skeleton; None for always.
            max_concurrency: The most calls at a time; None for as many as the backend serves.
            live: Whether the text is read while it is written.
            plans: What the model's plans have been like, for `planning="auto"`.
        """
        room = min(filter(None, (max_concurrency, self.capacity)), default=None)
        return AnswerFlow(
            dataclasses.replace(conversation, request=Request(max_concurrency=room)),
            prompts=prompts,
            settings=dataclasses.replace(settings, stop_loops=self.stop_loops),
            router=router,
            prefill=self.prefill,
            live=live,
            eager_pays=self.eager_pays,
            plans=plans,
        )

    def run(self, flow: AnswerFlow) -> contextlib.closing[Generator[tuple[int, Event]]]:
        """Runs a flow that `flow` made. A `with` block gets its events; leaving the block closes all open calls."""
        limit = flow.conversation.request.max_concurrency
        events = run([flow], self.open_call, max_concurrency=limit)
        return contextlib.closing(cast("Generator[tuple[int, Event]]", events))


def prefilled_stages(prefill: bool) -> Collection[Stage]:
    """The stages whose prompts end with a prefill; none if `prefill` is false."""
    return frozenset[Stage]({"skeleton", "point"} if prefill else ())


def prompt_dicts(prompt: Prompt) -> list[dict[str, Any]]:
    """The messages of a prompt in the format of OpenAI's protocol, which LangChain takes too; a prefill is the last."""
    messages = [_message_dict(message) for message in prompt.messages]
    if prompt.prefill:
        messages.append({"role": "assistant", "content": prompt.prefill})
    return messages


def _message_dict(message: Message) -> dict[str, Any]:
    content = message.content
    own = {"role": message.role, "content": content if isinstance(content, str) else [dict(b) for b in content]}
    if not isinstance(message.raw, Mapping):
        return own
    # Of a request to the server, whose messages are dicts: the fields that are set, such as `name`.
    return {name: value for name, value in message.raw.items() if value not in (None, "", [], {})} | own


# --- streams of asynchronous clients ---------------------------------------------------------------


class LoopThread:
    """An event loop in a thread. Its tasks can be cancelled at any moment, unlike a blocked thread."""

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
        """Ends the loop and cancels its tasks."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2 * GRACE)


class RemoteStream:
    """A stream that runs on an event loop and is read from a thread.

    Attributes:
        gather: Seconds for which text is held back, so that more of it wakes the reader once; the first text is not.
            0 for readers who watch it come.
    """

    def __init__(self, items: AsyncIterator[str | Reply], thread: LoopThread) -> None:
        self.gather = 0.0
        self._gathered: list[str] = []
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._inbox: queue.SimpleQueue[str | Reply | Exception | None] = queue.SimpleQueue()
        self._future = asyncio.run_coroutine_threadsafe(self._pump(items), thread.loop)
        # Not at the end of `_pump`, which never runs if the task is cancelled before its first step.
        self._future.add_done_callback(lambda _: self._inbox.put(None))

    async def _pump(self, items: AsyncIterator[str | Reply]) -> None:
        try:
            async for item in items:
                if isinstance(item, str) and self._begun and self.gather:
                    self._hold(item)
                    continue
                self._pass_on()
                self._begun = True
                self._inbox.put(item)
        except Exception as error:
            self._pass_on()
            self._inbox.put(error)
        finally:
            self._pass_on()

    def _hold(self, text: str) -> None:
        self._gathered.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.gather, self._pass_on)

    def _pass_on(self) -> None:
        """Passes on what is held back. On the event loop."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._gathered:
            self._inbox.put("".join(self._gathered))
            self._gathered.clear()

    def __iter__(self) -> Iterator[str | Reply]:
        while (item := self._inbox.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        """Ends the call at once and closes its connection."""
        self._future.cancel()

    close = cancel
