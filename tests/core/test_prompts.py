"""Prompts sent to the model: their layout, prefill or instruction, and prompt files."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.parsing.parser import parse_skeleton
from skeleton_of_thought.prompts import Example, FewShot, PromptSet, PromptTemplate
from skeleton_of_thought.templates import PLACEHOLDERS, AnswerPrompts, FilledTemplate, unknown_placeholders
from skeleton_of_thought.types import Conversation, Hints, Message, Point, Prompt, Skeleton

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "official_prompts"
QUESTION = Conversation.of("How do I sleep better?")
SKELETON = Skeleton((Point(1, "Keep regular hours"), Point(2, "Dim the lights"), Point(3, "Avoid coffee")))

# In the format of the published files; the words are our own.
FILE = {
    "outline_prompt": "List what matters for: {request}[ROLESWITCHING assistant:]1.",
    "point_prompt": "{request}\n{outline}\nWrite item {point}.[ROLESWITCHING assistant:]{point}. {point_outline}",
}


def skeleton_prompt(
    prompts: PromptSet, conversation: Conversation = QUESTION, *, prefill: bool = False, most: int = 10
) -> Prompt:
    return prompts.skeleton_prompt(conversation, max_points=most, words=40, prefill=prefill)


def point_prompt(
    prompts: PromptSet,
    index: int = 2,
    conversation: Conversation = QUESTION,
    *,
    skeleton: Skeleton = SKELETON,
    words: int = 40,
    prefill: bool = False,
) -> Prompt:
    point = skeleton.points[index - 1]
    return prompts.point_prompt(conversation, skeleton, point, max_points=10, words=words, prefill=prefill)


def common_start(texts: list[str]) -> str:
    columns = zip(*texts, strict=False)
    return "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


def all_text(prompt: Prompt) -> str:
    return "".join(message.text for message in prompt.messages) + prompt.prefill


# --- the default prompts ---------------------------------------------------------------------------


@pytest.mark.parametrize("prefill", [True, False])
def test_point_prompts_share_everything_before_their_own_title(prefill: bool) -> None:
    texts = [all_text(point_prompt(PromptSet(), index, prefill=prefill)) for index in (1, 2, 3)]
    shared = common_start(texts)
    places = [shared.index(known) for known in (QUESTION.question, *SKELETON.titles)]
    assert places == sorted(places)
    for text, point in zip(texts, SKELETON.points, strict=True):
        assert point.title in text[len(shared) :]
        # The rest is short: the shared part is computed once, the rest once per point.
        assert len(text) - len(shared) < 120 + 2 * len(point.title)


def test_the_question_comes_before_the_skeleton() -> None:
    text = all_text(point_prompt(PromptSet()))
    assert text.index(QUESTION.question) < min(text.index(title) for title in SKELETON.titles)


def test_limits_reach_the_model() -> None:
    prompts = PromptSet()
    conversation = Conversation.of("Why?")
    assert "7" in all_text(prompts.skeleton_prompt(conversation, max_points=7, words=40, prefill=False))
    assert "123" in all_text(point_prompt(prompts, words=123))


@pytest.mark.parametrize("prefill", [True, False])
def test_default_prompts_leave_no_placeholder(prefill: bool) -> None:
    # Small models copy placeholders ("[Add a title]", "1. <point>", "1. ...") instead of filling them in.
    prompts = PromptSet()
    for prompt in (
        skeleton_prompt(prompts, prefill=prefill),
        point_prompt(prompts, prefill=prefill),
        prompts.merge_prompt(QUESTION, SKELETON, "A draft.", max_points=10, words=40),
        prompts.direct_prompt(QUESTION),
    ):
        assert not re.search(r"[\[\]{}<>]|_{2,}|\.\.\.|…|\bXX+\b", all_text(prompt))


def test_a_prefill_never_ends_in_white_space() -> None:
    # Tokenizers join a space with the word after it; a space at the end makes the model stumble.
    for prompt in (skeleton_prompt(PromptSet(), prefill=True), point_prompt(PromptSet(), prefill=True)):
        assert prompt.prefill
        assert prompt.prefill == prompt.prefill.rstrip()


def test_backends_without_prefill_get_an_instruction() -> None:
    with_prefill, without = point_prompt(PromptSet(), prefill=True), point_prompt(PromptSet(), prefill=False)
    assert without.prefill == ""
    assert without.messages[-1].role == "user"
    assert len(without.messages[-1].text) > len(with_prefill.messages[-1].text)


# --- the caller's messages -------------------------------------------------------------------------


def test_system_message_and_history_come_first_unchanged() -> None:
    history = [Message("user", "Hello"), Message("assistant", "Hi {question}!", raw=object())]
    conversation = Conversation.of("Why is the sky blue?", system="Be {brief}.", history=history)
    for prompt in (skeleton_prompt(PromptSet(), conversation), point_prompt(PromptSet(), 1, conversation)):
        assert prompt.messages[:-1] == conversation.history
        assert all(a is b for a, b in zip(prompt.messages, conversation.history, strict=False))
        assert "Why is the sky blue?" in prompt.messages[-1].text


def test_attachments_reach_every_call() -> None:
    image = {"type": "image", "url": "https://example.org/cat.png"}
    question = Message("user", ({"type": "text", "text": "What is in here?"}, image))
    conversation = Conversation((question,))
    for prompt in (skeleton_prompt(PromptSet(), conversation), point_prompt(PromptSet(), 3, conversation)):
        assert prompt.messages[-1].attachments == (image,)
        assert "What is in here?" in prompt.messages[-1].text


def test_braces_in_questions_and_titles_are_kept() -> None:
    question = "What does {index} do in f'{title}' and {0} and {}?"
    skeleton = Skeleton((Point(1, "The {skeleton} case"), Point(2, "{question}")))
    own = PromptSet(point="{question}\n{skeleton}\n{title}")
    asked = Conversation.of(question)
    assert all_text(point_prompt(own, 2, asked, skeleton=skeleton)) == f"{question}\n{skeleton}\n{{question}}"
    text = all_text(point_prompt(PromptSet(), 2, asked, skeleton=skeleton))
    assert question in text
    assert all(title in text for title in skeleton.titles)


def test_other_braces_in_a_template_are_kept() -> None:
    prompts = PromptSet(skeleton='Answer {question} as {"points": [...]} or {other} or {}')
    assert all_text(skeleton_prompt(prompts)).endswith(' as {"points": [...]} or {other} or {}')


# --- custom templates ------------------------------------------------------------------------------


def test_a_string_becomes_a_template() -> None:
    prompts = PromptSet(skeleton="{question}?", point="{index} of {count}: {title}")
    assert skeleton_prompt(prompts, prefill=True) == Prompt((Message("user", "How do I sleep better??"),))
    assert all_text(point_prompt(prompts)) == "2 of 3: Dim the lights"


def test_an_instruction_replaces_a_prefill_that_the_backend_does_not_continue() -> None:
    plain = PromptTemplate("{question}", prefill=" 1. ")
    assert "Begin your answer with: 1." in skeleton_prompt(PromptSet(skeleton=plain)).messages[-1].text
    own = PromptTemplate("{question}", prefill="1.", instead=" Number them up to {max_points}.")
    assert skeleton_prompt(PromptSet(skeleton=own)).messages[-1].text.endswith(" Number them up to 10.")
    silent = PromptTemplate("{question}", prefill="1.", instead="")
    assert skeleton_prompt(PromptSet(skeleton=silent)).messages[-1].text == QUESTION.question


def test_hints_for_the_backend_travel_with_the_prompt() -> None:
    penalties = {"frequency_penalty": 0.5, "presence_penalty": 0.8}
    template = PromptTemplate("{title}", hints=Hints(stop=("END",), max_tokens=7, min_tokens=2, **penalties))
    prompt = point_prompt(PromptSet(point=template))
    assert (prompt.hints.stop, prompt.hints.max_tokens, prompt.hints.min_tokens) == (("END",), 7, 2)
    assert (prompt.hints.frequency_penalty, prompt.hints.presence_penalty) == (0.5, 0.8)


SHOWN = FewShot(
    examples=(
        Example("A {title}?", ("Colour", "Size"), " red", 1),
        Example("A {title}?", ("Colour", "Size"), " big", 2),
        Example("B?", ("Shape",), " round"),
    ),
    text="{words} {title}",
    opening=("{question}", "{titles}."),
)


def test_examples_stand_between_the_system_message_and_the_history_for_backends_that_take_a_prefill() -> None:
    prompts = PromptSet(point=PromptTemplate("About {title}", prefill="{index}:", few_shot=SHOWN))
    history = [Message("user", "Hello"), Message("assistant", "Hi!")]
    conversation = Conversation.of("Why?", system="Be brief.", history=history)
    prompt = point_prompt(prompts, 3, conversation, prefill=True)
    assert [(turn.role, turn.text) for turn in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "A {title}?"),
        ("assistant", "Colour; Size."),
        ("user", "40 Colour"),
        ("assistant", "1: red"),
        ("user", "40 Size"),
        ("assistant", "2: big"),
        ("user", "B?"),
        ("assistant", "Shape."),
        ("user", "40 Shape"),
        ("assistant", "1: round"),
        ("user", "Hello"),
        ("assistant", "Hi!"),
        ("user", "Why?"),
        ("assistant", "Keep regular hours; Dim the lights; Avoid coffee."),
        ("user", "40 Avoid coffee"),
    ]
    assert prompt.prefill == "3:"


def test_attachments_stand_with_the_question_when_the_point_has_a_turn_of_its_own() -> None:
    image = {"type": "image", "url": "https://example.org/cat.png"}
    conversation = Conversation((Message("user", ({"type": "text", "text": "What is this?"}, image)),))
    for prompts in (PromptSet(), PromptSet(point=PromptTemplate("About {title}", prefill="So", few_shot=SHOWN))):
        messages = point_prompt(prompts, 1, conversation, prefill=True).messages
        (holder,) = [message for message in messages if message.attachments]
        assert holder.attachments == (image,)
        assert "What is this?" in holder.text


def test_points_that_start_early_share_all_but_the_last_lines_of_the_skeleton() -> None:
    early = [Skeleton(SKELETON.points[:index]) for index in (1, 2)]
    texts = [all_text(point_prompt(PromptSet(), i, skeleton=s, prefill=True)) for i, s in enumerate(early, 1)]
    assert common_start(texts).endswith(f"1. {SKELETON.titles[0]}")


@pytest.mark.parametrize("most", [1, 2, 4])
def test_an_example_skeleton_has_at_most_max_points(most: int) -> None:
    shown = skeleton_prompt(PromptSet(), prefill=True, most=most).messages
    assert {len(parse_skeleton(turn.text)) for turn in shown if turn.role == "assistant"} == {most}


@pytest.mark.parametrize(
    ("words", "shown"), [(1, " One two."), (2, " One two."), (4, " One two."), (5, " One two. Three four five.")]
)
def test_an_example_has_as_many_sentences_as_the_requested_length(words: int, shown: str) -> None:
    few_shot = FewShot((Example("A?", reply=("One two.", "Three four five.")),))
    prompts = PromptSet(point=PromptTemplate("{title}", prefill="So", few_shot=few_shot))
    assert point_prompt(prompts, words=words, prefill=True).messages[1].text == f"So{shown}"


def test_the_default_examples_grow_with_the_requested_length() -> None:
    def lengths(words: int) -> list[int]:
        turns = point_prompt(PromptSet(), words=words, prefill=True).messages
        return [len(turn.text.split()) for turn in turns if turn.role == "assistant"][1:-1]

    short, long = lengths(40), lengths(120)
    assert all(20 < length < 50 for length in short)
    assert all(80 < length < 130 for length in long)


def test_a_backend_that_takes_no_prefill_gets_the_instruction_without_examples() -> None:
    prompts = PromptSet(point=PromptTemplate("About {title}", prefill="{index}:", instead=" now", few_shot=SHOWN))
    prompt = point_prompt(prompts)
    assert [turn.text for turn in prompt.messages] == ["About Dim the lights now"]


def test_examples_without_text_of_their_own_use_the_template() -> None:
    template = PromptTemplate("List: {question}", prefill="1.", few_shot=FewShot((Example("A?", reply=" red"),)))
    turns = skeleton_prompt(PromptSet(skeleton=template), prefill=True).messages
    assert [turn.text for turn in turns] == ["List: A?", "1. red", f"List: {QUESTION.question}"]


def test_example_templates_must_mention_the_required_placeholders() -> None:
    shown = FewShot((Example("A?", reply=" red"),), text="{titles}", opening=("{question}", "{titles}"))
    with pytest.raises(PromptFileError, match=r"never mentions \{index\} or \{title\}"):
        PromptSet(point=PromptTemplate("About {title}", prefill="So", few_shot=shown))


def test_the_default_examples_read_like_answers() -> None:
    for prompt in (skeleton_prompt(PromptSet(), prefill=True), point_prompt(PromptSet(), prefill=True)):
        roles = [turn.role for turn in prompt.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    replies = [turn.text for turn in skeleton_prompt(PromptSet(), prefill=True).messages if turn.role == "assistant"]
    for reply in replies:
        titles = parse_skeleton(reply).titles
        assert 3 <= len(titles) <= 10
        assert str(parse_skeleton(reply)) == reply
        assert all(2 <= len(title.split()) <= 5 for title in titles)


@pytest.mark.parametrize("prefill", [True, False])
@pytest.mark.parametrize(
    ("words", "asked"),
    [(10, "one sentence"), (40, "one or two sentences"), (100, "a short paragraph"), (300, "a paragraph")],
)
def test_a_prompt_asks_for_a_points_length_in_sentences(words: int, asked: str, prefill: bool) -> None:
    text = point_prompt(PromptSet(), words=words, prefill=prefill).messages[-1].text
    assert asked in text
    assert prefill or f"at most {words} words" in text


def test_a_limit_grows_with_the_requested_length() -> None:
    assert (
        point_prompt(PromptSet(), words=80).hints.max_tokens == 2 * point_prompt(PromptSet(), words=40).hints.max_tokens
    )
    prompts = PromptSet(point=PromptTemplate("{title}"))
    assert point_prompt(prompts).hints.max_tokens is None


@pytest.mark.parametrize(("most", "asked"), [(10, "3 to 10"), (4, "3 to 4"), (3, "at most 3"), (1, "at most 1")])
def test_the_prompt_asks_for_a_valid_number_of_points(most: int, asked: str) -> None:
    prompt = PromptSet().skeleton_prompt(QUESTION, max_points=most, words=40, prefill=False)
    assert f"{asked} different headings" in prompt.messages[-1].text


class Shouting:
    """A template of a framework's type."""

    def render(self, conversation: Conversation, values: Any, *, prefill: bool) -> Prompt:
        return Prompt((Message("user", values["question"].upper()),))


