"""The same chain over Azure's addresses and over the Responses API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_openai import AzureChatOpenAI

PAGE = Path(__file__).parents[3] / "docs" / "servers.md"
TEXTS = {
    "1": "All about take breaks, in so many words.",
    "2": "All about move, in so many words.",
    "3": "All about drink water, in so many words.",
}


pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def azure(server, clients):
    return AzureChatOpenAI(
        azure_endpoint=server.address,
        azure_deployment="mine",
        api_version="2024-10-21",
        api_key="none",
        max_retries=0,
        stream_usage=True,
        **clients,
    )


@pytest.fixture
def responses(server, chat):
    return chat(server.address, use_responses_api=True, max_tokens=50)


async def test_azure_serves_every_method(server, azure, way):
    counted = UsageMetadataCallbackHandler()
    output = await way(skeleton_chain(llm=azure), "Q", {"callbacks": [counted]})
    assert output["points"] == TEXTS
    assert {request.path for request in server.seen} == {
        "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    }
    assert all(request.headers["api-key"] == "none" for request in server.seen)
    (usage,) = counted.usage_metadata.values()
    assert [usage["input_tokens"], usage["output_tokens"]] == server.usage


@pytest.mark.parametrize("name", ["ainvoke", "stream", "astream"])
async def test_azure_faults_fail_their_points_alone(server, azure, fault, ways, name):
    server.faults |= {1: fault("stall"), 2: fault("500")}
    chain = skeleton_chain(llm=azure, max_retries=0, point_timeout=2.5, on_point_error="placeholder")
    output = await ways[name](chain, "Q")
    assert output["points"]["3"] == TEXTS["3"]
    assert output["errors"]["1"].startswith("PointTimeout")
    assert "refused with 500" in output["errors"]["2"]


async def test_the_responses_api_serves_every_method(server, responses, way):
    counted = UsageMetadataCallbackHandler()
    output = await way(skeleton_chain(llm=responses), "Q", {"callbacks": [counted]})
    # The model's reasoning contains another list, which is not part of the skeleton.
    assert output["skeleton"] == ["Take breaks", "Move", "Drink water"]
    assert output["points"] == TEXTS
    assert {request.path for request in server.seen} == {"/v1/responses"}
    (usage,) = counted.usage_metadata.values()
    assert [usage["input_tokens"], usage["output_tokens"]] == server.usage


async def test_the_responses_api_gives_a_direct_answer(responses, way):
    output = await way(skeleton_chain(llm=responses, router=lambda q: False), "Q")
    assert output["answer"] == "Just so."


async def test_a_response_that_reached_its_limit_loses_its_last_line(server, responses, fault, way):
    server.faults["skeleton"] = fault("incomplete")
    output = await way(skeleton_chain(llm=responses), "Q")
    assert output["skeleton"] == ["Take breaks", "Move"]


@pytest.mark.parametrize("name", ["stream", "astream"])
async def test_a_broken_response_is_an_error(server, responses, fault, ways, name):
    server.faults[2] = fault("cut")
    chain = skeleton_chain(llm=responses, max_retries=0, on_point_error="placeholder")
    output = await ways[name](chain, "Q")
    assert output["points"]["2"].startswith("All about (")
    assert output["errors"]["2"].startswith("ConnectionError: The server's stream ended")
    assert output["points"]["3"] == TEXTS["3"]


async def test_a_timeout_reaches_the_responses_api(server, responses, fault, ways):
    server.faults[2] = fault("stall")
    chain = skeleton_chain(llm=responses, max_retries=0, on_point_error="placeholder", point_timeout=2.5)
    output = await ways["stream"](chain, "Q")
    assert output["errors"]["2"].startswith("PointTimeout")


def test_the_chains_on_the_page_run(server, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    # One block starts a server, one shows titles.
    asked = [block for block in blocks if "chain = " in block]
    assert len(asked) == 3
    for block in asked:
        code = re.sub(r"http://127.0.0.1:8000|https://NAME\.openai\.azure\.com", server.address, block)
        exec(compile(code, PAGE.name, "exec"), names)
        assert names["chain"].invoke("What are good ways to stay awake?")["points"] == TEXTS
    assert "1. Take breaks: All about take breaks" in capsys.readouterr().out
    last = [request.body["messages"][-1] for request in server.of("point", 1)]
    assert [message["role"] for message in last] == ["user", "user", "assistant", "user"]
