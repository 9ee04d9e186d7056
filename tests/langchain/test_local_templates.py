"""Chains over local models whose chat templates reason, refuse system messages, or do not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from always import skeleton_chain
from reasoning_scripts import OPENS, SWITCHED, TITLES, reasoning, switched_off

from langchain_sot import ChatTransformers
from skeleton_of_thought.errors import InvalidInput

pytest.importorskip("torch", reason="the local engine needs torch")

POINTS = [(title, f"All about {title.lower()}.") for title in TITLES]
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def points(output: Any) -> list[tuple[str, str]]:
    return list(zip(output["skeleton"], output["points"].values(), strict=True))


@pytest.mark.parametrize(("template", "script"), [(OPENS, reasoning), (SWITCHED, switched_off)])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_answer_is_written_whatever_the_template_opens(
    local_models: Any, template: str, script: Callable[[str], str], way: str
) -> None:
    engine = local_models.scripted_engine(script, template)
    with engine:
        chain = skeleton_chain(llm=ChatTransformers(engine=engine))
        output = chain.invoke("How?") if way == "invoke" else await chain.ainvoke("How?")
        assert points(output) == POINTS
        assert engine.takes_prefill is (template == SWITCHED)


def test_a_user_may_demand_a_prefill(local_models: Any) -> None:
    def script(prompt: str) -> str:
        return reasoning(prompt).partition("</think>\n\n")[2]

    with local_models.scripted_engine(script, OPENS) as engine:
        assert points(skeleton_chain(llm=ChatTransformers(engine=engine), prefill=True).invoke("How?")) == POINTS


def test_a_model_of_the_users_keeps_its_reasoning_before_the_reply(local_models: Any) -> None:
    with local_models.scripted_engine(reasoning, OPENS) as engine:
        text = ChatTransformers(engine=engine).invoke("How?").text
    assert text.endswith("</think>\n\nJust so.")


def test_a_system_message_reaches_a_model_whose_template_refuses_it(local_models: Any) -> None:
    with local_models.scripted_engine("Just so.", NO_SYSTEM) as engine:
        reply = ChatTransformers(engine=engine).invoke([("system", "Be brief."), ("human", "How?")])
        assert reply.text == "Just so."
        assert engine.model.prompts == ["<user>Be brief.\n\nHow?</s>"]


def test_a_base_model_continues_a_transcript_to_the_end_of_its_turn(local_models: Any) -> None:
    def script(prompt: str) -> str:
        return " Because.\n\nUser: And then?"

    with local_models.scripted_engine(script, None) as engine:
        engine.model._mark = engine.tokenizer("\nAssistant:")["input_ids"]
        assert ChatTransformers(engine=engine).invoke("Why?").text.strip() == "Because."
        assert engine.model.prompts == ["User: Why?\n"]
        with pytest.raises(InvalidInput, match="does not support tools"):
            ChatTransformers(engine=engine).bind_tools([{"title": "f", "description": "f", "type": "object"}])
