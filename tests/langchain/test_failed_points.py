"""Points whose reply is blocked, refused or empty, and how each point ended, in every view of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_core.runnables import RunnableParallel

from skeleton_of_thought.errors import PointError, ReplyError

TITLES = ["Take breaks", "Drink water"]
ANSWER = "1. Take breaks: It helps.\n\n2. Drink water: It helps."
TOKENS = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
COUNTED = {"input_tokens": 10, "output_tokens": 2, "cached_tokens": 0, "total_tokens": 12}


def reply(content: Any = "", *, metadata: Any = None, **fields: Any) -> AIMessage:
    metadata = {"finish_reason": "stop"} if metadata is None else metadata
    return AIMessage(content, response_metadata=metadata, usage_metadata=TOKENS, **fields)


def times(usage: dict[str, int], count: int) -> dict[str, int]:
    return {name: number * count for name, number in usage.items()}


class Replying(BaseChatModel):
    """A chat model whose script gives whole messages; streams give the same in two chunks."""

    script: Any
    watch: Any
    kit: Any

    @property
    def _llm_type(self) -> str:
        return "replying"

    def _reply(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        seen = self.kit.seen_as(messages, kwargs)
        with self.watch.call(seen):
            return self.script(seen)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, kwargs))])

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        message = self._reply(messages, kwargs)
        calls = [
            {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": i}
            for i, call in enumerate(message.tool_calls)
        ]
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content=message.content, additional_kwargs=message.additional_kwargs, tool_call_chunks=calls
            )
        )
        last = AIMessageChunk(
            content="",
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)

    async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        for chunk in self._stream(messages, stop, run_manager, **kwargs):
            yield chunk
            await asyncio.sleep(0)


@pytest.fixture
def replying(kit: Any) -> Callable[..., Replying]:
    """Makes a model that answers point 2 by these replies, one for each attempt, and then by a good one."""

    def make(*faults: AIMessage, stage: str = "point", **replies: AIMessage) -> Replying:
        left = list(faults)

        def script(seen: Any) -> AIMessage:
            if left and seen.stage == stage and seen.point in (2, None):
                return left.pop(0)
            if seen.stage in replies:
                return replies[seen.stage]
            titles = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
            return reply(titles if seen.stage == "skeleton" else "It helps.")

        return Replying(script=script, watch=kit.Watch(), kit=kit)

    return make


FAULTS = {
    "a filter of OpenAI": reply("Half", metadata={"finish_reason": "content_filter"}),
    "a filter of Google": reply(metadata={"finish_reason": "SAFETY", "safety_ratings": []}),
    "a blocked prompt of Google": reply(metadata={"prompt_feedback": {"block_reason": "PROHIBITED_CONTENT"}}),
    "a guardrail of Bedrock": reply("Sorry.", metadata={"stopReason": "guardrail_intervened"}),
    "a toxic reply of Cohere": reply("Half", metadata={"finish_reason": "ERROR_TOXIC"}),
    "an error of Mistral": reply("Half", metadata={"finish_reason": "error"}),
    "a refusal of Anthropic": reply("I can", metadata={"stop_reason": "refusal"}),
    "a refusal of OpenAI": reply(additional_kwargs={"refusal": "I cannot help with that."}),
    "a refusal of the Responses API": reply(
        [{"type": "refusal", "refusal": "I cannot help with that."}], metadata={"status": "completed"}
    ),
    "a refusal as a block of version 1": reply(
        [{"type": "non_standard", "value": {"type": "refusal", "refusal": "No."}}], metadata={"output_version": "v1"}
    ),
    "a filter of the Responses API": reply(
        "Half", metadata={"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    ),
    "nothing": reply(),
    "nothing, and no end": reply(metadata={}),
    "white space": reply(" \n "),
    "reasoning in tags": reply("<think>Water is good.</think>"),
    "reasoning at the limit": reply("<think>Water is", metadata={"finish_reason": "length"}),
    "reasoning in a block": reply([{"type": "thinking", "thinking": "Water is good."}]),
    "reasoning beside the text": reply(additional_kwargs={"reasoning_content": "Water is good."}),
    "a tool call": reply(
        tool_calls=[{"name": "search", "args": {"q": "water"}, "id": "1"}], metadata={"finish_reason": "tool_calls"}
    ),
}
ENDS = {
    "content_filter": "content filter",
    "refusal": "refused",
    "length": "token limit",
    "error": "",
}


def end_of(name: str) -> str:
    """The finish reason of a point that fails in this way for good."""
    if "refusal" in name:
        return "refusal"
    if any(word in name for word in ("filter", "blocked", "guardrail", "toxic")):
        return "content_filter"
    return "length" if "limit" in name else "error"


# --- failed, tried again, and reported ---


@pytest.mark.parametrize("name", FAULTS)
async def test_a_failed_reply_is_written_again(replying, way, name):
    llm = replying(FAULTS[name])
    # With a merge no text of a point is shown before all are done, so no stream has to keep a part of a failed one.
    output = await way(skeleton_chain(llm=llm, backoff=0, merge=True), "Why?")
    assert output["points"] == {"1": "It helps.", "2": "It helps."}
    assert len(llm.watch.of("point", 2)) == 2
    assert (output["errors"], output["finish_reason"]) == ({}, "stop")
    assert output["finish_reasons"] == {"1": "stop", "2": "stop"}
    assert output["usage_by_point"] == {"1": COUNTED, "2": times(COUNTED, 2)}
    assert output["usage_by_stage"]["point"] == times(COUNTED, 3)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_reply_that_stays_failed_is_reported_by_the_policy(replying, way, name):
    llm = replying(FAULTS[name], FAULTS[name])
    chain = skeleton_chain(llm=llm, backoff=0, on_point_error="placeholder", placeholder="(gone)", merge=True)
    output = await way(chain, "Why?")
    assert output["points"]["1"] == "It helps."
    assert output["points"]["2"].endswith("(gone)")
    assert output["errors"]["2"].startswith("ReplyError: ")
    assert ENDS[end_of(name)] in output["errors"]["2"]
    assert output["finish_reasons"] == {"1": "stop", "2": end_of(name)}
    assert output["finish_reason"] == end_of(name)


@pytest.mark.parametrize("name", ["a filter of Google", "a refusal of OpenAI", "nothing"])
async def test_by_default_a_failed_reply_raises(replying, way, name):
    llm = replying(*[FAULTS[name]] * 9)
    with pytest.raises(PointError, match=r"Drink water.*after 2 attempt\(s\): ReplyError") as caught:
        await way(skeleton_chain(llm=llm, backoff=0), "Why?")
    assert isinstance(caught.value.__cause__, ReplyError)
    assert caught.value.__cause__.finish_reason == end_of(name)
    assert llm.watch.open == 0


async def test_the_text_of_a_refusal_is_in_the_message(replying, way):
    llm = replying(*[FAULTS["a refusal of OpenAI"]] * 9)
    with pytest.raises(PointError, match="I cannot help with that"):
        await way(skeleton_chain(llm=llm, backoff=0), "Why?")


async def test_the_kind_of_a_reply_without_text_is_in_the_message(replying, way):
    for name, words in (("a tool call", "called a tool"), ("reasoning in a block", "has reasoning, but no text")):
        llm = replying(*[FAULTS[name]] * 9)
        with pytest.raises(PointError, match=words):
            await way(skeleton_chain(llm=llm, max_retries=0), "Why?")


async def test_an_expansion_writes_a_failed_point_again(replying, way):
    llm = replying(FAULTS["a filter of Google"])
    assert await way(skeleton_chain(llm=llm, backoff=0).expansion(TITLES), "Why?") == {
        "1": "It helps.",
        "2": "It helps.",
    }
    assert len(llm.watch.of("point", 2)) == 2


async def test_a_point_that_reached_its_limit_keeps_its_text(replying, way):
    llm = replying(reply("It hel", metadata={"finish_reason": "MAX_TOKENS"}))
    output = await way(skeleton_chain(llm=llm), "Why?")
    assert output["points"]["2"] == "It hel"
    assert (output["finish_reason"], output["finish_reasons"]) == ("length", {"1": "stop", "2": "length"})
    assert (output["errors"], len(llm.watch.of("point"))) == ({}, 2)


async def test_a_structured_skeleton_may_come_as_a_tool_call(replying, way):
    # Points are refused as tool calls, skeletons are not.
    call = reply(tool_calls=[{"name": "SkeletonSchema", "args": {"points": TITLES}, "id": "1"}])

    class WithSchema(Replying):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return self.bind()

    llm = WithSchema(**vars(replying(skeleton=call)))
    output = await way(skeleton_chain(llm=llm, skeleton_mode="structured"), "Why?")
    assert (output["answer"], output["route"]) == (ANSWER, "skeleton")


# --- the whole, and the skeleton ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a filter of Google", "a content filter blocked the reply (finish reason 'SAFETY')"),
        ("a refusal of OpenAI", "the model refused: 'I cannot help with that.'"),
        ("nothing", "the reply is empty"),
    ],
)
async def test_after_a_failed_skeleton_the_model_answers_as_it_does(replying, way, name, words):
    # A reply that is merely empty is asked for again.
    asked = 2 if name == "nothing" else 1
    faults = [FAULTS[name]] * asked
    llm = replying(*faults, stage="skeleton", direct=reply("I would rather not.", metadata={"stop_reason": "end"}))
    output = await way(skeleton_chain(llm=llm, backoff=0), "Why?")
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton"] * asked + ["direct"]
    assert (output["route"], output["answer"]) == ("direct", "I would rather not.")
    assert (output["finish_reason"], output["finish_reasons"], output["usage_by_point"]) == ("end", {}, {})
    assert output["reason"] == f"there is no skeleton: {words}"
    assert output["usage"] == times(COUNTED, asked + 1)
    assert output["usage_by_stage"] == {"skeleton": times(COUNTED, asked), "direct": COUNTED}


@pytest.mark.parametrize(
    "metadata", [{"finish_reason": "SAFETY"}, {"stop_reason": "end_turn"}, {"finish_reason": "content_filter"}, {}]
)
async def test_a_direct_answer_keeps_the_end_that_its_model_gave(replying, way, metadata):
    llm = replying(direct=reply("Half", metadata=metadata))
    output = await way(skeleton_chain(llm=llm, router=lambda question: False), "Why?")
    assert (output["answer"], output["finish_reason"]) == ("Half", next(iter(metadata.values()), None))
    assert (output["errors"], len(llm.watch.seen)) == ({}, 1)


MEDIA = {
    "an image": reply([{"type": "image", "base64": "AA=="}]),
    "speech": reply(additional_kwargs={"audio": {"id": "a", "transcript": "Because."}}),
}


@pytest.mark.parametrize(
    "message",
    [
        FAULTS["a refusal of OpenAI"],
        FAULTS["a refusal of the Responses API"],
        FAULTS["a tool call"],
        FAULTS["a filter of Google"],
        reply([{"type": "thinking", "thinking": "Hm"}], metadata={"stop_reason": "max_tokens"}),
        *MEDIA.values(),
    ],
)
async def test_a_direct_answer_may_be_something_else_than_text(replying, way, message):
    llm = replying(direct=message)
    output = await way(skeleton_chain(llm=llm, router=lambda question: False), "Why?")
    assert (output["answer"], len(llm.watch.seen)) == ("", 1)
    assert output["finish_reason"] is not None


EMPTY = ("nothing", "nothing, and no end", "white space", "reasoning in a block", "reasoning beside the text")


@pytest.mark.parametrize("name", EMPTY)
async def test_an_empty_direct_answer_is_asked_for_again(replying, way, name):
    llm = replying(FAULTS[name], stage="direct", direct=reply("Because."))
    output = await way(skeleton_chain(llm=llm, router=lambda question: False, backoff=0), "Why?")
    assert (output["answer"].strip(), output["finish_reason"]) == ("Because.", "stop")
    assert output["usage_by_stage"] == {"direct": times(COUNTED, 2)}
    assert len(llm.watch.seen) == 2


@pytest.mark.parametrize("name", EMPTY)
async def test_a_direct_answer_that_stays_empty_is_an_error(replying, way, name):
    llm = replying(direct=FAULTS[name])
    with pytest.raises(ReplyError):
        await way(skeleton_chain(llm=llm, router=lambda question: False, max_retries=2, backoff=0), "Why?")
    assert len(llm.watch.seen) == 3


@pytest.mark.parametrize("stage", ["skeleton", "merge"])
@pytest.mark.parametrize("name", EMPTY)
async def test_an_empty_skeleton_or_merge_is_asked_for_again(replying, way, name, stage):
    llm = replying(FAULTS[name], stage=stage)
    output = await way(skeleton_chain(llm=llm, backoff=0, merge=True), "Why?")
    assert (output["answer"], output["errors"], output["route"]) == ("It helps.", {}, "skeleton")
    assert len(llm.watch.of(stage)) == 2


async def test_a_blocked_merge_leaves_the_points(replying, way):
    llm = replying(merge=FAULTS["a filter of OpenAI"])
    output = await way(skeleton_chain(llm=llm, merge=True), "Why?")
    assert (output["answer"], output["finish_reason"]) == (ANSWER, "stop")
    assert "content filter" in output["errors"]["merge"]


# --- the keys of the output ---


async def test_the_tokens_of_the_whole_are_those_of_the_stages(replying, way):
    output = await way(skeleton_chain(llm=replying(FAULTS["nothing"]), backoff=0), "Why?")
    stages = output["usage_by_stage"]
    assert stages == {"skeleton": COUNTED, "point": times(COUNTED, 3)}
    assert output["usage"] == {name: sum(usage[name] for usage in stages.values()) for name in COUNTED}
    assert json.loads(json.dumps(output)) == output


async def test_cached_tokens_are_part_of_the_usage(replying, way):
    cached = reply("1. Move")
    cached.usage_metadata = {**TOKENS, "input_token_details": {"cache_read": 4}}
    output = await way(skeleton_chain(llm=replying(skeleton=cached)), "Why?")
    assert output["usage_by_stage"]["skeleton"] == {**COUNTED, "cached_tokens": 4}
    assert output["usage"]["cached_tokens"] == 4


async def test_a_model_that_says_nothing_leaves_zeros(replying, way):
    script = {
        "skeleton": AIMessage("1. Move\n2. Rest"),
        "point": AIMessage("It helps."),
    }
    output = await way(skeleton_chain(llm=replying(**script)), "Why?")
    zeros = times(COUNTED, 0)
    assert (output["usage"], output["usage_by_stage"]) == (zeros, {})
    assert output["usage_by_point"] == {"1": zeros, "2": zeros}
    assert (output["finish_reason"], output["finish_reasons"]) == ("stop", {"1": None, "2": None})


@pytest.mark.parametrize("router", [None, lambda question: False])
async def test_chunks_add_up_to_the_whole_in_any_chain(replying, kit, router):
    whole = skeleton_chain(llm=replying(FAULTS["nothing"]), backoff=0, router=router).invoke("Why?")
    chain = skeleton_chain(llm=replying(FAULTS["nothing"]), backoff=0, router=router)
    chunks = list(chain.stream("Why?"))
    assert kit.untimed(kit.total(chunks)) == kit.untimed(whole)
    assert list(kit.total(chunks)) == list(whole)
    # Added twice, numbers would be wrong.
    assert sum("input_tokens" in chunk.get("usage", {}) for chunk in chunks) == 1
    for add in (added, aadded):
        parts = {name: chain.model_copy(update={"llm": replying(FAULTS["nothing"])}) for name in "ab"}
        total = await add(kit, RunnableParallel(parts))
        assert kit.untimed(total["a"]) == kit.untimed(total["b"]) == kit.untimed(whole)


async def added(kit: Any, runnable: Any) -> Any:
    return await asyncio.to_thread(lambda: kit.total(runnable.stream("Why?")))


async def aadded(kit: Any, runnable: Any) -> Any:
    return kit.total([part async for part in runnable.astream("Why?")])


async def test_the_new_keys_can_be_picked(replying, way):
    # A stream of picked keys is what the stream of the chain has under them, added up.
    chain = skeleton_chain(llm=replying())
    assert await way(chain.pick("finish_reason"), "Why?") == "stop"
    assert await way(chain.pick("finish_reasons"), "Why?") == {"1": "stop", "2": "stop"}
    assert await way(chain.pick(["usage", "usage_by_point"]), "Why?") == {
        "usage": times(COUNTED, 3),
        "usage_by_point": {"1": COUNTED, "2": COUNTED},
    }


def test_the_output_schema_has_the_new_keys(replying, kit):
    properties = skeleton_chain(llm=replying()).get_output_jsonschema()["properties"]
    assert set(kit.END) <= set(properties)
    assert properties["usage"]["additionalProperties"] == {"type": "integer"}


# --- the chat model ---


async def test_the_message_says_how_each_point_ended_and_what_it_used(replying, way):
    llm = replying(reply("It hel", metadata={"finish_reason": "length"}))
    message = await way(skeleton_chain(llm=llm).as_chat_model(), "Why?")
    metadata = message.response_metadata
    assert (metadata["finish_reason"], metadata["finish_reasons"]) == ("length", {"1": "stop", "2": "length"})
    assert {number: usage["total_tokens"] for number, usage in metadata["usage_by_point"].items()} == {"1": 12, "2": 12}
    assert message.usage_metadata["total_tokens"] == 36


async def test_the_message_tells_of_failed_points(replying, way):
    llm = replying(*[FAULTS["a filter of Google"]] * 2)
    chain = skeleton_chain(llm=llm, backoff=0, on_point_error="placeholder")
    metadata = (await way(chain.as_chat_model(), "Why?")).response_metadata
    assert (metadata["finish_reason"], metadata["finish_reasons"]["2"]) == ("content_filter", "content_filter")
    assert metadata["errors"]["2"].startswith("ReplyError: ")


async def test_a_direct_message_keeps_its_own_end(replying, way):
    llm = replying(direct=reply("Half", metadata={"finish_reason": "SAFETY"}))
    model = skeleton_chain(llm=llm, router=lambda question: False).as_chat_model()
    message = await way(model, "Why?")
    assert (message.text, message.response_metadata["finish_reason"]) == ("Half", "SAFETY")


class WithoutStream(Replying):
    """The same model without streams."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        raise NotImplementedError

    def _astream(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _should_stream(self, **kwargs: Any) -> bool:
        return False


@pytest.mark.parametrize("kind", [Replying, WithoutStream])
async def test_a_direct_message_keeps_all_that_its_model_says(replying, way, kind):
    # A function as the router decides within the answer.
    metadata = {"stop_reason": "refusal", "safety": ["high"]}
    llm = kind(**vars(replying(direct=reply(additional_kwargs={"refusal": "No."}, metadata=metadata))))
    message = await way(skeleton_chain(llm=llm, router=lambda question: False).as_chat_model(), "Why?")
    assert message.additional_kwargs == {"refusal": "No."}
    assert {name: message.response_metadata[name] for name in metadata} == metadata
    assert message.response_metadata["route"] == "direct"
    assert message.usage_metadata["total_tokens"] == 12


async def test_a_direct_message_without_a_skeleton_keeps_it_too(replying, way):
    llm = replying(skeleton=reply("No list."), direct=reply("Just so.", metadata={"stop_reason": "end_turn"}))
    message = await way(skeleton_chain(llm=llm).as_chat_model(), "Why?")
    assert (message.text, message.response_metadata["stop_reason"]) == ("Just so.", "end_turn")


# --- string LLMs ---


class Completing(BaseLLM):
    """A string LLM that takes several prompts at once; its script gives texts with finish reasons."""

    script: Any
    groups: list[int] = []  # noqa: RUF012 - pydantic copies defaults

    @property
    def _llm_type(self) -> str:
        return "completing"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        self.groups.append(len(prompts))
        pairs = [self.script(prompt) for prompt in prompts]
        return LLMResult(
            generations=[[Generation(text=text, generation_info={"finish_reason": end})] for text, end in pairs]
        )

    async def _agenerate(self, prompts: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        return self._generate(prompts, stop, run_manager, **kwargs)


@pytest.mark.parametrize("fault", [("Half", "SAFETY"), ("", "stop"), ("<think>Hm.</think>", "eos_token")])
async def test_a_failed_point_of_a_group_is_written_again(ways, fault):
    left = [fault]

    def script(prompt: str) -> tuple[str, str]:
        if "under the heading" not in prompt:
            return "1. Take breaks\n2. Drink water", "stop"
        return left.pop() if left and 'heading "Drink water"' in prompt else ("It helps.", "stop")

    for way in (ways["invoke"], ways["ainvoke"]):
        left[:] = [fault]
        llm = Completing(script=script)
        output = await way(skeleton_chain(llm=llm, backoff=0), "Why?")
        assert (output["answer"], output["errors"]) == (ANSWER, {})
        assert (llm.groups, left) == ([1, 2, 1], [])
        assert output["finish_reasons"] == {"1": "stop", "2": "stop"}
