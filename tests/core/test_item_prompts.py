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


@pytest.mark.parametrize("system", [None, "You are a careful translator.", "Be terse.", "You grade reviews."])
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


@pytest.mark.parametrize("combine", [all_of, any_of, first_sure])
def test_routers_that_want_points_leave_the_items_to_the_one_that_found_them(combine):
    for routers in ((AutoRouter(), lambda question: True), (lambda question: True, AutoRouter())):
        found = decided(LIST, router=combine(*routers))
        assert found.use_skeleton
        if combine is all_of or isinstance(routers[0], AutoRouter):
            assert found.items is not None
    assert not decided(LIST, router=all_of(AutoRouter(), lambda question: False)).use_skeleton
    assert decided(LIST, router=all_of(AutoRouter(), lambda question: False)).items is None
