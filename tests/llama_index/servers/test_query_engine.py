"""The query engine over `OpenAILike` on a real server, llama.cpp, checked against the server's own counts."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from llama_index_sot import SkeletonOfThoughtQueryEngine

pytestmark = pytest.mark.model

QUESTION = "How can I improve my time management skills?"
TITLES = ["Plan the day", "Take breaks", "Say no", "Sleep well"]
LIST = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
WAYS = ("query", "aquery", "stream", "astream")


class Skeleton(CustomLLM):
    """Writes the skeleton, so that the points are known."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=LIST)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield CompletionResponse(text=LIST, delta=LIST)


async def answered(way: str, llm: Any, **settings: Any) -> Any:
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm, router=None, streaming="stream" in way, **settings)
    if way == "query":
        return engine.query(QUESTION)
    if way == "stream":
        return engine.query(QUESTION).get_response()
    response = await engine.aquery(QUESTION)
    return await response.get_response() if way == "astream" else response


@pytest.mark.parametrize("way", WAYS)
async def test_one_llm_writes_a_whole_answer(open_ai_like, way):
    llm = open_ai_like(max_tokens=40)
    template = f"{{query_str}}\n\nCopy this list, and write nothing else:\n\n{LIST}"
    response = await answered(way, llm, skeleton_template=template, max_points=4)
    assert [point.title for point in response.points] == TITLES
    assert all(point.text and point.error is None for point in response.points)
    assert str(response).startswith(f"1. {TITLES[0]}: {response.points[0].text}\n\n2. {TITLES[1]}")
    assert response.metadata["sot"]["route"] == "skeleton"
    assert response.metadata["sot"]["concurrency"] == ("async" if way.startswith("a") else "thread")


@pytest.mark.parametrize(
    ("way", "workers"), [("query", 8), ("aquery", 8), ("aquery", 2), ("stream", 2), ("astream", 8)]
)
async def test_the_server_decodes_points_side_by_side(llama, open_ai_like, way, workers):
    # Without an end of text every point lasts long enough for the check.
    point_llm = open_ai_like(max_tokens=12, extra_body={"ignore_eos": True})
    with llama.watched() as samples:
        response = await answered(way, Skeleton(), point_llm=point_llm, num_workers=workers)
    assert [point.title for point in response.points] == TITLES
    assert 1 < max(samples) <= min(workers, len(TITLES))
    assert llama.busy() == 0


@pytest.mark.parametrize("way", ["query", "aquery"])
async def test_usage_equals_the_servers_own_counts(llama, open_ai_like, way):
    before = llama.metrics()
    response = await answered(way, Skeleton(), point_llm=open_ai_like(max_tokens=4))
    after = llama.metrics()
    usage = response.metadata["sot"]["usage"]
    assert usage["input_tokens"] == after["prompt_tokens_total"] - before["prompt_tokens_total"] > 0
    assert usage["output_tokens"] == after["tokens_predicted_total"] - before["tokens_predicted_total"] > 0


async def test_closing_the_events_frees_the_servers_slots(llama, open_ai_like, eventually):
    point_llm = open_ai_like(max_tokens=400, extra_body={"ignore_eos": True})
    engine = SkeletonOfThoughtQueryEngine.from_defaults(Skeleton(), point_llm=point_llm, router=None)
    async with contextlib.aclosing(engine.astream_events(QUESTION)) as events:
        async for event in events:
            if event.class_name() == "PointDelta":
                break
    await eventually(lambda: llama.busy() == 0, "the slots are free")
