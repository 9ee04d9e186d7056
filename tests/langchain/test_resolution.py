"""Resolution of a model: once for each answer and config, by the classes of its wrappers."""

from __future__ import annotations

from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.language_models import FakeListLLM
from langchain_core.runnables import ConfigurableField, RunnableBinding

from langchain_sot import ChatTransformers, PromptRouter, SkeletonOfThoughtChain
from langchain_sot.chat_model import delegation
from langchain_sot.models import resolution
from langchain_sot.models.resolution import RunnableTraits, read_traits

TITLES = ["One", "Two", "Three", "Four", "Five", "Six", "Seven"]
WRAPPED = {
    "bare": lambda llm: llm,
    "bound": lambda llm: llm.bind(stop=["###"]).with_config(tags=["mine"]),
    "alternatives": lambda llm: llm.configurable_alternatives(ConfigurableField(id="model"), default_key="off", on=llm),
    "all of them": lambda llm: llm.bind(stop=["#"]).with_retry().with_fallbacks([llm]).with_config(tags=["mine"]),
}


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every resolved runnable."""
    seen: list[Any] = []

    def counted(llm: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(llm)
        return original(llm, *args, **kwargs)

    original = resolution.resolve
    for module in (resolution, delegation):
        monkeypatch.setattr(module, "resolve", counted)
    return seen


@pytest.fixture
def llm(kit: Any) -> Any:
    return kit.Chat(script=kit.answering(TITLES))


@pytest.mark.parametrize("wrap", list(WRAPPED))
async def test_one_model_is_resolved_once_for_an_answer(way, llm, resolved, wrap):
    chain = skeleton_chain(llm=WRAPPED[wrap](llm))
    resolved.clear()
    assert len((await way(chain, "Why?"))["points"]) == 7
    assert resolved == [chain.llm]


async def test_two_models_are_resolved_once_each(way, kit, llm, resolved):
    chain = skeleton_chain(llm=llm, point_llm=kit.Chat(script=kit.answering(TITLES)).bind(stop=["#"]))
    resolved.clear()
    await way(chain, "Why?")
    assert [id(each) for each in resolved] == [id(chain.llm), id(chain.point_llm)]


@pytest.mark.parametrize("settings", [{"router": "auto"}, {"merge": True}, {"eager": True}, {"max_retries": 2}])
async def test_settings_add_no_resolution(way, llm, resolved, settings):
    chain = skeleton_chain(llm=llm, **settings)
    resolved.clear()
    await way(chain, "What are good ways to stay awake at night?")
    assert resolved == [llm]


async def test_a_retried_point_resolves_no_model_again(way, kit, resolved):
    answer, failures = kit.answering(TITLES), [ConnectionError("busy"), ConnectionError("busy")]
    llm = kit.Chat(script=lambda seen: [failures.pop()] if seen.point == 2 and failures else answer(seen))
    chain = skeleton_chain(llm=llm, max_retries=2, backoff=0.0)
    resolved.clear()
    await way(chain, "Why?")
    assert resolved == [llm]


@pytest.mark.parametrize("is_async", [False, True])
async def test_answers_of_a_batch_with_equal_configs_share_a_resolution(llm, resolved, is_async):
    chosen = WRAPPED["alternatives"](llm)
    chain = skeleton_chain(llm=chosen)
    resolved.clear()
    configs = [{"configurable": {"model": name, "thread": i}} for i, name in enumerate(["on", "off", "on", "on"])]
    questions = ["A?", "B?", "C?", "D?"]
    outputs = await chain.abatch(questions, configs) if is_async else chain.batch(questions, configs)
    assert [output["question"] for output in outputs] == questions
    assert resolved == [chosen] * 2


def test_configs_with_incomparable_values_share_no_resolution(llm, resolved):
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("neither equal nor different")

        __hash__ = None

    chosen = llm.configurable_fields(tags=ConfigurableField(id="tags"))
    chain = skeleton_chain(llm=chosen)
    resolved.clear()
    models = resolution.ChainModels(chosen, chosen)
    one, other = ({"configurable": {"tags": Odd()}} for _ in range(2))
    assert not models._choose_alike(one, other)
    assert len(chain.batch(["A?", "B?"])) == 2
    assert resolved == [chosen]


async def test_a_prompt_router_resolves_its_model_once_for_a_question(way, kit, llm, resolved):
    small = kit.Chat(script=lambda seen: ["LIST"])
    chain = SkeletonOfThoughtChain(llm=llm, router=PromptRouter(small))
    resolved.clear()
    await way(chain, "Why?")
    assert sorted(map(id, resolved)) == sorted(map(id, [llm, small]))


@pytest.mark.parametrize("wrap", list(WRAPPED))
@pytest.mark.parametrize(
    "settings",
    [{"router": "auto"}, {"router": None}, {"router": lambda question: True}],
    ids=["auto", "none", "function"],
)
async def test_a_chat_model_resolves_its_model_once_for_an_answer(way, llm, resolved, wrap, settings):
    model = SkeletonOfThoughtChain(llm=WRAPPED[wrap](llm), **settings).as_chat_model()
    resolved.clear()
    message = await way(model, "What are good ways to stay awake at night?")
    assert message.response_metadata["skeleton"] == TITLES
    assert resolved == [model.chain.llm]


@pytest.mark.parametrize("wrap", list(WRAPPED))
async def test_a_chat_model_resolves_its_model_once_for_a_direct_answer(way, llm, resolved, wrap):
    model = SkeletonOfThoughtChain(llm=WRAPPED[wrap](llm)).as_chat_model()
    resolved.clear()
    message = await way(model, "What is 17 * 4?", {"temperature": 0.5})
    assert message.response_metadata["route"] == "direct"
    assert resolved == [model.chain.llm]


@pytest.mark.parametrize("is_async", [False, True])
async def test_keyword_arguments_of_a_call_are_resolved_with_it(kit, llm, resolved, is_async):
    model = SkeletonOfThoughtChain(llm=llm, router=None).as_chat_model()
    resolved.clear()
    kwargs = {"temperature": 0.5, "stream": True, "user": None}
    if is_async:
        assert [chunk async for chunk in model.astream("Why?", **kwargs)]
    else:
        assert list(model.stream("Why?", **kwargs))
    # What LangSmith shows has all arguments; the calls of the answer have those that are theirs.
    assert resolved == [llm] * 2
    assert {seen.kwargs.get("temperature") for seen in llm.watch.seen} == {0.5}


def test_equal_keyword_arguments_share_what_is_resolved(llm, resolved):
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("neither equal nor different")

        __hash__ = None

    models = resolution.ChainModels(llm, llm, kwargs={"top_k": 3})
    assert models.with_kwargs({"top_k": 3}) is models
    other = models.with_kwargs({"top_k": 4})
    assert other.for_config({}).llm.kwargs == {"top_k": 4}
    assert models.for_config({}).llm.kwargs == {"top_k": 3}
    assert models.with_kwargs({"top_k": Odd()}) is not models


# --- what a class says ---


def test_classes_of_langchain_are_recognized_by_name(llm):
    field = ConfigurableField(id="tags")
    traits = {
        "binding": llm.bind(stop=["#"]),
        "retry": llm.with_retry(),
        "stock_fallbacks": llm.with_fallbacks([llm]),
        "configurable": llm.configurable_fields(tags=field),
        "text": FakeListLLM(responses=["Yes."]),
        "native": ChatTransformers(engine=object(), model="tiny"),
    }
    for name, runnable in traits.items():
        found = read_traits(runnable)
        assert [other for other in traits if getattr(found, other)] == [name], name
    assert read_traits(llm) == RunnableTraits()
    assert read_traits(llm.configurable_alternatives(field, default_key="off", on=llm)).configurable


def test_a_binding_that_overrides_its_call_is_called_itself(llm):
    class Loud(RunnableBinding):
        def invoke(self, *args: Any, **kwargs: Any) -> Any:
            return super().invoke(*args, **kwargs)

    class Renamed(RunnableBinding):
        pass

    assert not read_traits(Loud(bound=llm)).binding
    assert read_traits(Renamed(bound=llm)).binding


@pytest.mark.parametrize("name", ["ChatLlamaCpp", "LlamaCpp"])
def test_models_that_serve_one_call_at_a_time_are_recognized_by_name(kit, name):
    def answer_models(cls: type) -> resolution.AnswerModels:
        one = cls(script=kit.answering(TITLES))
        return resolution.ChainModels(one, one).for_config({})

    assert answer_models(type(name, (kit.Chat,), {"__module__": "elsewhere"})).serial
    assert not answer_models(kit.Chat).serial


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_binding_that_makes_its_configs_chooses_a_model_for_each_answer_of_a_batch(kit, is_async):
    off, on = (kit.Chat(script=kit.answering(TITLES[:count])) for count in (2, 3))
    alternatives = off.configurable_alternatives(ConfigurableField(id="model"), default_key="off", on=on)
    binding = RunnableBinding(
        bound=alternatives,
        config_factories=[lambda config: {"configurable": {"model": config["metadata"].get("choice", "off")}}],
    )
    chain = skeleton_chain(llm=binding.with_config(tags=["mine"]))
    configs = [{"metadata": {"choice": choice}} for choice in ("off", "on")]
    questions = ["Why?", "How?"]
    outputs = await chain.abatch(questions, configs) if is_async else chain.batch(questions, configs)
    assert [len(output["skeleton"]) for output in outputs] == [2, 3]
