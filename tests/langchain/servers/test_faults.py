"""A server breaks for one point: the others keep their text, and nothing stays open."""

from __future__ import annotations

import asyncio
from itertools import accumulate

import pytest
from always import skeleton_chain
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.output_parsers import StrOutputParser

from skeleton_of_thought.budget import MAX_WAITS
from skeleton_of_thought.errors import PointError, ReplyError

TEXTS = {
    "1": "All about take breaks, in so many words.",
    "2": "All about move, in so many words.",
    "3": "All about drink water, in so many words.",
}
GAP = "(This point could not be completed.)"
STREAMS = ("stream", "astream")
WHOLE = ("invoke", "ainvoke")

FAILURES = {
    "429": "OpenAIRateLimitError|RateLimitError",
    "500": "OpenAIAPIError|InternalServerError",
    "reset": "OpenAIConnectionError|OpenAIAPIConnectionError|APIConnectionError|ReadError|RemoteProtocolError",
    "hang_up": "OpenAIConnectionError|OpenAIAPIConnectionError|APIConnectionError|RemoteProtocolError",
    "cut": "ConnectionError|JSONDecodeError",
    "garbage": "UnicodeDecodeError|JSONDecodeError|ValueError|APIResponseValidationError",
    "truncated": "JSONDecodeError|ValueError",
    "error": "APIError|ValueError",
    "empty": "ValueError|IndexError",
}
"""Each fault that ends by itself, and the client's errors for it, streamed and whole."""

ENDINGS = ("null_delta", "empty_choices", "no_end")
"""How servers end a complete stream without a reason that the client passes on."""

pytestmark = pytest.mark.usefixtures("nothing_left")
EVERYWHERE = pytest.mark.parametrize("name", [*WHOLE, *STREAMS])


@EVERYWHERE
@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failed_point_leaves_the_others_complete(server, chat, fault, ways, name, kind):
    server.faults[2] = fault(kind)
    chain = skeleton_chain(llm=chat(server.address), on_point_error="placeholder", max_retries=0)
    output = await ways[name](chain, "Q")
    assert {number: output["points"][number] for number in "13"} == {n: TEXTS[n] for n in "13"}
    assert output["points"]["2"].endswith(GAP)
    assert list(output["errors"]) == ["2"]
    assert output["errors"]["2"].split(":")[0] in FAILURES[kind].split("|"), output["errors"]
    assert f"1. Take breaks: {TEXTS['1']}\n\n2. Move: " in output["answer"]
    assert output["answer"].endswith(f"3. Drink water: {TEXTS['3']}")
    assert [len(server.of("point", i)) for i in (1, 2, 3)] == [1, 1, 1]


@EVERYWHERE
@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failed_point_is_retried(server, chat, fault, ways, name, kind):
    server.faults[2] = fault(kind, times=2)
    # An earlier point's text would be shown, and a point with shown text is not retried.
    server.holds[1] = lambda: len(server.of("point", 2)) == 3
    chain = skeleton_chain(llm=chat(server.address), max_retries=2, backoff=0)
    output = await ways[name](chain, "Q")
    assert output["points"] == TEXTS
    assert output["errors"] == {}
    assert [len(server.of("point", i)) for i in (1, 2, 3)] == [1, 3, 1]


@EVERYWHERE
@pytest.mark.parametrize("kind", FAILURES)
async def test_a_raised_error_carries_the_other_points(server, chat, fault, ways, name, kind):
    server.faults[2] = fault(kind)
    chain = skeleton_chain(llm=chat(server.address), max_retries=1, backoff=0)
    # One at a time: the first point is complete when the second fails.
    with pytest.raises(PointError) as caught:
        await ways[name](chain, "Q", {"max_concurrency": 1})
    assert caught.value.point.index == 2
    assert caught.value.answer.expansions[0].text == TEXTS["1"]
    assert type(caught.value.__cause__).__name__ in FAILURES[kind].split("|")
    # In a stream this point was the next one shown: any text of it was out, so it was not retried.
    shown = name in STREAMS and kind not in ("429", "500", "empty")
    assert len(server.of("point", 2)) == (1 if shown else 2)


