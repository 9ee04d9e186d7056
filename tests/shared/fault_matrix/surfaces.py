"""The ways to ask for an answer, and what the caller gets from each."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from fault_matrix.cells import Cell
from fault_matrix.clients import Steering, async_client, chat_openai, command_client, open_ai_like, sync_client
from fault_matrix.server import BAD, GOOD, PROMPTS

QUESTION = "How can I sleep better?"


@dataclass
class Seen:
    """What a caller got.

    Attributes:
        text: The answer's text.
        read: What a reader of the stream got, piece by piece; None where nothing is streamed.
        error: What was raised; of the command, its line on stderr.
        route: `"skeleton"` or `"direct"`; None where the caller is not told.
        titles: The titles of the points.
        errors: The errors that the answer reports: by the point's number, and of the merge.
        reasons: The finish reasons that it reports: by the point's number, and `""` for the whole.
        partial: The texts of the points in an error, by number.
        spared: The text of an answer at its side, that meets no fault; None where there is none.
    """

    text: str = ""
    read: str | None = None
    error: BaseException | str | None = None
    route: str | None = None
    titles: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str | None] = field(default_factory=dict)
    partial: dict[int, str] = field(default_factory=dict)
    spared: str | None = None


def ask_sync(cell: Cell, steering: Steering) -> tuple[contextlib.ExitStack, Callable[[], Seen]]:
    """A sync way to ask: what closes its client, and the call itself."""
    stack = contextlib.ExitStack()
    if cell.surface == "command":
        return stack, lambda: _ask_command(cell, steering)
    if cell.surface in ("chain", "chat"):
        client = stack.enter_context(sync_client(steering))
        asked = _chain(cell, steering, sync=client)
        return stack, lambda: _guarded(lambda: _ask_langchain(cell, asked))
    engine = _engine(cell, steering, sync=_sync_http(cell, steering, stack))
    return stack, lambda: _guarded(lambda: _ask_engine(cell, engine))


async def ask_async(cell: Cell, steering: Steering, stack: contextlib.AsyncExitStack) -> Callable[[], Any]:
    """The same for an event loop."""
    if cell.surface in ("chain", "chat"):
        client = await stack.enter_async_context(async_client(steering))
        asked = _chain(cell, steering, asynchronous=client)
        return lambda: _aguarded(_aask_langchain(cell, asked))
    engine = _engine(cell, steering, asynchronous=await _async_http(cell, steering, stack))
    return lambda: _aguarded(_aask_engine(cell, engine))


def is_async(cell: Cell) -> bool:
    return cell.way in ("ainvoke", "astream", "abatch", "aquery", "gather") or (
        cell.way == "events" and cell.surface != "command"
    )


def _guarded(ask: Callable[[], Seen]) -> Seen:
    try:
        return ask()
    except Exception as error:
        return _of_error(error)


async def _aguarded(asking: Any) -> Seen:
    try:
        return await asking  # type: ignore[no-any-return]
    except Exception as error:
        return _of_error(error)


def _of_error(error: BaseException, seen: Seen | None = None) -> Seen:
    seen = seen or Seen()
    seen.error = error
    if (answer := getattr(error, "answer", None)) is not None:
        seen.partial = {expansion.point.index: expansion.text for expansion in answer.expansions}
    return seen


def _settings(cell: Cell) -> dict[str, Any]:
    policy = cell.policy
    return {
        "on_point_error": policy.on_point_error,
        "on_empty_skeleton": policy.on_empty_skeleton,
        "max_retries": policy.max_retries,
        "point_timeout": policy.point_timeout,
        "merge": cell.stage == "merge",
        "backoff": 0,
    }


# --- LangChain -------------------------------------------------------------------------------------------


def _chain(cell: Cell, steering: Steering, **clients: Any) -> Any:
    from langchain_sot import PromptRouter, SkeletonOfThoughtChain

    router: Any = {
        "route": lambda: PromptRouter(chat_openai(steering, route=True, **clients)),
        "direct": lambda: lambda question: False,
    }.get(cell.stage, lambda: None)()
    prompts = {f"{stage}_prompt": text for stage, text in PROMPTS.items()}
    chain = SkeletonOfThoughtChain(chat_openai(steering, **clients), router=router, **prompts, **_settings(cell))
    return chain.as_chat_model() if cell.surface == "chat" else chain


def _ask_langchain(cell: Cell, asked: Any) -> Seen:
    question = f"{QUESTION} {BAD}"
    if cell.way == "invoke":
        return _of_output(asked.invoke(question))
    if cell.way == "batch":
        return _of_batch(asked.batch([question, f"{QUESTION} {GOOD}"], return_exceptions=True))
    return _of_chunks(asked.stream(question))


async def _aask_langchain(cell: Cell, asked: Any) -> Seen:
    question = f"{QUESTION} {BAD}"
    if cell.way == "ainvoke":
        return _of_output(await asked.ainvoke(question))
    if cell.way == "abatch":
        return _of_batch(await asked.abatch([question, f"{QUESTION} {GOOD}"], return_exceptions=True))
    chunks: list[Any] = []
    try:
        async with contextlib.aclosing(asked.astream(question)) as stream:
            chunks += [chunk async for chunk in stream]
    except Exception as error:
        return _of_error(error, _of_chunks(iter(chunks)))
    return _of_chunks(iter(chunks))


def _of_chunks(chunks: Iterator[Any]) -> Seen:
    seen, total, read = Seen(), None, ""
    try:
        for chunk in chunks:
            total = chunk if total is None else total + chunk
            read += str(chunk.get("answer", "") if isinstance(chunk, dict) else chunk.text)
            seen = _of_output(total)
    except Exception as error:
        seen = _of_error(error, seen)
    seen.read = read
    return seen


def _of_batch(outputs: list[Any]) -> Seen:
    marked, spared = outputs
    seen = _of_error(marked) if isinstance(marked, BaseException) else _of_output(marked)
    seen.spared = repr(spared) if isinstance(spared, BaseException) else _of_output(spared).text
    return seen


def _of_output(output: Any) -> Seen:
    if isinstance(output, dict):
        text, data = output.get("answer", ""), output
    else:
        text, data = str(output.text), output.response_metadata
    reasons = {**(data.get("finish_reasons") or {}), "": data.get("finish_reason")}
    return Seen(
        text,
        route=data.get("route"),
        titles=list(data.get("skeleton") or ()),
        errors=dict(data.get("errors") or {}),
        reasons=reasons,
    )


# --- LlamaIndex ------------------------------------------------------------------------------------------


def _sync_http(cell: Cell, steering: Steering, stack: contextlib.ExitStack) -> Any:
    if cell.surface == "openai_like":
        return stack.enter_context(sync_client(steering))
    from fault_matrix.httpx_llm import sync_httpx

    return stack.enter_context(sync_httpx(steering))


async def _async_http(cell: Cell, steering: Steering, stack: contextlib.AsyncExitStack) -> Any:
    if cell.surface == "openai_like":
        return await stack.enter_async_context(async_client(steering))
    from fault_matrix.httpx_llm import async_httpx

    return await stack.enter_async_context(async_httpx(steering))


def _engine(cell: Cell, steering: Steering, **clients: Any) -> Any:
    from llama_index_sot import PromptRouter, SkeletonOfThoughtQueryEngine

    if cell.surface == "openai_like":
        make = open_ai_like
    else:
        from fault_matrix.httpx_llm import httpx_llm as make
    router: Any = {
        "route": lambda: PromptRouter(make(steering, route=True, **clients)),
        "direct": lambda: lambda question: False,
    }.get(cell.stage, lambda: None)()
    prompts = {f"{stage}_template": text.replace("{question}", "{query_str}") for stage, text in PROMPTS.items()}
    return SkeletonOfThoughtQueryEngine.from_defaults(
        make(steering, **clients), router=router, streaming="stream" in cell.way, **prompts, **_settings(cell)
    )


def _ask_engine(cell: Cell, engine: Any) -> Seen:
    response = engine.query(f"{QUESTION} {BAD}")
    if cell.way == "query":
        return _of_response(response, str(response))
    read: list[str] = []
    try:
        read.extend(response.response_gen)
    except Exception as error:
        return _of_error(error, Seen(read="".join(read)))
    return _of_streaming(response, "".join(read))


async def _aask_engine(cell: Cell, engine: Any) -> Seen:
    question = f"{QUESTION} {BAD}"
    if cell.way == "gather":
        answers = [engine.aquery(question), engine.aquery(f"{QUESTION} {GOOD}")]
        marked, spared = await asyncio.gather(*answers, return_exceptions=True)
        seen = _of_error(marked) if isinstance(marked, BaseException) else _of_response(marked, str(marked))
        seen.spared = repr(spared) if isinstance(spared, BaseException) else str(spared)
        return seen
    if cell.way == "events":
        return await _of_events(engine.astream_events(question))
    response = await engine.aquery(question)
    if cell.way == "aquery":
        return _of_response(response, str(response))
    read: list[str] = []
    try:
        async with contextlib.aclosing(response.async_response_gen()) as stream:
            async for text in stream:
                read.append(text)  # noqa: PERF401 - what was read before an error is kept
    except Exception as error:
        return _of_error(error, Seen(read="".join(read)))
    return _of_streaming(response, "".join(read))


async def _of_events(events: AsyncIterator[Any]) -> Seen:
    read: list[str] = []
    async with contextlib.aclosing(events) as stream:  # type: ignore[type-var]
        try:
            async for event in stream:
                if event.class_name() == "AnswerDelta":
                    read.append(event.text)
                elif event.class_name() == "AnswerReady":
                    return _of_response(event.response, str(event.response), "".join(read))
        except Exception as error:
            return _of_error(error, Seen(read="".join(read)))
    raise AssertionError("the events end with AnswerReady")


def _of_streaming(response: Any, read: str) -> Seen:
    # Who reads the pieces has the text; the response says in `final_txt` if some of it is void.
    return _of_response(response, read if response.final_txt is None else response.final_txt, read)


def _of_response(response: Any, text: str, read: str | None = None) -> Seen:
    data = response.metadata["sot"]
    errors = {str(point.index): point.error for point in response.points if point.error}
    if data.get("merge_error"):
        errors["merge"] = data["merge_error"]
    reasons = {str(point.index): point.finish_reason for point in response.points}
    return Seen(
        text,
        read,
        route=data["route"],
        titles=[point.title for point in response.points],
        errors=errors,
        reasons={**reasons, "": data.get("finish_reason")},
    )


# --- the command -----------------------------------------------------------------------------------------


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


_TRACEBACK = re.compile(r"^Traceback ", re.MULTILINE)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def _ask_command(cell: Cell, steering: Steering) -> Seen:
    from skeleton_of_thought import cli

    out, err = (_Terminal() if cell.way == "live" else io.StringIO() for _ in range(2))
    environment = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40", "OPENAI_API_KEY": "none"}
    with (
        command_client(steering),
        mock.patch.dict("os.environ", environment),
        _prompt_file() as prompts,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.main(_command_line(cell, steering, prompts))
    return _of_command(cell, code, out.getvalue(), err.getvalue())


def _command_line(cell: Cell, steering: Steering, prompts: str) -> list[str]:
    policy = cell.policy
    question = f"What is 17 + 25? {BAD}" if cell.stage == "direct" else f"{QUESTION} {BAD}"
    words = ["ask", question, "--model", f"openai:model@{steering.server.address}", "--prefill", "no"]
    words += ["--prompts", prompts, "--retries", str(policy.max_retries), "--on-point-error", policy.on_point_error]
    words += [] if cell.stage == "direct" else ["--no-router"]
    words += ["--merge"] if cell.stage == "merge" else []
    words += ["--point-timeout", str(policy.point_timeout)] if policy.point_timeout is not None else []
    return words + {"json": ["--json"], "events": ["--json", "--stream"], "plain": ["--plain"], "live": []}[cell.way]


@contextlib.contextmanager
def _prompt_file() -> Iterator[str]:
    import tempfile

    prompts = {
        "outline_prompt": "[skeleton] {request}",
        "point_prompt": "[point {point}] {point_outline}: {request}",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(prompts, file)
        file.flush()
        yield file.name


def _of_command(cell: Cell, code: int, out: str, err: str) -> Seen:
    seen = Seen()
    if cell.way in ("json", "events"):
        lines = [json.loads(line) for line in out.splitlines()]
        data = lines[-1]
        answer = (data.get("answer") or {}) if cell.way == "events" else data
        expansions = answer.get("expansions", ())
        seen = Seen(
            answer.get("text") or answer.get("answer") or "",
            route=answer.get("route"),
            titles=[expansion["title"] for expansion in expansions],
            errors={str(expansion["index"]): expansion["error"] for expansion in expansions if expansion.get("error")},
        )
        if cell.way == "events":
            seen.read = "".join(line["text"] for line in lines[:-1] if line["event"] == "AnswerDelta")
    else:
        seen.text = _ESCAPES.sub("", out) if cell.way == "live" else out.removesuffix("\n")
        seen.read = None if cell.way == "live" else seen.text
    if code or _TRACEBACK.search(err):
        seen.error = f"exit code {code}: {err}"
    return seen
