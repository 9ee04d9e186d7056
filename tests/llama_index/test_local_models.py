"""Engines over local models: adopted or not, all points are rows of one batch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.schema import NodeWithScore, TextNode
from reasoning_scripts import OPENS, SWITCHED, reasoning, switched_off

from llama_index_sot import SkeletonOfThoughtSynthesizer, TransformersLLM
from llama_index_sot.local import adoption

huggingface = pytest.importorskip(
    "llama_index.llms.huggingface", reason="its class is not installed: pip install llama-index-llms-huggingface"
)

TITLES = ["Move", "Drink much cold water", "Sleep", "Go out"]


# --- a scripted model, over its engine ---------------------------------------------


@pytest.fixture
def native(local_models: Any) -> Iterator[TransformersLLM]:
    engine = local_models.scripted_engine(local_models.few_shot_script(TITLES), local_models.PLAIN)
    yield TransformersLLM(engine=engine)
    engine.close()


async def test_the_prefill_reaches_the_model_and_is_no_part_of_the_text(ask, native):
    response = await ask(native, "How?")
    assert [(point.title, point.text) for point in response.points] == [
        (title, f"All about {title.lower()}.") for title in TITLES
    ]
    assert response.metadata["sot"]["concurrency"] == "batch"
    # The script writes only the text after the prefill: no prompt ends where the model's turn begins.
    assert native.engine.model.prompts == []


async def test_a_point_of_a_graph_sees_its_parents_as_turns(ask, local_models):
    seen = {}

    def script(prompt: str) -> str:
        last = re.findall(r"<user>(.*?)</s>", prompt, re.S)[-1]
        if point := re.search(r", explain: ([\w ]*)", last):
            seen[point[1]] = prompt
            return f'"{point[1]}" - All about {point[1].lower()}.'
        if "Write only the plan" in last:
            return "1. Move: every day\n2. Sleep: every night\n3. Drink water: all day\n4. Where to begin (after 1, 3)"
        return "Begin with the first."

    with local_models.scripted_engine(script, local_models.PLAIN) as engine:
        response = await ask(TransformersLLM(engine=engine), "How?", planning="graph", closing=True, eager="auto")
    assert [point.text for point in response.points][3] == "All about where to begin."
    assert [point.depends_on for point in response.points] == [(), (), (), (1, 3)]
    texts = ["All about move.", "All about sleep.", "All about drink water."]
    assert [text in seen["Where to begin"] for text in texts] == [True, False, True]
    assert response.metadata["sot"]["closing"] == "Begin with the first."
    assert {"point", "closing"} <= set(response.metadata["sot"]["timings"]["decoding"])


@pytest.mark.parametrize(("template", "reply"), [(OPENS, reasoning), (SWITCHED, switched_off)])
async def test_an_answer_is_written_whatever_the_template_opens(ask, local_models, template, reply):
    with local_models.scripted_engine(reply, template) as engine:
        response = await ask(TransformersLLM(engine=engine), "How?")
    assert [(point.title, point.text) for point in response.points] == [
        (title, f"All about {title.lower()}.") for title in TITLES
    ]


def test_a_base_model_ends_before_the_next_turn(local_models):
    with local_models.scripted_engine("Because.\nuser: And then?", None) as engine:
        engine.model._mark = engine.tokenizer("\nassistant: ")["input_ids"]
        llm = TransformersLLM(engine=engine)
        assert llm.chat([ChatMessage(role="user", content="Why?")]).message.content == "Because."
        assert llm.chat([ChatMessage(role="user", content="Why?")], stop="cause").message.content == "Be"
        for stops in ("use.", ["use."]):
            configured = TransformersLLM(engine=engine, generation_config={"stop_strings": stops})
            assert configured.chat([ChatMessage(role="user", content="Why?")]).message.content == "Beca"
    assert engine.model.prompts[0] == "user: Why?"


async def test_the_engines_record_is_in_the_metadata(ask, native):
    entry = (await ask(native, "How?")).metadata["sot"]
    assert set(entry["timings"]["decoding"]) == {"skeleton", "point"}
    assert entry["timings"]["decoding"]["point"]["output_tokens"] > 0
    assert entry["usage"]["input_tokens"] > entry["usage"]["cached_tokens"]


async def test_a_direct_answer_has_no_prefill(ask, native):
    assert str(await ask(native, "How?", router=lambda query: False)) == "Just so."


# --- stock objects -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(local_models: Any) -> SimpleNamespace:
    """A random model, and a tokenizer with a chat template."""
    model = local_models.make_llama(initializer_range=0.4)
    return SimpleNamespace(model=model, tokenizer=local_models.make_tokenizer(local_models.PLAIN))


@pytest.fixture
def hugging(loaded: SimpleNamespace) -> Iterator[Any]:
    """A stock `HuggingFaceLLM`."""
    llm = huggingface.HuggingFaceLLM(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        max_new_tokens=32,
        context_window=4096,
        generate_kwargs={"do_sample": False},
    )
    yield llm
    if (record := adoption._adoptions._records.get(id(llm))) is not None:
        for engine in record.engines.values():
            engine.close()


@pytest.fixture
def generated(loaded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call of the model's own `generate`."""
    calls: list[Any] = []
    monkeypatch.setattr(type(loaded.model), "generate", lambda *args, **kwargs: calls.append(kwargs))
    return calls


