"""The pairs of `direct.py` for LangChain and LlamaIndex: a scripted model called by its own methods and through us.

Frameworks that are not installed are left out.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from direct import PIECES, Pair

__all__ = ["framework_pairs"]

# Python would import `llama_index.py` beside this file instead of the package.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

QUESTION = "What is 17 * 4?"


def framework_pairs() -> dict[str, Pair]:
    """The pairs of the frameworks that are installed."""
    pairs: dict[str, Pair] = {}
    if importlib.util.find_spec("langchain_core"):
        pairs |= langchain_pairs()
    if importlib.util.find_spec("llama_index"):
        pairs |= llama_index_pairs()
    return pairs


def langchain_pairs() -> dict[str, Pair]:
    """The chain, its `pick("answer")` and its chat model over a LangChain model."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

    from langchain_sot import SkeletonOfThoughtChain

    class Scripted(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "scripted"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(PIECES)))])

        async def _agenerate(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
        ) -> ChatResult:
            return self._generate(messages)

        def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
            for piece in PIECES:
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))

        async def _astream(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
        ) -> AsyncIterator[Any]:
            for piece in PIECES:
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))

    llm = Scripted()
    chain = SkeletonOfThoughtChain(llm=llm)
    model, answer = chain.as_chat_model(), chain.pick("answer")

    def called(runnable: Any, read: Any = lambda output: output.text) -> Any:
        return lambda: iter([read(runnable.invoke(QUESTION))])

    def acalled(runnable: Any, read: Any = lambda output: output.text) -> Any:
        async def pieces() -> AsyncIterator[str]:
            yield read(await runnable.ainvoke(QUESTION))

        return pieces

    def streamed(runnable: Any, read: Any = lambda chunk: chunk.text) -> Any:
        return lambda: (read(chunk) for chunk in runnable.stream(QUESTION))

    def astreamed(runnable: Any, read: Any = lambda chunk: chunk.text) -> Any:
        async def pieces() -> AsyncIterator[str]:
            async for chunk in runnable.astream(QUESTION):
                yield read(chunk)

        return pieces

    return {
        "chain.invoke": Pair(called(llm), called(chain, lambda output: output["answer"])),
        "chain.ainvoke": Pair(acalled(llm), acalled(chain, lambda output: output["answer"])),
        "chain.pick.stream": Pair(streamed(llm), streamed(answer, str)),
        "chain.pick.astream": Pair(astreamed(llm), astreamed(answer, str)),
        "chat model.invoke": Pair(called(llm), called(model)),
        "chat model.ainvoke": Pair(acalled(llm), acalled(model)),
        "chat model.stream": Pair(streamed(llm), streamed(model)),
        "chat model.astream": Pair(astreamed(llm), astreamed(model)),
    }


def llama_index_pairs() -> dict[str, Pair]:
    """The query engine, whole and streamed, over a chat model of LlamaIndex."""
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
    from llama_index.core.llms.callbacks import llm_chat_callback
    from llama_index.core.llms.llm import LLM

    from llama_index_sot import SkeletonOfThoughtQueryEngine

    def response(text: str, delta: str | None = None) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=delta)

    class Scripted(LLM):
        """A chat model with only the methods that are used here."""

        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(is_chat_model=True)

        @llm_chat_callback()
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return response("".join(PIECES))

        @llm_chat_callback()
        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            await asyncio.sleep(0)  # a method that never waits counts as blocking and runs in a thread
            return response("".join(PIECES))

        @llm_chat_callback()
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            def responses() -> Iterator[ChatResponse]:
                for end in range(1, len(PIECES) + 1):
                    yield response("".join(PIECES[:end]), PIECES[end - 1])

            return responses()

        @llm_chat_callback()
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)

            async def responses() -> AsyncIterator[ChatResponse]:
                await asyncio.sleep(0)
                for end in range(1, len(PIECES) + 1):
                    yield response("".join(PIECES[:end]), PIECES[end - 1])

            return responses()

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            raise NotImplementedError

        acomplete = stream_complete = astream_complete = complete  # type: ignore[assignment]

    llm = Scripted()
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm)
    streaming = SkeletonOfThoughtQueryEngine.from_defaults(llm, streaming=True)
    messages = [ChatMessage(role="user", content=QUESTION)]

    async def plain() -> AsyncIterator[str]:
        yield (await llm.achat(messages)).message.content or ""

    async def ours() -> AsyncIterator[str]:
        yield str(await engine.aquery(QUESTION))

    async def plain_stream() -> AsyncIterator[str]:
        async for one in await llm.astream_chat(messages):
            yield one.delta or ""

    async def our_stream() -> AsyncIterator[str]:
        found: Any = await streaming.aquery(QUESTION)
        async for text in found.async_response_gen():
            yield text

    def our_texts() -> Iterator[str]:
        found: Any = streaming.query(QUESTION)
        return iter(found.response_gen)

    return {
        "engine.query": Pair(
            lambda: iter([llm.chat(messages).message.content or ""]), lambda: iter([str(engine.query(QUESTION))])
        ),
        "engine.aquery": Pair(plain, ours),
        "engine.query, streaming": Pair(lambda: (one.delta or "" for one in llm.stream_chat(messages)), our_texts),
        "engine.aquery, streaming": Pair(plain_stream, our_stream),
    }
