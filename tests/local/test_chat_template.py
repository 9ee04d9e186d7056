"""Chats as the model reads them: templates that refuse or drop what a chat has, that reason, and models without one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.codec import StopStrings, TextCodec
from skeleton_of_thought.types import Hints, Message, Prompt

SYSTEM, USER = Message("system", "Be brief."), Message("user", "Hello")
CHAT = [SYSTEM, USER]
BODY = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}</s>{% endfor %}"
TURN = "{% if add_generation_prompt %}[assistant]{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + BODY
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}</s>{% endif %}{% endfor %}"
)
KNOWN_ONLY = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}[{{ m.role }}]{{ m.content }}</s>"
    "{% else %}{{ raise_exception('Unexpected role') }}{% endif %}{% endfor %}"
)
ALTERNATES = (
    "{% set at = namespace(i=0) %}{% for m in messages %}{% if m.role != 'system' %}"
    "{% if (m.role == 'user') != (at.i % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% set at.i = at.i + 1 %}{% endif %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
)
GEMMA = NO_SYSTEM.replace(BODY, ALTERNATES)


def codec(tiny: Any, template: str | None, **variables: Any) -> TextCodec:
    return TextCodec(tiny.make_tokenizer(template=template), variables)


def chat(*turns: str) -> list[Message]:
    """Messages of texts such as "user: Hello"."""
    return [Message(role, text) for role, _, text in (turn.partition(": ") for turn in turns)]


# --- what the template takes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "turns", "text"),
    [
        (NO_SYSTEM, ["system: S", "user: U"], "[user]S\n\nU</s>"),
        (GEMMA, ["system: S", "user: U"], "[user]S\n\nU</s>"),
        (DROPS_SYSTEM, ["system: S", "user: U"], "[user]S\n\nU</s>"),
        (NO_SYSTEM, ["system: S", "user: U", "assistant: A", "user: V"], "[user]S\n\nU</s>[assistant]A</s>[user]V</s>"),
        (NO_SYSTEM, ["system: S", "assistant: A", "user: U"], "[user]S</s>[assistant]A</s>[user]U</s>"),
        (
            DROPS_SYSTEM,
            ["user: U", "assistant: A", "system: S", "user: V"],
            "[user]U</s>[assistant]A</s>[user]S\n\nV</s>",
        ),
        (NO_SYSTEM, ["system: S"], "[user]S</s>"),
        (KNOWN_ONLY, ["developer: D", "user: U"], "[system]D</s>[user]U</s>"),
        (GEMMA, ["developer: D", "user: U"], "[user]D\n\nU</s>"),
        (ALTERNATES, ["system: S", "user: U", "user: V"], "[system]S</s>[user]U\n\nV</s>"),
        (GEMMA, ["system: S", "system: T", "user: U"], "[user]S\n\nT\n\nU</s>"),
        (
            ALTERNATES,
            ["user: U", "assistant: A", "assistant: B", "user: V"],
            "[user]U</s>[assistant]A\n\nB</s>[user]V</s>",
        ),
    ],
)
def test_a_chat_that_the_template_refuses_or_cuts_gets_the_nearest_form(
    tiny: Any, template: str, turns: Sequence[str], text: str
) -> None:
    assert codec(tiny, template + TURN).render(chat(*turns)) == text + "[assistant]"
    assert codec(tiny, template + TURN).render(chat(*turns), prefill="1.") == text + "[assistant]1."


@pytest.mark.parametrize("template", [BODY, ALTERNATES, KNOWN_ONLY, DROPS_SYSTEM, GEMMA])
@pytest.mark.parametrize("turns", [["user: U"], ["user: U", "assistant: A", "user: V"], ["system: S", "user: U"]])
def test_a_chat_that_the_template_takes_stays_as_transformers_renders_it(
    tiny: Any, template: str, turns: list[str]
) -> None:
    if turns[0] == "system: S" and template in (DROPS_SYSTEM, GEMMA):
        pytest.skip("it does not take this chat")
    made = codec(tiny, template + TURN)
    plain = [{"role": message.role, "content": message.text} for message in chat(*turns)]
    expected = made.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    assert made.render(chat(*turns)) == expected


def test_a_template_that_writes_the_system_text_in_another_way_keeps_it(tiny: Any) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | upper if m.role == 'system' else m.content }}{% endfor %}"
    )
    assert codec(tiny, template.replace(" | upper", " | tojson")).render(chat('system: a "b"', "user: U")) == (
        '[system]"a \\"b\\""[user]U'
    )


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (ALTERNATES, ["assistant: A", "user: U"], "must alternate; begin the chat with a message of the user"),
        (KNOWN_ONLY, ["user: U", "tool: T"], "roles user, tool: Unexpected role"),
        ("{{ raise_exception('never') }}", ["user: U"], "roles user: never"),
    ],
)
def test_a_chat_that_no_form_mends_is_an_error_that_says_why(
    tiny: Any, template: str, turns: list[str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        codec(tiny, template).render(chat(*turns))


def test_calls_and_replies_of_tools_are_never_merged(tiny: Any) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    reply = {"role": "tool", "content": "1", "name": "f"}
    with pytest.raises(InvalidInput, match=r"System role not supported|alternate"):
        codec(tiny, GEMMA).render([{"role": "user", "content": "U"}, call, call, reply])


# --- where an answer starts ------------------------------------------------------------------------

OPENS = BODY + "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
SWITCHED = (
    BODY + "{% if add_generation_prompt %}[assistant]<think>\n"
    "{{ '\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '' }}{% endif %}"
)
LEVELS = (
    BODY + "{% if add_generation_prompt %}[assistant]"
    "{% if reasoning_effort is not defined or reasoning_effort != 'none' %}[THINK]{% endif %}{% endif %}"
)
OWN_NAME = (
    BODY + "{% if add_generation_prompt %}[assistant]{{ '<seed:think>' if my_thinking_budget | default(9) else '' }}"
    "{% endif %}"
)
EMPTY_BLOCKS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1] }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
ALWAYS_EMPTY = BODY + "{% if add_generation_prompt %}[assistant]<think>\n\n</think>\n\n{% endif %}"
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GUIDED = BODY + "{% if add_generation_prompt %}[assistant]<think>\nOkay, {% endif %}"


@pytest.mark.parametrize(
    ("template", "start", "takes"),
    [
        (SWITCHED, "[assistant]<think>\n\n</think>\n\n", True),
        (LEVELS, "[assistant]", True),
        (OWN_NAME, "[assistant]", True),
        (EMPTY_BLOCKS, "[assistant]<think>\n\n</think>\n\n", True),
        (ALWAYS_EMPTY, "[assistant]<think>\n\n</think>\n\n", True),
        (CHANNELS, "<|start|>assistant<|channel|>final<|message|>", True),
        (BODY + TURN, "[assistant]", True),
        (OPENS, "[assistant]", False),  # the template's own form of a turn without reasoning
        (GUIDED, "[assistant]", False),
    ],
)
@pytest.mark.parametrize("question", ["Hello", "What does <think> mean?", "<think>", "n", "</think>"])
def test_the_start_of_an_answer_never_lands_inside_reasoning(
    tiny: Any, template: str, start: str, takes: bool, question: str
) -> None:
    made = codec(tiny, template)
    plain = made.render([Message("user", question)], prefill="1.")
    assert plain.endswith(start + "1.")
    assert plain == made.render([Message("user", question), Message("assistant", "1.")])
    assert made.render(Prompt((Message("user", question),), prefill="1.")) == plain
    assert made.template.takes_prefill is takes


def test_without_a_start_the_template_reasons_as_it_does(tiny: Any) -> None:
    made = codec(tiny, SWITCHED)
    assert made.render([USER]).endswith("[assistant]<think>\n")
    assert made.encode([USER]).thought_ends == ("</think>",)
    assert made.template.reasons
    assert made.encode([USER], prefill="1.").thought_ends == ()
    assert not codec(tiny, ALWAYS_EMPTY).template.reasons
    assert not codec(tiny, BODY).template.reasons


def test_an_answer_in_a_form_begins_at_once(tiny: Any) -> None:
    made = codec(tiny, SWITCHED)
    closed = made.encode([USER], at_once=True)
    assert made.decode(closed.ids).endswith("</think>\n\n")
    assert not closed.reasons


@pytest.mark.parametrize(
    ("variables", "takes"),
    [
        ({"enable_thinking": True}, False),
        ({"enable_thinking": False}, True),
        ({"tone": "warm"}, True),
    ],
)
def test_variables_of_the_user_win(tiny: Any, variables: dict[str, Any], takes: bool) -> None:
    made = codec(tiny, SWITCHED, **variables)
    assert made.template.takes_prefill is takes
    assert made.template.reasons is (variables != {"enable_thinking": False})
    # Given a start all the same, the template's own form of a turn has it.
    start = "[assistant]1." if variables == {"enable_thinking": True} else "</think>\n\n1."
    assert made.render([USER], prefill="1.").endswith(start)


@pytest.mark.parametrize(
    ("template", "prefill", "end", "ends"),
    [
        (OPENS, "<think>\nFirst", "[assistant]<think>\nFirst", ("</think>",)),
        (OPENS, "<think>Done.</think>So", "[assistant]<think>\nDone.</think>So", ()),
        (OPENS, "</think>\n\nSo", "[assistant]<think>\n</think>\n\nSo", ()),
        (EMPTY_BLOCKS, "<think>\nFirst", "[assistant]<think>\nFirst", ("</think>",)),
    ],
)
def test_a_start_may_be_reasoning_itself(
    tiny: Any, template: str, prefill: str, end: str, ends: tuple[str, ...]
) -> None:
    made = codec(tiny, template)
    assert made.render([USER], prefill=prefill).endswith(end)
    assert made.encode([USER], prefill=prefill).thought_ends == ends


def test_a_start_that_no_form_takes_is_an_error(tiny: Any) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}{% endfor %}[assistant]<think>"
    made = codec(tiny, template)
    with pytest.raises(InvalidInput, match=r"begins each answer with reasoning \(<think>\).*leave the prefill"):
        made.render([USER], prefill="1.")
    assert made.render([USER]).endswith("<think>")


def test_a_new_template_of_the_tokenizer_is_read_anew(tiny: Any) -> None:
    made = codec(tiny, OPENS)
    assert not made.template.takes_prefill
    made.tokenizer.chat_template = SWITCHED
    assert made.template.takes_prefill


# --- limits and stop strings of a reply that reasons first ------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "ends", "text", "met"),
    [
        (["a\n\nb", "</thi", "nk>\n\n", "1. A\n", "\n2."], ("</think>",), "a\n\nb</think>\n\n1. A", True),
        (["a\n\nb</think>1. A\n\n2."], ("</think>",), "a\n\nb</think>1. A", True),
        (["a\n\nb"], ("</think>",), "a\n\nb", False),
        (["<th", "ink>\na\n", "\nb</think>", "1.\n\n2."], (), "<think>\na\n\nb</think>1.", True),
        (["<b>1.", "\n\n2."], (), "<b>1.", True),
        (["<t"], (), "<t", False),
        (["a END b</think>"], ("</think>",), "a ", True),
    ],
)
def test_stops_after_text_leave_reasoning_alone(pieces: list[str], ends: tuple[str, ...], text: str, met: bool) -> None:
    for split in (pieces, list("".join(pieces))):
        watch, got, stopped = StopStrings(("END",), after_text=("\n\n",), thought_ends=ends), "", False
        for piece in split:
            out, stopped = watch.push(piece)
            got += out
            if stopped:
                break
        else:
            got += watch.flush()
        assert (got, stopped) == (text, met)


def test_the_limit_of_a_prompt_is_for_its_answer(llama: Any, tiny: Any) -> None:
    prompt = Prompt((USER,), hints=Hints(max_tokens=3))
    with LocalEngine(llama, tiny.make_tokenizer(template=OPENS)) as engine:
        [free] = engine.generate([prompt], ignore_eos=True, max_new_tokens=9)
        [begun] = engine.generate([Prompt((USER,), "1.", Hints(max_tokens=3))], ignore_eos=True, max_new_tokens=9)
    assert free.usage.output_tokens == 9
    assert begun.usage.output_tokens == 3


# --- models without a template ----------------------------------------------------------------------


def test_messages_for_a_model_without_a_template_become_a_transcript(
    tiny: Any, llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    turns = chat("system: Be brief.", "user: Hi", "assistant: Hello.", "user: Why?")
    with LocalEngine(llama, tiny.make_tokenizer(template=None)) as engine:
        assert not engine.has_chat_template
        assert engine.takes_prefill
        with caplog.at_level(logging.WARNING):
            assert engine.render(turns) == (
                "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Why?\n\nAssistant:"
            )
            assert engine.render(CHAT, prefill="1.") == "Be brief.\n\nUser: Hello\n\nAssistant: 1."
        assert len([record for record in caplog.records if "no chat template" in record.message]) == 1
        assert engine.render("Hello") == "Hello"
        with pytest.raises(InvalidInput, match="nothing shows it tools"):
            engine.stream(CHAT, tools=[{"type": "function", "function": {"name": "f"}}])
        assert len(engine.generate([CHAT], max_new_tokens=2)) == 1


def test_a_transcript_ends_before_the_next_turn(tiny: Any) -> None:
    encoded = codec(tiny, None).encode(CHAT)
    stops = StopStrings(encoded.stops)
    assert stops.push(" Good.\n\nUser: And then?") == (" Good.\n", True)
    assert codec(tiny, None).encode("Hello").stops == ()
