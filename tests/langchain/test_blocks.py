"""Content blocks and system messages on their way to LangChain's models."""

from __future__ import annotations

import json

import pytest
from always import skeleton_chain
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

MARK = {"cache_control": {"type": "ephemeral"}}
DOCUMENT = {"type": "text", "text": "Handbook. " * 50, **MARK}
QUESTION = {"type": "text", "text": "What helps?"}
SYSTEM = SystemMessage("Be kind.")


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(["Take breaks", "Move"]))


async def test_a_document_with_a_cache_mark_begins_every_call(way, llm):
    await way(skeleton_chain(llm=llm), [HumanMessage([DOCUMENT, QUESTION])])
    assert len(llm.watch.seen) == 3
    for seen in llm.watch.seen:
        assert seen.messages[-1].content[:2] == [DOCUMENT, QUESTION]
        json.dumps(seen.messages[-1].content)


async def test_the_direct_route_and_the_chat_model_pass_the_blocks_on(ways, llm):
    message = HumanMessage([DOCUMENT, QUESTION])
    await ways["invoke"](skeleton_chain(llm=llm, router=lambda q: False), [message])
    assert llm.watch.seen[-1].messages[-1] is message
    skeleton_chain(llm=llm).as_chat_model().invoke([message])
    assert [seen.messages[-1].content[:2] for seen in llm.watch.seen[1:]] == [[DOCUMENT, QUESTION]] * 3


async def test_strings_in_a_list_of_blocks_keep_their_boundaries(way, llm):
    await way(skeleton_chain(llm=llm, merge=True), [HumanMessage(["A handbook.", "What helps?"])])
    assert len(llm.watch.seen) == 4
    for seen in llm.watch.seen:
        assert [block["text"] for block in seen.messages[-1].content[:2]] == ["A handbook.", "What helps?"]


async def test_a_template_with_a_system_message_gets_the_blocks_too(way, llm):
    template = ChatPromptTemplate.from_messages(
        [("system", "You plan."), ("human", "Q: {question}\nWrite only the headings")]
    )
    await way(skeleton_chain(llm=llm, skeleton_prompt=template), [SYSTEM, HumanMessage([DOCUMENT, QUESTION])])
    (seen,) = llm.watch.of("skeleton")
    assert [m.type for m in seen.messages] == ["system", "human"]
    assert seen.messages[0].content == "Be kind.\n\nYou plan."
    assert [block["text"] for block in seen.messages[1].content] == [
        "Q: ",
        DOCUMENT["text"],
        QUESTION["text"],
        "\nWrite only the headings",
    ]


def test_string_models_read_blocks_with_a_blank_line_between_them():
    prompts = []

    class Completing(FakeListLLM):
        def _call(self, prompt, stop=None, run_manager=None, **kwargs):
            prompts.append(prompt)
            return "1. Move" if "Write only the headings" in prompt else "Its text."

    blocks = [{"type": "text", "text": "A handbook."}, {"type": "text", "text": "What helps?"}]
    skeleton_chain(llm=Completing(responses=[""])).invoke([HumanMessage(blocks)])
    assert len(prompts) == 2
    assert all(prompt.startswith("A handbook.\n\nWhat helps?\n\n") for prompt in prompts)


# --- one system message ---

ASKED = ("human", "{question} Write only the headings")
PLACED = [("system", "You plan."), MessagesPlaceholder("chat_history"), ASKED]
FREE = [("system", "You plan."), ASKED]
LATE = [("human", "Hello"), ("ai", "Hi"), MessagesPlaceholder("chat_history"), ASKED]


@pytest.mark.parametrize(
    ("turns", "system"),
    [(PLACED, "Be kind.\n\nYou plan."), (FREE, "Be kind.\n\nYou plan."), (LATE, "Be kind.")],
    ids=["placed", "free", "late"],
)
@pytest.mark.parametrize("history", [[], [HumanMessage("Earlier?"), AIMessage("Yes.")]], ids=["first", "later"])
async def test_a_model_gets_one_system_message_and_gets_it_first(ways, llm, turns, system, history):
    chain = skeleton_chain(llm=llm, skeleton_prompt=ChatPromptTemplate.from_messages(turns))
    for name in ("invoke", "astream"):
        await ways[name](chain, [SYSTEM, *history, HumanMessage("What helps?")])
    for seen in llm.watch.of("skeleton"):
        assert [m.type for m in seen.messages].count("system") == 1
        assert seen.messages[0].content == system
        assert [m for m in seen.messages if m in history] == history


async def test_a_memory_as_text_is_no_part_of_the_system_message(way, llm):
    chain = skeleton_chain(llm=llm, skeleton_prompt=ChatPromptTemplate.from_messages(FREE))
    await way(chain, {"question": "What helps?", "chat_history": "Human: Hello"})
    (seen,) = llm.watch.of("skeleton")
    assert [m.type for m in seen.messages] == ["system", "human", "human"]
    assert seen.messages[0].content == "You plan."
    assert "Human: Hello" in seen.messages[1].content


async def test_the_callers_own_system_messages_stay_as_they_are_without_one_in_the_template(way, llm):
    own = [SYSTEM, SystemMessage("Be brief.")]
    await way(skeleton_chain(llm=llm), [*own, HumanMessage("What helps?")])
    assert all(got is given for seen in llm.watch.seen for got, given in zip(seen.messages[:2], own, strict=True))
