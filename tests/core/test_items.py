"""Questions that are answered item by item: the flow, its prompts, and the text of the answer."""

from __future__ import annotations

import dataclasses

import pytest
from driving import in_threads, on_the_loop
from hypothesis import given
from hypothesis import strategies as st
from said import calls, released

from skeleton_of_thought.board import Action
from skeleton_of_thought.default_items import NOTES, NUMBERED
from skeleton_of_thought.errors import PointError, PromptFileError
from skeleton_of_thought.events import AnswerDone, AnswerFailed, PointDone, SkeletonDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.question import LANGUAGES
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import (
    Call,
    Cancel,
    Conversation,
    Item,
    ItemList,
    ItemsDecision,
    Message,
    Point,
    Reply,
    Request,
    RouteDecision,
    Skeleton,
    Usage,
    route_of,
)

QUESTION = "Translate these into French:\n1. Good tea\n2. Cold milk\n3. Warm bread"
WORDS = ("Good tea", "Cold milk", "Warm bread")


def listed(*titles: str, mark: str = "{}.", tight: bool = True, **fields) -> ItemList:
    items = [Item(i, title, mark=mark.format(i), tight=tight, ask=title) for i, title in enumerate(titles, 1)]
    return ItemList(fields.pop("instruction", "Translate these into French:"), tuple(items), **fields)


class Says:
    """A router that has decided."""

    def __init__(self, decision: RouteDecision) -> None:
        self.decision = decision

    def route(self, _: Conversation) -> RouteDecision:
        return self.decision

    async def aroute(self, _: Conversation) -> RouteDecision:
        return self.decision

    at_once = route


def answering(items: ItemList, question: str | Conversation = QUESTION, **options) -> AnswerFlow:
    conversation = Conversation.of(question) if isinstance(question, str) else question
    return AnswerFlow(conversation, router=Says(ItemsDecision(True, reason="items", items=items)), **options)


def asked(call: Call) -> str:
    assert call.prompt is not None
    return call.prompt.messages[-1].text


def written(flow: AnswerFlow, *texts: str | Exception) -> list[Action]:
    """The actions of an answer whose items end with these texts, the last item first."""
    actions = list(flow.start())
    for call, text in reversed(list(zip(calls(actions), texts, strict=True))):
        if isinstance(text, Exception):
            actions += flow.failed(call.id, text)
        else:
            actions += flow.delta(call.id, text)
            actions += flow.done(call.id, Reply(usage=Usage(10, 2), finish_reason="stop"))
    return actions


# --- the flow -------------------------------------------------------------------------------------


def test_each_item_has_a_call_and_there_is_no_other():
    flow = answering(listed(*WORDS))
    actions = written(flow, "Bon thé", "Lait froid", "Pain chaud")
    answer = flow.answer
    assert [call.stage for call in calls(actions)] == ["point"] * 3
    assert answer.text == released(actions) == "1. Bon thé\n2. Lait froid\n3. Pain chaud"
    assert (answer.route, answer.reason, answer.skeleton.titles) == ("items", "items", WORDS)
    assert [each.text for each in answer.expansions] == ["Bon thé", "Lait froid", "Pain chaud"]
    assert answer.usage == Usage(30, 6)
    assert set(answer.usage_by_stage) == {"point"}
    assert [action.skeleton for action in actions if isinstance(action, SkeletonDone)] == [answer.skeleton]
    assert answer.decision is not None
    assert answer.to_dict()["decision"].keys() == {"use_skeleton", "score", "reason", "usage"}


def test_the_first_text_of_the_answer_is_the_models_and_not_a_mark():
    flow = answering(listed("French", "Thai", mark="French:"))
    actions = list(flow.start())
    first, second = calls(actions)
    actions += flow.delta(second.id, "Sawasdi")
    assert released(actions) == ""
    actions += flow.delta(first.id, "Bon")
    assert released(actions) == "French: Bon"
    actions += flow.done(second.id, Reply())
    assert released(actions) == "French: Bon"
    actions += flow.done(first.id, Reply())
    assert released(actions) == "French: Bon\nFrench: Sawasdi"


