"""Fuzzing of the routers and the gate: any question gets a decision, the same each time."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
from dataclasses import asdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.routers.instructions import instruction_lines
from skeleton_of_thought.routers.prompt import PromptRouter
from skeleton_of_thought.routers.question import read_question
from skeleton_of_thought.types import Conversation, Message, Request

LONG = os.environ.get("SOT_FAULTS_LONG") == "1"
fuzz = settings(max_examples=3000 if LONG else 60, suppress_health_check=list(HealthCheck), database=None)

WORDS = [
    *("What are the benefits of tea?", "Write ", " words", "in one sentence", "Yes or no: ", "List 7 ", "step by step"),
    *(
        "translate",
        "Was sind ",
        "哪些",
        "なぜ",
        "왜",
        "почему",
        "¿",
        "你好",
        "الفوائد",
        "\n- ",
        "\n1. ",
        "Context:\n",
        "```\n",
    ),
    *(
        "Question: ",
        "Answer:",
        "JSON",
        "{",
        "}",
        "<doc>",
        "7" * 60,
        "²",
        "½",
        "٣",
        "０",
        "don't ",
        "’",
        "“",
        "。",
        "？",
    ),
    *(
        "\ud800",
        "\udfff",
        "\0",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\u202e",
        "\u200d",
        "\ufeff",
        "İ",
        "ß",
        "ﬁ",
        "é",
        "\u0301",
    ),
]
ATOMS = st.one_of(st.sampled_from(WORDS), st.characters(exclude_categories=()))
TEXTS = st.lists(
    st.builds(lambda atom, count: atom * count, ATOMS, st.sampled_from([1, 1, 1, 1, 2, 40, 400])), max_size=10
).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
CONVERSATIONS = st.builds(
    lambda question, turns, tools: Conversation(
        (*(Message(role, text) for role, text in turns), Message("user", question)), Request(tools=tools)
    ),
    TEXTS.filter(str.strip), st.lists(st.tuples(ROLES, TEXTS), max_size=3), st.booleans(),
)  # fmt: skip


@fuzz
@given(conversation=CONVERSATIONS)
def test_every_router_decides(conversation):
    reply = conversation.question
    for router in (
        Gate(),
        EmbeddedRouter(),
        AutoRouter(),
        AutoRouter(guard=CostGuard()),
        PromptRouter(lambda _: reply),
    ):
        decision = router.route(conversation)
        assert isinstance(decision.use_skeleton, bool)
        assert decision.score is None or 0 <= decision.score <= 1
        assert router.route(conversation) == decision
        assert pickle.loads(pickle.dumps(decision)) == decision
        json.loads(json.dumps(asdict(decision)))


@fuzz
@given(text=TEXTS)
def test_every_text_is_read_as_a_question_and_as_instructions(text):
    question = read_question(text)
    assert question.length <= len(text)
    instruction_lines(text)
    row = io.StringIO()
    csv.writer(row).writerow([text])
