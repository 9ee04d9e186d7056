"""The prefill: which servers get it, the flags that make them continue it, and the text that they return."""

from __future__ import annotations

import pytest
from always import skeleton_chain
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField

pytestmark = pytest.mark.usefixtures("nothing_left")

FLAGS = {"continue_final_message": True, "add_generation_prompt": False}
BODY = {**FLAGS, "top_k": 5}
TITLES = ["Take breaks", "Move", "Drink water"]


def begun(request):
    """The prefill in this request."""
    last = request.body["messages"][-1]
    return last["content"] if last["role"] == "assistant" else None


def flags(request):
    return {key: request.body[key] for key in FLAGS if key in request.body}


@pytest.mark.parametrize("echo", [True, False])
async def test_a_prefill_that_a_server_repeats_is_removed(server, chat, way, echo):
    server.echo = echo
    output = await way(skeleton_chain(llm=chat(server.address), prefill=True), "Q")
    assert output["skeleton"] == TITLES
    assert output["points"] == {str(i): f"All about {t.lower()}, in so many words." for i, t in enumerate(TITLES, 1)}
    assert begun(server.of("skeleton")[0]) == "1."
    assert begun(server.of("point", 2)[0]) == '"Move" -'


async def test_a_custom_prefill_that_a_server_repeats_is_removed(server, chat, way):
    skeleton = ChatPromptTemplate.from_messages(
        [("human", "{question} Write only the headings."), ("ai", "With pleasure. My headings are:\n1.")]
    )
    point = ChatPromptTemplate.from_messages(
        [("human", 'Write what is under the heading "{title}".'), ("ai", "What I think of it:")]
    )
    chain = skeleton_chain(
        llm=chat(server.address), prefill=True, skeleton_prompt=skeleton, point_prompt=point, eager=True
    )
    output = await way(chain, "Q")
    assert output["skeleton"] == TITLES
    assert output["points"]["2"] == "All about move, in so many words."


def on_the_model(chat, address):
    return chat(address, extra_body=BODY)


def bound(chat, address):
    return chat(address).bind(extra_body=BODY)


def bound_over_the_models_own(chat, address):
    return chat(address, extra_body={"top_k": 9}).bind(extra_body=BODY)


def with_retry(chat, address):
    return chat(address).bind(extra_body=BODY).with_retry(stop_after_attempt=2)


def with_fallbacks(chat, address):
    return chat(address, extra_body=BODY).with_fallbacks([chat(address).bind(extra_body=BODY)])


def configurable(chat, address):
    return chat(address, extra_body=BODY).configurable_fields(temperature=ConfigurableField("warmth"))


KINDS = pytest.mark.parametrize(
    "make", [on_the_model, bound, bound_over_the_models_own, with_retry, with_fallbacks, configurable]
)


@KINDS
async def test_a_server_with_continuation_flags_gets_a_prefill(server, chat, ways, make):
    for name in ("invoke", "astream"):
        await ways[name](skeleton_chain(llm=make(chat, server.address)), "Q")
    assert len(server.seen) == 8
    for request in server.seen:
        assert begun(request) == ("1." if request.stage == "skeleton" else f'"{TITLES[request.point - 1]}" -')
        assert flags(request) == FLAGS
        assert request.body["top_k"] == 5


@KINDS
async def test_calls_that_end_with_the_users_turn_omit_the_flags(server, chat, ways, make):
    llm = make(chat, server.address)
    for name in ("ainvoke", "stream"):
        await ways[name](skeleton_chain(llm=llm, router=lambda q: False), "Q")
        await ways[name](skeleton_chain(llm=llm, prefill=False), "Q")
    assert len(server.of("direct")) == 2
    assert len(server.seen) == 10
    for request in server.seen:
        assert begun(request) is None
        assert flags(request) == {}
        assert request.body["top_k"] == 5


async def test_the_flags_may_come_with_the_call(server, chat):
    chain = skeleton_chain(llm=chat(server.address))
    chain.invoke("Q", extra_body=BODY)
    await chain.bind(extra_body=BODY).ainvoke("Q")
    assert len(server.seen) == 8
    assert all(begun(request) and flags(request) == FLAGS for request in server.seen)


async def test_only_the_model_with_continuation_flags_gets_a_prefill(server, chat, way):
    chain = skeleton_chain(llm=chat(server.address), point_llm=chat(server.address, extra_body=FLAGS))
    await way(chain, "Q")
    assert begun(server.of("skeleton")[0]) is None
    assert all(begun(request) for request in server.of("point"))


async def test_a_prompt_without_a_prefill_omits_the_flags(server, chat, way):
    chain = skeleton_chain(
        llm=chat(server.address, extra_body=FLAGS),
        skeleton_prompt="{question} Write only the headings.",
    )
    await way(chain, "Q")
    assert flags(server.of("skeleton")[0]) == {}
    assert all(flags(request) == FLAGS for request in server.of("point"))


async def test_flags_of_a_fallback_alone_give_no_prefill(server, chat, fault, way):
    server.faults["skeleton"] = fault("500", times=1)
    llm = chat(server.address).with_fallbacks([chat(server.address, extra_body=BODY)])
    output = await way(skeleton_chain(llm=llm), "Q")
    assert output["skeleton"] == TITLES
    assert len(server.seen) >= 5
    for request in server.seen:
        assert begun(request) is None
        assert flags(request) == {}


async def test_a_plain_server_gets_no_prefill(server, chat, way):
    await way(skeleton_chain(llm=chat(server.address)), "Q")
    assert all(begun(request) is None and "extra_body" not in request.body for request in server.seen)
