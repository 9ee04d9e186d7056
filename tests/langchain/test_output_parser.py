"""`SkeletonOutputParser` in custom chains, and its templates."""

from __future__ import annotations

import pytest
from always import skeleton_chain
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from pydantic import ValidationError

from langchain_sot import SkeletonOutputParser
from skeleton_of_thought import PromptSet

TEXT = "Sure, here it is:\n\n1. Take breaks\n2. **Drink water**\n3. Move"
TITLES = ["Take breaks", "Drink water", "Move"]


@pytest.mark.parametrize("value", [TEXT, AIMessage(TEXT), AIMessage([{"type": "text", "text": TEXT}])])
async def test_the_parser_returns_the_titles(value):
    parser = SkeletonOutputParser()
    assert parser.invoke(value) == TITLES
    assert await parser.ainvoke(value) == TITLES
    assert SkeletonOutputParser(max_points=2).invoke(value) == TITLES[:2]


def test_prose_has_no_titles():
    assert SkeletonOutputParser().invoke("It depends on you.") == []
    assert list(SkeletonOutputParser().transform(iter(["It depends."]))) == [[]]


def test_max_points_is_at_least_one():
    with pytest.raises(ValidationError):
        SkeletonOutputParser(max_points=0)


async def test_a_title_streams_as_soon_as_its_line_is_complete():
    lines = ["1. Take br", "eaks\n", "2. **Drink", " water**\n3.", " Move"]
    seen = []

    def chunks():
        for line in lines:
            seen.append(line)
            yield AIMessageChunk(line)

    stream = SkeletonOutputParser().transform(chunks())
    assert next(stream) == ["Take breaks"]
    assert len(seen) < len(lines)
    assert list(stream) == [["Drink water"], ["Move"]]

    async def achunks():
        for line in lines:
            yield line

    assert [titles async for titles in SkeletonOutputParser().atransform(achunks())] == [[t] for t in TITLES]


@given(st.text(alphabet="12.) -*abc\n", max_size=60), st.integers(1, 7), st.none() | st.integers(1, 3))
def test_the_stream_adds_up_to_what_parse_gives(text, size, max_points):
    parser = SkeletonOutputParser(max_points=max_points)
    chunks = [text[i : i + size] for i in range(0, len(text), size)] or [""]
    streamed = [title for titles in parser.transform(iter(chunks)) for title in titles]
    assert streamed == parser.parse(text)


async def test_prompt_model_and_parser_compose(kit):
    llm = kit.Chat(script=kit.answering(TITLES))
    chain = skeleton_chain(llm=llm, max_points=6)
    titles = chain.get_skeleton_prompt() | llm | SkeletonOutputParser()
    assert titles.invoke({"question": "Why {x}?"}) == TITLES
    assert [t async for t in titles.astream({"question": "Why?"})] == [[t] for t in TITLES]
    assert "Why {x}?" in llm.watch.seen[0].text
    assert "3 to 6 different headings" in llm.watch.seen[0].text


def test_the_skeleton_prompt_takes_a_history(kit):
    prompt = skeleton_chain(llm=kit.Chat(script=None)).get_skeleton_prompt()
    assert prompt.input_variables == ["question"]
    messages = prompt.invoke({"question": "Why?", "chat_history": [AIMessage("Hi")]}).to_messages()
    assert messages[0] == AIMessage("Hi")


def test_the_point_prompt_is_what_the_chain_sends(kit):
    llm = kit.Chat(script=kit.answering(TITLES))
    chain = skeleton_chain(llm=llm)
    chain.invoke("Why {x}?")
    skeleton = "1. Take breaks\n2. Drink water\n3. Move"
    values = {"question": "Why {x}?", "skeleton": skeleton, "count": 3, "index": 2, "title": "Drink water"}
    values["titles"] = "Take breaks; Drink water; Move"
    (sent,) = llm.watch.of("point", 2)
    assert chain.get_point_prompt().invoke(values).to_messages() == [HumanMessage(sent.text)]


def test_braces_that_are_no_placeholders_are_kept_in_a_template(kit):
    chain = skeleton_chain(
        llm=kit.Chat(script=None),
        prompts=PromptSet(skeleton='Say {"a": {x}} about {request}.', point="{question} {point} {"),
    )
    assert chain.get_skeleton_prompt().invoke({"question": "Q"}).to_messages()[0].text == 'Say {"a": {x}} about Q.'
    assert chain.get_point_prompt().invoke({"question": "Q", "index": 1}).to_messages()[0].text == "Q 1 {"


def test_custom_templates_are_returned_as_chat_templates(kit):
    own = ChatPromptTemplate.from_messages([MessagesPlaceholder("chat_history"), ("human", "{question}")])
    chain = skeleton_chain(
        llm=kit.Chat(script=None),
        skeleton_prompt=own,
        point_prompt=PromptTemplate.from_template("{title} of {words}"),
    )
    assert chain.get_skeleton_prompt() == own
    assert chain.get_point_prompt().invoke({"title": "T"}).to_messages() == [HumanMessage("T of 40")]