@pytest.mark.parametrize("name", STREAMS)
async def test_text_written_before_the_fault_is_kept(server, chat, fault, ways, name):
    server.faults[2] = fault("cut")
    chain = skeleton_chain(llm=chat(server.address), on_point_error="placeholder", max_retries=0)
    output = await ways[name](chain, "Q")
    assert output["points"]["2"] == f"All about {GAP}"
    assert output["errors"]["2"] == "ConnectionError: The server's stream ended before its answer was complete."


# --- rate limits -----------------------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}])
async def test_a_refused_point_is_asked_for_again_and_costs_no_retry(server, chat, fault, ways, name, headers):
    server.faults[2] = fault("429", times=3, headers=headers)
    output = await ways[name](skeleton_chain(llm=chat(server.address), max_retries=1, backoff=0), "Q")
    assert output["points"] == TEXTS
    assert output["errors"] == {}
    assert [len(server.of("point", i)) for i in (1, 2, 3)] == [1, 4, 1]


@EVERYWHERE
async def test_a_point_that_is_refused_for_ever_fails(server, chat, fault, ways, name):
    server.faults[2] = fault("429")
    chain = skeleton_chain(llm=chat(server.address), on_point_error="placeholder", max_retries=1, backoff=0)
    output = await ways[name](chain, "Q")
    assert {number: output["points"][number] for number in "13"} == {n: TEXTS[n] for n in "13"}
    assert output["points"]["2"] == GAP
    assert "RateLimitError" in output["errors"]["2"].split(":")[0]
    assert len(server.of("point", 2)) == 1 + MAX_WAITS + 1


@EVERYWHERE
async def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(server, chat, fault, ways, name):
    server.faults[2] = fault("429", headers={"Retry-After": "86400"})
    chain = skeleton_chain(llm=chat(server.address), on_point_error="placeholder", max_retries=1, backoff=0)
    output = await ways[name](chain, "Q")
    assert list(output["errors"]) == ["2"]
    assert len(server.of("point", 2)) == 2


@EVERYWHERE
async def test_a_refused_skeleton_is_asked_for_again(server, chat, fault, ways, name):
    server.faults["skeleton"] = fault("429", times=2, headers={"Retry-After": "0"})
    output = await ways[name](skeleton_chain(llm=chat(server.address), max_retries=1), "Q")
    assert output["points"] == TEXTS
    assert len(server.of("skeleton")) == 3


@EVERYWHERE
async def test_a_refused_direct_answer_is_the_models_own_error(server, chat, fault, ways, name):
    server.faults["direct"] = fault("429")
    with pytest.raises(Exception, match="refused with 429"):
        await ways[name](skeleton_chain(llm=chat(server.address), router=lambda q: False), "Q")
    assert len(server.of("direct")) == 1


@pytest.mark.parametrize("limit", [None, 24])
@pytest.mark.parametrize("kind", ["batch", "abatch", "chat batch", "chat abatch"])
async def test_a_batch_slows_down_together_where_a_server_serves_few(server, chat, kind, limit):
    server.width = 3
    chain = skeleton_chain(llm=chat(server.address))
    asked = chain.as_chat_model() if "chat" in kind else chain
    questions, config = [f"Q{i}" for i in range(20)], {"max_concurrency": limit} if limit else {}
    run = asked.abatch(questions, config) if "abatch" in kind else asyncio.to_thread(asked.batch, questions, config)
    outputs = await run
    expected = "\n\n".join(
        f"{i}. {t}: {TEXTS[str(i)]}" for i, t in enumerate(("Take breaks", "Move", "Drink water"), 1)
    )
    assert [output.text if "chat" in kind else output["answer"] for output in outputs] == [expected] * 20
    # Every request that was refused was sent once more; few were, since all of them slow down when one is.
    assert len(server.seen) == 80 + server.refused
    assert 1 <= server.refused <= 40


# --- waits without an end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [("stall", name) for name in (*WHOLE, *STREAMS)]
    + [("silence", name) for name in (*WHOLE, *STREAMS)]
    + [("endless", name) for name in ("ainvoke", *STREAMS)],
)
async def test_an_endless_point_times_out(server, chat, fault, ways, name, kind):
    server.faults[2] = fault(kind)
    chain = skeleton_chain(llm=chat(server.address), on_point_error="placeholder", max_retries=0, point_timeout=2.5)
    output = await ways[name](chain, "Q")
    assert {number: output["points"][number] for number in "13"} == {n: TEXTS[n] for n in "13"}
    assert output["points"]["2"].endswith(GAP)
    assert output["errors"] == {"2": "PointTimeout: It took longer than point_timeout=2.5 seconds."}


