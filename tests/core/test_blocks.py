"""Content blocks of a question, and system messages, in the prompts of an answer."""

from __future__ import annotations

import pytest

from skeleton_of_thought.prompts import PromptSet, PromptTemplate
from skeleton_of_thought.templates import with_history
from skeleton_of_thought.types import Conversation, Message, Point, Prompt, Skeleton

MARK = {"cache_control": {"type": "ephemeral"}}
DOCUMENT = {"type": "text", "text": "Handbook.\nAll staff rest.", **MARK}
QUESTION = {"type": "text", "text": "What helps?"}
IMAGE = {"type": "image", "url": "https://example.org/cat.png"}
FILE = {"type": "document", "source": {"type": "text", "data": "Handbook."}, **MARK}
SKELETON = Skeleton((Point(1, "Rest"), Point(2, "Move")))


def prompts_of(conversation: Conversation, prompts: PromptSet | None = None, context: str = "") -> dict[str, Prompt]:
    """The prompts of all calls of an answer, with and without a prefill."""
    prompts = prompts or PromptSet()
    size = {"max_points": 5, "words": 40, "context": context}
    made = {"direct": prompts.direct_prompt(conversation, context)}
    for prefill in (True, False):
        made[f"skeleton {prefill}"] = prompts.skeleton_prompt(conversation, prefill=prefill, **size)
        for point in SKELETON.points:
            made[f"point {point.index} {prefill}"] = prompts.point_prompt(
                conversation, SKELETON, point, prefill=prefill, **size
            )
    made["structured"] = prompts.skeleton_prompt(conversation, prefill=False, structured=True, **size)
    made["merge"] = prompts.merge_prompt(conversation, SKELETON, "1. Rest", max_points=5, words=40)
    return made


def asking(prompt: Prompt) -> Message:
    """The turn that asks the question."""
    return next(m for m in reversed(prompt.messages) if m.role == "user" and "What helps?" in m.text)


@pytest.mark.parametrize(
    "blocks",
    [
        (DOCUMENT, QUESTION),
        (QUESTION, DOCUMENT),
        ({"type": "text", "text": "Handbook."}, QUESTION),
        (DOCUMENT, IMAGE, QUESTION),
        (DOCUMENT, {"type": "text", "text": "More."}, QUESTION, IMAGE),
        ({**QUESTION, **MARK},),
        (FILE, QUESTION),
        ({"cachePoint": {"type": "default"}}, QUESTION),
        ({"type": "input_text", "text": "Handbook."}, {"type": "input_text", "text": "What helps?"}),
    ],
)
@pytest.mark.parametrize("context", ["", "A fact."])
def test_blocks_reach_every_call_unchanged_and_in_order(blocks, context):
    for name, prompt in prompts_of(Conversation((Message("user", blocks),)), context=context).items():
        content = asking(prompt).content
        assert isinstance(content, tuple), name
        at = content.index(blocks[0])
        assert content[at : at + len(blocks)] == blocks, name
        # What stands before the blocks is the same in all calls, so that a provider's cache serves them.
        before = "".join(block["text"] for block in content[:at])
        assert bool(before) == (bool(context) and name != "merge"), name


def test_the_instruction_is_a_block_of_its_own_type():
    blocks = ({"type": "input_text", "text": "Handbook."}, {"type": "input_text", "text": "What helps?"})
    prompt = prompts_of(Conversation((Message("user", blocks),)))["skeleton False"]
    assert {block["type"] for block in prompt.messages[-1].content} == {"input_text"}


def test_one_plain_text_stays_a_text_with_its_attachments_after_it():
    plain = prompts_of(Conversation((Message("user", (QUESTION,)),)))["skeleton False"]
    assert isinstance(plain.messages[-1].content, str)
    seen = prompts_of(Conversation((Message("user", (QUESTION, IMAGE)),)))["skeleton False"]
    assert [block["type"] for block in seen.messages[-1].content] == ["text", "image"]
    assert seen.messages[-1].content[0]["text"].startswith("What helps?\n\nWrite")