def engine_of(llm: Any) -> Any:
    return next(iter(adoption._adoptions._records[id(llm)].engines.values()))


@pytest.fixture
def planner(kit: Any) -> Any:
    """Writes the skeleton: the random model cannot."""
    return kit.SyncLLM(script=kit.answering(TITLES))


async def test_all_points_of_an_answer_are_rows_of_one_batch(ask, planner, hugging, generated, local_models):
    with local_models.gathered(len(TITLES)):
        response = await ask(planner, "How?", point_llm=hugging)
    assert len(response.points) == len(TITLES)
    assert response.metadata["sot"]["concurrency"] == "batch"
    assert engine_of(hugging).stats().peak_batch_size == len(TITLES)
    assert engine_of(hugging).stats().rows == 0
    assert response.metadata["sot"]["timings"]["decoding"]["point"]["mean_rows"] > 1
    assert generated == []


async def test_points_read_as_they_would_one_by_one(kit, planner, hugging):
    together = await kit.make(planner, point_llm=hugging).aquery("How?")
    alone = await kit.make(planner, point_llm=hugging, num_workers=1).aquery("How?")
    assert [point.text for point in together.points] == [point.text for point in alone.points]
    assert len({len(point.text) for point in together.points}) > 1
    assert not any("</s>" in point.text for point in together.points)


async def test_all_items_of_a_question_are_rows_of_one_batch(ask, hugging, generated, local_models):
    question = "Translate these words into French:\n" + "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
    with local_models.gathered(len(TITLES)):
        response = await ask(hugging, question, router="auto", concurrency="batch")
    assert [point.title for point in response.points] == TITLES
    assert (response.metadata["sot"]["route"], response.metadata["sot"]["concurrency"]) == ("items", "batch")
    assert engine_of(hugging).stats().peak_batch_size == len(TITLES)
    assert generated == []


async def test_tokens_are_counted_the_same_in_a_batch_and_one_by_one(kit, planner, hugging):
    counts = []
    for workers in (1, 8):
        counter = TokenCountingHandler()
        hugging.callback_manager = CallbackManager([counter])
        await kit.make(planner, point_llm=hugging, num_workers=workers).aquery("How?")
        assert len(counter.llm_token_counts) == len(TITLES)
        counts.append((counter.prompt_llm_token_count, counter.completion_llm_token_count))
    assert counts[0] == counts[1]
    assert counts[0][1] > 0


async def test_a_stream_has_the_text_of_the_whole_response(methods, planner, hugging):
    texts = {name: str(await ask(planner, "How?", point_llm=hugging)) for name, ask in methods.items()}
    assert len(set(texts.values())) == 1


async def test_engines_and_synthesizers_on_one_llm_share_one_local_engine(kit, planner, hugging, local_models):
    first, second = kit.make(planner, point_llm=hugging), kit.make(planner, point_llm=hugging)
    synthesizer = SkeletonOfThoughtSynthesizer(planner, point_llm=hugging, router=None)
    engine = engine_of(hugging)
    nodes = [NodeWithScore(node=TextNode(text="A fact."))]
    with local_models.gathered(len(TITLES) + 1):
        await asyncio.gather(first.aquery("How?"), second.aquery("Why?"), synthesizer.asynthesize("What?", nodes))
    assert engine_of(hugging) is engine
    assert engine.stats().peak_batch_size > len(TITLES)


async def test_closing_a_stream_stops_decoding(kit, planner, hugging, eventually):
    response = await kit.make(planner, point_llm=hugging, streaming=True).aquery("How?")
    async for _ in response.response_gen:
        break
    await response.response_gen.aclose()
    await eventually(lambda: engine_of(hugging).stats().rows == 0, "no row is left")


async def test_threads_can_be_chosen_and_leave_the_object_as_it_is(kit, planner, hugging, generated):
    with pytest.raises(Exception, match="failed"):  # the test records its `generate`, which returns nothing
        await kit.make(planner, point_llm=hugging, concurrency="thread", max_retries=0).aquery("How?")
    assert generated


async def test_an_llm_that_is_not_adopted_runs_beside_the_loop(kit, loaded):
    class Own(huggingface.HuggingFaceLLM):
        """Has its own `complete`, so it is not adopted."""

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            assert not kit.seen_as("", method="").on_loop
            return CompletionResponse(text="1. Move\n2. Sleep" if "headings" in prompt[-200:] else "Yes.")

    llm = Own(model=loaded.model, tokenizer=loaded.tokenizer, context_window=4096)
    response = await kit.make(llm).aquery("How?")
    assert response.metadata["sot"]["concurrency"] == "thread"
    with pytest.raises(ValueError, match="an engine cannot run Own"):
        kit.make(llm, concurrency="batch")


def test_a_batch_needs_a_local_model(planner, kit):
    with pytest.raises(ValueError, match="needs a local model"):
        kit.make(planner, concurrency="batch")
