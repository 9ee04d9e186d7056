"""Questions that are answered item by item: engine, synthesizer, workflow and LLM, with and without nodes."""

from __future__ import annotations

import asyncio
import pickle
import re

import pytest
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.chat_engine import CondenseQuestionChatEngine, SimpleChatEngine
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetryQueryEngine
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolMetadata

from llama_index_sot import (
    PromptRouter,
    SkeletonOfThoughtLLM,
    SkeletonOfThoughtQueryEngine,
    SkeletonOfThoughtSelector,
    SkeletonOfThoughtSynthesizer,
    SkeletonOfThoughtWorkflow,
)
from llama_index_sot.events import AnswerDelta, PointDone, PointSources, Routed, SkeletonReady
from skeleton_of_thought.errors import InvalidInput, PointError, PromptTooLong
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.types import Item, ItemList, ItemsDecision

FRENCH = {
    "Good morning.": "Bonjour.",
    "Thank you very much.": "Merci beaucoup.",
    "See you soon.": "À bientôt.",
    "Where is the station?": "Où est la gare ?",
}
WORDS = "Translate these sentences into French:"
QUESTION = "\n".join([WORDS, *(f"{i}. {text}" for i, text in enumerate(FRENCH, 1))])
ANSWER = "\n".join(f"{i}. {text}" for i, text in enumerate(FRENCH.values(), 1))
PLACES = "For each of these places, say what its weather is like:\n- Bergen\n- Cairo\n- Lima"


def item_of(text):
    """The item that a prompt asks for; None for a prompt with all of them, or none."""
    found = [item for item in FRENCH if item in text]
    return found[0] if len(found) == 1 else None


def translating(kit, **steps):
    """A script that translates one sentence; with other `steps` for some of them, by their first words."""

    def answer(seen):
        item = item_of(seen.text)
        own = None if item is None else steps.get(item.split()[0].lower())
        return kit.pieces(FRENCH[item] if item else "All at once.") if own is None else own

    return answer


def made(llm, **options):
    """An engine with the default router."""
    return SkeletonOfThoughtQueryEngine.from_defaults(llm, **{"backoff": 0.0, **options})


def record(response):
    return response.metadata["sot"]


# --- the answer ----------------------------------------------------------------------------------------------------


async def test_each_item_gets_a_call_and_the_answer_has_the_form_of_the_list(ask, LLMClass, kit):
    llm = LLMClass(script=translating(kit))
    response = await ask(llm, QUESTION, router="auto")
    assert str(response) == ANSWER
    assert [(point.index, point.title, point.text) for point in response.points] == [
        (i, title, FRENCH[title]) for i, title in enumerate(FRENCH, 1)
    ]
    sot = record(response)
    assert (sot["route"], sot["finish_reason"], sot["merged"]) == ("items", "stop", False)
    assert "items" in sot["reason"]
    assert list(sot["usage_by_stage"]) == ["point"]
    assert sot["usage_by_point"].keys() == {"1", "2", "3", "4"}
    assert sorted(item_of(seen.text) for seen in llm.watch.seen) == sorted(FRENCH)
    for seen in llm.watch.seen:
        before, item, after = seen.text.partition(item_of(seen.text))
        assert before.lstrip().startswith(("user: " + WORDS, WORDS))
        assert item
        assert after.removesuffix("assistant: ").strip() == ""
    assert response.timeline()


async def test_a_stream_shows_the_items_in_their_order(kit):
    later = kit.Gate()

    def others():
        return len(llm.watch.seen) == len(FRENCH) and llm.watch.open == 1

    llm = kit.ChatLLM(script=translating(kit, good=[kit.Gate(others), later.open, "Bonjour."]))
    response = await made(llm, streaming=True).aquery(QUESTION)
    texts = [text async for text in response.async_response_gen()]
    assert texts[0].startswith("1.")
    assert "".join(texts) == ANSWER
    whole = await response.get_response()
    assert (str(whole), record(whole)["route"]) == (ANSWER, "items")
    response = await asyncio.to_thread(made(kit.SyncLLM(script=translating(kit)), streaming=True).query, QUESTION)
    assert "".join(response.response_gen) == ANSWER
    assert [point.text for point in response.points] == list(FRENCH.values())


