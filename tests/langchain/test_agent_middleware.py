"""Final answers in points beside LangChain's own middleware, before ours and after it, and in deep agents."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from typing import Any

import pytest

pytest.importorskip("langchain", reason="the extra [agents] is not installed")

from agent_runs import ANSWER, QUESTION, agent_of, assert_plain, run, streamed, weather
from langchain.agents import middleware
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from tool_calling_chat import TITLES, Calls, ToolCallingChat, call, check_history, in_points

from langchain_sot import SkeletonOfThoughtMiddleware
from skeleton_of_thought.adapters.points_tool import TOOL_NAME
from skeleton_of_thought.errors import PointError

LOOK_UP = Calls(call("weather", place="Bonn"))


class Selecting(ToolCallingChat):
    """Chooses these tools for `LLMToolSelectorMiddleware`."""

    chosen: list[str]

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        return RunnableLambda(lambda _: {"tools": self.chosen})


def other(*turns: Any) -> ToolCallingChat:
    """Another model, which the middleware asks."""
    return ToolCallingChat(turns=list(turns), strict=False)


STOCK = {
    "ContextEditingMiddleware": lambda made, _: made(
        edits=[middleware.ClearToolUsesEdit(trigger=1, keep=0, placeholder="(gone)")]
    ),
    "FilesystemFileSearchMiddleware": lambda made, path: made(root_path=str(path), use_ripgrep=False),
    "HumanInTheLoopMiddleware": lambda made, _: made({"another": True}),
    "LLMToolEmulator": lambda made, _: made(tools=["weather"], model=other("Rain in Bonn.")),
    "LLMToolSelectorMiddleware": lambda made, _: made(model=Selecting(turns=[], chosen=["weather", TOOL_NAME])),
    "ModelCallLimitMiddleware": lambda made, _: made(run_limit=3),
    "ModelFallbackMiddleware": lambda made, _: made(other()),
    "ModelRefusalMiddleware": lambda made, _: made(),
    "ModelRetryMiddleware": lambda made, _: made(initial_delay=0, jitter=False),
    "PIIMiddleware": lambda made, _: made(
        "email", apply_to_input=True, apply_to_output=True, apply_to_tool_results=True
    ),
    "ProviderToolSearchMiddleware": lambda made, _: made(searchable_tools=[]),
    "ShellToolMiddleware": lambda made, path: made(workspace_root=path),
    "SummarizationMiddleware": lambda made, _: made(
        model=other("It rains in Bonn."), trigger=("messages", 4), keep=("messages", 2)
    ),
    "TodoListMiddleware": lambda made, _: made(),
    "ToolCallLimitMiddleware": lambda made, _: made(run_limit=2),
    "ToolErrorMiddleware": lambda made, _: made(on_error=lambda error, request: str(error)),
    "ToolRetryMiddleware": lambda made, _: made(initial_delay=0, jitter=False),
}
"""Makes each of LangChain's middleware, of its class and a folder."""


def stock_classes() -> set[str]:
    classes = {name: getattr(middleware, name) for name in middleware.__all__}
    base = middleware.AgentMiddleware
    return {n for n, c in classes.items() if inspect.isclass(c) and issubclass(c, base) and c is not base}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", sorted(stock_classes()))
