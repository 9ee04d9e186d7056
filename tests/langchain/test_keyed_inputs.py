"""Inputs with several keys: a context, values for the caller's own templates, the state of a graph."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from always import skeleton_chain
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import GenerationChunk
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableGenerator, RunnableParallel, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel

from langchain_sot import SkeletonOfThoughtRouter
from skeleton_of_thought import PromptSet
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import RouteDecision

SYSTEM, HELLO, HI = SystemMessage("Be kind."), HumanMessage("Hello"), AIMessage("Hi!")
TEA, SLEEP = Document("Tea has caffeine.", id="tea"), Document("Naps help.", metadata={"page": 2})
FACTS = "Tea has caffeine.\n\nNaps help."
BLOCK = f"<context>\n{FACTS}\n</context>"
SKELETON = "(outline of an answer) {question}"
POINT = "The point to write: {index}. {title}"


class Shelf(BaseRetriever):
    """Finds the same documents for every query, which it records."""

    documents: list[Document]
    queries: list[str] = []  # noqa: RUF012 - pydantic copies defaults

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        self.queries.append(query)
        return self.documents


class Kept(BaseChatMessageHistory):
    """Keeps the messages of one session."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []

    def add_messages(self, messages):
        self.messages += messages

    def clear(self):
        self.messages = []


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(["Take breaks", "Move"]))


@pytest.fixture
def shelf():
    return Shelf(documents=[TEA, SLEEP])


def texts(llm):
    return [seen.text for seen in llm.watch.seen]


# --- the context ---


async def test_the_standard_shape_shows_the_context_in_every_prompt(kit, way, llm, shelf):
    chain = {"context": shelf, "question": RunnablePassthrough()} | skeleton_chain(llm=llm)
    output = await way(chain, "Why?")
    assert shelf.queries == ["Why?"]
    assert output["question"] == "Why?"
    assert output["sources"] == [TEA, SLEEP]
    assert output["point_sources"] == {}
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton", "point", "point"]
    assert all(text.count(BLOCK) == 1 for text in texts(llm))
    assert list(output["timings"]["stages"]) == ["skeleton", "point"]


@pytest.mark.parametrize(
    ("context", "shown", "sources"),
    [
        (FACTS, FACTS, []),
        (f"  {FACTS}\n", FACTS, []),
        (TEA, "Tea has caffeine.", [TEA]),
        ([TEA, SLEEP], FACTS, [TEA, SLEEP]),
        ((TEA, SLEEP), FACTS, [TEA, SLEEP]),
        ([TEA, SLEEP, TEA], f"{FACTS}\n\nTea has caffeine.", [TEA, SLEEP]),
        ([[TEA], [SLEEP]], FACTS, [TEA, SLEEP]),
        ([TEA, Document("  ")], "Tea has caffeine.", [TEA, Document("  ")]),
        (["Tea has caffeine.", "", "Naps help."], FACTS, [Document("Tea has caffeine."), Document("Naps help.")]),
        ([{"page_content": "Naps help.", "metadata": {"page": 2}}], "Naps help.", [SLEEP]),
        ([(TEA, 0.5)], "Tea has caffeine.", [TEA.model_copy(update={"metadata": {"score": 0.5}})]),
        ((TEA, 1), "Tea has caffeine.", [TEA.model_copy(update={"metadata": {"score": 1.0}})]),
        (HumanMessage(FACTS), FACTS, []),
        (PromptTemplate.from_template("{x}").invoke({"x": FACTS}), FACTS, []),
        (iter([TEA, SLEEP]), FACTS, [TEA, SLEEP]),
        ("{question} {}", "{question} {}", []),
    ],
)
async def test_a_context_may_have_many_forms(ways, llm, context, shown, sources):
    output = await ways["invoke"](skeleton_chain(llm=llm), {"question": "Why?", "context": context})
    assert all(f"<context>\n{shown}\n</context>" in text for text in texts(llm))
    assert len(llm.watch.seen) == 3
    assert output["sources"] == sources


