"""Forks, signal handlers, slow readers, and closing from anywhere: a clear error or an end, never a hang."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from skeleton_of_thought.errors import EngineClosed, EngineForked, EngineReentered
from skeleton_of_thought.local import LocalEngine, worker
from skeleton_of_thought.types import Message

STORY = "The small boat crossed the wide river before the evening came."
CHAT = [Message("user", "Hello")]


def unending(engine: LocalEngine) -> LocalEngine:
    engine._eos_ids = frozenset()
    return engine


async def astream(engine: LocalEngine) -> Any:
    return engine.astream(STORY)


USES: dict[str, Callable[[LocalEngine], Any]] = {
    "stream": lambda engine: engine.stream(STORY),
    "astream": lambda engine: asyncio.run(astream(engine)),
    "generate": lambda engine: engine.generate([STORY]),
    "generate nothing": lambda engine: engine.generate([]),
    "count_tokens": lambda engine: engine.count_tokens(STORY),
}


def failure(work: Callable[[], object]) -> str:
    """The type of the error that a function raises; empty if it raises none."""
    try:
        work()
    except Exception as error:
        return type(error).__name__
    return ""


# --- slow readers ---------------------------------------------------------------------------------


def test_text_that_a_thread_has_not_read_waits_as_one_piece(engine: LocalEngine, tiny: Any) -> None:
    stream = unending(engine).stream(STORY, max_new_tokens=100)
    tiny.eventually(lambda: engine.stats().completed == 1)
    assert list(stream) == [stream.completion.text]
    assert len(stream.completion.token_ids) == 100


def test_a_busy_event_loop_gets_a_single_wake_up(engine: LocalEngine, tiny: Any) -> None:
    class Loop(asyncio.SelectorEventLoop):
        calls = 0

        def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().call_soon_threadsafe(*args, **kwargs)

    async def read() -> list[str]:
        stream = unending(engine).astream(STORY, max_new_tokens=100)
        before = loop.calls
        tiny.eventually(lambda: engine.stats().completed == 1)  # on the loop's own thread, so that the loop is blocked
        assert loop.calls - before <= 1
        pieces = [piece async for piece in stream]
        assert pieces == [stream.completion.text]
        return pieces

    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        assert runner.run(read())


def test_a_task_that_closes_a_stream_ends_it_for_its_reader(gated: LocalEngine, gate: Any) -> None:
    async def main() -> str:
        gate.open.clear()
        stream = unending(gated).astream(STORY, max_new_tokens=400)
        reader = asyncio.create_task(anext(stream, "the end"))
        closer = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.wait_for(closer, 60)
        assert stream.completion.finish_reason == "cancelled"
        return await asyncio.wait_for(reader, 60)

    assert asyncio.run(main()) == "the end"


def test_the_end_of_a_stream_wakes_all_waiting_threads(gated: LocalEngine, gate: Any) -> None:
    gate.open.clear()
    stream = unending(gated).stream(STORY, max_new_tokens=400)
    with ThreadPoolExecutor(4) as pool:
        reader = pool.submit(list, stream)
        gate.entered.wait(60)
        stream.close()
        waiting = [pool.submit(lambda: stream.completion.finish_reason) for _ in range(3)]
        gate.open.set()
        assert [job.result(60) for job in waiting] == ["cancelled"] * 3
        assert "".join(reader.result(60)) == ""


# --- forks ----------------------------------------------------------------------------------------

forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # Python 3.12 and later warn at every fork of a process with threads.
    pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning"),
]


def forking(test: Any) -> Any:
    for mark in forks:
        test = mark(test)
    return test


def in_child(work: Callable[[], object]) -> str:
    """The text that `work` returns in a forked child, or its error. Ends a child that hangs."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            try:
                said = str(work())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        if not select.select([read], [], [], 60)[0]:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child hangs")
        with os.fdopen(read, "rb") as pipe:
            return pipe.read().decode()
    finally:
        os.waitpid(child, 0)


@forking
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("use", USES)
def test_a_child_cannot_use_its_parents_engine(engine: LocalEngine, used: bool, use: str) -> None:
    if used:
        engine.generate([STORY], max_new_tokens=2)
    said = in_child(lambda: USES[use](engine))
    assert said.startswith("EngineForked: ")
    assert "make an engine in the child, with LocalEngine.for_model(model, tokenizer)" in said
    assert not engine.closed
    assert engine.generate([STORY], max_new_tokens=2)


@forking
def test_a_child_makes_another_engine_for_the_same_model(llama: Any, tokenizer: Any) -> None:
    with LocalEngine.for_model(llama, tokenizer) as engine:
        expected = unending(engine).generate([STORY], max_new_tokens=20)[0].token_ids

        def work() -> object:
            assert engine.closed
            own = LocalEngine.for_model(llama, tokenizer)
            assert own is not engine
            assert LocalEngine.for_model(llama, tokenizer) is own
            ids = unending(own).generate([STORY], max_new_tokens=20)[0].token_ids
            worker._end_workers()
            assert own.closed
            return ids

        assert in_child(work) == str(expected)
        assert LocalEngine.for_model(llama, tokenizer) is engine


