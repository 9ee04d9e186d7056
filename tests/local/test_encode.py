"""Prompts become tokens with exactly one BOS, and chats go through the model's own template."""

from __future__ import annotations

from typing import Any

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.encode import TextCodec
from skeleton_of_thought.types import Message, Prompt

CHAT = [Message("system", "Be brief."), Message("user", "Hello")]
PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
WITH_BOS = "{{ bos_token }}" + PLAIN
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
)


@pytest.mark.parametrize("template", [PLAIN, WITH_BOS])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_there_is_one_bos_at_most_and_one_where_the_model_has_it(tiny: Any, template: str, adds_bos: bool) -> None:
    tokenizer = tiny.make_tokenizer(template=template, adds_bos=adds_bos)
    ids = TextCodec(tokenizer).encode(CHAT, prefill="1.").ids
    expected = 1 if adds_bos or template == WITH_BOS else 0
    assert ids.count(tokenizer.bos_token_id) == expected
    assert ids[:1] == (tokenizer.bos_token_id,) * expected or not expected
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith("Hello1.")


@pytest.mark.parametrize("text", ["Hello", "<s>Hello"])
def test_raw_text_has_one_bos(tiny: Any, text: str) -> None:
    tokenizer = tiny.make_tokenizer(adds_bos=True)
    assert TextCodec(tokenizer).encode(text).ids.count(tokenizer.bos_token_id) == 1


def test_an_end_that_the_tokenizer_appends_is_taken_off(tiny: Any) -> None:
    from tokenizers import processors

    tokenizer = tiny.make_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ids = TextCodec(tokenizer).encode("Hello").ids
    assert ids[0] == 1
    assert 2 not in ids


def test_messages_may_be_of_any_kind(tokenizer: Any) -> None:
    codec = TextCodec(tokenizer)
    blocks = Message("user", ({"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}))
    ways = [
        codec.encode([Message("user", "Hello")]),
        codec.encode(Prompt((Message("user", "Hello"),))),
        codec.encode([{"role": "user", "content": "Hello"}]),
        codec.encode([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]),
        codec.encode([blocks]),
    ]
    assert len({way.ids for way in ways}) == 1


def test_tokens_are_counted_with_their_template(engine: LocalEngine) -> None:
    assert engine.count_tokens([Message("user", "Hello")]) > engine.count_tokens("Hello")
    assert engine.count_tokens("Hello", prefill=" you") > engine.count_tokens("Hello")


def test_messages_without_a_template_are_refused(llama: Any, tiny: Any) -> None:
    with LocalEngine(llama, tiny.make_tokenizer(template=None)) as engine:
        assert not engine.has_chat_template
        with pytest.raises(InvalidInput, match=r"pass raw text .* or set tokenizer\.chat_template"):
            engine.stream(CHAT)
        assert engine.generate(["Hello"], max_new_tokens=2)


def test_a_template_that_rejects_the_system_role_says_what_to_do(tiny: Any) -> None:
    codec = TextCodec(tiny.make_tokenizer(template=NO_SYSTEM))
    with pytest.raises(InvalidInput, match=r"System role not supported; put the system message's text"):
        codec.encode(CHAT)
    assert codec.encode(CHAT[1:]).ids


def test_template_variables_reach_the_template(tiny: Any) -> None:
    tokenizer = tiny.make_tokenizer(template=PLAIN + "{% if tone %}({{ tone }}){% endif %}")
    ids = TextCodec(tokenizer, {"tone": "warm"}).encode(CHAT).ids
    assert tokenizer.decode(ids).endswith("(warm)")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        ([], "no messages"),
        ([Message("assistant", "1.")], "no messages"),
        (["Hello"], "it has 'Hello'"),
        ([{"role": "user"}], "it has"),
        ([Message("user", ({"type": "image", "url": "x"},))], "type image"),
    ],
)
def test_what_is_no_prompt_is_refused(engine: LocalEngine, prompt: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        engine.stream(prompt)
    assert engine.stats().forwards == 0


def test_a_long_prompt_is_counted_without_a_warning(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.model_max_length = 8
    assert len(TextCodec(tokenizer).encode("river " * 50).ids) > 8
    assert not caplog.records
