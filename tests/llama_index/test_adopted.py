"""`HuggingFaceLLM` objects, whose models get an engine."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, LLMMetadata, MessageRole
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.prompts import PromptTemplate
from parameter_ids import stable_id

from llama_index_sot.local import adoption
from llama_index_sot.local.adoption import adopt_llm

huggingface = pytest.importorskip(
    "llama_index.llms.huggingface", reason="its class is not installed: pip install llama-index-llms-huggingface"
)

torch = pytest.importorskip("torch", reason="the local engine needs torch")

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}" + (
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
QUESTIONS = ["Why?", "How does a boat cross the river?", "1. Plan the day", "So, what do the leaves of a tree do?"]


@pytest.fixture(scope="module")
def loaded(local_models: Any) -> Any:
    """A random model that sometimes ends its text, and a tokenizer that has no template and adds a BOS."""
    model = local_models.make_llama(initializer_range=0.4, vocab_size=258, max_position_embeddings=512)
    return model, local_models.make_tokenizer(None, adds_bos=True)


@pytest.fixture
def chatty(loaded: Any, local_models: Any) -> Any:
    """The model of `loaded`, and its tokenizer with a chat template."""
    return loaded[0], local_models.make_tokenizer(TEMPLATE, adds_bos=True)


@pytest.fixture
def generated(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call of the model's own `generate`."""
    calls: list[Any] = []
    generate = type(loaded[0]).generate

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(type(loaded[0]), "generate", counted)
    return calls


@pytest.fixture
def hugging(loaded: Any) -> Iterator[Any]:
    """`hugging(**settings)`: a `HuggingFaceLLM`."""
    made: list[Any] = []

    def make(model: Any = loaded[0], tokenizer: Any = loaded[1], cls: Any = None, **settings: Any) -> Any:
        known = {"max_new_tokens": 24, "context_window": 512, "generate_kwargs": {"do_sample": False}}
        made.append((cls or huggingface.HuggingFaceLLM)(model=model, tokenizer=tokenizer, **{**known, **settings}))
        return made[-1]

    yield make
    for llm in made:
        if (record := adoption._adoptions._records.get(id(llm))) is not None:
            for engine in record.engines.values():
                engine.close()


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


# --- the same text, in one batch ---


async def test_points_of_unequal_lengths_are_one_batch_and_read_as_decoded_one_by_one(hugging, generated, local_models):
    llm = hugging()
    expected = [llm.complete(question).text for question in QUESTIONS]
    assert len(generated) == len(QUESTIONS)
    adopted = adopt_llm(llm)
    with local_models.gathered(len(QUESTIONS)):
        responses = await asyncio.gather(*(adopted.acomplete(question) for question in QUESTIONS))
    assert [response.text for response in responses] == expected
    assert len(generated) == len(QUESTIONS), "the model's own generate was not called again"
    stats = adopted.engine.stats()
    assert stats.peak_batch_size == len(QUESTIONS)
    assert stats.rows == 0


async def test_texts_end_at_different_steps_and_hold_no_special_tokens(hugging, loaded, generated):
    # Tokens that the texts have, at different places.
    model, tokenizer = loaded
    llm = hugging(max_new_tokens=40)
    texts = [
        model.generate(**tokenizer(q, return_tensors="pt"), max_new_tokens=40, do_sample=False)[0].tolist()
        for q in QUESTIONS
    ]
    ends = [
        ids[len(tokenizer(q)["input_ids"]) + 3 + 7 * i] for i, (q, ids) in enumerate(zip(QUESTIONS, texts, strict=True))
    ]
    llm = hugging(max_new_tokens=40, stopping_ids=ends)
    expected = [llm.complete(question).text for question in QUESTIONS]
    adopted = adopt_llm(llm)
    responses = await asyncio.gather(*(adopted.acomplete(question) for question in QUESTIONS))
    assert [response.text for response in responses] == expected
    lengths = [response.raw["usage"]["completion_tokens"] for response in responses]
    assert len(set(lengths)) > 1
    assert max(lengths) < 40
    assert {response.raw["finish_reason"] for response in responses} == {"stop"}
    assert not any(mark in text for text in expected for mark in ("</s>", "<s>"))