@pytest.mark.parametrize(
    "other",
    [
        {"items": "off"},
        {"router": lambda question: False},
        {"asked": "Rank these sentences by politeness:\n1. Good day.\n2. Hi.\n3. Hey you."},
    ],
    ids=["off", "own router", "ranked"],
)
async def test_other_questions_go_to_the_llm_as_a_whole(ask, kit, other):
    llm = kit.ChatLLM(script=translating(kit))
    options = {"router": "auto", **other}
    question = options.pop("asked", QUESTION)
    response = await ask(llm, question, **options)
    assert (str(response), record(response)["route"], response.points) == ("All at once.", "direct", [])
    assert [seen.text for seen in llm.watch.seen] == [question]


async def test_a_router_of_ones_own_may_name_the_items(ask, LLMClass, kit):
    points = tuple(Item(i, text, mark="-", ask=text) for i, text in enumerate(FRENCH, 1))

    def router(question):
        return ItemsDecision(True, reason="mine", items=ItemList("In French:", points))

    response = await ask(LLMClass(script=translating(kit)), "Say it in French.", router=router)
    assert str(response) == "\n\n".join(f"- {text}" for text in FRENCH.values())
    assert (record(response)["route"], record(response)["reason"]) == ("items", "mine")


async def test_what_skeletons_need_does_not_change_items(ask, kit):
    llm = kit.ChatLLM(script=translating(kit))
    options = {"planning": "graph", "merge": True, "opening": True, "closing": True, "rewrite_overlap": True}
    response = await ask(llm, QUESTION, router="auto", eager=True, max_points=2, min_points=2, **options)
    assert str(response) == ANSWER
    assert len(llm.watch.seen) == len(FRENCH)
    sot = record(response)
    assert (sot["planning"], sot["opening"], sot["closing"]) == ("titles", "", "")


@pytest.mark.parametrize("join", ["headings", "paragraphs"])
async def test_the_form_of_the_list_is_kept_with_any_join(ask, kit, join):
    assert str(await ask(kit.ChatLLM(script=translating(kit)), QUESTION, router="auto", join=join)) == ANSWER


async def test_the_llm_of_the_points_writes_the_items(ask, kit):
    llm, points = kit.ChatLLM(script=translating(kit)), kit.SyncLLM(script=translating(kit))
    assert str(await ask(llm, QUESTION, router="auto", point_llm=points)) == ANSWER
    assert (len(llm.watch.seen), len(points.watch.seen)) == (0, len(FRENCH))


async def test_no_more_calls_are_open_than_allowed(ask, LLMClass, kit):
    llm = LLMClass(script=translating(kit))
    await ask(llm, QUESTION, router="auto", num_workers=2)
    assert llm.watch.peak <= 2
    together = kit.Gate(lambda: all_open.watch.peak == len(FRENCH))
    all_open = LLMClass(script=lambda seen: [together, FRENCH[item_of(seen.text)]])
    assert str(await ask(all_open, QUESTION, router="auto")) == ANSWER


@pytest.mark.parametrize("LLMClass", ["SyncLLM", "ChatLLM"])
async def test_an_llm_with_sync_methods_leaves_the_loop_free(kit, LLMClass):
    llm = getattr(kit, LLMClass)(script=translating(kit))
    assert str(await made(llm).aquery(QUESTION)) == ANSWER
    if LLMClass == "SyncLLM":
        assert not any(seen.on_loop for seen in llm.watch.seen)


# --- items that fail -----------------------------------------------------------------------------------------------


async def test_an_item_that_fails_is_asked_for_again(ask, LLMClass, kit):
    failed = []

    def answer(seen):
        if item_of(seen.text).startswith("Thank") and not failed:
            failed.append(1)
            return [OSError("cut")]
        return [FRENCH[item_of(seen.text)]]

    assert str(await ask(LLMClass(script=answer), QUESTION, router="auto")) == ANSWER