@pytest.mark.parametrize("context", [None, "", "  \n", [], (), {}, [""], [[]]])
async def test_without_a_context_the_prompts_are_those_of_the_bare_question(way, llm, context):
    await way(skeleton_chain(llm=llm), "Why?")
    bare = texts(llm)
    llm.watch.seen.clear()
    output = await way(skeleton_chain(llm=llm), {"question": "Why?", "context": context})
    assert sorted(texts(llm)) == sorted(bare)
    assert output["sources"] == []


@pytest.mark.parametrize("context", [7, b"bytes", [TEA, 7], {"tea": "caffeine"}, object(), [{"text": "x"}]])
async def test_a_context_that_cannot_be_read_is_refused_before_any_call(way, llm, context):
    with pytest.raises(InvalidInput, match="A context is text, or documents"):
        await way(skeleton_chain(llm=llm), {"question": "Why?", "context": context})
    assert not llm.watch.seen


async def test_the_direct_route_shows_the_context_and_keeps_the_callers_messages(way, llm):
    chain = skeleton_chain(llm=llm, router=lambda question: False)
    history = [SYSTEM, HELLO, HI]
    output = await way(chain, {"question": "Why?", "chat_history": history, "context": [TEA, SLEEP]})
    (seen,) = llm.watch.of("direct")
    assert all(got is given for got, given in zip(seen.messages, history, strict=False))
    assert len(seen.messages) == 4
    assert BLOCK in seen.text
    assert seen.text.endswith("\n\nWhy?")
    assert (output["route"], output["answer"], output["sources"]) == ("direct", "Just so.", [TEA, SLEEP])


async def test_a_string_model_gets_the_context_on_the_direct_route(way):
    prompts: list[str] = []

    class Completing(FakeListLLM):
        def _call(self, prompt, stop=None, run_manager=None, **kwargs):
            prompts.append(prompt)
            return "Just so."

        async def _acall(self, prompt, stop=None, run_manager=None, **kwargs):
            return self._call(prompt)

        def _stream(self, prompt, stop=None, run_manager=None, **kwargs):
            yield GenerationChunk(text=self._call(prompt))

        async def _astream(self, prompt, stop=None, run_manager=None, **kwargs):
            yield GenerationChunk(text=self._call(prompt))

    chain = skeleton_chain(llm=Completing(responses=[]), router=lambda question: False)
    output = await way(chain, {"question": "Why?", "context": FACTS})
    assert output["answer"] == "Just so."
    assert prompts == [f"{BLOCK}\n\nKeep to the facts in the context.\n\nWhy?"]


async def test_the_router_sees_the_question_alone(way, llm):
    judged = []

    class Judge:
        def route(self, conversation):
            judged.append([message.text for message in conversation.messages])
            return RouteDecision(True)

        async def aroute(self, conversation):
            return self.route(conversation)

    await way(skeleton_chain(llm=llm, router=Judge()), {"question": "Why?", "context": FACTS})
    assert judged == [["Why?"]]
    assert SkeletonOfThoughtRouter(Judge()).invoke({"question": "How?", "context": FACTS, "tone": "x"}).use_skeleton
    assert judged[1] == ["How?"]


async def test_a_long_context_is_a_common_beginning_of_all_points(way, llm):
    facts = "\n\n".join(f"Fact {i}." for i in range(200))
    await way(skeleton_chain(llm=llm), {"question": "Why?", "context": facts})
    one, other = (llm.watch.of("point", i)[0].text for i in (1, 2))
    common = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    assert facts in common
    assert "\n" not in one[len(common) :]


async def test_images_are_kept_beside_a_context(way, llm):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    question = [{"type": "text", "text": "What is it?"}, image]
    for router in (None, lambda q: False):
        await way(skeleton_chain(llm=llm, router=router), {"question": question, "context": FACTS})
    assert len(llm.watch.seen) == 4
    assert all(seen.messages[-1].content[-1] == image and BLOCK in seen.text for seen in llm.watch.seen)


