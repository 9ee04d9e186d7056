"""Agents that give the points of their final answer by a tool: real agents, on a server that refuses broken chats."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata, MessageRole, TextBlock
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool, ToolOutput
from llama_index.core.workflow import Context
from pydantic import BaseModel
from scripted_calls import PATIENCE, Gate, Watch

from llama_index_sot import answer_in_points_tool
from llama_index_sot.events import PointDelta, PointDone, PointSources, SkeletonReady
from llama_index_sot.response import SkeletonOfThoughtResponse
from skeleton_of_thought.errors import InvalidInput, PointError

# LlamaIndex reads fields of pydantic that are deprecated when it makes an agent, and asks contexts of steps for a run.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key. memory"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

POINTS = {"points": [{"title": "Move", "note": "Only walks."}, {"title": "Drink water"}]}
ANSWER = "1. Move: All about move.\n\n2. Drink water: All about drink water."
QUESTION = "What are good ways to stay awake?"
Turn = str | list[tuple[str, dict[str, Any]]]


def refuse_broken(messages: Sequence[ChatMessage], tools: bool) -> None:
    """Raises as a strict server does."""
    roles = [message.role.value for message in messages]
    if "system" in roles[1:] or roles[-1] not in ("user", "tool"):
        raise ValueError(f"400: the roles are {roles}")
    waiting: list[str] = []
    for before, message in zip([None, *messages], messages, strict=False):
        calls = [call["id"] for call in message.additional_kwargs.get("tool_calls", ())]
        if message.role is MessageRole.TOOL:
            if message.additional_kwargs["tool_call_id"] not in waiting:
                raise ValueError(f"400: the result of no call: {message}")
            waiting.remove(message.additional_kwargs["tool_call_id"])
        elif waiting:
            raise ValueError(f"400: calls without results: {waiting}")
        waiting += calls
        if calls and not tools:
            raise ValueError("400: there are tool calls, but no tools")
        if not calls and not (message.content or "").strip():
            raise ValueError(f"400: an empty message: {message}")
        if before is not None and before.role is message.role and message.role is not MessageRole.TOOL:
            raise ValueError(f"400: two messages of role {message.role.value} in a row")
    if waiting:
        raise ValueError(f"400: calls without results: {waiting}")


class AgentLLM(FunctionCallingLLM):
    """Plays turns of an agent, and writes points from their prompts."""

    turns: Any
    watch: Any = None
    point: Any = None
    """What happens in the call of a point, by its title; None for its text at once."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.watch, self.turns = self.watch or Watch(), iter(self.turns)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, is_function_calling_model=True)

    def _begin(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> tuple[SimpleNamespace, Turn]:
        tools = kwargs.pop("tools", None)
        refuse_broken(messages, bool(tools))
        assert not kwargs
        # With notes, and without.
        title = re.search(r'(?:text of point \d+, |under the heading )"(.*?)"', messages[-1].content or "")
        stage = "agent" if tools else "point"
        seen = SimpleNamespace(
            stage=stage, title=title and title[1], messages=list(messages), thread=threading.get_ident()
        )
        if stage == "agent":
            return seen, next(self.turns)
        assert title is not None, messages[-1].content
        return seen, f"All about {title[1].lower()}."

    def _reply(self, turn: Turn) -> ChatMessage:
        if isinstance(turn, str):
            return ChatMessage(role="assistant", content=turn)
        calls = [
            {"id": f"{id(turn)}-{number}", "name": name, "arguments": json.dumps(arguments)}
            for number, (name, arguments) in enumerate(turn)
        ]
        return ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": calls})

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        seen, turn = self._begin(messages, kwargs)
        with self.watch.call(seen):
            await self._happens(seen)
            return ChatResponse(message=self._reply(turn))

    async def _happens(self, seen: SimpleNamespace) -> None:
        step = self.point(seen.title) if self.point and seen.stage == "point" else None
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Gate):
            await step.await_()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def responses() -> Any:
            seen, turn = self._begin(messages, kwargs)
            with self.watch.call(seen):
                reply, text = self._reply(turn), ""
                words = re.findall(r"\S+\s*", reply.content or "") or [""]
                for word in words:
                    if word is words[-1]:
                        await self._happens(seen)
                    text += word
                    await asyncio.sleep(0)
                    message = ChatMessage(role="assistant", content=text, additional_kwargs=reply.additional_kwargs)
                    yield ChatResponse(message=message, delta=word)

        return responses()

    def get_tool_calls_from_response(self, response: ChatResponse, *_: Any, **__: Any) -> list[ToolSelection]:
        return [
            ToolSelection(tool_id=call["id"], tool_name=call["name"], tool_kwargs=json.loads(call["arguments"]))
            for call in response.message.additional_kwargs.get("tool_calls", ())
        ]

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **_: Any
    ) -> dict[str, Any]:
        return {"messages": list(chat_history), "tools": [tool.metadata.to_openai_tool() for tool in tools]}

    def chat(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a call that blocks the loop")

    complete = stream_complete = acomplete = astream_complete = stream_chat = chat


class SyncAgentLLM(AgentLLM):
    """Its points can be written by blocking methods only."""

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self.chat(messages, **kwargs)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        seen, turn = self._begin(messages, kwargs)
        with self.watch.call(seen):
            if seen.stage == "point":
                self.watch.together(2).wait()
            return ChatResponse(message=self._reply(turn))


def search(query: str) -> str:
    """Searches."""
    return f"Found that {query} helps."


def agent(llm: AgentLLM, *tools: Any, **options: Any) -> FunctionAgent:
    tools = tools or (search, answer_in_points_tool(backoff=0.0))
    return FunctionAgent(llm=llm, tools=list(tools), **{"system_prompt": "Be kind.", **options})


async def ask(asked: Any, question: str = QUESTION, **arguments: Any) -> tuple[Any, list[Any]]:
    handler = asked.run(user_msg=question, **arguments)
    events = [event async for event in handler.stream_events()]
    return await handler, events


def streamed(events: list[Any]) -> str:
    return "".join(event.delta for event in events if isinstance(event, AgentStream))


def results(events: list[Any]) -> list[ToolCallResult]:
    return [event for event in events if isinstance(event, ToolCallResult)]


def sees(seen: SimpleNamespace) -> list[tuple[str, str]]:
    return [(message.role.value, message.content or "") for message in seen.messages]


# --- one answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_agents_call_is_the_skeleton_of_its_answer(streaming):
    llm = AgentLLM(turns=[[("search", {"query": "coffee"})], [("answer_in_points", POINTS)]])
    llm.point = lambda title: llm.watch.together(2)
    result, events = await ask(agent(llm, streaming=streaming))
    assert str(result) == ANSWER
    assert result.response.role is MessageRole.ASSISTANT
    assert isinstance(result.raw, SkeletonOfThoughtResponse)
    assert [(point.title, point.scope) for point in result.raw.points] == [("Move", "Only walks"), ("Drink water", "")]
    assert result.raw.metadata["sot"]["route"] == "skeleton"
    assert [seen.stage for seen in llm.watch.seen] == ["agent", "agent", "point", "point"]
    for seen in llm.watch.of("point"):
        roles, texts = zip(*sees(seen), strict=True)
        assert roles == ("system", "user", "assistant", "user")
        assert texts[:2] == ("Be kind.", QUESTION)
        assert texts[2] == 'The result of search({"query": "coffee"}):\nFound that coffee helps.'
        assert QUESTION in texts[3]
    assert streamed(events) == (ANSWER if streaming else "")
    types = [type(event) for event in events]
    assert types.count(SkeletonReady) == 1
    assert types.count(PointDone) == 2


async def test_text_streams_in_document_order_while_all_points_are_written():
    first = Gate()
    llm = AgentLLM(turns=[[("answer_in_points", POINTS)]], point=lambda title: first if title == "Move" else None)
    handler, text = agent(llm).run(user_msg=QUESTION), ""
    async for event in handler.stream_events():
        if isinstance(event, AgentStream):
            text += event.delta
            assert event.response == text
            assert event.current_agent_name == "Agent"
        if isinstance(event, PointDone) and event.index == 2:
            assert text == "1. Move: All about"
            first.open()
    assert text == str(await handler) == ANSWER


async def test_the_next_turn_has_a_chat_that_a_strict_server_takes():
    llm = AgentLLM(
        turns=[
            *([("search", {"query": "tea"})], [("answer_in_points", POINTS)]),
            *([("answer_in_points", POINTS)], "Bye."),
        ]
    )
    asked, memory = agent(llm), ChatMemoryBuffer.from_defaults(token_limit=10_000)
    for question in ("Once?", "Twice?", "Thrice?"):
        await ask(asked, question, memory=memory)
    texts = [(message.role.value, message.content) for message in memory.get_all()]
    assert texts.count(("assistant", ANSWER)) == 2
    assert texts[-2:] == [("user", "Thrice?"), ("assistant", "Bye.")]
    last = llm.watch.of("point")[-1]
    told = 'The result of search({"query": "tea"}):\nFound that tea helps.'
    expected = [("system", "Be kind."), ("user", "Once?"), ("assistant", f"{told}\n\n{ANSWER}")]
    assert sees(last)[:-1] == expected
    assert "Twice?" in sees(last)[-1][1]


async def test_a_picture_in_the_question_is_seen_once():
    picture = ImageBlock(image=b"aW1hZ2U=", image_mimetype="image/png")
    asked = ChatMessage(role="user", blocks=[TextBlock(text=QUESTION), picture])
    llm = AgentLLM(turns=[[("search", {"query": "tea"})], [("answer_in_points", POINTS)]])
    assert str(await agent(llm).run(user_msg=asked)) == ANSWER
    for seen in llm.watch.of("point"):
        shown = [len([block for block in message.blocks if block == picture]) for message in seen.messages]
        assert shown == [0, 1, 0, 0]


async def test_a_picture_in_a_result_is_the_users():
    picture = ImageBlock(image=b"aW1hZ2U=", image_mimetype="image/png")

    def camera(place: str) -> Any:
        """Takes a picture."""
        return [TextBlock(text="Taken today."), picture]

    turns = [[("camera", {"place": "Bonn"})], [("answer_in_points", POINTS)], [("answer_in_points", POINTS)]]
    llm, memory = AgentLLM(turns=turns), ChatMemoryBuffer.from_defaults(token_limit=10_000)
    asked = agent(llm, camera, answer_in_points_tool())
    await ask(asked, "Once?", memory=memory)
    await ask(asked, "Twice?", memory=memory)
    for seen in llm.watch.of("point"):
        assert 'The result of camera({"place": "Bonn"}):\nTaken today.' in sees(seen)[2][1]
        shown = [len([block for block in message.blocks if block == picture]) for message in seen.messages]
        assert shown == [0, 0, 0, 1]
        assert "Once?" in sees(seen)[-1][1] or "Twice?" in sees(seen)[-1][1]


async def test_ids_that_each_turn_counts_anew_tell_results_apart():
    class Counting(AgentLLM):
        def _reply(self, turn: Turn) -> ChatMessage:
            reply = super()._reply(turn)
            for number, call in enumerate(reply.additional_kwargs.get("tool_calls", ())):
                call["id"] = str(number)
            return reply

    llm = Counting(turns=[[("search", {"query": "tea"})], [("answer_in_points", POINTS)]] * 2)
    memory = ChatMemoryBuffer.from_defaults(token_limit=10_000)
    asked = agent(llm)
    await ask(asked, "Once?", memory=memory)
    await ask(asked, "Twice?", memory=memory)
    told = 'The result of search({"query": "tea"}):\nFound that tea helps.'
    assert [text for _, text in sees(llm.watch.of("point")[-1])[2:5:2]] == [f"{told}\n\n{ANSWER}", told]


async def test_a_context_that_was_stored_goes_on():
    llm = AgentLLM(turns=[[("answer_in_points", POINTS)], [("answer_in_points", POINTS)]])
    asked, memory = agent(llm), ChatMemoryBuffer.from_defaults()
    ctx: Any = Context(asked)
    await ask(asked, "Once?", ctx=ctx, memory=memory)
    ctx = Context.from_dict(asked, json.loads(json.dumps(ctx.to_dict())))
    result, _ = await ask(asked, "Twice?", ctx=ctx, memory=memory)
    assert str(result) == ANSWER
    assert sees(llm.watch.of("point")[-1])[1:3] == [("user", "Once?"), ("assistant", ANSWER)]


async def test_another_llm_may_write_the_points():
    llm, writer = AgentLLM(turns=[[("answer_in_points", POINTS)]]), AgentLLM(turns=[])
    result, _ = await ask(agent(llm, answer_in_points_tool(point_llm=writer)))
    assert str(result) == ANSWER
    assert (len(llm.watch.seen), len(writer.watch.seen)) == (1, 2)


async def test_each_point_retrieves_and_its_sources_are_kept(kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.split(" (")[0])])
    llm = AgentLLM(turns=[[("answer_in_points", POINTS)]])
    result, events = await ask(agent(llm, answer_in_points_tool(retriever=retriever)))
    assert [sought.query.query_str for sought in retriever.watch.seen] == [
        f"Move ({QUESTION})",
        f"Drink water ({QUESTION})",
    ]
    assert [node.node_id for node in result.raw.source_nodes] == ["Move", "Drink water"]
    assert [point.node_ids for point in result.raw.points] == [("Move",), ("Drink water",)]
    assert sum(isinstance(event, PointSources) for event in events) == 2
    for seen in llm.watch.of("point"):
        assert f"The text of {seen.title}." in sees(seen)[-1][1]
    json.dumps(results(events)[0].model_dump(mode="json"))


