"""Prompts as LlamaIndex templates: listed, updated, and sent to the LLM and the retriever."""

from __future__ import annotations

import re

import pytest
from llama_index.core.base.llms.types import ImageBlock, MessageRole
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
    SelectorPromptTemplate,
)

from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.prompts import PromptSet

TITLES = ["Move", "Drink water"]
MARKS = {
    "skeleton_template": "MINE outline {query_str}",
    "point_template": "MINE The point to write: {index}. {title} of {skeleton} for {query_str}",
    "merge_template": "MINE were written separately {draft}",
    "scoped_template": "MINE outline {query_str}",
    "graph_template": "MINE outline {query_str}",
    "opening_template": "MINE Write what stands before it: {draft}",
    "closing_template": "MINE Write what stands after it: {draft}",
    "direct_template": "MINE {query_str}",
    "context_template": "MINE [[{context_str}]]",
    "point_query_template": "MINE {title} / {query_str}",
}
STAGES = {
    "skeleton_template": "skeleton",
    "point_template": "point",
    "merge_template": "merge",
    "scoped_template": "skeleton",
    "graph_template": "skeleton",
    "opening_template": "opening",
    "closing_template": "closing",
    "direct_template": "direct",
    "context_template": "point",
}
PLANNINGS = {"scoped_template": "scoped", "graph_template": "graph"}


@pytest.fixture
def llm(kit):
    return kit.ChatLLM(script=kit.answering(TITLES))


@pytest.fixture
def retriever(kit):
    return kit.AsyncRetriever(lambda query: [kit.node("n", "A fact.")])


def engine(kit, llm, retriever, key, **settings):
    settings |= {"planning": PLANNINGS.get(key, "titles")}
    settings |= {name: key == f"{name}_template" for name in ("opening", "closing")}
    return kit.make(llm, retriever=retriever, merge=True, router=lambda query: key != "direct_template", **settings)


@pytest.mark.parametrize("key", MARKS)
@pytest.mark.parametrize("how", ["given", "updated", "rich"])
def test_every_prompt_can_be_replaced_and_reaches_its_receiver(kit, llm, retriever, key, how):
    text = MARKS[key].replace("{", "{{ ").replace("}", " }}") if how == "rich" else MARKS[key]
    template = RichPromptTemplate(text) if how == "rich" else PromptTemplate(text)
    made = engine(kit, llm, retriever, key, **({key: template} if how != "updated" else {}))
    if how == "updated":
        made.update_prompts({key: template})
    assert made.get_prompts()[key].get_template() == text
    made.query("What of {this}?")
    if key == "point_query_template":
        assert {seen.query.query_str for seen in retriever.watch.seen} == {
            f"MINE {title} / What of {{this}}?" for title in TITLES
        }
        assert all(seen.query.custom_embedding_strs is None for seen in retriever.watch.seen)
        return
    marked = llm.watch.of(STAGES[key])
    assert marked
    for seen in marked:
        assert "MINE" in seen.text
        assert "What of {this}?" in seen.text or "draft" in MARKS[key]
    if key == "context_template":
        assert all("MINE [[A fact.]]" in seen.text for seen in marked)
    others = [seen for seen in llm.watch.seen if seen.stage != STAGES[key]]
    assert not any("MINE" in seen.text for seen in others)


@pytest.mark.parametrize("key", MARKS)
def test_every_prompt_is_a_template_and_round_trips(kit, llm, retriever, key):
    made = engine(kit, llm, retriever, key)
    shown = made.get_prompts()
    assert set(shown) == {*MARKS, "item_template"}  # test_items.py has that
    assert all(isinstance(template, BasePromptTemplate) for template in shown.values())
    made.query("How?")
    before = sorted(seen.text for seen in llm.watch.seen)
    llm.watch.seen.clear()
    made.update_prompts({key: shown[key]})
    made.query("How?")
    assert sorted(seen.text for seen in llm.watch.seen) == before
    assert made._templates.own == {}


def test_an_update_can_be_taken_back(kit, llm):
    made = kit.make(llm)
    original = made.get_prompts()["skeleton_template"]
    made.update_prompts({"skeleton_template": PromptTemplate(MARKS["skeleton_template"])})
    made.update_prompts({"skeleton_template": original})
    made.query("How?")
    assert "MINE" not in llm.watch.of("skeleton")[0].text


def test_a_template_places_the_context_itself(kit, llm, retriever):
    made = kit.make(llm, retriever=retriever, point_template="{title} The point to write: {index}. after {context_str}")
    made.query("How?")
    assert {seen.text for seen in llm.watch.of("point")} == {
        f"{title} The point to write: {i}. after A fact." for i, title in enumerate(TITLES, 1)
    }


def test_a_chat_template_keeps_its_roles_and_the_systems_come_first(kit, llm):
    template = ChatPromptTemplate.from_messages(
        [("system", "You are terse."), ("user", "outline {query_str}"), ("assistant", "1.")]
    )
    made = kit.make(llm, skeleton_template=template)
    made.query("How?")
    (seen,) = llm.watch.of("skeleton")
    assert [message.role for message in seen.messages] == [MessageRole.SYSTEM, MessageRole.USER]
    # This model does not continue a prefill.
    assert seen.text.startswith("outline How?")
    assert seen.text.endswith("Begin your answer with: 1.")


@pytest.mark.parametrize("own", [None, "Be brief."])
def test_a_model_gets_one_system_message(kit, own):
    llm = kit.ChatLLM(script=kit.answering(TITLES), system_prompt=own)
    template = ChatPromptTemplate.from_messages([("system", "You are terse."), ("user", "outline {query_str}")])
    kit.make(llm, skeleton_template=template).query("How?")
    (seen,) = llm.watch.of("skeleton")
    assert [message.role for message in seen.messages] == [MessageRole.SYSTEM, MessageRole.USER]
    assert seen.messages[0].content == ("Be brief.\n\nYou are terse." if own else "You are terse.")


