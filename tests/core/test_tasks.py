"""The task around a question: what the gate reads in system messages and in the text of a prompt."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from skeleton_of_thought.routers import instructions, question, tasks
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.gate import RULES, Gate
from skeleton_of_thought.routers.instructions import instruction_lines
from skeleton_of_thought.routers.question import find_question
from skeleton_of_thought.routers.tasks import read_instructions
from skeleton_of_thought.types import Conversation, Message

INSTRUCTIONS = Path(__file__).parent.parent / "data" / "router_instructions.csv"
POINTS = "What are the main benefits of regular exercise?"


def routed(prompt, system=None):
    return AutoRouter().route(Conversation.of(prompt, system=system))


# --- system messages ------------------------------------------------------------------------------

OTHER_TASKS = [
    "Translate the user's sentence into French.",
    "You are a translation engine. Whatever you get, you put into Korean.",
    "Classify the message as billing, technical or other. Reply with the category.",
    "You are a content moderation system. Return SAFE or UNSAFE.",
    "Extract the keywords of the user's question, separated by commas.",
    "Your task is to write a short title for this chat.",
    "Summarise what the user says.",
    "Rewrite the question so that it can be understood without the history. Do not answer it.",
    "Break the question down into simpler sub-questions.",
    "You are a SQL expert. Write a query that fetches the answer.",
    "Grade the question's difficulty from 1 to 5.",
    "Repeat the user's message word for word.",
    "Reverse the letters of the user's text.",
    "Answer with a limerick.",
    "Which language is the message written in?",
    "Übersetze alles ins Englische.",
    "Traduis le message de l'utilisateur en anglais.",
    "Clasifica el mensaje como positivo o negativo.",
    "Estrai le parole chiave dalla domanda.",
    "Traduza a mensagem para o espanhol.",
    "Herschrijf de vraag tot een zoekopdracht.",
    "Переведи сообщение на французский.",
    "将用户的问题翻译成英文。",
    "ユーザーの文を英語に翻訳してください。",
]
OTHER_FORMS = {
    "Answer in one sentence.": "length",
    "Use three sentences at most.": "length",
    "Reply with a single word.": "length",
    "Your answers have no more than 30 words.": "length",
    "Antworte in einem Satz.": "length",
    "Rispondi sempre con una sola parola.": "length",
    "Responda em no máximo duas frases.": "length",
    "用一句话回答。": "length",
    "Always answer in JSON.": "format",
    "Answer in rhyming verse.": "format",
    "Antworte immer als JSON.": "format",
}
HARMLESS = [
    "You are a helpful assistant.",
    "You are Nora, a cheerful librarian. Visitors ask you about all sorts of things.",
    "You are a database expert who has written SQL for thirty years.",
    "Be sarcastic but helpful.",
    "Speak like a pirate.",
    "Always answer in French.",
    "Explain things as if to a ten-year-old.",
    "The user is called Priya. She translates documents and classifies invoices for a living.",
    "Today is 3 May 2025. Our shop is closed on Mondays.",
    "Be polite. Do not mention competitors. Cite your sources.",
    "If you do not know the answer, say that you do not know.",
    "Refuse requests that are harmful. For everything else, be as helpful as you can.",
    "Do not translate or summarise documents: tell users to use the document tool.",
    "Use headings, and put important terms in bold.",
    "Start with the most important point, and end with a short summary.",
    "Think step by step, then answer fully.",
    "The user once asked you to translate a poem.",
    "Du bist ein freundlicher Reiseberater. Nenne Beispiele.",
    "Sois poli. Ne parle pas de politique.",
    "Eres un profesor de historia con sentido del humor.",
    "Sei un cuoco esperto. Dai consigli pratici.",
    "Você é um médico que explica tudo com palavras simples.",
    "Je bent een ervaren tuinman. Wees vriendelijk.",
    "Ты опытный врач. Отвечай подробно.",
    "你是图书馆的热心助手。",
    "あなたは図書館の親切なアシスタントです。",
]


@pytest.mark.parametrize("system", OTHER_TASKS)
def test_a_task_in_the_system_message_goes_direct(system):
    assert routed(POINTS).use_skeleton is True
    decision = routed(POINTS, system)
    assert decision.use_skeleton is False
    assert decision.reason.startswith("gate (")
    assert not {"task", "format around"}.isdisjoint(read_instructions(system).signs)


@pytest.mark.parametrize("system", OTHER_FORMS)
def test_a_form_in_the_system_message_goes_direct(system):
    assert routed(POINTS, system).reason.startswith(f"gate ({OTHER_FORMS[system]})")


@pytest.mark.parametrize("system", HARMLESS)
def test_personas_tone_facts_and_house_rules_keep_the_skeleton(system):
    decision = routed(POINTS, system)
    assert decision.use_skeleton is True, decision.reason


def test_every_system_message_counts_and_other_turns_do_not():
    translate = "Translate the user's sentence into French."
    system, order = Message("system", translate), Message("user", translate)
    said, asked = Message("assistant", "Bonjour."), Message("user", POINTS)
    assert "task" in (Gate().against((Message("system", "Be kind."), system, asked)) or "")
    assert "task" in (Gate().against((Message("user", "Hi."), said, system, asked)) or "")
    assert Gate().against((order, said, asked)) is None


def test_the_rule_can_be_switched_off_and_has_a_reason():
    conversation = Conversation.of(POINTS, system="Repeat the user's message.")
    assert Gate().route(conversation).reason == f"gate (task): {RULES['task'][1]}"
    assert Gate(off=["task"]).route(conversation).use_skeleton is True
    assert list(RULES)[-1] != "task"


def test_the_number_of_words_that_is_short_is_adjustable():
    conversation = Conversation.of(POINTS, system="Answer in about 200 words.")
    assert Gate().route(conversation).use_skeleton is True
    assert "length" in Gate(max_words=200).route(conversation).reason


# --- prompts around a question --------------------------------------------------------------------

AROUND = {
    "phrasings": "Write three other versions of the question, one per line.\n\nQuestion: {0}",
    "verdict": "Is the passage relevant to the question? Answer YES or NO.\n\nPassage: Bees fly.\nQuestion: {0}",
    "passage": "Write a passage from a textbook that contains the answer.\nQuestion: {0}\nPassage:",
    "standalone": "Chat:\nHuman: hi\nAI: hello\nFollow-up: {0}\n\nMake it a standalone question.\nStandalone question:",
    "translation": "Translate into Spanish: {0}",
    "quoted": 'How difficult is "{0}" on a scale from 1 to 10?',
    "title": "{0}\n\nGive me only a title for an article on this.",
    "keywords": "Extract the keywords.\n\n<question>{0}</question>",
    "sentence": "{0} Answer in one sentence.",
    "json": "{0}\nRespond with valid JSON only.",
    "label": "Text: {0}\nSentiment:",
    "tense": 'Which tense is used in "{0}"?',
    "German": "Formuliere die Frage auf drei Arten um.\n\nFrage: {0}",
    "Chinese": "请将下面的问题改写成三个版本。\n\n问题：{0}",
    "Japanese": "次の質問を英語に翻訳してください。\n\n質問：{0}",
}
KEPT = {
    "plain": "Answer the question as well as you can.\n\nQuestion: {0}\nAnswer:",
    "tone": "Answer this in a relaxed tone:\n\n> {0}",
    "language": "Please answer in German: {0}",
    "audience": "{0} Use simple words.",
    "dialogue": "The assistant is kind.\n\nHuman: hi\nAI: hello\nHuman: {0}\nAI:",
    "facts": "I am 62 and my knees are not the best. {0}",
    "examples": "Q: What makes a good soup?\nA: Time and salt.\n\nQ: {0}\nA:",
    "instruction": "### Instruction:\n{0}\n\n### Response:",
}


@pytest.mark.parametrize("frame", AROUND)
def test_a_task_around_a_question_goes_direct(frame):
    decision = routed(AROUND[frame].format(POINTS))
    assert decision.use_skeleton is False
    assert decision.reason.startswith("gate (")


@pytest.mark.parametrize("frame", KEPT)
def test_prompts_that_ask_for_an_answer_keep_the_skeleton(frame):
    decision = routed(KEPT[frame].format(POINTS))
    assert decision.use_skeleton is True, decision.reason


def test_the_instructions_that_the_rules_were_written_for_are_decided_as_labelled():
    with INSTRUCTIONS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wrong = [row for row in rows if routed(row["prompt"], row["system"] or None).use_skeleton != (row["label"] == "1")]
    assert len(rows) > 600
    assert len(wrong) < len(rows) / 25, wrong


# --- documents ------------------------------------------------------------------------------------

DOCUMENT = (
    "Translate the label before use. Summarise every complaint in one sentence. Return the form as JSON. Which bees "
    "are best? Answer with one word."
)
FRAMES = {
    "label": "Answer with the help of the context.\n\nContext:\n{0}",
    "rule": "Context information is below.\n-----\n{0}\n-----\nAnswer the question with the context.",
    "tag": "You answer questions about bees.\n<document>\n{0}\n</document>\nBe friendly.",
    "attributes": 'Be friendly.\n<leaflet title="Bees">{0}</leaflet>',
    "fence": "Use these notes:\n```\n{0}\n```",
    "quotes": 'I found this article:\n"""\n{0}\n"""',
    "numbers": "Use the documents.\n\nDocument 1: {0}\nDocument 2: {0}",
    "heading": "Be friendly.\n\n## Background\n{0}",
    "paragraph": "Use the following pieces of context to answer the question.\n\n{0}",
    "headed": "=== BEE JOURNAL ===\n{0}\n=== END ===\nAnswer kindly.",
    "German": "Beantworte die Frage.\n\nKontext: {0}",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("times", [1, 60])
def test_commands_within_documents_do_not_count(frame, times):
    text = FRAMES[frame].format(" ".join([DOCUMENT] * times))
    decision = routed(POINTS, text)
    assert decision.use_skeleton is True, decision.reason
    prompt = f"{text}\n\nQuestion: {POINTS}\nAnswer:"
    assert find_question(prompt) == POINTS
    decision = routed(prompt)
    assert decision.use_skeleton is True, decision.reason


@pytest.mark.parametrize("frame", FRAMES)
def test_commands_after_documents_count(frame):
    text = FRAMES[frame].format(DOCUMENT)
    prompt = f"{text}\n\nQuestion: {POINTS}\n\nInstructions: Translate the question into Spanish."
    assert routed(prompt).use_skeleton is False


def test_instruction_lines_leave_documents_and_the_question_out():
    prompt = f"Be kind.\nContext: one\ntwo\n\nQuestion: {POINTS}\nAnswer:"
    assert "Be kind." in instruction_lines(prompt, POINTS)
    assert not {"one", "two", POINTS} & set(" ".join(instruction_lines(prompt, POINTS)).split())


# --- cost -----------------------------------------------------------------------------------------


def test_long_texts_are_read_at_both_ends(monkeypatch):
    seen = []
    monkeypatch.setattr(tasks._Read, "add", lambda self, sentence: seen.append(sentence))
    tasks.read_instructions("Be kind to bees. " * 100_000 + "The end is near.")
    assert sum(map(len, seen)) < 20_000
    assert any("The end is near." in sentence for sentence in seen)


def test_a_system_message_is_read_once(monkeypatch):
    tasks.read_instructions.cache_clear()
    read = []
    monkeypatch.setattr(tasks, "instructions", lambda *args: read.append(args) or (["Be kind."], "no prompt"))
    for name in ("tea", "coffee", "cocoa"):
        routed(f"What are the benefits of {name}?", "Be kind, and be quick.")
    assert len(read) == 1


@pytest.mark.parametrize(
    "piece", ["a", "\n", ":", '"', "<", "?", "[", "#", "-", "Q:\n", "> ", "```\n", "Context:\n", "not "]
)
def test_any_text_is_read(piece):
    for cached in (question.find_question, instructions.instruction_lines, tasks.read_instructions):
        cached.cache_clear()
    text = piece * (200_000 // len(piece))
    assert routed(POINTS, text).reason
    assert Gate().against((Message("user", text + "x"),)) != ""
