"""`PromptRouter` over LangChain's models: its call in the trace, its tokens, failures and race."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.language_models import FakeListChatModel, FakeListLLM

import skeleton_of_thought
from langchain_sot import ChatTransformers, PromptRouter, SkeletonOfThoughtChain, SkeletonOfThoughtRouter
from skeleton_of_thought import first_sure
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Conversation, RouteDecision

TITLES = ["Take breaks", "Drink water", "Move"]
QUESTION = "How do I get through the day?"
CONVERSATION = Conversation.of(QUESTION)


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES, direct="Somehow."))


def saying(kit, *steps):
    """A router's model."""
    return kit.Chat(script=lambda seen: steps)


async def test_the_reply_decides_and_its_call_is_traced(way, kit, llm):
    for word, use in (("INDEPENDENT", True), ("Dependent.", False), ("NONE", False), ("Well, maybe", False)):
        small, runs = saying(kit, word), kit.Runs()
        chain = SkeletonOfThoughtChain(llm=llm, router=PromptRouter(small))
        output = await way(chain, QUESTION, {"callbacks": [runs]})
        assert output["route"] == ("skeleton" if use else "direct")
        assert len(small.watch.seen) == 1
        assert QUESTION in small.watch.seen[0].text
        (root,) = runs.roots
        first = runs.children(root)[0]
        assert (first.name, first.metadata["sot_stage"]) == ("route", "route")
        assert "sot:route" in first.tags
        runs.assert_all_ended_before_the_root()


async def test_the_answers_usage_counts_the_routers_tokens(way, kit, llm):
    model = SkeletonOfThoughtChain(llm=llm, router=PromptRouter(saying(kit, "INDE", "PENDENT"))).as_chat_model()
    message = await way(model, QUESTION)
    stages = message.response_metadata["usage_by_stage"]
    assert stages["route"]["output_tokens"] == 2
    assert sum(usage["total_tokens"] for usage in stages.values()) == message.usage_metadata["total_tokens"]


async def test_a_failed_call_is_reported_and_leads_to_a_direct_answer(way, kit, llm):
    router = PromptRouter(saying(kit, ConnectionError("line cut")))
    output = await way(SkeletonOfThoughtChain(llm=llm, router=router), QUESTION)
    assert (output["answer"], output["route"]) == ("Somehow.", "direct")
    assert output["reason"] == "the router failed: ConnectionError: line cut"


@pytest.mark.parametrize(
    "llm",
    [
        FakeListChatModel(responses=["INDEPENDENT"]),
        FakeListLLM(responses=["INDEPENDENT"]),
        FakeListChatModel(responses=["INDEPENDENT"]).bind(stop=["."]),
        FakeListChatModel(responses=["INDEPENDENT"]).with_retry(),
    ],
    ids=["chat", "string", "bound", "retried"],
)
async def test_any_model_can_route_inside_or_outside_a_chain(llm):
    router = PromptRouter(llm)
    for decision in (await asyncio.to_thread(router.route, CONVERSATION), await router.aroute(CONVERSATION)):
        assert decision.use_skeleton is True
        assert decision.reason == "the model takes the answer for independent points"
    assert (await SkeletonOfThoughtRouter(router).ainvoke(QUESTION)).use_skeleton is True


def test_a_local_model_replies_with_one_word(local_models):
    engine = local_models.scripted_engine("INDEPENDENT, for it would be a long list of many points")
    with engine:
        llm = ChatTransformers(engine=engine, model="scripted")
        decision = PromptRouter(llm, max_tokens=12).route(CONVERSATION)
        assert decision.use_skeleton is True
        assert decision.usage.output_tokens == 12
        assert PromptRouter(llm).route(CONVERSATION).usage.output_tokens == 16
        assert PromptRouter(llm, max_tokens=30).route(CONVERSATION).usage.output_tokens == 30


def test_the_cores_prompt_router_takes_models_of_langchain():
    router = skeleton_of_thought.PromptRouter(FakeListChatModel(responses=["NONE"]), race=True)
    assert isinstance(router, PromptRouter)
    assert router.races is True
    assert router.route(CONVERSATION).use_skeleton is False


def test_other_models_get_the_limit_with_the_call(kit):
    small = saying(kit, "NONE")
    PromptRouter(small, max_tokens=30).route(CONVERSATION)
    PromptRouter(small).route(CONVERSATION)
    assert [seen.kwargs for seen in small.watch.seen] == [{"max_tokens": 30}, {}]
    for wrong in (0, "16"):
        with pytest.raises(InvalidInput, match="max_tokens"):
            PromptRouter(small, max_tokens=wrong)


def test_anything_but_a_model_is_refused():
    for wrong in (None, "gpt-9", lambda prompt: "NONE"):
        with pytest.raises(InvalidInput, match="model of LangChain"):
            PromptRouter(wrong)


async def test_a_combined_prompt_router_decides_only_in_doubt(way, kit, llm):
    class Sure:
        def at_once(self, conversation):
            return RouteDecision("sure" in conversation.question, 0.9 if "sure" in conversation.question else 0.5)

        def route(self, conversation):
            return self.at_once(conversation)

        async def aroute(self, conversation):
            return self.at_once(conversation)

    small = saying(kit, "NONE")
    chain = SkeletonOfThoughtChain(llm=llm, router=first_sure(Sure(), PromptRouter(small)))
    assert (await way(chain, "Are you sure?"))["route"] == "skeleton"
    assert small.watch.seen == []
    assert (await way(chain, "Are you?"))["route"] == "direct"
    assert len(small.watch.seen) == 1


async def test_a_race_writes_the_skeleton_early_and_discards_it_after_a_direct_decision(way, kit):
    outlining, ended = kit.Gate(), []

    def script(seen):
        if seen.stage == "skeleton":
            return writing()
        return kit.answering(TITLES, direct="Somehow.")(seen)

    def writing():
        try:
            yield "1. Take breaks\n"
            outlining.open()
            yield kit.Gate(lambda: bool(ended))
        finally:
            ended.append("skeleton")

    llm = kit.Chat(script=script)
    # The router decides only after the skeleton has begun.
    router = PromptRouter(kit.Chat(script=lambda seen: [outlining, "NONE", lambda: ended.append("route")]), race=True)
    output = await way(SkeletonOfThoughtChain(llm=llm, router=router), QUESTION)
    assert (output["answer"], output["route"]) == ("Somehow.", "direct")
    assert output["skeleton"] == []
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton", "direct"]
    assert llm.watch.open == 0


async def test_a_race_won_by_the_skeleton_needs_no_second_skeleton(way, kit):
    outlined = kit.Gate()

    def script(seen):
        steps = [*kit.answering(TITLES)(seen)]
        return [*steps, outlined.open] if seen.stage == "skeleton" else steps

    llm = kit.Chat(script=script)
    router = PromptRouter(kit.Chat(script=lambda seen: [outlined, "INDEPENDENT"]), race=True)
    output = await way(SkeletonOfThoughtChain(llm=llm, router=router), QUESTION)
    assert output["skeleton"] == TITLES
    assert [seen.stage for seen in llm.watch.seen].count("skeleton") == 1
