"""`TransformersLLM`: prompts, settings, methods, events, and pickles."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import BasePydanticProgram
from pydantic import BaseModel, Field, ValidationError

from llama_index_sot.local.transformers_llm import TransformersLLM
from skeleton_of_thought.errors import InvalidInput, ModelLoadError, PromptTooLong

pytest.importorskip("transformers", reason="the local engine needs transformers")

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}" + (
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


# --- the eight methods ---


async def _astream(gen: Any) -> list[Any]:
    return [response async for response in gen]


def text_of(response: Any) -> str:
    return response.message.content if hasattr(response, "message") else response.text


METHODS: dict[str, Callable[..., Any]] = {}


def call_of(name: str) -> Callable[..., Any]:
    """A function that asks a question by one of the eight methods and returns all responses."""

    async def ask(llm: TransformersLLM, question: str, **kwargs: Any) -> list[Any]:
        argument: Any = [user(question)] if "chat" in name else question
        result = getattr(llm, name)(argument, **kwargs)
        if name.startswith("a"):
            result = await result
            return await _astream(result) if "stream" in name else [result]
        return list(result) if "stream" in name else [result]

    return ask


NAMES = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
)


@pytest.fixture(params=NAMES)
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return call_of(request.param)


@pytest.fixture(scope="module")
def loaded(local_models: Any) -> Any:
    """A random model, whose greedy text never ends by itself."""
    return local_models.make_llama(initializer_range=0.4), local_models.make_tokenizer(PLAIN)


@pytest.fixture
def llm(loaded: Any) -> Any:
    llm = TransformersLLM.from_model(*loaded, max_tokens=12, min_new_tokens=12)
    yield llm
    llm.engine.close()


@pytest.fixture
def scripted(local_models: Any) -> Any:
    """`scripted(text, **settings)`: an LLM that writes this text; `.prompts` has the prompts that its model read."""
    engines = []

    def make(script: Any, template: str = PLAIN, **settings: Any) -> Any:
        engine = local_models.scripted_engine(script, template)
        engines.append(engine)
        return SimpleNamespace(llm=TransformersLLM(engine=engine, **settings), prompts=engine.model.prompts)

    yield make
    for engine in engines:
        engine.close()


async def test_all_eight_methods_write_the_same(llm, ask):
    [expected] = llm.engine.generate([[{"role": "user", "content": "Why?"}]], max_new_tokens=12, min_new_tokens=12)
    responses = await ask(llm, "Why?")
    last = responses[-1]
    assert text_of(last) == expected.text
    assert last.raw["finish_reason"] == "length"
    assert last.raw["usage"]["prompt_tokens"] == expected.usage.input_tokens
    assert last.raw["usage"]["completion_tokens"] == 12
    assert last.raw["usage"]["total_tokens"] == expected.usage.input_tokens + 12
    assert last.raw["decoding"]["output_tokens"] == 12


@pytest.mark.parametrize("name", [name for name in NAMES if "stream" in name])
async def test_a_stream_gives_the_new_text_and_all_text_so_far(scripted, name):
    setup = scripted("Grüße, 世界! Three words more.")
    responses = await call_of(name)(setup.llm, "Why?")
    assert "".join(response.delta for response in responses) == "Grüße, 世界! Three words more."
    so_far = ""
    for response in responses:
        so_far += response.delta
        assert text_of(response) == so_far
    assert "\ufffd" not in so_far
    assert [response.raw is None for response in responses] == [True] * (len(responses) - 1) + [False]


async def test_the_model_ends_its_own_text(scripted, ask):
    setup = scripted("Because.")
    last = (await ask(setup.llm, "Why?"))[-1]
    assert text_of(last) == "Because."
    assert last.raw["finish_reason"] == "stop"


# --- prompts ---


async def test_questions_go_through_the_chat_template(scripted, ask):
    setup = scripted("Because.")
    await ask(setup.llm, "Why?")
    assert setup.prompts == ["<user>Why?</s>"]


def test_a_formatted_prompt_is_the_very_text(scripted):
    setup = scripted("Because.")
    assert setup.llm.complete("Say:<assistant>", formatted=True).text == "Because."
    assert setup.prompts == ["Say:"]


async def test_the_system_prompt_comes_first_and_once(scripted, ask):
    setup = scripted("Because.", system_prompt="Be brief.")
    await ask(setup.llm, "Why?")
    assert setup.prompts == ["<system>Be brief.</s><user>Why?</s>"]


async def test_the_system_prompt_is_not_added_to_a_chat_that_has_one(scripted):
    setup = scripted("Because.", system_prompt="Be brief.")
    setup.llm.chat([ChatMessage(role=MessageRole.SYSTEM, content="Be long."), user("Why?")])
    setup.llm.predict(PromptTemplate("{question}"), question="Why?")
    await setup.llm.apredict(PromptTemplate("{question}"), question="How?")
    assert setup.prompts == [
        "<system>Be long.</s><user>Why?</s>",
        "<system>Be brief.</s><user>Why?</s>",
        "<system>Be brief.</s><user>How?</s>",
    ]


@pytest.mark.parametrize("name", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_a_last_message_of_the_assistant_is_continued(scripted, name):
    setup = scripted("Because it is so.")
    result = getattr(setup.llm, name)([user("Why?"), assistant("Because")], prefill=" it")
    result = await result if name.startswith("a") else result
    last = list(result)[-1] if name == "stream_chat" else result
    last = (await _astream(result))[-1] if name == "astream_chat" else last
    assert text_of(last) == " is so."
    # The template adds no new turn: the model's first step is inside the given one.
    assert setup.prompts == []


async def test_a_prefill_is_continued_and_no_part_of_the_text(scripted, ask):
    setup = scripted("Because it is so.")
    assert text_of((await ask(setup.llm, "Why?", prefill="Because"))[-1]) == " it is so."


def test_roles_get_the_names_that_templates_know(scripted):
    setup = scripted("Because.")
    roles = ["developer", "user", "chatbot", "user", "model", "user"]
    setup.llm.chat([ChatMessage(role=MessageRole(role), content=str(i)) for i, role in enumerate(roles)])
    assert setup.prompts == ["<system>0</s><user>1</s><assistant>2</s><user>3</s><assistant>4</s><user>5</s>"]


def test_messages_to_prompt_is_used_where_it_is_given(scripted):
    setup = scripted(
        "Because.", messages_to_prompt=lambda messages: f"{len(messages)}: {messages[-1].content}<assistant>"
    )
    assert setup.llm.metadata.is_chat_model
    setup.llm.chat([user("Why?")])
    setup.llm.complete("How?")
    assert setup.llm.chat([user("Why?"), assistant("Bec")]).message.content == "ause."
    assert setup.prompts == ["1: Why?", "1: How?"]


@pytest.mark.parametrize(
    "format_",
    [
        {"completion_to_prompt": lambda prompt: f"[{prompt}]<assistant>"},
        {"query_wrapper_prompt": PromptTemplate("[{query_str}]<assistant>")},
    ],
    ids=["completion_to_prompt", "query_wrapper_prompt"],
)
async def test_a_wrapped_completion_is_text(scripted, format_):
    setup = scripted("Because.", **format_)
    assert not setup.llm.metadata.is_chat_model
    setup.llm.complete("Why?")
    _ = [r async for r in await setup.llm.astream_complete("How?")]
    setup.llm.chat([user("When?")])
    setup.llm.predict(PromptTemplate("{question}"), question="Who?")
    assert setup.prompts == ["[Why?]", "[How?]", "<user>When?</s>", "[Who?]"]


def test_a_system_prompt_stands_before_a_wrapped_completion(scripted):
    wrapper = PromptTemplate("<user>{query_str}<assistant>")
    setup = scripted("Because.", system_prompt="Be brief.", query_wrapper_prompt=wrapper)
    setup.llm.complete("Why?")
    assert setup.prompts == ["Be brief. <user>Why?"]


def test_without_a_template_messages_are_text(loaded, local_models):
    tokenizer = local_models.make_tokenizer(None)
    plain = TransformersLLM.from_model(loaded[0], tokenizer, max_tokens=3)
    assert not plain.metadata.is_chat_model
    [by_hand] = plain.engine.generate(["user: Why?\nassistant: "], max_new_tokens=3)
    assert plain.chat([user("Why?")]).message.content == by_hand.text
    [by_hand] = plain.engine.generate(["Why?"], max_new_tokens=3)
    assert plain.complete("Why?").text == by_hand.text
    plain.engine.close()


def test_is_chat_model_can_be_set(scripted):
    setup = scripted("Because.", is_chat_model=False)
    assert not setup.llm.metadata.is_chat_model
    setup.llm.complete("Why?<assistant>")
    assert setup.prompts == ["Why?"]


async def test_there_is_one_bos(local_models, ask):
    template = "<s>" + PLAIN
    model = local_models.make_llama(vocab_size=258)
    llm = TransformersLLM.from_model(model, local_models.make_tokenizer(template, adds_bos=True), max_tokens=2)
    last = (await ask(llm, "Why?"))[-1]
    # <s>, "<user>Why?", </s>, "<assistant>": bytes but for the special tokens
    assert last.raw["usage"]["prompt_tokens"] == 1 + len("<user>Why?") + 1 + len("<assistant>")
    llm.engine.close()


def test_text_alone_is_read(scripted):
    setup = scripted("Because.")
    picture = ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), ImageBlock(url="http://x/y.png")])
    with pytest.raises(InvalidInput, match=r"text only.*role user.*image"):
        setup.llm.chat([picture])
    with pytest.raises(InvalidInput, match="no messages"):
        setup.llm.chat([])
    with pytest.raises(InvalidInput, match="no messages"):
        setup.llm.chat([assistant("I")])
    setup.llm.chat([ChatMessage(role="user", blocks=[TextBlock(text="One"), TextBlock(text=", two")])])
    assert setup.prompts == ["<user>One, two</s>"]


def test_thoughts_are_not_shown_again(scripted):
    types = pytest.importorskip("llama_index.core.base.llms.types")
    if not hasattr(types, "ThinkingBlock"):
        pytest.skip("this version of llama-index-core has no thoughts in messages")
    setup = scripted("Because.")
    thought = ChatMessage(role="assistant", blocks=[types.ThinkingBlock(content="Hm"), TextBlock(text="Yes.")])
    setup.llm.chat([user("So?"), thought, user("Why?")])
    assert setup.prompts == ["<user>So?</s><assistant>Yes.</s><user>Why?</s>"]


# --- settings ---


async def test_an_unknown_keyword_is_an_error_before_any_call(llm, ask):
    with pytest.raises(InvalidInput, match=r"does not know max_token\..*max_tokens"):
        await ask(llm, "Why?", max_token=5)
    assert llm.engine.stats().rows == llm.engine.stats().completed == llm.engine.stats().forwards == 0


@pytest.mark.parametrize("name", ["max_tokens", "max_new_tokens"])
async def test_a_call_may_limit_its_length(llm, ask, name):
    last = (await ask(llm, "Why?", **{name: 5, "min_new_tokens": 0}))[-1]
    assert last.raw["usage"]["completion_tokens"] == 5
    assert (await ask(llm, "Why?", max_tokens=None))[-1].raw["usage"]["completion_tokens"] == 12


async def test_a_length_is_given_once(llm, ask):
    with pytest.raises(InvalidInput, match="mean the same"):
        await ask(llm, "Why?", max_tokens=5, max_new_tokens=5)
    with pytest.raises(ValidationError, match="mean the same"):
        TransformersLLM(engine=llm.engine, max_tokens=5, max_new_tokens=5)
    assert TransformersLLM(engine=llm.engine, max_new_tokens=5).max_tokens == 5


async def test_stop_strings_end_the_text(scripted, ask):
    setup = scripted("\nOne\nTwo", stop=["Two"])
    assert text_of((await ask(setup.llm, "Why?"))[-1]) == "\nOne\n"
    assert text_of((await ask(setup.llm, "Why?", stop="n"))[-1]) == "\nO"
    assert text_of((await ask(setup.llm, "Why?", stop=[], stop_after_text=("\n",)))[-1]) == "\nOne"


async def test_stopping_tokens_end_the_text_and_belong_to_it(scripted, local_models, ask):
    setup = scripted("One. Two.")
    [dot] = local_models.make_tokenizer(PLAIN)(".")["input_ids"]
    last = (await ask(setup.llm, "Why?", stop_token_ids=[dot]))[-1]
    assert text_of(last) == "One."
    assert last.raw["finish_reason"] == "stop"


def test_sampling_is_repeatable_by_its_seed(llm):
    texts = [llm.complete("Why?", temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert llm.complete("Why?", temperature=1.0, top_k=1, seed=3).text == llm.complete("Why?").text


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
def test_penalties_reach_the_engine(llm, name):
    [expected] = llm.engine.generate(
        [[{"role": "user", "content": "Why?"}]], max_new_tokens=40, min_new_tokens=12, **{name: 1.9}
    )
    assert llm.complete("Why?", max_tokens=40, **{name: 1.9}).text == expected.text
    assert expected.text != llm.complete("Why?", max_tokens=40).text


async def test_settings_of_the_engine_reach_it_by_field_and_by_call(llm, ask):
    import torch

    def tempting(ids: Any, scores: Any) -> Any:
        return scores + 9.0 * (torch.arange(scores.shape[-1]) % 3 == 0)

    cases: list[dict[str, Any]] = [
        {"no_repeat_ngram_size": 1, "repetition_penalty": 0.1},
        {"suppress_tokens": list(range(0, 257, 2)), "bad_words_ids": [[3], [5, 7]]},
        {"sequence_bias": [[[65], 90.0]]},
        {"generation_config": {"forced_eos_token_id": 65}},
        {"logits_processor": [tempting]},
    ]
    plain = text_of((await ask(llm, "Why?"))[-1])
    for settings in cases:
        by_field = TransformersLLM(engine=llm.engine, max_tokens=12, min_new_tokens=12, **settings)
        by_call = text_of((await ask(llm, "Why?", **settings))[-1])
        assert text_of((await ask(by_field, "Why?"))[-1]) == by_call != plain


def test_the_models_generation_config_holds_where_nothing_else_is_said(llm, loaded, monkeypatch):
    config, plain = loaded[0].generation_config, llm.complete("Why?").text
    monkeypatch.setattr(config, "suppress_tokens", list(range(0, 257, 2)))
    own = llm.complete("Why?").text
    assert own != plain
    assert llm.complete("Why?", suppress_tokens=[]).text == plain
    dumped = {name: value for name, value in llm.to_dict().items() if name in TransformersLLM.model_fields}
    again = TransformersLLM(**{**dumped, "engine": llm.engine, "callback_manager": llm.callback_manager})
    assert again.complete("Why?").text == own
    monkeypatch.setattr(config, "guidance_scale", 2.0)
    with pytest.raises(InvalidInput, match=r"guidance_scale=2\.0"):
        llm.complete("Why?")
    assert llm.complete("Why?", generation_config={"guidance_scale": None}).text == own


def test_numbers_of_numpy_are_settings(llm):
    import numpy

    plain = {"temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.25, "seed": 4, "max_tokens": 5}
    plain |= {"min_new_tokens": 2, "repetition_penalty": 1.5}
    kinds = {float: numpy.float32, int: numpy.int64}
    given: dict[str, Any] = {name: kinds[type(value)](value) for name, value in plain.items()}
    assert TransformersLLM(engine=llm.engine, **given).complete("Why?").text == llm.complete("Why?", **plain).text
    assert llm.complete("Why?", **given).text == llm.complete("Why?", **plain).text


def test_a_setting_out_of_range_is_refused(llm):
    with pytest.raises(InvalidInput, match="temperature"):
        llm.complete("Why?", temperature=-1.0)
    with pytest.raises(InvalidInput, match="stop_token_ids"):
        llm.complete("Why?", stop_token_ids=[-1])
    with pytest.raises(ValidationError, match="temperature"):
        TransformersLLM(engine=llm.engine, temperature=-1.0)
    with pytest.raises(ValidationError, match="typo"):
        TransformersLLM(engine=llm.engine, typo=1)
    with pytest.raises(ValidationError, match="leave out either"):
        TransformersLLM(engine=llm.engine, model_kwargs={"device": "cpu"})


def test_a_completion_is_as_long_as_the_window_allows(local_models):
    model = local_models.make_llama(initializer_range=0.4, max_position_embeddings=64)
    llm = TransformersLLM.from_model(model, local_models.make_tokenizer(PLAIN), min_new_tokens=500)
    assert llm.metadata.context_window == 64
    raw = llm.complete("Why?").raw
    assert raw["usage"]["total_tokens"] == 64
    assert raw["finish_reason"] == "length"
    with pytest.raises(PromptTooLong, match="window is 64"):
        llm.complete("Why? " * 20)
    llm.engine.close()


def test_the_metadata_that_llama_index_plans_with(llm):
    assert llm.metadata.num_output == 12
    assert llm.metadata.is_chat_model
    assert llm.metadata.context_window == 4096
    assert llm.metadata.model_name == "LlamaForCausalLM"
    assert TransformersLLM(engine=llm.engine, context_window=1000).metadata.context_window == 1000
    assert TransformersLLM(engine=llm.engine, context_window=10_000).metadata.context_window == 4096
    assert TransformersLLM(engine=llm.engine).metadata.model_name == "demo"


# --- one batch ---

LONG = {"max_tokens": 60, "min_new_tokens": 60}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("a")])
async def test_tasks_are_one_batch_and_the_loop_goes_on(llm, name, local_models):
    questions = ["Why?" * (1 + i) for i in range(8)]
    ticks = 0
    over = False

    async def tick() -> None:
        nonlocal ticks
        while not over:
            await asyncio.sleep(0)
            ticks += 1

    ticker = asyncio.create_task(tick())
    ask = call_of(name)
    with local_models.gathered(8):
        answers = await asyncio.gather(*(ask(llm, question, **LONG) for question in questions))
    over = True
    await ticker
    assert llm.engine.stats().peak_batch_size == 8
    assert llm.engine.stats().steps < 2 * 60
    assert ticks > 10
    alone = [
        llm.engine.generate([[{"role": "user", "content": q}]], max_new_tokens=60, min_new_tokens=60) for q in questions
    ]
    assert [text_of(answer[-1]) for answer in answers] == [only.text for [only] in alone]


def test_threads_are_one_batch(llm, local_models):
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        texts[i] = llm.complete("Why?" * (1 + i), **LONG).text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    with local_models.gathered(4):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert llm.engine.stats().peak_batch_size == 4
    assert len(texts) == 4


# --- calls that end early ---

ENDLESS = {"max_tokens": 4000, "min_new_tokens": 4000}


@pytest.mark.parametrize("name", [name for name in NAMES if "stream" in name])
@pytest.mark.parametrize("how", ["closed", "dropped", "never read"])
async def test_a_stream_that_nobody_reads_on_frees_its_row(llm, eventually, name, how):
    stream = getattr(llm, name)([user("Why?")] if "chat" in name else "Why?", **ENDLESS)
    if name.startswith("a"):
        stream = await stream
        if how != "never read":
            await anext(stream)
            await anext(stream)
        if how == "closed":
            await stream.aclose()
    else:
        if how != "never read":
            next(stream)
            next(stream)
        if how == "closed":
            stream.close()
    del stream
    await eventually(lambda: llm.engine.stats().rows == 0, "the row is free")
    await eventually(lambda: llm.engine.stats().cancelled == 1, "it counts as cancelled")
    assert llm.engine.stats().completed == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("a")])
async def test_a_cancelled_task_frees_its_row(llm, eventually, name):
    task = asyncio.create_task(call_of(name)(llm, "Why?", **ENDLESS))
    await eventually(lambda: llm.engine.stats().rows == 1, "it decodes")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: llm.engine.stats().rows == 0, "the row is free")
    assert llm.engine.stats().cancelled == 1


class OutOfMemory(Exception):
    pass


async def test_the_models_own_error_reaches_the_caller(scripted, ask):
    def fail(prompt: str) -> str:
        raise OutOfMemory("no more")

    setup = scripted(fail)
    with pytest.raises(OutOfMemory, match="no more"):
        await ask(setup.llm, "Why?")
    assert setup.llm.engine.stats().rows == 0


# --- tokens and events ---


async def test_tokens_are_counted_alike_by_all_methods(llm):
    counts = []
    for name in NAMES:
        # This tokenizer counts nothing: the model's own counts are used.
        counter = TokenCountingHandler(tokenizer=lambda text: [])
        llm.callback_manager = CallbackManager([counter])
        await call_of(name)(llm, "Why?")
        counts.append((counter.prompt_llm_token_count, counter.completion_llm_token_count))
    assert counts == [(len("<user>Why?") + 1 + len("<assistant>"), 12)] * 8


async def test_tokens_are_counted_alike_in_a_batch_and_one_after_another(llm):
    questions = ["Why?", "How come?", "When was that?"]
    counts = []
    for together in (False, True):
        counter = TokenCountingHandler(tokenizer=lambda text: [])
        llm.callback_manager = CallbackManager([counter])
        if together:
            await asyncio.gather(*(llm.acomplete(question) for question in questions))
        else:
            for question in questions:
                llm.complete(question)
        counts.append((counter.prompt_llm_token_count, counter.completion_llm_token_count))
    assert counts[0] == counts[1]
    assert counts[0][1] == 36


async def test_each_call_is_one_llm_event(llm, ask):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm.callback_manager = CallbackManager([debug])
    await ask(llm, "Why?")
    [(_, end)] = debug.get_event_pairs(CBEventType.LLM)
    response = end.payload.get("response") or end.payload["completion"]
    assert response.raw["usage"]["completion_tokens"] == 12


class Seen(BaseEventHandler):
    events: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)


@pytest.fixture
def seen() -> Any:
    handler = Seen()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


async def test_instrumentation_sees_start_pieces_and_end(llm, seen):
    responses = await call_of("astream_chat")(llm, "Why?")
    types = [type(event) for event in seen.events]
    assert types.count(LLMChatStartEvent) == types.count(LLMChatEndEvent) == 1
    assert types.count(LLMChatInProgressEvent) == len(responses)
    assert seen.events[-1].response.raw["usage"]["completion_tokens"] == 12
    assert seen.events[0].model_dict["class_name"] == "TransformersLLM"
    seen.events.clear()
    llm.complete("Why?")
    assert [type(event) for event in seen.events] == [LLMCompletionStartEvent, LLMCompletionEndEvent]


async def test_the_rate_limiter_is_acquired_once_per_call(llm, ask):
    limits = pytest.importorskip(
        "llama_index.core.rate_limiter", reason="this version of llama-index-core has no rate limiters"
    )

    class Counting(limits.BaseRateLimiter):
        acquired: int = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.acquired += 1

        async def async_acquire(self, num_tokens: int = 0) -> None:
            self.acquired += 1

    llm.rate_limiter = Counting()
    await ask(llm, "Why?")
    assert llm.rate_limiter.acquired == 1


# --- structured output ---


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=99)


ASK = PromptTemplate("Who is {who}?")


@pytest.fixture
def held(llm: Any) -> Any:
    """A model that would never write JSON by itself."""
    pytest.importorskip("llguidance", reason="grammars need llguidance")
    return TransformersLLM(engine=llm.engine, max_tokens=200, min_new_tokens=12)


async def test_structured_output_is_held_to_its_schema(held):
    people = [
        held.structured_predict(Person, ASK, who="Ann"),
        await held.astructured_predict(Person, ASK, who="Ann"),
        held.as_structured_llm(Person).complete("Who is Ann?").raw,
        (await held.as_structured_llm(Person).achat([user("Who is Ann?")])).raw,
    ]
    assert all(isinstance(person, Person) for person in people)
    assert len({person.model_dump_json() for person in people}) == 1


async def test_structured_output_is_held_to_its_schema_in_streams(held):
    if LLMTextCompletionProgram.stream_call is BasePydanticProgram.stream_call:
        pytest.skip("this version of llama-index-core streams no structured output of models without function calls")
    person = held.structured_predict(Person, ASK, who="Ann")
    assert list(held.stream_structured_predict(Person, ASK, who="Ann"))[-1] == person
    assert [p async for p in await held.astream_structured_predict(Person, ASK, who="Ann")][-1] == person


def test_without_llguidance_the_model_is_asked(scripted, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    setup = scripted('{"name": "Ann", "age": 35}')
    assert setup.llm.structured_predict(Person, ASK, who="Ann") == Person(name="Ann", age=35)
    assert "Who is Ann?" in setup.prompts[0]
    assert '"age"' in setup.prompts[0]


def test_a_schema_that_no_grammar_can_follow_is_asked_for(scripted, caplog):
    pytest.importorskip("llguidance", reason="grammars need llguidance")

    class Odd(BaseModel):
        code: str = Field(json_schema_extra={"pattern": "(?<=a)b"})

    setup = scripted('{"code": "ab"}')
    assert setup.llm.structured_predict(Odd, ASK, who="it").code == "ab"
    assert "no grammar enforces it" in caplog.text


# --- pickles, copies, sharing ---


@pytest.fixture
def folder(local_models: Any, tmp_path: Any) -> str:
    local_models.make_llama().save_pretrained(tmp_path)
    local_models.make_tokenizer(PLAIN).save_pretrained(tmp_path)
    return str(tmp_path)


def test_the_same_model_is_loaded_once(folder):
    one, other = TransformersLLM(model=folder), TransformersLLM(model=folder, temperature=0.5)
    assert one.engine is other.engine
    apart = TransformersLLM(model=folder, model_kwargs={"optimize": "none"})
    assert apart.engine is not one.engine
    one.engine.close()
    apart.engine.close()


def test_llms_over_one_model_share_its_engine(loaded):
    one, other = TransformersLLM.from_model(*loaded), TransformersLLM.from_model(*loaded, max_tokens=5)
    assert one.engine is other.engine
    one.engine.close()


@pytest.mark.parametrize(
    "travel",
    [
        lambda llm: pickle.loads(pickle.dumps(llm)),
        lambda llm: TransformersLLM.from_dict(llm.to_dict()),
        lambda llm: TransformersLLM.from_json(llm.to_json()),
        copy.deepcopy,
    ],
    ids=["pickle", "dict", "json", "deepcopy"],
)
def test_a_pickle_or_copy_finds_its_model_again(folder, travel, caplog):
    llm = TransformersLLM(model=folder, max_tokens=7, temperature=0.5, seed=1, stop=["x"], system_prompt="Be brief.")
    arrived = travel(llm)
    assert arrived.engine is llm.engine
    assert arrived.to_dict() == llm.to_dict()
    assert "engine" not in llm.to_dict()
    assert llm.to_dict()["class_name"] == "TransformersLLM"
    assert arrived.complete("Why?").text == llm.complete("Why?").text
    assert caplog.text == ""
    llm.engine.close()


def test_a_pickle_whose_model_is_missing_names_it(folder, tmp_path):
    llm = TransformersLLM(model=folder)
    llm.model = str(tmp_path / "moved")
    with pytest.raises(ModelLoadError, match="moved"):
        pickle.loads(pickle.dumps(llm))
    llm.engine.close()


def test_an_import_loads_no_model_library():
    code = (
        "import sys, llama_index_sot.local.transformers_llm, llama_index_sot.local.adoption; "
        "print([m for m in ('torch', 'transformers', 'langchain_core', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