async def test_an_item_that_failed_keeps_its_place_or_ends_the_answer(ask, LLMClass, kit):
    llm = LLMClass(script=translating(kit, thank=[OSError("cut")]))
    held = {"router": "auto", "max_retries": 0}
    response = await ask(llm, QUESTION, on_point_error="placeholder", placeholder="(none)", **held)
    assert str(response) == ANSWER.replace("Merci beaucoup.", "(none)")
    assert [bool(point.error) for point in response.points] == [False, True, False, False]
    with pytest.raises(PointError, match="Thank you very much"):
        await ask(llm, QUESTION, **held)
    assert llm.watch.open == 0


# --- nodes ---------------------------------------------------------------------------------------------------------


def weather(kit):
    def answer(seen):
        named = [name for name in ("Bergen", "Cairo", "Lima") if re.search(rf"^{name}\b", seen.text, re.M)]
        return [f"So is {named[-1]}."] if named else ["All at once."]

    return answer


async def test_each_item_retrieves_for_itself(ask, LLMClass, kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.partition(" (")[0])])
    llm = LLMClass(script=weather(kit))
    response = await ask(llm, PLACES, router="auto", retriever=retriever)
    assert str(response) == "- So is Bergen.\n- So is Cairo.\n- So is Lima."
    assert [point.node_ids for point in response.points] == [("Bergen",), ("Cairo",), ("Lima",)]
    assert sorted(node.node.node_id for node in response.source_nodes) == ["Bergen", "Cairo", "Lima"]
    # The query for an item names no other item.
    instruction = PLACES.partition("\n")[0]
    assert sorted(seen.query.query_str for seen in retriever.watch.seen) == [
        f"{name} ({instruction})" for name in ("Bergen", "Cairo", "Lima")
    ]
    for seen in llm.watch.seen:
        (name,) = [name for name in ("Bergen", "Cairo", "Lima") if f"The text of {name}." in seen.text]
        assert seen.text.index(instruction) < seen.text.index(f"The text of {name}.")
        assert seen.text.removesuffix("assistant: ").strip().endswith(f"\n{name}")


async def test_one_retrieval_stands_before_the_words_that_all_items_share(ask, LLMClass, kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node("facts")])
    llm = LLMClass(script=weather(kit))
    response = await ask(llm, PLACES, router="auto", retriever=retriever, retrieval="once", citations=True)
    assert str(response) == "- So is Bergen.\n- So is Cairo.\n- So is Lima."
    assert [seen.query.query_str for seen in retriever.watch.seen] == [PLACES]
    assert [node.node.node_id for node in response.source_nodes] == ["facts"]
    starts = {seen.text[: seen.text.index(PLACES.partition("\n")[0])] for seen in llm.watch.seen}
    assert len(starts) == 1
    assert "[1] The text of facts." in starts.pop()


async def test_an_item_without_nodes_has_the_text_of_an_empty_response(ask, LLMClass, kit):
    found = kit.AsyncRetriever(lambda query: [] if query.startswith("Cairo") else [kit.node("n")])
    response = await ask(LLMClass(script=weather(kit)), PLACES, router="auto", retriever=found)
    assert str(response) == "- So is Bergen.\n- Empty Response\n- So is Lima."
    for retrieval in ("per_point", "once"):
        llm = LLMClass(script=weather(kit))
        nothing = {"router": "auto", "retriever": kit.AsyncRetriever(lambda query: []), "retrieval": retrieval}
        assert str(await ask(llm, PLACES, **nothing)) == "Empty Response"
        assert llm.watch.seen == []
        assert str(await ask(llm, PLACES, on_no_nodes="answer", **nothing)).count("So is") == 3


async def test_texts_to_embed_stay_beside_the_query_of_an_item(kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node("n")])
    query = QueryBundle(PLACES, custom_embedding_strs=["It rains.", PLACES])
    await made(kit.ChatLLM(script=weather(kit)), retriever=retriever).aquery(query)
    assert all(seen.query.custom_embedding_strs[2:] == ["It rains."] for seen in retriever.watch.seen)
    assert not any(PLACES in text for seen in retriever.watch.seen for text in seen.query.custom_embedding_strs)


