"""LangChain's and LangGraph's private names and class names, used here as our code uses them."""

from __future__ import annotations

import contextvars
import inspect
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from contracts import contract
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_sot.models.resolution import read_traits
from langchain_sot.models.servers import with_timeout


class Model(BaseChatModel):
    """Records the methods that a call goes through."""

    passed: list[Any] = []  # noqa: RUF012 - pydantic copies it for each object

    @property
    def _llm_type(self) -> str:
        return "model"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Yes."))])

    def _generate_with_cache(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.passed.append(run_manager.run_id)
        return BaseChatModel._generate_with_cache(self, messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.passed.append(run_manager.run_id)
        return await BaseChatModel._agenerate_with_cache(self, messages, stop, run_manager, **kwargs)


def test_generate_with_cache():
    with contract("langchain_core.language_models.BaseChatModel._generate_with_cache"):
        model, run = Model(), uuid.uuid4()
        assert model.invoke("Q", {"run_id": run}).text == "Yes."
        assert model.passed == [run]


async def test_agenerate_with_cache():
    with contract("langchain_core.language_models.BaseChatModel._agenerate_with_cache"):
        model, run = Model(), uuid.uuid4()
        assert (await model.ainvoke("Q", {"run_id": run})).text == "Yes."
        assert model.passed == [run]


def test_convert_input():
    with contract("langchain_core.language_models.BaseChatModel._convert_input"):
        for value in ("Q", [HumanMessage("Q")], [("user", "Q")]):
            assert Model()._convert_input(value).to_messages() == [HumanMessage("Q")]


def test_get_ls_params():
    class Named(Model):
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return {**super()._get_ls_params(stop=stop, **kwargs), "ls_model_name": "mine"}

    with contract("langchain_core.language_models.BaseChatModel._get_ls_params"):
        assert Named()._get_ls_params(stop=["x"])["ls_model_type"] == "chat"
        seen: list[Any] = []
        Named().with_listeners(on_end=lambda run: seen.append(run.metadata)).invoke("Q")
        assert seen[0]["ls_model_name"] == "mine"


def test_resolve_model_profile():
    class Profiled(Model):
        def _resolve_model_profile(self) -> Any:
            return {"max_input_tokens": 7}

    with contract("langchain_core.language_models.BaseChatModel._resolve_model_profile"):
        assert Profiled().profile == {"max_input_tokens": 7}


def test_serialized():
    with contract("langchain_core.language_models.BaseChatModel._serialized"):
        model = Model()
        first = model._serialized
        assert model.model_copy()._serialized is first


def test_transform():
    from langchain_core.output_parsers import BaseTransformOutputParser

    class Parser(BaseTransformOutputParser[str]):
        def parse(self, text: str) -> str:
            return text

        def _transform(self, input: Iterator[Any]) -> Iterator[str]:
            for chunk in input:
                yield f"<{chunk}>"

    with contract("langchain_core.output_parsers.BaseTransformOutputParser._transform"):
        assert list(Parser().transform(iter("ab"))) == ["<a>", "<b>"]


async def test_atransform():
    from langchain_core.output_parsers import BaseTransformOutputParser

    class Parser(BaseTransformOutputParser[str]):
        def parse(self, text: str) -> str:
            return text

        async def _atransform(self, input: AsyncIterator[Any]) -> AsyncIterator[str]:
            async for chunk in input:
                yield f"<{chunk}>"

    async def letters() -> AsyncIterator[str]:
        for letter in "ab":
            yield letter

    with contract("langchain_core.output_parsers.BaseTransformOutputParser._atransform"):
        assert [text async for text in Parser().atransform(letters())] == ["<a>", "<b>"]


def test_set_config_context():
    with contract("langchain_core.runnables.config._set_config_context"):
        from langchain_core.runnables.config import _set_config_context, ensure_config

        def tags_within(config: Any) -> list[str]:
            _set_config_context(config)
            return ensure_config({"run_name": "mine"})["tags"]

        assert contextvars.copy_context().run(tags_within, {"tags": ["t"]}) == ["t"]
        assert contextvars.copy_context().run(tags_within, {}) == []


def test_call_with_config():
    def decide(value: Any, run_manager: Any, config: Any) -> Any:
        return value, run_manager.run_id, config["tags"]

    with contract("langchain_core.runnables.Runnable._call_with_config"):
        run = uuid.uuid4()
        config = {"run_id": run, "tags": ["mine"]}
        assert RunnableLambda(str)._call_with_config(decide, "Q", config) == ("Q", run, ["mine"])


async def test_acall_with_config():
    async def decide(value: Any, run_manager: Any, config: Any) -> Any:
        return value, run_manager.run_id, config["tags"]

    with contract("langchain_core.runnables.Runnable._acall_with_config"):
        run = uuid.uuid4()
        config = {"run_id": run, "tags": ["mine"]}
        assert await RunnableLambda(str)._acall_with_config(decide, "Q", config) == ("Q", run, ["mine"])


def test_sync_retrying():
    with contract("langchain_core.runnables.retry.RunnableRetry._sync_retrying"):
        retry = RunnableLambda(str).with_retry(wait_exponential_jitter=False, stop_after_attempt=3)
        attempts = []
        for attempt in retry._sync_retrying(reraise=True):
            with attempt:
                attempts.append(attempt.retry_state.attempt_number)
                if len(attempts) < 3:
                    raise ValueError("not yet")
        assert attempts == [1, 2, 3]


async def test_async_retrying():
    with contract("langchain_core.runnables.retry.RunnableRetry._async_retrying"):
        retry = RunnableLambda(str).with_retry(wait_exponential_jitter=False, stop_after_attempt=3)
        attempts = []
        async for attempt in retry._async_retrying(reraise=True):
            with attempt:
                attempts.append(attempt.retry_state.attempt_number)
                if len(attempts) < 3:
                    raise ValueError("not yet")
        assert attempts == [1, 2, 3]


def test_base_llm():
    with contract("langchain_core.language_models.llms.BaseLLM"):
        from langchain_core.language_models import FakeListLLM
        from langchain_core.language_models.llms import BaseLLM

        llm = FakeListLLM(responses=["Yes."])
        assert isinstance(llm, BaseLLM)
        assert read_traits(llm).text
        assert not read_traits(Model()).text


def test_runnable_binding():
    with contract("langchain_core.runnables.base.RunnableBinding"):
        from langchain_core.runnables.base import RunnableBinding

        bound = Model().bind(stop=["x"])
        assert isinstance(bound, RunnableBinding)
        assert read_traits(bound).binding


def test_dynamic_runnable():
    with contract("langchain_core.runnables.configurable.DynamicRunnable"):
        from langchain_core.runnables.configurable import DynamicRunnable

        fields = Model().configurable_fields(cache=ConfigurableField(id="cache"))
        alternatives = Model().configurable_alternatives(ConfigurableField(id="model"), other=Model())
        for runnable in (fields, alternatives):
            assert isinstance(runnable, DynamicRunnable)
            assert read_traits(runnable).configurable


def test_runnable_with_fallbacks():
    with contract("langchain_core.runnables.fallbacks.RunnableWithFallbacks"):
        from langchain_core.runnables.fallbacks import RunnableWithFallbacks

        runnable = Model().with_fallbacks([Model()])
        assert isinstance(runnable, RunnableWithFallbacks)
        assert read_traits(runnable).fallbacks
        assert read_traits(runnable).stock_fallbacks


def test_runnable_retry():
    with contract("langchain_core.runnables.retry.RunnableRetry"):
        from langchain_core.runnables.retry import RunnableRetry

        retry = Model().with_retry()
        assert isinstance(retry, RunnableRetry)
        assert read_traits(retry).retry


def test_base_chat_openai():
    pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    with contract("langchain_openai.chat_models.base.BaseChatOpenAI"):
        from langchain_openai import ChatOpenAI
        from langchain_openai.chat_models.base import BaseChatOpenAI

        llm = ChatOpenAI(model="m", api_key="none")
        assert isinstance(llm, BaseChatOpenAI)
        assert with_timeout([(llm, {})], {}, 5.0)["timeout"] > 5.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # langchain-community announces its end
def test_chat_llama_cpp():
    pytest.importorskip("langchain_community", reason="langchain-community is in the dev group only")
    with contract("langchain_community.chat_models.ChatLlamaCpp"):
        from langchain_community.chat_models import ChatLlamaCpp

        assert read_traits(ChatLlamaCpp.model_construct()).serial


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_llama_cpp():
    pytest.importorskip("langchain_community", reason="langchain-community is in the dev group only")
    with contract("langchain_community.llms.LlamaCpp"):
        from langchain_community.llms import LlamaCpp

        assert read_traits(LlamaCpp.model_construct()).serial


def test_chat_hugging_face():
    # ImportError, too: its newest version needs more than the lowest LangChain.
    pytest.importorskip(
        "langchain_huggingface.chat_models", reason="langchain-huggingface cannot be imported", exc_type=ImportError
    )
    with contract("langchain_huggingface.ChatHuggingFace"):
        from langchain_huggingface import ChatHuggingFace

        assert read_traits(ChatHuggingFace.model_construct()).adoptable


def test_hugging_face_pipeline():
    # ImportError, too: its newest version needs more than the lowest LangChain.
    pytest.importorskip(
        "langchain_huggingface.llms", reason="langchain-huggingface cannot be imported", exc_type=ImportError
    )
    with contract("langchain_huggingface.HuggingFacePipeline"):
        from langchain_huggingface import HuggingFacePipeline

        assert read_traits(HuggingFacePipeline.model_construct()).adoptable


async def test_streaming_callback_handler():
    with contract("langchain_core.tracers._streaming._StreamingCallbackHandler"):
        from langchain_core.tracers._streaming import _StreamingCallbackHandler

        found = []

        def look(value: str, config: Any) -> str:
            found.extend(h for h in config["callbacks"].handlers if isinstance(h, _StreamingCallbackHandler))
            return value

        async for _ in RunnableLambda(look).astream_events("Q", version="v2"):
            pass
        tap, run = found[0], uuid.uuid4()
        assert list(inspect.signature(tap.tap_output_iter).bind(run, iter(())).arguments) == ["run_id", "output"]
        assert list(inspect.signature(tap.tap_output_aiter).bind(run, None).arguments) == ["run_id", "output"]


def test_beta_warning():
    with contract("langchain_core._api.LangChainBetaWarning"):
        from langchain_core._api import LangChainBetaWarning
        from langchain_core.load import dumpd, load

        allowed = {"allowed_objects": "all"} if "allowed_objects" in inspect.signature(load).parameters else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load(dumpd(HumanMessage("Q")), **allowed)
        assert all(issubclass(warning.category, LangChainBetaWarning) for warning in caught)


def test_graph_bubble_up():
    pytest.importorskip("langgraph", reason="LangGraph is not installed")
    with contract("langgraph.errors.GraphBubbleUp"):
        from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand

        assert issubclass(GraphInterrupt, GraphBubbleUp)
        assert issubclass(ParentCommand, GraphBubbleUp)
        assert issubclass(GraphBubbleUp, Exception)
