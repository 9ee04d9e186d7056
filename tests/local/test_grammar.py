"""Grammars hold exactly, for their own row alone, and together with all other settings."""

from __future__ import annotations

import json
import re
import sys
import threading

import jsonschema
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from skeleton_of_thought.errors import EngineClosed, InvalidInput, MissingExtra, install_line
from skeleton_of_thought.local import LocalEngine, SamplingParams
from skeleton_of_thought.local.chooser import Chooser
from skeleton_of_thought.local.codec import EncodedPrompt
from skeleton_of_thought.local.grammar import Grammar, Grammars
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.stream import QueueSink

pytest.importorskip("llguidance", reason="output by a grammar needs llguidance")

SCHEMA = {
    "$defs": {"part": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
                       "required": ["n"], "additionalProperties": False}},
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "name": {"type": "string", "maxLength": 6},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 3},
        "sure": {"type": ["boolean", "null"]},
    },
    "required": ["colour", "name", "parts", "sure"],
    "additionalProperties": False,
}  # fmt: skip
JSON = Grammar.from_json_schema(SCHEMA)
DIGITS = Grammar.from_regex("[0-9]{5}")
WAYS = [
    {},
    {"temperature": 1.5, "seed": 3},
    {"temperature": 1.0, "seed": 4, "top_k": 5},
    {"temperature": 2.0, "seed": 5, "top_p": 0.9},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.7, "presence_penalty": 0.2},
]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_the_text_is_always_valid_and_ends_by_itself(engine, settings):
    for prompt in ("Why?", "The river", "1. Plan"):
        [done] = engine.generate([prompt], grammar=JSON, max_new_tokens=400, **settings)
        assert done.finish_reason == "stop"
        jsonschema.validate(json.loads(done.text), SCHEMA)