async def test_the_models_own_timeout_applies(server, chat, fault, ways):
    server.faults[2] = fault("stall")
    llm = chat(server.address, timeout=2.0)
    chain = skeleton_chain(llm=llm, on_point_error="placeholder", max_retries=0, point_timeout=60)
    for name in (*WHOLE, *STREAMS):
        output = await ways[name](chain, "Q")
        assert output["errors"]["2"].split(":")[0] in ("OpenAITimeoutError", "APITimeoutError", "ReadTimeout")
        assert output["points"]["3"] == TEXTS["3"]


@pytest.mark.parametrize("name", ["ainvoke", *STREAMS])
async def test_endless_siblings_are_closed_when_a_point_fails(server, chat, fault, ways, name):
    server.faults |= {1: fault("endless"), 2: fault("500"), 3: fault("endless")}
    server.holds[2] = lambda: len(server.of("point")) == 3
    with pytest.raises(PointError):
        await ways[name](skeleton_chain(llm=chat(server.address), max_retries=0), "Q")
    assert len(server.of("point")) == 3


async def test_a_stream_that_is_closed_early_closes_its_connections(server, chat, fault, eventually):
    server.faults |= {1: fault("endless"), 2: fault("endless"), 3: fault("endless")}
    chain = skeleton_chain(llm=chat(server.address))

    def some():
        stream = chain.pick("answer").stream("Q")
        begun = (text.startswith("1. Take breaks: more") for text in accumulate(stream))
        assert any(more and len(server.seen) == 4 for more in begun)
        stream.close()

    await asyncio.to_thread(some)
    await eventually(lambda: server.open == 0, "closed")
    assert len(server.seen) == 4
    stream = chain.astream("Q")
    async for chunk in stream:
        if "more" in chunk.get("answer", "") and len(server.seen) == 8:
            break
    await stream.aclose()
    await eventually(lambda: server.open == 0, "closed")
    assert len(server.seen) == 8


async def test_a_cancelled_task_closes_its_connections(server, chat, fault, eventually):
    server.faults |= {1: fault("stall"), 2: fault("silence"), 3: fault("endless")}
    task = asyncio.create_task(skeleton_chain(llm=chat(server.address)).ainvoke("Q"))
    await eventually(lambda: len(server.of("point")) == 3, "all points are asked for")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- the client's own retries ----------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
async def test_the_clients_retries_come_before_the_chains(server, chat, fault, ways, name, headers):
    server.faults[2] = fault("429", times=1, headers=headers)
    chain = skeleton_chain(llm=chat(server.address, max_retries=1), max_retries=0)
    output = await ways[name](chain, "Q")
    assert output["points"] == TEXTS
    assert [r.headers["x-stainless-retry-count"] for r in server.of("point", 2)] == ["0", "1"]


# --- the other stages ------------------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("kind", ["cut", "reset", "hang_up", "error", "empty", "garbage", *ENDINGS])
async def test_a_direct_answer_ends_as_the_plain_models_does(server, chat, fault, ways, name, kind):
    async def outcome(runnable):
        try:
            return await ways[name](runnable, "Q")
        except Exception as error:
            return type(error).__name__

    server.faults["direct"] = fault(kind)
    llm = chat(server.address)
    plain = await outcome(llm | StrOutputParser())
    chain = skeleton_chain(llm=llm, router=lambda q: False)
    for runnable in (chain.pick("answer"), chain.as_chat_model() | StrOutputParser()):
        assert await outcome(runnable) == plain
    if kind in ENDINGS:
        assert plain == "Just so."


