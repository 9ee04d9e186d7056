"""Tools and tool messages in the chat template."""

from __future__ import annotations

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.codec import TextCodec

TEMPLATE = (
    "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}"
    "{% for m in messages %}<{{ m.role }}{{ ' ' + m.name if m.name else '' }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "({{ c.function.name }} {{ c.function.arguments | tojson }} {{ c.id }}){% endfor %}"
    "{{ '#' + m.tool_call_id if m.tool_call_id else '' }}{% endfor %}<assistant>"
)
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.fixture
def codec(tiny):
    return TextCodec(tiny.make_tokenizer(template=TEMPLATE))


def test_the_template_gets_tools_calls_and_results(codec):
    chat = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "name": "add", "tool_call_id": "c1"},
    ]
    text = codec.render(chat, tools=[TOOL])
    assert text == '[add]<user>1 + 1?<assistant>(add {"a": 1} c1)<tool add>2#c1<assistant>'
    assert codec.encode(chat, tools=[TOOL]).context == ()


def test_a_reply_that_calls_a_tool_is_not_continued(codec):
    chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "Well", "tool_calls": [CALL]}]
    assert codec.render(chat).endswith("c1)<assistant>")
    assert codec.render([chat[0], {"role": "assistant", "content": "Well"}]).endswith("<assistant>Well")


def test_raw_text_with_tools_is_refused(codec):
    with pytest.raises(InvalidInput, match="as messages"):
        codec.encode("1 + 1?", tools=[TOOL])


def test_an_engine_renders_and_counts_tools_and_decodes_with_them(llama, tiny):
    from skeleton_of_thought.local import LocalEngine

    chat = [{"role": "user", "content": "1 + 1?"}]
    with LocalEngine(llama, tiny.make_tokenizer(template=TEMPLATE)) as engine:
        text = engine.render(chat, tools=[TOOL], prefill="So")
        assert text == "[add]<user>1 + 1?<assistant>So"
        assert engine.count_tokens(chat, tools=[TOOL]) > engine.count_tokens(chat)
        with engine.stream(chat, tools=[TOOL], max_new_tokens=1) as stream:
            list(stream)
        assert stream.completion.usage.input_tokens == engine.count_tokens(chat, tools=[TOOL])
