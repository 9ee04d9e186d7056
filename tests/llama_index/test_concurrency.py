"""Calls side by side: how many, where, and nothing left running when a reader stops."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.tools import QueryEngineTool

from skeleton_of_thought.budget import MAX_WAITS
from skeleton_of_thought.errors import PointError

TITLES = [f"Point {letter}" for letter in "abcdefgh"]


async def soon(condition, patience=20.0):
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it never came true"
        await asyncio.sleep(0.001)


async def test_all_points_are_in_flight_at_once(ask, LLMClass, kit):
    watch = kit.Watch()
    script = kit.answering(TITLES)
    together = watch.together(8)
    llm = LLMClass(script=lambda seen: [together, *script(seen)] if seen.point else script(seen), watch=watch)
    await ask(llm, "How?")
    assert watch.peak == 8


@pytest.mark.parametrize("workers", [1, 3])
async def test_no_more_calls_than_workers(ask, LLMClass, kit, workers):
    watch = kit.Watch()
    script = kit.answering(TITLES)
    llm = LLMClass(script=lambda seen: [watch.together(workers), *script(seen)] if seen.point else script(seen))
    llm.watch = watch
    await ask(llm, "How?", num_workers=workers)
    assert watch.peak == workers
    assert len(watch.of("point")) == 8


async def test_workers_bound_retrievals_and_calls_together(ask, kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query)], lambda query: retriever.watch.together(3))
    llm = kit.ChatLLM(script=kit.answering(TITLES), watch=retriever.watch)
    await ask(llm, "How?", retriever=retriever, num_workers=3)
    assert retriever.watch.peak == 3


# --- beside an event loop --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["aquery", "astream", "events"])
async def test_a_sync_llm_never_runs_on_the_loop(methods, kit, method):
    beats = []
    watch = kit.Watch()
    script = kit.answering(TITLES)

    def slow(seen):
        # Waits for the loop: on the loop itself, this gate would never open.
        begun = len(beats)
        return [kit.Gate(lambda: len(beats) > begun + 3), *script(seen)]

    async def beat():
        while True:
            beats.append(1)
            await asyncio.sleep(0)

    heart = asyncio.create_task(beat())
    llm = kit.SyncLLM(script=slow, watch=watch)
    response = await methods[method](llm, "How?")
    heart.cancel()
    assert response.metadata["sot"]["concurrency"] == "thread"
    assert not any(seen.on_loop for seen in watch.seen)
    assert len({seen.thread for seen in watch.of("point")}) == 8


async def test_async_methods_that_only_call_the_sync_ones_are_not_used(kit):
    class Pretending(kit.ChatLLM):
        @llm_chat_callback()
        async def achat(self, messages, **kwargs):
            return self.chat(messages, **kwargs)

        @llm_chat_callback()
        async def astream_chat(self, messages, **kwargs):
            async def responses():
                for response in self.stream_chat(messages, **kwargs):
                    yield response

            return responses()

    for streaming in (False, True):
        llm = Pretending(script=kit.answering(TITLES))
        response = await kit.make(llm, streaming=streaming).aquery("How?")
        if streaming:
            response = await response.get_response()
        assert response.metadata["sot"]["concurrency"] == "thread"
        assert not any(seen.on_loop for seen in llm.watch.seen)


async def test_an_async_retriever_that_only_calls_the_sync_one_is_not_used(kit):
    class Pretending(kit.SyncRetriever):
        async def _aretrieve(self, query_bundle):
            return self._retrieve(query_bundle)

    retriever = Pretending(lambda query: [kit.node(query)])
    await kit.make(kit.ChatLLM(script=kit.answering(TITLES)), retriever=retriever).aquery("How?")
    assert len(retriever.watch.seen) == 8
    assert not any(seen.on_loop for seen in retriever.watch.seen)


@pytest.mark.parametrize("wrapped", [False, True], ids=["retriever", "engine"])
async def test_a_local_embedding_model_of_a_vector_index_never_runs_on_the_loop(kit, wrapped):
    loops = []

    class Local(MockEmbedding):
        """Like local embedding models: its async method calls the sync one."""

        def _get_query_embedding(self, query):
            loops.append(kit.seen_as("", method="").on_loop)
            return super()._get_query_embedding(query)

        async def _aget_query_embedding(self, query):
            return self._get_query_embedding(query)

    index = VectorStoreIndex([kit.node("a").node], embed_model=Local(embed_dim=4))
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    source = {"query_engine": index.as_query_engine(llm=llm)} if wrapped else {"retriever": index.as_retriever()}
    response = await kit.make(llm, **source).aquery("How?")
    assert len(response.source_nodes) == 1
    # Two embeddings for each point: the title alone, and the title with the question.
    assert loops == [False] * 16


@pytest.mark.parametrize("method", ["aquery", "astream", "events"])
async def test_an_async_llm_runs_on_the_loop_by_its_own_methods(methods, kit, method):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    response = await methods[method](llm, "How?")
    assert response.metadata["sot"]["concurrency"] == "async"
    assert {seen.method for seen in llm.watch.seen} == {"achat" if method == "aquery" else "astream_chat"}


async def test_threads_can_be_chosen(kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query)])
    response = await kit.make(llm, concurrency="thread", retriever=retriever).aquery("How?")
    assert response.metadata["sot"]["concurrency"] == "thread"
    assert {seen.method for seen in llm.watch.seen} == {"chat"}
    assert not any(seen.on_loop for seen in (*llm.watch.seen, *retriever.watch.seen))


async def test_async_methods_can_be_chosen(kit):
    llm = kit.SyncLLM(script=kit.answering(TITLES))
    response = await kit.make(llm, concurrency="async").aquery("How?")
    assert response.metadata["sot"]["concurrency"] == "async"
    assert all(seen.on_loop for seen in llm.watch.seen)


async def test_the_async_method_of_a_custom_llm_is_used(kit):
    class WithAsync(kit.SyncLLM):
        async def acomplete(self, prompt, formatted=False, **kwargs):
            await asyncio.sleep(0)
            return self.complete(prompt, formatted=formatted, method="acomplete")

    llm = WithAsync(script=kit.answering(TITLES))
    response = await kit.make(llm).aquery("How?")
    assert response.metadata["sot"]["concurrency"] == "async"
    assert all(seen.on_loop for seen in llm.watch.seen)
    llm.watch.seen.clear()
    # It has no async method that streams.
    response = await kit.make(llm, streaming=True).aquery("How?")
    await response.get_response()
    assert response.metadata["sot"]["concurrency"] == "thread"
    assert not any(seen.on_loop for seen in llm.watch.seen)


async def test_a_sync_retriever_and_postprocessor_never_run_on_the_loop(kit):
    loops = []

    class Watching(BaseNodePostprocessor):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            loops.append(kit.seen_as("", method="").on_loop)
            return nodes

    retriever = kit.SyncRetriever(lambda query: [kit.node(query)])
    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)), retriever=retriever, node_postprocessors=[Watching()])
    await engine.aquery("How?")
    assert [seen.method for seen in retriever.watch.seen] == ["retrieve"] * 8
    assert not any(seen.on_loop for seen in retriever.watch.seen)
    assert loops == [False] * 8


class _Together(BaseNodePostprocessor):
    """Waits until the nodes of all points have arrived."""

    gate: Any

    def _postprocess_nodes(self, nodes, query_bundle=None):
        with self.gate.call(None):
            self.gate.together(8).wait()
        return nodes


class _Blocking(_Together):
    async def _apostprocess_nodes(self, nodes, query_bundle=None):
        return self._postprocess_nodes(nodes, query_bundle)


@pytest.mark.parametrize("kind", [_Together, _Blocking])
async def test_sync_postprocessors_run_side_by_side_whatever_the_default_executor(kit, kind):
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    together = kind(gate=kit.Watch())
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query)])
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    await kit.make(llm, retriever=retriever, node_postprocessors=[together], max_retries=0).aquery("How?")
    assert together.gate.peak == 8


# --- the rate limiter ------------------------------------------------------------------------------


class Counting:
    """Counts its acquisitions. It stands for LlamaIndex's `BaseRateLimiter`, which older versions lack."""

    def __init__(self):
        self.taken = 0
        self.lock = threading.Lock()

    def acquire(self, num_tokens=0):
        with self.lock:
            self.taken += 1

    async def async_acquire(self, num_tokens=0):
        self.acquire()


