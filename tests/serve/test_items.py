"""Answers item by item of the server: requests, chunks, headers, metrics, settings, what passes through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import events_of, text_of

from skeleton_of_thought.serve.config_file import read_config
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.requests import read_request
from skeleton_of_thought.settings import Settings

SENTENCES = ("Good morning to you.", "How are you today?", "See you tomorrow.")
QUESTION = "Translate these sentences into French:\n" + "\n".join(f"- {sentence}" for sentence in SENTENCES)
ANSWERS = ("Bonjour.", "Comment ça va ?", "À demain.")
WHOLE = "- Bonjour.\n- Comment ça va ?\n- À demain."
AUTO = {"router": "auto"}


@pytest.fixture
def translating(upstream):
    upstream.script |= {sentence: [answer] for sentence, answer in zip(SENTENCES, ANSWERS, strict=True)}
    return upstream


def stages(upstream) -> list[str]:
    return [call.stage for call in upstream.calls]


# --- requests and files ---


@pytest.mark.parametrize("value", ["auto", "off"])
def test_a_request_may_say_whether_items_are_answered_each(value):
    messages = [{"role": "user", "content": QUESTION}]
    request = json.dumps({"model": "m-sot", "messages": messages, "sot": {"items": value}})
    assert read_request(request.encode(), {}).sot.settings == {"items": value}


@pytest.mark.parametrize("value", ["always", True, 1, ["auto"]])
def test_a_bad_value_names_its_field(value):
    messages = [{"role": "user", "content": QUESTION}]
    with pytest.raises(ServeError, match="'auto' or 'off'") as caught:
        read_request(json.dumps({"model": "m-sot", "messages": messages, "sot": {"items": value}}).encode(), {})
    assert (caught.value.status, caught.value.param) == (400, "sot.items")


def test_the_file_sets_it_for_each_model(tmp_path: Path):
    path = tmp_path / "server.toml"
    path.write_text('[[models]]\nname = "a"\nitems = "off"\n[[models]]\nname = "b"\n')
    assert [model.settings.items for model in read_config(path).models] == ["off", "auto"]


# --- answers ---


async def test_a_whole_answer_has_the_form_of_the_list(serve, translating, body):
    client = await serve(translating)
    sot = {**AUTO, "events": True, "show_skeleton": True}
    done = await client.post("/v1/chat/completions", json=body(question=QUESTION, sot=sot))
    message = done.json()["choices"][0]["message"]
    assert message["content"] == WHOLE
    assert "reasoning_content" not in message, "no model wrote a skeleton"
    assert (done.headers["x-sot-route"], done.headers["x-sot-reason"]) == ("items", "it asks the same of 3 items")
    assert stages(translating) == ["point"] * 3
    answer = done.json()["sot"]["answer"]
    assert (answer["route"], answer["skeleton"]) == ("items", list(SENTENCES))
    assert done.json()["usage"]["completion_tokens"] == 15
    metrics = (await client.get("/metrics")).text
    assert 'sot_answers_total{model="m-sot",route="items",status="200"} 1' in metrics
    assert 'sot_stage_seconds_count{model="m-sot",stage="point"} 1' in metrics
    assert 'stage="skeleton"' not in metrics


async def test_a_stream_has_items_in_order_and_tells_of_them(serve, translating, body):
    client = await serve(translating)
    sot = {**AUTO, "events": True, "show_skeleton": True}
    done = await client.post("/v1/chat/completions", json=body(question=QUESTION, stream=True, sot=sot))
    events = events_of(done.text)
    assert done.headers["x-sot-route"] == "items"
    assert text_of(events) == WHOLE
    told = [event["sot"] for event in events if isinstance(event, dict) and "sot" in event]
    assert told[0]["event"] == "Routed"
    assert [item["mark"] for item in told[0]["decision"]["items"]["points"]] == ["-"] * 3
    kinds = [one["event"] for one in told]
    assert "PointFound" not in kinds
    assert [kinds.count(kind) for kind in ("SkeletonDone", "PointStarted", "PointDone")] == [1, 3, 3]
    assert [one["point"]["title"] for one in told if one["event"] == "PointStarted"] == list(SENTENCES)
    assert told[-1]["answer"]["route"] == "items"
    deltas = [choice["delta"] for event in events if isinstance(event, dict) for choice in event["choices"]]
    assert not any("reasoning_content" in delta for delta in deltas)


@pytest.mark.parametrize(
    ("fields", "model", "route", "reason"),
    [
        ({"sot": {**AUTO, "items": "off"}}, {}, "direct", "gate"),
        ({"sot": AUTO}, {"settings": Settings(items="off")}, "direct", "gate"),
        ({"sot": {"items": "auto"}}, {"settings": Settings(items="off"), "router": "auto"}, "items", "it asks"),
        ({"sot": {"router": "always"}}, {}, "skeleton", "always"),
        ({"sot": {"router": "never"}}, {}, "direct", "never"),
        ({"sot": AUTO}, {"max_concurrency": 1}, "direct", "cost guard: there is room for one call at a time"),
        ({"sot": AUTO, "tools": [{"type": "function"}]}, {}, "passed", "the request has tools"),
        ({"sot": AUTO, "response_format": {"type": "json_object"}}, {}, "passed", "the request has response_format"),
        ({"sot": AUTO, "max_tokens": 5}, {}, "passed", "the request has max_tokens"),
    ],
)
async def test_the_route_follows_settings_and_what_the_request_has(
    serve, translating, body, fields, model, route, reason
):
    client = await serve(translating, model=model)
    done = await client.post("/v1/chat/completions", json=body(question=QUESTION, **fields))
    assert done.status_code == 200
    assert done.headers["x-sot-route"] == route
    assert done.headers["x-sot-reason"].startswith(reason)
    assert (stages(translating) == ["point"] * 3) == (route == "items")


async def test_a_failed_item_keeps_its_place(serve, translating, body):
    translating.script[SENTENCES[1]] = [ConnectionError("gone")]
    client = await serve(translating)
    done = await client.post("/v1/chat/completions", json=body(question=QUESTION, sot=AUTO))
    text = done.json()["choices"][0]["message"]["content"]
    assert text == "- Bonjour.\n- (This point could not be completed.)\n- À demain."
