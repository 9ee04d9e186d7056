"""`merge=True`: one more call that merges the points into one text."""

from __future__ import annotations

import pytest
from always import skeleton_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessageChunk, SystemMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

from langchain_sot import ChatTransformers
from langchain_sot.calls import _native
from langchain_sot.results import Restart
from skeleton_of_thought.types import Call, Hints, Message, Prompt

TITLES = ["Take breaks", "Move"]
JOINED = "1. Take breaks: All about take breaks.\n\n2. Move: All about move."
POINTS = {"1": "All about take breaks.", "2": "All about move."}


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES, merge="Breaks, and moving too."))


def scripted(kit, llm, *steps):
    """The same model with these steps as its merge."""
    script = llm.script
    llm.script = lambda seen: list(steps) if seen.stage == "merge" else script(seen)
    return llm


@pytest.mark.parametrize("eager", [False, True])
async def test_all_six_methods_give_the_same_answer(kit, way, llm, eager):
    output = await way(skeleton_chain(llm=llm, merge=True, eager=eager), "Q")
    assert kit.texts(output) == {
        "question": "Q",
        "route": "skeleton",
        "reason": "no router",
        "skeleton": TITLES,
        "points": POINTS,
        "answer": "Breaks, and moving too.",
        "errors": {},
        "sources": [],
        "point_sources": {},
    }
    assert list(output["timings"]["stages"]) == ["skeleton", "point", "merge"]
    span = output["timings"]["stages"]["merge"]
    assert output["timings"]["stages"]["point"]["end"] <= span["start"] <= span["first"] <= span["end"]
    (merge,) = llm.watch.of("merge")
    assert JOINED in merge.text
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton", "point", "point", "merge"]


async def test_the_merged_text_streams_after_the_points(kit, llm):
    gate = kit.Gate()
    scripted(kit, llm, "Breaks, ", gate, "and moving too.")
    answer, points = "", {}
    async for chunk in skeleton_chain(llm=llm, merge=True).astream("Q"):
        for index, text in chunk.get("points", {}).items():
            assert not answer, "a point came after the merge"
            points[index] = points.get(index, "") + text
        answer += chunk.get("answer", "")
        if answer == "Breaks,":
            assert points == POINTS
            gate.open()
    assert answer == "Breaks, and moving too."


async def test_every_method_counts_the_merges_usage_alike(ways, llm):
    totals = []
    for way in ways.values():
        with get_usage_metadata_callback() as usage:
            await way(skeleton_chain(llm=llm, merge=True), "Q")
        totals.append(usage.usage_metadata)
    with get_usage_metadata_callback() as usage:
        skeleton_chain(llm=llm).invoke("Q")
    assert all(total == totals[0] for total in totals)
    assert totals[0]["scripted"]["output_tokens"] == usage.usage_metadata["scripted"]["output_tokens"] + 5


async def test_the_merge_is_a_run_named_merge(kit, way, llm):
    runs = kit.Runs()
    await way(skeleton_chain(llm=llm, merge=True), "Q", {"callbacks": [runs]})
    (root,) = runs.roots
    assert len(runs.started) == 5
    (merge,) = [run for run in runs.children(root) if run.name == "merge"]
    assert merge.metadata["sot_stage"] == "merge"
    assert "sot_point" not in merge.metadata
    assert "sot:merge" in merge.tags
    runs.assert_all_ended_before_the_root()


async def test_each_question_of_a_batch_has_its_own_merge(kit, llm):
    chain = skeleton_chain(llm=llm, merge=True)
    for outputs in (chain.batch(["A?", "B?"]), await chain.abatch(["A?", "B?"])):
        assert [output["answer"] for output in outputs] == ["Breaks, and moving too."] * 2
    asked = sorted(seen.text.split("\n")[0] for seen in llm.watch.of("merge"))
    assert asked == ["A?", "A?", "B?", "B?"]


# --- merges that fail ---


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([OSError("down")], "OSError: down"),
        (["Breaks, ", OSError("down")], "OSError: down"),
        ([], "MergeError: The model gave no text."),
        (["<think>Hm.</think>", " \n"], "MergeError: The model gave no text."),
    ],
    ids=["fails", "breaks", "empty", "thinks"],
)
async def test_a_failed_merge_leaves_the_points_unchanged(kit, way, llm, steps, why):
    runs = kit.Runs()
    scripted(kit, llm, *steps)
    chain = skeleton_chain(llm=llm, merge=True, max_retries=0)
    output = await way(chain, "Q", {"callbacks": [runs]})
    assert kit.texts(output) == {
        "question": "Q",
        "route": "skeleton",
        "reason": "no router",
        "skeleton": TITLES,
        "points": POINTS,
        "answer": JOINED,
        "errors": {"merge": why},
        "sources": [],
        "point_sources": {},
    }
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()
    assert runs.roots[0].id not in runs.errors


