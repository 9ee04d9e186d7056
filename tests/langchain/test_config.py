"""The config of a call beats what is around it, and what is around it fills the gaps, as for a plain model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.runnables import ConfigurableField, RunnableBranch, RunnableLambda, RunnablePassthrough

TITLES = ["Take breaks", "Drink water"]
A: dict[str, Any] = {"configurable": {"llm": "a"}}
B: dict[str, Any] = {"configurable": {"llm": "b"}}


def named(kit: Any, name: str) -> Any:
    """A model that says its name in everything but the skeleton."""

    def script(seen: Any) -> list[str]:
        return kit.answering(TITLES)(seen) if seen.stage == "skeleton" else [f"Model {name}."]

    return kit.Chat(script=script)


@pytest.fixture
def llm(kit: Any) -> Any:
    """Model A, or B where the config says so."""
    return named(kit, "A").configurable_alternatives(ConfigurableField(id="llm"), default_key="a", b=named(kit, "B"))


async def _as_completed(runnable: Any, value: Any, config: Any = None) -> Any:
    ((_, output),) = await asyncio.to_thread(lambda: list(runnable.batch_as_completed([value], config)))
    return output


async def _aas_completed(runnable: Any, value: Any, config: Any = None) -> Any:
    ((_, output),) = [result async for result in runnable.abatch_as_completed([value], config)]
    return output


async def _transform(runnable: Any, value: Any, config: Any = None) -> Any:
    chunks = await asyncio.to_thread(lambda: list(runnable.transform(iter([value]), config)))
    return _sum(chunks)


async def _atransform(runnable: Any, value: Any, config: Any = None) -> Any:
    async def given() -> Any:
        yield value

    return _sum([chunk async for chunk in runnable.atransform(given(), config)])


def _sum(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


MORE_WAYS = {
    "batch_as_completed": _as_completed,
    "abatch_as_completed": _aas_completed,
    "transform": _transform,
    "atransform": _atransform,
}
WAYS = ["invoke", "ainvoke", "batch", "abatch", "stream", "astream", *MORE_WAYS]

FORMS = {
    "chain": lambda chain: chain,
    "pick": lambda chain: chain.pick("answer"),
    "pick list": lambda chain: chain.pick(["answer"]),
    "expansion": lambda chain: chain.expansion(TITLES),
    "chat model": lambda chain: chain.as_chat_model(),
    "binding": lambda chain: chain.with_config(tags=["mine"]),
    "retry": lambda chain: chain.with_retry(),
    "fallbacks": lambda chain: chain.with_fallbacks([chain]),
    "sequence": lambda chain: RunnablePassthrough() | chain,
}


@pytest.fixture(params=WAYS)
def any_way(request: pytest.FixtureRequest, ways: dict[str, Any]) -> Any:
    return {**ways, **MORE_WAYS}[request.param]


async def within(around: dict[str, Any], call: Any) -> Any:
    """What an async call returns within a runnable that was called with this config."""

    async def inner(_: Any) -> Any:
        return await call()

    return await RunnableLambda(inner).ainvoke("start", around)


def names(output: Any) -> set[str]:
    """The models that wrote an output."""
    text = str(getattr(output, "text", output))
    return {name for name in "ABC" if f"Model {name}." in text}


def called(llm: Any, messages: Any) -> Any:
    """Calls a model without a config."""
    return llm.invoke(messages)


def switched(messages: Any, config: Any, models: Any) -> Any:
    """Calls one of the models of `alternatives`, which it finds in the config itself."""
    chosen = models.alternatives["b"] if config["configurable"].get("llm") == "b" else models.default
    return chosen.invoke(messages, config)


KINDS = {
    "alternatives": lambda llm: llm,
    "bound": lambda llm: llm.bind(stop=["#"]).with_config(tags=["inner"]),
    "retry": lambda llm: llm.with_retry(),
    "fallbacks": lambda llm: llm.with_fallbacks([llm]),
    "listeners": lambda llm: llm.with_listeners(on_end=lambda run: None),
    "sequence": lambda llm: RunnablePassthrough() | llm,
    "branch": lambda llm: RunnableBranch((lambda _: False, llm), llm),
    "function": lambda llm: RunnableLambda(lambda messages: called(llm, messages)),
    "function that takes the config": lambda llm: RunnableLambda(lambda value, config: switched(value, config, llm)),
}
"""Models whose choice is known when the answer begins, and models that read their config in each call."""


# --- the model that answers ---


@pytest.mark.parametrize("form", FORMS)
async def test_the_callers_model_answers(any_way, llm, form):
    runnable = FORMS[form](skeleton_chain(llm=llm))
    assert names(await within(A, lambda: any_way(runnable, "Why?", B))) == {"B"}
    assert names(await within(B, lambda: any_way(runnable, "Why?", A))) == {"A"}


@pytest.mark.parametrize("form", FORMS)
async def test_the_surrounding_model_answers_where_the_caller_names_none(any_way, llm, form):
    runnable = FORMS[form](skeleton_chain(llm=llm))
    assert names(await within(B, lambda: any_way(runnable, "Why?"))) == {"B"}
    assert names(await within(B, lambda: any_way(runnable, "Why?", {"tags": ["mine"]}))) == {"B"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["chain", "pick", "chat model"])
async def test_every_kind_of_model_reads_the_callers_config(any_way, llm, kind, form):
    runnable = FORMS[form](skeleton_chain(llm=KINDS[kind](llm)))
    assert names(await within(A, lambda: any_way(runnable, "Why?", B))) == {"B"}
    assert names(await within(B, lambda: any_way(runnable, "Why?"))) == {"B"}
