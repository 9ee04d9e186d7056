"""Faults that belong to one row end that row alone: all others write the texts that they write alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import Gemma3nTextConfig, OPTConfig

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine, embeddings, runner
from skeleton_of_thought.local.decoding_path import DecodingPath
from skeleton_of_thought.local.failures import in_halves
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.types import Completion

STORY = "The small boat crossed the wide river before the evening came."
PROMPTS = [
    "The",
    "Bread needs flour",
    STORY + " Why do the leaves of a tree change their colour in autumn?",
    STORY + " Then",
    STORY + " Then the leaves of a tree, and",
    "Ein Käfer läuft über die Straße.",
    "x",
]
TOKENS = 12


class Fault(Exception):
    pass


class Faults:
    """Makes forwards of an engine fail after they have written to the cache."""

    def __init__(self, engine: LocalEngine, at: Callable[[list[list[int]], list[list[int]]], bool]) -> None:
        self._runner: Any = engine._runner
        self._whole, self._own = self._runner.forward, self._runner.forward_own
        self.at = at
        self.failed: list[int] = []
        self._runner.forward, self._runner.forward_own = self._forward, self._forward_own

    def _forward(self, ids: torch.Tensor, cache: Any, positions: torch.Tensor) -> torch.Tensor:
        if self.at(ids.tolist(), positions.expand_as(ids).tolist()):
            self.failed.append(len(ids))
            self._whole(torch.full_like(ids, 7), cache, positions)  # leaves wrong keys and values
            raise Fault("it fails")
        return self._whole(ids, cache, positions)  # type: ignore[no-any-return]

    def _forward_own(self, own: Any, ids: torch.Tensor, state: Any) -> torch.Tensor:
        if self.at(ids.tolist(), [[length] for length in state.lengths]):
            self.failed.append(len(ids))
            self._own(own, torch.full_like(ids, 7), state)  # leaves a wrong state
            raise Fault("it fails")
        return self._own(own, ids, state)  # type: ignore[no-any-return]


def has(token: int) -> Callable[[Any, Any], bool]:
    return lambda ids, positions: any(token in row for row in ids)


def ends(streams: Sequence[Any]) -> list[Any]:
    """The token ids of each stream, or the error that ended it."""
    found: list[Any] = []
    for stream in streams:
        try:
            for _ in stream:
                pass
            found.append(stream.completion.token_ids)
        except Exception as error:
            found.append(error)
    return found


def run(engine: LocalEngine, prompts: Sequence[str], **settings: Any) -> list[Any]:
    """As `ends`, of prompts that are submitted together."""
    sinks = [Collected() for _ in prompts]
    rows = [engine._row(prompt, sink, {"max_new_tokens": TOKENS, "ignore_eos": True, **settings})
            for prompt, sink in zip(prompts, sinks, strict=True)]  # fmt: skip
    return finish(engine, rows, sinks)


def finish(engine: LocalEngine, rows: Sequence[Row], sinks: Sequence[Collected]) -> list[Any]:
    engine._worker.submit(list(rows))
    return [sink.wait() for sink in sinks]


class Collected:
    """A sink that keeps the end of its row."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._result: Completion | BaseException | None = None

    def text(self, piece: str) -> bool:
        return True

    def end(self, result: Completion | BaseException) -> None:
        self._result = result
        self._over.set()

    def wait(self) -> Any:
        assert self._over.wait(60), "the row never ended"
        return self._result.token_ids if isinstance(self._result, Completion) else self._result


@pytest.fixture(scope="module", params=["llama", "mistral", "gpt2"])
def model(request: pytest.FixtureRequest, tiny: Any) -> Any:
    return tiny.make_model(request.param)


@pytest.fixture
def crowd(model: Any, tokenizer: Any) -> Iterator[LocalEngine]:
    with LocalEngine(model, tokenizer) as engine:
        yield engine


_texts: dict[Any, list[Any]] = {}


def alone(engine: LocalEngine, prompts: Sequence[str] = PROMPTS) -> list[Any]:
    """The tokens of each prompt, decoded by itself."""
    key = (engine.model, *prompts)  # the model itself, so that no other gets its place
    if key not in _texts:
        _texts[key] = [run(engine, [prompt])[0] for prompt in prompts]
        engine._worker._store.clear()
    return list(_texts[key])