# The shell of `ShellToolMiddleware` leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_agent_with_langchains_own_middleware_answers_in_points(is_async, name, place, tmp_path):
    if name not in STOCK:
        pytest.skip(f"{name} is newer than this test")
    one = STOCK[name](getattr(middleware, name), tmp_path)
    agent, llm = agent_of([LOOK_UP, Calls(in_points())], **{place: [one]}, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    messages = await run(agent, QUESTION, thread, is_async=is_async)
    kinds = ["human", "ai"] if name == "SummarizationMiddleware" else ["human", "ai", "tool", "ai"]
    assert_plain(messages, *kinds)
    assert messages[-1].text == ANSWER
    assert (len(llm.of("turn")), len(llm.of("point"))) == (2, 3)


# --- what each is for holds for the points, too ---


async def test_after_a_summary_the_points_answer_the_users_question(is_async):
    one = middleware.SummarizationMiddleware(model=other("It rains."), trigger=("messages", 4), keep=("messages", 2))
    agent, llm = agent_of([LOOK_UP, Calls(in_points())], before=[one])
    await run(agent, is_async=is_async)
    for _, _, prompt, _ in llm.of("point"):
        assert "It rains." in prompt[0].text
        assert "It rains." not in prompt[-1].text


@pytest.mark.parametrize("name", ["ModelRetryMiddleware", "ModelFallbackMiddleware"])
async def test_middleware_before_ours_tries_a_failed_answer_again(is_async, name):
    failures = [ValueError("broken")]

    def point(title: str) -> Any:
        return [failures.pop()] if failures and title == "Move" else f"All about {title.lower()}."

    llm = ToolCallingChat(turns=[Calls(in_points())], point=point)
    again = other() if name == "ModelFallbackMiddleware" else llm
    made = getattr(middleware, name)
    one = made(again) if again is not llm else made(initial_delay=0, jitter=False, max_retries=1, on_failure="error")
    agent, _ = agent_of([], llm=llm, before=[one], settings={"max_retries": 0})
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai")
    assert messages[-1].text == ANSWER
    assert len(again.of("point")) == (3 if again is not llm else 6)


async def test_middleware_after_ours_does_not(is_async):
    llm = ToolCallingChat(turns=[Calls(in_points())], point=lambda title: [ValueError("broken")])
    agent, _ = agent_of([], llm=llm, after=[middleware.ModelFallbackMiddleware(other())], settings={"max_retries": 0})
    with pytest.raises(PointError):
        await run(agent, is_async=is_async)


@pytest.mark.parametrize("place", ["before", "after"])
async def test_the_writing_counts_as_a_call_of_the_model(is_async, place):
    one = middleware.ModelCallLimitMiddleware(run_limit=2, exit_behavior="end")
    agent, llm = agent_of([LOOK_UP, Calls(in_points())], **{place: [one]})
    messages = await run(agent, is_async=is_async)
    check_history(messages, ended=True)
    assert "limit" in messages[-1].text.lower()
    assert llm.of("point") == []


@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_limit_of_calls_of_the_tool_is_kept(is_async, place):
    one = middleware.ToolCallLimitMiddleware(tool_name=TOOL_NAME, run_limit=1)
    turns = [Calls(in_points("One", id="bad")), Calls(in_points()), "Rest."]
    agent, llm = agent_of(turns, **{place: [one]})
    messages = await run(agent, is_async=is_async)
    check_history(messages, ended=True)
    assert (messages[-1].text, llm.of("point")) == ("Rest.", [])


@pytest.mark.parametrize("place", ["before", "after"])
async def test_private_data_in_the_points_is_redacted_in_the_history(is_async, place):
    one = middleware.PIIMiddleware("email", apply_to_output=True, apply_to_tool_results=True)
    llm = ToolCallingChat(
        turns=[Calls(in_points("Write to ann@example.org", "Move"))], point=lambda title: "Ask bob@example.org."
    )
    agent, _ = agent_of([], llm=llm, **{place: [one]})
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai")
    assert "@example.org" not in messages[-1].text
    assert messages[-1].text.count("[REDACTED_EMAIL]") == 3


@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_selection_may_leave_the_tool_out(is_async, place):
    one = middleware.LLMToolSelectorMiddleware(model=Selecting(turns=[], chosen=["weather"]))
    agent, llm = agent_of([LOOK_UP, "Stay at home."], **{place: [one]})
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert [kwargs["tools"] for _, _, _, kwargs in llm.of("turn")] == [["weather"]] * 2


@pytest.mark.parametrize("place", ["before", "after"])
async def test_an_emulated_call_is_no_answer_and_the_model_goes_on(is_async, place):
    one = middleware.LLMToolEmulator(model=other("The points were shown."))
    agent, llm = agent_of([Calls(in_points()), "Rest."], **{place: [one]})
    messages = await run(agent, is_async=is_async)
    check_history(messages, ended=True)
    assert (messages[-1].text, llm.of("point")) == ("Rest.", [])


async def test_a_prompt_of_middleware_before_ours_reaches_the_points(is_async):
    @middleware.dynamic_prompt
    def polite(request: Any) -> str:
        return "Be polite."

    agent, llm = agent_of([Calls(in_points())], before=[polite])
    await run(agent, is_async=is_async)
    assert [prompt[0].text for _, _, prompt, _ in llm.of("point")] == ["Be polite."] * 3


async def test_hooks_after_the_model_see_one_answer(is_async):
    seen: list[Any] = []

    @middleware.after_model
    def look(state: Any, runtime: Any) -> None:
        seen.append([message.type for message in state["messages"]])

    agent, _ = agent_of([Calls(in_points())], before=[look])
    await run(agent, is_async=is_async)
    assert seen == [["human", "ai"], ["human", "ai"]]


# --- deep agents ---


@pytest.fixture
def deep() -> Any:
    if importlib.util.find_spec("deepagents") is None:
        pytest.skip("deepagents is not installed; `make test-newest` does so")
    from deepagents import create_deep_agent

    return create_deep_agent


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_deep_agent_answers_in_points(deep, is_async):
    turns = [
        Calls(call("ls", path="/")),
        Calls(call("weather", place="Bonn")),
        Calls(in_points()),
    ]
    llm = ToolCallingChat(turns=turns)
    agent = deep(llm, [weather], middleware=[SkeletonOfThoughtMiddleware(final="tool")], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    state = await (agent.ainvoke(QUESTION, thread) if is_async else asyncio.to_thread(agent.invoke, QUESTION, thread))
    assert_plain(state["messages"], "human", "ai", "tool", "ai", "tool", "ai")
    assert state["messages"][-1].text == ANSWER
    assert TOOL_NAME in llm.of("turn")[0][3]["tools"]
    assert len(llm.of("point")) == 3
    assert_plain(agent.get_state(thread).values["messages"], "human", "ai", "tool", "ai", "tool", "ai")
    llm.turns.append("Gladly.")
    state = await run(agent, {"messages": [HumanMessage("Thanks!")]}, thread, is_async=is_async)
    assert state[-1].text == "Gladly."


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_subagent_of_a_deep_agent_answers_in_points_for_its_caller(deep, is_async):
    helper = ToolCallingChat(turns=[Calls(call("weather", place="Bonn")), Calls(in_points("Sun", "Rain"))])
    sub = {
        "name": "helper",
        "description": "Helps.",
        "system_prompt": "Help.",
        "model": helper,
        "tools": [weather],
        "middleware": [SkeletonOfThoughtMiddleware(final="tool")],
    }
    llm = ToolCallingChat(turns=[Calls(call("task", description="Look.", subagent_type="helper")), Calls(in_points())])
    agent = deep(llm, [], subagents=[sub], middleware=[SkeletonOfThoughtMiddleware(final="tool")])
    tokens = await streamed(agent, "messages", is_async=is_async)
    assert "".join(m.text for m, _ in tokens if isinstance(m, AIMessageChunk)) == ANSWER
    told = llm.of("turn")[1][2][-1].text
    assert told == "1. Sun: All about sun.\n\n2. Rain: All about rain."
    assert sorted(title for _, title, _, _ in llm.of("point")) == sorted(TITLES)