async def test_the_rate_limiter_is_acquired_once_for_each_call(ask, LLMClass, kit):
    if "rate_limiter" not in LLMClass.model_fields:
        pytest.skip("this llama-index-core has no rate limiters")
    llm = LLMClass(script=kit.answering(TITLES), rate_limiter=Counting())
    await ask(llm, "How?")
    assert llm.rate_limiter.taken == len(llm.watch.seen) == 9


async def test_a_custom_llm_that_is_a_chat_model_is_charged_once_for_each_call(ask, kit):
    if "rate_limiter" not in kit.SyncLLM.model_fields:
        pytest.skip("this llama-index-core has no rate limiters")
    meta = LLMMetadata(is_chat_model=True)
    llm = kit.SyncLLM(script=kit.answering(TITLES), rate_limiter=Counting(), meta=meta)
    await ask(llm, "How?")
    assert llm.rate_limiter.taken == len(llm.watch.seen) == 9


# --- servers that limit their rate -----------------------------------------------------------------


class RateLimitError(Exception):
    """A rate limit, as clients of servers name it."""

    status_code = 429


async def test_a_burst_of_refused_points_costs_no_retry(ask, LLMClass, kit):
    watch, refused, served, answer = kit.Watch(), [], [], kit.answering(TITLES)
    burst = kit.Gate(lambda: bool(refused))

    def script(seen):
        with watch.lock:
            if full := len(served) >= 3:
                refused.append(seen)
            else:
                served.append(seen)
        if full:
            return [RateLimitError("too many requests")]
        return leaving([burst, *answer(seen)] if seen.point else answer(seen))

    def leaving(steps):
        try:
            yield from steps
        finally:
            with watch.lock:
                served.pop()

    llm = LLMClass(script=script, watch=watch)
    response = await ask(llm, "How?", max_retries=1, backoff=0.01)
    assert [point.title for point in response.points] == TITLES
    assert all(point.text and point.error is None for point in response.points)
    assert 1 <= len(refused) <= 15
    assert len(watch.seen) == 9 + len(refused)