def marks(engine: LocalEngine, harmless: Sequence[Any]) -> Iterator[tuple[str, int]]:
    """Characters with a token of their own, which none of `PROMPTS` and none of these texts has; and these tokens."""
    others = {token for prompt in PROMPTS for token in engine._codec.encode(prompt).ids}
    others |= {token for ids in harmless for token in ids}
    for char in "789456@%&_#^{}":
        ids = engine._codec.encode(char).ids
        if len(ids) == 1 and ids[0] not in others and ids[0] in engine._codec.encode(f"The {char} The").ids:
            yield char, ids[0]


# --- one row's token, length or size of batch -----------------------------------------------------


@pytest.mark.parametrize("guilty", [0, 3, 6])
def test_a_token_that_the_model_fails_for_ends_its_row_alone(crowd: LocalEngine, guilty: int) -> None:
    expected = alone(crowd)
    # A token that this row alone generates, and not as its first one.
    others = {token for i, text in enumerate(expected) if i != guilty for token in text}
    prompts = {token for prompt in PROMPTS for token in crowd._codec.encode(prompt).ids}
    token = next(token for token in expected[guilty][1:] if token not in others | prompts)
    before = crowd.stats()
    faults = Faults(crowd, has(token))
    got = run(crowd, PROMPTS)
    assert isinstance(got[guilty], Fault)
    assert [text for i, text in enumerate(got) if i != guilty] == [t for i, t in enumerate(expected) if i != guilty]
    # Halves of halves, and nothing of that row afterwards.
    assert faults.failed[-1] == 1
    assert faults.failed == sorted(faults.failed, reverse=True)
    stats = crowd.stats()
    assert stats.failed == 1
    written = expected[guilty].index(token) + 1
    assert stats.decode_tokens - before.decode_tokens == TOKENS * (len(PROMPTS) - 1) + written
    assert (stats.rows, stats.waiting) == (0, 0)


def test_a_prompt_that_the_model_fails_for_ends_its_row_alone(crowd: LocalEngine) -> None:
    expected = alone(crowd)
    char, token = next(marks(crowd, expected))
    prompts = [*PROMPTS[:3], f"{STORY} {char} Then", *PROMPTS[3:]]
    faults = Faults(crowd, has(token))
    before = crowd.stats()
    got = run(crowd, prompts)
    assert isinstance(got.pop(3), Fault)
    assert got == expected
    assert faults.failed
    stats = crowd.stats()
    assert stats.failed == 1
    counted = stats.prefill_tokens + stats.prefix_tokens_reused - before.prefill_tokens - before.prefix_tokens_reused
    assert counted == sum(len(crowd._codec.encode(prompt).ids) for prompt in prompts)


def test_a_position_that_the_model_fails_for_ends_the_longest_row_alone(crowd: LocalEngine) -> None:
    expected = alone(crowd)
    longest = max(range(len(PROMPTS)), key=lambda i: len(crowd._codec.encode(PROMPTS[i]).ids))
    beyond = len(crowd._codec.encode(PROMPTS[longest]).ids) + 4
    Faults(crowd, lambda ids, positions: max(map(max, positions)) >= beyond)
    got = run(crowd, PROMPTS)
    assert isinstance(got.pop(longest), Fault)
    assert got == [text for i, text in enumerate(expected) if i != longest]


@pytest.mark.parametrize("size", [2, 5, 7])
def test_a_size_of_batch_that_the_model_fails_for_harms_nobody(crowd: LocalEngine, size: int) -> None:
    expected = alone(crowd)
    faults = Faults(crowd, lambda ids, positions: len(ids) == size)
    assert run(crowd, PROMPTS) == expected
    assert size in faults.failed
    assert crowd.stats().failed == 0


def test_rows_of_one_token_recover_before_the_cache_has_any_layer(crowd: LocalEngine) -> None:
    prompts = ["T", "x", "a", "b"]
    assert {len(crowd._codec.encode(prompt).ids) for prompt in prompts} == {1}
    expected = alone(crowd, prompts)
    (bad,) = crowd._codec.encode("b").ids
    Faults(crowd, lambda ids, positions: any(row == [bad] for row in ids) and positions[0] == [0])
    got = run(crowd, prompts)
    assert isinstance(got.pop(), Fault)
    assert got == expected[:-1]


