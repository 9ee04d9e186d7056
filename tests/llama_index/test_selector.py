"""The selector: a core router between two engines of LlamaIndex's `RouterQueryEngine`."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from llama_index_sot import PromptRouter, SkeletonOfThoughtSelector
from skeleton_of_thought import EmbeddedRouter, first_sure
from skeleton_of_thought.types import RouteDecision

TITLES = ["Move", "Drink water"]
LIST = "What are the pros and cons of living on a boat?"
FACT = "What is the capital of France?"
CHOICES = ["points", "as it is"]


class Plain(CustomQueryEngine):
    """The engine for direct answers."""

    def custom_query(self, query_str):
        return f"Plainly: {query_str}"


def selecting(kit, selector, *, swapped=False):
    points = kit.make(kit.ChatLLM(script=kit.answering(TITLES)))
    tools = [
        QueryEngineTool.from_defaults(engine, name=name, description=name)
        for name, engine in (("points", points), ("plain", Plain()))
    ]
    return RouterQueryEngine(selector, tools[::-1] if swapped else tools, llm=MockLLM())


@pytest.mark.parametrize("swapped", [False, True])
async def test_a_router_engine_asks_the_engine_that_the_router_is_for(kit, swapped):
    places = {"skeleton": 1, "direct": 0} if swapped else {}
    engine = selecting(kit, SkeletonOfThoughtSelector(**places), swapped=swapped)
    for ask in (lambda query: asyncio.to_thread(engine.query, query), engine.aquery):
        response = await ask(LIST)
        assert [point.title for point in response.points] == TITLES
        assert response.metadata["selector_result"].reason.startswith("the embedded router takes it for independent")
        response = await ask(FACT)
        assert str(response) == f"Plainly: {FACT}"
        assert response.metadata["selector_result"].ind == (0 if swapped else 1)


async def wants_pros(query):
    await asyncio.sleep(0)
    return RouteDecision("pros" in query, reason="are there pros?")


@pytest.mark.parametrize(
    "router",
    ["auto", EmbeddedRouter(), lambda query: "pros" in query, wants_pros, first_sure(wants_pros)],
    ids=["auto", "router", "function", "async function", "combination"],
)
async def test_it_takes_any_router(router):
    selector = SkeletonOfThoughtSelector(router)
    for query, place in ((LIST, 0), (FACT, 1)):
        # Sync, although a loop is running, as in a notebook.
        for result in (selector.select(CHOICES, query), await selector.aselect(CHOICES, query)):
            assert result.ind == place
            assert result.reason


@pytest.mark.parametrize("fails", ["sync", "async"])
async def test_a_router_that_fails_selects_the_direct_one_and_says_so(fails):
    def router(query):
        raise OSError("no route")

    async def arouter(query):
        raise OSError("no route")

    selector = SkeletonOfThoughtSelector(router if fails == "sync" else arouter)
    for result in (
        selector.select(CHOICES, LIST),
        await asyncio.to_thread(selector.select, CHOICES, LIST),
        await selector.aselect(CHOICES, LIST),
    ):
        assert (result.ind, result.reason) == (1, "the router failed: OSError: no route")


async def test_the_llm_that_it_asks_is_called_once_and_in_its_span(kit, instrumented):
    llm = kit.ChatLLM(script=lambda seen: ["INDEPENDENT"])
    engine = selecting(kit, SkeletonOfThoughtSelector(PromptRouter(llm)))
    response = await engine.aquery(FACT)
    assert [point.title for point in response.points] == TITLES
    assert len(llm.watch.seen) == 1
    spans = instrumented.spans
    parent = next(id_ for id_ in spans.parents if id_.startswith("ChatLLM.achat"))
    assert any(id_.startswith("SkeletonOfThoughtSelector.") for id_ in spans.lineage(parent))
    assert spans.open_spans == {}


def test_choices_may_be_metadata_and_more_than_two():
    metadata = [ToolMetadata(description=name) for name in ("other", "plain", "points")]
    selector = SkeletonOfThoughtSelector(skeleton=2, direct=1)
    assert [selector.select(metadata, query).ind for query in (LIST, FACT)] == [2, 1]


async def test_an_index_without_a_choice_is_an_error_for_every_route():
    for places, name in (({"skeleton": 2, "direct": 0}, "skeleton=2"), ({"direct": 3}, "direct=3")):
        selector = SkeletonOfThoughtSelector(**places)
        for query in (LIST, FACT):
            with pytest.raises(ValueError, match=f"{name} is none of the 2 choices"):
                selector.select(CHOICES, query)
            with pytest.raises(ValueError, match=f"{name} is none of the 2 choices"):
                await selector.aselect(CHOICES, query)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"router": None}, "A selector needs a router"),
        ({"router": 5}, "router is int"),
        ({"router": "always"}, "always"),
        ({"skeleton": -1}, "skeleton must be the index of a choice"),
        ({"direct": "plain"}, "direct must be the index of a choice"),
        ({"direct": True}, "direct must be the index of a choice"),
        ({"skeleton": 1}, "nothing to select"),
    ],
)
def test_values_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SkeletonOfThoughtSelector(**settings)


def test_an_empty_query_is_refused():
    with pytest.raises(ValueError, match="question is empty"):
        SkeletonOfThoughtSelector().select(CHOICES, " ")


def test_it_has_no_prompts(kit):
    selector = SkeletonOfThoughtSelector()
    assert selector.get_prompts() == {}
    selector.update_prompts({})
    engine = selecting(kit, selector)
    engine.update_prompts(engine.get_prompts())
    assert engine.query(FACT).response == f"Plainly: {FACT}"
    with pytest.raises(ValueError, match="no prompts to update"):
        selector.update_prompts({"prompt": None})


def test_nothing_waits_for_a_router_after_an_interrupt():
    began, go_on, ended = threading.Event(), threading.Event(), []

    async def hangs(query):
        began.set()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        go_on.wait(3)
        ended.append(query)
        return False

    async def select():
        return SkeletonOfThoughtSelector(hangs).select(CHOICES, LIST)

    # Shells make background processes ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()  # not `asyncio.run`, which turns the signal into a cancellation
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(select())
        assert (began.is_set(), ended) == (True, [])
    finally:
        signal.signal(signal.SIGINT, before)
        go_on.set()
        loop.close()
