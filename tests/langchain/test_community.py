"""Parts of langchain-community that are still in use: its cache, and its llama.cpp model."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.rate_limiters import BaseRateLimiter

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it announces its end
    community = pytest.importorskip("langchain_community", reason="langchain-community is in the dev group only")
    from langchain_community.cache import SQLiteCache
    from langchain_community.chat_models import ChatLlamaCpp

TITLES = ["Take breaks", "Move"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Move: All about move."


@pytest.fixture
def sqlite_cache(tmp_path: Any) -> Iterator[SQLiteCache]:
    before = get_llm_cache()
    cache = SQLiteCache(str(tmp_path / "cache.db"))
    set_llm_cache(cache)
    yield cache
    set_llm_cache(before)
    cache.engine.dispose()


# The cache's own loads and its connections in other threads
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
async def test_a_cache_in_a_file_answers_the_second_time(kit: Any, sqlite_cache: SQLiteCache) -> None:
    llm = kit.Chat(script=kit.answering(TITLES))
    chain = skeleton_chain(llm=llm)
    first = chain.invoke("Q")
    assert first["answer"] == ANSWER
    assert len(llm.watch.seen) == 3
    second, third = await chain.ainvoke("Q"), chain.batch(["Q"])[0]
    assert kit.untimed(first) == kit.untimed(second) == kit.untimed(third)
    assert len(llm.watch.seen) == 3
    chain.invoke("Another question")
    assert len(llm.watch.seen) == 6


class Llama:
    """The part of `llama_cpp.Llama` that `ChatLlamaCpp` uses. Two threads must not use it at once."""

    def __init__(self, model_path: str, **params: Any) -> None:
        self.calls = self.crashes = 0
        self._busy = threading.Lock()

    def create_chat_completion(self, messages: list[dict[str, Any]], stream: bool = False, **params: Any) -> Any:
        pieces = self._pieces(messages[-1]["content"])
        if stream:
            return self._stream(pieces)
        with self._alone():
            message = {"role": "assistant", "content": "".join(pieces)}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            self.crashes += 1
            raise AssertionError("two calls at once: the real one would crash")
        try:
            self.calls += 1
            time.sleep(0.002)  # time for another thread to come
            yield
        finally:
            self._busy.release()

    def _stream(self, pieces: list[str]) -> Iterator[dict[str, Any]]:
        with self._alone():
            for piece in pieces:
                yield {"choices": [{"delta": {"role": "assistant", "content": piece}, "finish_reason": None}]}
            yield {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]}

    @staticmethod
    def _pieces(prompt: str) -> list[str]:
        if point := re.search(r'under the heading "(.*?)":', prompt):
            return ["All about ", f"{point[1].lower()}."]
        return [f"{i}. {title}\n" for i, title in enumerate(TITLES, 1)]


@pytest.fixture
def llama_cpp(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.ModuleType("llama_cpp")
    module.Llama = Llama  # type: ignore[attr-defined]
    module.LlamaGrammar = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    return ChatLlamaCpp(model_path="any.gguf")


async def test_a_llama_cpp_model_in_this_process_gets_one_call_at_a_time(way: Any, llama_cpp: Any) -> None:
    assert (await way(skeleton_chain(llm=llama_cpp), "Q"))["answer"] == ANSWER
    assert (llama_cpp.client.calls, llama_cpp.client.crashes) == (3, 0)


class Counting(BaseRateLimiter):
    """Lets every call through, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        with self._lock:
            self.count += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire(blocking=blocking)


async def test_each_call_acquires_the_rate_limiter_once(way: Any, kit: Any) -> None:
    limiter = Counting()
    llm = kit.Chat(script=kit.answering(TITLES), rate_limiter=limiter)
    assert (await way(skeleton_chain(llm=llm), "Q"))["answer"] == ANSWER
    assert limiter.count == 1 + len(TITLES)