@pytest.mark.parametrize(
    "point",
    ["Facts: {context}\n" + POINT, ChatPromptTemplate.from_messages([("system", "{context}"), ("human", POINT)])],
)
async def test_a_template_places_the_context_itself(way, llm, point):
    await way(skeleton_chain(llm=llm, point_prompt=point), {"question": "Why?", "context": "{facts} \\1"})
    for seen in llm.watch.of("point"):
        whole = "|".join(message.text for message in seen.messages)
        assert whole.count("{facts} \\1") == 1
        assert "<context>" not in whole


async def test_a_merge_shows_the_context_only_on_request(way, llm):
    given = {"question": "Why?", "context": FACTS}
    await way(skeleton_chain(llm=llm, merge=True), given)
    (merge,) = llm.watch.of("merge")
    assert FACTS not in merge.text
    llm.watch.seen.clear()
    own = PromptTemplate.from_template("{draft} were written separately, from {context}")
    await way(skeleton_chain(llm=llm, merge=True, merge_prompt=own), given)
    (merge,) = llm.watch.of("merge")
    assert merge.text.endswith(f"from {FACTS}")


@pytest.mark.parametrize("own", ["{context} " + POINT, PromptTemplate.from_template("{context} " + POINT)])
async def test_a_template_that_asks_for_a_context_needs_one(way, llm, own):
    chain = skeleton_chain(llm=llm, point_prompt=own)
    with pytest.raises(InvalidInput, match="point prompt asks for 'context'"):
        await way(chain, "Why?")
    assert not llm.watch.seen
    await way(chain, {"question": "Why?", "context": []})
    assert len(llm.watch.of("point")) == 2


# --- other keys ---


TONES = {
    "template": {"point_prompt": PromptTemplate.from_template(POINT + ", {tone}")},
    "chat template": {"point_prompt": ChatPromptTemplate.from_messages([("system", "{tone}"), ("human", POINT)])},
    "string": {"point_prompt": POINT + ", {tone}"},
    "prompt set": {"prompts": PromptSet(point=POINT + ", {tone}")},
}


@pytest.mark.parametrize("name", TONES)
async def test_a_key_fills_a_placeholder_of_its_name(way, llm, name):
    chain = skeleton_chain(llm=llm, **TONES[name])
    output = await way(chain, {"question": "Why?", "tone": "{gently}"})
    assert output["points"] == {"1": "All about take breaks.", "2": "All about move."}
    for seen in llm.watch.of("point"):
        assert "{gently}" in "".join(message.text for message in seen.messages)
    assert "{gently}" not in llm.watch.of("skeleton")[0].text


@pytest.mark.parametrize("name", TONES)
@pytest.mark.parametrize("value", ["Why?", {"question": "Why?"}, [HumanMessage("Why?")], {"messages": ["Why?"]}])
async def test_a_placeholder_that_nothing_fills_is_refused_before_any_call(ways, llm, name, value):
    for way in (ways["invoke"], ways["abatch"], ways["astream"]):
        with pytest.raises(InvalidInput, match="The point prompt asks for 'tone', which nothing fills"):
            await way(skeleton_chain(llm=llm, **TONES[name]), value)
    assert not llm.watch.seen


def test_the_error_for_a_missing_value_names_the_keys_that_were_given(llm):
    chain = skeleton_chain(llm=llm, skeleton_prompt=PromptTemplate.from_template(SKELETON + "{mood}{tone}"))
    with pytest.raises(InvalidInput, match=r"skeleton prompt asks for 'mood', which.*\['question', 'tone'\]"):
        chain.invoke({"question": "Why?", "tone": "x"})


async def test_a_key_that_nothing_uses_is_refused_before_any_call(way, llm):
    with pytest.raises(InvalidInput, match=r"Nothing uses 'contxt'.*'context'"):
        await way(skeleton_chain(llm=llm), {"question": "Why?", "contxt": FACTS})
    with pytest.raises(InvalidInput, match=r"Nothing uses 'words'.*for its own prompts 'tone'"):
        await way(skeleton_chain(llm=llm, **TONES["string"]), {"question": "Why?", "tone": "x", "words": "3"})
    assert not llm.watch.seen