async def test_methods_that_block_run_beside_the_loop():
    llm = SyncAgentLLM(turns=[[("answer_in_points", POINTS)]])
    # Of this LLM, only the calls of points may leave the loop.
    result, _ = await ask(agent(llm, answer_in_points_tool(), streaming=False))
    assert str(result) == ANSWER
    threads = [seen.thread for seen in llm.watch.seen]
    assert threads[0] == threading.get_ident()
    assert threading.get_ident() not in threads[1:]


# --- several agents -----------------------------------------------------------------------------------------------


async def test_an_agent_that_took_over_answers_with_its_own_llm_and_prompt():
    first = AgentLLM(turns=[[("handoff", {"to_agent": "writer", "reason": "it writes"})]])
    second = AgentLLM(turns=[[("answer_in_points", POINTS)], [("answer_in_points", POINTS)]])
    tool = answer_in_points_tool()
    workflow = AgentWorkflow(
        agents=[
            agent(first, search, tool, name="reader", description="reads", system_prompt="Read."),
            agent(second, tool, name="writer", description="writes", system_prompt="Write."),
        ],
        root_agent="reader",
    )
    memory = ChatMemoryBuffer.from_defaults()
    ctx: Any = Context(workflow)
    result, events = await ask(workflow, ctx=ctx, memory=memory)
    assert str(result) == streamed(events) == ANSWER
    assert result.current_agent_name == "writer"
    assert len(first.watch.seen) == 1
    assert [text for _, text in sees(second.watch.of("point")[0])[:2]] == ["Write.", QUESTION]
    assert {event.current_agent_name for event in events if isinstance(event, AgentStream) and event.delta} == {
        "writer"
    }
    result, _ = await ask(workflow, "And?", ctx=ctx, memory=memory)
    assert str(result) == ANSWER
    assert len(first.watch.seen) == 1