async def test_a_refused_skeleton_is_asked_for_again(ask, LLMClass, kit):
    refusals, answer = [RateLimitError("slow down")] * 2, kit.answering(TITLES)

    def script(seen):
        return [refusals.pop()] if seen.stage == "skeleton" and refusals else answer(seen)

    response = await ask(LLMClass(script=script), "How?", max_retries=1, backoff=0)
    assert len(response.points) == 8
    assert not refusals


async def test_a_refused_retrieval_is_made_again(ask, kit):
    refusals, lock = [RateLimitError("slow down")] * 3, threading.Lock()

    def found(query):
        with lock:
            if refusals:
                raise refusals.pop()
        return [kit.node(query)]

    llm = kit.ChatLLM(script=kit.answering(TITLES))
    response = await ask(llm, "How?", retriever=kit.AsyncRetriever(found), max_retries=1, backoff=0)
    assert not refusals
    assert len(response.points) == 8
    assert all(point.error is None for point in response.points)


async def test_a_point_that_is_refused_for_ever_follows_the_policy(ask, LLMClass, kit):
    answer = kit.answering(TITLES)
    llm = LLMClass(script=lambda seen: [RateLimitError("no")] if seen.point == 2 else answer(seen))
    response = await ask(llm, "How?", max_retries=1, backoff=0, on_point_error="placeholder")
    assert [point.index for point in response.points if point.error is not None] == [2]
    assert len(llm.watch.of("point", 2)) == 2 + MAX_WAITS