async def test_each_input_of_a_batch_has_its_own_values(llm):
    chain = skeleton_chain(llm=llm, **TONES["template"])
    inputs = [{"question": f"Q{i}", "tone": f"tone {i}", "context": f"fact {i}"} for i in (1, 2)]
    outputs = chain.batch([*inputs, "Q3"], return_exceptions=True)
    assert [output["question"] for output in outputs[:2]] == ["Q1", "Q2"]
    assert isinstance(outputs[2], InvalidInput)
    for seen in llm.watch.of("point"):
        (number,) = {i for i in (1, 2) if f"tone {i}" in seen.text}
        assert f"fact {number}" in seen.text
        assert f"fact {3 - number}" not in seen.text


async def test_partial_and_optional_variables_need_no_key(way, llm):
    template = ChatPromptTemplate.from_messages(
        [("system", "{tone}"), MessagesPlaceholder("examples", optional=True), ("human", POINT)]
    ).partial(tone="dry")
    chain = skeleton_chain(llm=llm, point_prompt=template)
    await way(chain, "Why?")
    assert [m.text for m in llm.watch.of("point", 1)[0].messages][:-1] == ["dry"]
    llm.watch.seen.clear()
    await way(chain, {"question": "Why?", "tone": "warm", "examples": [HELLO, ("ai", "Hi!")]})
    assert [m.text for m in llm.watch.of("point", 1)[0].messages][:-1] == ["warm", "Hello", "Hi!"]


async def test_values_that_are_no_strings_are_formatted_as_langchain_does(way, llm):
    own = ChatPromptTemplate.from_messages([MessagesPlaceholder("shots"), ("human", POINT + " {tags} {limit}")])
    chain = skeleton_chain(llm=llm, point_prompt=own, skeleton_prompt=SKELETON + " {tags} {limit}")
    await way(chain, {"question": "Why?", "tags": ["a", "b"], "limit": 7, "shots": [HELLO]})
    assert texts(llm)[0].endswith(" ['a', 'b'] 7")
    (seen,) = llm.watch.of("point", 1)
    assert seen.messages[0] is HELLO
    assert seen.text.endswith(" ['a', 'b'] 7")


async def test_braces_in_the_middle_of_text_are_no_placeholders(way, llm):
    latex = r"Write \frac{a}{b}, x_{i}, ${HOME} and {{name}}. "
    await way(skeleton_chain(llm=llm, prompts=PromptSet(point=latex + POINT)), "Why?")
    assert all(seen.text.startswith(latex) for seen in llm.watch.of("point"))


async def test_the_history_may_be_called_history(way, llm):
    await way(skeleton_chain(llm=llm), {"question": "Why?", "history": [SYSTEM, HELLO, HI]})
    assert all(seen.messages[:3] == [SYSTEM, HELLO, HI] for seen in llm.watch.seen)
    with pytest.raises(InvalidInput, match="'chat_history' and 'history'"):
        await way(skeleton_chain(llm=llm), {"question": "Why?", "history": [HELLO], "chat_history": [HI]})


@pytest.mark.parametrize(
    "own",
    [
        "{chat_history}\n" + SKELETON,
        PromptTemplate.from_template("{history}\n" + SKELETON),
        ChatPromptTemplate.from_template("{chat_history}\n" + SKELETON),
        PromptSet(skeleton="{history}\n" + SKELETON),
    ],
)
async def test_a_template_shows_the_history_within_its_text(way, llm, own):
    prompts = {"prompts" if isinstance(own, PromptSet) else "skeleton_prompt": own}
    await way(skeleton_chain(llm=llm, **prompts), {"question": "Why?", "history": [HELLO, HI]})
    assert llm.watch.of("skeleton")[0].text.startswith("Human: Hello\nAI: Hi!\n(outline")
    llm.watch.seen.clear()
    await way(skeleton_chain(llm=llm, **prompts), "Why?")
    assert llm.watch.of("skeleton")[0].text.startswith("\n(outline")


async def test_a_messages_placeholder_shows_the_whole_conversation(way, llm):
    own = ChatPromptTemplate.from_messages(
        [
            ("system", "Be brief."),
            MessagesPlaceholder("messages"),
            ("human", "outline of an answer"),
        ]
    )
    await way(skeleton_chain(llm=llm, skeleton_prompt=own), {"messages": [HELLO, HI, HumanMessage("Why?")]})
    sent = [message.text for message in llm.watch.of("skeleton")[0].messages]
    assert sent == ["Be brief.", "Hello", "Hi!", "Why?", "outline of an answer"]


