"""Planned answers: points that say what they cover and build on others, an opening and a closing."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from always import skeleton_chain
from heard import Heard
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sot import SkeletonOfThoughtChain, SkeletonOutputParser
from langchain_sot.results import PlannedAnswerDict, Restart
from langchain_sot.skeleton_schema import StructuredReply
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import PlanItem, Point, RouteDecision, Skeleton

GRAPH = "1. Price: what each costs\n2. Speed: how fast each is\n3. Which to buy: who needs which (after 1, 2)"
SCOPED = "1. Price: what each costs\n2. Speed: how fast each is"
TITLES = ["Price", "Speed", "Which to buy"]
TEXTS = {"1": "It costs ten.", "2": "It runs far.", "3": "Buy the cheap one."}
POINTS = "1. Price: It costs ten.\n\n2. Speed: It runs far."
BODY = f"{POINTS}\n\n3. Which to buy: Buy the cheap one."
PLAN = [
    {"index": 1, "title": "Price", "depends_on": [], "scope": "what each costs", "words": None, "wave": 1},
    {"index": 2, "title": "Speed", "depends_on": [], "scope": "how fast each is", "words": None, "wave": 1},
    {"index": 3, "title": "Which to buy", "depends_on": [1, 2], "scope": "who needs which", "words": None, "wave": 2},
]
PROMPTS = {
    "skeleton_prompt": "[titles] {question}",
    "scoped_prompt": "[scoped] {question}",
    "graph_prompt": "[graph] {question}",
    "point_prompt": "[point {index}] {question} ({scope}) {parents}",
    "opening_prompt": "[opening] {draft}",
    "closing_prompt": "[closing] {draft}",
    "merge_prompt": "[merge] {draft}",
}
FAKE = FakeListChatModel(responses=["1. Move"])
REPLIES = {
    "titles": "1. Price\n2. Speed\n3. Which to buy",
    "scoped": SCOPED,
    "graph": GRAPH,
    **{f"point {index}": text for index, text in TEXTS.items()},
    "opening": "Two ways lead there.",
    "closing": "So take the cheap one.",
    "merge": "All in one.",
}


def asked(seen: Any) -> str:
    """The stage of a call, by the prompts of these tests; "" for a direct answer."""
    found = re.search(r"\[(\w+(?: \d)?)\]", seen.text)
    return found[1] if found else ""


@pytest.fixture
def llm(kit):
    """A model whose replies are read from `REPLIES`; a test replaces some of them, by lists of steps."""
    replies: dict[str, Any] = {name: [text] for name, text in REPLIES.items()} | {"": ["Directly."]}
    model = kit.Chat(script=lambda seen: replies[asked(seen)])
    return model, replies


def planned(llm: Any, **settings: Any) -> SkeletonOfThoughtChain:
    return skeleton_chain(**{"llm": llm[0], **PROMPTS, "planning": "graph", "backoff": 0, **settings})


def calls(llm: Any) -> list[str]:
    return [asked(seen) for seen in llm[0].watch.seen]


# --- outputs ---


@pytest.mark.parametrize("eager", [False, True, "auto"])
async def test_all_six_methods_give_the_same_planned_answer(kit, way, llm, eager):
    output = await way(planned(llm, opening=True, closing=True, eager=eager), "Which one?")
    assert kit.texts(output) == {
        "question": "Which one?",
        "route": "skeleton",
        "reason": "no router",
        "skeleton": TITLES,
        "points": TEXTS,
        "answer": f"Two ways lead there.\n\n{BODY}\n\nSo take the cheap one.",
        "errors": {},
        "sources": [],
        "point_sources": {},
        "planning": "graph",
        "plan": PLAN,
        "opening": "Two ways lead there.",
        "closing": "So take the cheap one.",
    }
    assert list(output)[-len(kit.END) :] == list(kit.END)
    assert [(each["depends_on"], each["wave"]) for each in output["timings"]["points"]][2] in [((1, 2), 2), ([1, 2], 2)]
    assert {"opening", "closing"} <= output["usage_by_stage"].keys()
    assert calls(llm)[0] == "graph"
    assert sorted(calls(llm)[1:3]) == ["point 1", "point 2"]
    assert calls(llm)[3] == "point 3"
    assert sorted(calls(llm)[4:]) == ["closing", "opening"]
    third = llm[0].watch.seen[3].text
    assert "(who needs which)" in third
    assert all(text in third for text in (TEXTS["1"], TEXTS["2"]))


async def test_a_scoped_plan_says_what_points_cover(kit, way, llm):
    output = await way(planned(llm, planning="scoped"), "Q")
    assert output["answer"] == POINTS
    assert (output["planning"], output["plan"]) == ("scoped", PLAN[:2])
    assert calls(llm)[0] == "scoped"


async def test_titles_have_the_keys_that_they_always_had(kit, way, llm):
    output = await way(planned(llm, planning="titles"), "Q")
    assert not output.keys() & {"planning", "plan", "opening", "closing"}
    assert output["answer"] == BODY
    first = next(seen for seen in llm[0].watch.seen if asked(seen) == "point 1")
    assert first.text.strip() == "[point 1] Q ()"


def test_the_schemas_show_the_keys_of_a_plan(llm):
    chain = planned(llm)
    assert chain.OutputType is PlannedAnswerDict
    assert {"plan", "planning", "opening", "closing"} <= set(chain.get_output_jsonschema()["properties"])
    assert "plan" not in planned(llm, planning="titles").get_output_jsonschema()["properties"]
    names = [str(node.name) for node in planned(llm, closing=True, merge=True).get_graph().nodes.values()]
    assert names.count("ScriptedChat") == 4


async def test_a_role_that_fails_leaves_the_answer_and_says_why(kit, way, llm):
    llm[1]["closing"] = [OSError("down")]
    heard = Heard()
    output = await way(planned(llm, closing=True, max_retries=0), "Q", {"callbacks": [heard]})
    assert output["answer"] == BODY
    assert output["errors"] == {"closing": "OSError: down"}
    assert output["closing"] == ""
    assert heard.of("sot_role_end") == [{"role": "closing", "text": "", "error": "OSError: down"}]


async def test_a_plan_in_a_row_is_answered_directly_and_says_so(kit, way, llm):
    llm[1]["graph"] = ["1. A: a\n2. B: b (after 1)\n3. C: c (after 2)"]
    output = await way(planned(llm), "Q")
    assert (output["route"], output["answer"], output["plan"], output["skeleton"]) == ("direct", "Directly.", [], [])
    assert "builds on the one before" in output["reason"]
    assert not [call for call in calls(llm) if call.startswith("point")]


@pytest.mark.parametrize("policy", ["write", "fail"])
async def test_a_child_of_a_failed_point_is_written_or_fails(kit, way, llm, policy):
    llm[1]["point 1"] = [OSError("down")]
    heard = Heard()
    chain = planned(llm, on_parent_error=policy, on_point_error="placeholder", max_retries=0, placeholder="Gone.")
    output = await way(chain, "Q", {"callbacks": [heard]})
    end = next(data for data in heard.of("sot_point_end") if data["index"] == 3)
    if policy == "write":
        assert (output["points"]["3"], list(output["errors"])) == (TEXTS["3"], ["1"])
        assert end["missing"] == [1]
    else:
        assert output["points"]["3"] == "Gone."
        assert output["errors"].keys() == {"1", "3"}
        assert output["errors"]["3"].startswith("ParentError")


# --- streams ---


def test_an_opening_that_restarts_voids_the_points_that_were_shown(llm):
    shown = [chunk["answer"] for chunk in planned(llm, opening="restart").stream("Q") if "answer" in chunk]
    restarts = [i for i, text in enumerate(shown) if isinstance(text, Restart)]
    assert len(restarts) == 1
    assert "".join(shown[: restarts[0]]).strip() == BODY
    assert "".join(shown[restarts[0] :]) == f"Two ways lead there.\n\n{BODY}"


async def test_messages_hold_the_points_back_until_the_opening(way, llm):
    message = await way(planned(llm, opening="restart").as_chat_model(), "Q")
    assert message.text == f"Two ways lead there.\n\n{BODY}"
    assert (message.response_metadata["planning"], message.response_metadata["plan"]) == ("graph", PLAN)


async def test_a_point_that_repeats_another_is_written_anew(kit, way, llm):
    same = "the old town has a harbour with many small boats and a long pier."
    texts = iter([f"Yes, {same}", "It runs far."] * 2)
    llm[1]["scoped"], llm[1]["point 1"], llm[1]["point 2"] = [SCOPED], [f"Well, {same}"], None
    script = llm[0].script
    llm[0].script = lambda seen: [next(texts)] if asked(seen) == "point 2" else script(seen)
    heard = Heard()
    output = await way(planned(llm, planning="scoped", rewrite_overlap=True), "Q", {"callbacks": [heard]})
    assert output["points"] == {"1": f"Well, {same}", "2": "It runs far."}
    (found,) = heard.of("sot_overlap")
    assert (found["index"], found["title"], found["other"]) == (2, "Speed", 1)
    assert found["passage"] in same
    assert 0.3 < found["share"] <= 1
    assert [data["attempt"] for data in heard.of("sot_point_start") if data["index"] == 2] == [1, 2]
    assert [data.get("rewritten") for data in heard.of("sot_point_end")] == [None, True]


@pytest.mark.parametrize("eager", [True, "auto"])
async def test_eager_points_start_while_the_plan_is_written(kit, way, llm, eager):
    lines = GRAPH.splitlines(keepends=True)
    llm[1]["graph"] = [*lines[:2], kit.Gate(lambda: "point 1" in calls(llm)), lines[2]]
    output = await way(planned(llm, eager=eager), "Q")
    assert output["answer"] == BODY
    assert calls(llm)[-1] == "point 3"


# --- events and runs ---


async def test_events_say_what_points_cover_and_wait_for(way, llm):
    heard = Heard()
    await way(planned(llm, closing=True), "Q", {"callbacks": [heard]})
    assert heard.of("sot_skeleton") == [{"titles": TITLES, "plan": PLAN}]
    assert heard.of("sot_point_start")[2] == {
        **{"index": 3, "title": "Which to buy", "attempt": 1},
        **{"scope": "who needs which", "depends_on": [1, 2], "wave": 2},
    }
    assert [data.get("wave") for data in heard.of("sot_point_end")] == [None, None, 2]
    text = REPLIES["closing"]
    assert heard.events[-2:] == [
        ("sot_role_start", {"role": "closing", "attempt": 1}),
        ("sot_role_end", {"role": "closing", "text": text, "error": None}),
    ]


async def test_a_trace_shows_which_point_waited_for_which(kit, way, llm):
    runs = kit.Runs()
    await way(planned(llm, opening=True, closing=True), "Q", {"callbacks": [runs]})
    (root,) = runs.roots
    children = {run.name: run for run in runs.children(root)}
    assert children.keys() == {
        *("skeleton", "point 1: Price", "point 2: Speed", "point 3: Which to buy", "opening", "closing")
    }
    third = children["point 3: Which to buy"].metadata
    assert (third["sot_scope"], third["sot_depends_on"], third["sot_wave"]) == ("who needs which", [1, 2], 2)
    assert "sot_wave" not in children["point 1: Price"].metadata
    assert (children["closing"].metadata["sot_stage"], "sot:closing" in children["closing"].tags) == ("closing", True)
    runs.assert_all_ended_before_the_root()


async def test_the_waves_of_retrievals_are_in_their_runs(kit, way, llm):
    runs = kit.Runs()
    chain = planned(llm, retriever=lambda query: ["A fact."], retrieval="per_point")
    output = await way(chain, "Q", {"callbacks": [runs]})
    assert output["answer"] == BODY
    found = [run.metadata for run in runs.started.values() if str(run.name).startswith("retrieve for point 3")]
    assert [(each["sot_depends_on"], each["sot_wave"]) for each in found] == [([1, 2], 2)]


# --- prompts ---


def test_templates_of_langchain_serve_for_plans_and_roles(llm):
    chain = planned(
        llm,
        graph_prompt=ChatPromptTemplate.from_messages([("system", "Plan."), ("human", "[graph] {question}")]),
        point_prompt=PromptTemplate.from_template("[point {index}] {title}: {scope}; {parents}"),
        closing_prompt=PromptTemplate.from_template("[closing] {tone}: {draft}"),
        closing=True,
    )
    output = chain.invoke({"question": "Q", "tone": "warm"})
    assert output["closing"] == REPLIES["closing"]
    seen = {asked(each): each for each in llm[0].watch.seen}
    assert [message.text for message in seen["graph"].messages] == ["Plan.", "[graph] Q"]
    assert seen["point 1"].text == "[point 1] Price: what each costs; "
    assert seen["point 3"].text.startswith("[point 3] Which to buy: who needs which; ")
    assert TEXTS["2"] in seen["point 3"].text
    assert seen["closing"].text == f"[closing] warm: {BODY}"


def test_a_key_is_needed_only_for_prompts_that_are_used(llm):
    chain = planned(llm, closing_prompt="[closing] {tone} {draft}", scoped_prompt="{style} {question}")
    assert chain.invoke("Q")["answer"] == BODY
    required = lambda: chain.get_input_jsonschema()["$defs"]["ChainInput"]["required"]  # noqa: E731
    assert required() == ["question"]
    chain.closing = True
    assert required() == ["question", "tone"]
    with pytest.raises(InvalidInput, match="closing prompt asks for 'tone'"):
        chain.invoke("Q")


@pytest.mark.parametrize("planning", ["titles", "graph"])
@pytest.mark.parametrize("made", [str, PromptTemplate.from_template])
def test_keys_of_the_input_go_before_values_of_a_plan(llm, planning, made):
    chain = planned(llm, planning=planning, point_prompt=made("[point {index}] {title}: {plan}, {parents}"))
    chain.invoke({"question": "Q", "plan": "Premium", "parents": "Ann and Bob"})
    seen = {asked(each): each.text for each in llm[0].watch.seen}
    assert seen["point 1"] == "[point 1] Price: Premium, Ann and Bob"
    assert seen["point 3"].endswith("[point 3] Which to buy: Premium, Ann and Bob")
    assert (TEXTS["2"] in seen["point 3"]) == (planning == "graph")
    chain.invoke({"messages": [("human", "Q")], "plan": ["a", "b"], "scope": "of the state"})
    seen = {asked(each): each.text for each in llm[0].watch.seen}
    assert seen["point 3"].rpartition("[point")[2].startswith(" 3] Which to buy: ['a', 'b'], ")
    with pytest.raises(InvalidInput, match="Nothing uses 'scope'"):
        chain.invoke({"question": "Q", "scope": "of nothing"})


@pytest.mark.parametrize("name", ["scoped_prompt", "graph_prompt", "opening_prompt", "closing_prompt"])
@pytest.mark.parametrize("made", [str, PromptTemplate.from_template])
def test_prompts_without_what_they_need_are_refused(llm, name, made):
    with pytest.raises(ValueError, match=r"\{(draft|question)\}"):
        planned(llm, **{name: made("Write something.")})


def test_the_prompts_of_a_planned_chain_are_templates(kit):
    chain = skeleton_chain(llm=kit.Chat(script=lambda seen: []), planning="graph")
    assert chain.get_skeleton_prompt().input_variables == ["question"]
    assert chain.get_skeleton_prompt() != skeleton_chain(llm=chain.llm).get_skeleton_prompt()
    assert {"index", "title"} & set(chain.get_point_prompt().input_variables)
    assert "draft" in chain.get_role_prompt("closing").input_variables


def test_the_projects_own_prompts_need_nothing_else(kit):
    def script(seen):
        if len(llm.watch.seen) == 1:
            return [GRAPH]
        return [f"Text {len(llm.watch.seen)}."]

    llm = kit.Chat(script=script)
    output = skeleton_chain(llm=llm, planning="graph", closing=True).invoke("Which one?")
    assert output["plan"] == PLAN
    third = next(seen for seen in llm.watch.seen if "Text 2." in seen.text)
    assert "Text 3." in third.text
    assert output["closing"]


# --- plans as data ---


@pytest.fixture
def tools(kit, llm):
    """The model with tools: it calls the tool of a schema with `replies["data"]` as its arguments."""
    model, replies = llm

    class ToolChat(kit.Chat):
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            if not kwargs.get("tools"):
                yield from super()._stream(messages, stop, run_manager, **kwargs)
                return
            with self.watch.call(kit.seen_as(messages, kwargs)):
                function = kwargs["tools"][0]["function"]["name"]
                call = {"name": function, "args": json.dumps(replies["data"]), "id": "1", "index": 0}
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))

        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            for chunk in ToolChat._stream(self, messages, stop, run_manager, **kwargs):
                yield chunk

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return kit.whole([chunk.message for chunk in self._stream(messages, stop, run_manager, **kwargs)])

        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            return self._generate(messages, stop, run_manager, **kwargs)

    return ToolChat(script=model.script), replies


DATA = {
    "points": [
        {"title": "Price", "scope": "what each costs", "after": []},
        {"title": "Speed", "scope": "how fast each is", "after": []},
        {"title": "Which to buy", "scope": "who needs which", "after": [1, 2, 9]},
    ]
}


@pytest.mark.parametrize("router", [None, lambda question: RouteDecision(True, planning="graph")])
async def test_a_plan_as_data(kit, ways, tools, router):
    tools[1]["data"] = DATA
    settings = {"skeleton_mode": "structured", "planning": "graph" if router is None else "auto", "router": router}
    for way in (ways["ainvoke"], ways["stream"]):
        output = await way(planned(tools, **settings), "Q")
        assert (output["answer"], output["plan"], output["planning"]) == (BODY, PLAN, "graph")
    (asked_for, *_) = [seen.kwargs["tools"] for seen in tools[0].watch.seen if seen.kwargs.get("tools")]
    fields = json.dumps(asked_for[0]["function"]["parameters"])
    assert all(name in fields for name in ('"title"', '"scope"', '"after"'))


async def test_titles_in_place_of_a_plan_still_count(ways, tools):
    tools[1]["data"] = {"points": TITLES}
    output = await ways["ainvoke"](planned(tools, skeleton_mode="structured"), "Q")
    assert output["skeleton"] == TITLES


@pytest.mark.parametrize(
    ("point", "item"),
    [
        ({"title": "A", "scope": "b", "after": [1]}, PlanItem("A", "b", (1,))),
        ({"title": "A"}, PlanItem("A")),
        ({"title": "A", "scope": None, "after": ["1", None, True, "9" * 5000]}, PlanItem("A", "", (1,))),
        ({"title": "A", "covers": "b", "after": "1 and 3", "words": 30}, PlanItem("A", "b", (1, 3), 30)),
        ({"scope": "A"}, None),
        (["A"], None),
    ],
)
def test_points_of_a_plan_are_read_whatever_their_form(point, item):
    reply = StructuredReply("graph")
    reply.add(AIMessageChunk(content=json.dumps({"points": [point]})))
    assert reply.plan == (None if item is None else (item,))


# --- settings, copies and other surfaces ---


def test_the_kind_is_configurable_for_each_call(llm):
    chain = planned(llm).configurable_fields(planning=ConfigurableField(id="planning"))
    for kind in ("scoped", "graph", "titles"):
        chain.invoke("Q", {"configurable": {"planning": kind}})
    assert [call for call in calls(llm) if call in REPLIES and "point" not in call] == ["scoped", "graph", "titles"]


@pytest.mark.parametrize(
    "settings",
    [{"planning": "tree"}, {"max_depth": 0}, {"opening": "later"}, {"max_overlap": 0}, {"on_parent_error": "raise"}],
)
def test_settings_that_cannot_work_are_refused_when_the_chain_is_made(llm, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        planned(llm, **settings)


def test_a_pickle_of_a_version_without_plans_has_the_defaults():
    chain = skeleton_chain(llm=FAKE, closing=True)
    assert pickle.loads(pickle.dumps(chain)) == chain
    new = ("planning", "max_depth", "opening", "closing", "graph_prompt", "closing_prompt")
    state = chain.__getstate__()
    old = SkeletonOfThoughtChain.__new__(SkeletonOfThoughtChain)
    old.__setstate__({**state, "__dict__": {k: v for k, v in state["__dict__"].items() if k not in new}})
    assert [getattr(old, name) for name in new] == ["titles", 2, False, False, None, None]
    assert old.plan().planned is False


def test_copies_share_what_is_known_of_a_models_plans(llm):
    chain = planned(llm, planning="auto", router=lambda question: RouteDecision(True, planning="graph"))
    copy = chain.model_copy(update={"max_points": 7})
    assert chain.plan().plans is copy.plan().plans is not None
    assert pickle.loads(pickle.dumps(skeleton_chain(llm=FAKE, planning="auto"))).plan().plans is not None
    llm[1]["graph"] = ["1. Price\n2. Speed"]
    for _ in range(3):
        assert chain.invoke("Q")["route"] in ("skeleton", "direct")
    assert calls(llm).count("graph") == 2
    assert planned(llm).plan().plans is None


@pytest.mark.parametrize("planning", ["titles", "graph", "auto"])
async def test_routers_are_told_that_points_may_build_on_each_other(way, llm, planning):
    told = []

    class Asking:
        def at_once(self, conversation):
            told.append(conversation.request.graph)
            return RouteDecision(True)

        def route(self, conversation):
            raise AssertionError("it has decided")

        aroute = route

    chain = planned(llm, planning=planning, router=Asking())
    await way(chain, "Q")
    await way(chain.as_chat_model(), "Q")
    assert told == [planning != "titles"] * 2


def test_an_expansion_keeps_what_points_build_on(llm):
    points = [Point(3, "Price"), Point(1, "Speed"), Point(7, "Which to buy", (3, 1, 5), "who needs which")]
    expansion = planned(llm, closing=True).expansion(points)
    assert expansion.skeleton == Skeleton(
        (Point(1, "Price"), Point(2, "Speed"), Point(3, "Which to buy", (1, 2), "who needs which"))
    )
    assert expansion.invoke("Q") == TEXTS
    assert calls(llm)[-1] == "point 3"
    assert TEXTS["1"] in llm[0].watch.seen[-1].text


def test_the_output_parser_leaves_titles_of_a_plan():
    parser = SkeletonOutputParser(planning="graph")
    assert parser.parse(GRAPH) == TITLES
    assert [title for titles in parser.transform(iter(GRAPH.splitlines(keepends=True))) for title in titles] == TITLES


def test_agents_answer_by_plans(llm):
    agents = pytest.importorskip("langchain.agents", reason="the extra [agents] is not installed")
    from langchain_sot import SkeletonOfThoughtMiddleware

    middleware = SkeletonOfThoughtMiddleware(**PROMPTS, router=None, planning="graph", closing=True)
    agent = agents.create_agent(llm[0], middleware=[middleware])
    message = agent.invoke({"messages": [("human", "Which one?")]})["messages"][-1]
    assert message.text == f"{BODY}\n\n{REPLIES['closing']}"
    assert message.response_metadata["plan"] == PLAN