# --- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("LLMName", ["SyncLLM", "ChatLLM"])
async def test_text_comes_early_and_in_order_even_if_the_first_point_is_slow(kit, LLMName):
    last_done, first_read = kit.Gate(), kit.Gate()
    script = kit.answering(["Slow", "Quick"])

    def slow(seen):
        if seen.point == 1:
            return ["Now ", last_done, "done."]
        if seen.point == 2:
            return [first_read, *script(seen), last_done.open]
        return script(seen)

    response = await kit.make(getattr(kit, LLMName)(script=slow), streaming=True).aquery("How?")
    texts = []
    async for text in response.response_gen:
        texts.append(text)
        if "Now" in "".join(texts):
            first_read.open()
    assert "".join(texts) == "1. Slow: Now done.\n\n2. Quick: All about quick."
    assert [point.text for point in response.points] == ["Now done.", "All about quick."]


def test_the_sync_stream_is_in_order_and_early(kit):
    last_done, first_read = kit.Gate(), kit.Gate()

    def slow(seen):
        if seen.point == 1:
            return ["Now ", last_done, "done."]
        if seen.point == 2:
            return [first_read, "Quick.", last_done.open]
        return ["1. One\n2. Two"]

    response = kit.make(kit.SyncLLM(script=slow), streaming=True).query("How?")
    texts = []
    for text in response.response_gen:
        texts.append(text)
        if "Now" in "".join(texts):
            first_read.open()
    assert "".join(texts) == "1. One: Now done.\n\n2. Two: Quick."


async def test_nothing_begins_before_a_stream_is_read(LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    engine = kit.make(llm, streaming=True)
    tasks = len(asyncio.all_tasks())
    response, other = await engine.aquery("How?"), engine.query("How?")
    await asyncio.sleep(0)
    assert llm.watch.seen == []
    assert len(asyncio.all_tasks()) == tasks
    del response, other
    gc.collect()


@pytest.mark.parametrize("retrieval", ["none", "once", "per_point"])
@pytest.mark.parametrize("RetrieverName", ["SyncRetriever", "AsyncRetriever"])
async def test_a_tool_reads_a_streaming_response_while_it_blocks_the_loop(LLMClass, kit, retrieval, RetrieverName):
    llm = LLMClass(script=kit.answering(TITLES))
    settings = {}
    if retrieval != "none":
        settings = {"retrieval": retrieval, "retriever": getattr(kit, RetrieverName)(lambda query: [kit.node(query)])}
    tool = QueryEngineTool.from_defaults(kit.make(llm, streaming=True, **settings))
    output = await asyncio.wait_for(tool.acall("How?"), kit.PATIENCE)
    assert output.content.startswith("1. Point a: All about point a.")
    assert len(output.raw_output.points) == 8
    assert llm.watch.open == 0


async def test_nothing_is_in_flight_when_a_streaming_response_is_returned(LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query)])
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    response = await kit.make(llm, streaming=True, retriever=retriever).aquery("How?")
    assert asyncio.all_tasks() <= tasks
    assert set(threading.enumerate()) <= threads
    assert llm.watch.of("point") == []
    assert len(response.source_nodes) == 8
    await response.get_response()
    assert len(llm.watch.of("point")) == 8


def test_an_error_of_the_llm_keeps_its_type_through_a_tool(LLMClass, kit):
    class OutOfMemory(RuntimeError):
        pass

    tool = QueryEngineTool.from_defaults(
        kit.make(LLMClass(script=lambda seen: [OutOfMemory("no memory")]), streaming=True, max_retries=0)
    )

    async def main():
        with pytest.raises(OutOfMemory):
            await tool.acall("How?")

    asyncio.run(main())


# --- stopping early --------------------------------------------------------------------------------


def endless(kit):
    def script(seen):
        if seen.stage == "skeleton":
            yield "1. One\n2. Two\n3. Three"
            return
        while True:
            yield "and "

    return script


