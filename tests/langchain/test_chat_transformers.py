"""`ChatTransformers` over a tiny model with random weights, and over the demo model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import subprocess
import sys
import threading

import pytest
from always import skeleton_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableField, RunnableParallel

from langchain_sot import ChatTransformers
from skeleton_of_thought.errors import EngineClosed, InvalidInput, ModelLoadError, install_line
from skeleton_of_thought.types import Decoding

torch = pytest.importorskip("torch", reason="the local engine needs torch")
transformers = pytest.importorskip("transformers", reason="the local engine needs transformers")

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TITLES = ["Take breaks", "Drink water", "Move", "Sleep"]
DECODING = Decoding(waiting=0.5, prefill=0.25, decode=2.0, steps=23, mean_rows=3.0, output_tokens=24)


@pytest.fixture(scope="module")
def loaded(local_models):
    return local_models.make_llama(), local_models.make_tokenizer(TEMPLATE)


@pytest.fixture
def engine(loaded):
    from skeleton_of_thought.local import LocalEngine

    with LocalEngine(*loaded) as engine:
        yield engine


@pytest.fixture
def llm(engine):
    return ChatTransformers(engine=engine, model="tiny", max_tokens=24)


class ToldStream:
    """A stream of the engine whose completion has fixed figures, independent of the clock."""

    def __init__(self, stream):
        self._stream = stream

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()

    def __iter__(self):
        return self._stream

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await self._stream.aclose()

    def __aiter__(self):
        return self._stream

    @property
    def completion(self):
        return dataclasses.replace(self._stream.completion, decoding=DECODING)


@pytest.fixture
def recorded(loaded):
    """A model over an engine with a fixed record."""
    from skeleton_of_thought.local import LocalEngine

    class ToldEngine(LocalEngine):
        def stream(self, prompt, **settings):
            return ToldStream(super().stream(prompt, **settings))

        def astream(self, prompt, **settings):
            return ToldStream(super().astream(prompt, **settings))

    with ToldEngine(*loaded) as engine:
        yield ChatTransformers(engine=engine, model="tiny", max_tokens=24)


def test_the_class_is_importable_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from langchain_sot import ChatTransformers\n"
        "try: ChatTransformers()\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtra")
    assert install_line("local") in done.stdout


def test_a_missing_model_raises_a_clear_error(tmp_path):
    with pytest.raises(ModelLoadError, match="no-such-model"):
        ChatTransformers(model=str(tmp_path / "no-such-model"))


async def test_all_methods_return_the_same_text(way, llm):
    expected = llm.invoke("Why?")
    output = await way(llm, "Why?")
    assert output.text == expected.text
    assert output.usage_metadata == {
        **expected.usage_metadata,
        "input_token_details": output.usage_metadata["input_token_details"],
    }
    assert output.usage_metadata["output_tokens"] > 0
    assert output.response_metadata["model_name"] == "tiny"
    assert output.response_metadata["finish_reason"] in ("stop", "length")


def test_cached_tokens_are_in_the_usage(llm):
    messages = [SystemMessage("A long system message. " * 5), HumanMessage("Why?")]
    llm.invoke(messages)
    usage = llm.invoke(messages).usage_metadata
    assert 0 < usage["input_token_details"]["cache_read"] <= usage["input_tokens"]


async def test_a_reply_has_the_engines_record(way, recorded):
    decoding = (await way(recorded, "Why?")).response_metadata["decoding"]
    assert decoding == {**dataclasses.asdict(DECODING), "tokens_per_second": 12.0}
    assert json.loads(json.dumps(decoding)) == decoding


async def test_an_answer_has_the_engines_record_of_each_stage(way, recorded):
    chain = skeleton_chain(llm=recorded, min_points=4)
    timings = (await way(chain, "Why?"))["timings"]
    assert {"skeleton"} < set(timings["decoding"]) == set(timings["stages"])
    assert timings["decoding"]["skeleton"] == DECODING.to_dict()


def test_no_decoding_is_reported_for_an_engine_that_reports_none(llm):
    from langchain_sot.calls import ReplyReader
    from skeleton_of_thought.adapters.replies import ReplyEnd

    message = llm.invoke("Why?")
    message.response_metadata.pop("decoding", None)
    reader = ReplyReader(ReplyEnd())
    reader.add(message)
    assert reader.end().decoding is None
    assert reader.end().usage is not None


def test_settings_of_a_call_override_those_of_the_model(llm):
    assert llm.invoke("Why?", max_tokens=3).usage_metadata["output_tokens"] == 3
    assert llm.bind(max_tokens=3).invoke("Why?").response_metadata["finish_reason"] == "length"
    one, two = (llm.invoke("Why?", temperature=1.5, seed=5).text for _ in range(2))
    assert one == two
    assert one != llm.invoke("Why?").text


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(llm):
    text = llm.invoke("Why?").text
    stop = text[3]
    assert llm.invoke("Why?", stop=[stop]).text == text[: text.index(stop)]


async def test_settings_of_the_engine_reach_it_by_field_and_by_call(llm, engine):
    tempt = {"logits_processor": [lambda ids, scores: scores + 5.0 * (torch.arange(scores.shape[-1]) % 3 == 0)]}
    cases = [
        {"repetition_penalty": 1.9},
        {"no_repeat_ngram_size": 1, "repetition_penalty": 0.1},
        {"bad_words_ids": [[token] for token in range(50, 257)], "suppress_tokens": [33, 34]},
        {"sequence_bias": [[[65], 50.0]]},
        {"generation_config": {"forced_eos_token_id": 65}},
        {"temperature": 1.0, "seed": 1, "min_p": 1.0, "repetition_penalty": 1.9},
        tempt,
    ]
    messages = [{"role": "user", "content": "Why?"}]
    for settings in cases:
        [expected] = engine.generate([messages], max_new_tokens=24, **settings)
        by_field = ChatTransformers(engine=engine, max_tokens=24, **settings)
        assert by_field.invoke("Why?").text == (await llm.ainvoke("Why?", **settings)).text == expected.text
        assert expected.text != llm.invoke("Why?").text
        chain = skeleton_chain(llm=by_field, router=lambda question: False)
        assert chain.invoke("Why?")["answer"] == expected.text


def test_the_models_generation_config_holds_where_nothing_else_is_said(loaded, engine, llm, monkeypatch):
    config = loaded[0].generation_config
    plain = llm.invoke("Why?").text
    monkeypatch.setattr(config, "repetition_penalty", 1.9)
    monkeypatch.setattr(config, "min_new_tokens", 24)
    [expected] = engine.generate([[{"role": "user", "content": "Why?"}]], max_new_tokens=24)
    assert llm.invoke("Why?").text == expected.text != plain
    assert llm.invoke("Why?", repetition_penalty=1.0).text == plain
    assert llm.invoke("Why?", generation_config="ignore").text == plain
    monkeypatch.setattr(config, "num_beams", 3)
    with pytest.raises(InvalidInput, match="num_beams=3"):
        llm.invoke("Why?")
    free = ChatTransformers(engine=engine, max_tokens=24, generation_config={"num_beams": 1})
    assert free.invoke("Why?").text == expected.text


def test_the_checkpoints_sampling_can_be_asked_for(loaded, llm, monkeypatch):
    from skeleton_of_thought.local import LocalEngine

    config = loaded[0].generation_config
    monkeypatch.setattr(config, "do_sample", True)
    monkeypatch.setattr(config, "temperature", 1.5)
    monkeypatch.setattr(config, "top_k", 9)
    greedy, sampled = llm.invoke("Why?").text, llm.invoke("Why?", temperature=1.5, top_k=9, seed=1).text
    assert sampled != greedy
    with LocalEngine(*loaded, use_checkpoint_sampling=True) as engine:
        asking = ChatTransformers(engine=engine, max_tokens=24)
        assert asking.invoke("Why?", seed=1).text == sampled
        assert asking.invoke("Why?", temperature=0).text == greedy


def test_numbers_of_numpy_are_settings(engine, llm):
    import numpy

    plain = {"temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.25, "seed": 4, "max_tokens": 5}
    kinds = {float: numpy.float32, int: numpy.int64}
    given = {name: kinds[type(value)](value) for name, value in plain.items()}
    assert ChatTransformers(engine=engine, **given).invoke("Why?").text == llm.invoke("Why?", **plain).text
    assert llm.invoke("Why?", **given).text == llm.invoke("Why?", **plain).text


@pytest.mark.parametrize(
    "kwargs",
    [{"n": 2}, {"temperature": -1.0}, {"max_tokens": 0}, {"min_p": 2}, {"bad_words_ids": [3]},
     {"logits_processor": "x"}, {"generation_config": {"nonsense": 1}}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(llm, kwargs):
    with pytest.raises(InvalidInput):
        llm.invoke("Why?", **kwargs)


def test_a_trailing_ai_message_is_continued(llm):
    continued = llm.invoke([HumanMessage("Why?"), AIMessage("Because")]).text
    assert continued == llm.invoke("Why?", prefill="Because").text
    assert continued != llm.invoke("Why?").text


def test_images_are_refused(llm):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(InvalidInput, match="text only"):
        llm.invoke([HumanMessage([{"type": "text", "text": "x"}, image])])


async def test_closing_a_stream_frees_its_row(llm, engine):
    stream = llm.stream("Why?", max_tokens=2000)
    next(stream)
    stream.close()
    astream = llm.astream("Why?", max_tokens=2000)
    await anext(astream)
    await astream.aclose()
    assert llm.invoke("Why?", max_tokens=2).text is not None
    assert engine.stats().cancelled == 2


def test_concurrent_calls_share_one_batch(llm, engine, local_models):
    llm = llm.bind(max_tokens=100)
    parallel = RunnableParallel({str(i): (lambda x, i=i: f"{x} {i}") | llm for i in range(3)})
    with local_models.gathered(3):
        outputs = parallel.invoke("Why?", {"max_concurrency": 3})
    assert [outputs[str(i)].text for i in range(3)] == [llm.invoke(f"Why? {i}").text for i in range(3)]
    assert engine.stats().peak_batch_size == 3


async def test_all_points_of_an_answer_share_one_batch(way, llm, engine, local_models):
    long = llm.bind(max_tokens=100)
    chain = skeleton_chain(llm=long, point_prompt="{question} {skeleton} {index}", max_retries=0)
    with local_models.gathered(len(TITLES)):
        output = await way(chain.expansion(TITLES), "Why?")
    assert list(output) == ["1", "2", "3", "4"]
    assert engine.stats().peak_batch_size == 4
    assert engine.stats().prefix_tokens_reused > 0


async def test_the_chain_sends_prefill_stop_and_limit_to_its_own_model(llm):
    sent = []

    class Spy(ChatTransformers):
        def _settings(self, stop, kwargs):
            settings = super()._settings(stop, kwargs)
            sent.append(settings)
            return settings

    spy = Spy(engine=llm.engine, max_tokens=24, stop=["!"])
    chain = skeleton_chain(llm=spy.bind(temperature=0.5, seed=1))
    chain.invoke("Why?")
    assert sent[0]["prefill"].endswith("1.")
    assert sent[0]["max_new_tokens"] == 24
    assert sent[0]["stop"] == ("!",)
    assert sent[0]["stop_after_text"] == ("\n\n",)
    assert sent[0]["frequency_penalty"] > 0
    assert sent[0]["presence_penalty"] > 0
    assert sent[0]["min_new_tokens"] > 0
    assert sent[0]["temperature"] == 0.5
    sent.clear()
    skeleton_chain(llm=spy, prefill=False).invoke("Why?")
    assert sent[0]["prefill"] == ""
    sent.clear()
    await chain.expansion(TITLES).ainvoke("Why?")
    assert {settings["prefill"] for settings in sent} == {f'"{title}" -' for title in TITLES}


def test_other_models_in_the_same_chain_get_no_prefill(llm, kit):
    other = kit.Chat(script=kit.answering(TITLES))
    either = llm.configurable_alternatives(ConfigurableField(id="model"), default_key="tiny", other=other)
    skeleton_chain(llm=either).invoke("Why?", {"configurable": {"model": "other"}})
    skeleton_chain(llm=llm.with_fallbacks([other])).invoke("Why?")
    skeleton_chain(llm=llm.with_fallbacks([llm]), on_empty_skeleton="direct").invoke("Why?")
    assert len(other.watch.seen) == 5
    assert all(seen.kwargs == {} and seen.messages[-1].type == "human" for seen in other.watch.seen)


def test_usage_callbacks_see_every_call(llm):
    with get_usage_metadata_callback() as usage:
        skeleton_chain(llm=llm).expansion(TITLES).invoke("Why?")
    assert usage.usage_metadata["tiny"]["output_tokens"] > 0


def test_a_closed_engine_says_so(llm, engine):
    engine.close()
    with pytest.raises(EngineClosed):
        llm.invoke("Why?")


def test_instances_over_a_loaded_model_share_an_engine(loaded):
    first, second = (ChatTransformers.from_model(*loaded, max_tokens=4) for _ in range(2))
    assert first.engine is second.engine
    assert first.invoke("Why?").text == second.invoke("Why?").text
    first.engine.close()


def test_the_same_model_is_loaded_once(loaded, tmp_path):
    model, tokenizer = loaded
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    made = []
    threads = [threading.Thread(target=lambda: made.append(ChatTransformers(model=str(tmp_path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0].engine is made[1].engine
    again = pickle.loads(pickle.dumps(made[0]))
    assert again.engine is made[0].engine
    made[0].engine.close()
    assert ChatTransformers(model=str(tmp_path)).engine is not made[0].engine


async def test_async_calls_do_not_block_the_event_loop(llm):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await llm.ainvoke("Why?")
    ticking.cancel()
    assert ticks > 5


@pytest.mark.model
def test_the_demo_model_answers_through_a_skeleton():
    llm = ChatTransformers(max_tokens=60)
    output = skeleton_chain(llm=llm, max_points=4).invoke("What are good habits for a healthy life?")
    assert output["route"] == "skeleton"
    assert len(output["points"]) == len(output["skeleton"]) >= 2
    assert llm.engine.stats().peak_batch_size > 1
    assert output["points"]["1"] in output["answer"]


@pytest.mark.model
def test_the_demo_model_merges_its_points():
    chain = skeleton_chain(llm=ChatTransformers(), max_points=3, merge=True)
    output = chain.invoke("How can I improve my time management skills?")
    assert output["route"] == "skeleton"
    assert set(output["timings"]["stages"]) == {"skeleton", "point", "merge"}
    # Either the merged text, or the joined points with the reason.
    joined = all(text in output["answer"] for text in output["points"].values())
    assert joined if "merge" in output["errors"] else output["answer"]


@pytest.mark.model
def test_a_structured_skeleton_of_the_demo_model_has_a_limit():
    llm = ChatTransformers(max_tokens=100)
    chain = skeleton_chain(llm=llm, max_points=4, skeleton_mode="structured")
    output = chain.invoke("How can I improve my time management skills?")
    assert output["answer"]
    assert output["timings"]["decoding"]["skeleton"]["output_tokens"] <= 4 * 24
    # The model is far too small for a schema: the grammar makes it repeat itself, and the answer is a direct one.
    assert output["route"] == ("skeleton" if output["skeleton"] else "direct")


@pytest.mark.model
@pytest.mark.parametrize("name", ["ChatTransformers", "ChatTransformers.with_structured_output"])
def test_the_examples_in_the_documentation_run(name):
    import doctest

    pytest.importorskip("llguidance", reason="output by a grammar needs llguidance")
    module = sys.modules["langchain_sot.local.chat_transformers"]
    [found] = [test for test in doctest.DocTestFinder().find(ChatTransformers, module=module) if test.name == name]
    assert doctest.DocTestRunner().run(found) == (0, len(found.examples))


def test_a_stream_has_usage_unless_stream_usage_is_off(llm, engine):
    def usages(model, **kwargs):
        return [chunk.usage_metadata for chunk in model.stream("Why?", **kwargs) if chunk.usage_metadata]

    assert len(usages(llm)) == 1
    assert usages(llm, stream_usage=False) == []
    quiet = ChatTransformers(engine=engine, max_tokens=3, stream_usage=False)
    assert usages(quiet) == []
    assert len(usages(quiet, stream_usage=True)) == 1
    assert quiet.invoke("Why?").usage_metadata["output_tokens"] == 3


@pytest.mark.model
def test_the_demo_model_follows_a_schema_and_rejects_tools():
    pytest.importorskip("llguidance", reason="output by a grammar needs llguidance")
    llm = ChatTransformers(max_tokens=60)
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    output = llm.with_structured_output(schema).invoke("What is the capital of France?")
    assert set(output) == {"city"}
    assert len(output["city"]) <= 20
    with pytest.raises(InvalidInput, match="does not support tools"):
        llm.bind_tools([schema | {"title": "city"}])
