"""What one reply may hold, in every way to run a chain; the threads of a large batch."""

from __future__ import annotations

import itertools
import json
import threading

import pytest
from always import skeleton_chain
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import ConfigurableField

from langchain_sot.loading import load_chain
from skeleton_of_thought.budget import default_limit
from skeleton_of_thought.errors import ReplyError, SkeletonError
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import RouteDecision

LONG = "word " * 4000
ENDLESS = itertools.repeat("word ")


def scripted(kit, *, skeleton="1. Sleep\n2. Eat\n", point="text", direct="Just so."):
    texts = {"skeleton": skeleton, "point": point, "direct": direct}
    return kit.Chat(script=lambda seen: [text] if isinstance(text := texts[seen.stage], str) else text)


async def test_a_skeleton_without_list_lines_leads_to_a_direct_answer(kit, way):
    llm = scripted(kit, skeleton=LONG)
    output = await way(skeleton_chain(llm=llm, max_skeleton_chars=1000), "Why?")
    assert (output["route"], output["answer"]) == ("direct", "Just so.")
    assert llm.watch.open == 0


async def test_a_long_point_is_cut_in_every_way(kit, way):
    llm = scripted(kit, point=LONG)
    output = await way(skeleton_chain(llm=llm, max_point_chars=999), "Why?")
    assert output["points"] == {"1": LONG[:999], "2": LONG[:999]}
    assert output["finish_reasons"] == {"1": "max_chars", "2": "max_chars"}
    assert output["finish_reason"] == "max_chars"
    assert output["errors"] == {}


async def test_a_long_direct_answer_is_cut_in_every_way(kit, way):
    llm = scripted(kit, direct=LONG)
    output = await way(skeleton_chain(llm=llm, router=lambda question: False, max_answer_chars=999), "Why?")
    assert (output["answer"], output["finish_reason"]) == (LONG[:999], "max_chars")


async def test_streams_of_endless_replies_end(kit):
    llm = scripted(kit, skeleton=ENDLESS, direct=ENDLESS)
    chain = skeleton_chain(llm=llm, max_skeleton_chars=500, max_answer_chars=700)
    assert len("".join(chain.pick("answer").stream("Why?"))) == 700
    assert len("".join([text async for text in chain.pick("answer").astream("Why?")])) == 700
    assert llm.watch.open == 0


async def test_the_chat_model_reports_a_cut(kit):
    llm = scripted(kit, point=ENDLESS)
    model = skeleton_chain(llm=llm, max_point_chars=50).as_chat_model()
    chunks = list(model.stream("Why?"))
    assert "".join(chunk.text for chunk in chunks).count("word") == 20
    assert [chunk.response_metadata["finish_reason"] for chunk in chunks if chunk.response_metadata][-1] == "max_chars"
    assert llm.watch.open == 0


# --- answers that the chat model passes on, and text that is hidden in other fields --------------------


class DecidesAtOnce:
    def at_once(self, conversation):
        return RouteDecision(False, reason="by rule")

    def route(self, conversation):
        return self.at_once(conversation)

    async def aroute(self, conversation):
        return self.at_once(conversation)


def passing_on(llm, **settings):
    return skeleton_chain(llm=llm, router=DecidesAtOnce(), backoff=0, **settings).as_chat_model()


async def test_a_direct_answer_that_is_passed_on_is_cut(kit, way, caplog):
    llm = scripted(kit, direct=LONG)
    message = await way(passing_on(llm, max_answer_chars=999), "Why?")
    assert (message.text, message.response_metadata["finish_reason"]) == (LONG[:999], "max_chars")
    assert message.response_metadata["route"] == "direct"
    assert caplog.text.count("was cut at 999 characters; see max_answer_chars") == 1
    assert llm.watch.open == 0


async def test_a_direct_answer_as_long_as_the_limit_is_whole(kit, way, caplog):
    message = await way(passing_on(scripted(kit, direct="x" * 999), max_answer_chars=999), "Why?")
    assert (message.text, message.response_metadata["finish_reason"]) == ("x" * 999, "stop")
    assert caplog.text == ""


async def test_an_endless_direct_answer_that_is_passed_on_ends(kit):
    llm = scripted(kit, direct=ENDLESS)
    model = passing_on(llm, max_answer_chars=702)
    assert "".join(chunk.text for chunk in model.stream("Why?")) == LONG[:702]
    assert "".join([chunk.text async for chunk in model.astream("Why?")]) == LONG[:702]
    assert llm.watch.open == 0


class Hidden(BaseChatModel):
    """A chat model whose stream has chunks of this kind, many more than anybody wants."""

    fields: dict
    made: int = 0

    @property
    def _llm_type(self):
        return "hidden"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise AssertionError("only streams are tested")

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for _ in range(1000):
            self.made += 1
            yield ChatGenerationChunk(message=AIMessageChunk(**{"content": "", **self.fields}))

    def bind_tools(self, tools, **kwargs):
        return self.bind(**kwargs)


