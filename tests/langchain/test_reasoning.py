"""Reasoning models under LangChain: every way to ask gives the answer alone, and streams take reasoning back."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from always import skeleton_chain
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables.utils import AddableDict

from langchain_sot import SkeletonOutputParser
from langchain_sot.results import Restart, RestartDict, RestartList

SKELETON = "Options:\n1. talk about light\n2. talk about sound\n</think>\n1. Dark room\n2. Quiet room"
THOUGHT = "Let me think.\n</think>\n\n"
ANSWER = "1. Dark room: It helps.\n\n2. Quiet room: It helps."
EXPECTED = {
    "question": "How do I sleep?",
    "route": "skeleton",
    "reason": "no router",
    "skeleton": ["Dark room", "Quiet room"],
    "points": {"1": "It helps.", "2": "It helps."},
    "answer": ANSWER,
    "errors": {},
}


def thinking(kit, *, skeleton: str = SKELETON, point: str = THOUGHT + "It helps.", **others: str):
    """A script whose replies begin with reasoning."""
    texts = {"skeleton": skeleton, "point": point, "direct": THOUGHT + "Sleep.", **others}
    return lambda seen: kit.pieces(texts[seen.stage])


def core_of(output: dict[str, Any]) -> dict[str, Any]:
    return {key: output[key] for key in EXPECTED}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("join", ["numbered", "headings"])
async def test_every_way_gives_the_answer_alone(kit, way, eager, join):
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit)), eager=eager, join=join)
    output = core_of(await way(chain, "How do I sleep?"))
    if join == "headings":
        assert output["answer"] == "## Dark room\n\nIt helps.\n\n## Quiet room\n\nIt helps."
    else:
        assert output == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "<think>Hm.</think>\n\nIt helps.",
        "[THINK]Hm.[/THINK]It helps.",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>It helps.<|return|>",
        "<|channel>thought\nHm.\n<channel|>It helps.",
        "<think>Hm.</think>\n<answer>\nIt helps.\n</answer>",
    ],
)
async def test_blocks_never_show(kit, way, text):
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit, point=text)))
    assert core_of(await way(chain, "How do I sleep?")) == EXPECTED


def test_what_a_stream_showed_is_voided_by_a_restart(kit):
    chunks = list(skeleton_chain(llm=kit.Chat(script=thinking(kit))).stream("How do I sleep?"))
    shown = [chunk["answer"] for chunk in chunks if "answer" in chunk]
    assert any(isinstance(text, Restart) for text in shown)
    assert "Let" in "".join(map(str, shown))
    points = [chunk["points"]["1"] for chunk in chunks if chunk.get("points", {}).get("1") is not None]
    assert any(isinstance(text, Restart) for text in points)
    assert core_of(kit.total(chunks)) == EXPECTED


async def test_picked_streams_add_up(kit):
    def chain():
        return skeleton_chain(llm=kit.Chat(script=thinking(kit)), eager=True)

    assert kit.total(chain().pick("answer").stream("How do I sleep?")) == ANSWER
    assert kit.total([c async for c in chain().pick("answer").astream("How do I sleep?")]) == ANSWER
    assert kit.total(chain().pick("points").stream("How do I sleep?")) == EXPECTED["points"]
    assert kit.total(chain().pick("skeleton").stream("How do I sleep?")) == EXPECTED["skeleton"]
    assert chain().pick("answer").invoke("How do I sleep?") == ANSWER


async def test_an_expansion_is_free_of_reasoning(kit, way):
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit)))
    assert await way(chain.expansion(["Dark room", "Quiet room"]), "How do I sleep?") == EXPECTED["points"]


async def test_the_chat_model_gives_the_answer_and_its_stream_ends_with_it(kit):
    model = skeleton_chain(llm=kit.Chat(script=thinking(kit))).as_chat_model()
    assert model.invoke("How do I sleep?").text == ANSWER
    assert (await model.ainvoke("How do I sleep?")).text == ANSWER
    # The text of a message cannot be taken back: the answer follows once more.
    assert str(kit.total(model.stream("How do I sleep?")).text).endswith("\n\n" + ANSWER)
    chunks = [chunk async for chunk in model.astream("How do I sleep?")]
    assert str(kit.total(chunks).text).endswith("\n\n" + ANSWER)


async def test_a_direct_answer_is_the_models_own(kit, way):
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit)), router=lambda question: False)
    assert (await way(chain, "Hello"))["answer"] == THOUGHT + "Sleep."


async def test_a_mentioned_mark_stays(kit, way):
    titles = "1. Use of `<think>` tags\n2. Quiet room"
    text = "A model writes `<think>` first and </think> last."
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit, skeleton=titles, point=text)))
    output = await way(chain, "How do tags work?")
    assert output["skeleton"] == ["Use of `<think>` tags", "Quiet room"]
    assert output["points"] == {"1": text, "2": text}


# --- points of the reasoning ----------------------------------------------------------------------


def drafting(kit, llm, *, fails: bool):
    """A script whose skeleton goes on to its end once a point of the reasoning was written."""
    begun = kit.Gate(lambda: len(llm.watch.of("point", 1)) >= 1)

    def script(seen):
        if seen.stage == "skeleton":
            return ["1. talk about light\n2. talk about sound\n", begun, "</think>\n", "1. Dark room\n2. Quiet room"]
        if 'heading "talk' in seen.text:
            return [OSError("cut")] if fails else ["Light is bright."]
        return ["It helps."]

    return script


@pytest.mark.parametrize("fails", [False, True])
async def test_eager_points_of_the_reasoning_leave_nothing(kit, way, fails):
    llm = kit.Chat(script=None)
    llm.script = drafting(kit, llm, fails=fails)
    chain = skeleton_chain(llm=llm, eager=True, max_retries=0, on_point_error="placeholder")
    assert core_of(await way(chain, "How do I sleep?")) == EXPECTED


async def test_a_direct_answer_may_follow_points_that_were_shown(kit, way):
    llm = kit.Chat(
        script=lambda seen: ["1. talk\n", "</think>\n", "No list."] if seen.stage == "skeleton" else ["Sleep."]
    )
    output = await way(skeleton_chain(llm=llm, eager=True), "How do I sleep?")
    assert (output["route"], output["skeleton"], output["points"]) == ("direct", [], {})
    assert (output["question"], output["answer"]) == ("How do I sleep?", "Sleep.")
    assert output["reason"] == "the skeleton had 0 usable point(s)"


async def test_a_custom_event_says_which_points_are_void(kit):
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit)), eager=True)
    events = [e async for e in chain.astream_events("How do I sleep?", version="v2") if e["event"] == "on_custom_event"]
    named = [(e["name"], e["data"].get("titles")) for e in events if "skeleton" in e["name"]]
    assert named == [
        ("sot_skeleton_restart", ["talk about light", "talk about sound"]),
        ("sot_skeleton", ["Dark room", "Quiet room"]),
    ]


@pytest.mark.parametrize("limits", [{"max_points": 2}, {"min_points": 2}, {"min_points": 2, "max_points": 2}])
async def test_the_bounds_of_a_skeleton_count_after_the_reasoning(kit, way, limits):
    chain = skeleton_chain(llm=kit.Chat(script=thinking(kit)), **limits)
    assert core_of(await way(chain, "How do I sleep?")) == EXPECTED


# --- the parser -----------------------------------------------------------------------------------


async def test_the_output_parser_streams_what_it_parses():
    parser = SkeletonOutputParser()
    chunks = ["1. talk\n2. more\n", "</think>\n1. Dark", " room\n2. Quiet room"]
    streamed = list(parser.transform(iter(chunks)))
    assert streamed == [["talk"], ["more"], [], ["Dark room"], ["Quiet room"]]
    assert isinstance(streamed[2], RestartList)
    assert streamed[0] + streamed[1] + streamed[2] + streamed[3] + streamed[4] == parser.parse("".join(chunks))

    async def achunks():
        for chunk in chunks:
            yield AIMessageChunk(chunk)

    assert [titles async for titles in parser.atransform(achunks())] == streamed
    assert list(parser.transform(iter(["1. talk\n", "</think>"]))) == [["talk"], []]
    assert list(SkeletonOutputParser(max_points=1).transform(iter(["1. a\n2. b\n", "</think>\n1. c\n2. d"]))) == [
        ["a"],
        [],
        ["c"],
    ]


@given(st.text(alphabet="12.\n ", max_size=20), st.text(alphabet="12.) -abc\n", max_size=30), st.integers(1, 7))
def test_the_lists_of_the_parser_add_up(before, after, size):
    parser = SkeletonOutputParser()
    text = f"1. a\n{before}\n</think>\n{after}"
    total: list[str] = []
    for titles in parser.transform(iter([text[i : i + size] for i in range(0, len(text), size)])):
        total = total + titles
    assert total == parser.parse(text)


# --- the types of chunks --------------------------------------------------------------------------


def test_a_restart_list_and_dict_replace_what_they_are_added_to():
    first, last = ["a"], ["c"]
    assert first + RestartList() + last == last
    assert first + (RestartList(["b"]) + last) == ["b", "c"]
    assert RestartList(["a"]) + RestartList(["b"]) == ["b"]
    total = ["a"]
    total += RestartList()
    assert total == []
    assert AddableDict(a=1) + RestartDict() + AddableDict(b=2) == {"b": 2}
    assert AddableDict(a=1) + (RestartDict(b=2) + AddableDict(c=3)) == {"b": 2, "c": 3}
    assert RestartDict(a=1) + RestartDict(b=2) == {"b": 2}
    assert AddableDict(x=AddableDict(a=1)) + AddableDict(x=RestartDict(b=2)) == {"x": {"b": 2}}
    assert AddableDict(x=["a"]) + AddableDict(x=RestartList(["b"])) == {"x": ["b"]}
    for value, plain in ((RestartList(["a"]), list), (RestartDict(a=1), AddableDict)):
        assert type(pickle.loads(pickle.dumps(value))) is plain
        assert json.loads(json.dumps(value)) == value
    with pytest.raises(TypeError):
        RestartList() + 1


parts = st.sampled_from([AddableDict(a="x"), RestartDict(), AddableDict(b="y"), RestartDict(a="z"), AddableDict()])


@given(parts, parts, parts)
def test_the_addition_of_dicts_is_associative(a, b, c):
    assert (a + b) + c == a + (b + c)


# --- reasoning that the model's own class sets apart ----------------------------------------------


class Blocks(BaseChatModel):
    """A chat model with blocks of reasoning beside its text, or in `additional_kwargs`."""

    kind: str

    @property
    def _llm_type(self) -> str:
        return "blocks"

    def _parts(self, messages) -> list[tuple[str, str]]:
        text = str(messages[-1].text)
        reply = "1. Dark room\n2. Quiet room" if "under the heading" not in text else "It helps."
        return [("reasoning", "1. Hm\n"), ("text", reply)]

    def _content(self, kind: str, text: str) -> dict[str, Any]:
        if kind == "text":
            return {"content": [{"type": "text", "text": text}] if self.kind != "kwargs" else text}
        if self.kind == "kwargs":
            return {"content": "", "additional_kwargs": {"reasoning_content": text}}
        return {"content": [{"type": self.kind, self.kind: text}]}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        (_, thought), (_, reply) = self._parts(messages)
        content, extra = self._content("text", reply), self._content("reasoning", thought)
        if self.kind == "kwargs":
            message = AIMessage(reply, additional_kwargs=extra["additional_kwargs"])
        else:
            message = AIMessage([*extra["content"], *content["content"]])
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for kind, text in self._parts(messages):
            yield ChatGenerationChunk(message=AIMessageChunk(**self._content(kind, text)))


@pytest.mark.parametrize("kind", ["reasoning", "thinking", "kwargs"])
async def test_blocks_of_reasoning_are_no_text(way, kind):
    assert core_of(await way(skeleton_chain(llm=Blocks(kind=kind)), "How do I sleep?")) == EXPECTED
