"""Structured output of `ChatTransformers`: over a random model limited by grammars, and over a scripted one."""

from __future__ import annotations

import importlib.util
import json
from typing import Annotated, Literal

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from langchain_sot import ChatTransformers
from langchain_sot.local.structured_output import StructuredOutputParser
from skeleton_of_thought.adapters.reply_format import without_extra_properties
from skeleton_of_thought.errors import InvalidInput

pytest.importorskip("torch", reason="the local engine needs torch")
pytest.importorskip("transformers", reason="the local engine needs transformers")


class Leg(BaseModel):
    place: str = Field(max_length=4)
    days: int = Field(ge=1, le=9)


class Trip(BaseModel):
    """A journey."""

    mode: Literal["train", "boat"]
    legs: list[Leg] = Field(max_length=2)
    paid: bool | None = None


class TripDict(TypedDict):
    """A journey."""

    mode: Annotated[Literal["train", "boat"], ..., "How to go"]
    days: Annotated[Literal[1, 2, 3], ..., "How long"]


class OldTrip(BaseModelV1):
    """A journey."""

    mode: Literal["train", "boat"]
    paid: bool


TRIP = Trip(mode="boat", legs=[Leg(place="Bonn", days=2)])
SAID = TRIP.model_dump_json()


@pytest.fixture
def random_llm(local_models):
    """A model with random weights: its replies are valid by the grammar alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from skeleton_of_thought.local import LocalEngine

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, eos_token_id=0, pad_token_id=0, bos_token_id=None, max_position_embeddings=4096,
    )  # fmt: skip
    tokenizer = local_models.make_tokenizer(local_models.PLAIN)
    with LocalEngine(LlamaForCausalLM(config).eval(), tokenizer) as engine:
        yield ChatTransformers(engine=engine, model="random", max_tokens=400, temperature=1.0, seed=1)


@pytest.fixture
def scripted(local_models):
    """Makes models with these replies."""
    engines = []

    def make(said, **settings):
        engines.append(local_models.scripted_engine(said, local_models.PLAIN))
        return ChatTransformers(engine=engines[-1], model="scripted", **settings)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(params=["invoke", "ainvoke", "batch", "abatch", "stream", "astream"])
def last(request, ways):
    """The output of each method; of a stream the last, since growing objects cannot be added."""

    async def run(llm, value):
        if request.param == "stream":
            return list(llm.stream(value))[-1]
        if request.param == "astream":
            return [chunk async for chunk in llm.astream(value)][-1]
        return await ways[request.param](llm, value)

    return run


@pytest.fixture
def no_library(monkeypatch):
    """Hides llguidance from imports."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llguidance" else find(name, *a))


needs_grammars = pytest.mark.skipif(
    importlib.util.find_spec("llguidance") is None, reason="output by a grammar needs llguidance"
)


@needs_grammars
@pytest.mark.parametrize("schema", [Trip, OldTrip], ids=["pydantic", "pydantic-v1"])
async def test_a_random_model_gives_valid_objects_by_every_method(last, random_llm, schema):
    for seed in range(3):
        llm = random_llm.model_copy(update={"seed": seed})
        assert isinstance(await last(llm.with_structured_output(schema), "Go?"), schema)


@needs_grammars
@pytest.mark.parametrize(
    "schema",
    [TripDict, {"type": "object", "properties": {"mode": {"enum": ["train"]}, "days": {"enum": [1, 2]}},
                "required": ["mode", "days"]}],
    ids=["typeddict", "json-schema"],
)  # fmt: skip
def test_a_random_model_gives_valid_dicts(random_llm, schema):
    output = random_llm.with_structured_output(schema).invoke("Go?")
    assert set(output) == {"mode", "days"}
    assert output["mode"] in ("train", "boat")
    assert output["days"] in (1, 2, 3)


@needs_grammars
def test_streamed_dicts_grow_and_end_as_invoked(random_llm):
    llm = random_llm.with_structured_output(TripDict)
    *first, last = llm.stream("Go?")
    assert last == llm.invoke("Go?")
    assert first
    assert all(set(chunk) <= {"mode", "days"} for chunk in first)


@needs_grammars
def test_json_mode_forces_an_object_and_checks_the_schema_afterwards(scripted):
    llm = scripted('So: {"mode": "boat", "legs": []}')
    assert llm.with_structured_output(method="json_mode").invoke("Go?") is not None
    wrong = scripted('{"mode": "plane", "legs": []}').with_structured_output(Trip, method="json_mode", include_raw=True)
    output = wrong.invoke("Go?")
    assert output["parsed"] is None
    assert "plane" in str(output["parsing_error"])


@needs_grammars
@pytest.mark.parametrize("stream", [False, True])
def test_the_error_for_cut_output_names_max_tokens(random_llm, stream):
    llm = random_llm.model_copy(update={"max_tokens": 8}).with_structured_output(Trip)
    with pytest.raises(OutputParserException, match="cut off by max_tokens") as caught:
        list(llm.stream("Go?")) if stream else llm.invoke("Go?")
    assert caught.value.llm_output.startswith('{"mode')


