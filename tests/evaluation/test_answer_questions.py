"""`AnswerQuestions` and the checks of `sot batch --ray`, without Ray: tests/ray has what needs it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted_cli import TITLES, Script

from skeleton_of_thought import cli
from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.batch_ray import Lifelines, check_address
from skeleton_of_thought._cli.options import parse
from skeleton_of_thought.errors import InvalidInput, ModelLoadError
from skeleton_of_thought.evaluation.rows import from_json
from skeleton_of_thought.ray import COLUMNS, AnswerQuestions, _Room
from skeleton_of_thought.types import Call, Conversation, Prompt

CALLS = 1 + len(TITLES)


class Counted(Script):
    """A script that knows how many of its calls were open at most."""

    most = 0

    def text(self, call):
        self.most = max(self.most, self.open + 1)
        return super().text(call)


def test_a_batch_keeps_its_order_and_its_columns_and_errors_are_rows():
    script = Counted(fail=lambda call: OSError("lost") if call.prompt and "Why" in str(call.prompt) else None)
    answers = AnswerQuestions(script.backend, router=None, concurrency=3)
    made = answers({"question": ["How to sleep?", "Why?", " ", None, "How to wake?"], "id": [5, 4, 3, 2, 1]})
    assert list(made) == ["question", "id", *COLUMNS]
    assert made["id"] == [5, 4, 3, 2, 1]
    assert [bool(text) for text in made["answer"]] == [True, False, False, False, True]
    assert [bool(error) for error in made["error"]] == [False, True, True, True, False]
    assert "lost" in made["error"][1]
    assert (made["calls"][0], made["calls"][2], made["route"][4]) == (CALLS, 0, "skeleton")
    rows = [from_json(json.loads(row)) for row in made["row"]]
    assert [row.key for row in rows] == made["key"]
    assert len(rows[0].points) == len(TITLES)
    assert script.most <= 3
    answers.close()
    assert script.closed
    with pytest.raises(Exception, match="closed"):
        answers({"question": ["Why?"]})


def test_threads_of_one_instance_share_its_calls():
    script = Counted(delay=0.0005)
    answers = AnswerQuestions(script.backend, router=None, concurrency=4)
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda number: answers({"question": [f"Number {number}?"]}), range(6)))
    assert [one["error"] for one in made] == [[""]] * 6
    assert script.most == 4
    answers.close()


def test_an_answer_begins_only_when_no_earlier_one_waits_for_room():
    room, call = _Room(2), Call(1, "direct", Prompt(Conversation.of("Why?").messages))
    room.wait()
    first = room.share()
    assert [first.open((0, number), call, 0.0) for number in range(3)] == [True, True, False]
    begun = threading.Event()
    second = threading.Thread(target=lambda: (room.wait(), begun.set()))
    second.start()
    first.close((0, 0))
    assert not begun.wait(0.1)  # the place is for the call that waits
    assert first.open((0, 2), call, 0.0)
    assert not begun.wait(0.1)
    first.close((0, 1))
    assert begun.wait(20)
    second.join()


def test_keys_tell_questions_and_settings_apart_and_may_be_given():
    script = Script()
    plain, other = (AnswerQuestions(script.backend, max_tokens=most) for most in (10, 20))
    keys = {key for answers in (plain, other) for key in answers({"question": ["A?", "B?"]})["key"]}
    assert len(keys) == 4
    assert plain({"question": ["A?"]})["key"] == plain({"question": ["A?", "C?"]})["key"][:1]
    given = AnswerQuestions(script.backend, key_column="id", system_column="own")
    assert given({"question": ["A?"], "id": ["x1"], "own": ["Be brief."]})["key"] == ["x1"]
    assert "Be brief." in str(script.calls[-1].prompt)


def test_a_model_that_cannot_be_loaded_is_loaded_once_and_said_by_each_batch():
    tries = []

    def load() -> ModelBackend:
        tries.append(1)
        raise ValueError("no weights at http://me:secret@host/")

    answers = AnswerQuestions(load)
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=r"no weights at http://\*\*\*@host"):
            answers({"question": ["Why?"]})
    assert tries == [1]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"text": ["Why?"]}, "no column 'question'; it has 'text'"),
        ({}, "it has none"),
        ({"question": ["Why?"], "error": [""]}, "has a column 'error', as its answers have: rename it"),
    ],
)
def test_columns_that_do_not_fit_are_named(batch, said):
    with pytest.raises(InvalidInput, match=said):
        AnswerQuestions(Script().backend)(batch)


@pytest.mark.parametrize("number", [0, -1, True, 1.5])
def test_a_concurrency_that_is_no_number_of_calls_is_refused(number):
    with pytest.raises(InvalidInput, match="concurrency"):
        AnswerQuestions(Script().backend, concurrency=number)


def test_the_module_does_not_import_ray():
    code = "import sys, skeleton_of_thought.ray; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the command -----------------------------------------------------------------------------------------


def test_an_address_that_cannot_work_is_refused_before_anything_waits_for_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InvalidInput, match=rf"--ray 127.0.0.1:{port}: no cluster answers there .*ray start --head"):
        check_address(f"127.0.0.1:{port}")
    with pytest.raises(InvalidInput, match="on a node of the cluster"):
        check_address("ray://host:10001")
    for nonsense in ("host", ":1", "host:port"):
        with pytest.raises(InvalidInput, match="HOST:PORT"):
            check_address(nonsense)


def test_without_ray_the_command_says_what_to_install_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "q.txt").write_text("Why?\n")
    code = cli.main(
        ["batch", str(tmp_path / "q.txt"), str(tmp_path / "out"), "--model", "openai:m@http://h:1", "--ray"]
    )
    assert code != 0
    assert "sot batch --ray needs Ray Data: pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (["--ray", "q.txt", "out"], ""),
        (["q.txt", "out", "--ray"], ""),
        (["--ray", "auto", "q.txt", "out"], "auto"),
        (["--ray", "10.0.0.1:6379", "q.txt", "out"], "10.0.0.1:6379"),
        (["q.txt", "out", "--ray=local"], "local"),
        (["q.txt", "out"], None),
    ],
)
def test_the_address_is_optional_and_no_file_is_taken_for_it(words, address):
    args = parse(["batch", *words])
    assert (args.ray, args.questions, args.out) == (address, "q.txt", "out")


def test_lifelines_end_with_their_block():
    with Lifelines("127.0.0.1") as lines, socket.create_connection(lines.address, timeout=10) as line:
        while not lines._held:
            threading.Event().wait(0.001)
        assert len(lines._held) == 1
        lines.__exit__()
        assert line.recv(1) == b""
