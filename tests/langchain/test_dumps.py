"""Dumps and pickles that version 0.1 made load, wherever the classes have moved to."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from langchain_core.load import dumps

from langchain_sot import (
    PromptRouter,
    SkeletonOfThoughtChain,
    SkeletonOfThoughtChatModel,
    SkeletonOfThoughtRouter,
    load_chain,
)
from langchain_sot.local.chat_transformers import ChatTransformers
from skeleton_of_thought.types import Conversation

OLD = Path(__file__).parent.parent / "data" / "dumps"


def loaded(name: str):
    return load_chain((OLD / f"{name}.json").read_text(encoding="utf-8"), secrets_map={"OPENAI_API_KEY": "sk-none"})


def test_a_chain_loads_with_its_settings():
    chain = loaded("chain")
    assert type(chain) is SkeletonOfThoughtChain
    assert (chain.max_points, chain.router, chain.llm.model_name) == (4, "auto", "m")
    assert chain.skeleton_prompt.format_messages(question="Why?")[0].content == "List: Why?"


@pytest.mark.parametrize("name", ["chain", "chat_model", "router", "parser", "picked"])
def test_a_loaded_object_is_dumped_with_the_same_ids(name):
    old = json.loads((OLD / f"{name}.json").read_text(encoding="utf-8"))
    again = json.loads(dumps(loaded(name)))
    assert ids(again) == ids(old) != []


def ids(value) -> list[list[str]]:
    if isinstance(value, dict):
        own = [value["id"]] if "lc" in value else []
        return own + [each for key, item in value.items() if key != "id" for each in ids(item)]
    return [each for item in value for each in ids(item)] if isinstance(value, list) else []


def test_the_other_dumped_classes_load():
    assert type(loaded("chat_model")) is SkeletonOfThoughtChatModel
    assert loaded("chat_model").chain.max_points == 4
    assert loaded("parser").invoke("1. Move\n2. Rest") == ["Move", "Rest"]
    assert loaded("router").invoke("What is 2 + 2?").use_skeleton is False
    assert loaded("picked").chain.max_points == 4


def test_a_local_model_keeps_its_id_and_its_subclasses_have_other_ids():
    class Own(ChatTransformers):
        pass

    assert ChatTransformers.lc_id() == ["langchain_sot", "chat_transformers", "ChatTransformers"]
    assert Own.get_lc_namespace() == Own.__module__.split(".")


def test_pickles_load():
    chain, model, router = (
        pickle.loads((OLD / f"{name}.pickle").read_bytes()) for name in ("chain", "chat_model", "router")
    )
    assert type(chain) is SkeletonOfThoughtChain
    assert type(model) is SkeletonOfThoughtChatModel
    assert type(router) is SkeletonOfThoughtRouter
    assert router.invoke("What is 2 + 2?").use_skeleton is False
    assert model.chain.max_points == 4


async def test_a_pickled_prompt_router_loads_and_routes():
    router = pickle.loads((OLD / "prompt_router.pickle").read_bytes())
    conversation = Conversation.of("How far away is the moon?")
    for each in (router, pickle.loads(pickle.dumps(router))):
        assert type(each) is PromptRouter
        assert (each.races, each._kwargs, each._prompt(conversation).hints.max_tokens) == (True, {"max_tokens": 7}, 7)
        for decision in (each.route(conversation), await each.aroute(conversation)):
            assert (decision.use_skeleton, decision.reason) == (False, "the model takes the answer for no list")


async def test_a_pickled_chain_with_a_prompt_router_answers():
    chain = pickle.loads((OLD / "chain_with_prompt_router.pickle").read_bytes())
    assert chain.max_points == 4
    for answer in (chain.invoke("How far away is the moon?"), await chain.ainvoke("How far away is the moon?")):
        assert (answer["route"], answer["reason"]) == ("direct", "the model takes the answer for no list")
        assert answer["answer"] == "About 384,400 km."
