"""Texts of models, servers and users that Python itself refuses: huge numbers, half characters, deep nesting."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.parsing.data import json_titles, json_value
from skeleton_of_thought.parsing.parser import parse_skeleton
from skeleton_of_thought.prompts import DEFAULT_PROMPTS, PromptSet
from skeleton_of_thought.rate_limits import read_rate_limit
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.routers.prompt import PromptRouter
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.templates import PromptTemplate
from skeleton_of_thought.text.assembly import ExpansionText
from skeleton_of_thought.types import Call, Conversation, Message, Point, Reply, Skeleton

DIGITS = "7" * 4301
"""One digit more than Python reads as a whole number."""
HALVES = "\ud83d \udfff"
DEEP = "[" * 100_000


# --- numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"[{DIGITS}]", f"{DIGITS}. One", f"{DIGITS}) One", f"Step {DIGITS}: One", f"Step 1/{DIGITS}: One",
        f"#{DIGITS} One", f"1.{DIGITS} One", f"第{DIGITS}章 One", f"{DIGITS}단계 One", f"{DIGITS}st, One",
        f"- id: {DIGITS}", f'{{"{DIGITS}": "One"}}', f"| {DIGITS} | One |\n|---|---|", f"[{DIGITS}, 1]",
    ],
)  # fmt: skip
def test_a_huge_number_is_text(text):
    parse_skeleton(f"{text}\n1. First\n2. Second")
    assert parse_skeleton(f"1. First\n2. Second\n{text}\n3. Third").titles[:2] == ("First", "Second")


@pytest.mark.parametrize("reference", [f"&#{DIGITS};", f"&#{DIGITS}", "&#999999999;", "&#xD800;", "&#x" + "f" * 5000])
def test_a_reference_to_no_character_becomes_a_replacement(reference):
    titles = parse_skeleton(f"<ol>\n<li>Sleep {reference} well</li>\n<li>Move &#38; rest</li>\n</ol>").titles
    assert titles == ("Sleep \ufffd well", "Move & rest")


@pytest.mark.parametrize("sign", ["²", "①", "½", "٣", "𝟙", "Ⅻ", "一"])
def test_signs_that_are_digits_only_to_some(sign):
    parse_skeleton(f"{sign}. One\n{sign}) Two\n[{sign}] Three\n1. Four {sign}. Five")
    cleaner = ExpansionText(Point(2, f"{sign}."))
    assert cleaner.feed(f"{sign}. {sign}") + cleaner.close() is not None


@pytest.mark.parametrize("name", ["question", "draft", "title", "skeleton", "context"])
def test_a_text_of_digits_is_no_number_of_tokens(name):
    template = PromptTemplate(f"{{{name}}}", tokens_per=(name, 2))
    for text in (DIGITS, "1234567", HALVES):
        prompt = template.render(Conversation.of("Why?"), {name: text}, prefill=False)
        assert prompt.hints.max_tokens == 2 * (len(text.encode(errors="replace")) // 2 + 64)


def test_a_number_of_words_still_is_a_number_of_tokens():
    prompt = PromptTemplate("{words}", tokens_per=("words", 3)).render(
        Conversation.of("?"), {"words": "40"}, prefill=False
    )
    assert prompt.hints.max_tokens == 120


class Limited(Exception):
    status_code = 429

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": DIGITS}, None),
        ({"retry_after": "1e999"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "²"}, None),
        ({"retry_after": f"Wed, 21 Oct {DIGITS} 07:28:00 GMT"}, None),
        ({"retry_after_ms": DIGITS}, None),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": f"{DIGITS}s"}, None),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6m0s"}, 360.0),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "1.5s20ms"}, 1.52),
    ],
)
def test_a_header_of_a_rate_limit_that_is_no_time_to_wait(headers, seconds):
    limit = read_rate_limit(Limited(**headers), 0.0)
    assert limit is not None
    assert limit.seconds == pytest.approx(seconds)


# --- half characters ----------------------------------------------------------------------------------

QUESTIONS = [f"What are the benefits of tea?{HALVES}", f"{HALVES} {HALVES}", f"Write {DIGITS} words about tea.", DEEP]
ROUTERS = [
    Gate(),
    EmbeddedRouter(),
    AutoRouter(),
    AutoRouter(guard=CostGuard()),
    PromptRouter(lambda prompt: prompt.messages[0].text),
]


@pytest.mark.parametrize("router", ROUTERS, ids=[type(router).__name__ for router in ROUTERS])
@pytest.mark.parametrize("question", QUESTIONS, ids=["halves", "only halves", "digits", "deep"])
def test_routers_decide_on_any_text(router, question):
    assert isinstance(router.route(Conversation.of(question)).use_skeleton, bool)
    history = [Message("user", question), Message("assistant", question)]
    asked = Conversation.of("What are the benefits of tea?", system=question, history=history)
    assert isinstance(router.route(asked).use_skeleton, bool)


def test_half_characters_do_not_change_the_other_features():
    question = "What are the benefits of tea?"
    assert EmbeddedRouter().score(question + " \ud800") == pytest.approx(
        EmbeddedRouter().score(question + " \u00f1"), abs=0.2
    )


def replies(flow: AnswerFlow, texts: dict[str, str], pieces: bool) -> None:
    """Runs a flow with a text for each stage."""
    waiting = [action for action in flow.start() if isinstance(action, Call)]
    while waiting:
        call = waiting.pop(0)
        text = texts[call.stage]
        if call.stage == "sources":
            actions = flow.done(call.id, Reply(sources=("page",), context=text))
        else:
            actions = [each for piece in (text if pieces else [text]) for each in flow.delta(call.id, piece)]
            actions += flow.done(call.id, Reply(finish_reason="stop"))
        waiting += [action for action in actions if isinstance(action, Call)]


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("retrieval", ["none", "once", "per_point"])
def test_no_half_character_of_a_model_or_a_source_reaches_an_answer_or_a_prompt(pieces, merge, retrieval):
    prompts: list[str] = []

    class Watched(PromptTemplate):
        def render(self, conversation, values, *, prefill):
            prompt = super().render(conversation, values, prefill=prefill)
            prompts.append(prompt.messages[-1].text)
            return prompt

    watched = PromptSet(point=Watched("{question}{skeleton}{title}{context}"), merge=Watched("{draft}"))
    texts = {"skeleton": f"1. One {HALVES}\n2. Two", "point": f"Some {HALVES} text.", "sources": f"A page {HALVES}"}
    texts["merge"] = f"All in one {HALVES} text."
    flow = AnswerFlow(Conversation.of("Why?"), settings=Settings(merge=merge), prompts=watched, retrieval=retrieval)
    replies(flow, texts, pieces)
    answer = flow.answer
    assert "Some \ufffd \ufffd text." in answer.expansions[0].text
    assert answer.skeleton.titles == ("One \ufffd \ufffd", "Two")
    assert answer.merged == merge
    for text in (answer.text, *prompts, *(each.text for each in answer.expansions)):
        text.encode()  # raises with half a character
    assert len(prompts) >= 2 + merge


def test_no_half_character_of_a_context_that_the_caller_has_reaches_a_prompt():
    flow = AnswerFlow(Conversation.of("Why?"), found=Reply(sources=("page",), context=f"A page {HALVES}"))
    (call,) = (action for action in flow.start() if isinstance(action, Call))
    assert "A page \ufffd \ufffd" in "".join(message.text for message in call.prompt.messages)


def test_the_prompts_of_any_question():
    for question in (DIGITS, HALVES, DEEP, "{question}{draft}" * 2000):
        asked = Conversation.of(question)
        skeleton = Skeleton((Point(1, question[:50]),))
        sizes = {"max_points": 3, "words": 5}
        DEFAULT_PROMPTS.skeleton_prompt(asked, prefill=True, context=question, **sizes)
        DEFAULT_PROMPTS.point_prompt(asked, skeleton, skeleton.points[0], prefill=True, context=question, **sizes)
        assert question in DEFAULT_PROMPTS.merge_prompt(asked, skeleton, question, **sizes).messages[-1].text
        assert question in DEFAULT_PROMPTS.direct_prompt(asked, question).messages[-1].text


# --- JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", ["[", '{"points": ', '[{"title": ', '{"a": ['])
def test_deep_json_is_no_list_of_titles(opening):
    text = opening * 50_000
    assert json_titles(text, bare=True) == []
    assert json_value(text) is None
    assert json_value(text, cut=True) is None
    assert parse_skeleton(text).titles == ()
    assert parse_skeleton(f"{text}\n1. One\n2. Two").titles == ("One", "Two")


def test_json_with_a_huge_number_is_no_list_of_titles():
    assert json_value(f'{{"points": [{DIGITS}]}}') is None
    assert json_titles(f'["a", {DIGITS}]', bare=True) == []


WHOLE = json.dumps({"points": ['Say "no"', "A, [b] {c}", "Naïve \\ 😀"], "n": [1, {"x": None}]})


@pytest.mark.parametrize("end", range(len(WHOLE) + 1))
def test_json_that_is_cut_off_keeps_its_whole_items(end):
    value = json_value(WHOLE[:end], cut=True)
    points = value.get("points", []) if isinstance(value, dict) else []
    whole = json.loads(WHOLE)["points"]
    complete = sum(json.dumps(point) in WHOLE[:end] for point in whole)
    assert points[:complete] == whole[:complete]
    assert len(points) <= complete + 1
    assert (value is None) == (end == 0)
    assert json_value(WHOLE[:end]) is None or end == len(WHOLE)


@given(st.text(st.sampled_from('{}[],:"\\u1a '), max_size=60))
def test_any_cut_json_has_a_value_or_none(text):
    json_value(text, cut=True)
    assert json_value("[" + text, cut=True) is None or isinstance(json_value("[" + text, cut=True), list)
