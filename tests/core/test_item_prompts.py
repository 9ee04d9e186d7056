"""Prompts that hold items and ask for something else, and routers beside one that finds items."""

from __future__ import annotations

import dataclasses

import pytest

from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.base import all_of, any_of, first_sure
from skeleton_of_thought.types import Conversation, Request

LIST = "Translate these sentences into French:\n1. Good morning.\n2. Thank you.\n3. See you soon."


def decided(question, *, system=None, router=None):
    asked = dataclasses.replace(Conversation.of(question, system=system), request=Request(items=True))
    return (router or AutoRouter()).route(asked)


TARGETS = "Translate this into French, Spanish and German: The cat sits on the mat."
DIFFERENT = "Write five different poems about the sea."
QUESTIONS = (LIST, TARGETS, DIFFERENT)


@pytest.mark.parametrize("system", [None, "You are a careful translator.", "Be terse.", "Translate well."])
def test_items_are_found_under_a_system_message_that_suits_each_of_them(system):
    assert decided(LIST, system=system).items is not None


@pytest.mark.parametrize(
    "question",
    [
        "Answer the following questions:\n1. What is DNA?\n2. Why is the sky blue?\n3. Who wrote Faust?",
        "Where is the library?\n\nTranslate the sentence above into German, Dutch, and Swedish.",
        "Write a reply to each of these messages:\n\n1. Where is my order?\n2. The mug broke.\n3. Thanks a lot!",
        "Good morning.\nThank you.\nSee you soon.\n\nTranslate each of the sentences above into German:",
    ],
)
def test_a_question_among_the_items_is_no_other_question(question):
    assert decided(question).items is not None


@pytest.mark.parametrize(
    ("question", "system"),
    [
        (LIST, "Respond in valid JSON with the keys a and b."),
        (LIST, "Use this format:\nThought: what to do\nAction: the tool\nAction Input: its input"),
        (f"Context information is below.\n{LIST}\nAnswer the query.\nQuery: What is it?\nAnswer: ", None),
        (f"Read this page.\n--------------\n{LIST}\n--------------\nWhat is it about?", None),
        (f"{LIST}\n\nGive a title of this text. Title: ", None),
        (f'Write a passage that answers the question.\n\n{LIST}\n\nPassage:"""\n', None),
        (f"## Query\n{LIST}\n\n## Generated Answer\nBonjour.", None),
        (f"Here is the original query:\n{LIST}\nHere is the response given:\nNo.\nRewrite the query.", None),
        (f"<document>\n{LIST}\n</document>\nFind the spelling mistakes.", None),
    ],
)
def test_a_prompt_around_a_list_asks_for_something_else(question, system):
    assert decided(question, system=system).items is None


HARMLESS = """\
You are a helpful assistant.
You are a helpful, respectful and honest assistant. Today is Monday, and the user's name is Ann.
You are ChatGPT, a large language model trained by OpenAI. Knowledge cutoff: 2023-10.
You are Acme's support assistant. Be polite. Never speak of competitors.
You are a patient teacher. Always answer in French.
You are an assistant for question-answering tasks. If you don't know the answer, say so.
The user is a beginner. Explain things simply.
Format your answers in Markdown.
Answer the user's question as helpfully as possible.
Du bist ein hilfreicher Assistent.
Tu es un assistant utile.
Eres un asistente útil.
Você é um assistente útil.
Ты полезный помощник.
你是一个乐于助人的助手。
あなたは親切なアシスタントです。""".splitlines()


def test_a_harmless_system_message_does_not_stop_items():
    assert not [system for system in HARMLESS if any(decided(q, system=system).items is None for q in QUESTIONS)]