def test_two_guilty_rows_end_and_no_other(crowd: LocalEngine) -> None:
    expected = alone(crowd)
    (one, first), (two, second), *_ = marks(crowd, expected)
    Faults(crowd, lambda ids, positions: any({first, second} & set(row) for row in ids))
    got = run(crowd, [*PROMPTS, f"{STORY} {one}", two])
    assert [type(end) for end in got[-2:]] == [Fault, Fault]
    assert got[:-2] == expected


def test_a_model_that_always_fails_fails_each_row_in_few_forwards(crowd: LocalEngine) -> None:
    expected = alone(crowd)
    running = [crowd.stream(prompt, max_new_tokens=200, ignore_eos=True) for prompt in PROMPTS]
    for stream in running:
        next(stream)
    faults = Faults(crowd, lambda ids, positions: True)
    assert all(isinstance(end, Fault) for end in ends(running))
    assert len(faults.failed) <= 2 * len(PROMPTS) - 1
    faults.failed.clear()
    assert all(isinstance(end, Fault) for end in run(crowd, PROMPTS))
    assert len(faults.failed) <= 2 * len(PROMPTS) - 1
    faults.at = lambda ids, positions: False
    assert run(crowd, PROMPTS) == expected
    assert crowd.stats().rows == 0


def test_rows_that_run_keep_their_texts_while_prompts_fail_in_pieces(model: Any, tokenizer: Any) -> None:
    with LocalEngine(model, tokenizer, prefill_chunk=4) as engine:
        expected = alone(engine)
        char, token = next(marks(engine, expected))
        Faults(engine, has(token))
        first = engine.stream(PROMPTS[2], max_new_tokens=TOKENS, ignore_eos=True)
        got = run(engine, [*PROMPTS[3:], f"{STORY} {char} {STORY}", char * 3])
        assert ends([first]) == [expected[2]]
        assert got[:-2] == expected[3:]
        assert [type(one) for one in got[-2:]] == [Fault, Fault]


