"""`SkeletonOfThoughtLLM` over local models: all points, and direct answers, are rows of the model's engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

from llama_index_sot import SkeletonOfThoughtLLM, TransformersLLM
from llama_index_sot.local import adoption
from skeleton_of_thought.errors import InvalidInput

huggingface = pytest.importorskip(
    "llama_index.llms.huggingface", reason="its class is not installed: pip install llama-index-llms-huggingface"
)

TITLES = ["Move", "Drink much cold water", "Sleep"]
ANSWER = "\n\n".join(f"{i}. {title}: All about {title.lower()}." for i, title in enumerate(TITLES, 1))
CHAT = [ChatMessage(role="system", content="Be kind."), ChatMessage(role="user", content="How?")]


@pytest.fixture
def native(local_models: Any) -> Iterator[TransformersLLM]:
    engine = local_models.scripted_engine(local_models.few_shot_script(TITLES), local_models.PLAIN)
    yield TransformersLLM(engine=engine)
    engine.close()


async def test_a_local_model_answers_in_one_batch(native):
    llm = SkeletonOfThoughtLLM(native, router=None)
    assert llm.metadata.is_chat_model
    assert llm.chat(CHAT).message.content == ANSWER
    response = await llm.achat(CHAT)
    assert response.message.content == ANSWER
    assert response.raw["usage"]["completion_tokens"] > 0
    assert response.raw["sot"]["concurrency"] == "batch"
    assert "".join([piece.delta async for piece in await llm.astream_complete("How?")]) == ANSWER
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults(llm=llm))
    assert "".join(engine.stream_chat("How?").response_gen) == ANSWER
    assert native.engine.stats().rows == 0


async def test_a_direct_answer_is_a_row_of_the_engine(native):
    llm = SkeletonOfThoughtLLM(native)
    for response in (llm.chat(CHAT), await llm.achat(CHAT)):
        assert response.message.content == "Just so."
        assert response.additional_kwargs["sot"]["route"] == "direct"
        assert response.raw["finish_reason"] == "stop"


@pytest.mark.parametrize("router", [None, lambda question: False], ids=["points", "direct"])
async def test_closing_a_stream_frees_the_rows(native, eventually, router):
    llm = SkeletonOfThoughtLLM(native, router=router)
    stream = await llm.astream_chat(CHAT)
    await anext(stream)
    await stream.aclose()
    await eventually(lambda: native.engine.stats().rows == 0, "no row is left")


def test_settings_that_the_model_does_not_know_are_its_own_error(native):
    llm = SkeletonOfThoughtLLM(native, router=None)
    assert llm.chat(CHAT, temperature=0.0, seed=3).message.content == ANSWER
    for kwargs in ({"service_tier": "flex"}, {"never_heard_of": 1}):
        with pytest.raises(InvalidInput, match=f"TransformersLLM does not know {next(iter(kwargs))}"):
            native.chat(CHAT, **kwargs)
        with pytest.raises(InvalidInput, match=f"TransformersLLM does not know {next(iter(kwargs))}"):
            llm.chat(CHAT, **kwargs)


# --- a stock `HuggingFaceLLM` ---


@pytest.fixture(scope="module")
def model(local_models: Any) -> Any:
    return local_models.make_llama(initializer_range=0.4)


@pytest.fixture
def hugging(model: Any, local_models: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An adopted `HuggingFaceLLM`, whose model's own `generate` is never called."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model's own generate was called")

    monkeypatch.setattr(type(model), "generate", refuse)
    llm = huggingface.HuggingFaceLLM(
        model=model,
        tokenizer=local_models.make_tokenizer(local_models.PLAIN),
        max_new_tokens=12,
        context_window=4096,
        generate_kwargs={"do_sample": False},
        system_prompt="Be kind.",
    )
    yield llm
    if (record := adoption._adoptions._records.get(id(llm))) is not None:
        for engine in record.engines.values():
            engine.close()


async def test_a_hugging_face_llm_writes_all_points_in_one_batch(kit, hugging, local_models):
    planner = kit.SyncLLM(script=kit.answering(TITLES))
    llm = SkeletonOfThoughtLLM(planner, point_llm=hugging, router=None)
    with local_models.gathered(len(TITLES)):
        response = await llm.acomplete("How?")
    assert [point["title"] for point in response.additional_kwargs["sot"]["points"]] == TITLES
    engine = next(iter(adoption._adoptions._records[id(hugging)].engines.values()))
    assert engine.stats().peak_batch_size == len(TITLES)
    assert engine.stats().rows == 0


async def test_direct_answers_of_a_hugging_face_llm_are_rows_of_its_engine(hugging):
    adopted = adoption.adopt_llm(hugging)
    llm = SkeletonOfThoughtLLM(hugging)
    assert not llm.metadata.is_chat_model
    expected = adopted.chat(CHAT).message.content
    assert llm.chat(CHAT).message.content == (await llm.achat(CHAT)).message.content == expected
    # `HuggingFaceLLM` ignores keyword arguments that it does not know.
    assert llm.chat(CHAT, service_tier="flex").message.content == expected
    # What `predict` writes reaches the model through its chat template, with one system prompt.
    assert llm.predict(PromptTemplate("{query_str}"), query_str="How?") == expected
    template = ChatPromptTemplate.from_messages([("system", "Be kind."), ("user", "{query_str}")])
    assert await llm.apredict(template, query_str="How?") == expected
    assert llm.complete("How?").text == expected
