"""The chain over a real server, llama.cpp with the demo model, checked against the server's own counts."""

from __future__ import annotations

import pytest
from always import skeleton_chain
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage

pytestmark = pytest.mark.model

QUESTION = "How can I improve my time management skills?"
TITLES = ["Plan the day", "Take breaks", "Say no", "Sleep well"]
FLAGS = {"continue_final_message": True, "add_generation_prompt": False}


@pytest.fixture
def llm(llama, chat):
    """`llm(**settings)`: greedy, and with the retries of its client, since the server drops connections at times."""

    def make(**settings):
        body = {"cache_prompt": False, **settings.pop("extra_body", {})}
        known = {"temperature": 0, "max_tokens": 8, "max_retries": 3, "stream_usage": True}
        return chat(llama.address, extra_body=body, **{**known, **settings})

    return make


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream"])
async def test_the_server_writes_a_whole_answer(llm, ways, name):
    cached = {"cache_prompt": True}
    chain = skeleton_chain(
        llm=llm(max_tokens=24, extra_body=cached), point_llm=llm(extra_body=cached), prefill=True, max_points=2
    )
    output = await ways[name](chain, QUESTION)
    assert output["route"] == "skeleton"
    assert len(output["skeleton"]) == 2
    assert output["errors"] == {}
    assert output["answer"].startswith(f"1. {output['skeleton'][0]}")
    assert all(output["points"].values())


@pytest.mark.parametrize("name", ["invoke", "astream"])
async def test_usage_equals_the_servers_own_counts(llama, llm, ways, name):
    before, counted = llama.metrics(), UsageMetadataCallbackHandler()
    chain = skeleton_chain(llm=llm(max_tokens=3))
    await ways[name](chain.expansion(TITLES), QUESTION, {"callbacks": [counted]})
    after = llama.metrics()
    (usage,) = counted.usage_metadata.values()
    assert usage["input_tokens"] == after["prompt_tokens_total"] - before["prompt_tokens_total"] > 0
    assert usage["output_tokens"] == after["tokens_predicted_total"] - before["tokens_predicted_total"] > 0


@pytest.mark.parametrize(("name", "limit"), [("invoke", None), ("astream", None), ("ainvoke", 2), ("stream", 2)])
async def test_the_server_decodes_points_side_by_side(llama, llm, ways, name, limit):
    # Without an end of text every point lasts long enough for the check.
    chain = skeleton_chain(llm=llm(max_tokens=10, extra_body={"ignore_eos": True}))
    with llama.watched() as samples:
        output = await ways[name](chain.expansion(TITLES), QUESTION, {"max_concurrency": limit})
    assert set(output) == {"1", "2", "3", "4"}
    assert 1 < max(samples) <= (limit or 4)
    assert llama.busy() == 0


async def test_a_shared_beginning_is_read_from_the_cache(llama, llm):
    chain = skeleton_chain(llm=llm(max_tokens=2, extra_body={"cache_prompt": True}), prefill=True)
    one_by_one = {"max_concurrency": 1}
    chain.expansion(TITLES[:1]).invoke(QUESTION, one_by_one)
    before, counted = llama.metrics(), UsageMetadataCallbackHandler()
    chain.expansion(TITLES).invoke(QUESTION, {**one_by_one, "callbacks": [counted]})
    after = llama.metrics()
    (usage,) = counted.usage_metadata.values()
    cached = usage["input_token_details"]["cache_read"]
    assert cached == after["prompt_tokens_cached_total"] - before["prompt_tokens_cached_total"]
    # Everything except the point's own end of the prompt.
    assert cached > 0.8 * usage["input_tokens"]


async def test_the_start_of_a_turn_is_continued_and_not_repeated(llm, ways):
    turn = [HumanMessage("Name a colour."), AIMessage("My favourite colour is")]
    model = llm(max_tokens=4)
    # The server repeats the prefill, which the chain therefore removes.
    assert model.invoke(turn).text.startswith("My favourite colour is")
    assert not "".join(chunk.text for chunk in model.stream(turn)).strip().startswith("My")

    texts = {}
    for name in ("invoke", "ainvoke", "stream", "astream"):
        chain = skeleton_chain(llm=llm(), prefill=True)
        texts[name] = (await ways[name](chain.expansion(["Sleep well"]), QUESTION))["1"]
    assert len(set(texts.values())) == 1
    assert texts["invoke"]
    assert "Sleep well" not in texts["invoke"][:15]


async def test_the_servers_own_flags_switch_the_prefill_on(llm, ways):
    flagged = skeleton_chain(llm=llm(extra_body=FLAGS))
    forced = skeleton_chain(llm=llm(), prefill=True)
    for name in ("invoke", "astream"):
        texts = [await ways[name](chain.expansion(["Sleep well"]), QUESTION) for chain in (flagged, forced)]
        assert texts[0] == texts[1]
    direct = skeleton_chain(llm=llm(extra_body=FLAGS), router=lambda question: False)
    plain = skeleton_chain(llm=llm(), router=lambda question: False)
    assert direct.invoke(QUESTION)["answer"] == plain.invoke(QUESTION)["answer"] != ""


async def test_closing_an_answer_early_frees_the_servers_slots(llama, llm, eventually):
    model = llm(max_tokens=600, extra_body={"ignore_eos": True})
    stream = skeleton_chain(llm=model).expansion(TITLES).stream(QUESTION)
    for chunk in stream:
        if any(chunk.values()):
            break
    assert llama.busy() > 0
    stream.close()
    await eventually(lambda: llama.busy() == 0, "the server stops the unread answer")
