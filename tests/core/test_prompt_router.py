"""The router that asks a model: its prompt, its reading of the reply, and its race with the skeleton."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.prompt import PromptRouter, route_prompt
from skeleton_of_thought.types import Conversation, Message, Prompt, Reply, Usage

QUESTION = Conversation.of("How do I sleep better?")


class Model:
    """Replies with a text, by every method that a model may offer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.prompts: list[Prompt] = []
        self.closed = 0

    def plain(self, prompt: Prompt) -> str:
        self.prompts.append(prompt)
        return self.text

    def counted(self, prompt: Prompt) -> tuple[str, Usage]:
        return self.plain(prompt), Usage(100, 3)

    def streamed(self, prompt: Prompt) -> Iterator[str | Reply]:
        try:
            yield from self.plain(prompt)
            yield Reply(Usage(100, 3))
        finally:
            self.closed += 1

    async def acounted(self, prompt: Prompt) -> tuple[str, Usage]:
        return self.counted(prompt)

    async def astreamed(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        for item in self.streamed(prompt):
            yield item


WAYS = ("plain", "counted", "streamed", "acounted", "astreamed")


@pytest.mark.parametrize("way", WAYS)
async def test_models_of_every_kind_route_on_the_event_loop(way):
    model = Model("INDEPENDENT")
    decision = await PromptRouter(getattr(model, way)).aroute(QUESTION)
    assert decision.use_skeleton is True
    assert decision.usage == (None if way == "plain" else Usage(100, 3))
    assert len(model.prompts) == 1


@pytest.mark.parametrize("way", WAYS)
def test_models_of_every_kind_route_in_threads(way):
    model = Model("DEPENDENT")
    decision = PromptRouter(getattr(model, way)).route(QUESTION)
    assert decision.use_skeleton is False
    assert "build on each other" in decision.reason
    assert model.closed == ("stream" in way)


def test_threads_do_not_use_the_async_method():
    sync, on_loop = Model("NONE"), Model("NONE")
    PromptRouter(sync.plain, aask=on_loop.acounted).route(QUESTION)
    assert (len(sync.prompts), len(on_loop.prompts)) == (1, 0)


@pytest.mark.parametrize(
    ("reply", "use"),
    [
        ("INDEPENDENT", True),
        (" independent.\n", True),
        ("**INDEPENDENT**", True),
        ("The answer is: Independent", True),
        ("<think>DEPENDENT? No.</think>INDEPENDENT", True),
        ("<think>INDEPENDENT or", False),
        ("DEPENDENT", False),
        ("NONE", False),
        ("INDEPENDENT or DEPENDENT", False),
        ("INDEPENDENTLY", False),
        ("1. Sleep more", False),
        ("", False),
    ],
)
def test_the_router_reads_a_models_reply_as_a_decision(reply, use):
    assert PromptRouter(Model(reply).plain).route(QUESTION).use_skeleton is use


def test_an_unreadable_reply_is_reported_with_its_usage():
    decision = PromptRouter(Model("Sleep is important because" * 9).counted).route(QUESTION)
    assert decision.use_skeleton is False
    assert "not understood" in decision.reason
    assert len(decision.reason) < 130
    assert decision.usage == Usage(100, 3)


def test_the_prompt_is_short_for_any_question_and_shows_the_last_turns():
    history = (
        Message("system", "Be kind."),
        Message("user", "First " + "x" * 5000),
        Message("assistant", "Second"),
        Message("user", "Third"),
        Message("assistant", "Fourth"),
    )
    model = Model("NONE")
    PromptRouter(model.plain, max_tokens=9).route(Conversation.of("Why {braces}? " + "y" * 9000, history=history))
    (prompt,) = model.prompts
    text = prompt.messages[0].text
    assert len(text) < 4000
    assert "Why {braces}?" in text
    assert "assistant: Fourth" in text
    assert "First" not in text
    assert prompt.hints.max_tokens == 9
    assert "conversation" not in route_prompt(QUESTION).messages[0].text


def test_an_error_of_the_model_is_raised():
    def broken(prompt: Prompt) -> str:
        raise ConnectionError("line cut")

    with pytest.raises(ConnectionError):
        PromptRouter(broken).route(QUESTION)
    with pytest.raises(InvalidInput):
        PromptRouter()
    with pytest.raises(InvalidInput, match="a model of LangChain or LlamaIndex, or a function"):
        PromptRouter(object())
