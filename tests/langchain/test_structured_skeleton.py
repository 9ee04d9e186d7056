"""`skeleton_mode="structured"`: the skeleton as data, if the model supports it."""

from __future__ import annotations

import json

import pytest
from always import skeleton_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sot.skeleton_schema import StructuredReply, ask_structured

TITLES = ["Take breaks", "Say: 1. stop 2. go", "Move"]
ANSWER = "1. Take breaks: Text.\n\n2. Say: 1. stop 2. go: Text.\n\n3. Move: Text."


def script(seen):
    return ["Text."] if seen.stage == "point" else ["1. As\n2. text"] if seen.stage == "skeleton" else ["Directly."]


@pytest.fixture
def tools(kit):
    """A model that calls tools: `reply` holds the arguments of its call as JSON, or another message."""

    class ToolChat(kit.Chat):
        reply: str | AIMessageChunk = ""

        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

        def _chunks(self, chunk, kwargs):
            if not kwargs.get("tools") or not chunk.message.content:
                return [chunk]
            if not isinstance(self.reply, str):
                return [ChatGenerationChunk(message=self.reply)]
            middle = len(self.reply) // 2
            name = kwargs["tools"][0]["function"]["name"]
            return [
                ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))
                for call in (
                    {"name": name, "args": self.reply[:middle], "id": "1", "index": 0},
                    {"name": None, "args": self.reply[middle:], "id": None, "index": 0},
                )
            ]

        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            for chunk in super()._stream(messages, stop, run_manager, **kwargs):
                yield from self._chunks(chunk, kwargs)

        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                for own in self._chunks(chunk, kwargs):
                    yield own

        def _result(self, chunks):
            total = chunks[0].message
            for chunk in chunks[1:]:
                total = total + chunk.message
            return ChatResult(generations=[ChatGeneration(message=message_chunk_to_message(total))])

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return self._result(list(self._stream(messages, stop, run_manager, **kwargs)))

        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            return self._result([c async for c in self._astream(messages, stop, run_manager, **kwargs)])

    def make(reply, **fields):
        # One chunk of text, which the reply replaces.
        def asked(seen):
            return ["x"] if seen.kwargs.get("tools") else script(seen)

        given = reply if isinstance(reply, str | AIMessageChunk) else json.dumps({"points": reply})
        return ToolChat(**{"script": asked, **fields}, reply=given)

    return make


def structured(llm, **settings):
    return skeleton_chain(llm=llm, skeleton_mode="structured", **settings)


@pytest.mark.parametrize("eager", [False, True])
async def test_the_model_returns_titles_as_data(kit, way, tools, eager):
    llm = tools(TITLES)
    output = await way(structured(llm, eager=eager), "Q")
    assert output["skeleton"] == TITLES
    assert output["answer"] == ANSWER
    (skeleton,) = llm.watch.of("skeleton")
    assert skeleton.kwargs["tool_choice"] == "any"
    assert skeleton.kwargs["tools"][0]["function"]["parameters"]["properties"]["points"]["type"] == "array"
    assert "numbered" not in skeleton.text
    assert all("tools" not in seen.kwargs for seen in llm.watch.of("point"))


async def test_titles_are_cleaned_and_counted_as_those_of_a_text(way, tools):
    llm = tools(["1. Move", "**Rest**", "move", "", "Two\nlines", "Left out"])
    output = await way(structured(llm, max_points=3), "Q")
    assert output["skeleton"] == ["Move", "Rest", "Two lines"]


async def test_a_structured_skeleton_is_one_run_and_its_usage_is_counted(kit, way, tools):
    runs = kit.Runs()
    with get_usage_metadata_callback() as usage:
        await way(structured(tools(TITLES)), "Q", {"callbacks": [runs]})
    (root,) = runs.roots
    assert sorted(run.name for run in runs.children(root))[-1] == "skeleton"
    assert len(runs.started) == 2 + len(TITLES)
    assert usage.usage_metadata["scripted"]["output_tokens"] == 1 + len(TITLES)
    runs.assert_all_ended_before_the_root()


async def test_a_model_without_structured_output_is_asked_for_text(kit, way):
    llm = kit.Chat(script=script)
    assert ask_structured(llm, {}) is None
    assert (await way(structured(llm), "Q"))["skeleton"] == ["As", "text"]
    assert "numbered" in llm.watch.of("skeleton")[0].text


