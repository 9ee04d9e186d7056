"""Requests: what is refused, what passes through, and what each call of an answer takes over."""

from __future__ import annotations

import json

import pytest

from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.requests import (
    ChatRequest,
    SotOptions,
    conversation_of,
    misfit,
    read_request,
    sampling_of,
)

USER = {"role": "user", "content": "What are good ways to stay healthy?"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}


def read(headers=None, **fields) -> ChatRequest:
    return read_request(json.dumps({"model": "m-sot", "messages": [USER], **fields}).encode(), headers or {})


def error_of(content: bytes) -> ServeError:
    with pytest.raises(ServeError) as caught:
        read_request(content, {})
    assert caught.value.status == 400
    assert caught.value.kind == "invalid_request_error"
    return caught.value


def test_a_request_keeps_all_its_fields_but_ours():
    request = read(temperature=0.5, made_up={"a": [1]}, stream=True, sot={"events": True})
    assert request.body == {
        "model": "m-sot",
        "messages": [USER],
        "temperature": 0.5,
        "made_up": {"a": [1]},
        "stream": True,
    }
    assert request.sot == SotOptions(events=True)
    assert (request.model, request.stream, request.include_usage) == ("m-sot", True, False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model": "m", "messages": [}', "not valid JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model": "m", "temperature": NaN}', "NaN is no number"),
        (b'{"model": "m", "temperature": 1e999}', "too large"),
        (b'{"model": "m", "seed": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"null", "JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(content, says):
    assert says in str(error_of(content))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "  "}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": [USER, "Hello"]}, "messages[1]"),
        ({"messages": [{"content": "Hello"}]}, "messages[0]"),
        ({"messages": [{"role": 1, "content": "Hello"}]}, "messages[0]"),
        ({"stream": "true"}, "stream"),
        ({"stream": "false"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": [True]}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"sot": True}, "sot"),
        ({"sot": []}, "sot"),
        ({"sot": {"maxpoints": 3}}, "sot.maxpoints"),
        ({"sot": {"router": "sometimes"}}, "sot.router"),
        ({"sot": {"router": 1}}, "sot.router"),
        ({"sot": {"router": ["auto"]}}, "sot.router"),
        ({"sot": {"max_points": 0}}, "sot.max_points"),
        ({"sot": {"max_points": "3"}}, "sot.max_points"),
        ({"sot": {"max_points": True}}, "sot.max_points"),
        ({"sot": {"join": "table"}}, "sot.join"),
        ({"sot": {"join": ["numbered"]}}, "sot.join"),
        ({"sot": {"merge": "yes"}}, "sot.merge"),
        ({"sot": {"merge": 1}}, "sot.merge"),
        ({"sot": {"eager": 1}}, "sot.eager"),
        ({"sot": {"events": "true"}}, "sot.events"),
        ({"sot": {"show_skeleton": 0}}, "sot.show_skeleton"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields, param):
    error = error_of(json.dumps({"model": "m-sot", "messages": [USER], **fields}).encode())
    assert error.param == param
    assert param in str(error)


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {"sot": {"join": LONG}},
        {"sot": {"join": [LONG]}},
        {"sot": {"max_points": LONG}},
        {"sot": {"max_points": -(10**4000)}},
        {"sot": {"router": LONG}},
        {"sot": {"merge": LONG}},
        {"sot": {LONG: 1}},
        {"stream": LONG},
        {"stream_options": {"include_usage": {LONG: LONG}}},
    ],
)
def test_an_error_does_not_repeat_a_long_value(fields):
    error = error_of(json.dumps({"model": "m-sot", "messages": [USER], **fields}).encode())
    assert len(json.dumps(error.to_dict())) < 500


def test_a_wrong_option_says_which_there_are():
    error = error_of(json.dumps({"model": "m", "messages": [USER], "sot": {"points": 3}}).encode())
    assert all(name in str(error) for name in ("router", "max_points", "join", "merge", "eager", "show_skeleton"))


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (None, SotOptions()),
        ({}, SotOptions()),
        ({"router": None, "max_points": None, "events": None}, SotOptions()),
        ({"router": True}, SotOptions(router="always")),
        ({"router": False}, SotOptions(router="never")),
        ({"router": "auto"}, SotOptions(router="auto")),
        (
            {"max_points": 3, "join": "headings", "merge": True, "eager": False, "show_skeleton": True},
            SotOptions(
                settings={"max_points": 3, "join": "headings", "merge": True, "eager": False}, show_skeleton=True
            ),
        ),
    ],
)
def test_our_own_options(given, options):
    assert read(sot=given).sot == options


