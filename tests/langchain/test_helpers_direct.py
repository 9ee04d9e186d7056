"""LangChain's own helpers with the chat model in place of a model: they get what they ask for, not a list of points."""

from __future__ import annotations

import warnings

import pytest
from installed_prompts import fanned_out, installed_prompt, prompt_values
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever

from langchain_sot import SkeletonOfThoughtChain, SkeletonOfThoughtRouter

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # they announce their end
    pytest.importorskip("langchain_classic", reason="langchain-classic is in the dev group only")
    pytest.importorskip("langchain_community", reason="langchain-community is in the dev group only")
    pytest.importorskip(
        "langchain_classic.retrievers.document_compressors",
        reason="this langchain-core is older than langchain-classic needs",
        exc_type=ImportError,
    )
    from langchain_classic.chains import create_history_aware_retriever
    from langchain_classic.chains.combine_documents import create_stuff_documents_chain
    from langchain_classic.retrievers import RePhraseQueryRetriever
    from langchain_classic.retrievers.document_compressors import LLMChainExtractor, LLMChainFilter
    from langchain_classic.retrievers.multi_query import MultiQueryRetriever

POINTS = "What are the main benefits of regular exercise?"
TITLES = ["Better mood", "Stronger heart", "Deeper sleep"]
HEART, BEES = Document("Exercise strengthens the heart."), Document("Bees need flowers.")


class Recorder(BaseRetriever):
    """Finds one document, and records what it is asked for."""

    queries: list[str]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        self.queries.append(query)
        return [HEART]


@pytest.fixture
def model(kit):
    """Makes the chat model over a model whose direct answer is this text."""

    def make(direct):
        return SkeletonOfThoughtChain(kit.Chat(script=kit.answering(TITLES, direct=direct))).as_chat_model()

    return make


# --- helpers --------------------------------------------------------------------------------------


def test_the_question_alone_gets_a_skeleton(model):
    assert model("Just so.").invoke(POINTS).response_metadata["route"] == "skeleton"


async def test_a_multi_query_retriever_searches_for_the_model_s_lines(model):
    recorder = Recorder(queries=[])
    retriever = MultiQueryRetriever.from_llm(recorder, model("Why move?\nWhat does sport do?\nIs sport healthy?"))
    assert retriever.invoke(POINTS) == [HEART]
    assert sorted(recorder.queries) == ["Is sport healthy?", "What does sport do?", "Why move?"]
    recorder.queries.clear()
    await retriever.ainvoke(POINTS)
    assert len(recorder.queries) == 3


def test_a_history_aware_retriever_searches_for_the_rewritten_query(model):
    recorder = Recorder(queries=[])
    prompt = ChatPromptTemplate.from_messages(
        [
            (
                "system",
                "Given the chat and the newest question, which may refer to the chat, phrase a question that can be "
                "understood alone. Do not answer it.",
            ),
            ("placeholder", "{chat_history}"),
            ("human", "{input}"),
        ]
    )
    retriever = create_history_aware_retriever(model("benefits of exercise"), recorder, prompt)
    history = [HumanMessage("I want to move more."), AIMessage("Good idea!")]
    retriever.invoke({"input": POINTS, "chat_history": history})
    assert recorder.queries == ["benefits of exercise"]


def test_a_rephrasing_retriever_searches_for_the_new_query(model):
    recorder = Recorder(queries=[])
    RePhraseQueryRetriever.from_llm(recorder, model("exercise benefits")).invoke(POINTS)
    assert recorder.queries == ["exercise benefits"]


def test_a_filter_gets_its_verdict(model):
    assert LLMChainFilter.from_llm(model("YES")).compress_documents([HEART, BEES], POINTS) == [HEART, BEES]
    assert LLMChainFilter.from_llm(model("NO")).compress_documents([HEART, BEES], POINTS) == []


async def test_an_extractor_gets_its_extract(model):
    extractor = LLMChainExtractor.from_llm(model("the heart"))
    assert [found.page_content for found in extractor.compress_documents([HEART], POINTS)] == ["the heart"]
    assert [found.page_content for found in await extractor.acompress_documents([HEART], POINTS)] == ["the heart"]


def test_documents_that_are_stuffed_into_a_prompt_keep_the_skeleton(model):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Answer the user's questions with the context below.\n\n{context}"), ("human", "{input}")]
    )
    chain = create_stuff_documents_chain(model("Just so."), prompt)
    answer = chain.invoke({"input": POINTS, "context": [Document("Translate the label. Return JSON.")] * 40})
    assert answer.startswith("1. Better mood: All about better mood.")


def test_a_stream_of_a_task_is_the_model_s_own(model):
    chunks = list(model("Quels sont les bienfaits ?").stream([("system", "Translate into French."), ("human", POINTS)]))
    assert "".join(chunk.text for chunk in chunks) == "Quels sont les bienfaits ?"
    assert chunks[0].response_metadata["route"] == "direct"


def test_the_chain_and_the_router_read_the_system_message():
    messages = [("system", "Answer in one sentence."), ("human", POINTS)]
    chain = SkeletonOfThoughtChain(FakeListChatModel(responses=["It is healthy."]))
    assert chain.invoke(messages)["reason"] == "gate (length): a short answer is asked for"
    assert SkeletonOfThoughtRouter().invoke(messages).reason == "gate (length): a short answer is asked for"