def test_any_object_that_renders_is_a_template() -> None:
    prompts = PromptSet(skeleton=Shouting(), point=Shouting())
    assert all_text(skeleton_prompt(prompts)) == "HOW DO I SLEEP BETTER?"


@pytest.mark.parametrize(
    ("templates", "missing"),
    [
        ({"skeleton": "Make a list."}, "{question}"),
        ({"point": "{question}\n{skeleton}"}, "{index} or {title}"),
        ({"route": "Yes or no?"}, "{question}"),
    ],
)
def test_a_template_that_cannot_work_is_refused(templates: dict[str, str], missing: str) -> None:
    with pytest.raises(PromptFileError, match="never mentions") as error:
        PromptSet(**templates)
    assert missing in str(error.value)


# --- prompt files ----------------------------------------------------------------------------------


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["mapping", "path", "string"])
def test_published_files_load_from_wherever_they_are(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.json", FILE)
    sources: dict[str, Any] = {"mapping": FILE, "path": path, "string": str(path)}
    prompts = PromptSet.from_json(sources[kind])
    asked = skeleton_prompt(prompts, prefill=True)
    assert asked.messages[-1].text == "List what matters for: How do I sleep better?"
    assert asked.prefill == "1."
    written = point_prompt(prompts, prefill=True)
    assert written.messages[-1].text == f"How do I sleep better?\n{SKELETON}\nWrite item 2."
    assert written.prefill == "2. Dim the lights"


def test_a_published_prefill_becomes_an_instruction_if_the_backend_does_not_continue_it() -> None:
    prompt = point_prompt(PromptSet.from_json(FILE))
    assert prompt.prefill == ""
    assert prompt.messages[-1].text.endswith("Begin your answer with: 2. Dim the lights")


def test_a_published_file_without_the_marker_has_no_prefill() -> None:
    prompts = PromptSet.from_json({"outline_prompt": "{request}", "point_prompt": "{point}: {point_outline}"})
    assert skeleton_prompt(prompts, prefill=True) == Prompt((Message("user", QUESTION.question),))
    assert all_text(point_prompt(prompts, 3, prefill=True)) == "3: Avoid coffee"


def test_a_routers_file_goes_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "router.json", {"prompt": "Can {request} be answered in points?"})
    route = PromptSet.from_json(FILE, route=path).route
    assert isinstance(route, PromptTemplate)
    assert route.render(QUESTION, {"question": "this"}, prefill=False).messages[-1].text.startswith("Can this be")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"outline_prompt": "{request}"}, "no text under 'point_prompt'; found keys: ['outline_prompt']"),
        ({"prompt": "{request}"}, "a router's prompt goes into `route=`"),
        ({**FILE, "point_prompt": "  "}, "no text under 'point_prompt'"),
        ({**FILE, "point_prompt": 3}, "no text under 'point_prompt'"),
        ({**FILE, "outline_prompt": "Make a list."}, "never mentions {question}"),
        ([FILE], "holds no JSON object"),
    ],
)
def test_a_file_that_cannot_work_is_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(PromptFileError) as error:
        PromptSet.from_json(write(tmp_path / "prompts.json", content))
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match=r"nowhere\.json.* cannot be read"):
        PromptSet.from_json(tmp_path / "nowhere.json")