async def test_a_truncated_merge_leaves_the_points_unchanged(kit, way):
    class Cut(kit.Chat):
        def _cut(self, chunk):
            if chunk.message.response_metadata:
                chunk.message.response_metadata["finish_reason"] = "max_tokens"
            return chunk

        def _stream(self, messages, *args, **kwargs):
            cut = "were written separately" in messages[-1].text
            for chunk in super()._stream(messages, *args, **kwargs):
                yield self._cut(chunk) if cut else chunk

        async def _astream(self, messages, *args, **kwargs):
            cut = "were written separately" in messages[-1].text
            async for chunk in super()._astream(messages, *args, **kwargs):
                yield self._cut(chunk) if cut else chunk

    output = await way(skeleton_chain(llm=Cut(script=kit.answering(TITLES)), merge=True), "Q")
    assert output["answer"] == JOINED
    assert output["errors"]["merge"].startswith("MergeError: The model ended its text before it was complete")


def test_a_broken_merge_streams_a_restart(kit, llm):
    scripted(kit, llm, "Breaks, ", OSError("down"))
    chain = skeleton_chain(llm=llm, merge=True)
    texts = [chunk["answer"] for chunk in chain.stream("Q") if "answer" in chunk]
    begun = [type(text) for text in texts].index(Restart)
    assert "".join(texts[:begun]) == "Breaks,\n\n", "joined without regard to the restart, nothing is glued"
    assert "".join(texts[begun:]) == JOINED
    assert len(llm.watch.of("merge")) == 1
    assert kit.total(chain.pick("answer").stream("Q")) == JOINED


async def test_a_failed_merge_is_retried(kit, way, llm):
    script = llm.script

    def once(seen):
        return [OSError("down")] if seen.stage == "merge" and len(llm.watch.of("merge")) == 1 else script(seen)

    llm.script = once
    output = await way(skeleton_chain(llm=llm, merge=True, backoff=0), "Q")
    assert (output["answer"], output["errors"]) == ("Breaks, and moving too.", {})


async def test_failed_points_follow_the_merged_text(kit, way):
    llm = kit.Chat(script=None)
    good = kit.answering([*TITLES, "Rest"], merge="All in one.")
    llm.script = lambda seen: [OSError("down")] if seen.point == 2 else good(seen)
    settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(gap)"}
    output = await way(skeleton_chain(llm=llm, merge=True, **settings), "Q")
    assert output["answer"] == "All in one.\n\n2. Move: (gap)"
    assert output["errors"] == {"2": "OSError: down"}
    assert "(gap)" not in llm.watch.of("merge")[0].text


async def test_closing_the_stream_in_the_merge_leaves_nothing_open(kit, llm):
    never = kit.Gate()
    runs = kit.Runs()
    scripted(kit, llm, "Breaks, ", *["and "] * 50, never)
    stream = skeleton_chain(llm=llm, merge=True).pick("answer").astream("Q", {"callbacks": [runs]})
    async for text in stream:
        if text:
            break
    await stream.aclose()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


# --- prompts and models ---


async def test_strings_and_templates_serve_as_merge_prompt(kit, ways, llm):
    template = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), ("human", "{question} {count} {titles} (were written separately) {draft}")]
    )
    for prompt in (
        "{draft} (were written separately)",
        PromptTemplate.from_template("{draft} were written separately"),
    ):
        for way in (ways["invoke"], ways["astream"]):
            await way(skeleton_chain(llm=llm, merge=True, merge_prompt=prompt), "Q {so}")
            assert llm.watch.of("merge")[-1].text.startswith(JOINED)
    chain = skeleton_chain(llm=llm, merge=True, merge_prompt=template)
    chain.invoke({"question": "Q", "chat_history": [SystemMessage("Be kind.")]})
    texts = [message.text for message in llm.watch.of("merge")[-1].messages]
    assert texts == ["Be kind.\n\nBe brief.", f"Q 2 Take breaks; Move (were written separately) {JOINED}"]