async def test_a_string_llm_is_asked_for_text(ways):
    for way in (ways["invoke"], ways["astream"]):
        llm = FakeListLLM(responses=["1. Move", "Walk."])
        assert (await way(structured(llm), "Q"))["skeleton"] == ["Move"]


# --- replies that do not fit ---


@pytest.mark.parametrize(
    ("reply", "skeleton"),
    [
        (AIMessageChunk(content="1. Plain\n2. text"), ["Plain", "text"]),
        (AIMessageChunk(content='{"points": ["In", "JSON"]}'), ["In", "JSON"]),
        (AIMessageChunk(content='```json\n{"points": ["In", "a fence"]}\n```'), ["In", "a fence"]),
        (AIMessageChunk(content='<think>\n1. No\n</think>\n{"points": ["After", "a block"]}'), ["After", "a block"]),
        (AIMessageChunk(content='Hm:\n1. No\n</think>\n{"points": ["After", "a mark"]}'), ["After", "a mark"]),
        ('{"points": "1. One\\n2. string"}', ["One", "string"]),
        ('{"headings": ["Another", "key"]}', ["Another", "key"]),
        ('{"points": ["Cut", "in the mid', ["Cut", "in the mid"]),
        (AIMessageChunk(content="", additional_kwargs={"refusal": "I can't."}), []),
        (AIMessageChunk(content="I can't help with that."), []),
        ('{"points": []}', []),
    ],
    ids=["text", "json", "fence", "block", "mark", "string", "key", "cut", "refusal", "refusal text", "empty"],
)
async def test_other_replies_are_read_as_text(way, tools, reply, skeleton):
    llm = tools(reply)
    output = await way(structured(llm), "Q")
    assert output["skeleton"] == skeleton
    if not skeleton:
        assert (output["route"], output["answer"]) == ("direct", "Directly.")


async def test_a_missing_skeleton_raises_on_request(way, tools):
    with pytest.raises(Exception, match="0 usable"):
        await way(structured(tools([]), on_empty_skeleton="raise"), "Q")


async def test_a_server_that_does_not_take_the_schema_is_asked_for_text(way, tools):
    def refusing(seen):
        return [ValueError("unknown field: tools")] if seen.kwargs.get("tools") else script(seen)

    llm = tools(TITLES, script=refusing)
    output = await way(structured(llm, backoff=0), "Q")
    assert output["skeleton"] == ["As", "text"]
    assert [bool(seen.kwargs.get("tools")) for seen in llm.watch.of("skeleton")] == [True, False]


# --- models in wrappers ---


async def test_bound_arguments_and_arguments_of_a_call_reach_the_structured_call(ways, tools):
    llm = tools(TITLES)
    for way in ways.values():
        await way(structured(llm.bind(user="me")).bind(trace="on"), "Q")
        kwargs = llm.watch.of("skeleton")[-1].kwargs
        assert (kwargs["user"], kwargs["trace"]) == ("me", "on")
        assert kwargs["tools"]


async def test_the_schema_replaces_bound_tools(way, tools):
    llm = tools(TITLES)
    other = {"type": "function", "function": {"name": "search", "parameters": {}}}
    # The tools stay bound for the points, which this model then calls instead of writing.
    chain = structured(llm.bind(tools=[other]), max_retries=0, on_point_error="placeholder")
    assert (await way(chain, "Q"))["skeleton"] == TITLES


def wrappers(tools):
    broken = tools(TITLES, script=lambda seen: [OSError("down")])
    return {
        "retry": tools(TITLES).with_retry(),
        "fallbacks": broken.with_fallbacks([tools(TITLES)]),
        "retry in binding": tools(TITLES).with_retry().bind(user="me"),
        "binding in fallbacks": broken.bind(user="me").with_fallbacks([tools(TITLES).bind(user="me")]),
    }


@pytest.mark.parametrize("name", ["retry", "fallbacks", "retry in binding", "binding in fallbacks"])
async def test_wrapped_models_write_a_structured_skeleton(way, tools, name):
    assert (await way(structured(wrappers(tools)[name]), "Q"))["skeleton"] == TITLES


async def test_configured_alternatives_write_a_structured_skeleton(way, tools, kit):
    llm = kit.Chat(script=script).configurable_alternatives(
        ConfigurableField(id="model"), default_key="text", data=tools(TITLES)
    )
    assert (await way(structured(llm), "Q"))["skeleton"] == ["As", "text"]
    output = await way(structured(llm), "Q", {"configurable": {"model": "data"}})
    assert output["skeleton"] == TITLES


