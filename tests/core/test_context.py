"""The retrieved context in the prompts: it always reaches the model, and its place lets prompts share their start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pytest

from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.prompts import Example, FewShot, PromptSet, PromptTemplate
from skeleton_of_thought.types import Conversation, Message, Point, Prompt, Skeleton

HISTORY = (Message("user", "Hello"), Message("assistant", "Hi!"))
QUESTION = Conversation.of("How do I sleep better?", system="Be brief.", history=HISTORY)
SKELETON = Skeleton((Point(1, "Keep regular hours"), Point(2, "Dim the lights"), Point(3, "Avoid coffee")))
CONTEXT = "Blue light delays sleep.\n\nCoffee stays for {hours}, says {question}."

FILE = {
    "outline_prompt": "List what matters.\n\nQ: {request}[ROLESWITCHING assistant:]1.",
    "point_prompt": "You write one item.\n\n{request}\n\n{outline}\n\nWrite item {point}."
    "[ROLESWITCHING assistant:]{point}. {point_outline}",
}


def skeleton_prompt(prompts: PromptSet, *, context: str = CONTEXT, prefill: bool = False, structured: bool = False):
    return prompts.skeleton_prompt(
        QUESTION, max_points=10, words=40, prefill=prefill, structured=structured, context=context
    )


def point_prompt(
    prompts: PromptSet,
    index: int = 2,
    *,
    asked: Conversation = QUESTION,
    context: str = CONTEXT,
    own: bool = False,
    prefill: bool = False,
    skeleton: Skeleton = SKELETON,
) -> Prompt:
    point = skeleton.points[index - 1]
    return prompts.point_prompt(
        asked, skeleton, point, max_points=10, words=40, prefill=prefill, context=context, own_context=own
    )


def whole(prompt: Prompt) -> str:
    return "".join(message.text for message in prompt.messages) + prompt.prefill


def common_start(texts: list[str]) -> str:
    columns = zip(*texts, strict=False)
    return "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


@dataclass(frozen=True)
class Foreign:
    """A template of a framework's type, with several turns."""

    turns: tuple[tuple[str, str], ...]

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        texts = [(role, text.format(**values).strip()) for role, text in self.turns]
        return Prompt((*conversation.history, *(Message(role, text) for role, text in texts)))


KINDS: dict[str, PromptSet] = {
    "default": PromptSet(),
    "string": PromptSet(skeleton="Q: {question}", point="Q: {question}\n{skeleton}\nWrite point {index}, {title}."),
    "file": PromptSet.from_json(FILE),
    "foreign": PromptSet(
        skeleton=Foreign((("user", "Q: {question}"),)),
        point=Foreign((("user", "Q: {question}"), ("assistant", "{skeleton}"), ("user", "On with {title}"))),
    ),
    "foreign turn": PromptSet(point=Foreign((("user", "Q: {question}\n\n{skeleton}\n\nNow:\n{index}. {title}"),))),
}

kinds = pytest.mark.parametrize("prompts", KINDS.values(), ids=KINDS)
prefilled = pytest.mark.parametrize("prefill", [False, True], ids=["instruction", "prefill"])


# --- a context of the question ------------------------------------------------------------------------


@kinds
@prefilled
def test_all_prompts_of_an_answer_share_the_context_of_the_question(prompts: PromptSet, prefill: bool) -> None:
    """Otherwise a prefix cache would compute the context again for every point."""
    texts = [whole(point_prompt(prompts, index, prefill=prefill)) for index in (1, 2, 3)]
    shared = common_start(texts)
    assert CONTEXT in shared
    assert all(text.count(CONTEXT) == 1 for text in texts)
    assert shared.index(CONTEXT) < shared.index(QUESTION.question) < shared.index(SKELETON.titles[0])


@pytest.mark.parametrize("kind", ["default", "string", "foreign"])
def test_points_share_the_context_with_the_skeleton_prompt(kind: str) -> None:
    texts = [whole(skeleton_prompt(KINDS[kind])), whole(point_prompt(KINDS[kind]))]
    assert QUESTION.question in common_start(texts)
    assert CONTEXT in common_start(texts)


def test_the_context_stands_with_the_question_and_not_in_the_examples() -> None:
    plain = point_prompt(PromptSet(), context="", prefill=True)
    prompt = point_prompt(PromptSet(), prefill=True)
    changed = [i for i, (a, b) in enumerate(zip(prompt.messages, plain.messages, strict=True)) if a != b]
    # The question's turn; the skeleton and the point follow in two more.
    assert changed == [len(plain.messages) - 3]
    assert prompt.messages[changed[0]].text.endswith(plain.messages[changed[0]].text)
    skeleton = skeleton_prompt(PromptSet(), prefill=True)
    assert [CONTEXT in message.text for message in skeleton.messages].index(True) == len(skeleton.messages) - 1


def test_the_context_begins_the_turn_that_asks_the_question() -> None:
    for prompt in (skeleton_prompt(KINDS["file"]), point_prompt(KINDS["file"])):
        assert prompt.messages[-1].text.startswith("<context>")
    twice = Foreign((("user", "{question}"), ("assistant", "{skeleton}"), ("user", "For {question}, write {title}")))
    turns = point_prompt(PromptSet(point=twice)).messages[len(QUESTION.history) :]
    assert [CONTEXT in turn.text for turn in turns] == [True, False, False]


