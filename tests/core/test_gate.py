"""The gate: our own questions, rule by rule, and the questions that no rule may hold back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.gate import RULES, Gate
from skeleton_of_thought.routers.measures import read_labels
from skeleton_of_thought.routers.question import find_question
from skeleton_of_thought.types import Conversation, Message, Request

OWN = read_labels(Path(__file__).parent.parent / "data" / "router_questions.csv")
HISTORY = (Message("user", "Name two trees."), Message("assistant", "1. Oak\n2. Lime"))

HELD = {
    "follow_up": [
        "Why?",
        "And the second one?",
        "Und die dritte?",
        "Et pourquoi ?",
        "¿Y el otro?",
        "那第二个呢？",
        "なぜ？",
    ],
    "length": [
        "In one sentence, what is a fjord?",
        "Describe a fjord in 50 words.",
        "Was ist ein Fjord, in einem Satz?",
        "用一句话介绍峡湾。",
    ],
    "code": [
        "Write a Python function that adds two numbers.",
        "Why does this fail?\n```\nx = 1 +\n```",
        "Schreibe ein Skript in Bash.",
    ],
    "arithmetic": ["What is 12 * 7?", "Solve 2x + 4 = 10.", "12乘以7等于多少？"],
    "yes_no": [
        "Is a whale a fish?",
        "Ist ein Wal ein Fisch?",
        "Est-ce que la baleine est un poisson ?",
        "鲸鱼是鱼吗？",
        "鯨は魚ですか？",
    ],
    "format": ["Give me the planets as JSON.", "Make a table of the planets.", "Nenne die Planeten als Tabelle."],
    "writing": [
        "Write a poem about moss.",
        "Draft an email to my teacher.",
        "Écris un conte sur un renard.",
        "Напиши стих о море.",
    ],
    "given_text": [
        "Translate into German: Good night.",
        "Traduce al inglés: Buenas noches.",
        "Summarise this: the cat sat.",
    ],
    "fact": ["Who painted the Night Watch?", "Wann starb Bach?", "Où se trouve Quito ?", "Сколько струн у скрипки?"],
    "language": ["Bulutlar neden beyaz görünür, açıklar mısın?", "하늘은 왜 파란가요?"],
}


@pytest.mark.parametrize(("rule", "question"), [(rule, q) for rule, questions in HELD.items() for q in questions])
def test_each_rule_holds_its_questions_back_and_can_be_switched_off(rule, question):
    decision = Gate().route(Conversation.of(question))
    assert decision.use_skeleton is False
    assert decision.score == 0.0
    assert decision.reason.startswith("gate (")
    others = [name for name in RULES if name != rule]
    assert Gate(off=others).route(Conversation.of(question)).reason == f"gate ({rule}): {RULES[rule][1]}"
    assert Gate(off=RULES).route(Conversation.of(question)).use_skeleton is True


def test_the_gate_holds_back_few_of_our_questions_for_points():
    held = [q.question for q in OWN if q.use_skeleton and not Gate().route(Conversation.of(q.question)).use_skeleton]
    assert len(held) <= sum(q.use_skeleton for q in OWN) / 100, held


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "pt", "nl", "ru", "zh", "ja"])
def test_the_gate_passes_and_holds_back_questions_of_each_language(language):
    ways = Counter(
        (q.use_skeleton, Gate().route(Conversation.of(q.question)).use_skeleton) for q in OWN if q.language == language
    )
    assert ways[True, True] > 10 * ways[True, False]
    assert ways[False, False] > ways[False, True] / 2


def test_complete_questions_with_pronouns_pass_the_gate():
    for question in (
        "Why do people collect stamps, and what do they get out of it?",
        "What else can I do with old jeans?",
        "Where could a small club find sponsors?",
        "When is it better to rent than to buy?",
        "Compile a list of arguments for a longer lunch break.",
    ):
        assert Gate().route(Conversation.of(question)).use_skeleton is True, question


def test_short_questions_after_an_answer_are_follow_ups():
    for question in ("Which is taller?", "What about their leaves?", "Tell me more about the first one, please."):
        decision = Gate().route(Conversation.of(question, history=HISTORY))
        assert decision.reason.startswith("gate (follow_up)"), question
    assert (
        Gate()
        .route(Conversation.of("What are the benefits of planting trees in cities?", history=HISTORY))
        .use_skeleton
    )


def test_hints_of_an_adapter_count():
    question = (Message("user", "What are good ways to learn to swim?"),)
    assert Gate().against(question) is None
    assert "tools" in Gate().route(Conversation(question, Request(tools=True))).reason
    assert "response_format" in Gate().route(Conversation(question, Request(response_format=True))).reason
    assert "last_message" in (Gate().against((*question, Message("assistant", "Let me see."))) or "")
    assert "last_message" in (Gate().against(()) or "")
    image = Message("user", ({"type": "text", "text": "Tips for this room?"}, {"type": "image", "url": "x"}))
    assert "attachments" in (Gate().against((image,)) or "")
    alone = Message("user", ({"type": "image", "url": "x"},))
    assert Gate(off=["attachments"]).route(Conversation((alone,))).use_skeleton is True


def test_the_length_of_a_short_question_is_adjustable():
    question = Conversation.of("Describe the advantages of trams in 300 words.")
    assert Gate().route(question).use_skeleton is True
    assert "length" in Gate(max_words=300).route(question).reason


def test_custom_rules_decide():
    gate = Gate(extra=[lambda conversation: "too long" if len(conversation.question) > 40 else None])
    assert gate.route(Conversation.of("What are good ways to save money?")).use_skeleton is True
    assert (
        gate.route(Conversation.of("What are good ways to save money in a very large city?")).reason == "gate: too long"
    )


def test_bad_settings_are_refused():
    for wrong in ({"off": ["nothing"]}, {"off": "code"}, {"max_words": -1}):
        with pytest.raises(InvalidInput):
            Gate(**wrong)


async def test_the_async_method_decides_the_same():
    conversation = Conversation.of("Is a whale a fish?")
    assert await Gate().aroute(conversation) == Gate().route(conversation) == Gate().at_once(conversation)


# --- prompts that bring a context along --------------------------------------------------------------

CONTEXT = (
    "Bees need flowers, water and a dry hive. Hives are opened from April on, on warm days. Honey is taken in July."
)
FRAMES = {
    "question last": "Answer the question based only on this context:\n{context}\n\nQuestion: {question}",
    "then an answer": "{context}\n\nQuestion: {question}\nHelpful Answer:",
    "question first": "You answer questions about the garden.\nQuestion: {question}\nContext: {context}\nAnswer:",
    "query": "Context is below.\n-----\n{context}\n-----\nAnswer the query.\nQuery: {question}\nAnswer: ",
    "markdown": "## Context\n{context}\n\n**Question:** {question}",
    "tags": "<context>{context}</context>\n<question>{question}</question>",
    "examples": "Question: Is honey sweet?\nAnswer: Yes.\n\nQuestion: {question}\nAnswer:",
    "German": "Kontext: {context}\n\nFrage: {question}\nAntwort:",
    "Chinese": "上下文：{context}\n\n问题：{question}\n回答：",
    "long": "Read this:\n" + 40 * "{context} " + "\nQuestion: {question}\nAnswer:",
}


@pytest.mark.parametrize("frame", FRAMES)
def test_the_gate_reads_the_question_in_a_prompt_with_a_context(frame):
    for question, use in (
        ("What are the benefits of keeping bees?", True),
        ("What should a beginner consider before buying a hive?", True),
        ("Is honey taken in July?", False),
        ("When are hives opened?", False),
    ):
        prompt = FRAMES[frame].format(context=CONTEXT, question=question)
        assert find_question(prompt) == question
        assert AutoRouter().route(Conversation.of(prompt)).use_skeleton is use, question


@pytest.mark.parametrize(
    ("demand", "rule"),
    [
        ("Use three sentences maximum.", "length"),
        ("Answer in 30 words.", "length"),
        ("Return the answer as JSON.", "format"),
    ],
)
def test_the_gate_reads_the_answers_instructions_in_such_a_prompt(demand, rule):
    prompt = f"{demand}\n\n{CONTEXT}\n\nQuestion: What are the benefits of keeping bees?"
    assert Gate().route(Conversation.of(prompt)).reason.startswith(f"gate ({rule})")


@pytest.mark.parametrize(
    "prompt",
    [
        "Question: what you must answer\nThought: what to do\nAction: search\n\nQuestion: What are the kinds of tea?",
        "What is a question: a thing or a sentence?",
        "Question:",
        "<question>" * 2000,
        "Question: " + "word " * 200,
    ],
)
def test_the_gate_reads_any_other_prompt_as_a_whole(prompt):
    assert find_question(prompt) == prompt
