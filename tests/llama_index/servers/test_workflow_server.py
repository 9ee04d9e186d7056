"""`SkeletonOfThoughtWorkflow`, and an agent that answers in points, behind the server of LlamaIndex's workflows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from llama_index_sot import SkeletonOfThoughtWorkflow

library = pytest.importorskip("llama_agents.server", reason="`make test-llama-index` installs llama-agents-server")

# The server itself asks its runs in this way.
pytestmark = pytest.mark.filterwarnings("ignore:WorkflowHandler.done.. is deprecated:DeprecationWarning")

TITLES = ["Move", "Drink water"]
ANSWER = "1. Move: All about move.\n\n2. Drink water: All about drink water."


PAGE = Path(__file__).parents[3] / "docs" / "llama_index.md"


@contextlib.asynccontextmanager
async def served(workflow: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with this workflow."""
    server = library.WorkflowServer()
    server.add_workflow("points", workflow)
    async with client_of(server) as client:
        yield client


@contextlib.asynccontextmanager
async def client_of(server: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server, on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(uvicorn.Config(server.app, log_config=None))
        task = asyncio.create_task(running.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/", timeout=20) as client:
                yield client
        finally:
            running.should_exit = True
            await task


async def events_of(client: httpx.AsyncClient, run: str) -> AsyncIterator[dict[str, Any]]:
    async with client.stream("GET", f"events/{run}", params={"sse": "false", "after_sequence": -1}) as reply:
        async for line in reply.aiter_lines():
            if line.strip():
                yield json.loads(line)


async def begin(client: httpx.AsyncClient, **start: Any) -> str:
    reply = await client.post("workflows/points/run-nowait", json={"start_event": start})
    return str(reply.raise_for_status().json()["handler_id"])


async def test_an_answer_and_its_events_come_over_http(kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.split(" (")[0])])
    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)), retriever=retriever)
    async with served(SkeletonOfThoughtWorkflow(engine)) as client:
        reply = await client.post("workflows/points/run", json={"start_event": {"query": "How?"}})
        result = reply.raise_for_status().json()["result"]["value"]["result"]
        assert result["response"] == ANSWER
        assert [point["title"] for point in result["points"]] == TITLES
        assert [node["node"]["text"] for node in result["source_nodes"]] == [f"The text of {each}." for each in TITLES]
        assert result["metadata"]["sot"]["route"] == "skeleton"

        events = [event async for event in events_of(client, await begin(client, query="How?"))]
        types = [event["type"] for event in events]
        assert types[0] == "SkeletonReady"
        assert types[-1] == "StopEvent"
        assert types.count("PointSources") == types.count("PointDone") == 2
        text = "".join(event["value"]["text"] for event in events if event["type"] == "AnswerDelta")
        assert text == events[-1]["value"]["result"]["response"] == ANSWER


async def test_the_page_s_server_answers_its_commands(kit):
    (block,) = re.findall(r"^```python\n(from llama_agents.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    *lines, last = block.splitlines()
    assert last == 'asyncio.run(server.serve("127.0.0.1", 8080))'
    names = {"engine": kit.make(kit.ChatLLM(script=kit.answering(TITLES)))}
    exec(compile("\n".join(lines), str(PAGE), "exec"), names)
    commands = re.findall(r"^\$ curl -s 127\.0\.0\.1:8080/(\S+) --json '(.*)'$", PAGE.read_text(encoding="utf-8"), re.M)
    (stream,) = re.findall(r"^\$ curl -sN '127\.0\.0\.1:8080/(\S+)'$", PAGE.read_text(encoding="utf-8"), re.M)
    async with client_of(names["server"]) as client:
        whole, begun = [(await client.post(path, json=json.loads(body))).json() for path, body in commands]
        assert whole["result"]["value"]["result"]["response"] == ANSWER
        lines = (await client.get(stream.replace("HANDLER_ID", begun["handler_id"]))).text.splitlines()
        assert json.loads(lines[-1])["value"]["result"]["response"] == ANSWER


async def test_a_question_that_is_missing_is_told(kit):
    async with served(SkeletonOfThoughtWorkflow(kit.make(kit.ChatLLM(script=kit.answering(TITLES))))) as client:
        reply = await client.post("workflows/points/run", json={"start_event": {"question": "How?"}})
        assert "needs a string or a QueryBundle" in reply.json()["error"]


async def test_a_run_that_is_cancelled_leaves_nothing_running(kit):
    def script(seen):
        return kit.pieces("1. One\n2. Two") if seen.stage == "skeleton" else ("and " for _ in iter(int, 1))

    llm = kit.ChatLLM(script=script)
    async with served(SkeletonOfThoughtWorkflow(kit.make(llm))) as client:
        run = await begin(client, query="How?")
        async with contextlib.aclosing(events_of(client, run)) as events:
            async for event in events:
                if event["type"] == "PointDelta":
                    break
        (await client.post(f"handlers/{run}/cancel")).raise_for_status()
        until = asyncio.get_running_loop().time() + kit.PATIENCE
        while llm.watch.open:
            assert asyncio.get_running_loop().time() < until
            await asyncio.sleep(0.001)