async def test_a_synthesizer_shows_its_nodes_before_the_words_of_the_items(kit):
    llm = kit.ChatLLM(script=translating(kit))
    synthesizer = SkeletonOfThoughtSynthesizer(llm)
    for response in (
        synthesizer.synthesize(QUESTION, [kit.node("glossary")]),
        await synthesizer.asynthesize(QUESTION, [kit.node("glossary")]),
    ):
        assert (str(response), record(response)["route"]) == (ANSWER, "items")
        assert [node.node.node_id for node in response.source_nodes] == ["glossary"]
    assert len(llm.watch.seen) == 2 * len(FRENCH)
    assert all(0 <= seen.text.find("The text of glossary.") < seen.text.index(WORDS) for seen in llm.watch.seen)


def test_a_window_without_room_for_nodes_is_an_error_before_any_call(kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node("n", "fact " * 4000)])

    def engine(window, **options):
        meta = LLMMetadata(is_chat_model=True, context_window=window, num_output=64)
        return made(kit.ChatLLM(script=translating(kit), meta=meta), retriever=retriever, **options)

    assert str(engine(700).query(QUESTION)) == ANSWER
    for refused in (engine(80), engine(700, item_template="Example. " * 700 + "{item}")):
        with pytest.raises(PromptTooLong):
            refused.query(QUESTION)
        assert refused._llm.watch.seen == []


# --- prompts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SkeletonOfThoughtQueryEngine.from_defaults, SkeletonOfThoughtSynthesizer])
def test_the_prompt_of_an_item_can_be_shown_and_replaced(kit, make):
    llm = kit.ChatLLM(script=translating(kit))
    shown = make(llm).get_prompts()["item_template"].get_template()
    assert shown.endswith("{item}")
    engine = make(llm)
    engine.update_prompts(engine.get_prompts())
    assert engine._templates.own == {}
    engine.update_prompts({"item_template": PromptTemplate("{index}/{count} {instruction} <{query_str}> => {item}")})
    if isinstance(engine, SkeletonOfThoughtSynthesizer):
        engine.synthesize(QUESTION, [kit.node("n")])
    else:
        engine.query(QUESTION)
    ends = [f"{i}/4 {WORDS} <{QUESTION}> => {item}" for i, item in enumerate(FRENCH, 1)]
    assert [[seen.text.endswith(end) for seen in llm.watch.seen].count(True) for end in ends] == [1] * len(ends)


def test_a_template_may_be_an_option_or_in_the_cores_prompts(kit):
    for options in ({"item_template": "Say: {item}"}, {"prompts": PromptSet(item="Say: {item}")}):
        llm = kit.CompletingLLM(script=translating(kit))
        engine = made(llm, **options)
        engine.query(QUESTION)
        SkeletonOfThoughtLLM(llm, **options).complete(QUESTION)
        assert sorted(seen.text for seen in llm.watch.seen) == sorted([f"Say: {item}" for item in FRENCH] * 2)
        assert engine.get_prompts()["item_template"].get_template() == "Say: {item}"


# --- events, spans and callbacks -----------------------------------------------------------------------------------


async def test_events_have_the_items_as_points(kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.partition(" (")[0])])
    engine = made(kit.ChatLLM(script=translating(kit)), retriever=retriever)
    run = SkeletonOfThoughtWorkflow(engine).run(query=QUESTION)
    events = [event async for event in run.stream_events()]
    assert str(await run) == ANSWER
    (routed,) = [event for event in events if isinstance(event, Routed)]
    assert (routed.route, routed.use_skeleton) == ("items", True)
    (ready,) = [event for event in events if isinstance(event, SkeletonReady)]
    assert ready.titles == list(FRENCH)
    assert [point["wave"] for point in ready.plan] == [1] * len(FRENCH)
    assert {event.index: event.text for event in events if isinstance(event, PointDone)} == dict(
        enumerate(FRENCH.values(), 1)
    )
    assert {event.title for event in events if isinstance(event, PointSources)} == set(FRENCH)
    assert "".join(event.text for event in events if isinstance(event, AnswerDelta)) == ANSWER
    made_here = SkeletonOfThoughtWorkflow(llm=kit.ChatLLM(script=translating(kit)), items="off")
    assert str(await made_here.run(query=QUESTION)) == "All at once."


