"""A chain makes its plan once, and anew whenever a field that the plan is made of has changed."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.language_models import FakeListChatModel
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_sot import SkeletonOfThoughtChain
from skeleton_of_thought import PromptSet
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.settings import Settings

TITLES = ["Move", "Drink water"]
QUESTION = "What are good ways to stay awake at night?"


@pytest.fixture
def llm(kit: Any) -> Any:
    return kit.Chat(script=kit.answering(TITLES))


def by_hand(question: str) -> bool:
    return True


def text_of(template: Any) -> str | None:
    return None if template is None else template.instruction


OTHER_LLM = FakeListChatModel(responses=["1. Rest", "Sleep."])
TEMPLATE = PromptTemplate.from_template("List what answers: {question}")
CHANGES: dict[str, tuple[Any, Any]] = {
    "llm": (OTHER_LLM, lambda plan: plan.llm is OTHER_LLM and plan.point_llm is OTHER_LLM),
    "point_llm": (OTHER_LLM, lambda plan: plan.point_llm is OTHER_LLM and plan.llm is not OTHER_LLM),
    "router": (by_hand, lambda plan: plan.router is by_hand and plan.routes_by_runs),
    "prompts": (PROMPTS := PromptSet(point="Write on {title}."), lambda plan: plan.prompts is PROMPTS),
    "skeleton_prompt": (TEMPLATE, lambda plan: getattr(plan.prompts.skeleton, "template", None) is TEMPLATE),
    "point_prompt": ("Explain {title}.", lambda plan: plan.prompts.point.instruction == "Explain {title}."),
    "merge_prompt": ("Merge {draft}.", lambda plan: plan.prompts.merge.instruction == "Merge {draft}."),
    "scoped_prompt": ("Plan {question}.", lambda plan: text_of(plan.prompts.scoped) == "Plan {question}."),
    "graph_prompt": ("Plan {question}.", lambda plan: text_of(plan.prompts.graph) == "Plan {question}."),
    "opening_prompt": ("Open {draft}.", lambda plan: text_of(plan.prompts.opening) == "Open {draft}."),
    "closing_prompt": ("Close {draft}.", lambda plan: text_of(plan.prompts.closing) == "Close {draft}."),
    "item_prompt": ("Do {item}.", lambda plan: text_of(plan.prompts.item) == "Do {item}."),
    "skeleton_mode": ("structured", lambda plan: plan.structured),
    "prefill": (True, lambda plan: plan.prefill is True),
    "retriever": (RunnableLambda(by_hand), lambda plan: plan.retriever is not None and plan.retrieval == "once"),
    "adopt": (False, lambda plan: not plan.adopts),
    "max_points": (4, lambda plan: plan.settings.max_points == plan.router.guard._max_points == 4),
    "min_points": (2, lambda plan: plan.settings.min_points == 2),
    "eager": (True, lambda plan: plan.settings.eager),
    "planning": ("auto", lambda plan: plan.settings.planning == "auto" and plan.planned and plan.plans is not None),
    "items": ("off", lambda plan: plan.settings.items == "off"),
    "max_depth": (3, lambda plan: plan.settings.max_depth == 3),
    "max_parents": (2, lambda plan: plan.settings.max_parents == 2),
    "on_parent_error": ("fail", lambda plan: plan.settings.on_parent_error == "fail"),
    "opening": ("restart", lambda plan: plan.settings.opening == "restart" and plan.planned),
    "closing": (True, lambda plan: plan.settings.closing and plan.planned),
    "rewrite_overlap": (True, lambda plan: plan.settings.rewrite_overlap),
    "max_overlap": (0.5, lambda plan: plan.settings.max_overlap == 0.5),
    "on_empty_skeleton": ("raise", lambda plan: plan.settings.on_empty_skeleton == "raise"),
    "on_point_error": ("placeholder", lambda plan: plan.settings.on_point_error == "placeholder"),
    "placeholder": ("gone", lambda plan: plan.settings.placeholder == "gone"),
    "max_retries": (5, lambda plan: plan.settings.max_retries == 5),
    "backoff": (0.0, lambda plan: plan.settings.backoff == 0.0),
    "point_timeout": (9.0, lambda plan: plan.settings.point_timeout == 9.0),
    "point_words": (7, lambda plan: plan.settings.point_words == 7),
    "join": ("paragraphs", lambda plan: plan.settings.join == "paragraphs"),
    "merge": (True, lambda plan: plan.settings.merge),
    "max_skeleton_chars": (3000, lambda plan: plan.settings.max_skeleton_chars == 3000),
    "max_point_chars": (None, lambda plan: plan.settings.max_point_chars is None),
    "max_answer_chars": (5000, lambda plan: plan.settings.max_answer_chars == 5000),
    "stop_loops": (True, lambda plan: plan.settings.stop_loops),
}


def test_the_table_has_every_field():
    assert set(CHANGES) == set(SkeletonOfThoughtChain.model_fields) - {"name", "retrieval"}  # needs a retriever


async def test_answers_share_one_plan(way, llm, monkeypatch):
    made: list[Settings] = []

    def check(settings: Settings) -> None:
        made.append(settings)

    monkeypatch.setattr(Settings, "__post_init__", check)
    chain = SkeletonOfThoughtChain(llm=llm)
    assert len(made) == 1
    for _ in range(3):
        assert (await way(chain, QUESTION))["skeleton"] == TITLES
    assert len(made) == 1
    assert chain.plan() is chain.plan()


@pytest.mark.parametrize("name", CHANGES)
def test_a_field_that_is_assigned_is_in_the_next_plan(llm, name):
    value, holds = CHANGES[name]
    chain = SkeletonOfThoughtChain(llm=llm)
    before, first = getattr(chain, name), chain.plan()
    assert not holds(first)
    setattr(chain, name, value)
    assert holds(chain.plan())
    assert chain.plan() is chain.plan()
    setattr(chain, name, before)
    assert chain.plan() == first


@pytest.mark.parametrize("name", CHANGES)
def test_a_copy_has_a_plan_of_its_own(llm, name):
    value, holds = CHANGES[name]
    chain = SkeletonOfThoughtChain(llm=llm)
    other = chain.model_copy(update={name: value})
    for _ in range(2):
        assert holds(other.plan())
        assert not holds(chain.plan())


def test_a_value_that_is_equal_but_not_valid_is_refused(llm):
    chain = SkeletonOfThoughtChain(llm=llm, max_points=1)
    chain.max_points = True
    for _ in range(2):
        with pytest.raises(InvalidInput, match="max_points"):
            chain.plan()
    chain.max_points = 1
    assert chain.plan().settings.max_points == 1


async def test_a_template_that_is_changed_in_place_is_used_as_it_is(way, llm):
    template = PromptTemplate.from_template("List: {question}")
    chain = skeleton_chain(llm=llm, skeleton_prompt=template)
    await way(chain, QUESTION)
    template.template = "Name: {question}"
    llm.watch.seen.clear()
    await way(chain, QUESTION)
    assert llm.watch.seen[0].text == f"Name: {QUESTION}"


async def test_configurable_fields_are_in_the_plan(way, llm):
    chain = skeleton_chain(llm=llm).configurable_fields(max_points=ConfigurableField(id="points"))
    for points in (2, 1, 2):
        config = {"configurable": {"points": points}}
        assert len((await way(chain, QUESTION, config))["skeleton"]) == points
    assert len((await way(chain, QUESTION))["skeleton"]) == 2


@pytest.mark.parametrize("again", [copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))])
def test_another_chain_of_equal_value_makes_its_own_plan(again):
    chain = SkeletonOfThoughtChain(llm=OTHER_LLM, max_points=3)
    fresh = SkeletonOfThoughtChain(llm=OTHER_LLM, max_points=3)
    chain.invoke(QUESTION)
    other = again(chain)
    assert other == chain == fresh
    assert other.plan() is not chain.plan()
    assert other.plan().settings == chain.plan().settings
    assert other.plan().llm is other.llm
    assert isinstance(other.plan().router, AutoRouter)
    assert other.plan().router is not chain.plan().router
    other.max_points = 2
    assert (other.plan().settings.max_points, chain.plan().settings.max_points) == (2, 3)


def test_what_a_chain_has_answered_is_no_part_of_its_value(llm):
    for settings in ({"router": None}, {"router": by_hand}, {}):
        one, other = (SkeletonOfThoughtChain(llm=llm, **settings) for _ in range(2))
        one.invoke(QUESTION)
        assert one == other
        assert one.model_copy(update={"max_points": 2}) != other


def test_threads_get_the_plans_of_their_copies(llm):
    chain = SkeletonOfThoughtChain(llm=llm)
    copies = [chain.model_copy(update={"max_points": points}) for points in range(1, 5)]

    def right(i: int) -> bool:
        plan = copies[i % 4].plan()
        return plan.settings.max_points == plan.router.guard._max_points == copies[i % 4].max_points

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(800)))


def test_an_expansion_has_a_plan_beside_that_of_its_chain(llm):
    chain = SkeletonOfThoughtChain(llm=llm, merge=True)
    plan = chain.plan()
    expansion = chain.expansion(TITLES)
    assert not expansion.plan().settings.merge
    assert expansion.plan().skeleton is not None
    assert chain.plan() is plan
    assert plan.settings.merge