async def test_react_agents_give_points_too():
    class Plain(AgentLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(is_chat_model=True)

        def _begin(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Any:
            if "Action Input" in (messages[0].content or ""):
                kwargs = {"tools": [1]}
            return super()._begin(messages, kwargs)

    def act(tool: str, arguments: Any) -> str:
        return f"Thought: Needed.\nAction: {tool}\nAction Input: {json.dumps(arguments)}"

    llm = Plain(turns=[act("search", {"query": "tea"}), act("answer_in_points", {}), act("answer_in_points", POINTS)])
    tools = [FunctionTool.from_defaults(search), answer_in_points_tool()]
    result, events = await ask(ReActAgent(llm=llm, tools=tools))
    assert str(result) == ANSWER
    assert streamed(events).endswith(ANSWER)
    assert "Observation: Found that tea helps." in sees(llm.watch.of("point")[0])[1][1]


# --- calls that are not answered ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"points": []}, {"points": [{"title": "One"}]}, {"points": 3}])
async def test_arguments_that_cannot_work_are_told_to_the_model(arguments):
    llm = AgentLLM(turns=[[("answer_in_points", arguments)], [("answer_in_points", POINTS)], "Bye."])
    asked, memory = agent(llm), ChatMemoryBuffer.from_defaults()
    result, events = await ask(asked, memory=memory)
    assert str(result) == streamed(events) == ANSWER
    bad = results(events)[0]
    assert bad.tool_output.is_error
    assert not bad.return_direct
    assert "answer_in_points" in bad.tool_output.content
    assert sees(llm.watch.seen[1])[-1] == ("tool", bad.tool_output.content)
    await ask(asked, "More?", memory=memory)


@pytest.mark.parametrize("turn", [["search", "answer_in_points", "search"], ["answer_in_points", "answer_in_points"]])
async def test_a_call_beside_others_waits_for_their_results(turn):
    given = {"search": {"query": "tea"}, "answer_in_points": POINTS}
    calls = [(name, given[name]) for name in turn]
    llm = AgentLLM(turns=[calls, [("answer_in_points", POINTS)], "Bye."])
    asked, memory = agent(llm), ChatMemoryBuffer.from_defaults(token_limit=10_000)
    result, events = await ask(asked, memory=memory)
    assert str(result) == streamed(events) == ANSWER
    assert [seen.stage for seen in llm.watch.seen] == ["agent", "agent", "point", "point"]
    refused = [one.tool_output.content for one in results(events)[: len(turn)] if one.tool_output.is_error]
    assert len(refused) == turn.count("answer_in_points")
    assert ("2 times" in refused[0]) == (len(refused) == 2)
    if "search" in turn:
        told = sees(llm.watch.of("point")[0])[2][1]
        assert told.count("Found that tea helps.") == 2
        assert "answer_in_points" not in told
    await ask(asked, "More?", memory=memory)


@pytest.mark.parametrize("policy", ["raise", "placeholder"])
async def test_a_point_that_fails_is_answered_by_policy(policy):
    llm = AgentLLM(
        turns=[[("answer_in_points", POINTS)], "Sorry.", "Bye."],
        point=lambda title: OSError("no route") if title == "Move" else None,
    )
    tool = answer_in_points_tool(on_point_error=policy, placeholder="(missing)", max_retries=0)
    asked, memory = agent(llm, tool), ChatMemoryBuffer.from_defaults()
    result, events = await ask(asked, memory=memory)
    output = results(events)[0].tool_output
    if policy == "placeholder":
        assert str(result).startswith("1. Move: All about (missing)\n\n2. Drink water: All")
        assert "no route" in result.raw.points[0].error
    else:
        assert str(result) == "Sorry."
        assert streamed(events) == "1. Move: All about\n\nSorry."
        if hasattr(ToolOutput, "exception"):
            assert isinstance(output.exception, PointError)
        assert "no route" in output.content
    await ask(asked, "More?", memory=memory)


@pytest.mark.parametrize("option", ["output_cls", "structured_output_fn"])
async def test_an_agent_that_makes_data_writes_its_answer_itself(option):
    class Data(BaseModel):
        text: str

    values: dict[str, Any] = {"output_cls": Data, "structured_output_fn": lambda messages: {"text": "own"}}
    llm = AgentLLM(turns=[[("answer_in_points", POINTS)], "Short."])
    if option == "output_cls":
        with pytest.warns(UserWarning, match="structured output"):  # the scripted LLM writes none
            result, _ = await ask(agent(llm, **{option: values[option]}))
    else:
        result, _ = await ask(agent(llm, **{option: values[option]}))
        assert result.structured_response == {"text": "own"}
    assert str(result) == "Short."
    assert [seen.stage for seen in llm.watch.seen[:2]] == ["agent", "agent"]


async def test_outside_of_an_agent_the_tool_says_what_it_needs():
    tool = answer_in_points_tool()
    output = await tool.acall(**POINTS)
    assert output.is_error
    assert "agent's tools" in output.content


def test_options_that_cannot_work_are_refused_at_once():
    with pytest.raises(TypeError, match="no option router"):
        answer_in_points_tool(router=None)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="max_points"):
        answer_in_points_tool(max_points=0)
    with pytest.raises(InvalidInput, match="needs a retriever"):
        answer_in_points_tool(retrieval="once")
    with pytest.raises(InvalidInput, match="llm must be an LLM"):
        answer_in_points_tool("gpt")  # type: ignore[arg-type]
    schema = answer_in_points_tool().metadata.to_openai_tool()["function"]["parameters"]
    assert schema["required"] == ["points"]
    assert "$ref" not in json.dumps(schema)


# --- the end of a run ---------------------------------------------------------------------------------------------


async def test_a_run_that_is_cancelled_leaves_nothing_running():
    llm = AgentLLM(turns=[[("answer_in_points", POINTS)]], point=lambda title: Gate())
    handler = agent(llm).run(user_msg=QUESTION)
    async for event in handler.stream_events():
        if isinstance(event, PointDelta):
            break
    await handler.cancel_run()
    with contextlib.suppress(Exception):
        await handler
    until = asyncio.get_running_loop().time() + PATIENCE
    while llm.watch.open:
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.001)
