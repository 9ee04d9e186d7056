"""Settings, prompts, routers and prefill."""

from __future__ import annotations

import json

import pytest
from always import skeleton_chain
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_sot.templates import prompt_set
from skeleton_of_thought import PromptSet
from skeleton_of_thought.types import Conversation, Point, RouteDecision, Skeleton


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(["Take breaks", "Move"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_points": 0}, "max_points must be a whole number of at least 1"),
        ({"min_points": 11}, "min_points"),
        ({"max_retries": -1}, "max_retries"),
        ({"backoff": -1}, "backoff"),
        ({"point_timeout": 0}, "point_timeout"),
        ({"on_point_error": "ignore"}, "on_point_error"),
        ({"prefill": "maybe"}, "prefill"),
        ({"router": 7}, "router is int"),
        ({"max_pionts": 3}, "max_pionts"),
        ({"llm": "gpt"}, "llm"),
        ({"skeleton_prompt": "Make a list."}, "question"),
        ({"point_prompt": PromptTemplate.from_template("Write about {question}.")}, "{index} or {title}"),
        ({"retrieval": "once"}, "needs a retriever"),
        ({"retriever": 7}, "retriever is int"),
    ],
)
def test_bad_settings_are_refused_when_the_chain_is_made(llm, settings, message):
    with pytest.raises(ValueError, match=message):
        skeleton_chain(**{"llm": llm, **settings})


# --- prompts ---


def marked(text):
    """A prompt that the scripted model can tell apart."""
    return f"{text} (outline of an answer)"


async def test_strings_serve_as_prompts(way, llm):
    chain = skeleton_chain(
        llm=llm, skeleton_prompt=marked("Outline {question}!"), point_prompt="The point to write: {index}. {title}!"
    )
    await way(chain, "Why {so}?")
    assert llm.watch.of("skeleton")[0].text == marked("Outline Why {so}?!")
    assert {s.text for s in llm.watch.of("point")} == {"The point to write: 1. Take breaks!"} | {
        "The point to write: 2. Move!"
    }


async def test_langchain_templates_serve_as_prompts(way, llm):
    chain = skeleton_chain(
        llm=llm,
        skeleton_prompt=ChatPromptTemplate.from_messages(
            [("system", "Be brief."), ("human", marked("Outline {question}, {max_points}"))]
        ),
        point_prompt=PromptTemplate.from_template("{skeleton}\nThe point to write: {index}. {title}, {words} {count}"),
    )
    await way(chain, {"question": "Why {so}?", "chat_history": [SystemMessage("Be kind."), AIMessage("Hi")]})
    texts = [m.text for m in llm.watch.of("skeleton")[0].messages]
    assert texts == ["Be kind.\n\nBe brief.", "Hi", marked("Outline Why {so}?, 10")]
    (second,) = llm.watch.of("point", 2)
    assert second.text == "1. Take breaks\n2. Move\nThe point to write: 2. Move, 40 2"


def test_a_history_placeholder_is_where_the_history_goes(llm):
    template = ChatPromptTemplate.from_messages(
        [("human", "Before"), MessagesPlaceholder("chat_history"), ("human", marked("{question}"))]
    )
    hi = AIMessage("Hi", id="1")
    skeleton_chain(llm=llm, skeleton_prompt=template).invoke({"question": "Q", "chat_history": [hi]})
    sent = llm.watch.of("skeleton")[0].messages
    assert [m.text for m in sent] == ["Before", "Hi", marked("Q")]
    assert sent[1] is hi


@pytest.mark.parametrize("prefill", [True, False])
def test_an_ai_message_at_a_templates_end_is_the_start_of_the_models_turn(llm, prefill):
    template = ChatPromptTemplate.from_messages([("human", marked("{question}")), ("ai", "1.")])
    skeleton_chain(llm=llm, skeleton_prompt=template, prefill=prefill).invoke("Q")
    sent = [(m.type, m.text) for m in llm.watch.of("skeleton")[0].messages]
    if prefill:
        assert sent == [("human", marked("Q")), ("ai", "1.")]
    else:
        assert sent == [("human", marked("Q") + "\n\nBegin your answer with: 1.")]


