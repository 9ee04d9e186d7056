"""LlamaIndex's private names, used here as our code uses them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from contracts import contract
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.response.schema import AsyncStreamingResponse
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer, get_response_synthesizer
from llama_index.core.schema import QueryBundle
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel


class Retriever(BaseRetriever):
    """Finds nothing, and records which of its methods were called."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[Any]:
        self.passed.append("_retrieve")
        return []

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[Any]:
        self.passed.append("_aretrieve")
        return []


async def test_aretrieve():
    with contract("llama_index.core.base.base_retriever.BaseRetriever._aretrieve"):
        retriever = Retriever()
        await retriever.aretrieve("Q")
        assert retriever.passed == ["_aretrieve"]
        assert inspect.getattr_static(BaseRetriever, "_aretrieve") is not None


async def test_aget_query_embedding():
    class Embedding(BaseEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            return [0.0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return [1.0]

        def _get_text_embedding(self, text: str) -> list[float]:
            return [0.0]

    with contract("llama_index.core.base.embeddings.base.BaseEmbedding._aget_query_embedding"):
        assert await Embedding().aget_query_embedding("Q") == [1.0]


async def test_apostprocess_nodes():
    class Postprocessor(BaseNodePostprocessor):
        def _postprocess_nodes(self, nodes: list[Any], query_bundle: Any = None) -> list[Any]:
            return nodes

        async def _apostprocess_nodes(self, nodes: list[Any], query_bundle: Any = None) -> list[Any]:
            return [*nodes, "mine"]

    with contract("llama_index.core.postprocessor.types.BaseNodePostprocessor._apostprocess_nodes"):
        assert inspect.getattr_static(BaseNodePostprocessor, "_apostprocess_nodes") is not None
        assert await Postprocessor().apostprocess_nodes([], query_bundle=QueryBundle("Q")) == ["mine"]


def test_response_synthesizer_of_an_engine():
    with contract("llama_index.core.query_engine.RetrieverQueryEngine._response_synthesizer"):
        synthesizer = get_response_synthesizer(llm=MockLLM())
        assert RetrieverQueryEngine(Retriever(), synthesizer)._response_synthesizer is synthesizer


def make_synthesizer(**settings: Any) -> BaseSynthesizer:
    return get_response_synthesizer(**{"llm": MockLLM(), **settings})


def test_llm_of_a_synthesizer():
    with contract("llama_index.core.response_synthesizers.BaseSynthesizer._llm"):
        llm = MockLLM()
        assert make_synthesizer(llm=llm)._llm is llm


def test_streaming_of_a_synthesizer():
    with contract("llama_index.core.response_synthesizers.BaseSynthesizer._streaming"):
        assert [make_synthesizer(streaming=streaming)._streaming for streaming in (True, False)] == [True, False]


def test_callback_manager_of_a_synthesizer():
    with contract("llama_index.core.response_synthesizers.BaseSynthesizer._callback_manager"):
        synthesizer = make_synthesizer()
        assert synthesizer._callback_manager is synthesizer.callback_manager


async def test_yield_response():
    class Response(AsyncStreamingResponse):
        async def _yield_response(self) -> Any:
            for text in ("a", "b"):
                yield text

    async def nothing() -> Any:
        for text in ():
            yield text

    with contract("llama_index.core.base.response.schema.AsyncStreamingResponse._yield_response"):
        response = Response(nothing())
        assert [text async for text in response.async_response_gen()] == ["a", "b"]


async def test_lock_of_a_response():
    async def nothing() -> Any:
        for text in ():
            yield text

    with contract("llama_index.core.base.response.schema.AsyncStreamingResponse._lock"):
        async with AsyncStreamingResponse(nothing())._lock:
            pass


class Colour(BaseModel):
    """A colour."""

    name: str


class Structured(MockLLM):
    """Streams one object, and records the keyword arguments."""

    def _structured_stream_call(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Iterator[Any]:
        yield output_cls(name=f"{llm_kwargs} {prompt_args}")

    async def _structured_astream_call(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        async def stream() -> Any:
            yield output_cls(name=f"{llm_kwargs} {prompt_args}")

        return stream()


CALL = (Colour, PromptTemplate("{thing}"))
SAID = "{'seed': 1} {'thing': 'sky'}"


def test_structured_stream_call():
    with contract("llama_index.core.llms.LLM._structured_stream_call"):
        assert callable(LLM._structured_stream_call)
        said = list(Structured().stream_structured_predict(*CALL, llm_kwargs={"seed": 1}, thing="sky"))
        assert said[-1].name == SAID


async def test_structured_astream_call():
    with contract("llama_index.core.llms.LLM._structured_astream_call"):
        assert callable(LLM._structured_astream_call)
        stream = await Structured().astream_structured_predict(*CALL, llm_kwargs={"seed": 1}, thing="sky")
        assert [said.name async for said in stream] == [SAID]


def test_prepare_chat_with_tools():
    with contract("llama_index.core.llms.function_calling.FunctionCallingLLM._prepare_chat_with_tools"):
        assert FunctionCallingLLM.__abstractmethods__ - LLM.__abstractmethods__ == {"_prepare_chat_with_tools"}


@pytest.fixture
def hugging_face(local_models: Any) -> tuple[Any, Any, Any]:
    """A `HuggingFaceLLM`, its model and its tokenizer."""
    library = pytest.importorskip("llama_index.llms.huggingface", reason="HuggingFaceLLM is not installed")
    model, tokenizer = local_models.make_llama(), local_models.make_tokenizer(local_models.PLAIN)
    return library.HuggingFaceLLM(model=model, tokenizer=tokenizer, max_new_tokens=4), model, tokenizer


def test_model_of_hugging_face_llm(hugging_face):
    llm, model, _ = hugging_face
    with contract("llama_index.llms.huggingface.HuggingFaceLLM._model"):
        assert llm._model is model


def test_tokenizer_of_hugging_face_llm(hugging_face):
    llm, _, tokenizer = hugging_face
    with contract("llama_index.llms.huggingface.HuggingFaceLLM._tokenizer"):
        assert llm._tokenizer is tokenizer


def test_messages_to_prompt_of_hugging_face_llm(hugging_face):
    llm, _, _ = hugging_face
    with contract("llama_index.llms.huggingface.HuggingFaceLLM._tokenizer_messages_to_prompt"):
        assert llm.messages_to_prompt.__func__ is type(llm)._tokenizer_messages_to_prompt


async def test_the_workflow_of_a_context():
    class Steps(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with contract("llama_index.core.workflow.Context._face"):
                face: Any = ctx._face
            with contract("llama_index.core.workflow.Context._workflow"):
                assert face._workflow is self
            return StopEvent()

    await Steps().run()