def test_the_drawn_tokens_depend_on_the_seed_alone(engine):
    one, two, other = (
        engine.generate(["Why?"], grammar=JSON, temperature=1.5, seed=seed, max_new_tokens=400)[0].text
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_the_likeliest_allowed_token_is_chosen(llama, tokenizer, engine):
    ids = tokenizer("Why?")["input_ids"]
    with torch.inference_mode():
        logits = llama(torch.tensor([ids])).logits[0, -1]
    digits = {token: logits[token].item() for text, token in tokenizer.get_vocab().items() if text in "0123456789"}
    [done] = engine.generate(["Why?"], grammar=DIGITS, max_new_tokens=1)
    assert done.text == tokenizer.decode(max(digits, key=digits.get))
    assert done.finish_reason == "length"


def test_rows_without_a_grammar_are_unchanged_and_share_the_batch(engine, local_models):
    plain = {"max_new_tokens": 40, "stop": ()}
    alone = [c.text for c in engine.generate(["Why?", "The river"], **plain)]
    held = engine.generate(["Why?"], grammar=JSON, max_new_tokens=300)[0].text
    with local_models.gathered(4):
        streams = [
            engine.stream("Why?", **plain),
            engine.stream("Why?", grammar=JSON, max_new_tokens=300),
            engine.stream("The river", **plain),
            engine.stream("Why?", grammar=DIGITS),
        ]
    texts = ["".join(stream) for stream in streams]
    assert texts[:3] == [alone[0], held, alone[1]]
    assert re.fullmatch("[0-9]{5}", texts[3])
    assert engine.stats().peak_batch_size == 4


def test_logits_are_left_as_they_were(tokenizer):
    grammars = Grammars(tokenizer, {2}, lambda work: work())
    rows = [row(tokenizer, grammars, g) for g in (None, DIGITS, None, JSON)]
    # Wider than the tokenizer's vocabulary, as in padded models: tokens beyond its end are never allowed.
    logits = torch.randn(4, 480, generator=torch.Generator().manual_seed(1))
    logits[:, 470] = 100.0
    before = logits.clone()
    Chooser().choose(rows, logits)
    assert torch.equal(logits, before)
    assert [r.output_ids[0] == 470 for r in rows] == [True, False, True, False]
    assert tokenizer.decode(rows[1].output_ids).isdigit()
    assert tokenizer.decode(rows[3].output_ids).startswith("{")


def test_a_token_that_the_model_does_not_have_fails_that_row_alone(tokenizer):
    grammars = Grammars(tokenizer, {2}, lambda work: work())
    rows = [row(tokenizer, grammars, None), row(tokenizer, grammars, DIGITS)]
    small = torch.randn(2, 6)  # special tokens and a mark
    Chooser().choose(rows, small)
    assert len(rows[0].output_ids) == 1
    assert rows[0].result is None or rows[0].output_ids == [2]
    assert isinstance(rows[1].result, RuntimeError)
    assert "allows no token" in str(rows[1].result)


def row(tokenizer, grammars, grammar):
    return Row(
        EncodedPrompt((5,)),
        SamplingParams(grammar=grammar),
        limit=50,
        eos_ids=frozenset({2}),
        decode=lambda ids: tokenizer.decode(list(ids)),
        sink=QueueSink(),
        constraint=None if grammar is None else grammars.constraint(grammar),
    )


def test_without_a_grammar_no_mask_is_made(tokenizer, monkeypatch):
    from skeleton_of_thought.local import chooser

    monkeypatch.setattr(chooser, "_Masks", None)  # would fail if it were made
    plain = row(tokenizer, None, None)
    Chooser().choose([plain], torch.randn(1, 400))
    assert len(plain.output_ids) == 1


def test_a_stop_string_still_ends_the_text(engine):
    [done] = engine.generate(["Why?"], grammar=Grammar.from_regex("a{3}END[0-9]{9}"), stop="END")
    assert (done.text, done.finish_reason) == ("aaa", "stop")


def test_an_open_ended_grammar_ends_at_the_models_end_or_at_the_limit(engine):
    [done] = engine.generate(["Why?"], grammar=Grammar.from_regex("(ab)+"), max_new_tokens=9)
    assert re.fullmatch("(ab)*a?", done.text)
    assert done.finish_reason == "length" or done.text.endswith("b")


async def test_each_stream_keeps_its_own_place_in_the_grammar(engine):
    async with engine.astream("Why?", grammar=JSON, max_new_tokens=300) as stream:
        expected = "".join([piece async for piece in stream])
    texts = []

    def ask():
        texts.append("".join(engine.stream("Why?", grammar=JSON, max_new_tokens=300)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [expected] * 4


def test_closing_frees_the_row(engine):
    stream = engine.stream("Why?", grammar=Grammar.from_regex("[a-z]+"), max_new_tokens=400)
    next(stream)
    stream.close()
    assert stream.completion.finish_reason in ("cancelled", "stop")
    assert engine.generate(["Why?"], grammar=DIGITS)[0].text.isdigit()


def test_a_prefill_is_not_part_of_the_grammar(engine):
    [done] = engine.generate([[{"role": "user", "content": "Why?"}]], grammar=DIGITS, prefill="No: ")
    assert re.fullmatch("[0-9]{5}", done.text)


def test_models_whose_rows_run_one_by_one_follow_grammars_too(tiny, tokenizer):
    config = LlamaConfig(**{**tiny.COMMON, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
                            "max_position_embeddings": 16})  # fmt: skip
    torch.manual_seed(7)
    with LocalEngine(LlamaForCausalLM(config).eval(), tokenizer) as engine:
        [done] = engine.generate(["Why do the leaves"], grammar=DIGITS, max_new_tokens=20)
    assert re.fullmatch("[0-9]{5}", done.text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grammar.from_regex("[ab"),
        lambda: Grammar.from_lark("start: nothing"),
        lambda: Grammar.from_json_schema({"type": "strange"}),
        lambda: Grammar.from_json_schema({"not": {"type": "string"}}),
        lambda: Grammar.from_json_schema({"type": "object", "properties": {"x": {"const": {1, 2}}}}),
    ],
)
def test_grammars_that_cannot_be_followed_are_refused(make):
    with pytest.raises(InvalidInput, match="cannot be held to this"):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grammar": "[0-9]+"}, "must be a Grammar"),
        ({"grammar": DIGITS, "min_new_tokens": 3}, "leave out min_new_tokens"),
        ({"grammar": DIGITS, "ignore_eos": True}, "leave out min_new_tokens and ignore_eos"),
    ],
)
def test_settings_that_contradict_a_grammar_are_refused(engine, settings, message):
    with pytest.raises(InvalidInput, match=message):
        engine.stream("Why?", **settings)


def test_preparing_compiles_once(engine, monkeypatch):
    made = []
    compile_ = Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda self, text: made.append(text) or compile_(self, text))
    with LocalEngine(engine.model, engine.tokenizer) as fresh:
        fresh.prepare(DIGITS)
        fresh.generate(["Why?", "When?"], grammar=DIGITS)
    assert made == [DIGITS.text]
    with pytest.raises(EngineClosed):
        fresh.prepare(DIGITS)


def test_without_the_library_the_error_gives_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=re.escape(install_line("structured"))):
        Grammar.from_regex("a")


def test_slow_tokenizers_are_refused(llama, tokenizer):
    class Slow:
        def __init__(self):
            self.eos_token_id = 2

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, *args, **kwargs):
            return tokenizer(*args, **kwargs)

    with LocalEngine(llama, Slow()) as engine, pytest.raises(InvalidInput, match="no fast tokenizer"):
        engine.stream("Why?", grammar=DIGITS)


def test_special_tokens_are_in_the_text_if_requested(engine, tokenizer):
    mark = Grammar.from_lark('start: <|im_start|> "a"')
    assert engine.generate(["Why?"], grammar=mark, skip_special_tokens=False)[0].text == "<|im_start|>a"
    assert engine.generate(["Why?"], grammar=mark)[0].text == "a"