@forking
def test_a_child_cannot_read_its_parents_streams(gated: LocalEngine, gate: Any) -> None:
    stream = unending(gated).stream(STORY, max_new_tokens=30)
    next(stream)
    gate.open.clear()

    def work() -> object:
        failures = [failure(lambda: next(stream)), failure(lambda: list(stream))]
        stream.close()
        failures.append(failure(lambda: stream.completion))
        gated.close()
        worker._end_workers()
        return failures

    assert in_child(work) == str(["EngineForked"] * 3)
    gate.open.set()
    list(stream)
    assert len(stream.completion.token_ids) == 30


@forking
def test_a_child_does_not_wait_for_a_tokenizer_that_its_parent_is_using(llama: Any, tiny: Any) -> None:
    class Slow(PreTrainedTokenizerFast):
        inside, leave = threading.Event(), threading.Event()
        patient = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.inside.set()
            assert not self.patient or self.leave.wait(60)
            return super().__call__(*args, **kwargs)

    tokenizer = own(Slow, tiny)
    with LocalEngine.for_model(llama, tokenizer) as engine, ThreadPoolExecutor(1) as pool:
        job = pool.submit(engine.generate, [STORY], max_new_tokens=2)
        assert tokenizer.inside.wait(60)

        def work() -> object:
            tokenizer.patient = False
            failures = {failure(functools.partial(use, engine)) for use in USES.values()}
            engine.close()
            LocalEngine.for_model(llama, tokenizer).generate([STORY], max_new_tokens=2)
            worker._end_workers()
            return failures

        said = in_child(work)
        tokenizer.leave.set()
        assert job.result(60)
    assert said == str({"EngineForked"})