def test_a_prompt_that_never_shows_the_draft_is_refused(llm):
    for prompt in ("Merge {question}.", PromptTemplate.from_template("Merge {question}.")):
        with pytest.raises(ValueError, match="draft"):
            skeleton_chain(llm=llm, merge_prompt=prompt)
    chain = skeleton_chain(llm=llm, merge=True, merge_prompt=PromptTemplate.from_template("{draft} {mood}"))
    with pytest.raises(ValueError, match="mood"):
        chain.invoke("Q")
    assert not llm.watch.seen


def test_the_merge_prompt_is_returned_as_a_template(llm):
    prompt = skeleton_chain(llm=llm).get_merge_prompt()
    assert set(prompt.input_variables) == {"question", "draft"}
    text = prompt.format(question="Why {so}?", draft="A {b}")
    assert "Why {so}?" in text
    assert "A {b}" in text


async def test_the_skeletons_model_writes_the_merge(kit, way, llm):
    other = kit.Chat(script=lambda seen: ["Other words."])
    output = await way(skeleton_chain(llm=llm, point_llm=other, merge=True), "Q")
    assert output["answer"] == "Breaks, and moving too."
    assert {seen.stage for seen in other.watch.seen} == {"point"}


async def test_an_expansion_is_not_merged(way, llm):
    assert await way(skeleton_chain(llm=llm, merge=True).expansion(TITLES), "Q") == POINTS
    assert llm.watch.of("merge") == []


def test_the_graph_shows_the_merge(llm):
    chain = skeleton_chain(llm=llm, merge=True, router=lambda question: True)
    assert [node.name for node in chain.get_graph().nodes.values()].count("ScriptedChat") == 4
    assert chain.get_prompts() == [chain.get_skeleton_prompt(), chain.get_point_prompt(), chain.get_merge_prompt()]
    assert chain.get_graph().draw_mermaid()


class Engine:
    """Stands in for an engine that gets no call."""

    closed = False
    reasons = False


@pytest.mark.parametrize(
    ("settings", "kwargs", "limit"),
    [({}, {}, 900), ({"max_tokens": 600}, {}, 600), ({}, {"max_tokens": 700}, 700), ({"max_tokens": 999}, {}, 900)],
)
def test_a_local_models_default_limit_does_not_truncate_a_merge(settings, kwargs, limit):
    model = ChatTransformers(model="none", engine=Engine(), **settings)
    prompt = Prompt((Message("user", "Merge"),), hints=Hints(max_tokens=900))
    assert _native(kwargs, Call(1, "merge", prompt), model)["max_tokens"] == limit
    assert _native({}, Call(1, "point", prompt), ChatTransformers(model="none", engine=Engine()))["max_tokens"] == 512


def test_text_blocks_of_a_merge_are_read_as_text(kit):
    class Blocks(kit.Chat):
        def _stream(self, messages, *args, **kwargs):
            for chunk in super()._stream(messages, *args, **kwargs):
                if chunk.message.content and "were written separately" in messages[-1].text:
                    block = {"type": "text", "text": chunk.message.content, "index": 0}
                    yield ChatGenerationChunk(message=AIMessageChunk(content=[block]))
                else:
                    yield chunk

    chain = skeleton_chain(llm=Blocks(script=kit.answering(TITLES)), merge=True)
    assert kit.total(chain.stream("Q"))["answer"] == "All in one."


# --- as a chat model ---


async def test_the_chat_model_returns_the_merged_text(way, llm):
    message = await way(skeleton_chain(llm=llm, merge=True).as_chat_model(), "Q")
    assert message.text == "Breaks, and moving too."
    assert set(message.response_metadata["usage_by_stage"]) == {"skeleton", "point", "merge"}
    assert message.response_metadata["errors"] == {}


async def test_the_chat_model_reports_why_a_merge_failed(kit, ways, llm):
    scripted(kit, llm, "Breaks, ", OSError("down"))
    model = skeleton_chain(llm=llm, merge=True, max_retries=0).as_chat_model()
    for name, way in ways.items():
        message = await way(model, "Q")
        # A message cannot withdraw text that it has streamed.
        assert message.text == (f"Breaks,\n\n{JOINED}" if "stream" in name else JOINED)
        assert message.response_metadata["errors"] == {"merge": "OSError: down"}
