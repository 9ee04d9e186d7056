"""Tasks around a query: system prompts of the LLM, templates of direct answers, and LlamaIndex's own prompts."""

from __future__ import annotations

import pytest
from installed_prompts import fanned_out, installed_prompt, is_of_items, prompt_values
from llama_index.core.base.llms.types import MessageRole
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.query_engine import TransformQueryEngine

from llama_index_sot import SkeletonOfThoughtQueryEngine, SkeletonOfThoughtSelector, SkeletonOfThoughtSynthesizer
from skeleton_of_thought import AutoRouter
from skeleton_of_thought.types import Conversation, Message

POINTS = "What are the main benefits of regular exercise?"
TITLES = ["Move", "Drink water", "Sleep more"]


@pytest.fixture
def make_llm(LLMClass, kit):
    def make(**fields):
        return LLMClass(script=kit.answering(TITLES, direct="Just so."), **fields)

    return make


def route(response):
    return response.metadata["sot"]["route"]


@pytest.mark.parametrize(
    ("system", "wanted"),
    [
        ("Translate the user's sentence into French.", "direct"),
        ("Answer in one sentence.", "direct"),
        ("Extract the keywords of the message.", "direct"),
        ("You are a kind doctor. Answer in French.", "skeleton"),
        (None, "skeleton"),
    ],
)
async def test_the_system_prompt_of_the_llm_counts(make_llm, kit, system, wanted):
    engine = SkeletonOfThoughtQueryEngine(make_llm(system_prompt=system))
    assert route(engine.query(POINTS)) == wanted
    assert route(await engine.aquery(POINTS)) == wanted
    synthesizer = SkeletonOfThoughtSynthesizer(make_llm(system_prompt=system))
    assert route(synthesizer.synthesize(POINTS, [kit.node("a", "Bees fly.")])) == wanted


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("Translate the question into German.\n{context_str}\n{query_str}", "direct"),
        ("Say whether the context answers the question: YES or NO.\n{context_str}\nQuestion: {query_str}", "direct"),
        ("Context: {context_str}\nIn three sentences at most, answer: {query_str}", "direct"),
        ("Context: {context_str}\nAnswer kindly, with the context: {query_str}", "skeleton"),
    ],
)
async def test_the_template_of_a_direct_answer_counts(make_llm, kit, template, wanted):
    nodes = [kit.node("a", "Translate the label. Return JSON.")]
    synthesizer = SkeletonOfThoughtSynthesizer(make_llm(), direct_template=PromptTemplate(template))
    assert route(synthesizer.synthesize(POINTS, nodes)) == wanted
    assert route(await synthesizer.asynthesize(POINTS, nodes)) == wanted
    # Without nodes the question is asked as it is.
    engine = SkeletonOfThoughtQueryEngine.from_defaults(make_llm(), direct_template=PromptTemplate(template))
    assert route(engine.query(POINTS)) == "skeleton"


def test_a_function_of_the_query_still_gets_the_query_alone(make_llm, kit):
    asked = []
    synthesizer = SkeletonOfThoughtSynthesizer(
        make_llm(system_prompt="Translate into French."),
        router=lambda query: bool(asked.append(query)) or True,
        direct_template=PromptTemplate("Repeat: {query_str} {context_str}"),
    )
    assert route(synthesizer.synthesize(POINTS, [kit.node("a", "Bees fly.")])) == "skeleton"
    assert asked == [POINTS]


def test_hyde_over_the_engine_asks_for_points(make_llm):
    hyde = HyDEQueryTransform(make_llm(), include_original=True)
    engine = TransformQueryEngine(SkeletonOfThoughtQueryEngine(make_llm()), hyde)
    assert route(engine.query(POINTS)) == "skeleton"


# --- prompts of the installed package -------------------------------------------------------------

DIRECT = """\
llama_index.core.prompts.default_prompts:DEFAULT_HYDE_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_CHOICE_SELECT_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_QUERY_KEYWORD_EXTRACT_TEMPLATE
llama_index.core.prompts.default_prompts:DEFAULT_KEYWORD_EXTRACT_TEMPLATE
llama_index.core.prompts.default_prompts:DEFAULT_KG_TRIPLET_EXTRACT_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_TEXT_TO_SQL_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_SUMMARY_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_SCHEMA_EXTRACT_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_REFINE_PROMPT
llama_index.core.evaluation.faithfulness:DEFAULT_EVAL_TEMPLATE
llama_index.core.evaluation.relevancy:DEFAULT_EVAL_TEMPLATE
llama_index.core.evaluation.correctness:DEFAULT_EVAL_TEMPLATE
llama_index.core.chat_engine.condense_question:DEFAULT_PROMPT
llama_index.core.retrievers.fusion_retriever:QUERY_GEN_PROMPT
llama_index.core.selectors.prompts:DEFAULT_SINGLE_SELECT_PROMPT_TMPL
llama_index.core.question_gen.prompts:DEFAULT_SUB_QUESTION_PROMPT_TMPL
""".splitlines()
KEPT = """\
llama_index.core.prompts.default_prompts:DEFAULT_TEXT_QA_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_TREE_SUMMARIZE_PROMPT
llama_index.core.prompts.default_prompts:DEFAULT_SIMPLE_INPUT_PROMPT
llama_index.core.prompts.chat_prompts:CHAT_TEXT_QA_PROMPT
llama_index.core.query_engine.citation_query_engine:CITATION_QA_TEMPLATE
""".splitlines()


def conversation_of(path):
    """The conversation of a prompt that is filled in with a question for points."""
    prompt = installed_prompt(path)
    if isinstance(prompt, str):
        prompt = PromptTemplate(prompt)
    messages = prompt.format_messages(**prompt_values(prompt.template_vars, POINTS))
    roles = {MessageRole.SYSTEM: "system", MessageRole.ASSISTANT: "assistant"}
    return Conversation(tuple(Message(roles.get(one.role, "user"), one.content) for one in messages))


@pytest.mark.parametrize("path", DIRECT)
def test_prompts_with_another_task_go_direct(path):
    conversation = conversation_of(path)
    assert AutoRouter().route(conversation).use_skeleton is False
    if len(conversation.messages) == 1:
        selected = SkeletonOfThoughtSelector().select(["points", "as it is"], conversation.question)
        assert selected.ind == 1


@pytest.mark.parametrize("path", KEPT)
def test_prompts_that_ask_for_an_answer_keep_the_skeleton(path):
    decision = AutoRouter().route(conversation_of(path))
    assert decision.use_skeleton is True, decision.reason


def test_a_chat_template_s_system_message_counts(make_llm, kit):
    template = ChatPromptTemplate.from_messages(
        [("system", "Summarise the context."), ("user", "{query_str} {context_str}")]
    )
    synthesizer = SkeletonOfThoughtSynthesizer(make_llm(), direct_template=template)
    assert route(synthesizer.synthesize(POINTS, [kit.node("a", "Bees fly.")])) == "direct"


def test_no_prompt_of_the_package_is_answered_item_by_item():
    # Three are the query itself, with no more than a wish for its form; the fourth is the result of a tool.
    but = ["DEFAULT_SIMPLE_INPUT_PROMPT", "CHAT_SIMPLE_INPUT_PROMPT", "DEFAULT_IMAGE_OUTPUT_PROMPT"]
    but.append("DEFAULT_HANDOFF_OUTPUT_PROMPT")
    assert not fanned_out("llama_index.core", but=but)
    assert is_of_items([("user", "Translate this into French, Spanish and German: The cat sits on the mat.")])
