"""Profiles of `ChatTransformers` and of the chain as a chat model, and what LangChain's agents do with them."""

from __future__ import annotations

import importlib.util
import json
import pickle
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import ModelProfile
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from langchain_sot import ChatTransformers
from skeleton_of_thought.errors import InvalidInput

pytest.importorskip("torch", reason="the local engine needs torch")
pytest.importorskip("transformers", reason="the local engine needs transformers")
agents = pytest.importorskip("langchain.agents", reason="the extra [agents] is not installed")
middleware = pytest.importorskip("langchain.agents.middleware")

needs_grammars = pytest.mark.skipif(
    importlib.util.find_spec("llguidance") is None, reason="output by a grammar needs llguidance"
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


ANN = {"name": "Ann", "age": 35}


@pytest.fixture
def tiny(local_models):
    """Makes a model with random weights, this chat template and settings of its configuration."""
    from skeleton_of_thought.local import LocalEngine

    engines = []

    def make(template: Any, **config: Any) -> ChatTransformers:
        engine = LocalEngine(local_models.make_llama(**config), local_models.make_tokenizer(template))
        engines.append(engine)
        return ChatTransformers(engine=engine, model="tiny", max_tokens=4)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def scripted(local_models):
    engines = []

    def make(script: Any, template: str = local_models.HERMES) -> ChatTransformers:
        engines.append(local_models.scripted_engine(script, template))
        return ChatTransformers(engine=engines[-1])

    yield make
    for engine in engines:
        engine.close()


# --- the profile of a local model ---


def test_the_profile_has_the_window_and_text_alone(tiny, local_models):
    llm = tiny(local_models.PLAIN, max_position_embeddings=2048)
    profile = llm.profile
    assert (profile["name"], profile["max_input_tokens"], profile["max_output_tokens"]) == ("tiny", 2048, 2048)
    media = {name for name in ModelProfile.__annotations__ if name.startswith(("image", "pdf", "audio", "video"))}
    assert media
    assert {name for name, value in profile.items() if value is False} >= media | {"attachment"}
    assert profile["text_inputs"] is profile["text_outputs"] is True
    assert set(profile) <= set(ModelProfile.__annotations__)
    assert llm.engine.stats().rows == 0, "the profile ran the model"


def test_a_model_without_a_window_names_none(tiny, local_models):
    llm = tiny(local_models.PLAIN)
    llm.engine._limits.window = None
    again = ChatTransformers(engine=llm.engine)
    assert not {"max_input_tokens", "max_output_tokens", "name"} & set(again.profile)


@pytest.mark.parametrize(
    ("name", "calls"), [("PLAIN", False), ("OTHER", False), ("HERMES", True), ("MISTRAL", True), ("LLAMA", True)]
)
def test_tools_are_those_of_the_chat_template(tiny, local_models, name, calls):
    assert tiny(getattr(local_models, name)).profile["tool_calling"] is calls
    assert tiny(None).profile["tool_calling"] is False


def test_reasoning_is_that_of_the_chat_template(tiny, local_models):
    thinking = local_models.PLAIN.replace("<assistant>{% endif %}", "<assistant><think>\n{% endif %}")
    assert tiny(thinking).profile["reasoning_output"] is True
    assert tiny(local_models.PLAIN).profile["reasoning_output"] is False


def test_what_a_grammar_enforces_needs_its_package(tiny, local_models, monkeypatch):
    installed = importlib.util.find_spec("llguidance") is not None
    profile = tiny(local_models.HERMES).profile
    assert profile["structured_output"] is profile["tool_choice"] is installed
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llguidance" else find(name))
    profile = tiny(local_models.HERMES).profile
    assert profile["structured_output"] is profile["tool_choice"] is False
    assert profile["tool_calling"] is True


def test_a_given_profile_stays_and_a_pickled_model_keeps_its_own(tiny, local_models):
    llm = tiny(local_models.PLAIN)
    given = ChatTransformers(engine=llm.engine, profile={"max_input_tokens": 9})
    assert given.profile == {"max_input_tokens": 9}
    assert given.model_copy().profile == given.profile
    assert llm.__getstate__()["__dict__"]["profile"] == llm.profile


@pytest.mark.model
def test_a_loaded_model_has_a_profile():
    llm = ChatTransformers()
    assert llm.profile["max_input_tokens"] == llm.engine.context_window == 8192
    assert llm.profile["tool_calling"] is False
    assert pickle.loads(pickle.dumps(llm)).profile == llm.profile


# --- the chain as a chat model ---


def test_a_chain_takes_what_both_of_its_models_take(kit):
    own = {"max_input_tokens": 900, "image_inputs": True, "tool_calling": True, "structured_output": True}
    llm = kit.Chat(script=None, profile=own)
    small = kit.Chat(script=None, profile={"max_input_tokens": 50, "image_inputs": False, "tool_calling": False})
    unknown = kit.Chat(script=None)
    both = skeleton_chain(llm=llm, point_llm=small.bind(stop=["x"])).as_chat_model()
    assert both.profile == {**own, "max_input_tokens": 50, "image_inputs": False}
    assert skeleton_chain(llm=llm, point_llm=unknown).as_chat_model().profile == own
    assert skeleton_chain(llm=unknown, point_llm=small).as_chat_model().profile is None
    alone = skeleton_chain(llm=llm).as_chat_model()
    assert alone.profile == own
    assert alone.profile is not llm.profile


# --- its readers in LangChain ---


class Summaries(BaseCallbackHandler):
    """Collects the prompts that ask for a summary."""

    def __init__(self) -> None:
        self.prompts: set[str] = set()

    def on_chat_model_start(self, serialized: Any, messages: Any, **_: Any) -> None:
        if "Hello Hello" in (text := messages[0][-1].text):
            self.prompts.add(text)


@pytest.mark.parametrize("wrapped", [False, True], ids=["local", "chain"])
def test_a_share_of_the_window_triggers_a_summary(tiny, local_models, wrapped):
    llm = tiny(local_models.PLAIN, max_position_embeddings=16384)
    model = skeleton_chain(llm=llm, router=lambda question: False).as_chat_model() if wrapped else llm
    seen = Summaries()
    agent = agents.create_agent(
        model, middleware=[middleware.SummarizationMiddleware(model, trigger=("fraction", 0.05), keep=("messages", 1))]
    )
    config = {"callbacks": [seen]}
    short = [HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Why?")]
    assert [m.text for m in agent.invoke({"messages": short}, config)["messages"][:3]] == ["Hi", "Hello", "Why?"]
    assert seen.prompts == set()
    long = [HumanMessage("Hi " * 400), AIMessage("Hello " * 400), HumanMessage("Why?")]  # about 900 tokens
    assert len(agent.invoke({"messages": long}, config)["messages"]) == 3
    assert len(seen.prompts) == 1


def test_the_usage_of_many_points_is_not_taken_for_a_long_history(kit):
    llm = kit.Chat(script=kit.answering(["A", "B", "C"]), profile={"max_input_tokens": 200})
    model = skeleton_chain(llm=llm).as_chat_model()
    answer = model.invoke("Why?")
    assert answer.usage_metadata["total_tokens"] > 100
    rule = middleware.SummarizationMiddleware(model, trigger=("fraction", 0.5), keep=("messages", 1))
    assert rule.before_model({"messages": [HumanMessage("Why?"), answer, HumanMessage("And?")]}, None) is None


@needs_grammars
@pytest.mark.parametrize("template", ["PLAIN", "HERMES"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["local", "chain"])
def test_an_agent_s_response_format_needs_no_tools(scripted, local_models, template, wrapped):
    llm = scripted(json.dumps(ANN), getattr(local_models, template))
    model = skeleton_chain(llm=llm).as_chat_model() if wrapped else llm
    result = agents.create_agent(model, response_format=Person).invoke({"messages": [HumanMessage("Ann is 35.")]})
    assert result["structured_response"] == Person(**ANN)
    assert result["messages"][-1].tool_calls == []


def calling(name: str, arguments: dict[str, Any], key: str = "arguments") -> str:
    return json.dumps({"name": name, key: arguments})


@needs_grammars
@pytest.mark.parametrize("template", ["HERMES", "MISTRAL", "LLAMA"])
def test_an_agent_has_tools_and_a_response_format(scripted, local_models, template):
    key = "parameters" if template == "LLAMA" else "arguments"
    opener = {"HERMES": "<tool_call>\n", "MISTRAL": "[TOOL_CALLS]\n", "LLAMA": ""}[template]

    def script(prompt: str) -> str:
        done = local_models.last_message(prompt)[0] == "tool"
        call = calling("final_answer", ANN, key) if done else calling("add", {"a": 1, "b": 2}, key)
        return opener + (f"[{call}]" if template == "MISTRAL" else call)

    llm = scripted(script, getattr(local_models, template))
    result = agents.create_agent(llm, [add], response_format=Person).invoke({"messages": [HumanMessage("How old?")]})
    kinds = [(message.type, message.text) for message in result["messages"]]
    assert kinds == [("human", "How old?"), ("ai", ""), ("tool", "3"), ("ai", json.dumps(ANN))]
    assert result["structured_response"] == Person(**ANN)
    assert result["messages"][-1].tool_calls == []


class Animal(BaseModel):
    """An animal."""

    legs: int


EITHER = {"oneOf": [Person.model_json_schema(), Animal.model_json_schema()]}


@needs_grammars
@pytest.mark.parametrize("tools", [[], [add]], ids=["alone", "tools"])
@pytest.mark.parametrize("form", ["oneOf", "union"])
def test_an_answer_may_have_one_of_several_forms(scripted, local_models, form, tools):
    """A union of classes is for tools alone: LangChain has to be told so for models with formats of their own."""
    strategies = pytest.importorskip("langchain.agents.structured_output")
    given = EITHER if form == "oneOf" else strategies.ToolStrategy(Person | Animal)

    def script(prompt: str) -> str:
        if tools and local_models.last_message(prompt)[0] != "tool":
            return "<tool_call>\n" + calling("add", {"a": 1, "b": 2})
        if form == "oneOf":
            return "<tool_call>\n" + calling("final_answer", ANN) if tools else json.dumps(ANN)
        return "<tool_call>\n" + calling("Person", ANN)

    agent = agents.create_agent(scripted(script), tools, response_format=given)
    result = agent.invoke({"messages": [HumanMessage("How old?")]})
    assert result["structured_response"] == (ANN if form == "oneOf" else Person(**ANN))


NUMBER = {"type": "json_schema", "json_schema": {"name": "Number", "schema": {"type": "integer"}}}
PERSON = {"type": "json_schema", "json_schema": {"name": "Person", "schema": Person.model_json_schema()}}


@needs_grammars
def test_the_answer_beside_tools_streams_as_text(scripted):
    llm = scripted("<tool_call>\n" + calling("final_answer", ANN)).bind_tools([add], response_format=PERSON)
    chunks = list(llm.stream("Who?"))
    assert json.loads("".join(chunk.text for chunk in chunks)) == ANN
    assert not any(chunk.tool_call_chunks for chunk in chunks)


@needs_grammars
def test_a_tool_of_the_same_name_stays_the_user_s(scripted):
    @tool
    def final_answer(text: str) -> str:
        """The user's own."""
        return text

    llm = scripted("<tool_call>\n" + calling("final_answer", {"text": "x"}))
    (call,) = llm.bind_tools([final_answer], response_format=PERSON).invoke("Go").tool_calls
    assert (call["name"], call["args"]) == ("final_answer", {"text": "x"})


@needs_grammars
@pytest.mark.parametrize(
    ("given", "choice"),
    [(PERSON, "any"), (PERSON, "add"), ({"type": "json_object"}, None), (NUMBER, None)],
)
def test_formats_that_tools_exclude_are_refused_at_once(scripted, given, choice):
    with pytest.raises(InvalidInput, match="response_format and tools exclude each other"):
        scripted("").bind_tools([add], tool_choice=choice, response_format=given)
