"""Routers in LangChain: the default, direct answers of the model itself, and the inputs of routers."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.load import dumpd, dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda

from langchain_sot import ChatTransformers, SkeletonOfThoughtChain, SkeletonOfThoughtRouter, load_chain
from skeleton_of_thought import AutoRouter, CostGuard, Gate, all_of
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import RouteDecision

TITLES = ["Take breaks", "Drink water", "Move"]
SUITED = "What are the advantages of keeping chickens?"
UNSUITED = "What is 8 times 12?"
DIRECT = "  It is\n\n96, and no more. "


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES, direct=DIRECT))


@pytest.fixture
def chain(llm):
    return SkeletonOfThoughtChain(llm=llm)


class Quick:
    """Decides at once; counts its decisions and keeps the answers that it observes."""

    def __init__(self, use=False, error=None):
        self.use, self.error, self.asked, self.heard = use, error, [], []

    def at_once(self, conversation):
        self.asked.append(conversation)
        if self.error is not None:
            raise self.error
        return RouteDecision(self.use, reason="quick")

    def route(self, conversation):
        raise AssertionError("it decides at once")

    async def aroute(self, conversation):
        raise AssertionError("it decides at once")

    def observe(self, answer):
        self.heard.append(answer)


def stages(llm):
    return [seen.stage for seen in llm.watch.seen]


# --- the default ------------------------------------------------------------------------------------


async def test_by_default_only_suitable_questions_get_a_skeleton(way, chain, llm):
    output = await way(chain, SUITED)
    assert output["skeleton"] == TITLES
    assert output["reason"].startswith("the embedded router takes it for independent points")
    llm.watch.seen.clear()
    output = await way(chain, UNSUITED)
    assert (output["route"], output["answer"]) == ("direct", DIRECT)
    assert output["reason"] == "gate (arithmetic): something to be calculated"
    assert stages(llm) == ["direct"]
    assert llm.watch.seen[0].messages == [HumanMessage(UNSUITED)]


async def test_without_a_router_every_question_gets_a_skeleton(way, llm):
    output = await way(SkeletonOfThoughtChain(llm=llm, router=None), UNSUITED)
    assert output["skeleton"] == TITLES
    assert output["reason"] == "no router"


async def test_the_router_reads_the_question_in_a_prompt_with_a_context(way, llm):
    template = "Use only this context:\n{context}\n\nQuestion: {question}\nAnswer:"
    chain = ChatPromptTemplate.from_template(template) | SkeletonOfThoughtChain(llm=llm)
    context = "Chickens lay eggs. They eat snails."
    assert (await way(chain, {"context": context, "question": SUITED}))["route"] == "skeleton"
    assert (await way(chain, {"context": context, "question": "Do they eat snails?"}))["route"] == "direct"


async def test_follow_ups_get_a_direct_answer(way, chain):
    history = [("human", SUITED), ("ai", "1. Eggs\n2. Manure")]
    for question in ("And the second one?", "Why?"):
        output = await way(chain, {"question": question, "chat_history": history})
        assert output["route"] == "direct"
        assert output["reason"].startswith("gate (follow_up)")
    assert (await way(chain, [*history, ("human", "What are the disadvantages of ducks?")]))["route"] == "skeleton"


def test_a_direct_answer_starts_no_run_but_its_own(kit, chain):
    runs = kit.Runs()
    chain.invoke(UNSUITED, {"callbacks": [runs]})
    assert [run.name for run in runs.started.values()] == ["SkeletonOfThoughtChain", "answer"]


def test_a_direct_stream_has_the_models_own_pieces(chain, llm):
    own = [chunk.text for chunk in llm.stream(UNSUITED)]
    assert [text for text in chain.pick("answer").stream(UNSUITED) if text] == [text for text in own if text]


def test_the_first_chunk_of_a_direct_answer_has_the_reason(chain):
    first = next(iter(chain.stream(UNSUITED)))
    assert (first["route"], first["reason"]) == ("direct", "gate (arithmetic): something to be calculated")


def test_equality_of_chains_ignores_the_guards_measurements():
    model = FakeListChatModel(responses=["a"])
    one, other = SkeletonOfThoughtChain(llm=model), SkeletonOfThoughtChain(llm=model)
    one.invoke(UNSUITED)
    assert one == other
    assert pickle.loads(pickle.dumps(one)).invoke(UNSUITED)["route"] == "direct"
    assert dumpd(one)["kwargs"]["router"] == "auto"
    assert dumpd(SkeletonOfThoughtChain(llm=model, router=None))["kwargs"]["router"] is None


@pytest.mark.parametrize("wrong", ["always", 3, True])
def test_anything_but_a_router_is_refused(llm, wrong):
    with pytest.raises(ValueError, match="AutoRouter"):
        SkeletonOfThoughtChain(llm=llm, router=wrong)


# --- requests and answers that routers get --------------------------------------------------------------------------


async def test_models_with_bound_tools_or_formats_answer_directly(way, llm):
    schema = {"schema": {"title": "Sum", "type": "object", "properties": {}}, "kwargs": {}}
    for name in ("tools", "functions", "response_format", "ls_structured_output_format"):
        bound = SkeletonOfThoughtChain(llm=llm.bind(**{name: schema}).with_config(tags=["bound"]))
        output = await way(bound, SUITED)
        assert output["route"] == "direct"
        assert output["reason"].startswith("gate (tools)" if "format" not in name else "gate (response_format)")
    assert (await way(SkeletonOfThoughtChain(llm=llm.bind(tools=[], seed=3)), SUITED))["route"] == "skeleton"


async def test_the_router_sees_tools_of_the_chosen_alternative(way, kit, llm):
    from langchain_core.runnables import ConfigurableField

    field = ConfigurableField(id="model")
    either = llm.configurable_alternatives(field, default_key="plain", tooled=llm.bind(tools=[{"name": "add"}]))
    chain = SkeletonOfThoughtChain(llm=either)
    assert (await way(chain, SUITED))["route"] == "skeleton"
    assert (await way(chain, SUITED, {"configurable": {"model": "tooled"}}))["reason"].startswith("gate (tools)")


async def test_room_for_one_call_means_no_skeleton(way, chain):
    output = await way(chain, SUITED, {"max_concurrency": 1})
    assert output["route"] == "direct"
    assert "room for one call" in output["reason"]
    assert (await way(chain, SUITED, {"max_concurrency": 2}))["route"] == "skeleton"


class ChatLlamaCpp(FakeListChatModel):
    """A model that must not get two calls at a time."""


def test_a_model_that_serves_one_call_at_a_time_answers_directly():
    output = SkeletonOfThoughtChain(llm=ChatLlamaCpp(responses=["All right."])).invoke(SUITED)
    assert (output["answer"], output["route"]) == ("All right.", "direct")


def test_a_local_model_without_batching_answers_directly(local_models):
    with local_models.scripted_engine("All right.") as engine:  # it has no cache for a batch
        assert engine.parallel_rows == 1
        output = SkeletonOfThoughtChain(llm=ChatTransformers(engine=engine, model="scripted")).invoke(SUITED)
    assert (output["answer"], output["route"]) == ("All right.", "direct")


async def test_a_router_decides_once_and_observes_the_answer(way, llm):
    for use in (True, False):
        router = Quick(use)
        await way(SkeletonOfThoughtChain(llm=llm, router=router), [("system", "Be kind."), ("human", "Why so?")])
        (conversation,) = router.asked
        assert [message.role for message in conversation.messages] == ["system", "user"]
        (answer,) = router.heard
        assert answer.route == ("skeleton" if use else "direct")


def test_the_guard_observes_a_chains_answers_and_copies_share_it(kit, chain, llm):
    router = chain.plan().router
    assert isinstance(router, AutoRouter)
    for _ in range(3):
        chain.invoke(SUITED)
    assert router.guard.pace.answers == 3
    assert chain.plan().router is router
    assert chain.model_copy(update={"join": "headings"}).plan().router is router
    other = chain.model_copy(update={"llm": kit.Chat(script=llm.script)})
    assert other.plan().router.guard.pace.answers == 0
    assert other.plan().router is other.plan().router
    assert chain.plan().router is router
    assert SkeletonOfThoughtChain(llm=llm).plan().router is not router


def test_the_router_does_not_observe_answers_of_a_batch(llm):
    router = Quick(True)
    chain = SkeletonOfThoughtChain(llm=llm, router=router)
    chain.batch([SUITED, SUITED])
    assert (len(router.asked), router.heard) == (2, [])
    chain.batch([SUITED])
    assert len(router.heard) == 1


async def test_the_answer_has_the_guards_reason(way, llm):
    router = AutoRouter(guard=CostGuard(max_extra_tokens=10))
    output = await way(SkeletonOfThoughtChain(llm=llm, router=router), SUITED)
    assert output["route"] == "direct"
    assert "max_extra_tokens=10" in output["reason"]


# --- failures ---------------------------------------------------------------------------------------


def broken(question):
    raise LookupError("no such weights")


async def abroken(question):
    raise LookupError("no such weights")


@pytest.mark.parametrize(
    "router",
    [broken, abroken, RunnableLambda(broken), Quick(error=LookupError("no such weights")), all_of(Gate(), broken)],
    ids=["function", "async function", "runnable", "at once", "combination"],
)
async def test_a_router_that_fails_is_reported_and_the_answer_is_direct(way, llm, router):
    chain = SkeletonOfThoughtChain(llm=llm, router=router)
    output = await way(chain, SUITED)
    assert (output["route"], output["answer"]) == ("direct", DIRECT)
    assert "the router failed: LookupError: no such weights" in output["reason"]
    message = chain.as_chat_model().invoke(SUITED)
    assert message.text == DIRECT
    assert "no such weights" in message.response_metadata["reason"]


async def test_an_error_of_the_model_in_a_direct_answer_is_raised_unchanged(way, kit):
    chain = SkeletonOfThoughtChain(llm=kit.Chat(script=lambda seen: [ConnectionError("line cut")]))
    for runnable in (chain, chain.as_chat_model()):
        with pytest.raises(ConnectionError, match="line cut"):
            await way(runnable, UNSUITED)


# --- the chat model ---------------------------------------------------------------------------------


class Rich(FakeListChatModel):
    """A model whose messages have more than text."""

    def _message(self, kind, **more):
        content = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "96"}]
        extra = {"refusal": None, "parsed": 96}
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        about = {"model_name": "rich", "logprobs": [0.5]}
        return kind(
            content=content, additional_kwargs=extra, usage_metadata=usage, response_metadata=about, id="m1", **more
        )

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self._message(AIMessage))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        yield ChatGenerationChunk(message=self._message(AIMessageChunk))
        yield ChatGenerationChunk(message=AIMessageChunk(content="!", id="m1", chunk_position="last"))

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self._stream(messages):
            yield chunk


ADDED = {"route": "direct", "reason": "gate (arithmetic): something to be calculated", "skeleton": [], "errors": {}}


def bare(message):
    about = {name: value for name, value in message.response_metadata.items() if name not in ADDED}
    return message.model_copy(update={"response_metadata": about})


async def test_the_chat_model_returns_the_models_own_message_and_the_reason(way):
    llm = Rich(responses=[])
    message = await way(SkeletonOfThoughtChain(llm=llm).as_chat_model(), UNSUITED)
    assert {name: message.response_metadata[name] for name in ADDED} == ADDED
    assert bare(message) == await way(llm, UNSUITED)


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "batch", "abatch"])
async def test_a_router_that_makes_a_call_keeps_the_models_message_whole(ways, name):
    llm = Rich(responses=[])
    model = SkeletonOfThoughtChain(llm=llm, router=lambda question: False).as_chat_model()
    message, plain = await ways[name](model, UNSUITED), await ways[name](llm, UNSUITED)
    assert (message.content, message.additional_kwargs) == (plain.content, plain.additional_kwargs)
    assert message.usage_metadata["total_tokens"] == plain.usage_metadata["total_tokens"]
    assert message.response_metadata["logprobs"] == [0.5]
    assert message.response_metadata["reason"] == "the router decided"


def test_the_chat_models_direct_stream_equals_the_models_chunk_by_chunk():
    llm = Rich(responses=[])
    chunks = list(SkeletonOfThoughtChain(llm=llm).as_chat_model().stream(UNSUITED))
    assert {name: chunks[0].response_metadata[name] for name in ADDED} == ADDED
    assert [bare(chunk) for chunk in chunks] == list(llm.stream(UNSUITED))


def test_a_direct_answer_of_the_chat_model_has_one_run_and_counts_tokens_once(kit, chain):
    model, runs = chain.as_chat_model(), kit.Runs()
    with get_usage_metadata_callback() as usage:
        message = model.invoke(UNSUITED, {"callbacks": [runs]})
    (run,) = runs.started.values()
    assert run.metadata["ls_provider"] == "scripted"
    assert usage.usage_metadata["scripted"]["total_tokens"] == message.usage_metadata["total_tokens"]


def test_generate_routes_each_list_separately(chain, llm):
    lists = [[HumanMessage(UNSUITED)], [HumanMessage(SUITED)]]
    for result in (chain.as_chat_model().generate(lists), asyncio.run(chain.as_chat_model().agenerate(lists))):
        direct, skeleton = (row[0].message for row in result.generations)
        assert (direct.text, direct.response_metadata["route"]) == (DIRECT, "direct")
        assert skeleton.response_metadata["skeleton"] == TITLES


async def test_the_chat_models_router_decides_once_and_observes_the_answer(way, llm):
    for use in (True, False):
        router = Quick(use)
        model = SkeletonOfThoughtChain(llm=llm, router=router).as_chat_model()
        await way(model, SUITED)
        assert len(router.asked) == 1
        (answer,) = router.heard
        assert answer.route == ("skeleton" if use else "direct")
        assert answer.usage_by_stage["skeleton" if use else "direct"].output_tokens > 0
        assert answer.question == SUITED


def test_generate_decides_once_for_each_list(llm):
    router = Quick(True)
    model = SkeletonOfThoughtChain(llm=llm, router=router).as_chat_model()
    model.generate([[HumanMessage("One?")], [HumanMessage("Two?")]])
    assert [conversation.question for conversation in router.asked] == ["One?", "Two?"]


def test_the_guard_observes_direct_answers_of_the_chat_model(chain):
    chain.as_chat_model().invoke(UNSUITED)
    list(chain.as_chat_model().stream(UNSUITED))
    assert chain.plan().router.guard.pace.get("direct_tokens", 0.0) > 0


def test_closing_a_direct_stream_early_closes_the_models_stream(kit):
    gate = kit.Gate()
    llm = kit.Chat(script=lambda seen: ["96", gate, "!"])
    stream = SkeletonOfThoughtChain(llm=llm).as_chat_model().stream(UNSUITED)
    assert next(stream).text == "96"
    assert llm.watch.open == 1
    stream.close()
    assert llm.watch.open == 0


async def test_a_router_that_makes_a_call_decides_within_the_run(way, kit, llm):
    runs = kit.Runs()
    model = SkeletonOfThoughtChain(llm=llm, router=lambda question: False).as_chat_model()
    message = await way(model, SUITED, {"callbacks": [runs]})
    assert (message.text, message.response_metadata["reason"]) == (DIRECT, "the router decided")
    (root,) = runs.roots
    assert [run.name for run in runs.children(root)] == ["answer"]


def test_a_string_llm_gets_a_single_question_unchanged():
    class Echo(FakeListLLM):
        def _call(self, prompt, stop=None, run_manager=None, **kwargs):
            return f"<{prompt}>"

    model = SkeletonOfThoughtChain(llm=Echo(responses=[""])).as_chat_model()
    for question in (UNSUITED, [HumanMessage(UNSUITED)]):
        assert model.invoke(question).text == f"<{UNSUITED}>"


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_a_direct_answer_has_the_models_version_3_events(chain, llm):
    if not hasattr(type(llm), "stream_events"):
        pytest.skip("this langchain-core has no events of version 3")
    stream = await chain.as_chat_model().astream_events(UNSUITED, version="v3")
    assert await stream.text == DIRECT
    assert stages(llm) == ["direct"]


# --- routers as runnables ---------------------------------------------------------------------------


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request):
    async def asked(router, value, config=None, **kwargs):
        if request.param == "invoke":
            return await asyncio.to_thread(lambda: router.invoke(value, config, **kwargs))
        return await router.ainvoke(value, config, **kwargs)

    return asked


async def test_the_runnable_routes_every_input_of_the_chain(ask):
    router = SkeletonOfThoughtRouter()
    history = [("human", "Which kinds are there?"), ("ai", "Two.")]
    for value in (SUITED, {"question": SUITED}, [("system", "Be kind."), ("human", SUITED)], HumanMessage(SUITED)):
        assert (await ask(router, value)).use_skeleton is True
    for value in (
        UNSUITED,
        {"question": "Why?", "chat_history": history},
        [*history, ("human", "And the second one?")],
    ):
        assert (await ask(router, value)).use_skeleton is False


async def test_messages_without_a_question_and_requests_for_tools_are_routed_directly(ask):
    router = SkeletonOfThoughtRouter()
    call = AIMessage("", tool_calls=[{"name": "add", "args": {}, "id": "1"}])
    decision = await ask(router, [HumanMessage(SUITED), call, ToolMessage("3", tool_call_id="1")])
    assert (decision.use_skeleton, decision.reason) == (
        False,
        "gate (last_message): the last message is not the user's",
    )
    assert (await ask(router, SUITED, tools=[{"name": "add"}])).reason.startswith("gate (tools)")
    with pytest.raises(InvalidInput, match="question"):
        await ask(router, {"topic": "tea"})


async def test_the_runnable_reports_a_router_that_fails(ask):
    for router in (broken, abroken, RunnableLambda(broken), Quick(error=LookupError("no such weights"))):
        decision = await ask(SkeletonOfThoughtRouter(router), SUITED)
        assert decision.use_skeleton is False
        assert "no such weights" in decision.reason


async def test_the_runnable_takes_configs_batches_and_branches(kit, ask):
    runs = kit.Runs()
    router = SkeletonOfThoughtRouter().with_config(run_name="suits")
    await ask(router, SUITED, {"callbacks": [runs]})
    assert [run.name for run in runs.started.values()] == ["suits"]
    assert [decision.use_skeleton for decision in router.batch([SUITED, UNSUITED])] == [True, False]
    branch = RunnableBranch(
        (SkeletonOfThoughtRouter() | (lambda d: d.use_skeleton), lambda q: "points"), lambda q: "text"
    )
    assert [await ask(branch, question) for question in (SUITED, UNSUITED)] == ["points", "text"]


def test_the_runnable_is_dumped_and_loaded():
    again = load_chain(dumps(SkeletonOfThoughtRouter()))
    assert isinstance(again, SkeletonOfThoughtRouter)
    assert again.invoke(UNSUITED).use_skeleton is False


def test_the_runnable_needs_a_router():
    for wrong in (None, "always"):
        with pytest.raises(ValueError, match="router"):
            SkeletonOfThoughtRouter(wrong)


async def test_a_chain_uses_the_router_inside_the_runnable(way, llm):
    quick = Quick(False)
    chain = SkeletonOfThoughtChain(llm=llm, router=SkeletonOfThoughtRouter(quick))
    history = [("human", "Hi"), ("ai", "Hello")]
    output = await way(chain, {"question": SUITED, "chat_history": history})
    assert (output["route"], output["reason"]) == ("direct", "quick")
    assert len(quick.asked[0].messages) == 3
    assert [answer.route for answer in quick.heard] == ["direct"]
    slow = SkeletonOfThoughtRouter(RunnableLambda(lambda question: RouteDecision(False, reason=question)))
    assert (await way(SkeletonOfThoughtChain(llm=llm, router=slow), SUITED))["reason"] == SUITED


def test_decisions_are_plain_data():
    decision = SkeletonOfThoughtRouter().invoke(SUITED)
    assert set(dataclasses.asdict(decision)) == {"use_skeleton", "score", "reason", "usage", "planning"}