@pytest.mark.parametrize("own", [False, True])
def test_a_context_of_the_core_s_reaches_templates_that_do_not_know_of_it(own):
    template = ChatPromptTemplate.from_messages([("human", "{question}\n\n{skeleton}\n\nWrite {title}."), ("ai", "So")])
    prompts = prompt_set(PromptSet(context="[{context}]"), None, template)
    points = (Point(1, "Sleep"), Point(2, "Eat"))
    prompt = prompts.point_prompt(
        Conversation.of("Why {so}?"),
        Skeleton(points),
        points[1],
        max_points=10,
        words=40,
        prefill=True,
        context="{facts}",
        own_context=own,
    )
    (turn,) = prompt.messages
    before = ("", "[{facts}]\n\n") if own else ("[{facts}]\n\n", "")
    assert turn.text == f"{before[0]}Why {{so}}?\n\n1. Sleep\n2. Eat\n\n{before[1]}Write Eat."
    # The framework's message lacks the context and must not be sent instead.
    assert turn.raw is None
    assert prompt.prefill == "So"


def test_the_chain_takes_the_papers_prompt_files(llm, tmp_path):
    file = tmp_path / "prompts.json"
    prompts = {
        "outline_prompt": marked("{request}") + "[ROLESWITCHING assistant:]1.",
        "point_prompt": "The point to write: {point}. {point_outline}[ROLESWITCHING assistant:]{point}.",
    }
    file.write_text(json.dumps(prompts))
    output = skeleton_chain(llm=llm, prompts=PromptSet.from_json(file)).invoke("Q")
    assert output["skeleton"] == ["Take breaks", "Move"]


def test_another_model_may_write_the_points(kit, llm):
    other = kit.Chat(script=lambda seen: ["Other words."])
    output = skeleton_chain(llm=llm, point_llm=other).invoke("Q")
    assert output["points"] == {"1": "Other words.", "2": "Other words."}
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton"]


# --- prefill ---


async def test_no_prefill_for_models_that_are_not_known_to_continue_it(way, llm):
    await way(skeleton_chain(llm=llm), "Q")
    assert all(seen.messages[-1].type == "human" for seen in llm.watch.seen)
    assert all(seen.kwargs == {} for seen in llm.watch.seen)


async def test_a_forced_prefill_is_a_trailing_ai_message(way, llm):
    llm.script = lambda seen: [" Take breaks\n2. Move"] if seen.stage == "skeleton" else [" Text."]
    output = await way(skeleton_chain(llm=llm, prefill=True), "Q")
    assert output["skeleton"] == ["Take breaks", "Move"]
    assert llm.watch.of("skeleton")[0].messages[-1] == AIMessage("1.")
    assert llm.watch.of("point", 2)[0].messages[-1] == AIMessage('"Move" -')


async def test_arguments_of_a_call_reach_the_model(llm):
    chain = skeleton_chain(llm=llm)
    chain.invoke("Q", user="me")
    await chain.bind(user="me").ainvoke("Q")
    assert all(seen.kwargs == {"user": "me"} for seen in llm.watch.seen)


# --- routers ---


class OwnRouter:
    def route(self, conversation):
        return RouteDecision("list" in conversation.question)

    async def aroute(self, conversation):
        return self.route(conversation)


async def asynchronous(question):
    return "list" in question


class Callable:
    async def __call__(self, question):
        return "list" in question


@pytest.mark.parametrize(
    "router",
    [
        lambda question: "list" in question,
        asynchronous,
        Callable(),
        OwnRouter(),
        RunnableLambda(lambda question: "list" in question),
        RunnableLambda(lambda question: RouteDecision("list" in question, reason="x")),
        RunnableLambda(lambda q: q) | (lambda q: "list" in q),
    ],
)
async def test_the_chain_takes_routers_of_all_kinds(way, llm, router):
    chain = skeleton_chain(llm=llm, router=router)
    assert (await way(chain, "A list, please"))["route"] == "skeleton"
    assert (await way(chain, "Prove it"))["route"] == "direct"


@pytest.mark.parametrize(
    "router",
    [RunnableLambda(lambda question: 1 / 0), RunnableLambda(lambda question: AIMessage("no"))],
)
async def test_a_failed_router_leads_to_a_direct_answer(way, llm, router):
    assert (await way(skeleton_chain(llm=llm, router=router), "Q"))["route"] == "direct"


# --- loops ---


@pytest.mark.parametrize(("stop_loops", "times"), [(True, 2), (False, 40)])
async def test_a_looping_direct_answer_is_ended_on_request(kit, way, stop_loops, times):
    again = "It is a good day to be outside. "
    llm = kit.Chat(script=lambda seen: [again] * 40)
    chain = skeleton_chain(llm=llm, router=lambda question: False, stop_loops=stop_loops)
    assert (await way(chain, "Q"))["answer"].strip() == (again * times).strip()
    assert llm.watch.open == 0
