"""`SkeletonOfThoughtLLM` where LlamaIndex takes an LLM: chat engines, query engines, agents, structured output."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, SummaryIndex, VectorStoreIndex
from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from llama_index.core.types import BasePydanticProgram
from pydantic import BaseModel

from llama_index_sot import SkeletonOfThoughtLLM
from llama_index_sot.skeleton_llm import FunctionCallingSkeletonOfThoughtLLM
from skeleton_of_thought.errors import PointError

TITLES = ["Move", "Drink water", "Sleep more"]
ANSWER = "1. Move: All about move.\n\n2. Drink water: All about drink water.\n\n3. Sleep more: All about sleep more."
POINTS = "What are the main benefits of regular exercise?"
FACT = "What is 17 * 4?"
STANDALONE = "What are the main benefits of regular swimming?"


def answering(kit: Any) -> Any:
    """A script that also condenses a chat into one question."""
    points = kit.answering(TITLES)

    def script(seen: Any) -> Any:
        if seen.stage == "direct" and "tandalone" in seen.text:
            return [STANDALONE]
        return points(seen)

    return script


@pytest.fixture
def inner(LLMClass, kit):
    return (kit.CompletingLLM if LLMClass is kit.ChatLLM else LLMClass)(script=answering(kit))


@pytest.fixture
def index():
    documents = [Document(text="Bees fly from flower to flower."), Document(text="Translate this. Return JSON.")]
    return VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=8))


of_agents = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
of_steps = pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning")


# --- chat engines ---


async def _chat(engine: Any, message: str) -> Any:
    return str(await asyncio.to_thread(engine.chat, message))


async def _achat(engine: Any, message: str) -> Any:
    return str(await engine.achat(message))


async def _stream_chat(engine: Any, message: str) -> Any:
    def pieces() -> list[str]:
        return list(engine.stream_chat(message).response_gen)

    return "".join(await asyncio.to_thread(pieces))


async def _astream_chat(engine: Any, message: str) -> Any:
    response = await engine.astream_chat(message)
    return "".join([piece async for piece in response.async_response_gen()])


WAYS = {"chat": _chat, "achat": _achat, "stream_chat": _stream_chat, "astream_chat": _astream_chat}
MODES = ["simple", "context", "condense_question", "condense_plus_context", "best"]


@pytest.fixture(params=list(WAYS))
def way(request):
    return WAYS[request.param]


def chat_engine(index: Any, mode: str, inner: Any) -> Any:
    llm = SkeletonOfThoughtLLM(inner)
    return index.as_chat_engine(chat_mode=mode, llm=llm, memory=ChatMemoryBuffer.from_defaults(llm=llm))


@pytest.mark.parametrize("mode", MODES)
async def test_every_chat_engine_answers_by_points(way, index, inner, mode):
    engine = chat_engine(index, mode, inner)
    assert await way(engine, POINTS) == ANSWER
    assert len(inner.watch.of("point")) == 3
    if mode != "simple":
        assert all("Bees fly" in seen_text(seen) for seen in inner.watch.of("point"))
    # The memory has the answer, and nothing of its making.
    assert [(m.role.value, m.content, m.additional_kwargs) for m in engine.chat_history] == [
        ("user", POINTS, {}),
        ("assistant", ANSWER, {}),
    ]


@pytest.mark.parametrize("mode", MODES)
async def test_every_chat_engine_answers_a_short_question_directly(way, index, inner, mode):
    engine = chat_engine(index, mode, inner)
    assert await way(engine, FACT) == "Just so."
    assert [seen.stage for seen in inner.watch.seen] == ["direct"]


@pytest.mark.parametrize("mode", MODES)
async def test_the_second_turn_of_a_chat_has_the_first(way, index, inner, mode):
    engine = chat_engine(index, mode, inner)
    await way(engine, FACT)
    assert await way(engine, POINTS) == ANSWER
    points = inner.watch.of("point")
    assert len(points) == 3
    if mode == "condense_question":
        assert all(STANDALONE in seen_text(seen) for seen in points)
    else:
        assert all("Just so." in seen_text(seen) for seen in points)
    if "condense" in mode or mode == "best":
        # The prompt that condenses the chat is a task, and no question for points.
        assert [seen.stage for seen in inner.watch.seen][:2] == ["direct", "direct"]


async def test_a_system_prompt_of_the_chat_engine_counts(way, inner):
    for prompt, answer in (("Translate the text into French.", "Just so."), ("You are a kind trainer.", ANSWER)):
        llm = SkeletonOfThoughtLLM(inner)
        memory = ChatMemoryBuffer.from_defaults(llm=llm)
        engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt=prompt)
        assert await way(engine, POINTS) == answer
        assert prompt in seen_text(inner.watch.seen[-1])


async def test_an_error_reaches_the_reader_of_a_chat_engine(kit):
    def script(seen: Any) -> Any:
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    llm = SkeletonOfThoughtLLM(kit.ChatLLM(script=script), max_retries=0)
    with pytest.raises(PointError, match="boom"):
        SimpleChatEngine.from_defaults(llm=llm, memory_cls=ChatMemoryBuffer).chat(POINTS)
    with pytest.raises(PointError, match="boom"):
        await SimpleChatEngine.from_defaults(llm=llm, memory_cls=ChatMemoryBuffer).achat(POINTS)


def seen_text(seen: Any) -> str:
    """The whole prompt of a call."""
    return "\n".join(message.content or "" for message in seen.messages) or seen.text


# --- query engines, synthesizers, helpers ---


async def test_a_query_engine_over_an_index_answers_by_points(index, inner):
    engine = RetrieverQueryEngine.from_args(index.as_retriever(), llm=SkeletonOfThoughtLLM(inner))
    assert str(engine.query(POINTS)) == ANSWER
    assert str(await engine.aquery(POINTS)) == ANSWER
    assert all("Bees fly" in seen_text(seen) for seen in inner.watch.seen)
    assert str(engine.query(FACT)) == "Just so."
    streaming = index.as_query_engine(llm=SkeletonOfThoughtLLM(inner), streaming=True)
    assert "".join(streaming.query(POINTS).response_gen) == ANSWER


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "simple_summarize", "generation", "refine"])
async def test_synthesizers_answer_by_points(inner, kit, mode):
    synthesizer = get_response_synthesizer(response_mode=mode, llm=SkeletonOfThoughtLLM(inner))
    nodes = [NodeWithScore(node=TextNode(text="Bees fly."))]
    assert str(synthesizer.synthesize(POINTS, nodes)) == ANSWER
    assert str(await synthesizer.asynthesize(POINTS, nodes)) == ANSWER


async def test_refining_an_answer_goes_direct(inner):
    synthesizer = get_response_synthesizer(response_mode="refine", llm=SkeletonOfThoughtLLM(inner))
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("Bees fly.", "They like the sun.")]
    assert str(synthesizer.synthesize(POINTS, nodes)) == "Just so."
    assert [seen.stage for seen in inner.watch.seen].count("direct") == 1


async def test_everything_of_the_settings_uses_it(index, inner, monkeypatch):
    monkeypatch.setattr(LlamaIndexSettings, "_llm", None)
    LlamaIndexSettings.llm = SkeletonOfThoughtLLM(inner)
    assert str(index.as_query_engine().query(POINTS)) == ANSWER
    memory = ChatMemoryBuffer.from_defaults()
    assert str(await index.as_chat_engine(chat_mode="context", memory=memory).achat(POINTS)) == ANSWER
    hyde = HyDEQueryTransform()
    assert hyde.run(POINTS).custom_embedding_strs[0] == "Just so."
    assert str(TransformQueryEngine(index.as_query_engine(), hyde).query(POINTS)) == ANSWER
    summary = SummaryIndex.from_documents([Document(text="Bees fly.")])
    assert str(summary.as_query_engine(response_mode="tree_summarize").query(POINTS)) == ANSWER


def test_a_selector_gets_a_plain_reply(kit):
    inner = kit.ChatLLM(script=lambda seen: [json.dumps([{"choice": 1, "reason": "It fits."}])])
    selector = LLMSingleSelector.from_defaults(llm=SkeletonOfThoughtLLM(inner))
    tools = [ToolMetadata(name=name, description=f"Answers questions about {name}.") for name in ("sport", "bees")]
    assert selector.select(tools, POINTS).ind == 0
    assert [seen.stage for seen in inner.watch.seen] == ["direct"]


# --- agents and tools ---


def tool_calling(kit: Any) -> type:
    class ToolLLM(kit.ChatLLM, FunctionCallingLLM):
        """Calls its first tool once, then answers."""

        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(is_chat_model=True, is_function_calling_model=True, model_name="tools")

        def _prepare_chat_with_tools(
            self,
            tools: Any,
            user_msg: Any = None,
            chat_history: Any = None,
            verbose: bool = False,
            allow_parallel_tool_calls: bool = False,
            tool_required: bool = False,
            **kwargs: Any,
        ) -> dict[str, Any]:
            user = ChatMessage(role="user", content=user_msg) if isinstance(user_msg, str) else user_msg
            messages = [*(chat_history or []), *([user] if user else [])]
            return {"messages": messages, "tools": [tool.metadata.name for tool in tools], **kwargs}

        def _calling(self, messages: Any, kwargs: Any) -> ChatResponse | None:
            if not kwargs.get("tools") or messages[-1].role.value == "tool":
                return None
            arguments = {"place": "Rome"}
            call = {"id": "c1", "name": kwargs["tools"][0], "arguments": arguments}
            message = ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]})
            self.watch.seen.append(kit.seen_as("", messages=messages, kwargs=kwargs, method="tools"))
            return ChatResponse(message=message, raw={"usage": {"prompt_tokens": 3, "completion_tokens": 2}})

        def chat(self, messages: Any, **kwargs: Any) -> Any:
            return self._calling(messages, kwargs) or super().chat(messages, **kwargs)

        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            return self._calling(messages, kwargs) or await super().achat(messages, **kwargs)

        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            call = self._calling(messages, kwargs)
            return iter([call]) if call else super().stream_chat(messages, **kwargs)

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def one(call: Any) -> Any:
                yield call

            call = self._calling(messages, kwargs)
            return one(call) if call else await super().astream_chat(messages, **kwargs)

        def get_tool_calls_from_response(
            self, response: Any, error_on_no_tool_call: bool = True, **kwargs: Any
        ) -> list[ToolSelection]:
            calls = response.message.additional_kwargs.get("tool_calls", [])
            if not calls and error_on_no_tool_call:
                raise ValueError("no tool call")
            return [
                ToolSelection(tool_id=call["id"], tool_name=call["name"], tool_kwargs=call["arguments"])
                for call in calls
            ]

    return ToolLLM


def weather(place: str) -> str:
    """The weather at a place."""
    return f"Sunny in {place}."


WEATHER = FunctionTool.from_defaults(weather)


@pytest.fixture
def tool_llm(kit):
    return tool_calling(kit)(script=kit.answering(TITLES))


def test_it_calls_functions_exactly_if_the_wrapped_llm_does(kit, tool_llm):
    llm = SkeletonOfThoughtLLM(tool_llm)
    assert isinstance(llm, FunctionCallingLLM)
    assert isinstance(llm, SkeletonOfThoughtLLM)
    assert type(llm) is FunctionCallingSkeletonOfThoughtLLM
    assert llm.metadata.is_function_calling_model
    assert llm.class_name() == "SkeletonOfThoughtLLM"
    assert llm.model_copy().chat([ChatMessage(content=POINTS)]).message.content == ANSWER
    assert not isinstance(SkeletonOfThoughtLLM(kit.ChatLLM(script=None)), FunctionCallingLLM)


async def test_calls_with_tools_reach_the_llm_unchanged(tool_llm):
    llm = SkeletonOfThoughtLLM(tool_llm, router=None)
    history = [ChatMessage(role="system", content="Be brief.")]
    given: dict[str, Any] = {"chat_history": history, "allow_parallel_tool_calls": True, "temperature": 0.1}
    for each in (llm, tool_llm):
        responses = [
            each.chat_with_tools([WEATHER], POINTS, **given),
            await each.achat_with_tools([WEATHER], POINTS, **given),
            *each.stream_chat_with_tools([WEATHER], user_msg=POINTS, **given),
            *[response async for response in await each.astream_chat_with_tools([WEATHER], POINTS, **given)],
        ]
        for response in responses:
            (call,) = each.get_tool_calls_from_response(response)
            assert (call.tool_name, call.tool_kwargs) == ("weather", {"place": "Rome"})
    seen = tool_llm.watch.seen
    assert [(s.messages, s.kwargs) for s in seen[:4]] == [(s.messages, s.kwargs) for s in seen[4:]]
    assert {s.method for s in seen} == {"tools"}
    with pytest.raises(ValueError, match="no tool call"):
        llm.get_tool_calls_from_response(llm.chat([ChatMessage(content=POINTS)]))


async def test_tools_without_any_tool_are_still_calls_with_tools(tool_llm):
    llm = SkeletonOfThoughtLLM(tool_llm, router=None)
    assert llm.chat_with_tools([], POINTS).message.content == "Just so."
    assert (await llm.achat_with_tools([], user_msg=POINTS)).message.content == "Just so."


@of_agents
@of_steps
async def test_predict_and_call_runs_the_tool(tool_llm):
    llm = SkeletonOfThoughtLLM(tool_llm)
    assert str(llm.predict_and_call([WEATHER], "Is it sunny?")) == "Sunny in Rome."
    assert str(await llm.apredict_and_call([WEATHER], user_msg="Is it sunny?")) == "Sunny in Rome."


@of_agents
@of_steps
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_function_agent_calls_tools_and_answers(tool_llm, streaming):
    agent = FunctionAgent(tools=[WEATHER], llm=SkeletonOfThoughtLLM(tool_llm, router=None), streaming=streaming)
    output = await agent.run(user_msg=POINTS)
    assert str(output) == "Just so."
    assert [call.tool_output.content for call in output.tool_calls] == ["Sunny in Rome."]
    # Both turns have tools, so the last answer is the wrapped LLM's own.
    assert [seen.kwargs["tools"] for seen in tool_llm.watch.seen] == [["weather"]] * 2


@of_agents
@of_steps
async def test_an_agent_workflow_takes_it(tool_llm):
    workflow = AgentWorkflow.from_tools_or_functions([WEATHER], llm=SkeletonOfThoughtLLM(tool_llm))
    assert str(await workflow.run(user_msg=POINTS)) == "Just so."
    assert tool_llm.watch.seen[0].method == "tools"


@of_agents
@of_steps
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_react_agent_gets_plain_replies(LLMClass, kit, streaming):
    def script(seen: Any) -> Any:
        if "Observation: " in seen_text(seen) and "Sunny in" in seen_text(seen):
            return kit.pieces("Thought: I can answer without using any more tools.\nAnswer: Sunny.")
        return kit.pieces('Thought: I need a tool.\nAction: weather\nAction Input: {"place": "Rome"}')

    inner = LLMClass(script=script)
    agent = ReActAgent(tools=[WEATHER], llm=SkeletonOfThoughtLLM(inner), streaming=streaming)
    assert str(await agent.run(user_msg=POINTS)) == "Sunny."
    assert len(inner.watch.seen) == 2
    assert not any(seen.on_loop for seen in inner.watch.seen) or LLMClass is kit.ChatLLM


async def test_a_query_engine_of_it_is_a_tool(index, tool_llm):
    engine = index.as_query_engine(llm=SkeletonOfThoughtLLM(tool_llm))
    tool = QueryEngineTool.from_defaults(engine, name="handbook", description="Answers questions.")
    assert tool.call(POINTS).content == ANSWER
    assert (await tool.acall(POINTS)).content == ANSWER


# --- structured output ---


class Forecast(BaseModel):
    """A weather forecast."""

    place: str


PROMPT = PromptTemplate("What will the weather be in {town}? What are the reasons?")


async def test_the_wrapped_llm_makes_structured_output(tool_llm):
    llm = SkeletonOfThoughtLLM(tool_llm, router=None)
    assert llm.structured_predict(Forecast, PROMPT, town="Rome") == Forecast(place="Rome")
    assert await llm.astructured_predict(Forecast, PROMPT, town="Rome") == Forecast(place="Rome")
    structured = llm.as_structured_llm(Forecast)
    assert structured.complete("What will the weather be in Rome?").raw == Forecast(place="Rome")
    assert (await structured.achat([ChatMessage(content="Rome?")])).raw == Forecast(place="Rome")
    assert {seen.method for seen in tool_llm.watch.seen} == {"tools"}


streams_text = pytest.mark.skipif(
    LLMTextCompletionProgram.stream_call is BasePydanticProgram.stream_call,
    reason="this llama-index-core streams no structured output of text LLMs",
)


@pytest.mark.parametrize("streamed", [False, pytest.param(True, marks=streams_text)])
async def test_structured_output_of_a_text_llm_never_blocks_the_loop(kit, streamed):
    inner = kit.SyncLLM(script=lambda seen: ['{"place": ', '"Rome"}'])
    llm = SkeletonOfThoughtLLM(inner, router=None)
    if streamed:
        stream = await llm.astream_structured_predict(Forecast, PROMPT, town="Rome")
        found = [one async for one in stream][-1]
    else:
        found = await llm.astructured_predict(Forecast, PROMPT, town="Rome")
    assert found.place == "Rome"
    assert inner.watch.seen
    assert not any(seen.on_loop for seen in inner.watch.seen)


@streams_text
def test_structured_output_is_streamed(kit):
    llm = SkeletonOfThoughtLLM(kit.SyncLLM(script=lambda seen: ['{"place": ', '"Rome"}']), router=None)
    assert list(llm.stream_structured_predict(Forecast, PROMPT, town="Rome"))[-1].place == "Rome"
