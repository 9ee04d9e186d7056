"""The first argument may be positional; any other positional argument raises a clear error."""

from __future__ import annotations

import copy
import pickle

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from pydantic import ValidationError

from langchain_sot import (
    ChatTransformers,
    SkeletonOfThoughtChain,
    SkeletonOfThoughtChatModel,
    SkeletonOfThoughtRouter,
    load_chain,
)

QUESTION = "What are good ways to stay awake?"
ANSWER = "1. Move: A walk helps."


@pytest.fixture
def llm():
    return FakeListChatModel(responses=["1. Move", "A walk helps."])


def test_the_chain_takes_only_its_model_by_position(llm):
    chain = SkeletonOfThoughtChain(llm, max_points=3)
    assert chain.llm is llm
    assert chain.max_points == 3
    assert chain == SkeletonOfThoughtChain(llm=llm, max_points=3)
    assert chain.invoke(QUESTION)["answer"] == ANSWER


def test_a_chat_model_takes_its_chain_by_position(llm):
    chain = SkeletonOfThoughtChain(llm)
    assert SkeletonOfThoughtChatModel(chain, temperature=0.5).chain.llm.kwargs == {"temperature": 0.5}
    assert SkeletonOfThoughtChatModel(chain).invoke(QUESTION).text == ANSWER


def test_a_local_model_takes_its_name_by_position(scripted_engine):
    assert ChatTransformers("tiny", engine=scripted_engine, max_tokens=7).model == "tiny"


@pytest.fixture
def scripted_engine(local_models):
    with local_models.scripted_engine("said") as engine:
        yield engine


@pytest.mark.parametrize(
    "cls", [SkeletonOfThoughtChain, SkeletonOfThoughtChatModel, ChatTransformers, SkeletonOfThoughtRouter]
)
def test_a_second_positional_argument_is_refused(cls, llm):
    with pytest.raises(TypeError, match=rf"{cls.__name__} takes \w+ by position and all else by name.* 2 were given"):
        cls(llm, llm)


def test_a_model_given_by_position_and_name_is_refused(llm):
    with pytest.raises(TypeError, match="llm twice"):
        SkeletonOfThoughtChain(llm, llm=llm)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gpt-4o", r"llm is a model and not its name: pass init_chat_model\('gpt-4o'\)"),
        (FakeListChatModel, "not the class FakeListChatModel: make one"),
        (7, "llm must be a chat model or LLM of LangChain, not int"),
    ],
)
def test_an_object_that_is_no_model_is_refused_and_the_error_names_valid_types(given, words):
    with pytest.raises(ValidationError, match=words):
        SkeletonOfThoughtChain(given)


def test_the_points_model_is_checked_as_well(llm):
    with pytest.raises(ValidationError, match="point_llm is a model and not its name"):
        SkeletonOfThoughtChain(llm, point_llm="gpt-4o-mini")


def test_without_a_model_the_field_is_named():
    with pytest.raises(ValidationError, match="llm\n  Field required"):
        SkeletonOfThoughtChain()


def test_the_error_of_a_chat_model_over_a_model_shows_how_to_make_a_chain(llm):
    with pytest.raises(ValidationError, match=r"SkeletonOfThoughtChatModel\(SkeletonOfThoughtChain\(llm\)\)"):
        SkeletonOfThoughtChatModel(llm)


# --- such objects in pydantic and LangChain ---


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda chain: pickle.loads(pickle.dumps(chain)),
    "model_copy": lambda chain: chain.model_copy(),
    "validated": lambda chain: SkeletonOfThoughtChain.model_validate(dict(chain)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_equal_and_answer(llm, how):
    chain = COPIES[how](SkeletonOfThoughtChain(llm, max_points=4))
    assert chain.max_points == 4
    assert chain.invoke(QUESTION)["answer"] == ANSWER


def test_fields_can_be_configured(llm):
    chain = SkeletonOfThoughtChain(
        FakeListChatModel(responses=["1. Move\n2. Rest", "A walk helps."]), router=None
    ).configurable_fields(max_points=ConfigurableField(id="most"))
    assert chain.invoke(QUESTION, {"configurable": {"most": 1}})["skeleton"] == ["Move"]


def test_a_dump_equals_that_of_a_chain_made_by_name():
    llm = RunnablePassthrough()
    assert dumps(SkeletonOfThoughtChain(llm)) == dumps(SkeletonOfThoughtChain(llm=llm))
    assert isinstance(load_chain(dumps(SkeletonOfThoughtChain(llm))), SkeletonOfThoughtChain)


def test_positional_arguments_change_no_field():
    assert {"llm", "point_llm", "router", "max_points"} <= set(SkeletonOfThoughtChain.model_fields)
    assert SkeletonOfThoughtChain.model_fields["llm"].is_required()
