"""`HuggingFacePipeline` and `ChatHuggingFace` objects, whose local models get an engine.

The library's own classes are tested where it is installed (by the Makefile without its dependencies, for it asks for an
older huggingface-hub than transformers 5 does), and always stand-ins that know what matters: their names, their fields,
and that they run a pipeline on one prompt after another.
"""

from __future__ import annotations

import gc
import importlib.util
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)
from langchain_core.runnables import ConfigurableField
from parameter_ids import stable_id

from langchain_sot.local import adoption
from langchain_sot.local.adoption import AdoptedModel, adopt_runnable
from langchain_sot.models.resolution import ChainModels
from skeleton_of_thought.errors import PromptTooLong

torch = pytest.importorskip("torch", reason="the local engine needs torch")
transformers = pytest.importorskip("transformers", reason="the local engine needs transformers")

# `ChatHuggingFace` looks for classes of langchain-community if it is installed, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:.langchain-community. is being sunset:DeprecationWarning")

TITLES = ["Take breaks", "Drink water", "Move", "Sleep"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


# --- stand-ins ---


class HuggingFacePipeline(BaseLLM):
    """Runs a pipeline of transformers on a string; `stop` is ignored, as the library's class ignores it."""

    pipeline: Any = None
    model_id: str | None = None
    pipeline_kwargs: dict[str, Any] | None = None
    batch_size: int = 4

    @property
    def _llm_type(self) -> str:
        return "huggingface_pipeline"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        texts = []
        for prompt in prompts:
            [answer] = self.pipeline([prompt], **kwargs.get("pipeline_kwargs", {}))
            text = answer[0]["generated_text"]
            texts.append(text[len(prompt) :] if kwargs.get("skip_prompt") else text)
        return LLMResult(generations=[[Generation(text=text)] for text in texts])

    def _stream(
        self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[GenerationChunk]:
        yield GenerationChunk(text=self._generate([prompt], skip_prompt=True).generations[0][0].text)


class HuggingFaceEndpoint(BaseLLM):
    """Stands for a remote model."""

    answer: str = "Remote."

    @property
    def _llm_type(self) -> str:
        return "huggingface_endpoint"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        return LLMResult(generations=[[Generation(text=self.answer)] for _ in prompts])


class ChatHuggingFace(BaseChatModel):
    """Renders messages for the model in it; over a pipeline its async methods fail."""

    llm: Any
    tokenizer: Any = None
    model_id: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: Any = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    @property
    def _llm_type(self) -> str:
        return "huggingface-chat-wrapper"

    def _prompt(self, messages: list[BaseMessage]) -> str:
        if not isinstance(self.llm, HuggingFacePipeline):
            return messages[-1].text
        if not isinstance(messages[-1], HumanMessage):
            raise ValueError("Last message must be a HumanMessage!")
        roles = {"human": "user", "ai": "assistant"}
        chat = [{"role": roles.get(m.type, m.type), "content": m.content} for m in messages]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        result = self.llm._generate([self._prompt(messages)], stop, run_manager, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(result.generations[0][0].text))])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        if isinstance(self.llm, HuggingFacePipeline):
            raise NotImplementedError("async generation is not supported with HuggingFacePipeline")
        return self._generate(messages, stop, **kwargs)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(self._generate(messages, stop, **kwargs).generations[0].text))

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if isinstance(self.llm, HuggingFacePipeline):
            raise AttributeError("'HuggingFacePipeline' object has no attribute 'async_client'")
        for chunk in self._stream(messages, stop, **kwargs):
            yield chunk


HuggingFacePipeline.__module__ = "langchain_huggingface.llms.huggingface_pipeline"
HuggingFaceEndpoint.__module__ = "langchain_huggingface.llms.huggingface_endpoint"
ChatHuggingFace.__module__ = "langchain_huggingface.chat_models.huggingface"


@pytest.fixture(params=["stand-in", "langchain_huggingface"])
def library(request: pytest.FixtureRequest) -> Any:
    """The classes."""
    if request.param == "stand-in":
        return SimpleNamespace(HuggingFacePipeline=HuggingFacePipeline, ChatHuggingFace=ChatHuggingFace)
    if importlib.util.find_spec("langchain_huggingface") is None:
        pytest.skip("langchain-huggingface is not installed; `make test` installs it")
    import langchain_huggingface

    return langchain_huggingface


