"""Planned answers of the server: requests, chunks, metrics, settings, and what flows are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import events_of, text_of

from skeleton_of_thought._cli.config import load_toml
from skeleton_of_thought.serve.answers import ServedModel
from skeleton_of_thought.serve.config_file import read_config
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.metrics import Metrics
from skeleton_of_thought.serve.requests import read_request
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, RouteDecision, Span, Timings, Usage

PLAN = ["1. Price: tickets and fees\n", "2. Comfort: seats\n", "3. Which one to choose (after 1, 2)\n"]
GRAPH = {"router": "always", "planning": "graph"}


@pytest.fixture
def planned(upstream):
    upstream.script["skeleton"] = PLAN
    upstream.script["opening"], upstream.script["closing"] = ["It begins."], ["It ends."]
    return upstream


def asked(sot):
    messages = [{"role": "user", "content": "Train or plane?"}]
    return read_request(json.dumps({"model": "m-sot", "messages": messages, "sot": sot}).encode(), {})


# --- requests and files ---


@pytest.mark.parametrize(
    "settings",
    [
        {"planning": "graph", "max_depth": 3, "closing": True, "rewrite_overlap": False},
        {"planning": "auto", "opening": "restart", "eager": "auto"},
        {"opening": True, "eager": False},
        {"max_parents": 2, "on_parent_error": "fail", "max_overlap": 0.5},
    ],
)
def test_a_request_may_say_how_its_answer_is_planned(settings):
    assert asked(settings).sot.settings == settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("planning", "tree", "'titles' or 'scoped' or 'graph' or 'auto'"),
        ("planning", ["graph"], "'graph'"),
        ("planning", True, "'graph'"),
        ("max_depth", 0, "at least 1"),
        ("max_depth", "2", "whole number"),
        ("opening", "late", 'has to be true, false or "restart"'),
        ("opening", 1, 'has to be true, false or "restart"'),
        ("eager", "often", 'has to be true, false or "auto"'),
        ("closing", "restart", "has to be true or false"),
        ("rewrite_overlap", 1, "has to be true or false"),
        ("max_parents", 0, "at least 1"),
        ("on_parent_error", "raise", "'write' or 'fail'"),
        ("max_overlap", 0, "above 0 and at most 1"),
    ],
)
def test_a_bad_value_names_its_field(name, value, said):
    with pytest.raises(ServeError) as caught:
        asked({name: value})
    assert (caught.value.status, caught.value.param) == (400, f"sot.{name}")
    assert said in str(caught.value)


def test_the_file_sets_them_for_each_model(tmp_path: Path):
    path = tmp_path / "server.toml"
    path.write_text(
        '[[models]]\nname = "a"\nplanning = "graph"\nmax-depth = 3\nopening = "restart"\nclosing = true\n'
        'rewrite-overlap = true\neager = "auto"\n[[models]]\nname = "b"\nopening = true\neager = false\n'
    )
    assert load_toml(path)
    first, second = (model.settings for model in read_config(path).models)
    planned = {"planning": "graph", "max_depth": 3, "opening": "restart", "closing": True, "rewrite_overlap": True}
    assert first == Settings(on_point_error="placeholder", eager="auto", **planned)
    assert second == Settings(on_point_error="placeholder", opening=True)


# --- answers ---


async def test_a_stream_tells_of_plan_waves_and_roles(serve, planned, body):
    client = await serve(planned)
    sot = {**GRAPH, "opening": True, "closing": True, "events": True, "show_skeleton": True}
    events = events_of((await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text)
    told = [event["sot"] for event in events if isinstance(event, dict) and "sot" in event]
    by_kind = {kind: [one for one in told if one["event"] == kind] for kind in {one["event"] for one in told}}
    assert by_kind["PointFound"][0]["point"] == {"index": 1, "title": "Price", "scope": "tickets and fees"}
    last = {"index": 3, "title": "Which one to choose", "depends_on": [1, 2], "wave": 2}
    assert [one["point"] for one in by_kind["PointFound"]][2] == last
    assert by_kind["PointStarted"][2]["point"] == last
    assert [point["wave"] for point in by_kind["SkeletonDone"][0]["plan"]] == [1, 1, 2]
    assert [one["role"] for one in by_kind["RoleStarted"]] == ["opening", "closing"]
    assert {one["role"]: one["text"] for one in by_kind["RoleDone"]} == {"opening": "It begins.", "closing": "It ends."}
    order = [one["event"] for one in told if one["event"] in ("PointDone", "RoleStarted")]
    assert order == ["PointDone"] * 3 + ["RoleStarted"] * 2
    assert text_of(events).startswith("It begins.\n\n1. Price")
    assert text_of(events).endswith("\n\nIt ends.")
    reasoning = "".join(
        choice["delta"].get("reasoning_content") or ""
        for event in events
        if isinstance(event, dict)
        for choice in event["choices"]
    )
    assert reasoning == "".join(PLAN)
    assert told[-1]["answer"]["opening"] == "It begins."
    metrics = (await client.get("/metrics")).text
    for stage in ("skeleton", "point", "opening", "closing"):
        assert f'sot_stage_seconds_count{{model="m-sot",stage="{stage}"}} 1' in metrics
    assert 'sot_stage_output_tokens_total{model="m-sot",stage="closing"} 5' in metrics


async def test_titles_alone_have_no_plan_in_their_events(serve, upstream, body):
    client = await serve(upstream)
    sot = {"router": "always", "events": True}
    events = events_of((await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text)
    told = [event["sot"] for event in events if isinstance(event, dict) and "sot" in event]
    assert all("plan" not in one for one in told)
    assert all(set(one["point"]) == {"index", "title"} for one in told if one["event"] == "PointFound")


async def test_a_late_opening_sends_the_whole_answer_again(serve, planned, body):
    client = await serve(planned)
    sot = {**GRAPH, "opening": "restart"}
    text = text_of(events_of((await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text))
    first, second = text.split("\n\nIt begins.\n\n")
    assert first == second
    assert first.startswith("1. Price")
    whole = (await client.post("/v1/chat/completions", json=body(sot=sot))).json()
    assert whole["choices"][0]["message"]["content"] == f"It begins.\n\n{first}"


async def test_a_failed_role_leaves_the_answer(serve, planned, body, caplog):
    planned.script["closing"] = [ConnectionError("a text that no log may have")]
    client = await serve(planned)
    done = await client.post("/v1/chat/completions", json=body(sot={**GRAPH, "closing": True}))
    assert done.status_code == 200
    assert "It ends." not in done.text
    assert "The closing failed" in caplog.text
    assert "no log may have" not in caplog.text


async def test_the_router_lets_a_comparison_through_for_a_graph(serve, planned, body):
    client = await serve(planned, model={"settings": Settings(planning="auto", on_point_error="placeholder")})
    question = "Should I take the train or the plane?"
    for sot, route in (({}, "skeleton"), ({"planning": "titles"}, "direct")):
        done = await client.post("/v1/chat/completions", json=body(question=question, sot={"router": "auto", **sot}))
        assert done.headers["x-sot-route"] == route, done.headers["x-sot-reason"]
    assert [call.stage for call in planned.calls].count("skeleton") == 1
    assert "(after 1, 2)" in planned.calls[-1].prompt.messages[-1].text


@pytest.mark.parametrize("local", [False, True])
def test_a_flow_knows_whether_to_be_eager_and_what_plans_were_like(planned, local, monkeypatch):
    made = []
    monkeypatch.setattr("skeleton_of_thought.serve.answers.AnswerFlow", lambda *args, **given: made.append(given))
    planned.local = local
    model = ServedModel(ModelSettings("m"), planned, 8)
    for planning in ("graph", "titles"):
        request = asked({"planning": planning})
        conversation = model.conversation(request)
        assert conversation.request.graph is (planning == "graph")
        model.flow(request, conversation, RouteDecision(True))
    assert [given["eager_pays"] for given in made] == [not local] * 2
    assert made[0]["plans"] is made[1]["plans"] is not None


def test_stages_are_counted_where_there_are_any():
    metrics = Metrics()
    assert "sot_stage" not in metrics.render()
    stages = {"skeleton": Span(0, 1), "opening": Span(2, 2.5)}
    answer = Answer("", "", "skeleton", timings=Timings(stages=stages), usage_by_stage={"opening": Usage(3, 9)})
    metrics.staged("m", answer)
    metrics.staged("m", answer)
    text = metrics.render()
    assert 'sot_stage_output_tokens_total{model="m",stage="opening"} 18' in text
    assert 'sot_stage_seconds_sum{model="m",stage="opening"} 1.000000' in text
