"""The engine inside LlamaIndex's tools, agents, routers, and engines of engines."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetryQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.tools import QueryEngineTool

from llama_index_sot.response import AsyncSkeletonOfThoughtStreamingResponse, SkeletonOfThoughtResponse

TITLES = ["Move", "Drink water"]
TEXT = "1. Move: All about move.\n\n2. Drink water: All about drink water."


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
def streaming(request):
    return request.param


@pytest.fixture
def engine(kit, LLMClass, streaming):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.partition(" (")[0])])
    return kit.make(LLMClass(script=kit.answering(TITLES)), retriever=retriever, streaming=streaming)


@pytest.fixture
def tool(engine):
    return QueryEngineTool.from_defaults(engine, name="answers", description="Answers questions.")


# --- tools and agents ------------------------------------------------------------------------------


async def test_a_tool_returns_the_text_and_the_response(tool, streaming):
    for output in (await asyncio.to_thread(tool.call, "How?"), await tool.acall("How?"), tool.call("How?")):
        assert output.content == TEXT
        assert [point.title for point in output.raw_output.points] == TITLES
        assert len(output.raw_output.source_nodes) == 2
    if not streaming:
        assert isinstance(output.raw_output, SkeletonOfThoughtResponse)


# LlamaIndex's agents look at deprecated attributes of pydantic's models.
of_agents = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


def calling(kit, script):
    """A chat model that calls the tool `answers` where it writes "CALL" and a question."""

    class Calling(kit.ChatLLM, FunctionCallingLLM):
        def _prepare_chat_with_tools(self, tools, user_msg=None, chat_history=None, **kwargs):
            return {"messages": list(chat_history or [])}

        def get_tool_calls_from_response(self, response, error_on_no_tool_call=True, **kwargs):
            text = response.message.content or ""
            if not text.startswith("CALL "):
                return []
            return [ToolSelection(tool_id="1", tool_name="answers", tool_kwargs={"input": text[5:]})]

    return Calling(script=script, meta=LLMMetadata(is_chat_model=True, is_function_calling_model=True))


@of_agents
async def test_a_function_agent_calls_the_engine(kit, tool):
    def script(seen):
        output = next((message.content for message in seen.messages if message.role == "tool"), None)
        return ["CALL How?"] if output is None else [f"It says: {output}"]

    agent = FunctionAgent(tools=[tool], llm=calling(kit, script), streaming=False)
    assert str(await agent.run("Find out.")) == f"It says: {TEXT}"


@of_agents
@pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning")
async def test_a_react_agent_calls_the_engine(kit, tool):
    def script(seen):
        said = "\n".join(message.content or "" for message in seen.messages)
        if "Observation: 1. Move" in said:
            return ["Thought: I can answer without using any more tools.\nAnswer: Move and drink."]
        return ['Thought: I need the tool.\nAction: answers\nAction Input: {"input": "How?"}']

    agent = ReActAgent(tools=[tool], llm=kit.ChatLLM(script=script), streaming=False)
    assert str(await agent.run("Find out.")) == "Move and drink."


# --- engines of engines ----------------------------------------------------------------------------


class First(BaseSelector):
    """Always selects the first choice."""

    def _select(self, choices, query):
        return SelectorResult(selections=[SingleSelection(index=0, reason="first")])

    async def _aselect(self, choices, query):
        return self._select(choices, query)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass


async def test_a_router_engine_chooses_the_engine(kit, tool, streaming):
    router = RouterQueryEngine(First(), [tool], llm=kit.SyncLLM(script=None))
    assert str(await asyncio.to_thread(router.query, "How?")) == TEXT
    response = await router.aquery("How?")
    assert isinstance(response, AsyncSkeletonOfThoughtStreamingResponse) == streaming
    whole = await response.get_response() if streaming else response
    assert str(whole) == TEXT
    assert whole.metadata["sot"]["route"] == "skeleton"
    assert [point.title for point in whole.points] == TITLES


class Passing(BaseEvaluator):
    """Passes the second answer."""

    def __init__(self):
        self.seen = []

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.seen.append((response, list(contexts)))
        passing = len(self.seen) > 1
        return EvaluationResult(query=query, response=response, passing=passing, feedback="Shorter, please.")


def test_a_retry_engine_queries_the_engine_again(engine, monkeypatch):
    monkeypatch.setattr(Settings, "_llm", MockLLM())  # rewrites the question
    evaluator = Passing()
    response = RetryQueryEngine(engine, evaluator).query("How?")
    assert [text for text, _ in evaluator.seen] == [TEXT, TEXT]
    assert all(len(contexts) == 2 for _, contexts in evaluator.seen)
    assert [point.title for point in response.points] == TITLES


class Splitting(BaseQuestionGenerator):
    """Splits every question into two."""

    def generate(self, tools, query):
        return [SubQuestion(sub_question=f"{query.query_str} {part}", tool_name="answers") for part in "ab"]

    async def agenerate(self, tools, query):
        return self.generate(tools, query)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass


async def test_a_sub_question_engine_queries_the_engine(kit, tool):
    last = kit.SyncLLM(script=lambda seen: ["All in all."])
    consumer = SubQuestionQueryEngine(Splitting(), CompactAndRefine(llm=last), [tool], verbose=False, use_async=True)
    response = await consumer.aquery("How?")
    assert str(response) == "All in all."
    assert last.watch.seen[0].text.count(TEXT) == 2


async def test_a_condense_question_chat_engine_queries_the_engine(kit, engine, streaming):
    llm = kit.SyncLLM(script=lambda seen: ["How?"])
    chat = CondenseQuestionChatEngine.from_defaults(
        query_engine=engine, llm=llm, memory=ChatMemoryBuffer.from_defaults(llm=llm)
    )
    if not streaming:
        assert str(chat.chat("How?")) == TEXT
        assert str(await chat.achat("And then?")) == TEXT
        return
    assert "".join(chat.stream_chat("How?").response_gen) == TEXT
    streamed = await chat.astream_chat("And then?")
    assert "".join([text async for text in streamed.async_response_gen()]) == TEXT
