"""Pickles made with 0.1: they load, and the unpickled engines, synthesizers, selectors and responses work.

No workflow is among them, because LlamaIndex's base class cannot be pickled.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.indices import prompt_helper
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_sot import (
    PromptRouter,
    SkeletonOfThoughtQueryEngine,
    SkeletonOfThoughtSelector,
    SkeletonOfThoughtSynthesizer,
    retrieval,
)
from llama_index_sot.response import ResponsePoint, SkeletonOfThoughtResponse

OLD = Path(__file__).parent.parent / "data" / "dumps" / "llama_index"
QUERY = "What is Bergen like?"
ANSWER = f"1. Rain ({QUERY}): [1] It often rains in Bergen."


def unpickled(name: str) -> Any:
    return pickle.loads((OLD / f"{name}.pickle").read_bytes())


def again(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def test_an_engine_with_a_retriever_answers_over_its_nodes():
    engine = unpickled("query_engine")
    assert type(engine) is SkeletonOfThoughtQueryEngine
    for each in (engine, again(engine)):
        response = each.query(QUERY)
        assert str(response) == ANSWER
        assert [node.node.node_id for node in response.source_nodes] == ["rain"]
        assert response.points[0].citations == (1,)
        assert response.metadata["sot"]["retrieval"] == "per_point"


def test_an_engine_with_default_prompts_answers():
    response = unpickled("default_engine").query(QUERY)
    assert response.metadata["sot"]["route"] == "direct"  # MockLLM repeats its prompt, which is no skeleton
    assert QUERY in str(response)


async def test_an_engine_with_a_retriever_answers_on_an_event_loop():
    assert str(await unpickled("query_engine").aquery(QUERY)) == ANSWER


def test_an_engine_with_a_prompt_router_asks_its_llm():
    engine = unpickled("query_engine_with_prompt_router")
    assert type(engine._router) is PromptRouter
    response = engine.query(QUERY)
    assert (str(response), response.metadata["sot"]["route"]) == (QUERY, "direct")
    # A MockLLM repeats its prompt.
    assert "reply was not understood" in response.metadata["sot"]["reason"]


@pytest.mark.skipif(
    not hasattr(prompt_helper, "ChatPromptHelper"), reason="the pickle holds a class of LlamaIndex that is newer"
)
def test_a_synthesizer_answers_over_nodes():
    synthesizer = unpickled("synthesizer")
    assert type(synthesizer) is SkeletonOfThoughtSynthesizer
    nodes = [NodeWithScore(node=TextNode(text="It often rains in Bergen."))]
    assert str(synthesizer.synthesize(QUERY, nodes)) == ANSWER.replace("[1] ", "")
    assert str(again(synthesizer).synthesize(QUERY, [])) == f"1. Rain ({QUERY})"


def test_a_selector_selects():
    selector = unpickled("selector")
    assert type(selector) is SkeletonOfThoughtSelector
    result = selector.select(["points", "as it is"], "What is 17 * 4?")
    assert (result.ind, result.reason) == (1, "gate (arithmetic): something to be calculated")


def test_a_response_keeps_its_points_and_can_be_drawn():
    response = unpickled("response")
    assert type(response) is SkeletonOfThoughtResponse
    assert str(response) == ANSWER
    assert response.points == [
        ResponsePoint(1, f"Rain ({QUERY})", "[1] It often rains in Bergen.", node_ids=("rain",), citations=(1,))
    ]
    assert "Rain" in str(response.timeline())


def test_only_old_names_lead_to_new_classes():
    assert retrieval.Retrieval is retrieval.RetrieverFinder
    with pytest.raises(AttributeError, match=r"module 'llama_index_sot\.retrieval' has no attribute 'Found'"):
        _ = retrieval.Found
