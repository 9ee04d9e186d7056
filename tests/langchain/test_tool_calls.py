"""Tool calling of `ChatTransformers`, over models whose replies are scripted."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import threading

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from scripted_calls import PATIENCE

from langchain_sot import ChatTransformers
from langchain_sot.local.engine_request import convert_tools
from skeleton_of_thought.adapters.tool_calls import (
    HERMES,
    LLAMA,
    MISTRAL,
    ForcedReader,
    MarkedReader,
    call_schema,
    find_format,
)
from skeleton_of_thought.errors import InvalidInput, MissingExtra, install_line

pytest.importorskip("torch", reason="the local engine needs torch")
pytest.importorskip("transformers", reason="the local engine needs transformers")

needs_grammars = pytest.mark.skipif(
    importlib.util.find_spec("llguidance") is None, reason="output by a grammar needs llguidance"
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def now() -> str:
    """The time."""
    return "noon"


class Search(BaseModel):
    """Search for something."""

    query: str = Field(max_length=10)


ADD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
NOW = '{"name": "now", "arguments": {}}'
SAID = {
    "hermes": f"<tool_call>\n{ADD}\n</tool_call>\n<tool_call>\n{NOW}\n</tool_call>",
    "mistral": f"[TOOL_CALLS] [{ADD}, {NOW}]",
    "llama": f"{ADD.replace('arguments', 'parameters')}; {NOW.replace('arguments', 'parameters')}",
}


@pytest.fixture
def scripted(local_models):
    """Makes models with these replies, in the format of one family."""
    engines = []

    def make(said, family="hermes", **settings):
        # Mistral's mark is a special token, which a text usually goes without.
        special = ["[TOOL_CALLS]"] if family == "mistral" else []
        template = local_models.TEMPLATES.get(family, family)
        engines.append(local_models.scripted_engine(said, template, *special))
        return ChatTransformers(engine=engines[-1], model="scripted", **settings)

    yield make
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("family", list(SAID))
async def test_every_method_reads_tool_calls(way, scripted, family):
    message = await way(scripted(SAID[family], family).bind_tools([add, now]), "1 + 2?")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1, "b": 2}), ("now", {})]
    assert all(len(call["id"]) == 9 for call in message.tool_calls)
    assert message.text == ""
    assert message.invalid_tool_calls == []
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.usage_metadata["output_tokens"] > 0


@pytest.mark.parametrize("family", list(SAID))
async def test_a_reply_without_calls_is_text(way, scripted, family):
    said = "Three < four; [TOOL] {no} <tool\n\nThe end. "
    message = await way(scripted(said, family).bind_tools([add]), "1 + 2?")
    assert message.text == said
    assert message.tool_calls == message.invalid_tool_calls == []


@pytest.mark.parametrize("family", ["hermes", "mistral"])
async def test_text_around_calls_is_kept(way, scripted, family):
    message = await way(scripted(f"Let me see.\n\n{SAID[family]}", family).bind_tools([add, now]), "1 + 2?")
    assert message.text == "Let me see."
    assert len(message.tool_calls) == 2


def test_text_before_a_call_streams_and_calls_come_at_the_end(scripted):
    steps, read = itertools.count(1), threading.Event()

    def say(prompt):
        # The model waits in the middle of the text until the test has read its beginning.
        assert next(steps) != len("Let me s") or read.wait(PATIENCE)
        return f"Let me see.\n{SAID['hermes']}"

    chunks = []
    for chunk in scripted(say).bind_tools([add, now]).stream("1 + 2?"):
        chunks.append(chunk)
        read.set()
    texts = [chunk.text for chunk in chunks if chunk.text]
    assert "".join(texts) == "Let me see."
    assert len(texts) > 1
    with_calls = [i for i, chunk in enumerate(chunks) if chunk.tool_call_chunks]
    assert with_calls == [len(chunks) - 2]
    assert [call["index"] for call in chunks[-2].tool_call_chunks] == [0, 1]
    assert chunks[-1].chunk_position == "last"


def test_a_closing_mark_within_an_argument_does_not_end_the_call(scripted):
    said = '<tool_call>{"name": "Search", "arguments": {"query": "</tool_call>"}}</tool_call>'
    [call] = scripted(said).bind_tools([Search]).invoke("Go").tool_calls
    assert call["args"] == {"query": "</tool_call>"}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('<tool_call>{"name": "add", "arguments": {"a": 1,</tool_call>', "not valid JSON"),
        ('<tool_call>{"arguments": {}}</tool_call>', "names no tool"),
        ('<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>', "not a JSON object"),
    ],
)
async def test_an_unreadable_call_is_invalid_and_the_others_stay(way, scripted, said, why):
    message = await way(scripted(f"{said}\n<tool_call>{NOW}</tool_call>").bind_tools([add, now]), "1 + 2?")
    [broken] = message.invalid_tool_calls
    assert said.removesuffix("</tool_call>").removeprefix("<tool_call>") in broken["args"]
    assert broken["error"] is None or why in broken["error"]  # chunks have no place for it
    assert [call["name"] for call in message.tool_calls] == ["now"]


async def test_a_truncated_call_is_invalid_even_if_streamed(way, scripted):
    message = await way(scripted(SAID["hermes"], max_tokens=45).bind_tools([add, now]), "1 + 2?")
    assert message.tool_calls == []
    assert len(message.invalid_tool_calls) == 1


def test_arguments_that_are_json_within_json_are_read(scripted):
    said = f"<tool_call>{json.dumps({'name': 'add', 'arguments': json.dumps({'a': 1, 'b': 2})})}</tool_call>"
    assert scripted(said).bind_tools([add]).invoke("Go").tool_calls[0]["args"] == {"a": 1, "b": 2}


def test_llamas_mark_begins_a_call_and_other_json_is_text():
    def read(text):
        reader = MarkedReader(LLAMA)
        shown = "".join(reader.feed(c) for c in text)
        said = reader.finish(cut=False)
        return shown + said.text, [call.get("name") for call in said.calls]

    assert read('<|python_tag|>{"name": "add", "parameters": {}}') == ("", ["add"])
    assert read('{"colour": "red"}') == ('{"colour": "red"}', [])
    assert read("<|python_tag|>print(1)") == ("", [None])
    assert read("Yes {really}") == ("Yes {really}", [])


@pytest.mark.parametrize("family", ["hermes", "mistral", "llama"])
def test_the_conversation_is_rendered_in_the_models_own_format(scripted, family):
    llm = scripted("Three.", family).bind_tools([add])
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_of_another_model", "type": "tool_call"}
    question = [
        HumanMessage("1 + 2?"),
        AIMessage([{"type": "text", "text": "Hm."}, {"type": "tool_use", "id": "x", "name": "add", "input": {}}],
                  tool_calls=[call]),
        ToolMessage("3", tool_call_id=call["id"]),
    ]  # fmt: skip
    assert llm.invoke(question).text == "Three."
    prompt = llm.bound.engine.model.prompts[-1]
    assert '"name": "add"' in prompt.partition("Hm.")[2]
    assert "<tool>3" in prompt
    if family == "mistral":  # its templates refuse all ids but those of nine letters
        assert "call_of_another_model" not in prompt
        made = prompt.partition("}#")[2][:9]
        assert f"<tool>3#{made}" in prompt


def test_only_calls_with_bound_tools_show_tools_in_the_prompt(scripted):
    llm = scripted("Yes.")
    llm.bind_tools([add]).invoke("1 + 2?")
    assert '"name": "add"' in llm.engine.model.prompts[-1]
    llm.bind_tools([add], tool_choice="none").invoke("1 + 2?")
    assert "add" not in llm.engine.model.prompts[-1]
    llm.invoke("1 + 2?")
    assert "add" not in llm.engine.model.prompts[-1]


@needs_grammars
@pytest.mark.parametrize("family", list(SAID))
@pytest.mark.parametrize(
    "choice", ["any", True, "required", "Search", {"type": "function", "function": {"name": "Search"}}]
)
def test_a_forced_call_is_valid_for_any_model(scripted, family, choice):
    llm = scripted("I would rather not.", family).bind_tools([Search, add], tool_choice=choice)
    message = llm.invoke("Hello")
    [call] = message.tool_calls
    assert message.text == ""
    assert call["name"] in (["Search"] if isinstance(choice, dict) or choice == "Search" else ["Search", "add"])
    {"Search": Search.model_validate, "add": add.args_schema.model_validate}[call["name"]](call["args"])


@needs_grammars
async def test_every_method_makes_a_forced_call(way, scripted):
    message = await way(scripted("No.").bind_tools([now], tool_choice="any"), "Hello")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("now", {})]


@needs_grammars
def test_a_truncated_forced_call_is_invalid(scripted):
    message = scripted("No.", max_tokens=12).bind_tools([add], tool_choice="any").invoke("Hello")
    assert message.tool_calls == []
    assert "cut off" in message.invalid_tool_calls[0]["error"]


@needs_grammars
def test_a_forced_call_gives_structured_output(scripted):
    assert isinstance(scripted("No.").with_structured_output(Search, method="function_calling").invoke("Go"), Search)
    cut = scripted("No.", max_tokens=12).with_structured_output(Search, method="function_calling", include_raw=True)
    assert "cut off" in str(cut.invoke("Go")["parsing_error"])


def test_forcing_a_call_needs_the_library(scripted, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=re.escape(install_line("structured"))):
        scripted("").bind_tools([add], tool_choice="any")


def test_a_template_without_tools_says_so_when_they_are_bound(scripted, local_models):
    llm = scripted("", local_models.PLAIN)
    with pytest.raises(InvalidInput, match=r"does not support tools: .*with_structured_output"):
        llm.bind_tools([add])
    with pytest.raises(InvalidInput, match="does not support tools"):
        llm.invoke("1 + 2?", tools=[add])
    call = {"name": "add", "args": {}, "id": "x", "type": "tool_call"}
    with pytest.raises(InvalidInput, match="does not support tools"):
        llm.invoke([HumanMessage("Hi"), AIMessage("", tool_calls=[call]), ToolMessage("3", tool_call_id="x")])


def test_an_unknown_format_is_refused_unless_the_tokenizer_has_a_response_template(scripted, local_models):
    llm = scripted("<call>add 1</call>", local_models.OTHER)
    with pytest.raises(InvalidInput, match=r"tokenizer\.response_template"):
        llm.bind_tools([add])
    llm.engine.tokenizer.response_template = {
        "start_anchor": "<assistant>",
        "fields": {
            "content": {},
            "tool_calls": {"open": "<calls>", "close": "</calls>", "content": "json", "repeats": True},
        },
    }
    assert find_format(llm.engine).name == "response_template"
    with pytest.raises(InvalidInput, match="cannot force"):
        llm.bind_tools([add], tool_choice="any")


async def test_the_tokenizers_own_response_template_reads_the_reply(way, scripted, local_models):
    llm = scripted(f"Well.<calls>{ADD}</calls>", local_models.OTHER)
    llm.engine.tokenizer.response_template = {
        "start_anchor": "<assistant>",
        "fields": {
            "content": {},
            "tool_calls": {"open": "<calls>", "close": "</calls>", "content": "json", "repeats": True},
        },
    }
    message = await way(llm.bind_tools([add]), "1 + 2?")
    assert message.text == "Well."
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([add], "subtract", "or the name of a tool"),
        ([{"type": "web_search_20250305", "name": "web_search"}], None, "provider's own"),
        ([7], None, "cannot be described"),
        ([], "any", "there are no tools"),
    ],
)
def test_tools_and_choices_that_cannot_work_are_refused_at_once(scripted, tools, choice, message):
    with pytest.raises(InvalidInput, match=message):
        scripted("").bind_tools(tools, tool_choice=choice)


@needs_grammars
def test_contradictory_options_are_refused(scripted):
    llm = scripted("")
    with pytest.raises(InvalidInput, match="response_format and tools"):
        llm.invoke("Hi", tools=[add], response_format={"type": "json_object"})
    with pytest.raises(InvalidInput, match="forced tool call exclude"):
        llm.invoke("Hi", tools=[add], tool_choice="any", prefill="So")


def test_earlier_invalid_calls_are_rendered_unchanged(scripted):
    said = '<tool_call>{"name": nothing</tool_call>'
    llm = scripted(said).bind_tools([add])
    llm.invoke([HumanMessage("Hi"), llm.invoke("Hi"), HumanMessage("Again")])
    assert f"<assistant>{said}</s><user>Again" in llm.bound.engine.model.prompts[-1]


def test_schemas_with_references_are_made_self_contained():
    class Node(BaseModel):
        name: str

    class Pair(BaseModel):
        """Two nodes."""

        left: Node
        right: Node

    described = convert_tools([Pair])
    described[0]["function"]["parameters"] = Pair.model_json_schema()
    text = json.dumps(call_schema(MISTRAL, described))
    assert "$ref" not in text
    assert "$defs" not in text
    assert text.count('"title": "Name"') == 2


def schema_of(parameters):
    return call_schema(HERMES, [{"type": "function", "function": {"name": "f", "parameters": parameters}}])


def test_a_schema_that_refers_to_itself_ends_where_the_circle_closes():
    tree = {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}}
    made = schema_of({"properties": {"tree": {"$ref": "#/$defs/tree", "title": "T"}}, "$defs": {"tree": tree}})
    inner = {"type": "object", "properties": {"next": {}}, "title": "T"}
    assert made["properties"]["arguments"]["properties"] == {"tree": inner}


def test_a_property_may_be_called_like_a_reference():
    own = {"$ref": {"type": "string"}, "a/b": {"$ref": "#/definitions/a~1b"}, "any": {"$ref": "#/definitions/any"}}
    made = schema_of({"properties": own, "definitions": {"a/b": {"type": "integer"}, "any": True}})
    assert made["properties"]["arguments"]["properties"] == {
        "$ref": {"type": "string"},
        "a/b": {"type": "integer"},
        "any": True,
    }


@pytest.mark.parametrize("path", ["#/$defs/gone", "#/$defs/text/deeper", "http://host/schema"])
def test_a_reference_to_nothing_is_refused(path):
    with pytest.raises(InvalidInput, match="not in their schema"):
        schema_of({"properties": {"a": {"$ref": path}}, "$defs": {"text": "x"}})


def test_a_short_schema_with_endless_references_is_refused():
    parts = {str(i): {"anyOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(40)}
    with pytest.raises(InvalidInput, match="too many parts"):
        schema_of({"properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": {**parts, "40": {}}})


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (MarkedReader(HERMES), "<tool_call>" + "[" * 50_000),
        (MarkedReader(HERMES), "<tool_call>" + '{"a":' * 20_000 + "</tool_call> after"),
        (MarkedReader(MISTRAL), "[TOOL_CALLS]" + "[" * 50_000),
        (MarkedReader(LLAMA), "<|python_tag|>" + '{"name": "f", "parameters": ' * 20_000),
        (ForcedReader(), '{"a":' * 20_000),
        (ForcedReader(), '{"name": "f", "arguments": ' + "7" * 4301 + "}"),
    ],
)
def test_a_call_that_is_nested_too_deep_is_invalid(reader, text):
    reader.feed(text)
    (call,) = reader.finish(cut=False).calls
    assert call["type"] == "invalid_tool_call"