def test_eager_points_share_the_context() -> None:
    early = [Skeleton(SKELETON.points[:index]) for index in (1, 2)]
    texts = [whole(point_prompt(PromptSet(), i, skeleton=s, prefill=True)) for i, s in enumerate(early, 1)]
    assert CONTEXT in common_start(texts)


def test_a_structured_skeletons_prompt_has_the_context() -> None:
    assert CONTEXT in skeleton_prompt(PromptSet(), structured=True).messages[-1].text


# --- a context of one point ---------------------------------------------------------------------------


@kinds
@prefilled
def test_a_points_own_context_keeps_the_shared_prefix(prompts: PromptSet, prefill: bool) -> None:
    contexts = [f"Fact {index}.{{title}}" for index in (1, 2, 3)]
    texts = [
        whole(point_prompt(prompts, index, context=context, own=True, prefill=prefill))
        for index, context in enumerate(contexts, 1)
    ]
    for text, context in zip(texts, contexts, strict=True):
        assert text.count(context) == 1
        assert not any(other in text for other in contexts if other != context)
        assert text.index(context) > text.index(QUESTION.question)
    assert str(SKELETON) in common_start(texts) or "; ".join(SKELETON.titles) in common_start(texts)


def test_a_points_context_stands_before_the_instruction() -> None:
    prompt = point_prompt(PromptSet(), context="Fact.", own=True)
    before, after = prompt.messages[-1].text.split("Fact.")
    assert SKELETON.titles[2] in before
    assert 'under the heading "Dim the lights"' in after
    prompt = point_prompt(PromptSet(), context="Fact.", own=True, prefill=True)
    assert prompt.messages[-1].text.endswith("\n\nIn one or two sentences, explain: Dim the lights")
    assert "Fact." in prompt.messages[-1].text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("A\n\nB\nNow {index}", "A\n\n[c]\n\nB\nNow 2"),
        ("A\nNow {index}", "A\n[c]\n\nNow 2"),
        ("Now {index}\n\nB", "[c]\n\nNow 2\n\nB"),
        ("Write {title} of {skeleton}", f"[c]\n\nWrite Dim the lights of {SKELETON}"),
    ],
)
def test_a_points_context_stands_before_the_paragraph_that_names_the_point(template: str, expected: str) -> None:
    prompts = PromptSet(point=template, context="[{context}]")
    assert point_prompt(prompts, context="c", own=True).messages[-1].text == expected


# --- templates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "template",
    ["{question} {index}: {context}!", Foreign((("system", "Now {index}: {context}!"), ("user", "{question}")))],
    ids=["string", "foreign"],
)
def test_a_template_with_a_context_placeholder_has_the_context_only_there(template: Any, own: bool) -> None:
    prompt = point_prompt(PromptSet(point=template), context="  Facts.\n", own=own)
    assert whole(prompt).count("Facts.") == 1
    assert "2:   Facts.\n!" in whole(prompt)


def test_a_template_that_strips_the_context_still_counts_as_showing_it() -> None:
    prompt = point_prompt(PromptSet(point=Foreign((("user", "{title} {context}"),))), context="Facts.\n")
    assert prompt.messages[-1].text == "Dim the lights Facts."


def test_a_short_context_that_occurs_in_the_prompt_by_chance_is_still_added() -> None:
    prompts = PromptSet(point="{question} {title}", context="[{context}]")
    assert point_prompt(prompts, context="sleep").messages[-1].text.startswith("[sleep]\n\nHow do I sleep")


def test_a_template_without_the_question_shows_the_context() -> None:
    prompts = PromptSet(point="Write {title}.", context="[{context}]")
    assert point_prompt(prompts, context="c").messages[-1].text == "[c]\n\nWrite Dim the lights."


def test_a_template_without_a_user_turn_shows_the_context() -> None:
    prompts = PromptSet(point=Foreign((("system", "Be brief."), ("system", "Write {title}."))), context="[{context}]")
    alone = Conversation.of("Why?")
    assert point_prompt(prompts, asked=alone, context="c").messages[-1].text == "[c]\n\nWrite Dim the lights."


def test_a_template_with_varying_turns_shows_the_context() -> None:
    class Moody:
        def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
            turns = [Message("user", "So."), Message("assistant", "Yes.")] if "sleep" in values["question"] else []
            return Prompt((*turns, Message("user", values["title"])))

    assert CONTEXT in point_prompt(PromptSet(point=Moody())).messages[-1].text


@pytest.mark.parametrize("own", [False, True])
def test_attachments_stay_with_their_turn(own: bool) -> None:
    image = {"type": "image", "url": "https://example.org/cat.png"}
    asked = Conversation((Message("user", ({"type": "text", "text": "What is this?"}, image)),))
    for prefill in (False, True):
        messages = point_prompt(PromptSet(), asked=asked, own=own, prefill=prefill).messages
        (holder,) = [message for message in messages if message.attachments]
        assert "What is this?" in holder.text
        assert holder.attachments == (image,)
        assert sum(CONTEXT in message.text for message in messages) == 1