async def test_the_older_name_of_the_question_is_read(way, llm):
    output = await way(skeleton_chain(llm=llm), {"input": "Why?", "context": FACTS})
    assert output["question"] == "Why?"
    own = skeleton_chain(llm=llm, point_prompt=PromptTemplate.from_template(f"{{input}} {POINT}"))
    llm.watch.seen.clear()
    await way(own, {"input": "Why?"})
    assert all(seen.text.startswith("Why? The point") for seen in llm.watch.of("point"))


def test_the_schema_and_the_prompts_show_the_keys(llm):
    chain = skeleton_chain(
        llm=llm,
        skeleton_prompt="{question} {mood}",
        point_prompt=ChatPromptTemplate.from_messages(
            [MessagesPlaceholder("shots", optional=True), ("human", "{title} {tone}")]
        ),
    )
    schema = chain.get_input_jsonschema()["$defs"]["ChainInput"]
    assert set(schema["required"]) == {"question", "mood", "tone"}
    assert {"shots", "context", "chat_history", "history"} <= set(schema["properties"])
    assert chain.input_schema.model_validate({"question": "Why?", "mood": "m", "tone": "t"})
    assert set(chain.get_skeleton_prompt().input_variables) == {"question", "mood"}
    assert set(chain.get_point_prompt().input_variables) == {"title", "tone"}
    assert chain.pick("answer").get_input_schema().model_json_schema()
    assert chain.expansion(["A"]).get_input_jsonschema()["$defs"]["ChainInput"]["required"] == schema["required"]
    assert chain.get_graph().draw_mermaid()


async def test_an_expansion_and_its_steps_take_the_same_keys(way, llm):
    expansion = skeleton_chain(llm=llm, **TONES["template"]).expansion(["Take breaks", "Move"])
    given = {"question": "Why?", "tone": "dry", "context": FACTS}
    assert await way(expansion, given) == {"1": "All about take breaks.", "2": "All about move."}
    assert all("dry" in text and FACTS in text for text in texts(llm))
    whole = sorted(texts(llm))
    llm.watch.seen.clear()
    assert expansion.steps__["2"].invoke(given) == "All about move."
    assert texts(llm) == [whole[1]]
    with pytest.raises(InvalidInput, match="'tone'"):
        expansion.steps__["2"].invoke("Why?")
    with pytest.raises(InvalidInput, match="Nothing uses 'x'"):
        await way(expansion, {**given, "x": 1})
    # A pipeline that made the expansion of one of its keys passes that key on.
    await way(expansion, {**given, "titles": ["Take breaks", "Move"]})


# --- within pipelines ---


async def test_maps_and_assignments_lead_into_the_chain(way, llm, shelf):
    chain = skeleton_chain(llm=llm)
    for pipeline in (
        RunnablePassthrough.assign(context=operator.itemgetter("question") | shelf) | chain,
        {"context": operator.itemgetter("question") | shelf, "question": operator.itemgetter("question")} | chain,
        RunnableParallel(context=lambda _: FACTS, question=operator.itemgetter("question")) | chain.pick("answer"),
    ):
        llm.watch.seen.clear()
        assert await way(pipeline, {"question": "Why?"})
        assert all(BLOCK in text for text in texts(llm))
        assert len(llm.watch.seen) == 3