async def test_spans_and_callbacks_show_each_item(ask, LLMClass, kit, instrumented):
    legacy = kit.Legacy()
    callbacks = {"router": "auto", "callback_manager": CallbackManager([legacy])}
    await ask(LLMClass(script=translating(kit)), QUESTION, **callbacks)
    titles = [named["title"] for named in instrumented.spans.arguments.values() if named.get("stage") == "point"]
    assert sorted(titles) == sorted(FRENCH)
    assert not any("SkeletonOfThought.skeleton" in name for name in instrumented.spans.arguments)
    assert instrumented.spans.open_spans == {}
    started = [event for event in legacy.started if event.type == CBEventType.SUB_QUESTION]
    pairs = [next(iter(event.payload.values())).sub_q.sub_question for event in started]
    assert sorted(pairs) == sorted(f"{item} ({WORDS})" for item in FRENCH)


# --- the LLM -------------------------------------------------------------------------------------------------------

CHAT = [ChatMessage(role="system", content="Be kind."), ChatMessage(role="user", content=QUESTION)]


@pytest.mark.parametrize("kind", ["SyncLLM", "CompletingLLM"])
async def test_the_llm_answers_item_by_item(kit, kind):
    llm = getattr(kit, kind)(script=translating(kit))
    sot_llm = SkeletonOfThoughtLLM(llm)
    for response in (sot_llm.complete(QUESTION), await sot_llm.acomplete(QUESTION)):
        assert response.text == ANSWER
        sot = response.additional_kwargs["sot"]
        assert (sot["route"], [point["title"] for point in sot["points"]]) == ("items", list(FRENCH))
        assert response.raw["finish_reason"] == "stop"
    assert "".join(piece.delta for piece in sot_llm.stream_complete(QUESTION)) == ANSWER
    assert len(llm.watch.seen) == 3 * len(FRENCH)
    assert SkeletonOfThoughtLLM(llm, items="off").complete(QUESTION).text == "All at once."


async def test_a_chats_system_message_and_earlier_turns_come_first(kit):
    llm = kit.ChatLLM(script=translating(kit))
    sot_llm = SkeletonOfThoughtLLM(llm)
    assert sot_llm.chat(CHAT).message.content == ANSWER
    turns = [ChatMessage(role="user", content="Hello"), ChatMessage(role="assistant", content="Hi!")]
    response = await sot_llm.achat([CHAT[0], *turns, CHAT[1]])
    assert response.additional_kwargs["sot"]["route"] == "items"
    for seen in llm.watch.seen[-len(FRENCH) :]:
        assert [message.content for message in seen.messages[:-1]] == ["Be kind.", "Hello", "Hi!"]
    streamed = [piece.delta async for piece in await sot_llm.astream_chat(CHAT)]
    assert "".join(streamed) == ANSWER
    engine = SimpleChatEngine.from_defaults(llm=sot_llm, memory=ChatMemoryBuffer.from_defaults(token_limit=10_000))
    assert str(engine.chat(QUESTION)) == ANSWER
    assert engine.chat_history[-1].content == ANSWER


@pytest.mark.parametrize("kwargs", [{"max_tokens": 9}, {"stop": ["."]}, {"response_format": {"type": "json_object"}}])
def test_settings_of_a_whole_text_keep_the_llm_from_items(kit, kwargs):
    llm = kit.ChatLLM(script=translating(kit))
    assert SkeletonOfThoughtLLM(llm).chat(CHAT, **kwargs).message.content == "All at once."
    assert SkeletonOfThoughtLLM(llm).chat(CHAT, temperature=0.5).message.content == ANSWER
    assert {seen.kwargs["temperature"] for seen in llm.watch.seen[1:]} == {0.5}


@pytest.mark.parametrize(
    ("system", "asked"),
    [
        ("Respond in valid JSON with the keys a and b.", QUESTION),
        ("Reply with:\nThought: why you need a tool\nAction: the tool\nAction Input: its input", QUESTION),
        ("Be kind.", f"Context information is below.\n{QUESTION}\nAnswer the query.\nQuery: What is it?\nAnswer: "),
        ("Be kind.", f"Context:\n{QUESTION}\n\nGive a title of the text. Title: "),
        ("Be kind.", f"Here is the original query:\n{QUESTION}\nHere is the response given:\nNo.\nRewrite the query."),
    ],
    ids=["format", "agent", "context", "title", "feedback"],
)
def test_a_prompt_that_holds_items_and_asks_for_something_else_goes_direct(kit, system, asked):
    llm = kit.ChatLLM(script=translating(kit))
    chat = [ChatMessage(role="system", content=system), ChatMessage(role="user", content=asked)]
    response = SkeletonOfThoughtLLM(llm).chat(chat)
    assert response.additional_kwargs["sot"]["route"] == "direct"
    assert [seen.text for seen in llm.watch.seen] == [asked]


