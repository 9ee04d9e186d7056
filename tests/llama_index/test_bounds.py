"""What one reply may hold, for every kind of LLM and every way to ask."""

from __future__ import annotations

import gc
import itertools

import pytest

from llama_index_sot import SkeletonOfThoughtQueryEngine
from skeleton_of_thought.errors import InvalidInput

LONG = "word " * 4000


def scripted(LLMClass, *, skeleton="1. Sleep\n2. Eat\n", point="text", direct="Just so."):
    texts = {"skeleton": skeleton, "point": point, "direct": direct}
    return LLMClass(script=lambda seen: [text] if isinstance(text := texts[seen.stage], str) else text)


async def test_a_skeleton_without_list_lines_leads_to_a_direct_answer(ask, LLMClass):
    llm = scripted(LLMClass, skeleton=LONG)
    response = await ask(llm, "Why?", max_skeleton_chars=1000)
    assert (str(response), response.metadata["sot"]["route"]) == ("Just so.", "direct")
    assert llm.watch.open == 0


async def test_a_long_point_is_cut(ask, LLMClass):
    llm = scripted(LLMClass, point=LONG)
    response = await ask(llm, "Why?", max_point_chars=999)
    assert [(point.text, point.finish_reason) for point in response.points] == [(LONG[:999], "max_chars")] * 2


async def test_a_long_direct_answer_is_cut(ask, LLMClass):
    response = await ask(scripted(LLMClass, direct=LONG), "Q", router=lambda query: False, max_answer_chars=999)
    assert str(response) == LONG[:999]
    assert response.metadata["sot"]["finish_reason"] == "max_chars"


async def test_streams_of_endless_replies_end(LLMClass):
    llm = scripted(LLMClass, skeleton=itertools.repeat("word "), direct=itertools.repeat("word "))
    options = {"streaming": True, "router": None, "max_skeleton_chars": 500, "max_answer_chars": 700}
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm=llm, **options)
    assert len("".join(engine.query("Why?").response_gen)) == 700
    response = await engine.aquery("Why?")
    assert len("".join([text async for text in response.async_response_gen()])) == 700
    # LlamaIndex's own wrapper of a stream leaves the stream inside of it to the collector.
    gc.collect()
    assert llm.watch.open == 0


@pytest.mark.parametrize("name", ["max_skeleton_chars", "max_point_chars", "max_answer_chars"])
def test_a_limit_that_cannot_work_is_refused_when_the_engine_is_made(kit, name):
    with pytest.raises(InvalidInput, match=name):
        SkeletonOfThoughtQueryEngine.from_defaults(llm=scripted(kit.SyncLLM), **{name: 0})