async def test_a_streamed_map_adds_up(kit, llm):
    def facts(_):
        yield "Tea has caffeine."
        yield "\n\nNaps help."

    async def afacts(_):
        yield "Tea has caffeine."
        yield "\n\nNaps help."

    context = RunnableGenerator(facts, afacts)
    chain = {"context": context, "question": RunnablePassthrough()} | skeleton_chain(llm=llm)
    assert kit.total(chain.stream("Why?"))["question"] == "Why?"
    assert kit.total([chunk async for chunk in chain.astream("Why?")])["question"] == "Why?"
    assert len(llm.watch.seen) == 6
    assert all(BLOCK in text for text in texts(llm))


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
@pytest.mark.parametrize("key", ["chat_history", "history"])
@pytest.mark.parametrize("question", ["question", "input"])
def test_a_message_history_wraps_the_chain(llm, key, question):
    kept = Kept()
    chain = RunnableWithMessageHistory(
        skeleton_chain(llm=llm),
        lambda session_id: kept,
        input_messages_key=question,
        history_messages_key=key,
        output_messages_key="answer",
    )
    config = {"configurable": {"session_id": "1"}}
    first = chain.invoke({question: "Why?"}, config)["answer"]
    chain.invoke({question: "How?", "context": FACTS}, config)
    assert [message.text for message in kept.messages] == ["Why?", first, "How?", first]
    assert [m.text for m in llm.watch.seen[-1].messages[:-1]] == ["Why?", first]


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
@pytest.mark.parametrize("key", ["question", "messages"])
def test_a_message_history_without_a_key_of_its_own_wraps_the_chain(llm, key):
    kept = Kept()
    chain = RunnableWithMessageHistory(
        skeleton_chain(llm=llm), lambda session_id: kept, input_messages_key=key, output_messages_key="answer"
    )
    config = {"configurable": {"session_id": "1"}}
    for question in ("Why?", "How?"):
        assert chain.invoke({key: [HumanMessage(question)]}, config)["question"] == question
    assert [m.type for m in llm.watch.seen[-1].messages] == ["human", "ai", "human"]


async def test_langchains_retrieval_chains_take_the_chain(ways, llm, shelf):
    classic = pytest.importorskip("langchain_classic.chains", reason="langchain-classic is not installed")
    chain = classic.create_retrieval_chain(shelf, skeleton_chain(llm=llm).pick("answer"))
    for name in ("invoke", "ainvoke"):
        output = await ways[name](chain, {"input": "Why?", "chat_history": [HELLO, HI]})
        assert output["answer"].startswith("1. Take breaks: ")
        assert output["context"] == [TEA, SLEEP]
    assert all(seen.messages[:2] == [HELLO, HI] and BLOCK in seen.text for seen in llm.watch.seen)
    assert len(llm.watch.seen) == 6

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("chat_history"), ("human", "{input} (direct)")])
    aware = classic.create_history_aware_retriever(llm, shelf, prompt)
    llm.watch.seen.clear()
    output = (RunnablePassthrough.assign(context=aware) | skeleton_chain(llm=llm)).invoke(
        {"input": "And then?", "chat_history": [HELLO, HI]}
    )
    assert shelf.queries[-1] == "Just so."
    assert output["sources"] == [TEA, SLEEP]
    assert output["question"] == "And then?"


# --- the state of a graph ---


class PydanticState(BaseModel):
    messages: list[Any]
    remaining_steps: int = 3
    context: list[Any] = []
    tone: str = "dry"


@dataclass
class DataState:
    messages: list[Any]
    context: Any = None
    remaining_steps: int = 3
    tone: str = "dry"
    notes: list[str] = field(default_factory=list)


CONVERSATION = [SYSTEM, HELLO, HI, HumanMessage("Why?")]
STATES = {
    "dict": {"messages": CONVERSATION, "context": [TEA, SLEEP], "tone": "dry", "remaining_steps": 3},
    "pydantic": PydanticState(messages=CONVERSATION, context=[TEA, SLEEP]),
    "dataclass": DataState(messages=CONVERSATION, context=FACTS),
}


@pytest.mark.parametrize("name", STATES)
async def test_the_state_of_a_graph_is_an_input(way, llm, name):
    chain = skeleton_chain(llm=llm, **TONES["template"])
    output = await way(chain, STATES[name])
    assert output["question"] == "Why?"
    assert all(seen.messages[:3] == CONVERSATION[:3] for seen in llm.watch.seen)
    assert all(BLOCK in text for text in texts(llm))
    assert all("dry" in seen.text for seen in llm.watch.of("point"))