def test_a_system_prompt_that_the_template_refuses_comes_before_the_question(hugging, loaded):
    import copy

    tokenizer = copy.deepcopy(loaded[1])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"
    )
    llm = hugging(tokenizer=tokenizer, is_chat_model=True)
    asked = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), user(QUESTIONS[0])]
    with pytest.raises(Exception, match="no system"):
        llm.chat(asked)
    adopted = adopt_llm(llm)
    assert adopted.chat(asked).message.content == adopted.chat([user(f"Be brief.\n\n{QUESTIONS[0]}")]).message.content


async def test_streams_have_the_same_text(hugging):
    llm = hugging()
    adopted = adopt_llm(llm)
    for question in QUESTIONS:
        expected = llm.complete(question).text
        assert "".join(r.delta for r in adopted.stream_complete(question)) == expected
        assert "".join([r.delta async for r in await adopted.astream_complete(question)]) == expected


class Shout:
    """The caller's logits processor."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return scores + 5.0 * (torch.arange(scores.shape[-1]) % 3 == 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"generate_kwargs": {"repetition_penalty": 1.7}},
        {"generate_kwargs": {"min_new_tokens": 20}},
        {"generate_kwargs": {"no_repeat_ngram_size": 1, "encoder_repetition_penalty": 1.5}},
        {"generate_kwargs": {"suppress_tokens": list(range(0, 200, 2)), "bad_words_ids": [[1], [33, 35]]}},
        {"generate_kwargs": {"min_length": 9, "sequence_bias": [[[0], 50.0]], "forced_eos_token_id": 4}},
        {"generate_kwargs": {"logits_processor": [Shout()], "sequence_bias": [[[7], 4.0]]}},
        {"generate_kwargs": {"pad_token_id": 0, "use_cache": True}},
        # Without do_sample: transformers warns and decodes greedily.
        {"generate_kwargs": {"temperature": 0.3, "top_p": 0.5}},
        {"generate_kwargs": {}},
        {"max_new_tokens": 5},
        {"max_new_tokens": 5, "tokenizer_outputs_to_remove": ["token_type_ids"]},
        {"query_wrapper_prompt": PromptTemplate("<<{query_str}>>")},
        {"query_wrapper_prompt": "<<{query_str}>>"},
        {"completion_to_prompt": lambda prompt: f"[[{prompt}]]"},
        {"query_wrapper_prompt": "<<{query_str}>>", "completion_to_prompt": lambda prompt: f"[[{prompt}]]"},
    ],
    ids=stable_id,
)
@pytest.mark.filterwarnings("ignore:.*temperature.*:UserWarning", "ignore:.*top_p.*:UserWarning")
def test_settings_are_kept(hugging, settings):
    llm = hugging(**settings)
    adopted = adopt_llm(llm)
    for question in QUESTIONS:
        assert adopted.complete(question).text == llm.complete(question).text
    assert adopted.complete("[INST]Why?", formatted=True).text == llm.complete("[INST]Why?", formatted=True).text
    assert adopted.predict(PromptTemplate("{q}"), q="Why?") == llm.predict(PromptTemplate("{q}"), q="Why?")


def test_sampling_settings_are_kept(hugging):
    sampled = {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.9}
    adopted = adopt_llm(hugging(generate_kwargs=sampled))
    assert (adopted.temperature, adopted.top_k, adopted.top_p) == (0.7, 9, 0.9)
    assert (
        adopt_llm(hugging(generate_kwargs={"do_sample": True, "top_k": 1})).complete("Why?").text
        == adopt_llm(hugging()).complete("Why?").text
    )


def test_the_metadata_for_planning_is_kept(hugging):
    llm = hugging(context_window=300, max_new_tokens=7, callback_manager=CallbackManager([]))
    adopted = adopt_llm(llm)
    assert adopted.metadata.context_window == llm.metadata.context_window == 300
    assert adopted.metadata.num_output == llm.metadata.num_output == 7
    assert adopted.callback_manager is llm.callback_manager
    assert adopted.metadata.is_chat_model == llm.metadata.is_chat_model is False


def test_a_window_that_is_too_small_for_the_limit_ends_the_text(hugging):
    adopted = adopt_llm(hugging(max_new_tokens=4000))
    assert adopted.complete("Why?", min_new_tokens=4000).raw["usage"]["total_tokens"] == 512


# --- prompts ---


def replied_by_hand(llm: Any, text: str) -> str:
    """The model's reply to a text with exactly one BOS."""
    ids = llm._tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = llm._model.generate(**ids, max_new_tokens=llm.max_new_tokens, do_sample=False)
    return llm._tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("template", [TEMPLATE, "{{ bos_token }}" + TEMPLATE], ids=["without BOS", "with BOS"])