# --- a model that counts ---


@pytest.fixture(scope="module")
def loaded(local_models: Any) -> Any:
    return local_models.make_llama(initializer_range=0.4), local_models.make_tokenizer(TEMPLATE)


@pytest.fixture
def generated(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call of the model's own `generate`."""
    model, _ = loaded
    calls: list[Any] = []
    generate = type(model).generate

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "generate", counted)
    return calls


@pytest.fixture
def pipe_of(loaded: Any) -> Any:
    model, tokenizer = loaded

    def make(**settings: Any) -> Any:
        greedy = {"do_sample": False, "max_new_tokens": 12}
        settings = settings if settings.pop("alone", False) else {**greedy, **settings}
        return transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu", **settings)

    return make


@pytest.fixture(params=["HuggingFacePipeline", "ChatHuggingFace"])
def llm_of(request: pytest.FixtureRequest, library: Any, pipe_of: Any, loaded: Any) -> Any:
    """Makes an object of either class from the pipeline's settings."""

    def make(**settings: Any) -> Any:
        llm = library.HuggingFacePipeline(pipeline=pipe_of(**settings), model_id="tiny")
        if request.param == "HuggingFacePipeline":
            return llm
        return library.ChatHuggingFace(llm=llm, tokenizer=loaded[1], model_id="tiny")

    make.chat = request.param == "ChatHuggingFace"
    return make


@pytest.fixture
def engine(loaded: Any) -> Iterator[Any]:
    """The engine that the model gets; a new one for each test."""
    from skeleton_of_thought.local import LocalEngine

    engine = LocalEngine.for_model(*loaded)
    yield engine
    engine.close()


def expansion_of(llm: Any, **settings: Any) -> Any:
    return skeleton_chain(llm=llm, **{"max_retries": 0, **settings}).expansion(TITLES)


def direct_of(llm: Any, **settings: Any) -> Any:
    return skeleton_chain(llm=llm, router=lambda question: False, **settings)


def own_text(llm: Any, question: str = "Why?", **kwargs: Any) -> str:
    """The text of the object itself, without the prompt."""
    answer = llm.invoke(question, **kwargs)
    text = answer if isinstance(answer, str) else answer.text
    return text.removeprefix(question).split("<assistant>", 1)[-1]


# --- one batch ---

LONG = {"min_new_tokens": 60, "max_new_tokens": 60}
"""Long enough for rows that begin together to share steps."""


async def test_all_points_share_one_batch_by_all_six_methods(llm_of, engine, generated, way, local_models):
    expansion = expansion_of(llm_of(**LONG))
    with local_models.gathered(4):
        points = await way(expansion, "Why?")
    assert list(points) == ["1", "2", "3", "4"]
    assert generated == []
    assert engine.stats().peak_batch_size == 4
    assert engine.stats().completed == 4


async def test_all_six_methods_give_the_same_points(llm_of, engine, ways):
    expansion = expansion_of(llm_of())
    outputs = [await way(expansion, "Why?") for way in ways.values()]
    assert all(output == outputs[0] for output in outputs)
    assert any(outputs[0].values())


async def test_the_points_of_many_questions_share_one_batch(llm_of, engine, generated, local_models):
    with local_models.gathered(12):
        await expansion_of(llm_of(**LONG)).abatch(["Why?", "How?", "When?"])
    assert generated == []
    assert engine.stats().peak_batch_size == 12


async def test_a_limit_holds(llm_of, engine, local_models):
    with local_models.gathered(2):
        await expansion_of(llm_of(**LONG)).ainvoke("Why?", {"max_concurrency": 2})
    assert engine.stats().peak_batch_size == 2


@pytest.mark.parametrize(
    "wrap",
    [
        lambda llm: llm.bind(stop=["###"]),
        lambda llm: llm.with_retry(),
        lambda llm: llm.with_fallbacks([llm]),
        lambda llm: llm.configurable_alternatives(ConfigurableField(id="model"), default_key="tiny"),
        lambda llm: llm.bind(skip_prompt=True).with_config(tags=["mine"]).with_retry().with_fallbacks([llm]),
    ],
    ids=["bind", "with_retry", "with_fallbacks", "alternatives", "all"],
)
async def test_a_wrapped_object_is_adopted(llm_of, engine, generated, way, wrap, local_models):
    with local_models.gathered(4):
        await way(expansion_of(wrap(llm_of(**LONG))), "Why?")
    assert generated == []
    assert engine.stats().peak_batch_size == 4