async def test_fallbacks_with_one_text_model_are_asked_for_text(way, tools, kit):
    llm = tools(TITLES).with_fallbacks([kit.Chat(script=script)])
    assert (await way(structured(llm), "Q"))["skeleton"] == ["As", "text"]


async def test_a_structured_model_may_add_its_own_steps(way, kit):
    class Json(kit.Chat):
        """Asks for JSON in words, like models without tools."""

        def with_structured_output(self, schema, *, include_raw=False, **kwargs):
            def ask(messages):
                return [*messages[:-1], messages[-1].model_copy(update={"content": messages[-1].content + " As JSON."})]

            return RunnableLambda(ask) | self | JsonOutputParser()

    def answer(seen):
        return ['{"points": ["Take ', 'breaks"]}'] if "As JSON" in seen.text else script(seen)

    llm = Json(script=answer)
    output = await way(structured(llm.bind(user="me")), "Q")
    assert output["skeleton"] == ["Take breaks"]


async def test_a_structured_output_without_a_model_in_it_is_asked_for_text(way, kit):
    class Odd(kit.Chat):
        def with_structured_output(self, schema, *, include_raw=False, **kwargs):
            return RunnableLambda(lambda messages: {"points": ["Not", "this"]})

    assert (await way(structured(Odd(script=script)), "Q"))["skeleton"] == ["As", "text"]


def streamed(text: str, size: int) -> StructuredReply:
    """A reply whose tool call arrives in pieces."""
    reply = StructuredReply()
    for at in range(0, len(text), size):
        name = "SkeletonSchema" if at == 0 else None
        call = {"name": name, "args": text[at : at + size], "id": "1" if name else None, "index": 0}
        reply.add(AIMessageChunk(content="", tool_call_chunks=[call]))
    return reply


@pytest.mark.parametrize("count", [50, 200])
def test_a_streamed_tool_call_is_read_once(count, monkeypatch):
    read: list[int] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text, **kwargs: read.append(len(text)) or loads(text, **kwargs))
    monkeypatch.setattr(AIMessageChunk, "__add__", lambda self, other: pytest.fail("chunks were added"))
    text = json.dumps({"points": [f"Title {n}" for n in range(count)]})
    reply = streamed(text, 4)
    assert len(reply.titles) == count
    assert reply.titles == reply.titles
    assert reply.text.count("Title") == count
    # Each piece once, when LangChain makes its chunk, and the whole once.
    assert max(read) == len(text)
    assert sum(read) <= 8 * len(text)


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"points": ' * 20_000, '{"points": [' + "7" * 4301 + "]}", '{"points": ["\\ud800"']
)
def test_a_tool_call_that_cannot_be_read(text):
    for reply in (streamed(text, 10_000), StructuredReply(), StructuredReply()):
        if not reply.text:
            reply.add(AIMessage(text))
        assert reply.titles in (None, ("\ud800",))
        assert isinstance(reply.text, str)


@pytest.mark.parametrize("deep", ["[" * 50_000, '{"a": [' * 20_000])
async def test_an_answer_after_a_skeleton_of_deep_json(way, tools, deep):
    output = await way(structured(tools(deep)), "Q")
    assert (output["route"], output["answer"]) == ("direct", "Directly.")


def test_several_calls_and_calls_without_an_index():
    one, two = json.dumps({"points": "no list"}), json.dumps({"points": TITLES})
    reply = StructuredReply()
    for index, args in ((0, one[:5]), (1, two[:9]), (0, one[5:]), (1, two[9:])):
        call = {"name": "S" if index else None, "args": args, "id": None, "index": index}
        reply.add(AIMessageChunk(content="", tool_call_chunks=[call]))
    assert reply.titles == tuple(TITLES)
    whole = StructuredReply()
    for args in (one, two):
        call = {"name": "S", "args": args, "id": "1", "index": None}
        whole.add(AIMessageChunk(content="", tool_call_chunks=[call]))
    assert whole.titles == tuple(TITLES)


def test_a_list_that_is_cut_off_keeps_its_titles():
    assert streamed('{"points": ["One", "Two", "Thr', 3).titles == ("One", "Two", "Thr")
    assert streamed('{"points": ["One", "Two", ', 3).titles == ("One", "Two")
    assert streamed('{"points": ["One", "Tw\\u00', 3).titles == ("One", "Tw")