@EVERYWHERE
@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("context", [None, "It rains in Bergen."])
async def test_a_direct_answer_without_an_end_has_broken_off_if_the_models_streams_have_ends(
    server, chat, fault, ways, name, kind, context
):
    # The skeleton's reply says how it ended, and has too few points.
    server.faults["direct"] = fault(kind)
    chain = skeleton_chain(llm=chat(server.address), min_points=4)
    asked = ways[name](chain, {"question": "Q", "context": context})
    if name in STREAMS:
        with pytest.raises(ConnectionError, match="before its answer was complete"):
            await asked
    else:
        output = await asked
        assert (output["route"], output["answer"]) == ("direct", "Just so.")
    assert [request.stage for request in server.seen] == ["skeleton", "direct"]


@EVERYWHERE
@pytest.mark.parametrize("kind", ENDINGS)
async def test_only_the_first_answer_asks_twice_for_a_skeleton_without_an_end(server, chat, fault, ways, name, kind):
    server.faults = dict.fromkeys(["skeleton", 1, 2, 3], fault(kind))
    llm = chat(server.address)
    for extra in (1, 0) if name in STREAMS else (0, 0):
        server.seen.clear()
        output = await ways[name](skeleton_chain(llm=llm, backoff=0), "Q")
        assert output["points"] == TEXTS
        assert len(server.seen) == 4 + extra


async def test_a_whole_reply_says_nothing_about_a_models_streams(server, chat, fault, ways):
    # The client drops the reasons of this server's streams, and gives those of its whole replies.
    server.faults = dict.fromkeys(["skeleton", 1, 2, 3, "direct"], fault("null_delta"))
    llm = chat(server.address)
    for name in ("invoke", "stream", "ainvoke", "astream"):
        assert (await ways[name](skeleton_chain(llm=llm, backoff=0), "Q"))["points"] == TEXTS
        direct = await ways[name](skeleton_chain(llm=llm, router=lambda question: False), "Q")
        assert direct["answer"] == "Just so."


@pytest.mark.parametrize("name", STREAMS)
async def test_a_first_skeleton_that_is_cut_is_asked_for_again(server, chat, fault, ways, name):
    server.faults["skeleton"] = fault("cut", times=1)
    output = await ways[name](skeleton_chain(llm=chat(server.address), backoff=0), "Q")
    assert output["skeleton"] == ["Take breaks", "Move", "Drink water"]
    assert output["points"] == TEXTS
    assert len(server.of("skeleton")) == 2


@pytest.mark.parametrize("name", STREAMS)
async def test_a_direct_stream_that_is_cut_is_an_error_once_the_models_streams_had_ends(
    server, chat, fault, ways, name
):
    llm = chat(server.address)
    chain = skeleton_chain(llm=llm, router=lambda question: False)
    assert (await ways[name](chain, "Q"))["answer"] == "Just so."
    server.faults["direct"] = fault("cut")
    for asked in (chain, chain.as_chat_model()):
        with pytest.raises(ConnectionError):
            await ways[name](asked, "Q")


VOID = ("blank_choices", "null_content", "blank_stop")
"""Replies of servers that are well-formed and have no text."""


@EVERYWHERE
@pytest.mark.parametrize("kind", VOID)
async def test_a_direct_answer_without_text_is_asked_for_again_and_then_an_error(server, chat, fault, ways, name, kind):
    chain = skeleton_chain(llm=chat(server.address), router=lambda question: False, backoff=0)
    raised = IndexError if kind == "blank_choices" and name in WHOLE else ReplyError
    for asked in (chain, chain.as_chat_model()):
        server.faults["direct"] = fault(kind)
        with pytest.raises(raised):
            await ways[name](asked, "Q")
        if raised is ReplyError:
            server.seen.clear()
            server.faults["direct"] = fault(kind, times=1)
            output = await ways[name](asked, "Q")
            assert (output["answer"] if asked is chain else output.text) == "Just so."
            assert len(server.of("direct")) == 2


@EVERYWHERE
@pytest.mark.parametrize("kind", VOID)
@pytest.mark.parametrize("stage", ["skeleton", 2])
async def test_a_skeleton_or_point_without_text_is_asked_for_again(server, chat, fault, ways, name, kind, stage):
    server.faults[stage] = fault(kind, times=1)
    output = await ways[name](skeleton_chain(llm=chat(server.address), backoff=0), "Q")
    assert (output["points"], output["errors"]) == (TEXTS, {})
    assert len(server.seen) == 5