def test_both_classes_over_one_model_share_its_engine(library, pipe_of, loaded, engine):
    llm = library.HuggingFacePipeline(pipeline=pipe_of(), model_id="tiny")
    chat = library.ChatHuggingFace(llm=llm, tokenizer=loaded[1], model_id="tiny")
    expansion_of(llm).invoke("Why?")
    expansion_of(chat).invoke("Why?")
    assert engine.stats().completed == 8


def test_the_chat_objects_own_template_is_used(library, pipe_of, loaded, engine):
    import copy

    tokenizer = copy.deepcopy(loaded[1])
    tokenizer.chat_template = TEMPLATE.replace("<assistant>", "<bot>")
    llm = library.HuggingFacePipeline(pipeline=pipe_of(), model_id="tiny")
    chat = library.ChatHuggingFace(llm=llm, tokenizer=tokenizer, model_id="tiny")
    answer = direct_of(chat).invoke("Why?")["answer"]
    assert answer == chat.invoke("Why?").text.split("<bot>", 1)[1]


def test_a_system_message_that_the_template_refuses_comes_before_the_question(library, pipe_of, loaded, engine):
    import copy

    tokenizer = copy.deepcopy(loaded[1])
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refusal + TEMPLATE
    chat = library.ChatHuggingFace(
        llm=library.HuggingFacePipeline(pipeline=pipe_of(), model_id="tiny"), tokenizer=tokenizer, model_id="tiny"
    )
    messages = [SystemMessage("Be brief."), HumanMessage("Why?")]
    with pytest.raises(Exception, match="no system"):
        chat.invoke(messages)
    assert direct_of(chat).invoke(messages)["answer"] == direct_of(chat).invoke("Be brief.\n\nWhy?")["answer"]


def test_a_chat_model_and_an_adopted_model_write_one_answer(llm_of, engine, generated, kit, local_models):
    writer = llm_of(**LONG)
    chat = kit.Chat(script=kit.answering(TITLES))
    with local_models.gathered(len(TITLES)):
        output = skeleton_chain(llm=chat, point_llm=writer).invoke("Why?")
    assert output["skeleton"] == TITLES
    assert [seen.stage for seen in chat.watch.seen] == ["skeleton"]
    assert chat.watch.seen[0].kwargs == {}
    assert generated == []
    assert engine.stats().peak_batch_size == 4


def test_an_engine_lives_as_long_as_its_pipeline(library, loaded):
    from skeleton_of_thought.local import LocalEngine

    before = set(threading.enumerate())
    pipe = transformers.pipeline(
        "text-generation", model=loaded[0], tokenizer=loaded[1], device="cpu", max_new_tokens=4, do_sample=False
    )
    llm = library.HuggingFacePipeline(pipeline=pipe, model_id="tiny")
    chain = direct_of(llm)
    chain.invoke("Why?")
    first = id(LocalEngine.for_model(*loaded)._worker)
    chain.invoke("Why?")
    assert id(LocalEngine.for_model(*loaded)._worker) == first
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert started
    del chain, llm, pipe
    gc.collect()
    for thread in started:
        thread.join(20)
    assert not any(thread.is_alive() for thread in started)


# --- the same text ---


@pytest.mark.parametrize(
    "settings",
    [{}, {"repetition_penalty": 1.7}, {"max_new_tokens": 5}, {"min_new_tokens": 9}, {"stop_sequence": "e"}],
    ids=stable_id,
)
async def test_greedy_text_is_the_pipelines_own(llm_of, engine, generated, way, settings):
    llm = llm_of(**settings)
    expected = own_text(llm)
    if "stop_sequence" in settings:  # transformers leaves it in the text
        expected = expected.partition("e")[0]
    generated.clear()
    output = await way(direct_of(llm), "Why?")
    assert output["answer"] == expected
    assert generated == []