@pytest.mark.parametrize("content", [b"{not json", b"\xff\xfe\x00", b""])
def test_an_invalid_json_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(PromptFileError, match=r"broken\.json"):
        PromptSet.from_json(path)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the published prompt files are not part of this repository")
@pytest.mark.parametrize("name", ["sot_chatgpt", "sot_claude", "sot_gpt4", "sot_opensource"])
def test_the_published_files_load_unchanged(name: str) -> None:
    path = OFFICIAL / f"{name}.json"
    prompts = PromptSet.from_json(path, route=OFFICIAL / "router_gpt4.json")
    marked = "[ROLESWITCHING assistant:]" in path.read_text(encoding="utf-8")
    for prompt in (skeleton_prompt(prompts, prefill=True), point_prompt(prompts, prefill=True)):
        assert bool(prompt.prefill) == marked
        text = all_text(prompt)
        assert QUESTION.question in text
        assert "ROLESWITCHING" not in text
        assert not {"{request}", "{outline}", "{point}", "{point_outline}"} & set(text.split())
        assert "{point" not in text
    assert str(SKELETON) in all_text(point_prompt(prompts, prefill=True))


# --- the merge, and structured skeletons --------------------------------------------------------------


def merge_prompt(prompts: PromptSet, draft: str, conversation: Conversation = QUESTION) -> Prompt:
    return prompts.merge_prompt(conversation, SKELETON, draft, max_points=10, words=40)