@pytest.mark.parametrize(
    "messages", ["Why?", HumanMessage("Why?"), [("human", "Why?")], [{"role": "user", "content": "Why?"}]]
)
async def test_messages_may_have_any_form(ways, llm, messages):
    assert (await ways["invoke"](skeleton_chain(llm=llm), {"messages": messages}))["question"] == "Why?"


@pytest.mark.parametrize("messages", [[], [HELLO, HI], None, [SYSTEM]])
async def test_messages_that_do_not_end_with_a_question_are_refused(way, llm, messages):
    with pytest.raises(InvalidInput):
        await way(skeleton_chain(llm=llm), {"messages": messages})
    assert not llm.watch.seen


async def test_an_object_with_a_question_is_an_input(way, llm):
    @dataclass
    class State:
        question: str
        documents: list[Document]
        context: Any = None

    output = await way(skeleton_chain(llm=llm), State("Why?", [TEA], FACTS))
    assert output["question"] == "Why?"
    assert all(BLOCK in text for text in texts(llm))


async def test_a_question_may_be_a_prompt_with_a_system_message(way, llm):
    prompt = ChatPromptTemplate.from_messages([SYSTEM, ("human", "{x}")])
    pipeline = {"question": prompt, "context": lambda _: FACTS} | skeleton_chain(llm=llm)
    assert (await way(pipeline, {"x": "Why?"}))["question"] == "Why?"
    assert all(seen.messages[0] == SYSTEM and BLOCK in seen.text for seen in llm.watch.seen)


async def test_a_history_beside_messages_comes_first(way, llm):
    await way(skeleton_chain(llm=llm), {"messages": [HumanMessage("Why?")], "history": [HELLO, HI]})
    assert all(seen.messages[:2] == [HELLO, HI] for seen in llm.watch.seen)
    llm.watch.seen.clear()
    await way(skeleton_chain(llm=llm), {"messages": [HumanMessage("Why?")], "history": ["a step of the graph"]})
    assert all(len(seen.messages) == 1 for seen in llm.watch.seen)


def test_messages_beside_a_question_are_not_lost(llm):
    with pytest.raises(InvalidInput, match="'messages'"):
        skeleton_chain(llm=llm).invoke({"question": "Why?", "messages": [HELLO]})
    assert not llm.watch.seen


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_chain_is_a_node_of_a_graph(llm, shelf, is_async):
    graphs = pytest.importorskip("langgraph.graph")

    class State(graphs.MessagesState):
        context: list[Document]
        notes: Annotated[list[str], operator.add]

    chain = skeleton_chain(llm=llm) | (lambda output: {"messages": [AIMessage(output["answer"])], "notes": ["sot"]})
    graph = graphs.StateGraph(State)
    graph.add_node("find", lambda state: {"context": shelf.invoke(state["messages"][-1].text), "notes": ["found"]})
    graph.add_node("sot", chain)
    graph.add_edge(graphs.START, "find")
    graph.add_edge("find", "sot")
    app = graph.compile()
    given = {"messages": [HELLO, HI, HumanMessage("Why?")]}
    state = await app.ainvoke(given) if is_async else app.invoke(given)
    assert state["messages"][-1].text.startswith("1. Take breaks: ")
    assert state["notes"] == ["found", "sot"]
    assert shelf.queries == ["Why?"]
    assert all(seen.messages[:2] == [HELLO, HI] and BLOCK in seen.text for seen in llm.watch.seen)
    assert len(llm.watch.seen) == 3


@pytest.mark.parametrize("state", [PydanticState, DataState])
def test_a_graph_whose_state_is_an_object_has_the_chain_as_a_node(llm, state):
    graphs = pytest.importorskip("langgraph.graph")
    graph = graphs.StateGraph(state)
    graph.add_node("sot", skeleton_chain(llm=llm) | (lambda output: {"messages": [AIMessage(output["answer"])]}))
    graph.add_edge(graphs.START, "sot")
    result = graph.compile().invoke(
        {"messages": [HumanMessage("Why?")], "context": FACTS if state is DataState else [TEA]}
    )
    (message,) = result["messages"]
    assert isinstance(message, BaseMessage)
    assert message.text.startswith("1. Take breaks: ")
    assert all("Tea has caffeine." in text for text in texts(llm))