class Shout:
    """A logits processor of the caller's."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return scores + 5.0 * (torch.arange(scores.shape[-1]) % 3 == 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 9.0},
        {"suppress_tokens": list(range(0, 200, 2)), "begin_suppress_tokens": list(range(1, 120, 2))},
        {"bad_words_ids": [[token] for token in range(100, 257, 3)], "sequence_bias": [[[7], 9.0]]},
        {"min_length": 10, "sequence_bias": [[[8], 50.0]]},
        {"exponential_decay_length_penalty": (5, 4.0)},
        {"forced_eos_token_id": 9},
        {"logits_processor": [Shout()], "repetition_penalty": 1.4},
    ],
    ids=stable_id,
)
def test_further_settings_keep_the_pipelines_own_text(llm_of, engine, generated, loaded, settings, monkeypatch):
    # The pipeline's settings count, not those of the model.
    plain = own_text(llm_of())
    monkeypatch.setattr(loaded[0].generation_config, "begin_suppress_tokens", [0, 1, 2])
    monkeypatch.setattr(loaded[0].generation_config, "repetition_penalty", 1.9)
    llm = llm_of(**{"repetition_penalty": 1.0, "begin_suppress_tokens": [], **settings})
    expected = own_text(llm)
    assert expected != plain
    generated.clear()
    assert direct_of(llm).invoke("Why?")["answer"] == expected
    assert generated == []


def test_further_settings_of_a_call_come_before_the_pipelines(llm_of, engine, generated):
    forbidden = list(range(0, 200, 2))
    llm = llm_of(suppress_tokens=forbidden)
    plain, own = own_text(llm_of()), own_text(llm)
    generated.clear()
    assert direct_of(llm.bind(suppress_tokens=[])).invoke("Why?")["answer"] == plain != own
    assert direct_of(llm_of().bind(suppress_tokens=forbidden)).invoke("Why?")["answer"] == own
    assert generated == []


def test_settings_of_the_models_generation_config_apply(llm_of, engine, loaded, monkeypatch):
    monkeypatch.setattr(loaded[0].generation_config, "repetition_penalty", 1.7)
    monkeypatch.setattr(loaded[0].generation_config, "max_new_tokens", 9)
    llm = llm_of(alone=True, do_sample=False)
    assert direct_of(llm).invoke("Why?")["answer"] == own_text(llm)


def test_a_total_length_counts_the_prompt(llm_of, engine):
    llm = llm_of(alone=True, do_sample=False, max_length=60)
    assert direct_of(llm).invoke("Why?")["answer"] == own_text(llm)
    with pytest.raises(PromptTooLong, match="max_length=60"):
        direct_of(llm).invoke("Why? " * 20)


def test_settings_of_a_call_apply(llm_of, engine, generated):
    llm = llm_of()
    expected = own_text(llm, pipeline_kwargs={"max_new_tokens": 3})
    generated.clear()
    assert direct_of(llm.bind(pipeline_kwargs={"max_new_tokens": 3})).invoke("Why?")["answer"] == expected
    assert direct_of(llm).invoke("Why?", pipeline_kwargs={"max_new_tokens": 3})["answer"] == expected
    assert generated == []


def test_chat_history_goes_through_the_template(library, pipe_of, loaded, engine):
    chat = library.ChatHuggingFace(
        llm=library.HuggingFacePipeline(pipeline=pipe_of(), model_id="tiny"), tokenizer=loaded[1], model_id="tiny"
    )
    messages = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Why?")]
    expected = chat.invoke(messages).text.rpartition("<assistant>")[2]
    assert direct_of(chat).invoke(messages)["answer"] == expected


def test_a_string_llm_gets_messages_as_langchains_text(library, pipe_of, engine):
    llm = library.HuggingFacePipeline(pipeline=pipe_of(), model_id="tiny")
    messages = [HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Why?")]
    text = "Human: Hi\nAI: Hello\nHuman: Why?"
    assert direct_of(llm).invoke(messages)["answer"] == llm.invoke(messages).removeprefix(text)


# --- the prompts and settings of the engine ---


@pytest.fixture
def sent(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Prompts and settings as the engine gets them."""
    seen: list[tuple[Any, dict[str, Any]]] = []
    stream = engine.stream

    def spy(prompt: Any, **settings: Any) -> Any:
        seen.append((prompt, settings))
        return stream(prompt, **settings)

    monkeypatch.setattr(engine, "stream", spy)
    return seen