def test_a_prompt_has_the_shared_words_first_and_its_own_item_last():
    history = (Message("user", "Hello"), Message("assistant", "Hi."))
    conversation = Conversation.of(QUESTION, system="Be exact.", history=history)
    prompts = [call.prompt for call in calls(answering(listed(*WORDS), conversation).start())]
    texts = [prompt.messages[-1].text for prompt in prompts]
    for word, prompt, text in zip(WORDS, prompts, texts, strict=True):
        assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user"]
        assert prompt.messages[:-1] == conversation.history
        assert (prompt.prefill, prompt.hints.max_tokens) == ("", None)
        assert text.startswith("Translate these into French:")
        assert text.endswith(f"\n{word}")
        assert not any(other in text for other in WORDS if other != word)
    assert len({text.removesuffix(word) for word, text in zip(WORDS, texts, strict=True)}) == 1


def test_the_wordings_exist_in_all_languages_of_the_rules():
    assert NOTES.keys() == NUMBERED.keys() == set(LANGUAGES)
    for language in LANGUAGES:
        items = listed("a", "b", form="different", language=language, instruction="Write two poems.")
        texts = [asked(call) for call in calls(answering(items).start())]
        assert [text.startswith("Write two poems.\n\n") for text in texts] == [True, True]
        assert texts[0] != texts[1]
        assert not [text for text in texts if "{" in text]


def test_a_target_is_asked_for_after_the_text_that_all_share():
    targets = [("French", "Translate this into French."), ("Thai", "Translate this into Thai.")]
    items = [Item(i, title, mark=f"{title}:", tight=True, ask=ask) for i, (title, ask) in enumerate(targets, 1)]
    flow = answering(ItemList("Good tea", tuple(items), form="targets"))
    actions = written(flow, "French: Bon thé", "**ชา**")
    assert [asked(call) for call in calls(actions)] == [f"Good tea\n\n{ask}" for _, ask in targets]
    assert flow.answer.text == released(actions) == "French: Bon thé\nThai: **ชา**"


def test_the_callers_own_wording_takes_the_place_of_ours():
    prompts = PromptSet(item="{instruction} ({index}/{count})\n>> {item}")
    texts = [asked(call) for call in calls(answering(listed(*WORDS), prompts=prompts).start())]
    assert texts[1] == "Translate these into French: (2/3)\n>> Cold milk"
    with pytest.raises(PromptFileError, match=r"item prompt never mentions \{item\}"):
        PromptSet(item="{instruction}")


def test_what_belongs_to_skeletons_does_not_apply():
    settings = Settings(
        merge=True, opening=True, closing=True, rewrite_overlap=True, planning="graph", max_points=2, eager=True
    )
    question = "In at most 9 words each, translate:\n1. Good tea\n2. Cold milk\n3. Warm bread"
    flow = answering(listed(*WORDS), question, settings=settings)
    actions = written(flow, *[" ".join(["du thé bien chaud et très sucré"] * 6)] * 3)
    assert [call.stage for call in calls(actions)] == ["point"] * 3
    assert not flow.answer.merged
    assert not flow.answer.opening + flow.answer.closing
    assert {each.finish_reason for each in flow.answer.expansions} == {"stop"}
    assert released(actions) == flow.answer.text
    assert len(flow.answer.text.splitlines()) == 3


def test_an_item_that_failed_keeps_its_place_or_ends_the_answer():
    kept = answering(listed(*WORDS), settings=Settings(on_point_error="placeholder", placeholder="(?)", max_retries=0))
    actions = written(kept, "Bon thé", OSError("away"), "Pain chaud")
    assert kept.answer.text == released(actions) == "1. Bon thé\n2. (?)\n3. Pain chaud"
    assert list(kept.answer.errors) == [2]
    ended = answering(listed(*WORDS), settings=Settings(max_retries=0))
    actions = list(ended.start())
    open_calls = calls(actions)
    ended.delta(open_calls[0].id, "Bon thé")
    actions = ended.failed(open_calls[1].id, OSError("away"))
    assert len([action for action in actions if isinstance(action, Cancel)]) == 2
    error = next(action.error for action in actions if isinstance(action, AnswerFailed))
    assert isinstance(error, PointError)
    assert error.answer.expansions[0].text == "Bon thé"


def test_a_failed_item_is_asked_for_again_with_the_same_prompt():
    flow = answering(listed(*WORDS), settings=Settings(backoff=0))
    first = calls(flow.start())
    again = calls(flow.failed(first[1].id, OSError("away")))
    assert [call.prompt for call in again] == [first[1].prompt]
    assert again[0].attempt == 2


