"""The engine's one batch: sharing, admission, endings, failures."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_type_hints

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from skeleton_of_thought.errors import EngineClosed, InvalidInput, PromptTooLong
from skeleton_of_thought.local import LocalEngine, SamplingParams
from skeleton_of_thought.local.models import load_model
from skeleton_of_thought.local.settings import DecodingSettings, EngineSettings, LoadingSettings
from skeleton_of_thought.types import Hints, Message, Prompt

STORY = "The small boat crossed the wide river before the evening came."


def unending(engine: LocalEngine) -> LocalEngine:
    engine._eos_ids = frozenset()
    return engine


# --- one batch ------------------------------------------------------------------------------------


def test_eight_prompts_are_decoded_in_one_batch(engine: LocalEngine) -> None:
    unending(engine).generate([f"{STORY} {i}" for i in range(8)], max_new_tokens=32)
    stats = engine.stats()
    assert stats.decode_tokens == 8 * 32
    assert stats.steps <= 34
    assert stats.forwards <= 38
    assert stats.peak_batch_size == 8
    assert (stats.rows, stats.completed) == (0, 8)


def test_callers_in_many_threads_share_the_batch(engine: LocalEngine, local_models: Any) -> None:
    with local_models.gathered(8), ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(unending(engine).generate, [f"{i} {STORY}"], max_new_tokens=20) for i in range(8)]
        texts = [job.result()[0].text for job in jobs]
    assert len(set(texts)) > 1
    assert engine.stats().peak_batch_size == 8
    assert engine.stats().steps < 8 * 20 / 2


def test_shared_beginnings_are_computed_once(engine: LocalEngine) -> None:
    prompts = [f"{STORY} {tail}" for tail in ("Why", "Bread needs", "1. Plan the day")]
    lengths = [engine.count_tokens(p) for p in prompts]
    shared = engine.count_tokens(STORY)
    done = engine.generate(prompts, max_new_tokens=4)
    stats = engine.stats()
    assert stats.prefix_tokens_reused >= 2 * (shared - 1)
    assert stats.prefill_tokens + stats.prefix_tokens_reused == sum(lengths)
    assert [c.usage.input_tokens for c in done] == lengths
    assert sum(c.usage.cached_tokens for c in done) == stats.prefix_tokens_reused


def test_points_of_two_questions_share_their_common_beginnings(engine: LocalEngine) -> None:
    questions = [f"{STORY} Why do the leaves", f"{STORY} Bread needs flour, water, salt"]
    prompts = [f"{q} Point {i}" for q in questions for i in range(4)]
    engine.generate(prompts, max_new_tokens=2)
    stats = engine.stats()
    own = sum(engine.count_tokens(p) for p in prompts) - 8 * engine.count_tokens(STORY)
    # The story once, each question once, and the few tokens of each point.
    assert stats.prefill_tokens < engine.count_tokens(STORY) + own / 2


def test_later_prompts_reuse_the_beginnings_of_earlier_ones(engine: LocalEngine) -> None:
    start, question = "Bread needs flour, water, salt", f" {STORY} Why do the leaves"
    engine.generate([start + question + " 1."], max_new_tokens=2)
    near, far = engine.generate([start + question + " 2.", start + " and a tree"], max_new_tokens=2)
    assert near.usage.cached_tokens >= engine.count_tokens(start + question) - 1
    assert far.usage.cached_tokens >= engine.count_tokens(start) - 1
    assert far.usage.cached_tokens < near.usage.cached_tokens


def test_without_prefix_cache_tokens_no_prompt_is_kept(llama: Any, tokenizer: Any) -> None:
    with LocalEngine(llama, tokenizer, prefix_cache_tokens=0) as engine:
        engine.generate([STORY], max_new_tokens=2)
        assert engine.generate([STORY], max_new_tokens=2)[0].usage.cached_tokens == 0


def test_more_prompts_than_rows_wait_their_turn(llama: Any, tokenizer: Any) -> None:
    with unending(LocalEngine(llama, tokenizer, max_batch_size=3)) as engine:
        done = engine.generate([f"{i} {STORY}" for i in range(8)], max_new_tokens=5)
        assert [len(c.token_ids) for c in done] == [5] * 8
        assert engine.stats().peak_batch_size == 3


def test_users_of_one_model_share_an_engine(llama: Any, tokenizer: Any, tiny: Any) -> None:
    with LocalEngine.for_model(llama, tokenizer) as engine:
        assert LocalEngine.for_model(llama, tokenizer) is engine
        assert LocalEngine.for_model(llama, tiny.make_tokenizer()) is not engine
    with LocalEngine.for_model(llama, tokenizer) as fresh:
        assert fresh is not engine


def test_a_model_in_training_gets_its_mode_back(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("gpt2")
    with LocalEngine(model, tokenizer) as engine:
        quiet = engine.generate([STORY], max_new_tokens=8)[0]
    model.train()
    model.transformer.h[0].eval()
    with LocalEngine(model, tokenizer) as engine:
        assert engine.generate([STORY], max_new_tokens=8)[0].token_ids == quiet.token_ids
    assert model.training
    assert model.transformer.drop.training
    assert not model.transformer.h[0].training


# --- endings --------------------------------------------------------------------------------------


def test_a_stop_string_across_tokens_ends_the_text_before_it(engine: LocalEngine) -> None:
    whole = unending(engine).generate([STORY], max_new_tokens=40)[0]
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 6]
    expected = whole.text[: whole.text.index(stop)]
    stream = engine.stream(STORY, max_new_tokens=40, stop=["never written", stop])
    pieces = list(stream)
    assert "".join(pieces) == stream.completion.text == expected
    assert stream.completion.finish_reason == "stop"
    assert len(stream.completion.token_ids) < 40


def test_the_end_of_sequence_ends_the_text(engine: LocalEngine) -> None:
    whole = unending(engine).generate([STORY], max_new_tokens=20)[0]
    end = whole.token_ids[7]
    engine._eos_ids = frozenset({end})
    done = engine.generate([STORY], max_new_tokens=20)[0]
    assert done.finish_reason == "stop"
    assert done.token_ids == whole.token_ids[: whole.token_ids.index(end) + 1]
    assert whole.text.startswith(done.text)


def test_a_stopping_token_ends_the_text_and_belongs_to_it(engine: LocalEngine) -> None:
    whole = unending(engine).generate([STORY], max_new_tokens=20)[0]
    last = whole.token_ids[7]
    end = whole.token_ids.index(last) + 1
    for least in (0, 20):
        done = engine.generate([STORY], max_new_tokens=20, min_new_tokens=least, stop_token_ids=[399, last])[0]
        assert done.finish_reason == "stop"
        assert done.token_ids == whole.token_ids[:end]
        assert done.text == engine.tokenizer.decode(whole.token_ids[:end], skip_special_tokens=True)


def test_a_stopping_token_that_is_special_leaves_no_text(engine: LocalEngine) -> None:
    whole = unending(engine).generate([STORY], max_new_tokens=200)[0]
    special = next((token for token in whole.token_ids if token in engine.tokenizer.all_special_ids), None)
    assert special is not None, "the tiny model says one of its special tokens"
    done = engine.generate([STORY], max_new_tokens=200, stop_token_ids=[special])[0]
    before = whole.token_ids[: whole.token_ids.index(special)]
    assert done.text == engine.tokenizer.decode(before, skip_special_tokens=True)


@pytest.mark.parametrize("ids", [5, [-1], [1.5], ["a"]])
def test_stopping_tokens_are_ids(engine: LocalEngine, ids: Any) -> None:
    with pytest.raises(InvalidInput, match="stop_token_ids"):
        engine.generate([STORY], stop_token_ids=ids)


def test_end_tokens_come_from_model_and_tokenizer(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    model.generation_config.eos_token_id = [7, 9]
    with LocalEngine(model, tokenizer) as engine:
        assert engine._eos_ids >= {7, 9, tokenizer.eos_token_id}


def test_the_pieces_joined_are_the_text(engine: LocalEngine) -> None:
    stream = unending(engine).stream("Ein Käfer läuft. 你好 🙂", max_new_tokens=200)
    pieces = list(stream)
    done = stream.completion
    assert "".join(pieces) == done.text == engine.tokenizer.decode(done.token_ids, skip_special_tokens=True)
    assert done.finish_reason == "length"
    assert len(done.token_ids) == done.usage.output_tokens == 200


def test_a_prompts_own_stop_and_limit_apply(engine: LocalEngine) -> None:
    messages = (Message("user", "Hello"),)
    whole = unending(engine).generate([Prompt(messages)], max_new_tokens=30)[0]
    stop = whole.text[6:9]
    stopped = engine.generate([Prompt(messages, hints=Hints(stop=(stop,)))], max_new_tokens=30)[0]
    assert stopped.text == whole.text[: whole.text.index(stop)]
    limited = engine.generate([Prompt(messages, hints=Hints(max_tokens=5))])[0]
    assert len(limited.token_ids) == 5
    assert len(engine.generate([Prompt(messages, hints=Hints(max_tokens=5))], max_new_tokens=3)[0].token_ids) == 3


def test_a_prefill_is_continued(engine: LocalEngine) -> None:
    chat = [Message("user", "Hello")]
    rendered = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n1."
    ways = [
        engine.generate([chat], prefill="1.", max_new_tokens=12)[0],
        engine.generate([Prompt(tuple(chat), prefill="1.")], max_new_tokens=12)[0],
        engine.generate([[*chat, Message("assistant", "1.")]], max_new_tokens=12)[0],
        engine.generate([rendered], max_new_tokens=12)[0],
    ]
    assert len({done.token_ids for done in ways}) == 1
    assert ways[0].token_ids != engine.generate([chat], max_new_tokens=12)[0].token_ids


# --- requests that are refused before any work -----------------------------------------------------


def test_a_prompt_that_does_not_fit_is_refused(engine: LocalEngine) -> None:
    assert engine.context_window == 512
    with pytest.raises(PromptTooLong, match="window is 512"):
        engine.stream("river " * 600)
    with pytest.raises(PromptTooLong, match="lower max_new_tokens"):
        engine.stream("river", max_new_tokens=512)
    assert engine.stats().forwards == 0


def test_without_a_limit_the_rest_of_the_window_is_used(engine: LocalEngine) -> None:
    prompt = "river " * 80
    unending(engine)
    done = engine.generate([prompt])[0]
    assert done.usage.input_tokens + done.usage.output_tokens == 512


def test_unknown_and_bad_settings_are_refused(engine: LocalEngine) -> None:
    with pytest.raises(InvalidInput, match="no setting max_tokens"):
        engine.stream("x", max_tokens=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="list of prompts"):
        engine.generate("x")


def test_the_typed_keywords_are_those_that_the_engine_takes() -> None:
    own = {k: v for k, v in inspect.signature(LocalEngine).parameters.items() if k not in ("model", "tokenizer")}
    assert EngineSettings.__annotations__.keys() == own.keys()
    for name, expected in get_type_hints(LocalEngine.__init__).items():
        if name in own:
            assert get_type_hints(EngineSettings)[name] == expected
    further = {"prefill", "tools", "split_special_tokens"}
    assert DecodingSettings.__annotations__.keys() == {*SamplingParams.__dataclass_fields__, *further}
    assert LoadingSettings.__annotations__.keys() > {*own, *inspect.signature(load_model).parameters} - {
        "name",
        "model_kwargs",
    }


def test_a_model_that_is_no_causal_language_model_is_refused(tokenizer: Any) -> None:
    small = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=10)
    with pytest.raises(InvalidInput, match="encoder-decoder"):
        LocalEngine(T5ForConditionalGeneration(small), tokenizer)
    with pytest.raises(InvalidInput, match="no Hugging Face model"):
        LocalEngine(object(), tokenizer)


# --- failures -------------------------------------------------------------------------------------


class OddError(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@pytest.mark.parametrize(
    "error", [ValueError("broken weights"), torch.OutOfMemoryError("no memory left"), OddError(7, "x")]
)
def test_a_failing_step_reaches_every_caller_and_the_engine_keeps_working(
    gated: LocalEngine, gate: Any, error: Exception
) -> None:
    unending(gated)
    before = gated.generate([STORY], max_new_tokens=5)[0]
    streams = [gated.stream(f"{i} {STORY}", max_new_tokens=400) for i in range(3)]
    for stream in streams:
        next(stream)
    gate.error = error
    caught = []
    for stream in streams:
        with pytest.raises(type(error)) as info:
            for _ in stream:
                pass
        caught.append(info.value)
        assert str(info.value) == str(error)
        with pytest.raises(type(error)):
            _ = stream.completion
    gate.error = None
    assert gated.generate([STORY], max_new_tokens=5)[0].token_ids == before.token_ids
    assert gated.stats().failed == 3
    assert gated.stats().rows == 0


def test_a_failing_prompt_does_not_affect_running_rows(
    gated: LocalEngine, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unending(gated)
    expected = gated.generate([STORY], max_new_tokens=200)[0].token_ids
    running = gated.stream(STORY, max_new_tokens=200)
    next(running)
    whole = gate.model.forward

    def fails_on_prompts(input_ids: Any = None, **kwargs: Any) -> Any:
        if input_ids.shape[1] > 1:
            raise torch.OutOfMemoryError("too long a prompt")
        return whole(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(gate.model, "forward", fails_on_prompts)
    with pytest.raises(torch.OutOfMemoryError):
        gated.generate(["Why do the leaves of a tree"], max_new_tokens=5)
    for _ in running:
        pass
    assert running.completion.token_ids == expected


def test_an_error_between_two_steps_reaches_the_callers(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("lost count")

    with monkeypatch.context() as patch:
        patch.setattr(engine._worker, "_drop_cancelled", broken)
        with pytest.raises(RuntimeError, match="lost count"):
            engine.generate([STORY])
    assert engine.generate([STORY], max_new_tokens=3)


def test_rows_leave_from_the_middle_of_the_batch(engine: LocalEngine) -> None:
    prompts = [f"{i} {STORY}" for i in range(5)]
    expected = unending(engine).generate(prompts, max_new_tokens=60)
    streams = [engine.stream(prompt, max_new_tokens=60) for prompt in prompts]
    next(streams[4])
    for leaving in (1, 0, 3):
        streams[leaving].close()
        assert streams[leaving].completion.finish_reason == "cancelled"
    for staying in (2, 4):
        list(streams[staying])
        assert streams[staying].completion.token_ids == expected[staying].token_ids


# --- cancellation ----------------------------------------------------------------------------------


def test_a_closed_stream_frees_its_row(engine: LocalEngine, tiny: Any) -> None:
    stream = unending(engine).stream(STORY, max_new_tokens=400)
    first = next(stream)
    stream.close()
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text.startswith(first)
    assert list(stream) == []
    assert engine.stats().rows == 0
    assert engine.stats().cancelled == 1
    stream.close()


def test_leaving_the_with_block_closes_the_stream(engine: LocalEngine) -> None:
    with unending(engine).stream(STORY, max_new_tokens=400) as stream:
        next(stream)
    assert stream.completion.finish_reason == "cancelled"


def test_a_forgotten_stream_frees_its_row(engine: LocalEngine, tiny: Any) -> None:
    stream = unending(engine).stream(STORY, max_new_tokens=450)
    next(stream)
    del stream
    gc.collect()
    tiny.eventually(lambda: engine.stats().rows == 0)
    assert engine.stats().cancelled == 1


def test_a_waiting_request_can_be_cancelled(gate: Any, tokenizer: Any) -> None:
    with unending(LocalEngine(gate, tokenizer, max_batch_size=1)) as engine:
        running, waiting = engine.stream(STORY, max_new_tokens=300), engine.stream(STORY)
        waiting.close()
        assert waiting.completion.text == ""
        assert len(list(running)) > 0
        assert engine.stats().completed == 1


def test_a_stream_closed_by_another_thread_ends_for_its_reader(gated: LocalEngine, gate: Any) -> None:
    gate.open.clear()
    stream = unending(gated).stream(STORY, max_new_tokens=400)
    got: list[list[str]] = []
    reader = threading.Thread(target=lambda: got.append(list(stream)))
    reader.start()
    gate.entered.wait(60)
    stream.close()
    gate.open.set()
    reader.join(60)
    assert not reader.is_alive()
    assert stream.completion.finish_reason == "cancelled"


def test_a_slow_consumer_does_not_stall_other_streams(engine: LocalEngine) -> None:
    slow = unending(engine).stream(STORY, max_new_tokens=100)
    assert len(engine.generate([STORY], max_new_tokens=100)[0].token_ids) == 100
    assert "".join(slow) == slow.completion.text


def test_close_ends_waiting_callers_and_the_thread(gated: LocalEngine, gate: Any, tiny: Any) -> None:
    gate.open.clear()
    stream = unending(gated).stream(STORY, max_new_tokens=400)
    gate.entered.wait(60)
    closer = threading.Thread(target=gated.close)
    closer.start()
    gate.open.set()
    with pytest.raises(EngineClosed):
        for _ in stream:
            pass
    closer.join(60)
    assert gated.closed
    assert not tiny.runs(gated)
    with pytest.raises(EngineClosed, match="make a new one"):
        gated.stream(STORY)
    with pytest.raises(EngineClosed):
        gated.generate([STORY])
    gated.close()


def test_an_engine_that_was_never_used_has_no_thread(llama: Any, tokenizer: Any, tiny: Any) -> None:
    engine = LocalEngine(llama, tokenizer)
    assert not tiny.runs(engine)
    engine.close()
    with pytest.raises(EngineClosed):
        engine.stream("x")


def test_a_forgotten_engine_ends_its_thread(llama: Any, tokenizer: Any, tiny: Any) -> None:
    engine = LocalEngine(llama, tokenizer)
    engine.generate([STORY], max_new_tokens=2)
    thread, gone = engine._worker._thread, weakref.ref(engine)
    assert tiny.runs(engine)
    del engine
    gc.collect()
    assert gone() is None
    tiny.eventually(lambda: not thread.is_alive())


def test_an_open_stream_keeps_its_engine(llama: Any, tokenizer: Any) -> None:
    stream = unending(LocalEngine(llama, tokenizer)).stream(STORY, max_new_tokens=30)
    gc.collect()
    list(stream)
    assert len(stream.completion.token_ids) == 30