def test_by_default_the_engine_samples_like_the_pipeline(llm_of, sent):
    direct_of(llm_of(alone=True, max_new_tokens=4)).invoke("Why?")
    [(_, settings)] = sent
    assert (settings["temperature"], settings["top_k"], settings["top_p"]) == (0.7, 50, 1.0)
    assert settings["max_new_tokens"] == 4


def test_the_pipelines_own_limit_is_kept(llm_of, engine):
    model = adopt_runnable(llm_of(alone=True), {})
    assert isinstance(model, AdoptedModel)
    assert (model.temperature, model.top_k, model.max_tokens) == (0.7, 50, 256)


def test_sampling_settings_are_kept(llm_of, sent):
    direct_of(llm_of(do_sample=True, temperature=0.4, top_k=7, top_p=0.9)).invoke("Why?")
    [(_, settings)] = sent
    assert (settings["temperature"], settings["top_k"], settings["top_p"]) == (0.4, 7, 0.9)


def test_points_have_a_prefill_a_stop_and_a_limit(llm_of, sent):
    llm = llm_of(max_new_tokens=30).bind(stop=["###"])
    assert ChainModels(llm, llm).for_config({}).point_llm.continues_turn
    expansion_of(llm).invoke("Why?")
    assert len(sent) == 4
    # Each call runs in another thread, so they arrive in any order.
    sent.sort(key=lambda one: next(i for i, title in enumerate(TITLES) if f'"{title}" -' in f"{one}"))
    for (prompt, settings), title in zip(sent, TITLES, strict=True):
        assert settings["stop"] == ("###",)
        assert settings["max_new_tokens"] <= 30
        if llm_of.chat:
            assert prompt[-1]["role"] == "user"
            assert settings["prefill"] == f'"{title}" -'
        else:
            assert isinstance(prompt, str)
            assert "prefill" not in settings
            assert prompt.endswith(f'\n\nAssistant: "{title}" -')


def test_stop_ends_the_text(llm_of, engine):
    llm = llm_of(max_new_tokens=40)
    whole = direct_of(llm).invoke("Why?")["answer"]
    mark = whole[5]
    assert direct_of(llm.bind(stop=[mark])).invoke("Why?")["answer"] == whole.partition(mark)[0]


def test_settings_of_the_chat_object_apply(library, pipe_of, loaded, sent):
    chat = library.ChatHuggingFace(
        llm=library.HuggingFacePipeline(pipeline=pipe_of(), model_id="tiny"),
        tokenizer=loaded[1],
        model_id="tiny",
        temperature=0.3,
        max_tokens=6,
        seed=5,
        frequency_penalty=0.5,
    )
    direct_of(chat).invoke("Why?")
    [(_, settings)] = sent
    assert (settings["temperature"], settings["max_new_tokens"], settings["seed"]) == (0.3, 6, 5)
    assert settings["frequency_penalty"] == 0.5


def test_a_limit_that_does_not_fit_is_cut_instead_of_refused(llm_of, engine):
    llm = llm_of(max_new_tokens=4096)
    assert direct_of(llm.bind(stop=["e"])).invoke("Why?")["answer"] is not None


# --- usage and traces ---


async def test_usage_is_reported_by_all_six_methods(llm_of, engine, way):
    with get_usage_metadata_callback() as usage:
        await way(direct_of(llm_of(max_new_tokens=6)), "Why?")
    assert 1 <= usage.usage_metadata["tiny"]["output_tokens"] <= 6
    assert usage.usage_metadata["tiny"]["input_tokens"] > 3


async def test_runs_are_traced_and_the_objects_own_callbacks_fire(llm_of, engine, way, kit):
    runs, own = kit.Runs(), kit.Runs()
    llm = llm_of()
    llm.callbacks, llm.tags = [own], ["mine"]
    await way(expansion_of(llm), "Why?", {"callbacks": [runs]})
    [root] = runs.roots
    assert sorted(run.name for run in runs.children(root)) == [
        f"point {i}: {title}" for i, title in enumerate(TITLES, 1)
    ]
    assert len(own.started) == 4
    assert all("mine" in run.tags for run in own.started.values())
    runs.assert_all_ended_before_the_root()


async def test_closing_a_stream_early_leaves_no_rows(llm_of, engine):
    import contextlib

    async with contextlib.aclosing(expansion_of(llm_of(max_new_tokens=400)).astream("Why?")) as chunks:
        async for chunk in chunks:
            if any(chunk.values()):
                break
    assert engine.stats().rows == 0


