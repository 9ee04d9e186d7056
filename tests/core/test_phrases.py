"""Phrases that order another task than an answer, and phrases that only mention one: paraphrases of each rule."""

from __future__ import annotations

import pytest

from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.types import Conversation

QUESTION = "What are the main benefits of regular exercise?"
ORDERS = (
    "Never answer the question; just log it with its topic.",
    "Do not attempt to answer.",
    "You must not answer. Reply with the name of the team that should.",
    "Don't answer the user's message, only tell me whether it is polite.",
    "Without answering the question, note what it is about.",
    "Do not give the answer, whatever they say.",
    "You never give away the solution. Ask back instead.",
    "Refrain from answering. Pass the message on.",
    "The messages aren't meant for you.",
    "These questions are not addressed to you; you pass them on.",
    "Run a topic classification on every message.",
    "Carry out named entity recognition on the input.",
    "Conduct a tone analysis for each text.",
    "Perform intent detection.",
    "Do a language identification on the text.",
    "Select the agent best suited for the request.",
    "Pick the most suitable department for the caller.",
    "Choose the right tool and name it.",
    "Decide which is the most relevant category.",
    "Identify the responsible team.",
    "Possible labels: a, b, c.",
    "Allowed answers: buy, hold, sell.",
    "Output: one of news, sport, other.",
    "Verdict: keep / drop / unsure.",
    "Reply with `fresh` or `stale`.",
    'Say "hot" or "cold".',
    "Return spam or ham.",
    "At most one sentence.",
    "Max. two lines per reply.",
    "The screen cannot show more than a single line.",
    "Limit your replies to two sentences.",
    "Keep it under 100 characters.",
    "There is room for 90 characters on the display.",
    "Write one flowing paragraph.",
    "A single short paragraph per answer.",
    "Answer in one dense paragraph.",
    "Avoid bullet points.",
    "Never use lists.",
    "No bullet points, no headings.",
    "Write flowing prose.",
    "Respond with a three-paragraph essay.",
    "Answer every question as a letter.",
    "Reply in the form of a dialogue.",
    "Your output gets parsed; it is an object with the fields a and b.",
    "Whatever comes in goes out in Danish.",
    "Pull out all the names.",
    "Dig out the key terms.",
    "Slogan generator.",
    "Query rewriter.",
    "Give it a short, catchy title.",
    "You only convert currencies.",
    "Your sole task is to spot typos.",
    'For each message reply "We are closed."',
    "You send a haiku for every message.",
    "Report the reading level of each text.",
    "You turn everything into rhymes.",
    "Convert the user's message to a search phrase.",
)
"""System messages with another task, a short answer, or a format that a list breaks."""
MENTIONS = (
    "You're a poet by vocation, and you help with anything.",
    "You are a lawyer by training who answers general questions.",
    "You are a former translator and now a travel guide.",
    "You once worked as a proofreader. Help people with their questions.",
    "You must not translate documents or write code.",
    "Things you can't do: translate, summarise, classify. All other questions are welcome.",
    "You should never:\n- translate contracts\n- write poems\n- output JSON\n\nHelp with everything else.",
    "You're not asked to grade essays or to rewrite them. You answer questions.",
    "Our editors translate, summarise and proofread all day. You help customers with questions.",
    "Our sister bots: PolyBot translates, SumBot summarises. You answer questions.",
    "If the user greets you, greet back in one sentence.",
    "When somebody says thanks, reply with one word. Otherwise answer fully.",
    "If a user just makes small talk, keep it to one line; else give full answers.",
    "When the user says goodbye, say goodbye in a single sentence.",
    "You can call search(query) and classify(text).",
    "# Tools\n## translate\nTranslates a text and returns JSON.\n"
    "## summarize\nReturns a summary.\n\nIf no tool is needed, answer from your own knowledge.",
    "You may delegate to other agents: Translator, Coder. Answer general questions yourself.",
    "Earlier the user had you translate a menu and write a poem. Go on as their assistant.",
    "Documents are given as JSON. Answer from them.",
    "Never output JSON, users hate it.",
    "Don't write code. Explain things in words.",
    "Your answer is displayed as Markdown.",
    "Label the sections of your answer.",
    "Title the parts of your answer in bold.",
    "Criticise nothing, judge nothing, be kind.",
    "Make a plan in your head, then answer the user.",
    "Check silently that the question makes sense, then answer it in full.",
    "Summarise the context for yourself first, then give a complete answer.",
    "Answer from the context. Context: Sport helps. Translate this page. Answer in one word.",
    "No comments on competitors.",
    "Say which sources you used.",
    "[10:01] ann: translate this\n[10:02] bob: in one word please\n\nAnswer the customer from this chat.",
    "Mary: can you give me one word?\nJohn: no\nMary: write a poem then\nJohn: ha\n\nHelp them with their questions.",
    'In your answer, never say "it depends" or "some say".',
    "Be thorough. Instead of answering falsely, say what you do not know.",
    "You will get a question from a customer. Answer it kindly.",
    "Note to the editor: translate this page.",
    "Beantworte Fragen ausführlich. Keine Übersetzungen.",
    "Tu es un ancien traducteur; tu aides les clients.",
)
"""System messages that speak of tasks and leave the answer an answer."""
PROMPTS_WITH_TASKS = (
    "How would you say this in Welsh? '{}'",
    "how do you spell this in Morse: {}",
    "which language is this sentence in: {}",
    "need this in german: {}",
    'Convert to Morse: "{}"',
    "Question: {}\nStudent's answer: sport is fun.\n\nGrade the answer.",
    "Question: {}\n\nWhich smaller questions should we ask first? One per line.",
    "<instructions>Determine the topic of <input>.</instructions>\n<input>{}</input>",
    "{} Name only the most important one.",
    "Wie sagt man auf Englisch: „{}“",
    "Is the next sentence polite? y/n\n\n{}",
    "Tell me whether this is a question: {}",
)
"""Prompts with another task around the question."""
PROMPTS_WITH_QUESTIONS = (
    "A visitor asks: {}\n\nPlease answer the visitor.",
    "{} Think step by step before you answer.",
    "Aim for about a page. {}",
    "Based on the notes above: {}",
    "> Sport helps.\n> Translate this.\n\nWith this letter in mind, {}",
    "The user's new message: {}",
    "Next message: {}\n\nReply to the next message.",
    "Audience: managers. Tone: sober.\n\n{}",
    "One more thing before I leave: {}",
    "I am 40 and work at a desk all day. {}",
    "### Instruction:\n{}\n\n### Input:\nI am 60.\n\n### Response:",
    '{{"user": 4, "question": "{}"}}\n\nReply to the user.',
    "-----\n{}\n-----\nAnswer the question between the lines.",
)
"""Prompts that want the question answered."""


def routed(prompt: str, system: str | None = None) -> bool:
    return AutoRouter().route(Conversation.of(prompt, system=system)).use_skeleton


@pytest.mark.parametrize("system", ORDERS)
def test_an_order_of_another_task_goes_direct(system):
    assert routed(QUESTION, system) is False


@pytest.mark.parametrize("system", MENTIONS)
def test_a_task_that_is_only_mentioned_keeps_the_skeleton(system):
    assert routed(QUESTION, system) is True


@pytest.mark.parametrize("prompt", PROMPTS_WITH_TASKS)
def test_a_prompt_with_another_task_goes_direct(prompt):
    assert routed(prompt.format(QUESTION)) is False


@pytest.mark.parametrize("prompt", PROMPTS_WITH_QUESTIONS)
def test_a_prompt_that_wants_an_answer_keeps_the_skeleton(prompt):
    assert routed(prompt.format(QUESTION)) is True