async def test_a_chat_template_is_used_and_there_is_one_bos(hugging, loaded, local_models, template):
    llm = hugging(tokenizer=local_models.make_tokenizer(template, adds_bos=True))
    adopted = adopt_llm(llm)
    assert adopted.metadata.is_chat_model
    expected = replied_by_hand(llm, "<s><user>Why?</s><assistant>")
    assert adopted.chat([user("Why?")]).message.content == expected
    assert adopted.complete("Why?").text == expected
    assert (await adopted.apredict(PromptTemplate("{q}"), q="Why?")) == expected
    tokens = adopted.complete("Why?").raw["usage"]["prompt_tokens"]
    assert tokens == 1 + len("<user>Why?") + 1 + len("<assistant>")


def test_a_prefill_reaches_the_model(hugging, chatty):
    llm = hugging(tokenizer=chatty[1], system_prompt="Be brief.")
    adopted = adopt_llm(llm)
    expected = replied_by_hand(llm, "<s><system>Be brief.</s><user>Why?</s><assistant>Because")
    assert adopted.chat([user("Why?"), ChatMessage(role="assistant", content="Because")]).message.content == expected
    assert adopted.complete("Why?", prefill="Because").text == expected


def test_the_users_messages_to_prompt_is_kept(hugging, chatty):
    llm = hugging(
        tokenizer=chatty[1], messages_to_prompt=lambda ms: "|".join(str(m.content) for m in ms), is_chat_model=True
    )
    adopted = adopt_llm(llm)
    messages = [ChatMessage(role="system", content="Be brief."), user("Why?")]
    assert adopted.chat(messages).message.content == llm.chat(messages).message.content
    assert adopted.predict(PromptTemplate("{q}"), q="Why?") == llm.predict(PromptTemplate("{q}"), q="Why?")


def test_the_users_completion_format_is_kept_with_a_template_too(hugging, chatty):
    llm = hugging(tokenizer=chatty[1], completion_to_prompt=lambda prompt: f"[[{prompt}]]")
    adopted = adopt_llm(llm)
    assert not adopted.metadata.is_chat_model
    assert adopted.complete("Why?").text == llm.complete("Why?").text
    assert adopted.predict(PromptTemplate("{q}"), q="Why?") == llm.predict(PromptTemplate("{q}"), q="Why?")


def test_a_system_prompt_stands_before_a_base_models_text(hugging):
    llm = hugging(system_prompt="Be brief.")
    adopted = adopt_llm(llm)
    expected = "".join(r.delta for r in llm.stream_complete("Why?"))
    assert adopted.complete("Why?").text == expected
    assert "".join(r.delta for r in adopted.stream_complete("Why?")) == expected
    assert adopted.predict(PromptTemplate("{q}"), q="Why?") == llm.predict(PromptTemplate("{q}"), q="Why?")


# --- one engine ---


def test_all_llms_adopted_from_one_object_share_one_engine(hugging, loaded):
    llm = hugging()
    one, two = adopt_llm(llm), adopt_llm(llm)
    other = adopt_llm(hugging(max_new_tokens=3))
    assert one.engine is two.engine is other.engine
    engine = one.engine
    del one, two, other
    gc.collect()
    assert adopt_llm(llm).engine is engine, "it is kept while the object lives"


def test_threads_that_adopt_at_once_share_one_engine(hugging):
    llm = hugging()
    together = threading.Barrier(4)
    found: list[Any] = []

    def ask() -> None:
        together.wait()
        found.append(adopt_llm(llm).engine)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in found}) == 1


def test_settings_are_read_when_it_is_adopted(hugging):
    llm = hugging()
    adopt_llm(llm)
    llm.max_new_tokens = 3
    assert adopt_llm(llm).complete("Why?").text == llm.complete("Why?").text


def test_an_engine_that_was_closed_is_made_anew(hugging):
    llm = hugging()
    adopt_llm(llm).engine.close()
    assert adopt_llm(llm).complete("Why?").text == llm.complete("Why?").text


def test_an_object_that_is_deleted_leaves_no_engine(loaded):
    llm = huggingface.HuggingFaceLLM(model=loaded[0], tokenizer=loaded[1], max_new_tokens=3, context_window=512)
    adopt_llm(llm).complete("Why?")
    key = id(llm)
    assert key in adoption._adoptions._records
    del llm
    gc.collect()
    assert key not in adoption._adoptions._records
    # Its worker thread ends with it.
    for thread in [t for t in threading.enumerate() if t.name.startswith("sot-engine")]:
        thread.join(timeout=20)
        assert not thread.is_alive()


