"""`model.generate` as a stream, and the engine's return to a checkpoint before a measurement."""

from __future__ import annotations

import threading

import pytest
import torch

from skeleton_of_thought._cli.local_backend import local_backend
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.plain_generate import GenerateStream
from skeleton_of_thought.types import Call, Hints, Message, Prompt, Reply, Usage

MESSAGES = (Message("user", "Why do the leaves of a tree change their colour in autumn?"),)


def read(stream):
    *pieces, reply = list(stream)
    assert isinstance(reply, Reply)
    return "".join(pieces), reply


def exactly(tokens):
    return Prompt(MESSAGES, hints=Hints(max_tokens=tokens, min_tokens=tokens))


@pytest.mark.parametrize("tokens", [1, 24])
def test_plain_generate_writes_the_requested_number_of_tokens(engine, tokens):
    text, reply = read(GenerateStream(engine, exactly(tokens)))
    assert reply.usage == Usage(engine.count_tokens(MESSAGES), tokens)
    assert text


def test_plain_generate_writes_the_text_of_model_generate(engine):
    ids = engine.tokenizer(engine.render(MESSAGES), add_special_tokens=False, return_tensors="pt").input_ids
    out = engine.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, min_new_tokens=24, do_sample=False
    )
    expected = engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert read(GenerateStream(engine, exactly(24)))[0] == expected


def test_the_engines_row_has_as_many_tokens(engine):
    # Compared texts have the same prompt and the same length.
    stream = engine.stream(exactly(24))
    list(stream)
    assert stream.completion.usage == read(GenerateStream(engine, exactly(24)))[1].usage


def test_a_seed_repeats_the_text_and_keeps_torchs_global_state(engine):
    before = torch.random.get_rng_state()
    first, again = (read(GenerateStream(engine, exactly(24), temperature=1.0, seed=3))[0] for _ in range(2))
    other = read(GenerateStream(engine, exactly(24), temperature=1.0, seed=4))[0]
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_length_beyond_the_window_is_cut_to_it(engine):
    _, reply = read(GenerateStream(engine, exactly(10_000)))
    assert reply.usage.total_tokens == engine.context_window


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_closed_stream_ends_after_the_running_step(engine, how):
    stream = GenerateStream(engine, exactly(400))
    reading = iter(stream)
    next(reading)
    getattr(stream, how)()
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "sot-generate"]


def test_the_models_own_error_is_raised(gated, gate):
    gate.error = RuntimeError("no such luck")
    with pytest.raises(RuntimeError, match="no such luck"):
        read(GenerateStream(gated, exactly(4)))


def test_the_baselines_of_a_comparison_use_only_its_length(engine):
    backend = local_backend(engine, max_new_tokens=3, temperature=0.7, seed=1)
    written = {}
    for baseline in backend.baselines:
        *_, reply = baseline.open_call(Call(1, "direct", exactly(24)), 0)
        written[baseline.name] = reply.usage
    usage = Usage(engine.count_tokens(MESSAGES), 24)
    assert written == {"model.generate": usage, "the engine's single row": usage}


def test_a_checkpoint_discards_only_later_prompts(llama, tokenizer):
    def reused(prompt):
        stream = engine.stream(prompt, max_new_tokens=2)
        list(stream)
        return stream.completion.usage.cached_tokens

    before, after = "The small boat crossed the wide river. " * 4, "Bread needs flour, water and salt. " * 4
    with LocalEngine(llama, tokenizer) as engine:
        reused(before)
        back = engine.checkpoint()
        assert reused(after) == 0
        assert reused(after) > 0
        for _ in range(2):
            back()
            assert reused(after) == 0
        back()
        assert reused(before) > 0


def test_a_checkpoint_restores_nothing_made_by_other_weights(tiny, tokenizer):
    model = tiny.make_model("llama")
    prompt = "The small boat crossed the wide river. " * 4
    with LocalEngine(model, tokenizer) as engine:
        engine.generate([prompt], max_new_tokens=12)
        back = engine.checkpoint()
        for part in model.parameters():
            part.data.mul_(1.1)
        right = engine.generate([prompt], max_new_tokens=12)[0].token_ids
        back()
        again = engine.generate([prompt], max_new_tokens=12)[0]
        assert (again.token_ids, again.usage.cached_tokens) == (right, 0)


def test_a_model_configured_for_beam_search_decodes_greedily(engine):
    greedy = read(GenerateStream(engine, exactly(12)))[0]
    engine.model.generation_config.num_beams = 4
    try:
        assert read(GenerateStream(engine, exactly(12)))[0] == greedy
    finally:
        engine.model.generation_config.num_beams = 1
