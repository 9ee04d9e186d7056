"""Models that reason in their text: the reasoning is no part of the answer, wherever it is found."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

import pytest
from said import released

from skeleton_of_thought._cli.typewriter import Typewriter
from skeleton_of_thought._cli.views import AnswerResult, JsonView, PlainView
from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import ReasoningShown
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerRestarted,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    SkeletonDone,
    SkeletonRestarted,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.parsing.parser import (
    _MARK,
    _MARK_WORDS,
    ReasoningFilter,
    SkeletonParser,
    parse_skeleton,
    without_reasoning,
)
from skeleton_of_thought.parsing.reasoning_marks import REASONING_MARKS
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.prompt import PromptRouter
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.assembly import ExpansionText, WholeText
from skeleton_of_thought.types import Answer, Call, Cancel, Conversation, Point, Reply, Skeleton, Usage

QUESTION = Conversation.of("How do I sleep better?")
TWO = Skeleton((Point(1, "Dark room"), Point(2, "Quiet room")))
THOUGHT = "Let me think about it.\n</think>\n\n"
SIZES = (1, 2, 3, 7, 1000)


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def cleaned(cleaner: ReasoningFilter | WholeText, text: str, size: int) -> str:
    out = ""
    for piece in pieces(text, size):
        shown = cleaner.feed(piece)
        out = shown if cleaner.restarted else out + shown
    rest = cleaner.close()
    return rest if cleaner.restarted else out + rest


# --- the marks ------------------------------------------------------------------------------------

FORMATS = [
    "<think>2. Hm</think>",
    "<think>\n2. Hm\n</think>\n\n",
    "<THINK>Hm</Think>",
    '<think duration="3">Hm</think>',
    "<think/>",
    "<thinking>Hm</thinking>",
    "<thought>Hm</thought>\n",
    "<thoughts>Hm</thoughts>",
    "<seed:think>Hm</seed:think>",
    "<reasoning>Hm, </think> is no end</reasoning>",
    "<scratchpad>Hm</scratchpad>",
    "<reflection>Hm</reflection>",
    "<think>Hm</think>\n<reflection>Hm</reflection>\n",
    "<think>I explain `</think>` to them.</think>",
    "[THINK]Hm[/THINK]",
    "◁think▷Hm◁/think▷",
    "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary<|message|>I do<|end|>"
    "<|start|>assistant<|channel|>final<|message|>",
    "<|channel|>final<|message|>",
    "analysisWe need a list.assistantfinal",
    "<|channel>thought\nHm\n<channel|>",
    "<unused94>thought\nHm<unused95>",
    "<|START_THINKING|>Hm<|END_THINKING|><|START_RESPONSE|>",
    "<|open|>think<|sep|>Hm<|close|>think<|sep|><|open|>response<|sep|>",
    "Here is my thought process: Hm. Here is my response: ",
    "<|begin_of_thought|>Hm<|end_of_thought|><|begin_of_solution|>",
    "<|inner_prefix|>Hm<|inner_suffix|>",
    "<|content_thinking|>Hm<|end_message|><|message_model|><|content_text|>",
    # only the end, after a template that opens the block
    "Hm.\n</think>\n\n",
    "Hm.</think>",
    "Hm. </think> ",
    "Okay, the user asks.\n1. Hm\n</think>\n",
    "I thought of `</think>` and <think>.\n</think>\n",
    "Okay.\n<think> is what they ask about.\n</think>\n",
    "Let me think.\r\n</think>\r\n\r\n",
    "Hm.\n</seed:think>\n",
    "Hm.\n[/THINK]\n",
    "Hm.◁/think▷",
    "Hm.<|END_THINKING|>",
    "Hm.<channel|>",
    "Hm.<|end|><|start|>assistant<|channel|>final<|message|>",
    "Hm.\n</think>\n</think>\n",
    "</think>\n\n",
]
WRAPPED = [
    ("<think>Hm</think>\n<answer>\n", "\n</answer>"),
    ("<think>Hm</think>\n\n<response>\n", "\n</response>\n"),
    ("<thinking>Hm</thinking><output>", "</output>"),
    ("Hm\n</think>\n<answer>", "</answer>"),
    ("<|START_THINKING|>Hm<|END_THINKING|><|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>", "<|return|>"),
    ("<|channel|>final<|message|>", "<|end|>"),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reasoning", FORMATS)
def test_the_reasoning_of_every_format_is_dropped(reasoning, size):
    assert cleaned(WholeText(), reasoning + "It helps.", size) == "It helps."
    assert cleaned(ExpansionText(Point(1, "Dark room")), f"{reasoning}1. Dark room: It helps.", size) == "It helps."
    parser = SkeletonParser()
    for piece in pieces(reasoning + "1. Dark room\n2. Quiet room", size):
        parser.feed(piece)
    assert parser.close().titles == ("Dark room", "Quiet room")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("before", "after"), WRAPPED)
def test_the_wrapper_of_an_answer_is_peeled_off(before, after, size):
    assert cleaned(WholeText(), f"{before}It helps.{after}", size) == "It helps."
    mentioned = f"It helps `{after.strip()}`."
    assert cleaned(WholeText(), f"{before}{mentioned}{after}\n", size) == mentioned
    rest = after.replace(after.strip(), "")
    assert cleaned(WholeText(), f"{before}It{after} helps.", size) == f"It{rest} helps."


MENTIONED = [
    "`<think>` opens a block.",
    "Models write <think> first.",
    "Models write <think>thoughts</think> first.",
    "Models write <think>thoughts</think>answer first.",
    "The </think> tag ends it.",
    "It ends with `</think>`",
    'It ends with "</think>", then.',
    "It ends with </think>.",
    "It ends with **</think>**\nand more.",
    "It ends with (</think>)\nand more.",
    "One writes </think>\nand goes on.",
    "```\n<think>\na\n</think>\nb\n```\nSo.",
    "Like this:\n<think>\na\n</think>\nb",
    "- Opening: <think>\n- Closing: </think>\n- Both",
    "2. End: [/THINK]\nIt ends.",
    "Use [THINK] and [/THINK] there [1].",
    "The mark <channel|> ends it.",
    "<answer>It helps.</answer>",
    "<thinker>It helps.</thinker>",
    "<thin",
    "analysis of sleep",
    "analysis",
    "final words",
    "Here is my thought process: I begin.",
    "Here is a list",
    "a <b> </p> [x] ◁",
    "</th",
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", MENTIONED)
def test_a_mark_that_is_mentioned_is_text(text, size):
    assert cleaned(WholeText(), text, size) == text


@pytest.mark.parametrize(
    "title",
    [
        "Use of `<think>` tags",
        "Use of <think> tags",
        "<think> and its end",
        "Use of `</think>`",
        "What </think> means",
        "</think> as the end",
        "The pair <think></think>",
        "[THINK] blocks",
        "Closing: </think>",
    ],
)
def test_a_title_may_mention_a_mark(title):
    for size in SIZES:
        parser = SkeletonParser()
        for piece in pieces(f"1. {title}\n2. Quiet room", size):
            parser.feed(piece)
        assert parser.close().titles == (title, "Quiet room")


@pytest.mark.parametrize(
    "text", ["<think>Hm", "<think>Hm</thi", "<|channel|>analysis<|message|>Hm", "analysisWe", "Hm\n</think>"]
)
def test_reasoning_alone_leaves_nothing(text):
    for size in SIZES:
        assert cleaned(WholeText(), text, size) == ""


def test_the_filter_holds_back_only_what_may_be_a_mark():
    reasoning = ReasoningFilter()
    assert [reasoning.feed(piece) for piece in ("It helps [", "1], <b", "> a</thi", "ef> b", "</think>")] == [
        "It helps ",
        "[1], <b",
        "> a",
        "</thief> b",
        "",
    ]
    assert (reasoning.feed(" "), reasoning.feed("x"), reasoning.restarted) == ("", "</think> x", False)
    assert ReasoningFilter().feed("Here is a") == "Here is a"
    words = ReasoningFilter()
    assert [words.feed(letter) for letter in "analyse"] == ["a", "n", "", "", "", "", "analyse"[2:]]
    words = ReasoningFilter()
    assert [words.feed(piece) for piece in ("an", "alysis", "We need")] == ["an", "", ""]
    assert words.restarted


def test_every_mark_begins_with_a_character_that_the_filter_knows():
    for kind in REASONING_MARKS:
        for mark in (*kind.opens, *kind.answer_opens):
            if kind.is_tag or not mark[0].isalpha():
                assert _MARK.match(mark), mark
            else:
                assert mark[0] in _MARK_WORDS or (kind.answer_opens and mark == "assistantfinal")
        for mark in (*kind.lone, *kind.answer_closes):
            assert _MARK.match(mark), mark
        assert kind.models
        assert kind.closes


def test_the_parser_says_when_points_are_void():
    parser = SkeletonParser(2)
    assert [point.title for point in parser.feed("Options:\n1. talk about light\n2. sound\n3. more\n")] == [
        "talk about light",
        "sound",
    ]
    assert (parser.full, parser.restarted) == (True, False)
    assert parser.feed("</think>\n1. Dark room\n") == [Point(1, "Dark room")]
    assert (parser.full, parser.restarted) == (False, True)
    assert parser.close().titles == ("Dark room",)
    assert parse_skeleton("1. a\n2. b\n3. c\n</think>\n1. Dark room", 2).titles == ("Dark room",)
    assert parse_skeleton("1. a\n</think>").titles == ()


@pytest.mark.parametrize(
    ("reply", "titles"),
    [
        ("<think>hm</think> Dark room\n2. Quiet room", ("Dark room", "Quiet room")),
        ("<think>\nhm\n</think>\n\n1. Dark room\n2. Quiet room", ("Dark room", "Quiet room")),
        (" talk\n2. talk more\n</think>\n1. Dark room\n2. Quiet room", ("Dark room", "Quiet room")),
        (" Dark room\n2. Quiet room", ("Dark room", "Quiet room")),
    ],
)
def test_the_reply_begins_after_the_prefill(reply, titles):
    for size in SIZES:
        parser = SkeletonParser(prefill="1.")
        for piece in pieces(reply, size):
            parser.feed(piece)
        assert parser.close().titles == titles


@pytest.mark.parametrize(
    "reply",
    [
        "Hm. DEPENDENT?\n</think>\nINDEPENDENT",
        "[THINK]DEPENDENT?[/THINK]INDEPENDENT",
        '<think a="1">NONE</think>INDEPENDENT',
    ],
)
def test_the_router_reads_the_reply_after_the_reasoning(reply):
    assert PromptRouter(lambda prompt: reply).route(QUESTION).use_skeleton
    assert without_reasoning(reply).strip() == "INDEPENDENT"


# --- the flow -------------------------------------------------------------------------------------


class Reader:
    """Adds up the events of a flow as its readers do, and reports texts to it."""

    def __init__(self, flow: AnswerFlow) -> None:
        self.flow = flow
        self.actions: list[Action] = []
        self.open: dict[int, Call] = {}
        self.text = ""
        self.points: dict[int, str] = defaultdict(str)
        self.found: list[str] = []
        self.cancelled: list[Point] = []
        self.done: dict[int, str] = {}
        self.see(flow.start())

    def see(self, actions: list[Action]) -> None:
        self.actions += actions
        for action in actions:
            match action:
                case Call():
                    self.open[action.id] = action
                case Cancel(call_id):
                    call = self.open.pop(call_id)
                    if call.point is not None:
                        self.cancelled.append(call.point)
                        self.flow.cancelled(call, Usage(1, 5))
                case AnswerDelta(text):
                    self.text += text
                case AnswerRestarted():
                    self.text = ""
                case PointFound(point):
                    self.found.append(point.title)
                case SkeletonRestarted(skeleton):
                    assert list(skeleton.titles) == self.found
                    self.found, self.points, self.done = [], defaultdict(str), {}
                case PointDelta(point, text):
                    self.points[point.index] += text
                case PointRestarted(point):
                    self.points[point.index] = ""
                case PointDone(expansion):
                    self.done[expansion.point.index] = expansion.text

    def call(self, stage: str, index: int | None = None) -> Call:
        (call,) = [c for c in self.open.values() if c.stage == stage and (c.point and c.point.index) == index]
        return call

    def write(self, text: str, index: int | None = None, stage: str = "point", size: int = 1000) -> None:
        call = self.call(stage, index)
        for piece in pieces(text, size):
            self.see(self.flow.delta(call.id, piece))

    def end(self, index: int | None = None, stage: str = "point") -> None:
        call = self.call(stage, index)
        del self.open[call.id]
        self.see(self.flow.done(call.id, Reply(Usage(1, 1))))

    def only(self, kind: type) -> list:
        return [action for action in self.actions if isinstance(action, kind)]

    def answer(self) -> Answer:
        (done,) = self.only(AnswerDone)
        answer: Answer = done.answer
        assert self.text == answer.text
        assert {i: text for i, text in self.points.items() if text} == {
            e.point.index: e.text for e in answer.expansions if e.text
        }
        assert self.done == {e.point.index: e.text for e in answer.expansions}
        assert not self.open
        return answer


def written(**options) -> Reader:
    settings = options.pop("settings", None) or Settings()
    return Reader(AnswerFlow(QUESTION, settings=settings, skeleton=TWO, **options))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("live", [True, False])
def test_reasoning_of_the_first_point_is_voided_in_a_live_answer(live, size):
    reader = written(live=live)
    reader.write("It is quiet.", 2)
    reader.end(2)
    reader.write(THOUGHT, 1, size=size)
    reader.write("It helps.", 1, size=size)
    reader.end(1)
    answer = reader.answer()
    assert answer.text == "1. Dark room: It helps.\n\n2. Quiet room: It is quiet."
    assert answer.errors == {}
    restarts = reader.only(PointRestarted)
    assert [type(restart.error) for restart in restarts] == ([ReasoningShown] if size < 1000 else [])
    assert len(reader.only(AnswerRestarted)) == (1 if live and size < 1000 else 0)


def test_text_of_other_points_that_was_shown_is_shown_again():
    reader = written()
    reader.write("It helps.", 1)
    reader.end(1)
    reader.write("Let me think.\n", 2)
    assert reader.text == "1. Dark room: It helps.\n\n2. Quiet room: Let me think."
    reader.write("</think>\n", 2)
    assert reader.text == "1. Dark room: It helps.\n\n2. Quiet room"
    reader.write("It is quiet.", 2)
    reader.end(2)
    assert reader.answer().text == "1. Dark room: It helps.\n\n2. Quiet room: It is quiet."
    assert len(reader.only(AnswerRestarted)) == 1


def test_a_point_that_is_not_released_yet_restarts_alone():
    reader = written()
    reader.write("It is.\n", 1)
    reader.write("Let me think.\n", 2)
    reader.write("</think>\nIt is quiet.", 2)
    reader.end(2)
    reader.end(1)
    assert reader.answer().text == "1. Dark room: It is.\n\n2. Quiet room: It is quiet."
    assert [r.point.index for r in reader.only(PointRestarted)] == [2]
    assert reader.only(AnswerRestarted) == []


@pytest.mark.parametrize("join", ["numbered", "headings", "paragraphs"])
def test_every_join_is_right_after_a_restart(join):
    reader = written(settings=Settings(join=join))
    reader.write("Hm.\n", 1)
    reader.write("</think>\nIt helps.", 1)
    reader.end(1)
    reader.write("Hm.\n", 2)
    reader.write("</think>\nIt is quiet.", 2)
    reader.end(2)
    answer = reader.answer()
    assert "Hm" not in answer.text
    assert answer.text.endswith("It is quiet.")


def test_a_mark_at_the_very_end_leaves_a_point_without_text():
    reader = written(settings=Settings(max_retries=0, on_point_error="placeholder", placeholder="(gone)"))
    reader.write("Hm.\n</think>", 1)
    reader.end(1)
    reader.write("It is quiet.", 2)
    reader.end(2)
    assert reader.answer().text == "1. Dark room: (gone)\n\n2. Quiet room: It is quiet."


def test_a_point_whose_reasoning_was_taken_back_can_be_written_again():
    reader = written(settings=Settings(max_retries=1))
    reader.write("Hm.\n", 1)
    reader.write("</think>\n", 1)
    call = reader.call("point", 1)
    del reader.open[call.id]
    reader.see(reader.flow.failed(call.id, OSError("reset")))
    reader.write("It helps.", 1)
    reader.end(1)
    reader.write("It is quiet.", 2)
    reader.end(2)
    answer = reader.answer()
    assert answer.expansions[0].attempts == 2
    assert answer.text.startswith("1. Dark room: It helps.")


def test_loops_of_the_reasoning_do_not_count_for_the_point():
    reader = written(settings=Settings(stop_loops=True))
    reader.write("It is a good day to be outside. " * 3, 1)
    reader.write("Hm.\n</think>\nIt helps.", 1)
    reader.end(1)
    reader.write("It is quiet.", 2)
    reader.end(2)
    assert reader.answer().expansions[0].text == "It helps."


@pytest.mark.parametrize("live", [True, False])
def test_reasoning_of_a_merge_is_voided(live):
    reader = written(settings=Settings(merge=True), live=live)
    for index in (1, 2):
        reader.write("It helps.", index)
        reader.end(index)
    reader.write("Let me merge them.\n", stage="merge")
    reader.write("</think>\nBoth help.", stage="merge")
    reader.end(stage="merge")
    answer = reader.answer()
    assert (answer.text, answer.merged) == ("Both help.", True)
    assert len(reader.only(AnswerRestarted)) == live


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("at", range(1, len("Hm.</think>\n\nIt is.")))
def test_reasoning_of_a_merge_is_voided_wherever_its_pieces_end(at, live):
    reader = written(settings=Settings(merge=True), live=live)
    for index in (1, 2):
        reader.write("It helps.", index)
        reader.end(index)
    text = "Hm.</think>\n\nIt is."
    reader.write(text[:at], stage="merge")
    reader.write(text[at:], stage="merge")
    reader.end(stage="merge")
    answer = reader.answer()
    assert (answer.text, answer.merged) == ("It is.", True)


def test_a_direct_answer_is_the_models_own_text():
    reader = Reader(AnswerFlow(QUESTION, router=lambda question: False))
    reader.end(stage="route")
    reader.write(THOUGHT + "It helps.", stage="direct", size=3)
    reader.end(stage="direct")
    assert reader.answer().text == THOUGHT + "It helps."


# --- reasoning before a skeleton ------------------------------------------------------------------

OPTIONS = "Options:\n1. talk about light\n2. talk about sound\n</think>\n1. Dark room\n2. Quiet room\n"


def planned(text: str = OPTIONS, size: int = 1000, **settings) -> Reader:
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(**settings)))
    reader.write(text, stage="skeleton", size=size)
    if any(call.stage == "skeleton" for call in reader.open.values()):
        reader.end(stage="skeleton")
    return reader


def finish(reader: Reader) -> Answer:
    for index in sorted(call.point.index for call in reader.open.values() if call.point):
        reader.write("It helps.", index)
        reader.end(index)
    return reader.answer()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("limits", [{}, {"max_points": 2}, {"min_points": 2}, {"min_points": 2, "max_points": 2}])
def test_points_before_a_lone_mark_are_thrown_away(limits, eager, size):
    reader = planned(size=size, eager=eager, **limits)
    answer = finish(reader)
    assert answer.skeleton.titles == ("Dark room", "Quiet room")
    assert answer.text == "1. Dark room: It helps.\n\n2. Quiet room: It helps."
    assert reader.found == ["Dark room", "Quiet room"]
    assert len(reader.only(SkeletonRestarted)) == (1 if size < 1000 else 0)
    assert len(reader.cancelled) == (2 if eager and size < 1000 else 0)


def test_eager_points_of_the_reasoning_are_cancelled_and_what_they_showed_is_void():
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(eager=True)))
    reader.write("1. talk about light\n2. talk about sound\n", stage="skeleton")
    reader.write("Light is bright.", 1)
    reader.end(1)
    reader.write("Sound is", 2)
    assert reader.text == "1. talk about light: Light is bright.\n\n2. talk about sound: Sound is"
    reader.write("</think>\n1. Dark room\n", stage="skeleton")
    assert reader.text == "1. Dark room"
    assert [type(a.error) for a in reader.only(AnswerRestarted)] == [ReasoningShown]
    reader.write("2. Quiet room\n", stage="skeleton")
    reader.end(stage="skeleton")
    answer = finish(reader)
    assert answer.text == "1. Dark room: It helps.\n\n2. Quiet room: It helps."
    # The tokens of the calls in vain count for the answer, and for none of its points.
    assert [e.usage for e in answer.expansions] == [Usage(1, 1), Usage(1, 1)]
    assert answer.usage_by_stage["point"] == Usage(4, 8)
    assert len(reader.cancelled) == 1
    assert [point.title for point in answer.timings.points] == ["Dark room", "Quiet room"]


def test_a_direct_answer_may_follow_points_of_the_reasoning():
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(eager=True, min_points=2)))
    reader.write("1. talk about light\n2. talk about sound\n", stage="skeleton")
    reader.write("Light is bright.", 1)
    reader.write("</think>\nNo list.", stage="skeleton")
    reader.end(stage="skeleton")
    reader.write("Sleep.", stage="direct")
    reader.end(stage="direct")
    answer = reader.answer()
    assert (answer.route, answer.text, answer.expansions) == ("direct", "Sleep.", ())


def test_a_mark_right_at_the_end_of_the_skeleton_counts():
    reader = planned("Options:\n1. talk about light\n</think>", on_empty_skeleton="direct", max_retries=0)
    reader.write("Sleep.", stage="direct")
    reader.end(stage="direct")
    assert reader.answer().route == "direct"


def test_a_list_after_other_text_is_read_on_up_to_three_times_max_points():
    many = "".join(f"{n}. Thing {n}\n" for n in range(1, 9))
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(max_points=2)))
    reader.write("Okay, they want two.\n" + many, stage="skeleton")
    assert len(reader.only(Cancel)) == 1
    assert reader.only(SkeletonDone)[0].skeleton.titles == ("Thing 1", "Thing 2")
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(max_points=2)))
    reader.write("1. Thing 1\n2. Thing 2\n", stage="skeleton")
    assert len(reader.only(Cancel)) == 1
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(max_points=2)))
    reader.write("Okay:\n1. Thing 1\n2. Thing 2\n3. Thing 3\n", stage="skeleton")
    assert reader.only(Cancel) == []


def test_points_of_a_prefill_survive():
    prompts = PromptSet(skeleton=PromptSet().skeleton)
    flow = AnswerFlow(QUESTION, prompts=prompts, prefill=["skeleton"])
    reader = Reader(flow)
    reader.write(" <think>\n1. no\n</think>\nDark room\n2. Quiet room\n", stage="skeleton")
    reader.end(stage="skeleton")
    assert finish(reader).skeleton.titles == ("Dark room", "Quiet room")


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
def test_retrieval_for_points_of_the_reasoning_is_in_vain(retrieval):
    flow = AnswerFlow(QUESTION, settings=Settings(eager=True), retrieval=retrieval)
    reader = Reader(flow)
    if retrieval == "once":
        reader.end(stage="sources")
    reader.write("1. talk\n2. more\n", stage="skeleton")
    if retrieval == "per_point":
        reader.end(1, stage="sources")
    reader.write("</think>\n1. Dark room\n2. Quiet room\n", stage="skeleton")
    reader.end(stage="skeleton")
    if retrieval == "per_point":
        reader.end(1, stage="sources")
        reader.end(2, stage="sources")
    assert finish(reader).skeleton.titles == ("Dark room", "Quiet room")


def test_the_drivers_close_the_calls_that_were_in_vain(pump: Callable[..., list]):
    class Model:
        """Writes a skeleton whose reasoning has two points."""

        def text(self, call: Call) -> list[str]:
            if call.stage == "skeleton":
                return ["1. talk\n", "2. more\n", "</think>\n", "1. Dark room\n"]
            return ["It helps."]

        def open(self, call: Call, position: int):
            yield from self.text(call)

        async def aopen(self, call: Call, position: int):
            for text in self.text(call):
                yield text

    flow = AnswerFlow(QUESTION, settings=Settings(eager=True))
    events = [event for _, event in pump(Model(), [flow])]
    assert flow.answer.text == released(events) == "1. Dark room: It helps."


# --- the views of the command ---------------------------------------------------------------------


def live_events() -> list:
    """The events of an answer whose skeleton and first point begin with reasoning that was shown."""
    reader = Reader(AnswerFlow(QUESTION, settings=Settings(eager=True)))
    reader.write("1. talk about light\n", stage="skeleton")
    reader.write("Light is bright.", 1)
    reader.write("</think>\n1. Dark room\n", stage="skeleton")
    reader.write("Hm.\n", 1)
    reader.write("</think>\nIt helps.", 1)
    reader.end(stage="skeleton")
    reader.end(1)
    assert reader.answer().text == "1. Dark room: It helps."
    return [action for action in reader.actions if not isinstance(action, Call | Cancel)]


def test_the_plain_view_writes_the_answer_once_more(capsys):
    view = PlainView()
    events = live_events()
    for event in events:
        view.show(event)
    view.finish(AnswerResult(events[-1].answer))
    assert capsys.readouterr().out.split("\n\n") == [
        "1. talk about light: Light is bright.",
        "1. Dark room: Hm.",
        "1. Dark room: It helps.\n",
    ]


def test_the_events_are_plain_data_with_the_titles_that_are_void(capsys):
    view = JsonView(events=True)
    for event in live_events():
        view.show(event)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line["event"] == "SkeletonRestarted"] == [
        {"event": "SkeletonRestarted", "skeleton": ["talk about light"]}
    ]
    assert {line["error"]["type"] for line in lines if line["event"] == "AnswerRestarted"} == {"ReasoningShown"}


def test_the_chat_of_the_command_shows_the_answer_after_a_blank_line(capsys):
    with Typewriter(quiet=True) as typewriter:
        for event in live_events():
            typewriter.show(event)
    assert typewriter.text == "1. Dark room: It helps."
    assert capsys.readouterr().out.endswith("\n\n1. Dark room: It helps.\n")
