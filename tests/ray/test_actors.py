"""`AnswerQuestions` in a data set's `map_batches`, on two actors of a local Ray."""

from __future__ import annotations

import json
from collections import Counter

import psutil
import pytest
from numbered_server import BAD, CALLS, PROMPTS, NumberedServer, question

from skeleton_of_thought.errors import ModelLoadError
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.ray import AnswerQuestions


def answered(ray, server, questions, *, batch_size=4, blocks=5, **settings):
    return ray.data.from_items(questions, override_num_blocks=blocks).map_batches(
        AnswerQuestions,
        fn_constructor_kwargs={
            "model": server.model,
            "router": None,
            "prompts": PromptSet(**PROMPTS),
            "concurrency": 4,
            **settings,
        },
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=2),
    )


def test_two_actors_answer_and_errors_are_rows(ray):
    asked = [{"question": question(i, BAD if i == 7 else ""), "number": i} for i in range(1, 21)]
    with NumberedServer(0.01) as server:
        rows = answered(ray, server, asked).take_all()
        assert Counter(row["number"] for row in rows) == Counter(range(1, 21))
        assert [row["number"] for row in rows if row["error"]] == [7]
        assert all(f"Said of {row['number']}." in row["answer"] for row in rows if row["number"] != 7)
        assert {row["calls"] for row in rows if row["number"] != 7} == {CALLS}
        assert all(server.asked[i] == CALLS for i in range(1, 21) if i != 7)
        assert server.most <= 8
    assert all(json.loads(row["row"])["key"] == row["key"] for row in rows)


def test_an_actor_killed_in_the_middle_loses_nothing_and_doubles_nothing(ray, actors, eventually_sync):
    asked = [{"question": question(i), "number": i} for i in range(1, 25)]
    me = psutil.Process()
    with NumberedServer(0.01) as server:
        before = {each.pid for each in actors(me)}
        rows = iter(answered(ray, server, asked, batch_size=2, blocks=12).iter_rows())
        got = [next(rows)]
        server.gate.clear()
        eventually_sync(lambda: server.open >= 2, "calls are open")
        victim = next(each for each in actors(me) if each.pid not in before and any(each.net_connections("tcp")))
        victim.kill()
        server.gate.set()
        got += rows
    assert Counter(row["number"] for row in got) == Counter(range(1, 25))
    assert not any(row["error"] for row in got)
    # What the victim had under way was asked again; no more than that.
    assert sum(server.asked.values()) <= (24 + 8) * CALLS


def test_a_model_that_cannot_be_loaded_ends_the_job_with_its_own_error(ray, tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF")
    job = ray.data.from_items([{"question": "Why?"}]).map_batches(
        AnswerQuestions,
        fn_constructor_kwargs={"model": str(file)},
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    with pytest.raises(Exception, match=r"broken\.gguf") as caught:
        job.take_all()
    causes = [caught.value, caught.value.__cause__]
    assert any(isinstance(each, ModelLoadError) or "ModelLoadError" in str(each) for each in causes)


def test_a_job_with_rays_own_checkpoint_asks_nothing_twice(ray, tmp_path):
    checkpoint = pytest.importorskip("ray.data.checkpoint", reason="this Ray has no checkpoints")
    context = ray.data.DataContext.get_current()
    folder = tmp_path / "in"
    folder.mkdir()

    def run(numbers):
        lines = (json.dumps({"id": f"q{i}", "question": question(i)}) for i in numbers)
        (folder / "questions.jsonl").write_text("\n".join(lines))
        ray.data.read_json(str(folder)).map_batches(
            AnswerQuestions,
            fn_constructor_kwargs={"model": server.model, "router": None, "prompts": PromptSet(**PROMPTS)},
            compute=ray.data.ActorPoolStrategy(size=1),
        ).write_json(str(tmp_path / "out"))

    with NumberedServer() as server:
        context.checkpoint_config = checkpoint.CheckpointConfig(
            id_column="id", checkpoint_path=str(tmp_path / "done"), delete_checkpoint_on_success=False
        )
        try:
            run(range(1, 5))
            run(range(1, 7))
        finally:
            context.checkpoint_config = None
        assert server.asked == Counter(dict.fromkeys(range(1, 7), CALLS))
    lines = [line for file in (tmp_path / "out").glob("*.json") for line in file.read_text().splitlines()]
    assert sorted(json.loads(line)["id"] for line in lines) == [f"q{i}" for i in range(1, 7)]