def test_an_answer_that_says_its_item_again_stays():
    flow = answering(listed("I like tea.", "3 teas", mark="-"), "Correct these")
    assert calls(written(flow, "I like tea.", "3 teas"))
    assert flow.answer.text == "- I like tea.\n- 3 teas"


@pytest.mark.parametrize(
    ("text", "kept"),
    [("French: Bon", "Bon"), ("french:  Bon", "Bon"), ("French:", "French:"), ("Frenchman", "Frenchman"), ("Fr", "Fr")],
)
@pytest.mark.parametrize("size", [1, 3, 50])
def test_only_a_name_with_a_text_behind_it_is_dropped(text, kept, size):
    flow = answering(ItemList("Tea", (Item(1, "French", mark="French:"), Item(2, "Thai", mark="Thai:"))))
    actions = list(flow.start())
    first, second = calls(actions)
    for start in range(0, len(text), size):
        actions += flow.delta(first.id, text[start : start + size])
    for call in (first, second):
        actions += flow.done(call.id, Reply(finish_reason="stop")) if call is first else flow.delta(call.id, "x")
    actions += flow.done(second.id, Reply(finish_reason="stop"))
    assert flow.answer.text == released(actions) == f"French: {kept}\n\nThai: x"


# --- the text of the answer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "tight", "texts", "answer"),
    [
        ("{})", True, ("a", "b"), "1) a\n2) b"),
        ("-", True, ("a", "b"), "- a\n- b"),
        ("-", False, ("a", "b"), "- a\n\n- b"),
        ("", True, ("a", "b"), "a\nb"),
        ("", False, ("a", "b"), "a\n\nb"),
        ("{}.", True, ("a\nb", "c"), "1. a\nb\n\n2. c"),
        ("{}.", True, ("```py\nx\n```", "c"), "1.\n\n```py\nx\n```\n\n2. c"),
    ],
)
@pytest.mark.parametrize("join", ["numbered", "headings", "paragraphs"])
def test_the_answer_has_the_form_of_the_list(mark, tight, texts, answer, join):
    flow = answering(listed("x", "y", mark=mark, tight=tight), settings=Settings(join=join))
    actions = written(flow, *texts)
    assert flow.answer.text == released(actions) == answer


@given(st.data())
def test_any_order_of_events_gives_the_same_answer(data):
    marks = data.draw(st.sampled_from(["{}.", "-", "", "{}:"]))
    count = data.draw(st.integers(2, 12))
    texts = data.draw(st.lists(st.text("ab \n-:1.", min_size=1).filter(str.strip), min_size=count, max_size=count))
    settings = Settings(on_point_error="placeholder", max_retries=data.draw(st.integers(0, 1)), backoff=0)
    flow = answering(
        listed(*map(str, range(count)), mark=marks, tight=data.draw(st.booleans())),
        settings=settings,
        live=data.draw(st.booleans()),
    )
    actions = list(flow.start())
    left = {call.id: (call, texts[call.point.index - 1]) for call in calls(actions)}
    while left:
        identity = data.draw(st.sampled_from(sorted(left)))
        call, rest = left[identity]
        if not rest:
            more = flow.done(identity, Reply(finish_reason="stop"))
        elif data.draw(st.integers(0, 9)) == 0:
            more = flow.failed(identity, OSError("away"))
            rest = ""
        else:
            size = data.draw(st.integers(1, len(rest)))
            more, rest = flow.delta(identity, rest[:size]), rest[size:]
            left[identity] = (call, rest)
            actions += more
            continue
        del left[identity]
        left |= {again.id: (again, texts[again.point.index - 1]) for again in calls(more)}
        actions += more
    assert isinstance(actions[-1], AnswerDone)
    answer = actions[-1].answer
    assert released(actions) == answer.text
    done = [action.expansion for action in actions if isinstance(action, PointDone)]
    assert sorted(each.point.index for each in done) == list(range(1, count + 1))
    assert [each.text for each in answer.expansions if each.error is None] == [
        texts[each.point.index - 1].strip() for each in answer.expansions if each.error is None
    ]


# --- routers, drivers and settings ----------------------------------------------------------------


