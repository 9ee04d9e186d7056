"""The timings of an answer, by every method that runs the chain."""

from __future__ import annotations

import json

import pytest
from always import skeleton_chain
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from skeleton_of_thought import Timeline
from skeleton_of_thought.types import Decoding

TITLES = ["Take breaks", "Move"]
SKELETON = Decoding(waiting=0.0, prefill=0.5, decode=1.0, steps=10, mean_rows=1.0, output_tokens=10)
POINTS = {
    1: Decoding(waiting=0.25, prefill=0.5, decode=2.0, steps=30, mean_rows=2.0, output_tokens=30),
    2: Decoding(waiting=0.25, prefill=0.5, decode=1.0, steps=10, mean_rows=4.0, output_tokens=10),
}


def in_order(span):
    return 0 <= span["start"] <= span["first"] <= span["end"]


async def test_every_method_reports_timings(way, kit):
    timings = (await way(skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES))), "Why?"))["timings"]
    assert list(timings) == ["total", "first_text", "stages", "decoding", "points"]
    assert list(timings["stages"]) == ["skeleton", "point"]
    assert all(in_order(span) for span in timings["stages"].values())
    assert timings["stages"]["skeleton"]["start"] <= timings["first_text"] <= timings["total"]
    assert timings["stages"]["point"]["end"] <= timings["total"]
    assert timings["decoding"] == {}
    assert [point["title"] for point in timings["points"]] == TITLES
    assert all(in_order(point["written"]) for point in timings["points"])
    assert json.loads(json.dumps(timings)) == timings


async def test_every_method_gives_a_time_line(way, kit):
    result = await way(skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES))), "Why?")
    bars = Timeline.of(result, normal=3.0).bars
    assert [bar.shortened(40) for bar in bars] == ["skeleton", "1. Take breaks", "2. Move", "normal decoding"]


def test_a_message_of_the_chat_model_has_a_time_line(kit):
    model = skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES))).as_chat_model()
    whole, streamed = model.invoke("Why?"), kit.total(model.stream("Why?"))
    for message in (whole, streamed):
        assert len(Timeline.of(message).bars) == len(Timeline.of(message.response_metadata).bars) == 3


async def test_an_answer_without_any_text_has_timings_too(way, kit):
    message = AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": "1"}])
    llm = FakeMessagesListChatModel(responses=[message])
    output = await way(skeleton_chain(llm=llm, router=lambda q: False), "Why?")
    assert output["answer"] == ""
    assert list(output["timings"]["stages"]) == ["route", "direct"]
    assert output["timings"]["first_text"] is None


def test_timings_come_last_in_a_stream_and_not_in_other_picks(kit):
    chain = skeleton_chain(llm=kit.Chat(script=kit.answering(TITLES)))
    *before, last = chain.stream("Why?")
    assert list(last) == [*kit.END, "reason"]
    assert not any(chunk.get("timings") or chunk.get("reason") for chunk in before)
    assert all(isinstance(text, str) for text in chain.pick("answer").stream("Why?"))
    assert kit.total(chain.pick("timings").stream("Why?"))["stages"].keys() == {"skeleton", "point"}


@pytest.fixture
def decoding_llm(kit):
    """A model whose messages report an engine's decoding, like those of `ChatTransformers`."""

    class Told(kit.Chat):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            (generation,) = super()._generate(messages, stop, run_manager, **kwargs).generations
            message = generation.message
            seen = self.watch.seen[-1]
            decoding = POINTS[seen.point] if seen.stage == "point" else SKELETON
            metadata = {**message.response_metadata, "decoding": decoding.to_dict()}
            recorded = AIMessage(message.text, usage_metadata=message.usage_metadata, response_metadata=metadata)
            return ChatResult(generations=[ChatGeneration(message=recorded)])

    return Told(script=kit.answering(TITLES))


def test_decoding_is_summed_over_the_points(decoding_llm):
    # One call at a time: the model identifies a call as the one that began last.
    output = skeleton_chain(llm=decoding_llm).invoke("Why?", {"max_concurrency": 1})
    assert output["timings"]["decoding"] == {
        "skeleton": SKELETON.to_dict(),
        "point": Decoding(0.5, 1.0, 3.0, 40, 2.5, 40).to_dict(),
    }


def test_an_answer_out_of_the_cache_took_no_decoding(decoding_llm):
    chain = skeleton_chain(llm=decoding_llm.model_copy(update={"cache": InMemoryCache()}))
    first, second = (chain.invoke("Why?", {"max_concurrency": 1}) for _ in range(2))
    assert len(decoding_llm.watch.seen) == 3
    assert first["answer"] == second["answer"]
    assert set(first["timings"]["decoding"]) == {"skeleton", "point"}
    assert second["timings"]["decoding"] == {}


@pytest.mark.parametrize("metadata", [{"decoding": "greedy"}, {"decoding": {"steps": 3}}, {"decoding": None}])
def test_other_decoding_metadata_is_ignored(kit, metadata):
    class Other(kit.Chat):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            result.generations[0].message.response_metadata.update(metadata)
            return result

    output = skeleton_chain(llm=Other(script=kit.answering(TITLES))).invoke("Why?")
    assert output["timings"]["decoding"] == {}
