"""The chain as a runnable among runnables."""

from __future__ import annotations

import json
import pickle

import pytest
from always import skeleton_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumpd, dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

from langchain_sot import SkeletonOfThoughtChain, load_chain
from langchain_sot.results import Restart
from skeleton_of_thought.errors import InvalidInput

TITLES = ["Take breaks", "Move"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Move: All about move."


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


@pytest.fixture
def chain(llm):
    return skeleton_chain(llm=llm)


async def test_pick_returns_the_chosen_keys(way, chain):
    assert await way(chain.pick("answer"), "Q") == ANSWER
    assert await way(chain.pick(["route", "skeleton"]), "Q") == {"route": "skeleton", "skeleton": TITLES}
    assert await way(chain.pick("answer") | StrOutputParser(), "Q") == ANSWER


async def test_pick_as_completed_yields_the_chosen_key(chain):
    picked = chain.pick("question")
    assert sorted(picked.batch_as_completed(["A", "B"])) == [(0, "A"), (1, "B")]
    assert sorted([out async for out in picked.abatch_as_completed(["A", "B"])]) == [(0, "A"), (1, "B")]


async def test_assign_adds_a_key_to_the_output(way, chain):
    output = await way(chain.assign(length=lambda out: len(out["answer"])), "Q")
    assert output["length"] == len(ANSWER)
    assert output["answer"] == ANSWER


async def test_the_chain_runs_between_two_runnables(way, chain):
    prompt = ChatPromptTemplate.from_messages([("system", "Be kind."), ("human", "{topic}?")])
    piped = prompt | chain | RunnableLambda(lambda out: out["question"] + " " + out["answer"])
    assert await way(piped, {"topic": "Why"}) == "Why? " + ANSWER


async def test_a_streamed_question_is_joined(chain, kit):
    assert kit.total(chain.transform(iter(["Wh", "y?"])))["question"] == "Why?"

    async def parts():
        yield {"question": "not this"}
        yield "Why?"

    assert kit.total([chunk async for chunk in chain.atransform(parts())])["question"] == "Why?"


async def test_the_chain_runs_inside_a_runnable_parallel(way, chain):
    parallel = RunnableParallel(sot=chain.pick("answer"), asked=RunnablePassthrough())
    assert await way(parallel, "Q") == {"sot": ANSWER, "asked": "Q"}


async def test_with_config_and_bind_reach_the_calls(way, chain, kit):
    runs = kit.Runs()
    await way(chain.with_config(callbacks=[runs], run_name="mine").bind(), "Q")
    assert runs.roots[0].name == "mine"


async def test_with_retry_repeats_a_failed_answer(kit):
    left = [RuntimeError("one"), RuntimeError("two")]

    def script(seen):
        return [left.pop()] if left and seen.point == 1 else kit.answering(TITLES)(seen)

    chain = skeleton_chain(llm=kit.Chat(script=script), max_retries=0)
    retrying = chain.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert retrying.invoke("Q")["answer"] == ANSWER
    left.append(RuntimeError("three"))
    assert (await retrying.ainvoke("Q"))["answer"] == ANSWER


async def test_with_fallbacks_answers_for_a_broken_runnable(way, chain, kit):
    broken = skeleton_chain(llm=kit.Chat(script=lambda seen: [OSError("down")]), max_retries=0)
    assert (await way(broken.with_fallbacks([chain]), "Q"))["answer"] == ANSWER


async def test_fallbacks_and_retries_of_the_model_work_in_the_chain(way, llm, kit):
    broken = kit.Chat(script=lambda seen: [OSError("down")])
    for model in (broken.with_fallbacks([llm]), llm.with_retry()):
        assert (await way(skeleton_chain(llm=model), "Q"))["answer"] == ANSWER


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_batch_returns_exceptions_in_place(kit, is_async):
    def script(seen):
        broken = any("Bad" in m.text for m in seen.messages)
        return [ValueError("no")] if broken else kit.answering(TITLES)(seen)

    chain = skeleton_chain(llm=kit.Chat(script=script), max_retries=0)
    questions = ["Good", "Bad", "", "Fine"]
    if is_async:
        outputs = await chain.abatch(questions, return_exceptions=True)
    else:
        outputs = chain.batch(questions, return_exceptions=True)
    assert [type(out) for out in outputs] == [dict, ValueError, InvalidInput, dict]
    assert [out["question"] for out in (outputs[0], outputs[3])] == ["Good", "Fine"]
    with pytest.raises(ValueError, match="no"):
        chain.batch(["Good", "Bad"])
    assert chain.batch([]) == await chain.abatch([]) == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_unknown_alternative_fails_its_own_input_alone(llm, is_async):
    chain = skeleton_chain(llm=llm.configurable_alternatives(ConfigurableField(id="llm"), default_key="this"))
    configs = [{"configurable": {"llm": "this"}}, {"configurable": {"llm": "none"}}]
    if is_async:
        outputs = await chain.abatch(["Good", "Bad"], configs, return_exceptions=True)
    else:
        outputs = chain.batch(["Good", "Bad"], configs, return_exceptions=True)
    assert [type(out) for out in outputs] == [dict, ValueError]


async def test_batch_as_completed_yields_the_quick_answer_first(kit):
    slow = kit.Gate()

    def script(seen):
        return [slow, "x"] if seen.text == "Slow" else ["y", slow.open]

    chain = skeleton_chain(llm=kit.Chat(script=script), router=lambda q: False)
    assert [i for i, _ in chain.batch_as_completed(["Slow", "Quick"])] == [1, 0]
    assert sorted([i async for i, _ in chain.abatch_as_completed(["Slow", "Quick"])]) == [0, 1]


def test_the_llm_cache_answers_the_second_time(kit):
    llm = kit.Chat(script=kit.answering(TITLES), cache=InMemoryCache())
    chain = skeleton_chain(llm=llm)
    first, second = chain.invoke("Q"), chain.invoke("Q")
    assert kit.untimed(first) == kit.untimed(second)
    assert len(llm.watch.seen) == 3


def test_fields_of_the_chain_and_of_the_model_are_configurable(kit, llm):
    other = kit.Chat(script=kit.answering(["Other"]))
    chain = skeleton_chain(
        llm=llm.configurable_alternatives(ConfigurableField(id="model"), default_key="one", other=other)
    ).configurable_fields(max_points=ConfigurableField(id="most"))
    assert chain.invoke("Q")["skeleton"] == TITLES
    assert chain.invoke("Q", {"configurable": {"most": 1}})["skeleton"] == TITLES[:1]
    assert chain.invoke("Q", {"configurable": {"model": "other"}})["skeleton"] == ["Other"]
    assert {spec.id for spec in chain.config_specs} == {"model", "most"}


# --- schemas, graph, serialisation ---


def test_the_chain_has_input_output_and_config_schemas(chain, kit):
    output = chain.get_output_jsonschema()
    keys = {"question", "route", "reason", "skeleton", "points", "answer", "errors"}
    assert set(output["properties"]) == keys | set(kit.END)
    assert chain.get_input_schema().model_validate("Q")
    assert chain.get_input_schema().model_validate({"question": "Q"})
    assert json.dumps(chain.get_input_jsonschema())


@pytest.mark.parametrize("router", [None, lambda question: True, RunnableLambda(lambda question: True)])
def test_the_graph_shows_prompts_and_models(llm, router):
    chain = skeleton_chain(llm=llm, router=router)
    names = [node.name for node in chain.get_graph().nodes.values()]
    assert names.count("ScriptedChat") == (2 if router is None else 3)
    assert "SkeletonOutputParser" in names
    assert chain.get_graph().draw_mermaid()
    assert chain.get_prompts() == [chain.get_skeleton_prompt(), chain.get_point_prompt()]
    assert chain.pick("answer").get_graph().draw_mermaid()


def test_a_dumped_chain_loads_as_an_equal_chain():
    prompt = ChatPromptTemplate.from_messages([("human", "Outline {question}")])
    llm = FakeListChatModel(responses=["1. Move", "Walk."])
    chain = skeleton_chain(llm=llm, max_points=4, skeleton_prompt=prompt)
    dumped = dumpd(chain)
    assert dumped["id"] == ["langchain_sot", "chain", "SkeletonOfThoughtChain"]
    assert dumped["type"] == "constructor"
    # A fake model is not serializable itself; it stands for one that is.
    dumped["kwargs"]["llm"] = llm
    again = load_chain(dumped)
    assert isinstance(again, SkeletonOfThoughtChain)
    assert again.skeleton_prompt == prompt
    assert again.max_points == 4


def test_a_chain_over_a_real_model_is_dumped_and_loaded_without_its_key():
    openai = pytest.importorskip("langchain_openai", reason="needs the extra openai")
    llm = openai.ChatOpenAI(model="some-model", api_key="sk-of-mine", base_url="http://127.0.0.1:9/v1")
    chain = skeleton_chain(llm=llm.bind(temperature=0.2), point_llm=llm, on_point_error="placeholder")
    for whole in (chain, chain.pick("answer"), chain | RunnablePassthrough(), {"x": chain} | RunnablePassthrough()):
        text = dumps(whole)
        assert "sk-of-mine" not in text
        again = load_chain(text, secrets_map={"OPENAI_API_KEY": "sk-of-mine"})
        assert dumps(again) == text
    with pytest.raises(Exception, match=r"OPENAI_API_KEY|api_key"):
        load_chain(dumps(chain))


def test_invalid_dumps_and_dumps_of_unserializable_models_are_refused():
    with pytest.raises(ValueError, match="no dump"):
        load_chain('{"question": "Q"}')
    with pytest.raises(ValueError, match="no dump"):
        load_chain("[1, 2]")
    routed = skeleton_chain(llm=FakeListChatModel(responses=["1. Move"]), router=lambda question: True)
    with pytest.raises(NotImplementedError):
        load_chain(dumps(routed))


def test_the_chain_can_be_pickled():
    chain = skeleton_chain(llm=FakeListChatModel(responses=["1. Move", "Walk."]), max_points=4)
    again = pickle.loads(pickle.dumps(chain))
    assert again == chain
    assert again.invoke("Q")["answer"] == "1. Move: Walk."


# --- restarts ---


def test_a_restart_replaces_the_earlier_text():
    assert "abc" + Restart("x") == "x"
    assert isinstance("abc" + Restart("x"), Restart)
    assert Restart("x") + "y" == "xy"
    assert isinstance(Restart("x") + "y", Restart)
    assert Restart("x") + Restart("y") == "y"
    assert json.dumps(Restart("x")) == '"x"'
    assert type(pickle.loads(pickle.dumps(Restart("x")))) is str
    with pytest.raises(TypeError):
        Restart("x") + 1


texts = st.text(max_size=3)


@settings(deadline=None)
@given(*[texts | texts.map(Restart)] * 3)
def test_adding_is_associative_with_restarts(a, b, c):
    assert (a + b) + c == a + (b + c)
