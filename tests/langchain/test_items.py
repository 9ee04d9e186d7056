"""Items side by side: questions that ask the same of several items, in every interface of a chain."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from heard import Heard
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.language_models import LLM, FakeListChatModel
from langchain_core.load import dumpd, dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_sot import ChatTransformers, SkeletonOfThoughtChain, SkeletonOfThoughtRouter, load_chain
from langchain_sot.results import AnswerDict
from skeleton_of_thought import AutoRouter
from skeleton_of_thought.errors import InvalidInput, PointError
from skeleton_of_thought.routers.base import all_of, any_of, first_sure
from skeleton_of_thought.types import Conversation, Item, ItemList, ItemsDecision, RouteDecision, route_of

INSTRUCTION = "Translate each of these sentences into French:"
TEXTS = {
    "The cat sleeps on the sofa.": "Le chat dort sur le canapé.",
    "The dog runs through the garden.": "Le chien court dans le jardin.",
    "The bird sings in the tree.": "L'oiseau chante dans l'arbre.",
}
ITEMS = list(TEXTS)
QUESTION = "\n".join([INSTRUCTION, *(f"{i}. {item}" for i, item in enumerate(ITEMS, 1))])
POINTS = {str(i): text for i, text in enumerate(TEXTS.values(), 1)}
ANSWER = "\n".join(f"{i}. {text}" for i, text in POINTS.items())
MANY = [f"This is sentence number {i}." for i in range(1, 26)]
LONG = "\n".join([INSTRUCTION, *(f"{i}. {item}" for i, item in enumerate(MANY, 1))])
FAKE = FakeListChatModel(responses=["1. Move"])
MEASURELESS = AutoRouter()
"""The rules of `router="auto"` without the guard, which weighs the cost of few short items."""


def item_of(seen: Any) -> str:
    """The item that a call asks for; "" for any other call."""
    last = seen.text.rpartition("\n\n")[2].removeprefix("[item] ")
    return last if last in TEXTS or last in MANY else ""


@pytest.fixture
def llm(kit):
    """A model that translates items, and that says "Directly." else; a test replaces some replies by lists of steps."""
    replies: dict[str, Any] = {item: kit.pieces(text) for item, text in TEXTS.items()} | {"": ["Directly."]}
    replies |= {item: [f"Phrase {item.split()[-1]}"] for item in MANY}
    model = kit.Chat(script=lambda seen: replies[item_of(seen)])
    return model, replies


def by_items(llm: Any, /, **settings: Any) -> SkeletonOfThoughtChain:
    return SkeletonOfThoughtChain(**{"llm": llm[0], "router": MEASURELESS, "backoff": 0, **settings})


def calls(llm: Any) -> list[str]:
    return [item_of(seen) for seen in llm[0].watch.seen]


# --- outputs ---


async def test_all_six_methods_answer_item_by_item(kit, way, llm):
    output = await way(by_items(llm), QUESTION)
    reason = output["reason"]
    assert "3 items" in reason
    assert kit.texts(output) == {
        "question": QUESTION,
        "route": "items",
        "reason": reason,
        "skeleton": ITEMS,
        "points": POINTS,
        "answer": ANSWER,
        "errors": {},
        "sources": [],
        "point_sources": {},
    }
    assert list(output)[:4] == list(AnswerDict.__annotations__)[:4]
    assert sorted(calls(llm)) == sorted(ITEMS)
    assert output["usage_by_stage"].keys() == {"point"}
    assert output["usage"]["output_tokens"] == sum(len(kit.pieces(text)) for text in TEXTS.values())
    assert output["finish_reasons"] == {"1": "stop", "2": "stop", "3": "stop"}


async def test_the_default_router_finds_items(way, llm):
    output = await way(by_items(llm, router="auto"), LONG)
    assert (output["route"], list(output["points"])) == ("items", [str(i) for i in range(1, 26)])
    assert output["answer"].splitlines()[24] == "25. Phrase 25."


async def test_other_questions_of_many_lines_are_answered_as_before(way, llm):
    output = await way(by_items(llm), "What is 17 * 4?\nAnd what is half of it?")
    assert (output["route"], output["answer"], output["skeleton"]) == ("direct", "Directly.", [])


def test_streams_show_items_in_their_order_whichever_ends_first(kit, llm):
    watch = llm[0].watch
    llm[1][ITEMS[0]] = [kit.Gate(lambda: len(watch.seen) == 3 and watch.open == 1), TEXTS[ITEMS[0]]]
    chunks = list(by_items(llm).stream(QUESTION))
    first = next(chunk for chunk in chunks if chunk.get("route"))
    assert (first["route"], first["skeleton"], first["points"]) == ("items", ITEMS, {"1": "", "2": "", "3": ""})
    assert "3 items" in first["reason"]
    assert [chunk["reason"] for chunk in chunks[1:] if "reason" in chunk] == []
    grown = [index for chunk in chunks[1:] for index in chunk.get("points", {})]
    assert grown[-1] == "1"
    assert "".join(chunk.get("answer", "") for chunk in chunks) == ANSWER


async def test_picked_keys_are_those_of_the_answer(way, llm):
    assert await way(by_items(llm).pick("answer"), QUESTION) == ANSWER
    assert await way(by_items(llm).pick("points"), QUESTION) == POINTS


# --- settings beside items ---


@pytest.mark.parametrize(
    "settings",
    [
        {"merge": True, "opening": True, "closing": True},
        {"opening": "restart"},
        {"planning": "graph", "rewrite_overlap": True},
        {"planning": "auto", "eager": "auto"},
        {"skeleton_mode": "structured", "eager": True},
        {"join": "headings", "max_points": 2, "min_points": 2},
    ],
    ids="-".join,
)
async def test_settings_of_skeletons_leave_items_alone(ways, llm, settings):
    for way in (ways["ainvoke"], ways["astream"]):
        output = await way(by_items(llm, **settings), QUESTION)
        assert (output["route"], output["points"], output["answer"]) == ("items", POINTS, ANSWER)
        if "plan" in output:
            assert (output["planning"], [each["title"] for each in output["plan"]]) == ("titles", ITEMS)
            assert (output["opening"], output["closing"]) == ("", "")
    assert sorted(calls(llm)) == sorted(ITEMS * 2)


async def test_a_limit_of_words_goes_to_each_item(way, llm):
    instruction = "Translate each of these sentences into French in at most 20 words:"
    output = await way(by_items(llm), QUESTION.replace(INSTRUCTION, instruction))
    assert (output["route"], output["answer"]) == ("items", ANSWER)
    assert all(seen.text.startswith(instruction) for seen in llm[0].watch.seen)


@pytest.mark.parametrize(
    "settings",
    [{"items": "off"}, {"router": lambda question: False}, {"router": RunnableLambda(lambda question: False)}],
    ids=["off", "function", "runnable"],
)
async def test_who_asks_for_no_items_gets_none(way, llm, settings):
    output = await way(by_items(llm, **settings), QUESTION)
    assert (output["route"], output["answer"]) == ("direct", "Directly.")


async def test_chains_without_a_router_and_given_points_have_a_skeleton(kit, way):
    llm = kit.Chat(script=kit.answering(["Cat", "Dog"]))
    chain = SkeletonOfThoughtChain(llm=llm, router=None)
    assert (await way(chain, QUESTION))["route"] == "skeleton"
    expansion = SkeletonOfThoughtChain(llm=llm).expansion(["Cat", "Dog"])
    assert await way(expansion, QUESTION) == {"1": "All about cat.", "2": "All about dog."}


# --- routers ---


async def test_the_router_as_a_runnable_finds_items_only_for_a_chain(ways, llm):
    router = SkeletonOfThoughtRouter()
    decision = router.invoke(QUESTION)
    assert (decision.items, route_of(decision)) == (None, "direct")
    assert (await router.ainvoke(QUESTION)).items is None
    output = await ways["ainvoke"](by_items(llm, router=router), LONG)
    assert output["route"] == "items"


def yes(question: str) -> bool:
    return True


def no(question: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("router", "route"),
    [
        (all_of(MEASURELESS, yes), "items"),
        (all_of(MEASURELESS, no), "direct"),
        (any_of(no, MEASURELESS), "items"),
        (first_sure(MEASURELESS, no), "items"),
        (lambda question: ItemsDecision(False, items=ItemList("Write.", (Item(1, "A"),))), "direct"),
    ],
)
async def test_combined_routers_keep_the_items(ways, llm, router, route):
    for way in (ways["ainvoke"], ways["stream"]):
        assert (await way(by_items(llm, router=router), QUESTION))["route"] == route
    message = await ways["ainvoke"](by_items(llm, router=router).as_chat_model(), QUESTION)
    assert message.response_metadata["route"] == route


async def test_a_function_may_find_items_itself(way, llm):
    found = ItemList(
        "Say it in French.", (Item(1, "Cat", mark="-", tight=True, ask=ITEMS[0]), Item(2, "Dog", mark="-"))
    )
    llm[1][""] = ["Un chien."]
    output = await way(by_items(llm, router=lambda question: ItemsDecision(True, reason="mine", items=found)), "Hm?")
    assert (output["route"], output["reason"], output["skeleton"]) == ("items", "mine", ["Cat", "Dog"])
    assert output["answer"] == f"- {TEXTS[ITEMS[0]]}\n\n- Un chien."


# --- errors and limits ---


async def test_an_item_that_fails_raises_by_default(way, llm):
    llm[1][ITEMS[1]] = [OSError("down")]
    with pytest.raises(PointError) as raised:
        await way(by_items(llm, max_retries=0), QUESTION)
    assert raised.value.answer.route == "items"
    assert raised.value.point.title == ITEMS[1]


async def test_a_placeholder_keeps_the_place_of_an_item(way, llm):
    llm[1][ITEMS[1]] = [OSError("down")]
    output = await way(by_items(llm, on_point_error="placeholder", placeholder="(none)", max_retries=1), QUESTION)
    assert output["answer"] == f"1. {POINTS['1']}\n2. (none)\n3. {POINTS['3']}"
    assert output["errors"] == {"2": "OSError: down"}
    assert calls(llm).count(ITEMS[1]) == 2


async def test_max_concurrency_bounds_the_items(way, llm):
    output = await way(by_items(llm), LONG, {"max_concurrency": 3})
    assert len(output["points"]) == 25
    assert llm[0].watch.peak <= 3


async def test_one_answer_has_all_its_items_open_at_once(kit, ways, llm):
    for item in MANY:
        llm[1][item] = [llm[0].watch.together(25), *llm[1][item]]
    for way in (ways["invoke"], ways["astream"]):
        assert len((await way(by_items(llm), LONG))["points"]) == 25


@pytest.mark.parametrize("limit", [None, 2])
def test_a_batch_shares_its_calls_among_the_items_of_all_questions(llm, limit):
    config = {} if limit is None else {"max_concurrency": limit}
    outputs = by_items(llm).batch([LONG, QUESTION, "Why?"], config)
    assert [output["route"] for output in outputs] == ["items", "items", "direct"]
    assert (len(outputs[0]["points"]), outputs[1]["answer"]) == (25, ANSWER)
    assert llm[0].watch.peak <= (limit or 36)
    assert llm[0].watch.open == 0


def test_a_stream_that_is_closed_leaves_no_call_open(kit, llm):
    llm[1][ITEMS[2]] = [kit.Gate(lambda: closed), "late"]
    closed = False
    stream = by_items(llm).stream(QUESTION)
    assert next(stream)["route"] == "items"
    closed = True
    stream.close()
    assert llm[0].watch.open == 0


# --- events, runs and usage ---


async def test_custom_events_tell_of_items(way, llm):
    heard = Heard()
    await way(by_items(llm), QUESTION, {"callbacks": [heard]})
    (name, route), skeleton, *others = heard.events
    assert (name, route["use_skeleton"], route["items"]) == ("sot_route", True, 3)
    assert skeleton == ("sot_skeleton", {"titles": ITEMS})
    starts = [data for name, data in others if name == "sot_point_start"]
    assert starts == [{"index": i, "title": item, "attempt": 1} for i, item in enumerate(ITEMS, 1)]
    ends = {data["index"]: data["text"] for name, data in others if name == "sot_point_end"}
    assert {str(index): text for index, text in ends.items()} == POINTS


async def test_each_item_is_one_run(kit, way, llm):
    runs = kit.Runs()
    await way(by_items(llm), QUESTION, {"callbacks": [runs]})
    (root,) = runs.roots
    children = {run.name: run for run in runs.children(root)}
    assert children.keys() == {f"point {i}: {item}" for i, item in enumerate(ITEMS, 1)}
    second = children[f"point 2: {ITEMS[1]}"]
    assert (second.metadata["sot_stage"], second.metadata["sot_point"]) == ("point", 2)
    assert "sot:point" in second.tags
    runs.assert_all_ended_before_the_root()


async def test_a_run_is_named_by_the_start_of_a_long_item(kit, ways, llm):
    runs, long = kit.Runs(), Item(1, "word " * 100)
    router = lambda question: ItemsDecision(True, items=ItemList("Say it.", (long,)))  # noqa: E731
    await ways["ainvoke"](by_items(llm, router=router), "Hm?", {"callbacks": [runs]})
    assert max(len(run.name) for run in runs.started.values()) < 150


async def test_events_of_langchain_have_the_items_in_their_metadata(llm):
    texts: dict[int, str] = {}
    async for event in by_items(llm).astream_events(QUESTION, version="v2"):
        if event["event"] == "on_chat_model_stream":
            index = event["metadata"]["sot_point"]
            texts[index] = texts.get(index, "") + event["data"]["chunk"].text
    assert {str(index): text for index, text in texts.items()} == POINTS


async def test_usage_callbacks_count_each_call_once(way, llm):
    with get_usage_metadata_callback() as counted:
        output = await way(by_items(llm), QUESTION)
    (usage,) = counted.usage_metadata.values()
    assert usage["total_tokens"] == output["usage"]["total_tokens"] > 0


# --- the chat model ---


async def test_messages_are_answered_item_by_item(way, llm):
    message = await way(by_items(llm).as_chat_model(), QUESTION)
    metadata = message.response_metadata
    assert (message.text, metadata["route"], metadata["skeleton"]) == (ANSWER, "items", ITEMS)
    assert "3 items" in metadata["reason"]
    assert metadata["usage_by_stage"].keys() == {"point"}
    assert message.usage_metadata["output_tokens"] == metadata["usage_by_stage"]["point"]["output_tokens"]
    assert sorted(calls(llm)) == sorted(ITEMS)


@pytest.mark.parametrize(
    ("chain", "arguments"),
    [
        ({}, {"stop": ["!"]}),
        ({}, {"max_tokens": 9}),
        ({}, {"tools": [{"name": "weather"}]}),
        ({}, {"response_format": {"type": "json_object"}}),
        ({"items": "off"}, {}),
        ({"router": no}, {}),
    ],
)
def test_calls_that_concern_the_whole_text_are_the_models_own(llm, chain, arguments):
    message = by_items(llm, **chain).as_chat_model().invoke(QUESTION, **arguments)
    assert message.text == "Directly."
    assert llm[0].watch.seen[0].messages == [HumanMessage(QUESTION)]
    assert len(calls(llm)) == 1


@pytest.mark.parametrize("bound", [{"tools": [{"name": "weather"}]}, {"response_format": {"type": "json_object"}}])
async def test_models_with_tools_or_a_format_answer_directly(way, llm, bound):
    output = await way(by_items(llm, llm=llm[0].bind(**bound)), QUESTION)
    assert (output["route"], output["answer"], len(calls(llm))) == ("direct", "Directly.", 1)


async def test_questions_with_images_are_no_lists_of_items(way, llm):
    blocks = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    output = await way(by_items(llm), [HumanMessage(blocks)])
    assert (output["route"], len(calls(llm))) == ("direct", 1)
    message = await way(by_items(llm).as_chat_model(), [HumanMessage(blocks)])
    assert message.response_metadata["route"] == "direct"


async def test_text_in_blocks_is_read_as_text(way, llm):
    output = await way(by_items(llm), [HumanMessage([{"type": "text", "text": QUESTION}])])
    assert (output["route"], output["answer"]) == ("items", ANSWER)


# --- agents ---


@pytest.fixture
def agents():
    return pytest.importorskip("langchain.agents", reason="the extra [agents] is not installed")


async def test_agents_answer_item_by_item_where_they_have_no_tools(ways, llm, agents):
    from langchain_sot import SkeletonOfThoughtMiddleware

    def weather(city: str) -> str:
        """The weather in a city."""
        return "sunny"

    class ToolChat(type(llm[0])):
        def bind_tools(self, tools, **kwargs):
            return self.bind(tools=tools)

    model = ToolChat(script=llm[0].script, watch=llm[0].watch)
    state = {"messages": [HumanMessage(QUESTION)]}
    for settings, tools, text in (({}, [], ANSWER), ({}, [weather], "Directly."), ({"items": "off"}, [], "Directly.")):
        middleware = SkeletonOfThoughtMiddleware(router=MEASURELESS, **settings)
        agent = agents.create_agent(model, tools=tools, middleware=[middleware], system_prompt="Be brief.")
        for way in (ways["invoke"], ways["ainvoke"]):
            llm[0].watch.seen.clear()
            message = (await way(agent, state))["messages"][-1]
            assert message.text == text
            assert message.response_metadata.get("route", "direct") == ("items" if text == ANSWER else "direct")
            assert all(seen.messages[0] == SystemMessage("Be brief.") for seen in llm[0].watch.seen)
            assert len(calls(llm)) == (3 if text == ANSWER else 1)


# --- what each call sees ---


async def test_each_call_has_the_history_and_the_instruction_first_and_its_item_last(way, llm):
    history = [SystemMessage("Be kind."), HumanMessage("Do you speak French?"), AIMessage("Yes.")]
    await way(by_items(llm), [*history, HumanMessage(QUESTION)])
    seen = llm[0].watch.seen
    assert all(each.messages[:-1] == history for each in seen)
    shared = {each.text.removesuffix(item_of(each)) for each in seen}
    assert len(shared) == 1
    assert shared.pop().startswith(f"{INSTRUCTION}\n\n")
    assert sorted(calls(llm)) == sorted(ITEMS)
    assert not any(other in each.text for each in seen for other in ITEMS if other != item_of(each))


async def test_what_was_retrieved_once_comes_before_the_shared_words(way, llm):
    asked = []
    chain = by_items(llm, retriever=lambda query: asked.append(query) or [Document("Chat is a cat.")])
    output = await way(chain, QUESTION)
    assert (asked, output["answer"]) == ([QUESTION], ANSWER)
    assert [document.page_content for document in output["sources"]] == ["Chat is a cat."]
    assert len({each.text.removesuffix(item_of(each)) for each in llm[0].watch.seen}) == 1
    assert all(each.text.index("Chat is a cat.") < each.text.index(INSTRUCTION) for each in llm[0].watch.seen)


async def test_each_item_has_documents_of_its_own(way, llm):
    chain = by_items(llm, retriever=lambda query: [Document(f"About {query}", id=query)], retrieval="per_point")
    output = await way(chain, QUESTION)
    assert (output["route"], output["answer"]) == ("items", ANSWER)
    found = {index: [document.id for document in own] for index, own in output["point_sources"].items()}
    assert found == {str(i): [item] for i, item in enumerate(ITEMS, 1)}
    for seen in llm[0].watch.seen:
        assert f"About {item_of(seen)}" in seen.text
        assert seen.text.startswith(INSTRUCTION)
        assert not any(f"About {other}" in seen.text for other in ITEMS if other != item_of(seen))
    message = await way(chain.as_chat_model(), QUESTION)
    assert (message.text, [each["id"] for each in message.response_metadata["sources"]]) == (ANSWER, ITEMS)


async def test_the_context_of_an_input_is_in_every_call(way, llm):
    output = await way(by_items(llm), {"question": QUESTION, "context": "Use Swiss French."})
    assert output["answer"] == ANSWER
    assert all("Use Swiss French." in seen.text for seen in llm[0].watch.seen)


async def test_string_models_answer_items(way):
    prompts: list[str] = []

    class Completing(LLM):
        _llm_type = "completing"

        def _call(self, prompt, stop=None, run_manager=None, **kwargs):
            prompts.append(prompt)
            return next(text for item, text in TEXTS.items() if item in prompt)

    chain = by_items((Completing(),))
    output = await way(chain, QUESTION)
    assert (output["route"], output["answer"]) == ("items", ANSWER)
    assert all(prompt.startswith(INSTRUCTION) for prompt in prompts)


def test_a_local_engine_writes_all_items_as_one_batch(local_models):
    seen: dict[str, list[Any]] = {}

    class Prompts(BaseCallbackHandler):
        run_inline = True

        def on_chat_model_start(self, serialized, messages, *, metadata, **kwargs):
            seen[str(metadata["sot_point"])] = messages[0]

    engine = local_models.LocalEngine(local_models.make_llama(), local_models.make_tokenizer(local_models.PLAIN))
    llm = ChatTransformers(engine=engine, model="tiny", max_tokens=24)
    with engine:
        with local_models.gathered(3):
            output = by_items((llm,)).invoke(QUESTION, {"callbacks": [Prompts()]})
        assert output["route"] == "items"
        assert output["timings"]["decoding"]["point"]["mean_rows"] == 3
        for index, text in output["points"].items():
            assert llm.invoke(seen[index]).text.strip() == text


# --- prompts ---


@pytest.mark.parametrize(
    "prompt",
    [
        "{tone} {index}/{count}: {instruction}\n\n[item] {item}",
        PromptTemplate.from_template("{tone} {index}/{count}: {instruction}\n\n[item] {item}"),
        ChatPromptTemplate.from_messages([("human", "{tone} {index}/{count}: {instruction}\n\n[item] {item}")]),
    ],
    ids=["string", "template", "chat"],
)
async def test_the_callers_own_prompt_for_items(ways, llm, prompt):
    chain = by_items(llm, item_prompt=prompt)
    output = await ways["ainvoke"](chain, {"question": QUESTION, "tone": "Kindly"})
    assert output["answer"] == ANSWER
    texts = sorted(seen.text for seen in llm[0].watch.seen)
    assert texts == [f"Kindly {i}/3: {INSTRUCTION}\n\n[item] {item}" for i, item in enumerate(ITEMS, 1)]
    assert set(chain.get_item_prompt().input_variables) >= {"tone", "instruction", "item", "index", "count"}
    with pytest.raises(InvalidInput, match="item prompt asks for 'tone'"):
        chain.invoke(QUESTION)
    for other in (by_items(llm, item_prompt=prompt, items="off"), by_items(llm, item_prompt=prompt, router=None)):
        assert other.get_input_jsonschema()["$defs"]["ChainInput"]["required"] == ["question"]


@pytest.mark.parametrize("made", [str, PromptTemplate.from_template])
def test_a_prompt_without_its_item_is_refused(made):
    with pytest.raises(ValueError, match=r"\{item\}"):
        SkeletonOfThoughtChain(llm=FAKE, item_prompt=made("Translate {instruction}"))


def test_the_projects_prompt_for_items_is_a_template():
    prompt = SkeletonOfThoughtChain(llm=FAKE).get_item_prompt()
    assert {*prompt.input_variables} == {"instruction", "item"}
    assert prompt.format_messages(instruction="Translate:", item="Cat")[-1].content == "Translate:\n\nCat"


# --- as a value ---


def test_a_chain_is_dumped_and_copied_with_its_items():
    openai = pytest.importorskip("langchain_openai", reason="a model that can be dumped")
    llm = openai.ChatOpenAI(model="m", api_key="sk-none")
    chain = SkeletonOfThoughtChain(llm=llm, items="off", item_prompt=PromptTemplate.from_template("Do {item}"))
    assert dumpd(chain)["kwargs"]["items"] == "off"
    local = chain.model_copy(update={"llm": FAKE})
    loaded = load_chain(dumps(chain), secrets_map={"OPENAI_API_KEY": "sk-none"})
    for copy in (loaded, local, pickle.loads(pickle.dumps(local))):
        assert (copy.items, copy.item_prompt) == ("off", chain.item_prompt)
    with pytest.raises(ValueError, match="items"):
        SkeletonOfThoughtChain(llm=FAKE, items="always")


def test_items_are_a_configurable_field(llm):
    chain = by_items(llm).configurable_fields(items=ConfigurableField(id="items"))
    assert chain.invoke(QUESTION)["route"] == "items"
    assert chain.invoke(QUESTION, {"configurable": {"items": "off"}})["route"] == "direct"


def test_graphs_and_schemas_show_the_route():
    chain = SkeletonOfThoughtChain(llm=FAKE)
    assert {edge.data for edge in chain.get_graph().edges} == {None, "direct", "items"}
    for other in ({"items": "off"}, {"router": None}, {"router": no}):
        assert "items" not in {edge.data for edge in SkeletonOfThoughtChain(llm=FAKE, **other).get_graph().edges}
    assert "items" in chain.get_output_jsonschema()["properties"]["route"]["enum"]


def test_decisions_name_their_route():
    found = ItemList("Write.", (Item(1, "A"),))
    assert [route_of(RouteDecision(use)) for use in (True, False)] == ["skeleton", "direct"]
    assert [route_of(ItemsDecision(use, items=found)) for use in (True, False)] == ["items", "direct"]
    assert AutoRouter().route(Conversation.of(QUESTION)).items is None