async def read(runnable, method):
    if method == "stream":
        return list(runnable.stream("Why?"))
    return [chunk async for chunk in runnable.astream("Why?")]


THOUGHT = "hm " * 10
HIDDEN = {
    "reasoning": {"additional_kwargs": {"reasoning_content": THOUGHT}},
    "a block of thinking": {"content": [{"type": "thinking", "thinking": THOUGHT, "index": 0}]},
    "a block of reasoning": {"content": [{"type": "reasoning", "reasoning": THOUGHT, "index": 0}]},
    "a tool call": {"tool_call_chunks": [{"name": None, "args": "[" * 30, "id": None, "index": 0}]},
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("passed_on", [False, True])
@pytest.mark.parametrize("method", ["stream", "astream"])
async def test_an_answer_that_never_comes_to_its_text_ends(name, passed_on, method):
    llm = Hidden(fields=HIDDEN[name])
    router = DecidesAtOnce() if passed_on else lambda question: False
    model = skeleton_chain(llm=llm, router=router, max_retries=0, max_answer_chars=900).as_chat_model()
    with pytest.raises(ReplyError):
        await read(model, method)
    assert llm.made == 31


@pytest.mark.parametrize("method", ["stream", "astream"])
async def test_a_structured_skeleton_that_never_ends_is_cut(kit, method):
    piece = {"name": None, "args": '"Sleep well", ', "id": None, "index": 0}
    llm, other = Hidden(fields={"tool_call_chunks": [piece]}), scripted(kit)
    settings = {"skeleton_mode": "structured", "on_empty_skeleton": "raise", "max_skeleton_chars": 500}
    chain = skeleton_chain(llm=llm, point_llm=other, **settings)
    with pytest.raises(SkeletonError):
        await read(chain, method)
    assert llm.made == 36


def test_the_limits_are_configurable(kit):
    llm = scripted(kit, point=LONG)
    chain = skeleton_chain(llm=llm).configurable_fields(max_point_chars=ConfigurableField("most"))
    output = chain.invoke("Why?", {"configurable": {"most": 20}})
    assert output["points"] == {"1": LONG[:20].rstrip(), "2": LONG[:20].rstrip()}


def test_the_limits_survive_a_dump_and_older_dumps_have_the_defaults():
    openai = pytest.importorskip("langchain_openai", reason="a model that can be dumped and loaded is needed")
    llm = openai.ChatOpenAI(model="some", api_key="sk-none")
    chain = skeleton_chain(llm=llm, max_point_chars=None, max_answer_chars=7)
    secrets = {"OPENAI_API_KEY": "sk-none"}
    dumped = dumpd(chain)
    loaded = load_chain(json.dumps(dumped), secrets_map=secrets)
    assert [loaded.max_skeleton_chars, loaded.max_point_chars, loaded.max_answer_chars] == [200_000, None, 7]
    for name in ("max_skeleton_chars", "max_point_chars", "max_answer_chars"):
        dumped["kwargs"].pop(name, None)
    loaded = load_chain(json.dumps(dumped), secrets_map=secrets)
    assert [loaded.max_skeleton_chars, loaded.max_point_chars, loaded.max_answer_chars] == [200_000, 200_000, 1_000_000]


@pytest.mark.parametrize("name", ["max_skeleton_chars", "max_point_chars", "max_answer_chars"])
@pytest.mark.parametrize("value", [0, -5, 1.5])
def test_a_limit_that_cannot_work_is_refused_when_the_chain_is_made(kit, name, value):
    with pytest.raises(ValueError, match=name):
        skeleton_chain(llm=scripted(kit), **{name: value})


@pytest.mark.parametrize("kind", ["chain", "pick", "chat model"])
def test_a_large_batch_has_few_threads(kit, kind):
    llm = scripted(kit, skeleton="1. Sleep\n2. Eat\n3. Walk\n")
    chain = skeleton_chain(llm=llm)
    runnable = {"chain": chain, "pick": chain.pick("answer"), "chat model": chain.as_chat_model()}[kind]
    peak, before = 0, threading.active_count()
    for count, _ in enumerate(runnable.batch_as_completed([f"{i}?" for i in range(200)]), 1):
        peak = max(peak, threading.active_count() - before)
        if count == 1:
            first = len(llm.watch.of("skeleton"))
    most = default_limit(Settings())
    assert count == 200
    assert llm.watch.peak <= most
    # LangChain's own batch has a thread for each answer of the chat model, beside those of its calls.
    assert peak <= (2 * most if kind == "chat model" else most) + 2
    assert first <= 3 * most


def test_a_batch_keeps_to_a_number_of_the_callers(kit):
    llm = kit.Chat(script=None)
    gate, answer = llm.watch.together(60), kit.answering(["Sleep", "Eat"])
    llm.script = lambda seen: [gate, *answer(seen)] if seen.stage == "skeleton" else answer(seen)
    chain = skeleton_chain(llm=llm)
    assert len(chain.batch([f"{i}?" for i in range(60)], {"max_concurrency": 10_000})) == 60
    assert llm.watch.peak >= 60