# --- objects that are not adopted ---


def some_tokens(row: int, ids: Any) -> list[int]:
    """The tokens that the text may have."""
    return list(range(200))


class Never:
    """A stopping criterion of the caller's."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
        ({"eos_token_id": [0, 5]}, "[5]"),
        ({"prefix_allowed_tokens_fn": some_tokens}, "prefix_allowed_tokens_fn"),
        ({"stopping_criteria": [Never()]}, "stopping_criteria"),
        ({"add_special_tokens": False}, "add_special_tokens"),
    ],
    ids=stable_id,
)
async def test_unsupported_settings_leave_the_object_unchanged(llm_of, generated, settings, reason, caplog):
    llm = llm_of(**settings)
    points = await expansion_of(llm).ainvoke("Why?")
    assert list(points) == ["1", "2", "3", "4"]
    assert len(generated) == 4
    [record] = [r for r in caplog.records if "one prompt after another" in r.message]
    assert reason in record.message
    assert type(llm).__name__ in record.message


async def test_an_unadopted_object_works_by_all_six_methods(llm_of, generated, way):
    # Not beam search, which transformers itself does not stream.
    assert list(await way(expansion_of(llm_of(prefix_allowed_tokens_fn=some_tokens)), "Why?")) == ["1", "2", "3", "4"]
    assert len(generated) == 4


async def test_a_model_is_adopted_once_for_an_answer(llm_of, way, monkeypatch):
    adopted: list[Any] = []

    def counted(llm: Any, kwargs: Any) -> Any:
        adopted.append(llm)
        return adopt_runnable(llm, kwargs)

    adopt_runnable = adoption.adopt_runnable
    monkeypatch.setattr(adoption, "adopt_runnable", counted)
    llm = llm_of(max_new_tokens=3)
    points = [f"Point {i}" for i in range(1, 8)]
    expansion = skeleton_chain(llm=llm).expansion(points)
    adopted.clear()
    assert len(await way(expansion, "Why?")) == 7
    assert adopted == [llm]


async def test_adoption_can_be_switched_off(llm_of, generated, way, caplog):
    await way(expansion_of(llm_of(), adopt=False), "Why?")
    assert len(generated) == 4
    assert caplog.text == ""


def test_an_unsupported_sampling_setting_without_sampling_is_ignored(llm_of, engine, generated, recwarn):
    llm = llm_of(min_p=0.1)
    direct_of(llm).invoke("Why?")
    assert generated == []


async def test_a_model_with_tools_is_not_adopted(llm_of, generated, caplog):
    adopted = adopt_runnable(llm_of(), {"tools": []})
    assert not isinstance(adopted, AdoptedModel)
    assert "tools" in caplog.text


def test_a_class_that_overrides_generation_is_not_adopted(library, pipe_of, caplog):
    class Mine(library.HuggingFacePipeline):
        def _generate(self, prompts: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return LLMResult(generations=[[Generation(text="Mine.")] for _ in prompts])

    assert direct_of(Mine(pipeline=pipe_of(), model_id="tiny")).invoke("Why?")["answer"] == "Mine."
    assert "Mine has a _generate of its own" in caplog.text


def test_a_subclass_that_changes_nothing_is_adopted(library, pipe_of, engine, generated):
    class Mine(library.HuggingFacePipeline):
        note: str = ""

    direct_of(Mine(pipeline=pipe_of(), model_id="tiny")).invoke("Why?")
    assert generated == []


def test_a_class_of_the_same_name_from_another_package_is_not_adopted(pipe_of, generated):
    class Other(BaseLLM):
        pipeline: Any = None

        @property
        def _llm_type(self) -> str:
            return "other"

        def _generate(self, prompts: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return LLMResult(generations=[[Generation(text="Other.")] for _ in prompts])

    Other.__name__ = "HuggingFacePipeline"
    other = Other(pipeline=pipe_of())
    assert adopt_runnable(other, {}) is other
    assert direct_of(other).invoke("Why?")["answer"] == "Other."


async def test_remote_models_get_concurrent_calls(way, caplog):
    chat = ChatHuggingFace(llm=HuggingFaceEndpoint())
    assert await way(expansion_of(chat), "Why?") == dict.fromkeys("1234", "Remote.")
    assert caplog.text == ""