def test_a_byte_order_mark_and_half_characters_do_no_harm():
    content = b'\xef\xbb\xbf{"model": "m", "messages": [{"role": "user", "content": "a\\ud83d b \\ud83d\\ude00"}]}'
    (message,) = read_request(content, {}).body["messages"]
    assert message["content"] == "a\ufffd b \U0001f600"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"stop": "\n"},
        {"stop": ["END"]},
        {"stop_token_ids": [2]},
        {"n": 2},
        {"n": True},
        {"best_of": 3},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"prompt_logprobs": 0},
        {"max_tokens": 5},
        {"max_tokens": 0},
        {"max_completion_tokens": 5},
        {"n_predict": 5},
        {"min_tokens": 1},
        {"ignore_eos": True},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "x"}},
        {"prediction": {"type": "content", "content": "x"}},
        {"web_search_options": {"search_context_size": "low"}},
        {"grammar": "root ::= x"},
        {"guided_json": {"type": "object"}},
        {"guided_choice": ["a", "b"]},
        {"structured_outputs": {"choice": ["a"]}},
        {"json_schema": {"type": "object"}},
        {"echo": True},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
    ],
    ids=json.dumps,
)
def test_what_speaks_of_the_text_as_a_whole_passes_through(fields):
    request = read(**fields)
    (name,) = fields
    assert name in misfit(request)
    assert request.body[name] == fields[name]


def test_values_that_ask_for_nothing_do_not_count():
    neutral = {
        **{"tools": [], "tool_choice": "none", "functions": [], "function_call": None, "stop": None, "n": 1},
        **{"logprobs": False, "top_logprobs": 0, "max_tokens": None, "max_completion_tokens": None, "audio": None},
        **{"response_format": {"type": "text"}, "modalities": ["text"], "echo": False, "best_of": 1, "min_tokens": 0},
        **{"ignore_eos": False, "add_generation_prompt": True, "continue_final_message": False, "guided_json": None},
    }
    request = read(**neutral, temperature=0.3, top_p=None, seed=0, made_up="x", user="", sot={"max_points": 2})
    assert misfit(request) is None
    # They are not passed on either: some servers reject a `tool_choice` without tools.
    assert sampling_of(request) == {"temperature": 0.3, "seed": 0, "made_up": "x", "user": ""}


def test_calls_take_over_neither_the_messages_nor_what_concerns_the_stream():
    assert sampling_of(read(stream=True, stream_options={"include_usage": True}, top_k=5)) == {"top_k": 5}


def test_a_side_task_of_a_client_passes_through():
    assert "side task" in misfit(read({"x-openwebui-task": "title_generation"}))
    assert misfit(read({"x-openwebui-chat-id": "1"})) is None


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}], "not text"),
        ([{"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": "A dog."}, USER], "not text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}, USER], "not text"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "not text"),
        ([{"role": "user", "content": ["text"]}], "not text"),
        ([USER, CALLED, {"role": "tool", "tool_call_id": "1", "content": "4"}, USER], "tools"),
        ([USER, {"role": "function", "name": "f", "content": "4"}, USER], "the role function"),
        ([USER, {"role": "assistant", "content": "1. Eat"}], "does not end"),
        ([USER, {"role": "system", "content": "Be brief."}], "does not end"),
        ([{"role": "user", "content": "  \n"}], "empty"),
        ([{"role": "user", "content": []}], "empty"),
        ([{"role": "user", "content": None}], "without text"),
        ([{"role": "user"}], "without text"),
        ([{"role": "user", "content": 7}], "without text"),
        ([{**USER, "name": "alice"}, {**USER, "name": "bob"}], "speakers"),
    ],
)
def test_conversations_that_do_not_end_with_a_question_in_text_pass_through(messages, says):
    assert says in misfit(read(messages=messages))


def test_a_conversation_in_the_words_of_the_core():
    marked = {"type": "text", "text": "Read this.", "cache_control": {"type": "ephemeral"}}
    request = read(
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": [marked], "name": "alice"},
            {"role": "assistant", "content": None, "tool_calls": [], "refusal": None},
            {"role": "assistant", "content": "Yes.", "reasoning_content": "1. Diet\n"},
            {"role": "user", "content": [{"type": "text", "text": "What are"}, {"type": "text", "text": "the tips?"}]},
        ]
    )
    assert misfit(request) is None
    conversation = conversation_of(request, max_concurrency=4)
    assert [(message.role, message.content) for message in conversation.messages] == [
        ("system", "Be kind."),
        ("system", "Be\n\nbrief."),
        ("user", (marked,)),
        ("assistant", ""),
        ("assistant", "Yes."),
        ("user", "What are\n\nthe tips?"),
    ]
    assert conversation.request.max_concurrency == 4