TASKS = """\
You rank what the user lists.
Return JSON only.
Answer in one sentence.
You are an extraction engine: output CSV
Always reply with a single table.
Summarize what the user says in one paragraph.
Write a title for the conversation.
You are a router. Pick the tool that fits the user's message.
Classify the user's message as spam or ham. Reply with one word.
Rewrite the user's message as a search query.
Translate the question into German.
Generate three search queries, one per line, for the user's question.
Say which item is the odd one out.
You are a text completion engine. Continue the text.
Turn the user's notes into a story.
You write one email from the user's notes.
Start every answer with "Dear customer," and end with a signature.
First think in <thinking> tags, then give the final answer in <answer> tags.
After the answer, add three follow-up questions.
Du sortierst, was der Nutzer aufzählt.
Antworte nur mit JSON.
Classe ce que l'utilisateur énumère.
Réponds en une phrase.
Ordena lo que enumera el usuario.
Отвечай только в формате JSON.
把用户列出的内容排序。
JSONのみで回答してください。""".splitlines()


def test_a_system_message_with_a_task_of_its_own_stops_items():
    assert not [system for system in TASKS if any(decided(q, system=system).items is not None for q in QUESTIONS)]


PROMPTS = """\
### Task:\\nGenerate 1-3 tags for the chat.\\n### Output:\\nJSON format: {"tags": []}\\n### Chat History:\\n{}
### Task:\\nSuggest 3 follow-up questions.\\n### Guidelines:\\n- Be concise.\\n### Chat History:\\nUSER: {}
Create a concise title for this chat:\\n{}
Summarize this chat in one sentence:\\n\\n{}
Generate 4 search queries related to: {}\\nOUTPUT (4 queries):
You generate multiple search queries based on one query.\\nGenerate multiple search queries related to: {}
Decompose the question into sub-questions, one per line:\\n\\n{}
Please step back and paraphrase the question to a more generic one, which is easier to answer.\\n\\n{}
Is the following request harmful? Answer yes or no.\\n\\n{}
Which of these tools fits the request?\\n- search\\n- calculator\\n- none\\n\\nRequest: {}
Improve the following prompt: {}
Write a hypothetical document that answers: {}
Search Query: {}\\nRank the 3 passages above by their relevance.
{}. Give 5 unique keywords for this document. Format as comma separated. Keywords:
{}\\n\\nThink step by step, then write the final answer after 'Answer:'.
{}\\n\\nRespond with a JSON object that has the key "answer".
{}\\n\\nTL;DR
Q: What is 2+2?\\nA: 4\\n\\nQ: {}\\nA:
Input: I like tea.\\nOutput: positive\\n\\nInput: {}\\nOutput:
Previous conversation:\\nHuman: hi\\nAI: hello\\n\\nNew human question: {}\\nResponse:
Prompt:\\n{}\\nCompletion:\\nBonjour\\n\\nThe completion is wrong. Please try again:
Fasse das folgende Gespräch zusammen:\\n{}
请为以下对话生成一个标题：\\n{}""".splitlines()


def test_a_question_inside_a_prompt_stays_a_part_of_it():
    prompts = [prompt.replace("\\n", "\n").replace("{}", question) for prompt in PROMPTS for question in QUESTIONS]
    assert not [prompt for prompt in prompts if decided(prompt).items is not None]


@pytest.mark.parametrize(
    "question",
    [
        f"Task: {LIST}",
        f"### Instruction:\n{TARGETS}",
        f"Hi! Could you help me? {TARGETS}\n\nIt is warm.\n\nBest,\nTom",
        f"I learn languages. {DIFFERENT}",
        LIST.replace("\n", "\r\n"),
    ],
)
def test_words_around_a_request_do_not_stop_it(question):
    assert decided(question).items is not None


@pytest.mark.parametrize("combine", [all_of, any_of, first_sure])
def test_routers_that_want_points_leave_the_items_to_the_one_that_found_them(combine):
    for routers in ((AutoRouter(), lambda question: True), (lambda question: True, AutoRouter())):
        found = decided(LIST, router=combine(*routers))
        assert found.use_skeleton
        if combine is all_of or isinstance(routers[0], AutoRouter):
            assert found.items is not None
    assert not decided(LIST, router=all_of(AutoRouter(), lambda question: False)).use_skeleton
    assert decided(LIST, router=all_of(AutoRouter(), lambda question: False)).items is None