def test_the_history_stays_unchanged() -> None:
    for own in (False, True):
        messages = point_prompt(PromptSet(), own=own).messages
        assert all(a is b for a, b in zip(messages, QUESTION.history, strict=False))
        assert len(messages) == len(QUESTION.history) + 1


def test_braces_in_a_context_are_never_read_as_a_template() -> None:
    context = "{context} {question} {title} {0} {} {{x}}"
    for prompt in (
        skeleton_prompt(PromptSet(), context=context),
        point_prompt(PromptSet(), context=context),
        point_prompt(PromptSet(), context=context, own=True),
        point_prompt(PromptSet(point="{context} {title}"), context=context),
        PromptSet().direct_prompt(QUESTION, context),
        PromptSet(direct="{question}: {context}").direct_prompt(QUESTION, context),
    ):
        assert whole(prompt).count(context) == 1


@pytest.mark.parametrize("context", ["", " \n"])
@kinds
@prefilled
def test_without_a_context_prompts_are_unchanged(prompts: PromptSet, prefill: bool, context: str) -> None:
    assert isinstance(prompts.point, PromptTemplate | Foreign)
    prompt = point_prompt(prompts, context=context, prefill=prefill, own=True)
    assert "context" not in whole(prompt)
    assert prompt == point_prompt(prompts, context="", prefill=prefill)
    assert "context" not in whole(skeleton_prompt(prompts, context=context, prefill=prefill))


def test_a_context_placeholder_is_empty_without_sources() -> None:
    assert point_prompt(PromptSet(point="[{context}] {title}"), context="").messages[-1].text == "[] Dim the lights"


def test_examples_have_contexts_of_their_own() -> None:
    shown = FewShot((Example("A?", ("Colour",), " red", context="Roses."), Example("B?", ("Shape",), " round")))
    prompts = PromptSet(point=PromptTemplate("[{context}] {title}", prefill=":", few_shot=shown))
    texts = [m.text for m in point_prompt(prompts, context="Facts.", prefill=True).messages if m.role == "user"]
    assert texts == ["[Roses.] Colour", "[] Shape", "Hello", "[Facts.] Dim the lights"]


def test_examples_without_a_context_placeholder_are_unchanged() -> None:
    shown = FewShot((Example("A?", ("Colour",), " red"),), text="{question} {title}")
    prompts = PromptSet(point=PromptTemplate("{context} {title}", prefill=":", few_shot=shown), context="[{context}]")
    for own in (False, True):
        texts = [m.text for m in point_prompt(prompts, context="Facts.", own=own, prefill=True).messages]
        assert texts[1] == "A? Colour"
        assert texts[-1] == "[Facts.]\n\nHow do I sleep better? Dim the lights"


# --- the wording --------------------------------------------------------------------------------------


def test_the_wording_can_be_changed_for_all_prompts_at_once() -> None:
    prompts = PromptSet(context="Cite by number.\n{context} {question}")
    for prompt in (skeleton_prompt(prompts), point_prompt(prompts), prompts.direct_prompt(QUESTION, CONTEXT)):
        assert f"Cite by number.\n{CONTEXT} {{question}}\n\nHow do I sleep" in prompt.messages[-1].text


@pytest.mark.parametrize("wording", ["Facts:", "", PromptTemplate("{context}")], ids=str)
def test_a_wording_that_cannot_work_is_refused(wording: Any) -> None:
    with pytest.raises(PromptFileError, match=r"a string with \{context\}"):
        PromptSet(context=wording)


# --- a direct answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [PromptSet(), PromptSet(direct="Answer {question}")], ids=["default", "own"])
def test_a_direct_answer_without_a_context_sends_the_conversation_unchanged(prompts: PromptSet) -> None:
    assert prompts.direct_prompt(QUESTION).messages is QUESTION.messages
    assert prompts.direct_prompt(QUESTION, " \n").messages is QUESTION.messages


def test_a_direct_answer_has_the_context_in_its_last_turn() -> None:
    prompt = PromptSet().direct_prompt(QUESTION, CONTEXT)
    assert prompt.messages[:-1] == QUESTION.history
    text = prompt.messages[-1].text
    assert text.index(CONTEXT) < text.index(QUESTION.question)
    assert text.endswith(QUESTION.question)
    assert (prompt.prefill, prompt.hints.stop, prompt.hints.max_tokens) == ("", (), None)


def test_a_custom_direct_prompt_is_used() -> None:
    prompts = PromptSet(direct="From {context}: {question}")
    assert prompts.direct_prompt(QUESTION, "facts").messages[-1].text == "From facts: How do I sleep better?"
    template = Foreign((("user", "Well: {question}"),))
    text = PromptSet(direct=template, context="[{context}]").direct_prompt(QUESTION, "c").messages[-1].text
    assert text == "[c]\n\nWell: How do I sleep better?"
    with pytest.raises(PromptFileError, match=r"direct prompt never mentions \{question\}"):
        PromptSet(direct="From {context}.")