async def test_closing_early_leaves_nothing_running(hugging, eventually):
    adopted = adopt_llm(hugging(max_new_tokens=400, generate_kwargs={"min_new_tokens": 400}))
    streams = [await adopted.astream_complete(question) for question in QUESTIONS]
    for stream in streams:
        await anext(stream)
        await stream.aclose()
    # On a busy machine the figures lag behind the text: they may not count the last row yet.
    await eventually(lambda: adopted.engine.stats().cancelled == len(QUESTIONS), "all rows are cancelled")
    assert adopted.engine.stats().rows == 0


async def test_tokens_are_counted_alike_in_a_batch_and_one_after_another(hugging):
    counts = []
    for together in (False, True):
        counter = TokenCountingHandler(tokenizer=lambda text: [])
        adopted = adopt_llm(hugging(callback_manager=CallbackManager([counter])))
        if together:
            await asyncio.gather(*(adopted.acomplete(question) for question in QUESTIONS))
        else:
            for question in QUESTIONS:
                adopted.complete(question)
        counts.append((counter.prompt_llm_token_count, counter.completion_llm_token_count))
    assert counts[0] == counts[1]
    assert counts[0][0] == sum(1 + len(question) for question in QUESTIONS)


# --- objects that are not adopted ---


@pytest.mark.parametrize(
    ("generate", "reason"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
        ({"eos_token_id": [0, 5]}, "[5]"),
        ({"prefix_allowed_tokens_fn": lambda row, ids: [3, 4, 5]}, "prefix_allowed_tokens_fn"),
    ],
    ids=stable_id,
)
def test_settings_that_no_engine_has_leave_the_object_as_it_is(hugging, generated, generate, reason, caplog):
    llm = hugging(generate_kwargs=generate)
    assert adopt_llm(llm) is None
    assert adopt_llm(llm) is None
    [record] = [r for r in caplog.records if "one prompt after another" in r.message]
    assert reason in record.message
    assert record.message.startswith("This HuggingFaceLLM is used as it is")
    llm.complete("Why?")
    assert len(generated) == 1


@pytest.mark.parametrize("generate", [{"max_new_tokens": 5}, {"stopping_criteria": []}], ids=stable_id)
def test_calls_that_fail_in_the_class_itself_still_fail(hugging, generate, caplog):
    llm = hugging(generate_kwargs=generate)
    assert adopt_llm(llm) is None
    assert next(iter(generate)) in caplog.text
    with pytest.raises(TypeError, match="multiple values"):
        llm.complete("Why?")


def test_a_class_with_its_own_generation_is_not_adopted(hugging, caplog):
    class Mine(huggingface.HuggingFaceLLM):
        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            return CompletionResponse(text="Mine.")

    llm = hugging(cls=Mine)
    assert adopt_llm(llm) is None
    assert "Mine has a complete of its own" in caplog.text
    assert llm.complete("Why?").text == "Mine."


def test_a_subclass_that_changes_nothing_is_adopted(hugging):
    class Mine(huggingface.HuggingFaceLLM):
        note: str = ""

    assert adopt_llm(hugging(cls=Mine)) is not None


class Other(CustomLLM):
    """An LLM of another library, with the same class name."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="Other.")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield CompletionResponse(text="Other.", delta="Other.")


Other.__name__ = "HuggingFaceLLM"


def test_other_classes_are_not_adopted(caplog):
    assert adopt_llm(Other()) is None
    assert caplog.text == ""


@pytest.mark.model
async def test_the_demo_model_writes_the_same_in_a_batch(caplog, local_models):
    from skeleton_of_thought.local.models import load_model

    model, tokenizer = load_model("demo", dtype="float32")
    llm = huggingface.HuggingFaceLLM(
        model=model, tokenizer=tokenizer, max_new_tokens=32, generate_kwargs={"do_sample": False}, device_map="cpu"
    )
    questions = ["What is the capital of France?", "Name three colours that go well together.", "Why is the sky blue?"]
    adopted = adopt_llm(llm)
    with local_models.gathered(len(questions)):
        responses = await asyncio.gather(*(adopted.achat([user(question)]) for question in questions))
    assert [r.message.content for r in responses] == [llm.chat([user(q)]).message.content for q in questions]
    assert adopted.engine.stats().peak_batch_size == 3
    assert "Paris" in responses[0].message.content
    adopted.engine.close()