@pytest.mark.parametrize("kind", ["separate", "none"])
def test_rows_that_run_one_after_another_do_not_fail_together(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    if kind == "separate":
        monkeypatch.setattr(runner, "infer_path", lambda model, config: DecodingPath("separate", "for a test"))
    with LocalEngine(llama, tokenizer, optimize="none", share_prefix=False) as engine:
        monkeypatch.setattr(engine._runner, "kind_for", lambda length: kind)
        assert engine._runner.own_cache(kind).caches == (kind == "separate")
        expected = alone(engine, PROMPTS[:4])
        char, bad = next(marks(engine, expected))
        token = next(t for t in expected[1][1:] if not any(t in text for text in (*expected[:1], *expected[2:])))
        Faults(engine, lambda ids, positions: has(bad)(ids, positions) or any(row[-1] == token for row in ids))
        # Two prompts have the bad token in the beginning that they share, and one after a beginning that others share.
        bad_ones = [f"The {char} {STORY}", f"The {char} {STORY} Then", f"{STORY} {char}"]
        got = run(engine, [PROMPTS[0], *bad_ones, *PROMPTS[1:4]])
        assert [type(one) for one in got[1:5]] == [Fault] * 4
        assert [got[0], *got[5:]] == [expected[0], *expected[2:4]]
        assert (engine.stats().failed, engine.stats().rows) == (4, 0)


def test_halves_find_the_guilty_in_few_runs() -> None:
    runs: list[tuple[int, int]] = []

    def fails_with_9(first: int, stop: int) -> int:
        runs.append((first, stop))
        if first <= 9 < stop:
            raise Fault
        return stop - first

    done, errors = in_halves(16, fails_with_9)
    assert list(errors) == [9]
    assert sum(count for _, _, count in done) == 15
    assert [first for first, _, _ in done] == sorted(first for first, _, _ in done)
    assert len(runs) <= 2 * 5


# --- ids without embeddings -----------------------------------------------------------------------


def with_new_token(tiny: Any) -> Any:
    tokenizer = tiny.make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def test_a_token_without_an_embedding_is_refused_when_its_prompt_comes(tiny: Any) -> None:
    model, tokenizer = tiny.make_model("llama"), with_new_token(tiny)
    with LocalEngine(model, tokenizer) as engine:
        with pytest.raises(
            InvalidInput, match=r"'<pad>', has id 400.* 400 embeddings.*resize_token_embeddings"
        ) as info:
            engine.generate(["Why do", "Why <pad> do"], max_new_tokens=2)
        assert "Token 4 of" in str(info.value)
        assert engine.stats().forwards == 0
        model.resize_token_embeddings(len(tokenizer))
        assert len(engine.generate(["Why <pad> do"], max_new_tokens=2, ignore_eos=True)[0].token_ids) == 2


@pytest.mark.parametrize("bad", [-1, -400, 400, 2**40])
def test_ids_outside_of_the_embeddings_are_named(tiny: Any, tokenizer: Any, llama: Any, bad: int) -> None:
    with pytest.raises(InvalidInput, match=f"Token 2 of the prompt, None, has id {bad}, .*ids 0 to 399"):
        embeddings.Embeddings(llama).check([3, bad, 4], lambda token: None)


def test_a_generated_token_without_an_embedding_ends_its_row_alone(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    wide = torch.nn.Linear(32, 410, bias=False)
    with torch.no_grad():
        wide.weight[:400], wide.weight[400:] = model.lm_head.weight, 0
        engine = LocalEngine(model, tokenizer)
        expected = alone(engine)
        engine.close()
        shown = next(token for token in expected[5][2:] if not any(token in t for t in (*expected[:5], expected[6])))
        wide.weight[405] = 1.001 * wide.weight[shown]
        model.lm_head = wide
    with LocalEngine(model, tokenizer) as engine:
        got = run(engine, PROMPTS)
        place = expected[5].index(shown)
        error = got.pop(5)
        assert isinstance(error, InvalidInput)
        assert "generated id 405" in str(error)
        assert "resize_token_embeddings" in str(error)
        assert got == expected[:5] + expected[6:]
        # As the last token it is no error, since nothing reads it.
        assert run(engine, [PROMPTS[5]], max_new_tokens=place + 1)[0][-1] == 405


def test_end_tokens_outside_of_the_vocabulary_are_harmless(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("llama")
    with LocalEngine(model, tokenizer) as engine:
        expected = engine.generate(["Why do"], max_new_tokens=8, min_new_tokens=8)[0].token_ids
    model.generation_config.eos_token_id = [2, -1, 10_000]
    with LocalEngine(model, tokenizer) as engine:
        got = engine.generate(["Why do"], max_new_tokens=8, min_new_tokens=8, stop_token_ids=[5_000])
        assert got[0].token_ids == expected


def test_the_window_of_learned_positions_counts_where_the_configuration_names_more(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model("gpt2")
    model.config.n_positions = 1000
    with LocalEngine(model, tokenizer) as engine:
        assert engine.context_window == 256
        with pytest.raises(InvalidInput, match="window is 256"):
            engine.generate(["a b " * 200])


def test_learned_positions_with_an_offset(tiny: Any) -> None:
    from transformers import OPTForCausalLM

    config = OPTConfig(vocab_size=40, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=1,
                       max_position_embeddings=30, word_embed_proj_dim=8)  # fmt: skip
    assert embeddings.Embeddings(OPTForCausalLM(config)).positions == 30


def test_second_embeddings_that_replace_unknown_ids_do_not_count() -> None:
    from transformers import Gemma3nForCausalLM

    config = Gemma3nTextConfig(
        vocab_size=64, vocab_size_per_layer_input=50, hidden_size=16, hidden_size_per_layer_input=8,
        intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        num_kv_shared_layers=0, layer_types=["full_attention"] * 2, activation_sparsity_pattern=None,
        laurel_rank=4, altup_num_inputs=2,
    )  # fmt: skip
    model = Gemma3nForCausalLM(config)
    assert embeddings.Embeddings(model).ids == 64
    model.model.get_per_layer_inputs = model.model.embed_tokens_per_layer.forward  # as Gemma 4's
    assert embeddings.Embeddings(model).ids == 50


# --- consumers, decoders, grammars ----------------------------------------------------------------


class RaisingSink(Collected):
    """A sink that raises at its n-th piece, or at the end."""

    def __init__(self, error: BaseException, pieces: int | None) -> None:
        super().__init__()
        self._error, self._pieces = error, pieces

    def text(self, piece: str) -> bool:
        if self._pieces is not None:
            self._pieces -= 1
            if self._pieces < 0:
                raise self._error
        return True

    def end(self, result: Completion | BaseException) -> None:
        super().end(result)
        if self._pieces is None:
            raise self._error


class Panic(BaseException):
    """As libraries in Rust raise it."""


class RaisingConstraint:
    words = 13

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def fill(self, bits: torch.Tensor) -> None:
        raise self._error

    def accept(self, token: int) -> bool:
        return False


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


FAULTS: dict[str, Callable[[Row, BaseException], None]] = {
    "decoder": lambda row, error: setattr(row._detokenizer, "_decode", raising(error)),
    "stop strings": lambda row, error: setattr(row._stops, "push", raising(error)),
    "grammar": lambda row, error: setattr(row, "constraint", RaisingConstraint(error)),
    "draw": lambda row, error: (
        setattr(row.sampler, "drawing", row.sampler.params.__class__(temperature=1.0)),
        setattr(row.sampler, "draw", raising(error)),
    ),
}


@pytest.mark.parametrize("error", [Fault("odd"), Panic("a panic")], ids=["exception", "panic"])
@pytest.mark.parametrize("fault", [*FAULTS, "sink", "end of sink"])
def test_a_faulty_part_of_a_request_ends_its_row_alone(
    llama: Any, tokenizer: Any, fault: str, error: BaseException
) -> None:
    with LocalEngine(llama, tokenizer) as engine:
        expected = alone(engine)
        assert finish_with(engine, fault, error) == expected
        assert run(engine, PROMPTS) == expected
        assert (engine.stats().rows, engine.stats().waiting) == (0, 0)


def finish_with(engine: LocalEngine, fault: str, error: BaseException) -> list[Any]:
    """The ends of all prompts, beside one more row with a fault."""
    settings: Any = {"max_new_tokens": TOKENS, "ignore_eos": True}
    bad: Collected = Collected()
    if "sink" in fault:
        bad = RaisingSink(error, None if fault == "end of sink" else 3)
    sinks = [Collected() for _ in PROMPTS]
    rows = [engine._row(prompt, sink, settings) for prompt, sink in zip(PROMPTS, sinks, strict=True)]
    odd = engine._row(STORY + " Then the leaves", bad, settings)
    if fault in FAULTS:
        FAULTS[fault](odd, error)
    got = finish(engine, [*rows[:3], odd, *rows[3:]], [*sinks[:3], bad, *sinks[3:]])
    end = got.pop(3)
    assert end is error if fault != "end of sink" else isinstance(end, tuple)
    return got


def test_forty_crowds_with_bad_neighbours_harm_nobody(tiny: Any) -> None:
    model, tokenizer = tiny.make_model("llama"), with_new_token(tiny)
    draw = random.Random(3)
    with LocalEngine(model, tokenizer, max_batch_size=12, prefill_chunk=16) as engine:
        expected = dict(zip(PROMPTS, alone(engine), strict=True))
        char, token = next(marks(engine, list(expected.values())))
        faults = Faults(engine, has(token))
        failed = 0
        for _ in range(40):
            innocent = [draw.choice(PROMPTS) for _ in range(draw.randint(3, 9))]
            streams, bad = [], []
            for prompt in innocent:
                streams.append(engine.stream(prompt, max_new_tokens=TOKENS, ignore_eos=True))
                kind = draw.randrange(6)
                if kind == 0:
                    with pytest.raises(InvalidInput, match="embeddings"):
                        engine.stream(f"{prompt} <pad>")
                elif kind == 1:
                    bad.append(engine.stream(f"{prompt} {char}", max_new_tokens=TOKENS))
                    failed += 1
                elif kind == 2:
                    sink = RaisingSink(Fault("gone"), draw.choice([0, 2]))
                    engine._worker.submit([engine._row(prompt, sink, {"max_new_tokens": TOKENS})])
                elif kind == 3:
                    row = engine._row(prompt, Collected(), {"max_new_tokens": TOKENS})
                    FAULTS[draw.choice(list(FAULTS))](row, draw.choice([Fault("odd"), Panic("a panic")]))
                    engine._worker.submit([row])
                if draw.randrange(4) == 0:
                    next(streams[-1], None)
            assert ends(streams) == [expected[prompt] for prompt in innocent]
            assert all(isinstance(end, Fault) for end in ends(bad))
        tiny.eventually(lambda: engine.stats().rows == 0 and engine.stats().waiting == 0)
        assert failed > 20
        assert faults.failed
