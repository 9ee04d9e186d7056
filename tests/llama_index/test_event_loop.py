"""Which async methods block the event loop, as seen in their code."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.retrievers import VectorIndexRetriever

from llama_index_sot.event_loop import is_truly_async


class Methods:
    async def awaits(self):
        return await asyncio.sleep(0)

    async def iterates(self, stream):
        return [item async for item in stream]

    async def enters(self, lock):
        async with lock:
            return 1

    async def returns_a_stream(self, stream):
        async def items():
            async for item in stream:
                yield item

        return items()

    @llm_chat_callback()
    async def decorated(self, messages):
        return await asyncio.sleep(0)

    async def works(self):
        return sum(range(10))

    async def returns_a_blocking_stream(self, stream):
        async def items():
            for item in stream:
                yield item

        return items()

    @llm_chat_callback()
    async def decorated_work(self, messages):
        return sum(range(10))


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("awaits", True),
        ("iterates", True),
        ("enters", True),
        ("returns_a_stream", True),
        ("decorated", True),
        ("works", False),
        ("returns_a_blocking_stream", False),
        ("decorated_work", False),
    ],
)
def test_methods_that_await_are_async(method, wanted):
    assert is_truly_async(Methods(), method) == wanted


@pytest.mark.parametrize("method", ["acomplete", "achat", "astream_complete", "astream_chat"])
def test_custom_llms_block_by_default(method):
    assert not is_truly_async(MockLLM(), method)
    assert not is_truly_async(CustomLLM, method)


def test_a_vector_index_retriever_is_async():
    assert is_truly_async(VectorIndexRetriever, "_aretrieve")


def test_native_methods_count_as_async():
    assert is_truly_async(object(), "__repr__")
    assert is_truly_async(object(), "missing")