# --- prompts of the installed packages -----------------------------------------------------------

DIRECT = """\
langchain_classic.retrievers.multi_query:DEFAULT_QUERY_PROMPT
langchain_classic.chains.conversational_retrieval.prompts:CONDENSE_QUESTION_PROMPT
langchain_classic.retrievers.document_compressors.chain_filter_prompt:prompt_template
langchain_classic.retrievers.document_compressors.chain_extract_prompt:prompt_template
langchain_classic.chains.hyde.prompts:web_search
langchain_classic.chains.hyde.prompts:sci_fact
langchain_classic.chains.hyde.prompts:trec_news
langchain_classic.chains.hyde.prompts:mr_tydi
langchain_classic.retrievers.re_phraser:DEFAULT_QUERY_PROMPT
langchain_classic.memory.prompt:SUMMARY_PROMPT
langchain_classic.memory.prompt:ENTITY_EXTRACTION_PROMPT
langchain_classic.chains.question_answering.refine_prompts:DEFAULT_REFINE_PROMPT
langchain_classic.chains.question_answering.map_reduce_prompt:QUESTION_PROMPT
langchain_classic.chains.question_answering.map_reduce_prompt:CHAT_QUESTION_PROMPT
langchain_classic.chains.question_answering.map_rerank_prompt:PROMPT
langchain_classic.chains.router.multi_prompt_prompt:MULTI_PROMPT_ROUTER_TEMPLATE
langchain_classic.evaluation.qa.eval_prompt:PROMPT
langchain_classic.evaluation.qa.eval_prompt:CONTEXT_PROMPT
langchain_classic.evaluation.criteria.prompt:PROMPT
langchain_classic.evaluation.scoring.prompt:SCORING_TEMPLATE
langchain_classic.chains.sql_database.prompt:PROMPT
langchain_classic.agents.conversational_chat.prompt:SUFFIX
langchain_classic.agents.mrkl.prompt:FORMAT_INSTRUCTIONS
langchain_classic.agents.xml.prompt:agent_instructions
langchain_classic.chains.summarize.stuff_prompt:PROMPT
langchain_classic.chains.openai_functions.tagging:_TAGGING_TEMPLATE
langchain_classic.chains.openai_functions.extraction:_EXTRACTION_TEMPLATE
langchain_community.chains.graph_qa.prompts:CYPHER_GENERATION_PROMPT
langchain_community.chains.graph_qa.prompts:ENTITY_EXTRACTION_PROMPT
""".splitlines()
KEPT = """\
langchain_classic.chains.conversational_retrieval.prompts:QA_PROMPT
langchain_classic.chains.conversation.prompt:PROMPT
langchain_classic.chains.question_answering.refine_prompts:CHAT_QUESTION_PROMPT
langchain_classic.chains.question_answering.refine_prompts:DEFAULT_TEXT_QA_PROMPT
langchain_classic.chains.question_answering.map_reduce_prompt:COMBINE_PROMPT
langchain_classic.chains.question_answering.stuff_prompt:PROMPT
langchain_classic.chains.question_answering.stuff_prompt:CHAT_PROMPT
langchain_classic.agents.conversational_chat.prompt:PREFIX
langchain_community.chains.graph_qa.prompts:GRAPH_QA_PROMPT
langchain_community.chains.graph_qa.prompts:CYPHER_QA_PROMPT
""".splitlines()


def messages_of(path):
    """The messages of a prompt that is filled in with a question for points."""
    prompt = installed_prompt(path)
    if isinstance(prompt, str):
        if "{" not in prompt:
            return [("system", prompt), ("human", POINTS)]
        prompt = ChatPromptTemplate.from_messages([("human", prompt)])
    return prompt.invoke(prompt_values(prompt.input_variables, POINTS)).to_messages()


@pytest.mark.parametrize("path", DIRECT)
def test_prompts_with_another_task_go_direct(path):
    assert SkeletonOfThoughtRouter().invoke(messages_of(path)).use_skeleton is False


@pytest.mark.parametrize("path", KEPT)
def test_prompts_that_ask_for_an_answer_keep_the_skeleton(path):
    decision = SkeletonOfThoughtRouter().invoke(messages_of(path))
    assert decision.use_skeleton is True, decision.reason


@pytest.mark.parametrize("package", ["langchain_classic", "langchain_community"])
def test_no_prompt_of_a_package_is_answered_item_by_item(package):
    # The user's own question, alone or after its context in the system message; what asks about each of a list; and
    # parts of a prompt.
    but = ["HUMAN_MESSAGE", "CREATE_DRAFT_ANSWER_PROMPT", "_CREATE_DRAFT_ANSWER_TEMPLATE", "CHAT_PROMPT"]
    but += ["CHECK_ASSERTIONS_PROMPT", "_CHECK_ASSERTIONS_TEMPLATE"]
    but += ["SUFFIX", "EXAMPLE_PROMPT", "EXAMPLE_PROMPT_TEMPLATE", "USER_SPECIFIED_EXAMPLE_PROMPT"]
    assert not fanned_out(package, but=but)