@EVERYWHERE
@pytest.mark.parametrize("kind", ENDINGS)
async def test_a_server_that_never_says_how_a_reply_ended_is_no_broken_one(server, chat, fault, ways, name, kind):
    server.faults = dict.fromkeys(["skeleton", 1, 2, 3, "merge"], fault(kind))
    output = await ways[name](skeleton_chain(llm=chat(server.address)), "Q")
    assert output["points"] == TEXTS
    assert output["errors"] == {}
    assert [len(server.of("point", i)) for i in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("name", STREAMS)
async def test_each_models_server_is_judged_by_its_own_replies(server, chat, fault, ways, name):
    # The skeleton's server says how replies end, and the points' server does not.
    server.faults = dict.fromkeys([1, 2, 3], fault("null_delta"))
    chain = skeleton_chain(llm=chat(server.address), point_llm=chat(server.address), max_retries=0)
    assert (await ways[name](chain, "Q"))["points"] == TEXTS


@EVERYWHERE
@pytest.mark.parametrize("kind", ["500", "empty"])
async def test_a_failed_skeleton_is_retried(server, chat, fault, ways, name, kind):
    server.faults["skeleton"] = fault(kind, times=1)
    output = await ways[name](skeleton_chain(llm=chat(server.address), backoff=0), "Q")
    assert output["points"] == TEXTS
    assert len(server.of("skeleton")) == 2


@EVERYWHERE
async def test_a_skeleton_truncated_by_its_limit_loses_its_last_line(server, chat, fault, ways, name):
    server.faults["skeleton"] = fault("length")
    output = await ways[name](skeleton_chain(llm=chat(server.address)), "Q")
    assert output["skeleton"] == ["Take breaks", "Move"]


# --- complete answers ------------------------------------------------------------------------------------


@EVERYWHERE
async def test_a_stream_without_an_end_mark_is_complete(server, chat, ways, name):
    server.ends = False
    output = await ways[name](skeleton_chain(llm=chat(server.address), max_retries=0), "Q")
    assert output["points"] == TEXTS
    assert output["errors"] == {}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("kind", ["no_reason", "usage_at_the_finish"])
async def test_a_stream_with_usage_is_complete(server, chat, fault, ways, name, kind):
    server.faults = dict.fromkeys((1, 2, 3, "skeleton"), fault(kind))
    chain = skeleton_chain(llm=chat(server.address, stream_usage=True), max_retries=0)
    output = await ways[name](chain, "Q")
    assert output["points"] == TEXTS


@EVERYWHERE
async def test_usage_equals_the_servers_report(server, chat, ways, name):
    counted = UsageMetadataCallbackHandler()
    chain = skeleton_chain(llm=chat(server.address, stream_usage=True))
    await ways[name](chain, "Q", {"callbacks": [counted]})
    (usage,) = counted.usage_metadata.values()
    assert [usage["input_tokens"], usage["output_tokens"]] == server.usage
    assert usage["input_token_details"]["cache_read"] > 0


@EVERYWHERE
async def test_the_error_has_the_usage_of_failed_calls(server, chat, fault, ways, name):
    server.faults[2] = fault("500")
    chain = skeleton_chain(llm=chat(server.address, stream_usage=True), max_retries=0)
    with pytest.raises(PointError) as caught:
        await ways[name](chain, "Q", {"max_concurrency": 1})
    usage = caught.value.answer.usage
    assert [usage.input_tokens, usage.output_tokens] == server.usage
    assert len(server.of("point")) == 2


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_count_nothing_without_stream_usage(server, chat, ways, name):
    llm = chat(server.address)
    counted = UsageMetadataCallbackHandler()
    assert llm.stream_usage is None
    await ways[name](skeleton_chain(llm=llm), "Q", {"callbacks": [counted]})
    assert counted.usage_metadata == {}
    assert all("stream_options" not in request.body for request in server.seen)


@EVERYWHERE
@pytest.mark.parametrize("limit", [None, 2])
async def test_the_server_gets_at_most_the_allowed_number_of_concurrent_calls(server, chat, ways, name, limit):
    server.holds = dict.fromkeys((1, 2, 3), lambda: server.peak >= (limit or 3))
    await ways[name](skeleton_chain(llm=chat(server.address)), "Q", {"max_concurrency": limit})
    assert server.peak == (limit or 3)
    assert len(server.of("point")) == 3