def test_blocks_of_a_system_message_stay_beside_the_models_own(kit):
    pixel = "data:image/png;base64,iVBORw0KGgo="
    template = RichPromptTemplate(
        '{% chat role="system" %}You see {{ "' + pixel + '" | image }}{% endchat %}'
        '{% chat role="user" %}outline {{ query_str }}{% endchat %}'
    )
    llm = kit.ChatLLM(script=kit.answering(TITLES), system_prompt="Be brief.")
    kit.make(llm, skeleton_template=template).query("How?")
    (seen,) = llm.watch.of("skeleton")
    assert [message.role for message in seen.messages] == [MessageRole.SYSTEM, MessageRole.USER]
    assert [block.block_type for block in seen.messages[0].blocks] == ["text", "text", "image"]


def test_a_rich_chat_template_may_show_images(kit, llm):
    pixel = "data:image/png;base64,iVBORw0KGgo="
    template = RichPromptTemplate(
        '{% chat role="user" %}outline {{ query_str }}{{ "' + pixel + '" | image }}{% endchat %}'
    )
    kit.make(llm, skeleton_template=template).query("How?")
    (seen,) = llm.watch.of("skeleton")
    assert any(isinstance(block, ImageBlock) for block in seen.messages[-1].blocks)


def test_images_of_a_template_stay_where_a_context_is_put_before_it(kit, llm, retriever):
    pixel = "data:image/png;base64,iVBORw0KGgo="
    template = RichPromptTemplate(
        '{% chat role="user" %}outline {{ query_str }}{{ "' + pixel + '" | image }}{% endchat %}'
    )
    kit.make(llm, skeleton_template=template, retriever=retriever, retrieval="once").query("How?")
    (seen,) = llm.watch.of("skeleton")
    assert "A fact." in seen.text
    assert any(isinstance(block, ImageBlock) for block in seen.messages[-1].blocks)


def test_a_selector_gives_the_template_for_the_llm(kit, llm):
    template = SelectorPromptTemplate(
        default_template=PromptTemplate("no"),
        conditionals=[(lambda llm: llm.metadata.is_chat_model, PromptTemplate("outline for a chat model {query_str}"))],
    )
    kit.make(llm, skeleton_template=template).query("How?")
    assert llm.watch.of("skeleton")[0].text == "outline for a chat model How?"


def test_variables_may_have_other_names_or_be_computed(kit, llm):
    renamed = PromptTemplate("outline {q}", template_var_mappings={"query_str": "q"})
    computed = PromptTemplate(
        "The point to write: {what}", function_mappings={"what": lambda **v: f"{v['index']}. {v['title'].upper()}"}
    )
    kit.make(llm, skeleton_template=renamed, point_template=computed).query("How?")
    assert llm.watch.of("skeleton")[0].text == "outline How?"
    assert {seen.text for seen in llm.watch.of("point")} == {
        "The point to write: 1. MOVE",
        "The point to write: 2. DRINK WATER",
    }


def test_the_default_prompts_are_made_once_and_replaced_by_an_update(kit, llm, retriever):
    made = kit.make(llm, retriever=retriever, citations=True)
    first = made._templates.prompt_set()
    assert "such as [1]" in first.context
    assert made._templates.prompt_set() is first
    made.update_prompts({"context_template": "MINE {context_str}"})
    assert made._templates.prompt_set().context == "MINE {context}"
    made.update_prompts({"context_template": made._templates._default("context_template")})
    assert made._templates.prompt_set() is first


def test_a_context_template_computes_its_values_for_each_answer(kit, llm, retriever):
    today = {"day": "Monday"}
    template = PromptTemplate("On {day}: {context_str}", function_mappings={"day": lambda **_: today["day"]})
    made = kit.make(llm, retriever=retriever, context_template=template)
    made.query("How?")
    today["day"] = "Tuesday"
    made.query("How?")
    days = [re.findall(r"On (\w+): A fact\.", seen.text) for seen in llm.watch.of("point")]
    assert days == [["Monday"]] * 2 + [["Tuesday"]] * 2


def test_partial_values_count(kit, llm):
    template = PromptTemplate("outline {query_str} in {style}").partial_format(style="verse")
    kit.make(llm, skeleton_template=template).query("How?")
    assert llm.watch.of("skeleton")[0].text == "outline How? in verse"


def test_prompts_of_the_core_are_shown_and_used(kit, llm):
    prompts = PromptSet(skeleton="outline {request}", point="The point to write: {point}. {point_outline}")
    made = kit.make(llm, prompts=prompts)
    assert made.get_prompts()["skeleton_template"].get_template() == "outline {query_str}"
    assert made.get_prompts()["point_template"].get_template() == "The point to write: {index}. {title}"
    made.query("How?")
    assert llm.watch.of("skeleton")[0].text == "outline How?"


def test_an_unknown_or_useless_prompt_is_refused_and_nothing_changes(kit, llm):
    made = kit.make(llm)
    with pytest.raises(ValueError, match=r"no prompt 'text_qa_template'.*skeleton_template"):
        made.update_prompts({"text_qa_template": PromptTemplate("{query_str}")})
    with pytest.raises(PromptFileError, match="query_str"):
        made.update_prompts({"point_template": PromptTemplate("{title}"), "skeleton_template": PromptTemplate("Hm.")})
    assert made._templates.own == {}