def test_a_template_of_the_callers_own_shows_the_blocks_where_it_names_the_question():
    own = PromptSet(skeleton="Customer: {question}\nMake an outline.", point="{question}: {title}")
    made = prompts_of(Conversation((Message("user", (DOCUMENT, QUESTION)),)), own)
    first, *blocks, last = made["skeleton False"].messages[-1].content
    assert (first["text"], blocks, last["text"]) == ("Customer: ", [DOCUMENT, QUESTION], "\nMake an outline.")
    assert made["point 2 False"].messages[-1].content == (DOCUMENT, QUESTION, {"type": "text", "text": ": Move"})


def test_a_template_without_the_question_shows_the_attachments_alone():
    own = PromptSet(point="Write about {title}.")
    prompt = prompts_of(Conversation((Message("user", (DOCUMENT, QUESTION, IMAGE)),)), own)["point 1 False"]
    assert prompt.messages[-1].content == ({"type": "text", "text": "Write about Rest."}, IMAGE)


def test_a_template_that_places_the_attachments_itself_is_left_alone():
    class Own(PromptTemplate):
        def render(self, conversation, values, *, prefill):
            return Prompt((Message("user", (*conversation.attachments, {"type": "text", "text": values["question"]})),))

    prompt = prompts_of(Conversation((Message("user", (DOCUMENT, QUESTION, IMAGE)),)), PromptSet(point=Own("{title}")))[
        "point 1 False"
    ]
    assert [block["type"] for block in prompt.messages[-1].content] == ["image", "text"]


def test_earlier_turns_keep_their_blocks_and_are_not_taken_for_the_question():
    earlier = Message("user", (DOCUMENT, QUESTION), raw=object())
    conversation = Conversation((earlier, Message("assistant", "Rest."), Message("user", (DOCUMENT, QUESTION))))
    for prompt in prompts_of(conversation).values():
        assert earlier in [m for m in prompt.messages if m is earlier]
        assert asking(prompt) is not earlier
        assert asking(prompt).content[:2] == (DOCUMENT, QUESTION)


# --- text ---


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["A document.", "A question?"], "A document.\n\nA question?"),
        (["A document. ", "A question?"], "A document. \n\nA question?"),
        (["A document.\n", "A question?"], "A document.\nA question?"),
        (["A document.", "\nA question?"], "A document.\nA question?"),
        (["", "A question?", ""], "A question?"),
        (["One.", "Two.", "Three?"], "One.\n\nTwo.\n\nThree?"),
    ],
)
def test_blocks_as_one_text_stand_apart(texts, whole):
    blocks = tuple({"type": "text", "text": text} for text in texts)
    assert Message("user", blocks).text == whole
    assert Message("system", blocks).text == whole
    assert Conversation((Message("user", blocks),)).question == whole
    # A model's text may be cut into blocks anywhere, as citations do.
    assert Message("assistant", blocks).text == "".join(texts)


# --- system messages ---


def test_the_templates_system_message_and_the_callers_become_one():
    conversation = Conversation.of(
        "Why?", system="Be kind.", history=[Message("user", "Hi"), Message("assistant", "Yo")]
    )
    turns = (Message("system", "You plan."), Message("user", "Plan: Why?"))
    assert [(m.role, m.text) for m in with_history(turns, conversation)] == [
        ("system", "Be kind.\n\nYou plan."),
        ("user", "Hi"),
        ("assistant", "Yo"),
        ("user", "Plan: Why?"),
    ]


def test_blocks_of_system_messages_stay_apart():
    cached = ({"type": "text", "text": "Be kind.", **MARK},)
    conversation = Conversation((Message("system", cached, raw=object()), Message("user", "Why?")))
    merged, _ = with_history((Message("system", "You plan."), Message("user", "Why?")), conversation)
    assert merged.content == (*cached, {"type": "text", "text": "You plan."})
    assert merged.raw is None


@pytest.mark.parametrize("count", [1, 2])
def test_system_messages_of_the_caller_alone_are_untouched(count):
    own = tuple(Message("system", f"Rule {i}.", raw=object()) for i in range(count))
    made = with_history((Message("user", "Why?"),), Conversation((*own, Message("user", "Why?"))))
    assert all(got is given for got, given in zip(made, own, strict=False))


def test_two_system_messages_of_a_template_become_one():
    turns = (Message("system", "One."), Message("system", ""), Message("system", "Two."), Message("user", "Why?"))
    assert [m.text for m in with_history(turns, Conversation.of("Why?"))] == ["One.\n\nTwo.", "Why?"]
