"""Two models in every kind of wrapper; string LLMs, with one `generate` call per phase."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseLLM
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough

from langchain_sot import ChatTransformers, SkeletonOfThoughtChain
from langchain_sot.models.resolution import AnswerModels, ChainModels
from skeleton_of_thought.errors import PointError

TITLES = ["Take breaks", "Drink water", "Move", "Sleep"]
WHOLE = ("invoke", "ainvoke", "batch", "abatch")


# --- a string LLM that counts ---


class ScriptedText(BaseLLM):
    """A string LLM that follows its script, and records each `_generate` and each stream."""

    kit: Any
    script: Any
    finish: str = "stop"
    lists: Any = None
    streams: Any = None
    open: Any = None

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.lists = [] if self.lists is None else self.lists
        self.streams = [] if self.streams is None else self.streams
        self.open = [] if self.open is None else self.open

    @property
    def _llm_type(self) -> str:
        return "scripted-text"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {}

    def _steps(self, prompt: str) -> Iterable[Any]:
        return self.script(self.kit.seen_as([HumanMessage(prompt)], {}))

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        self.lists.append(list(prompts))
        return self._result(["".join(self._performed(prompt)) for prompt in prompts])

    async def _agenerate(
        self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> LLMResult:
        self.lists.append(list(prompts))
        self.open.append(len(prompts))
        try:
            texts = []
            for prompt in prompts:
                text = ""
                for step in self._steps(prompt):
                    if isinstance(step, self.kit.Gate):
                        await step.await_()
                    else:
                        text += self._performed_step(step)
                texts.append(text)
            return self._result(texts)
        finally:
            self.open.pop()

    def _performed(self, prompt: str) -> Iterator[str]:
        for step in self._steps(prompt):
            yield self._performed_step(step)

    def _performed_step(self, step: Any) -> str:
        if isinstance(step, Exception):
            raise step
        return step

    def _result(self, texts: list[str]) -> LLMResult:
        info = {"finish_reason": self.finish}
        return LLMResult(generations=[[Generation(text=text, generation_info=info)] for text in texts])

    def _stream(
        self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[GenerationChunk]:
        self.streams.append(prompt)
        for text in self._performed(prompt):
            yield GenerationChunk(text=text)

    async def _astream(
        self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[GenerationChunk]:
        self.streams.append(prompt)
        for text in self._performed(prompt):
            yield GenerationChunk(text=text)
            await asyncio.sleep(0)

    @property
    def sizes(self) -> list[int]:
        return [len(prompts) for prompts in self.lists]


@pytest.fixture
def text_of(kit):
    def make(script: Any = None, **fields: Any) -> ScriptedText:
        return ScriptedText(kit=kit, script=script or kit.answering(TITLES), **fields)

    return make


@pytest.fixture(params=["chat", "text"])
def model_of(request, kit, text_of):
    """Makes a model of either kind from a script."""
    return text_of if request.param == "text" else lambda script=None: kit.Chat(script=script or kit.answering(TITLES))


def chain_of(llm: Any, **settings: Any) -> SkeletonOfThoughtChain:
    return skeleton_chain(llm=llm, **{"max_retries": 0, **settings})


def quick_retry(llm: Any, attempts: int = 3) -> Any:
    return llm.with_retry(stop_after_attempt=attempts, wait_exponential_jitter=False)


def failing(kit: Any, stages: Iterable[str] = ("skeleton", "point", "direct")) -> Any:
    answer = kit.answering(TITLES)
    return lambda seen: [ConnectionError("down")] if seen.stage in stages else answer(seen)


# --- wrappers ---

ALTERNATIVE = ConfigurableField(id="model")

WRAPPED = {
    "bare": lambda llm, broken: llm,
    "bind": lambda llm, broken: llm.bind(stop=["###"]),
    "with_config": lambda llm, broken: llm.with_config(tags=["mine"]),
    "with_retry": lambda llm, broken: quick_retry(llm),
    "with_fallbacks": lambda llm, broken: broken.with_fallbacks([llm]),
    "configurable_fields": lambda llm, broken: llm.configurable_fields(tags=ConfigurableField(id="tags")),
    "alternatives": lambda llm, broken: broken.configurable_alternatives(ALTERNATIVE, default_key="off", on=llm),
    "alternatives in fallbacks": lambda llm, broken: broken.with_fallbacks(
        [broken.configurable_alternatives(ALTERNATIVE, default_key="off", on=llm)]
    ),
    "alternatives in a retry": lambda llm, broken: quick_retry(
        broken.configurable_alternatives(ALTERNATIVE, default_key="off", on=llm.bind(stop=["###"]))
    ),
    "all of them": lambda llm, broken: (
        quick_retry(broken.bind(stop=["x"]), 2)
        .with_fallbacks([quick_retry(llm.bind(stop=["###"])).with_config(tags=["deep"])])
        .configurable_alternatives(ALTERNATIVE, default_key="on", off=broken)
        .with_config(tags=["outer"])
        .bind(stop=["y"])
    ),
}


@pytest.mark.parametrize("wrap", list(WRAPPED))
async def test_any_wrapped_model_answers_by_all_six_methods(kit, way, model_of, wrap):
    llm = WRAPPED[wrap](model_of(), model_of(failing(kit)))
    output = await way(chain_of(llm), "Why?", {"configurable": {"model": "on"}})
    expected = chain_of(kit.Chat(script=kit.answering(TITLES))).invoke("Why?")
    assert kit.texts(output) == kit.texts(expected)


@pytest.mark.parametrize("wrap", list(WRAPPED))
async def test_two_equally_wrapped_models_write_their_own_stage(kit, way, wrap):
    writer, outliner, broken = (
        kit.Chat(script=kit.answering(TITLES)),
        kit.Chat(script=kit.answering(TITLES)),
        kit.Chat(script=failing(kit)),
    )
    chain = chain_of(WRAPPED[wrap](outliner, broken), point_llm=WRAPPED[wrap](writer, broken))
    await way(chain, "Why?", {"configurable": {"model": "on"}})
    assert [seen.stage for seen in outliner.watch.seen] == ["skeleton"]
    assert sorted(seen.point for seen in writer.watch.seen) == [1, 2, 3, 4]


# --- retries ---


def failing_at_first(kit: Any, times: int) -> Any:
    """Point 2 fails this many times, before its first text."""
    answer, left = kit.answering(TITLES), [times]

    def script(seen: Any) -> Any:
        if seen.point == 2 and left[0]:
            left[0] -= 1
            return [ConnectionError("busy")]
        return answer(seen)

    return script


async def test_a_retry_really_tries_a_failing_point_again(kit, way):
    llm = kit.Chat(script=failing_at_first(kit, 2))
    output = await way(chain_of(quick_retry(llm)), "Why?")
    assert output["points"]["2"] == "All about drink water."
    assert output["errors"] == {}
    assert [len(llm.watch.of("point", n)) for n in (1, 2, 3, 4)] == [1, 3, 1, 1]


async def test_a_retry_gives_up_after_its_attempts(kit, way):
    llm = kit.Chat(script=failing_at_first(kit, 9))
    with pytest.raises(PointError, match="busy"):
        await way(chain_of(quick_retry(llm)), "Why?")
    assert len(llm.watch.of("point", 2)) == 3


async def test_a_retry_repeats_only_its_exception_types(kit, way):
    llm = kit.Chat(script=failing_at_first(kit, 9))
    picky = llm.with_retry(retry_if_exception_type=(KeyError,), wait_exponential_jitter=False)
    with pytest.raises(PointError, match="busy"):
        await way(chain_of(picky), "Why?")
    assert len(llm.watch.of("point", 2)) == 1


@pytest.mark.parametrize("name", ["stream", "astream"])
async def test_attempts_of_a_stream_are_tagged_as_langchain_tags_them(kit, ways, name):
    runs = kit.Runs()
    llm = kit.Chat(script=failing_at_first(kit, 1))
    await ways[name](chain_of(quick_retry(llm)), "Why?", {"callbacks": [runs]})
    tries = [run.tags for run in runs.started.values() if (run.name or "").startswith("point 2")]
    assert ["retry:attempt:2" in tags for tags in tries] == [False, True]
    runs.assert_all_ended_before_the_root()


@pytest.mark.parametrize("name", ["stream", "astream"])
async def test_the_chain_retries_a_stream_that_breaks_after_its_first_text(kit, ways, name):
    answer, left = kit.answering(TITLES), [1]
    llm = kit.Chat(script=None)
    again = kit.Gate(lambda: len(llm.watch.of("point", 2)) == 2)

    def script(seen: Any) -> Any:
        if seen.point == 2 and left[0]:
            left[0] = 0
            return ["All ", ConnectionError("lost")]
        # No text of point 2 is final before point 1 is written.
        return [again, *answer(seen)] if seen.point == 1 else answer(seen)

    llm.script = script
    output = await ways[name](chain_of(quick_retry(llm), max_retries=1, backoff=0.0), "Why?")
    assert len(llm.watch.of("point", 2)) == 2
    assert output["points"]["2"] == "All about drink water."
    assert output["errors"] == {}


@pytest.mark.parametrize("name", ["stream", "astream"])
async def test_without_retries_the_chain_reports_a_broken_stream(kit, ways, name):
    answer = kit.answering(TITLES)
    llm = kit.Chat(script=lambda seen: ["All ", ConnectionError("lost")] if seen.point == 2 else answer(seen))
    output = await ways[name](chain_of(quick_retry(llm), on_point_error="placeholder"), "Why?")
    assert output["errors"] == {"2": "ConnectionError: lost"}
    assert len(llm.watch.of("point", 2)) == 1


# --- fallbacks ---


async def test_fallbacks_answer_when_the_first_fails(kit, way, model_of):
    first, second = model_of(failing(kit)), model_of()
    output = await way(chain_of(first.with_fallbacks([second])), "Why?")
    assert list(output["points"]) == ["1", "2", "3", "4"]
    assert output["errors"] == {}


async def test_only_the_failing_point_goes_to_the_fallback(kit, way):
    first, second = kit.Chat(script=failing_at_first(kit, 9)), kit.Chat(script=kit.answering(TITLES))
    await way(chain_of(first.with_fallbacks([second])), "Why?")
    assert [(seen.stage, seen.point) for seen in second.watch.seen] == [("point", 2)]


async def test_an_error_that_fallbacks_do_not_handle_is_raised(kit, way):
    first, second = kit.Chat(script=failing_at_first(kit, 9)), kit.Chat(script=kit.answering(TITLES))
    with pytest.raises(PointError, match="busy"):
        await way(chain_of(first.with_fallbacks([second], exceptions_to_handle=(KeyError,))), "Why?")
    assert second.watch.seen == []


async def test_when_all_fallbacks_fail_the_first_error_is_raised(kit, way):
    chats = [kit.Chat(script=lambda seen, n=n: [ConnectionError(f"down {n}")]) for n in (1, 2)]
    with pytest.raises(ConnectionError, match="down 1"):
        await way(chain_of(chats[0].with_fallbacks(chats[1:])), "Why?")


@pytest.mark.parametrize("wrap", list(WRAPPED))
async def test_closing_a_stream_early_closes_wrapped_models(kit, wrap):
    answer = kit.answering(TITLES)
    hold = kit.Gate()
    llm = kit.Chat(script=lambda seen: ["Some ", hold] if seen.stage == "point" else answer(seen))
    chain = chain_of(WRAPPED[wrap](llm, kit.Chat(script=failing(kit))))
    runs = kit.Runs()
    config = {"configurable": {"model": "on"}, "callbacks": [runs]}
    before = asyncio.all_tasks()
    async with contextlib.aclosing(chain.astream("Why?", config)) as chunks:
        async for chunk in chunks:
            if any(chunk.get("points", {}).values()):
                break
    assert llm.watch.open == 0
    assert asyncio.all_tasks() == before
    runs.assert_all_ended_before_the_root()


# --- choices of a config ---


async def test_a_config_chooses_an_alternative_inside_other_runnables(kit, way, model_of):
    chain = chain_of(model_of(failing(kit)).configurable_alternatives(ALTERNATIVE, default_key="off", on=model_of()))
    nested = RunnablePassthrough() | chain.with_config(tags=["inner"]) | RunnableLambda(lambda out: out)
    output = await way(nested, "Why?", {"configurable": {"model": "on"}})
    assert list(output["points"]) == ["1", "2", "3", "4"]


async def test_fields_are_configured_at_run_time(kit, way):
    llm = kit.Chat(script=failing(kit)).configurable_fields(script=ConfigurableField(id="script"))
    output = await way(chain_of(llm), "Why?", {"configurable": {"script": kit.answering(["One", "Two"])}})
    assert output["skeleton"] == ["One", "Two"]


async def test_prefixed_fields_of_an_alternative_are_configurable(kit, way):
    chosen = kit.Chat(script=failing(kit)).configurable_fields(script=ConfigurableField(id="script"))
    llm = kit.Chat(script=failing(kit)).configurable_alternatives(
        ALTERNATIVE, default_key="off", prefix_keys=True, on=chosen
    )
    config = {"configurable": {"model": "on", "model==on/script": kit.answering(["One", "Two"])}}
    output = await way(chain_of(quick_retry(llm)), "Why?", config)
    assert output["skeleton"] == ["One", "Two"]


async def test_an_unknown_alternative_fails_before_any_call(kit, way):
    llm = kit.Chat(script=kit.answering(TITLES))
    chain = chain_of(llm.configurable_alternatives(ALTERNATIVE, default_key="on"))
    with pytest.raises(ValueError, match="Unknown alternative: other"):
        await way(chain, "Why?", {"configurable": {"model": "other"}})
    assert llm.watch.seen == []


def resolved(llm: Any, name: str, point_llm: Any = None) -> AnswerModels:
    return ChainModels(llm, point_llm or llm).for_config({"configurable": {"model": name}})


def local(*, takes_prefill: bool) -> ChatTransformers:
    return ChatTransformers(engine=SimpleNamespace(takes_prefill=takes_prefill), model="tiny")


@pytest.mark.parametrize("wrap", ["alternatives", "alternatives in a retry"])
def test_the_configured_model_decides_the_prefill(kit, wrap):
    native, other = local(takes_prefill=True), kit.Chat(script=kit.answering(TITLES))
    llm = WRAPPED[wrap](native, other)
    assert resolved(llm, "on").point_llm.continues_turn
    assert not resolved(llm, "off").point_llm.continues_turn
    assert not resolved(WRAPPED[wrap](local(takes_prefill=False), other), "on").point_llm.continues_turn


@pytest.mark.parametrize("first", [True, False])
def test_local_fallbacks_get_a_prefill_only_if_all_templates_take_it(first):
    llm = local(takes_prefill=first).with_fallbacks([local(takes_prefill=not first)])
    assert not resolved(llm, "on").point_llm.continues_turn


def test_fallbacks_get_a_prefill_only_if_all_continue_it(kit):
    native, other = local(takes_prefill=True), kit.Chat(script=kit.answering(TITLES))
    either = other.configurable_alternatives(ALTERNATIVE, default_key="off", on=native)
    llm = native.with_fallbacks([either])
    assert resolved(llm, "on", native).continuing("auto") == {"skeleton", "point"}
    assert resolved(llm, "off", native).continuing("auto") == {"point"}


async def test_listeners_of_a_binding_receive_its_runs(kit, way):
    heard = []
    llm = kit.Chat(script=kit.answering(TITLES)).with_listeners(on_end=lambda run: heard.append(run.name))
    await way(chain_of(llm), "Why?")
    assert len(heard) == 5


# --- string LLMs ---


@pytest.mark.parametrize("name", WHOLE)
async def test_a_phase_makes_one_generate_call(text_of, ways, name):
    llm = text_of()
    output = await ways[name](chain_of(llm), "Why?")
    assert llm.sizes == [1, 4]
    assert llm.streams == []
    assert list(output["points"].values()) == [f"All about {title.lower()}." for title in TITLES]


@pytest.mark.parametrize("name", ["stream", "astream"])
async def test_streaming_makes_one_stream_per_call(text_of, ways, name):
    llm = text_of()
    await ways[name](chain_of(llm), "Why?")
    assert llm.lists == []
    assert len(llm.streams) == 5


async def test_all_questions_of_a_batch_share_the_generate_calls(text_of):
    for path in ("batch", "abatch"):
        llm = text_of()
        chain, questions = chain_of(llm), ["A?", "B?", "C?"]
        outputs = chain.batch(questions) if path == "batch" else await chain.abatch(questions)
        assert llm.sizes == [3, 12]
        assert [out["question"] for out in outputs] == questions
        assert all(len(out["points"]) == 4 for out in outputs)


@pytest.mark.parametrize("wrap", list(WRAPPED))
@pytest.mark.parametrize("name", WHOLE)
async def test_a_phase_of_any_wrapped_llm_makes_one_generate_call(kit, text_of, ways, name, wrap):
    llm = text_of()
    chain = chain_of(WRAPPED[wrap](llm, text_of(failing(kit))))
    await ways[name](chain, "Why?", {"configurable": {"model": "on"}})
    assert llm.sizes == [1, 4]


@pytest.mark.parametrize("wrap", list(WRAPPED))
@pytest.mark.parametrize("name", WHOLE)
async def test_a_limit_splits_the_prompts_into_chunks(kit, text_of, ways, name, wrap):
    llm = text_of()
    chain = RunnablePassthrough() | chain_of(WRAPPED[wrap](llm, text_of(failing(kit))))
    output = await ways[name](chain, "Why?", {"configurable": {"model": "on"}, "max_concurrency": 3})
    assert llm.sizes == [1, 3, 1]
    assert len(output["points"]) == 4


async def test_prompts_of_different_alternatives_are_not_mixed(text_of):
    first, second = text_of(), text_of()
    chain = chain_of(first.configurable_alternatives(ALTERNATIVE, default_key="first", second=second))
    configs = [{"configurable": {"model": name, "thread": i}} for i, name in enumerate(["first", "second", "first"])]
    chain.batch(["A?", "B?", "C?"], configs)
    assert (first.sizes, second.sizes) == ([2, 8], [1, 4])
    await chain.abatch(["A?", "B?", "C?"], configs)
    assert (first.sizes, second.sizes) == ([2, 8] * 2, [1, 4] * 2)


@pytest.mark.parametrize("name", WHOLE)
async def test_each_of_two_string_llms_gets_its_own_generate_call(text_of, ways, name):
    outliner, writer = text_of(), text_of()
    await ways[name](chain_of(outliner, point_llm=writer), "Why?")
    assert (outliner.sizes, writer.sizes) == ([1], [4])


@pytest.mark.parametrize("name", WHOLE)
async def test_each_prompt_has_its_own_run(kit, text_of, ways, name):
    class Runs(kit.Runs):
        def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: Any, parent_run_id: Any = None, **kw: Any):
            self._start(run_id, parent_run_id, kw)

    runs = Runs()
    await ways[name](chain_of(text_of()), "Why?", {"callbacks": [runs]})
    [root] = runs.roots
    names = ["skeleton", *(f"point {i}: {title}" for i, title in enumerate(TITLES, 1))]
    assert [run.name for run in runs.children(root)] == names
    assert [run.metadata.get("sot_point") for run in runs.children(root)] == [None, 1, 2, 3, 4]
    runs.assert_all_ended_before_the_root()
    assert runs.errors == {}


@pytest.mark.parametrize("name", WHOLE)
async def test_one_failing_prompt_does_not_lose_the_others(kit, text_of, ways, name, caplog):
    llm = text_of(failing_at_first(kit, 99))
    output = await ways[name](chain_of(llm, on_point_error="placeholder"), "Why?")
    assert output["errors"] == {"2": "ConnectionError: busy"}
    assert [output["points"][n] for n in "134"] == ["All about take breaks.", "All about move.", "All about sleep."]
    assert llm.sizes == [1, 4, 1, 1, 1, 1]
    assert "one at a time" in caplog.text


@pytest.mark.parametrize("name", WHOLE)
async def test_a_generate_call_in_a_retry_is_repeated_as_a_whole(kit, text_of, ways, name):
    llm = text_of(failing_at_first(kit, 2))
    output = await ways[name](chain_of(quick_retry(llm)), "Why?")
    assert output["errors"] == {}
    assert llm.sizes == [1, 4, 4, 4]


@pytest.mark.parametrize("name", WHOLE)
async def test_a_generate_call_with_missing_results_is_repeated_one_prompt_at_a_time(kit, text_of, ways, name):
    class Short(ScriptedText):
        def _result(self, texts: list[str]) -> LLMResult:
            return super()._result(texts[:1])

    llm = Short(kit=kit, script=kit.answering(TITLES))
    output = await ways[name](chain_of(llm), "Why?")
    assert llm.sizes == [1, 4, 1, 1, 1, 1]
    assert len(output["points"]) == 4


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("everywhere", [False, True])
async def test_a_cache_answers_for_a_string_llm(text_of, ways, name, everywhere):
    llm = text_of(cache=None if everywhere else InMemoryCache())
    if everywhere:
        set_llm_cache(InMemoryCache())
    try:
        outputs = [await ways[name](chain_of(llm), "Why?") for _ in range(2)]
    finally:
        set_llm_cache(None)
    assert llm.sizes == [1, 4]
    assert outputs[0]["answer"] == outputs[1]["answer"]


@pytest.mark.parametrize("name", WHOLE)
async def test_a_truncated_skeleton_loses_its_last_line(text_of, ways, name):
    output = await ways[name](chain_of(text_of(finish="length")), "Why?")
    assert output["skeleton"] == TITLES[:-1]


@pytest.mark.parametrize("name", WHOLE)
async def test_a_repeated_prompt_of_a_string_llm_is_removed(kit, text_of, ways, name):
    class Echoing(ScriptedText):
        def _steps(self, prompt: str) -> Iterable[Any]:
            return [prompt, *super()._steps(prompt)]

    llm = Echoing(kit=kit, script=kit.answering(TITLES))
    output = await ways[name](chain_of(llm), "Why?")
    assert output["points"]["1"] == "All about take breaks."
    assert output["skeleton"] == TITLES


async def test_points_that_time_out_cancel_their_generate_call(kit, text_of):
    answer, never = kit.answering(TITLES), kit.Gate()
    llm = text_of(lambda seen: [never] if seen.stage == "point" else answer(seen))
    before = asyncio.all_tasks()
    output = await chain_of(llm, point_timeout=0.05, on_point_error="placeholder").ainvoke("Why?")
    assert sorted(output["errors"]) == ["1", "2", "3", "4"]
    assert llm.open == []
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("name", WHOLE)
async def test_direct_answers_share_a_generate_call(text_of, ways, name):
    llm = text_of()
    chain = chain_of(llm, router=lambda question: False)
    assert (await ways[name](chain, "Why?"))["answer"] == "Just so."
    assert llm.lists == [["Why?"]]
    assert [out["answer"] for out in chain.batch(["A?", "B?"])] == ["Just so."] * 2
    assert llm.lists[-1] in (["A?", "B?"], ["A?"], ["B?"])  # two routers may end at different times