@needs_grammars
def test_raw_output_includes_its_parsing_error(random_llm):
    llm = random_llm.model_copy(update={"max_tokens": 8}).with_structured_output(Trip, include_raw=True)
    output = llm.invoke("Go?")
    assert isinstance(output["raw"], AIMessage)
    assert output["parsed"] is None
    assert isinstance(output["parsing_error"], OutputParserException)
    good = random_llm.with_structured_output(Trip, include_raw=True).invoke("Go?")
    assert isinstance(good["parsed"], Trip)
    assert good["parsing_error"] is None


@needs_grammars
def test_concurrent_calls_with_different_schemas_share_one_batch(random_llm):
    from langchain_core.runnables import RunnableParallel

    both = RunnableParallel(
        trip=random_llm.with_structured_output(Trip),
        dict=random_llm.with_structured_output(TripDict),
        text=random_llm,
    )
    output = both.invoke("Go?")
    assert isinstance(output["trip"], Trip)
    assert set(output["dict"]) == {"mode", "days"}
    assert output["text"].text == random_llm.invoke("Go?").text


def test_the_model_is_shown_the_schema_after_the_question(scripted):
    llm = scripted(json.dumps(TRIP.model_dump()))
    llm.with_structured_output(Trip).invoke([HumanMessage("Go?"), AIMessage("Where?"), HumanMessage("Away!")])
    prompt = llm.engine.model.prompts[-1]
    assert "<user>Go?</s><assistant>Where?</s><user>Away!\n\nAnswer with nothing but JSON" in prompt
    assert '"enum": ["train", "boat"]' in prompt


@pytest.mark.parametrize("said", [SAID, f"```json\n{SAID}\n```", f"Here it is:\n```\n{SAID}\n```"])
async def test_without_the_library_the_reply_is_parsed(last, scripted, no_library, said):
    assert await last(scripted(said).with_structured_output(Trip), "Go?") == TRIP


@pytest.mark.parametrize("said", ["No.", '{"mode": "boat"}', '{"mode": "boat", "legs": ['])
def test_without_the_library_a_wrong_reply_is_an_error_that_shows_it(scripted, no_library, said):
    llm = scripted(said)
    with pytest.raises(OutputParserException, match="does not match the schema") as caught:
        llm.with_structured_output(Trip).invoke("Go?")
    assert caught.value.llm_output == said
    with pytest.raises(OutputParserException):
        list(llm.with_structured_output(Trip).stream("Go?"))
    output = llm.with_structured_output(Trip, include_raw=True).invoke("Go?")
    assert output["raw"].text == said
    assert isinstance(output["parsing_error"], OutputParserException)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schema": Trip, "method": "magic"}, "must be 'json_schema'"),
        ({"schema": None}, "needs a schema"),
        ({"schema": {"colour": "red"}}, "not a JSON schema"),
        ({"schema": 7}, "not a pydantic class"),
        ({"schema": Trip, "tools": []}, r"does not take \['tools'\]"),
        ({"schema": Trip, "method": "function_calling"}, "does not support tools"),
    ],
)
def test_impossible_arguments_raise_at_once(scripted, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        scripted("").with_structured_output(**arguments)


@needs_grammars
def test_a_schema_that_cannot_be_enforced_is_refused_at_once(scripted):
    with pytest.raises(InvalidInput, match="cannot be held to this"):
        scripted("").with_structured_output({"type": "object", "properties": {"x": {"not": {"type": "string"}}}})


@pytest.mark.parametrize("given", ["json", {"type": "text"}, {"type": "json_schema"}])
def test_invalid_response_formats_are_refused(scripted, given):
    with pytest.raises(InvalidInput, match="response_format is"):
        scripted("").invoke("Go?", response_format=given)


@needs_grammars
def test_a_grammar_and_a_minimum_length_exclude_each_other(scripted):
    with pytest.raises(InvalidInput, match="leave out min_new_tokens"):
        scripted("").invoke("Go?", response_format={"type": "json_object"}, min_new_tokens=3)


def test_schemas_are_closed_unless_that_could_contradict_them():
    open_ = {"type": "object", "properties": {"properties": {"type": "object"}, "a": {"properties": {}}}}
    assert without_extra_properties(open_) == {
        "type": "object",
        "properties": {
            "properties": {"type": "object"},
            "a": {"properties": {}, "additionalProperties": False},
        },
        "additionalProperties": False,
    }
    merged = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert without_extra_properties(merged) == merged
    said = {"properties": {}, "additionalProperties": True, "enum": [{"properties": {}}]}
    assert without_extra_properties(said) == said


def test_the_parser_reads_plain_text():
    assert StructuredOutputParser(target=Trip).parse(SAID) == TRIP
    assert StructuredOutputParser().parse('{"a": 1}') == {"a": 1}


def test_pickles_that_name_the_old_module_load_the_parser():
    assert importlib.import_module("langchain_sot.structured").StructuredOutputParser is StructuredOutputParser