def test_a_merge_shows_question_history_and_draft_with_their_braces() -> None:
    history = (Message("user", "Hi"), Message("assistant", "Hello"))
    conversation = Conversation.of("Why {draft}?", system="Be brief.", history=history)
    prompt = merge_prompt(PromptSet(), "1. A: {question}", conversation)
    assert [message.text for message in prompt.messages[:3]] == ["Be brief.", "Hi", "Hello"]
    assert prompt.messages[-1].text.startswith("Why {draft}?\n\n")
    assert "1. A: {question}" in prompt.messages[-1].text
    assert prompt.prefill == ""


def test_a_merges_limit_exceeds_its_draft_in_any_script() -> None:
    # About four characters a token in English, about one in Chinese.
    for draft, tokens in (("Rest your eyes. " * 100, 400), ("多休息。" * 100, 400)):
        limit = merge_prompt(PromptSet(), draft).hints.max_tokens
        assert limit is not None
        assert tokens * 1.5 <= limit <= tokens * 4
    short = merge_prompt(PromptSet(), "A. B.").hints.max_tokens
    assert short is not None
    assert short >= 64


def test_a_custom_merge_prompt_is_used() -> None:
    prompts = PromptSet(merge="{count} parts, {titles}: {draft}")
    assert (
        merge_prompt(prompts, "x").messages[-1].text == "3 parts, Keep regular hours; Dim the lights; Avoid coffee: x"
    )
    with pytest.raises(PromptFileError, match=r"merge prompt never mentions \{draft\}"):
        PromptSet(merge="Merge {question}.")