# --- other routers and engines -------------------------------------------------------------------------------------


def test_a_selector_decides_between_skeletons_and_direct_answers_alone(kit):
    choices = [ToolMetadata("points", name="points"), ToolMetadata("as it is", name="direct")]
    assert SkeletonOfThoughtSelector().select(choices, QUESTION).ind == 1


def test_a_router_that_asks_an_llm_knows_no_items(kit):
    asks = kit.SyncLLM(script=lambda seen: ["NONE"])
    llm = kit.ChatLLM(script=translating(kit))
    response = made(llm, router=PromptRouter(asks)).query(QUESTION)
    assert (str(response), len(asks.watch.seen)) == ("All at once.", 1)


async def test_a_chat_engine_puts_its_condensed_question_item_by_item(kit):
    llm = kit.ChatLLM(script=translating(kit))
    condensing = kit.SyncLLM(script=lambda seen: [QUESTION])
    memory = ChatMemoryBuffer.from_defaults(llm=condensing)
    chat = CondenseQuestionChatEngine.from_defaults(query_engine=made(llm), llm=condensing, memory=memory)
    assert str(await chat.achat(QUESTION)) == ANSWER
    assert str(chat.chat("And again?")) == ANSWER


class Fails(BaseEvaluator):
    """Finds the first answer bad."""

    def __init__(self):
        self._asked = 0

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, *args, **kwargs):
        self._asked += 1
        return EvaluationResult(passing=self._asked > 1, score=0.0, feedback="It is too formal.", response="No.")


async def test_a_retry_tells_each_item_what_was_wrong(kit, monkeypatch):
    monkeypatch.setattr("llama_index.core.Settings._llm", MockLLM())
    llm = kit.ChatLLM(script=lambda seen: [f"({len(seen.text)})"])
    retrying = RetryQueryEngine(made(llm), Fails(), max_retries=1)
    response = await asyncio.to_thread(retrying.query, QUESTION)
    assert record(response)["route"] == "items"
    again = llm.watch.seen[len(FRENCH) :]
    assert len(again) == len(FRENCH)
    assert all("previous bad answer" in seen.text for seen in again)
    assert all(seen.text.endswith(tuple(FRENCH)) for seen in again)


# --- values --------------------------------------------------------------------------------------------------------

MAKERS = [
    SkeletonOfThoughtQueryEngine.from_defaults,
    SkeletonOfThoughtSynthesizer,
    SkeletonOfThoughtLLM,
    lambda llm, **options: SkeletonOfThoughtWorkflow(llm=llm, **options),
]


@pytest.mark.parametrize("make", MAKERS, ids=["engine", "synthesizer", "llm", "workflow"])
@pytest.mark.parametrize("wrong", [{"items": "always"}, {"item_template": "Translate it."}], ids=["items", "template"])
def test_values_that_cannot_work_are_refused(kit, make, wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        make(kit.ChatLLM(script=translating(kit)), **wrong)


def test_every_surface_documents_the_options():
    for documented in (*MAKERS[:3], SkeletonOfThoughtWorkflow):
        assert "items (default 'auto')" in documented.__doc__
        assert "item_template" in documented.__doc__


def test_the_options_can_be_pickled():
    options = {"items": "off", "item_template": "Say: {item}"}
    again = pickle.loads(pickle.dumps(SkeletonOfThoughtQueryEngine.from_defaults(MockLLM(), **options)))
    assert again._settings.items == "off"
    assert again.get_prompts()["item_template"].get_template() == "Say: {item}"
    assert pickle.loads(pickle.dumps(SkeletonOfThoughtLLM(MockLLM(), **options))).to_dict()["items"] == "off"