class Asked(Says):
    """A router that keeps the requests that it saw, and may race."""

    def __init__(self, decision: RouteDecision, *, at_once: bool = True) -> None:
        super().__init__(decision)
        self.seen: list[Request] = []
        self.races = not at_once
        if not at_once:
            self.at_once = lambda _: None  # type: ignore[method-assign]

    def route(self, conversation: Conversation) -> RouteDecision:
        self.seen.append(conversation.request)
        return self.decision

    at_once = route


def test_a_racing_skeleton_is_cancelled_for_items():
    router = Asked(ItemsDecision(True, items=listed(*WORDS)), at_once=False)
    flow = AnswerFlow(Conversation.of(QUESTION), router=router)
    route, skeleton = calls(flow.start())
    flow.delta(skeleton.id, "1. Wrong\n2. Way\n")
    actions = flow.done(route.id, Reply(decision=router.decision))
    assert [action.id for action in actions if isinstance(action, Cancel)] == [skeleton.id]
    assert [call.point.title for call in calls(actions)] == list(WORDS)


@pytest.mark.parametrize(
    ("question", "settings", "allowed"),
    [
        (QUESTION, Settings(), True),
        (QUESTION, Settings(items="off"), False),
        ("What are good ways to stay awake?", Settings(), False),
    ],
)
def test_a_router_is_told_whether_items_may_be_looked_for(question, settings, allowed):
    router = Asked(RouteDecision(False))
    AnswerFlow(Conversation.of(question), router=router, settings=settings).start()
    assert [request.items for request in router.seen] == [allowed]


@pytest.mark.parametrize("request_", [Request(items=True, tools=True), Request(items=True, response_format=True)])
def test_items_are_not_for_tools_or_formats(request_):
    conversation = Conversation((Message("user", QUESTION),), request_)
    assert route_of(AutoRouter().route(conversation)) == "direct"


def test_without_a_router_and_with_given_points_nothing_changes():
    (call,) = calls(AnswerFlow(Conversation.of(QUESTION), router=None).start())
    assert call.stage == "skeleton"
    flow = AnswerFlow(Conversation.of(QUESTION), router=AutoRouter(), skeleton=Skeleton((Point(1, "Tea"),)))
    assert [call.stage for call in calls(flow.start())] == ["point"]
    assert flow.answer.route == "skeleton"


def test_a_decision_for_items_survives_replacement_and_says_its_route():
    decision = ItemsDecision(True, items=listed(*WORDS))
    again = dataclasses.replace(decision, reason="why")
    assert (route_of(again), again.items, again.reason) == ("items", decision.items, "why")
    assert [route_of(RouteDecision(use)) for use in (True, False)] == ["skeleton", "direct"]


class Replies:
    """A model that answers an item by its last line."""

    def __init__(self) -> None:
        self.open_now = self.peak = 0

    def open(self, call: Call, position: int):
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        yield asked(call).splitlines()[-1].upper()
        self.open_now -= 1
        yield Reply(finish_reason="stop")

    async def aopen(self, call: Call, position: int):
        for piece in self.open(call, position):
            yield piece


@pytest.mark.parametrize("run", [in_threads, on_the_loop])
@pytest.mark.parametrize("live", [True, False])
def test_the_drivers_answer_many_items_within_their_limit(run, live):
    words = [f"word {i}" for i in range(1, 26)]
    flow = answering(listed(*words), live=live)
    events = [event for _, event in run(Replies(), [flow], max_concurrency=4)]
    assert flow.answer.text == "\n".join(f"{i}. {word.upper()}" for i, word in enumerate(words, 1))
    assert released(events) == flow.answer.text


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
def test_items_have_the_sources_of_the_question_or_their_own(retrieval):
    flow = answering(listed(*WORDS), retrieval=retrieval)
    actions = list(flow.start())
    opened = calls(actions)
    assert [call.stage for call in opened] == ["sources"] * (1 if retrieval == "once" else 3)
    for call in opened:
        about = "all" if call.point is None else call.point.title
        actions += flow.done(call.id, Reply(sources=(about,), context=f"Facts on {about}."))
    texts = [asked(call) for call in calls(actions) if call.stage == "point"]
    for word, text in zip(WORDS, texts, strict=True):
        assert f"Facts on {'all' if retrieval == 'once' else word}." in text
        assert text.endswith(word)