def test_the_prompt_for_a_structured_skeleton_asks_for_no_format() -> None:
    def asked(prompts: PromptSet) -> Prompt:
        return prompts.skeleton_prompt(QUESTION, max_points=5, words=40, prefill=True, structured=True)

    prompt = asked(PromptSet())
    assert len(prompt.messages) == 1
    assert "3 to 5 different headings" in prompt.messages[0].text
    assert "number" not in prompt.messages[0].text
    assert (prompt.prefill, prompt.hints.stop) == ("", ())
    assert asked(PromptSet(skeleton="Mine: {question}")).messages[0].text == f"Mine: {QUESTION.question}"


# --- placeholders of the caller's own ---


@pytest.mark.parametrize(
    ("text", "needed", "names"),
    [
        ("{question} {max_points}", set(), set()),
        ("{request} and {outline}", set(), set()),
        ("{question}, {tone}.", {"tone"}, {"tone"}),
        ("{question}{tone}{mood}", {"tone", "mood"}, {"tone", "mood"}),
        ("({tone})", {"tone"}, {"tone"}),
        (r"\frac{a}{b}, x_{i}, ${HOME}, {{name}}, [0-9]{3}", set(), {"a", "b", "i", "HOME", "name"}),
        ('{"a": 1}, {}, {a b}', set(), set()),
    ],
)
def test_the_placeholders_that_a_template_has_besides_ours(text: str, needed: set[str], names: set[str]) -> None:
    known = PLACEHOLDERS["point"]
    assert unknown_placeholders(PromptTemplate(text), known) == (needed, names)


def test_a_filled_template_has_values_of_the_callers() -> None:
    template = FilledTemplate(PromptTemplate("{question} {tone} {words}"), {"tone": "{dry}", "words": "lost"})
    prompt = template.render(Conversation.of("Why?"), {"question": "Why?", "words": "7"}, prefill=False)
    assert prompt.messages[-1].text == "Why? {dry} 7"


def test_a_merge_prompt_shows_the_context_where_it_asks_for_it() -> None:
    for text, shown in (("{draft}|{context}", "A. B.|Tea."), ("{draft}|", "A. B.|")):
        prompts = AnswerPrompts(PromptSet(merge=text), QUESTION, max_points=5, words=40)
        prompts.context = "Tea."
        assert prompts.merge(SKELETON, "A. B.").messages[-1].text == shown