async def test_closing_an_async_stream_leaves_nothing_running(LLMClass, kit):
    llm = LLMClass(script=endless(kit))
    response = await kit.make(llm, streaming=True).aquery("How?")
    stream = response.async_response_gen()
    async for text in stream:
        if "and" in text:
            break
    await stream.aclose()
    await soon(lambda: llm.watch.open == 0)
    assert len(asyncio.all_tasks()) == 1
    assert [point.title for point in response.points] == ["One", "Two", "Three"]


async def test_closing_the_events_leaves_nothing_running(LLMClass, kit):
    llm = LLMClass(script=endless(kit))
    events = kit.make(llm).astream_events("How?")
    async for event in events:
        if event.class_name() == "PointDelta":
            break
    await events.aclose()
    await soon(lambda: llm.watch.open == 0)
    assert len(asyncio.all_tasks()) == 1


def test_closing_a_sync_stream_leaves_nothing_running(LLMClass, kit):
    llm = LLMClass(script=endless(kit))
    threads = set(threading.enumerate())
    response = kit.make(llm, streaming=True).query("How?")
    for text in response.response_gen:
        if "and" in text:
            break
    response.response_gen.close()
    assert llm.watch.open == 0
    assert set(threading.enumerate()) <= threads


async def test_cancelling_a_query_leaves_nothing_running(kit):
    llm = kit.ChatLLM(script=endless(kit))
    query = asyncio.create_task(kit.make(llm).aquery("How?"))
    await soon(lambda: len(llm.watch.of("point")) == 3)
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query
    await soon(lambda: llm.watch.open == 0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_sync_call_that_cannot_be_interrupted_ends_with_its_query(kit):
    release = kit.Gate()
    script = kit.answering(TITLES)
    llm = kit.SyncLLM(script=lambda seen: [release, *script(seen)] if seen.point else script(seen))
    query = asyncio.create_task(kit.make(llm).aquery("How?"))
    await soon(lambda: len(llm.watch.of("point")) == 8)
    query.cancel()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not query.done(), "it waits for its calls"
    release.open()
    with pytest.raises(asyncio.CancelledError):
        await query
    assert llm.watch.open == 0


async def test_a_stream_that_is_being_read_is_not_written_twice(kit):
    response = await kit.make(kit.ChatLLM(script=kit.answering(TITLES)), streaming=True).aquery("How?")
    await anext(response.response_gen)
    with pytest.raises(RuntimeError, match="being streamed"):
        str(response)
    async for _ in response.response_gen:
        pass


def ending(kit, reasons):
    """An LLM whose replies end with these reasons, by stage; others end without one, as after a cut connection."""
    texts = {"skeleton": "1. Move\n2. Drink water", "point": "Half a", "direct": "Half a"}

    def responses(messages):
        asked = messages[-1].content
        stage = "point" if "under the heading" in asked else "skeleton" if "headings" in asked else "direct"
        message = ChatMessage(role="assistant", content=texts[stage])
        raw = {"choices": [{"finish_reason": reasons.get(stage)}]}
        return [ChatResponse(message=message, delta=texts[stage], raw=raw)]

    class Ending(kit.ChatLLM):
        async def astream_chat(self, messages, **kwargs):
            async def stream():
                for response in responses(messages):
                    yield response

            return stream()

        def stream_chat(self, messages, **kwargs):
            return iter(responses(messages))

        def chat(self, messages, **kwargs):
            return responses(messages)[-1]

        async def achat(self, messages, **kwargs):
            return responses(messages)[-1]

    return Ending(script=None)


async def test_a_point_that_breaks_off_is_no_whole_one(ask, kit):
    with pytest.raises(PointError, match="ended before"):
        await ask(ending(kit, {"skeleton": "stop"}), "How?", router=None, max_retries=0)


async def test_an_llm_that_never_says_how_a_reply_ended_is_taken_as_it_is(ask, kit):
    response = await ask(ending(kit, {}), "How?", router=None, max_retries=0)
    assert [point.text for point in response.points] == ["Half a", "Half a"]


async def test_a_direct_answer_ends_as_the_plain_llms_does(ask, kit):
    assert str(await ask(ending(kit, {"skeleton": "stop"}), "How?", router=lambda query: False)) == "Half a"