@forking
def test_a_child_does_not_wait_for_an_engine_that_its_parent_is_making(llama: Any, tokenizer: Any) -> None:
    inside, leave = threading.Event(), threading.Event()

    class Slow(LocalEngine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            inside.set()
            assert leave.wait(60)
            super().__init__(*args, **kwargs)

    def work() -> object:
        with LocalEngine.for_model(llama, tokenizer) as mine:
            return len(mine.generate([STORY], max_new_tokens=2))

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(Slow.for_model, llama, tokenizer)
        assert inside.wait(60)
        said = in_child(work)
        leave.set()
        job.result(60).close()
    assert said == "1"


# --- signals --------------------------------------------------------------------------------------


def own(kind: type[PreTrainedTokenizerFast], tiny: Any) -> Any:
    """The tests' tokenizer as one of this class."""
    plain = tiny.make_tokenizer()
    tokenizer = kind(tokenizer_object=plain._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = plain.chat_template
    return tokenizer


class Interrupted(PreTrainedTokenizerFast):
    """A tokenizer that sends a signal amid its work, when `armed`."""

    armed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._strike()
        return super().__call__(*args, **kwargs)

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        self._strike()
        return super().apply_chat_template(*args, **kwargs)

    def _strike(self) -> None:
        if self.armed:
            self.armed = False
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupted(gate: Any, tiny: Any) -> Iterator[LocalEngine]:
    engine = unending(LocalEngine(gate, own(Interrupted, tiny)))
    yield engine
    gate.open.set()
    engine.close()


@contextlib.contextmanager
def handling(work: Callable[[], object]) -> Iterator[None]:
    """Run this in a signal handler."""
    before = signal.signal(signal.SIGINT, lambda *_: work())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("prompt", [STORY, CHAT], ids=["text", "chat"])
@pytest.mark.parametrize("use", [name for name in USES if name not in ("astream", "generate nothing")])
def test_a_handler_that_interrupts_a_call_gets_an_error(interrupted: LocalEngine, use: str, prompt: Any) -> None:
    expected = interrupted.generate([prompt], max_new_tokens=5)[0].token_ids
    failures: list[str] = []
    with handling(lambda: failures.append(failure(lambda: USES[use](interrupted)))):
        interrupted.tokenizer.armed = True
        assert interrupted.generate([prompt], max_new_tokens=5)[0].token_ids == expected
    assert failures == ["EngineReentered"]


@pytest.mark.parametrize("prompt", [STORY, CHAT], ids=["text", "chat"])
def test_an_error_of_the_handler_reaches_the_caller_unchanged(interrupted: LocalEngine, prompt: Any) -> None:
    with handling(lambda: interrupted.count_tokens(STORY)):
        interrupted.tokenizer.armed = True
        with pytest.raises(EngineReentered, match="have the handler set a flag"):
            interrupted.stream(prompt)
    assert interrupted.generate([prompt], max_new_tokens=2)


def test_a_handler_does_not_wait_for_a_writer_that_may_wait_for_it(interrupted: LocalEngine, gate: Any) -> None:
    gate.open.clear()
    stream = interrupted.stream(STORY, max_new_tokens=5)
    assert gate.entered.wait(60)
    failures: list[str] = []
    with handling(lambda: failures.append(failure(lambda: next(stream)))):
        interrupted.tokenizer.armed = True
        interrupted.count_tokens(STORY)
    assert failures == ["EngineReentered"]
    gate.open.set()
    assert "".join(stream) == stream.completion.text


@pytest.mark.parametrize("prompt", [STORY, CHAT], ids=["text", "chat"])
def test_a_handler_may_close_the_engine_amid_a_call(interrupted: LocalEngine, tiny: Any, prompt: Any) -> None:
    running = interrupted.stream(STORY, max_new_tokens=400)
    with handling(interrupted.close):
        interrupted.tokenizer.armed = True
        with pytest.raises(EngineClosed):
            interrupted.stream(prompt)
    with pytest.raises(EngineClosed):
        list(running)
    tiny.eventually(lambda: not tiny.runs(interrupted))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signals to threads")
def test_a_handler_may_use_the_engine_while_its_thread_waits_for_text(interrupted: LocalEngine, gate: Any) -> None:
    expected = interrupted.generate([STORY], max_new_tokens=5)[0].text
    gate.entered.clear()
    gate.open.clear()
    got: list[str] = []

    def handler() -> None:
        gate.open.set()
        got.append(interrupted.generate([STORY], max_new_tokens=5)[0].text)
        got.append(str(interrupted.count_tokens(STORY)))

    def strike() -> None:
        gate.entered.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with handling(handler), ThreadPoolExecutor(1) as pool:
        job = pool.submit(strike)
        assert "".join(interrupted.stream(STORY, max_new_tokens=5)) == expected
        job.result(60)
    assert got == [expected, str(interrupted.count_tokens(STORY))]


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES)
def test_a_closed_engine_says_so(engine: LocalEngine, use: str) -> None:
    engine.generate([STORY], max_new_tokens=2)
    engine.close()
    with pytest.raises(EngineClosed, match="make a new one") as info:
        USES[use](engine)
    assert not isinstance(info.value, EngineForked)
    assert engine.closed
    assert engine.stats().completed == 1


def test_the_models_own_code_may_close_the_engine(
    gate: Any, tokenizer: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = unending(LocalEngine(gate, tokenizer, max_batch_size=1))
    running, waiting = (engine.stream(STORY, max_new_tokens=400) for _ in range(2))
    next(running)
    whole, steps = gate.forward, []

    def closing(*args: Any, **kwargs: Any) -> Any:
        engine.close()
        steps.append(1)
        return whole(*args, **kwargs)

    monkeypatch.setattr(gate, "forward", closing)
    for stream in (running, waiting):
        with pytest.raises(EngineClosed):
            list(stream)
    tiny.eventually(lambda: not tiny.runs(engine))
    assert len(steps) == 1


def test_the_models_own_code_cannot_wait_for_the_model(
    gated: LocalEngine, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gate.forward

    def asking(*args: Any, **kwargs: Any) -> Any:
        gated.generate([STORY], max_new_tokens=2)
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(gate, "forward", asking)
        with pytest.raises(EngineReentered, match="hook of the model"):
            gated.generate([STORY], max_new_tokens=2)
    assert gated.generate([STORY], max_new_tokens=2)


def test_many_threads_may_close_while_others_submit(llama: Any, tokenizer: Any, tiny: Any) -> None:
    engine = unending(LocalEngine(llama, tokenizer, max_batch_size=4))
    streams: list[Any] = []
    begun = threading.Barrier(6)

    def submit() -> None:
        begun.wait(60)
        with contextlib.suppress(EngineClosed):
            while True:
                streams.append(engine.stream(STORY, max_new_tokens=50))

    def close() -> bool:
        begun.wait(60)
        tiny.eventually(lambda: len(streams) >= 20)
        engine.close()
        engine.close()
        return tiny.runs(engine)

    with ThreadPoolExecutor(6) as pool:
        submitting = [pool.submit(submit) for _ in range(3)]
        closing = [pool.submit(close) for _ in range(3)]
        assert [job.result(60) for job in closing] == [False] * 3
        for job in submitting:
            job.result(60)
    ends = [failure(lambda stream=stream: list(stream)) for stream in streams]
    stats = engine.stats()
    assert set(ends) <= {"", "EngineClosed"}
    assert (ends.count(""), ends.count("EngineClosed")) == (stats.completed, stats.failed)
    assert (stats.rows, stats.waiting) == (0, 0)
