"""The suite itself: which cells it samples, and that it finds what is wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import socket
import threading
import time
from typing import Any

import pytest
from fault_matrix import rules
from fault_matrix.cells import FAULTS, POLICIES, WAYS, Cell, Policy, all_cells, sample
from fault_matrix.leftovers import Before
from fault_matrix.server import DIRECT, MERGED, POINTS, Counts, FaultServer
from fault_matrix.surfaces import Seen
from fault_matrix.verdict import PLACEHOLDER, WHOLE, joined, judge

SURFACES = ("chain", "chat", "engine", "command")
MET = Counts(met=1)
POINT = Cell("chain", "invoke", "broken", "point", Policy(on_point_error="placeholder"))
DIRECTLY = Cell("chat", "stream", "broken", "direct", Policy())
MERGING = Cell("engine", "stream", "reset_amid", "merge", Policy())
GAP = joined((POINTS[0], PLACEHOLDER, POINTS[2]))


# --- the cells -------------------------------------------------------------------------------------------


def test_every_fault_has_an_effect_and_every_effect_a_rule():
    assert set(rules.EFFECT_OF) == set(FAULTS)
    assert set(rules.LASTING) == set(rules.EFFECTS)


def test_every_cell_has_a_right_outcome():
    for cell in all_cells(tuple(WAYS)):
        assert rules.right_outcomes(cell) <= set(rules.OUTCOMES)
        assert rules.right_outcomes(cell)


@pytest.mark.parametrize("surfaces", [("chain", "chat"), ("engine",), ("openai_like",), ("command",)])
def test_the_sample_has_every_pair_of_fault_and_way_and_of_fault_and_stage(surfaces):
    cells, every = list(sample(surfaces)), list(all_cells(surfaces))
    assert {(cell.way, cell.surface, cell.fault) for cell in cells} == {
        (cell.way, cell.surface, cell.fault) for cell in every
    }
    assert {(cell.fault, cell.stage) for cell in cells} == {(cell.fault, cell.stage) for cell in every}
    assert len(set(cells)) == len(cells) < len(every) / 5


def test_the_sample_has_every_policy():
    cells = itertools.chain.from_iterable(map(sample, [("chain", "chat"), ("engine",), ("command",)]))
    assert {cell.policy for cell in cells} == set(itertools.chain.from_iterable(POLICIES.values()))


def test_the_sample_is_the_same_each_time_and_a_part_of_all_cells():
    assert list(sample(SURFACES)) == list(sample(SURFACES))
    assert set(sample(SURFACES)) < set(all_cells(SURFACES))


# --- what is found ---------------------------------------------------------------------------------------


def wrong(cell: Cell, counts: Counts = MET, **seen: Any) -> list[str]:
    return judge(cell, Seen(**seen), counts)[1]


def test_right_answers_are_right():
    assert not wrong(POINT, text=GAP, errors={"2": "APIError: it broke"})
    assert not wrong(dataclasses.replace(DIRECTLY, fault="tiny"), text=DIRECT, read=DIRECT)
    assert not wrong(MERGING, text=WHOLE, read=f"One text\n\n{WHOLE}", errors={"merge": "ReadError: reset"})
    assert not wrong(dataclasses.replace(MERGING, fault="tiny"), text=MERGED, read=MERGED)


@pytest.mark.parametrize("text", ["", " \n", "1. Take breaks: ", WHOLE, GAP.replace(POINTS[2], POINTS[2][:9]), DIRECT])
def test_an_empty_answer_and_lost_text_are_wrong(text):
    assert wrong(POINT, text=text, errors={"2": "APIError: it broke"})


def test_an_answer_that_hides_a_failed_point_is_wrong():
    assert wrong(POINT, text=GAP) == ["a point failed, and the errors are of []"]


def test_a_stream_that_is_not_the_answer_is_wrong():
    (found,) = wrong(MERGING, text=WHOLE, read=f"One text{WHOLE}", errors={"merge": "ReadError: reset"})
    assert found.startswith("the stream has")


def test_errors_of_this_package_are_wrong_unless_the_rules_name_them():
    def raised(error: BaseException, filename: str) -> BaseException:
        try:
            exec(compile("raise error", filename, "exec"), {"error": error})
        except BaseException as caught:
            return caught
        raise AssertionError

    ours = raised(KeyError("choices"), "/x/llama_index_sot/llm_calls.py")
    assert wrong(DIRECTLY, error=ours, read="")[0].startswith("KeyError of this package, not")
    assert not wrong(DIRECTLY, error=raised(KeyError("choices"), "/x/openai/client.py"), read="")
    assert wrong(POINT, error=raised(KeyError("choices"), "/x/openai/client.py"))


def test_a_crash_of_the_command_is_wrong():
    cell = Cell("command", "plain", "broken", "direct", Policy())
    assert not wrong(cell, error="exit code 1: sot: error: the server broke off\n")
    assert wrong(cell, error='exit code 1: Traceback (most recent call last):\n  File "x"\nKeyError: 1\n')
    assert wrong(cell, error="exit code 2: sot: error: what?\n")


def test_waits_that_only_the_server_ended_are_wrong():
    answer = {"text": GAP, "errors": {"2": "PointTimeout"}}
    assert wrong(POINT, Counts(met=1, forgotten=1), **answer)
    assert wrong(POINT, Counts(met=1, unbounded=1), **answer)
    assert wrong(POINT, Counts(), **answer) == ["the fault met no request: the cell shows nothing"]


def test_harm_to_an_answer_at_the_side_is_wrong():
    answer = {"text": GAP, "errors": {"2": "APIError"}}
    assert not wrong(POINT, spared=WHOLE, **answer)
    assert wrong(POINT, spared=GAP, **answer)


# --- what is left ----------------------------------------------------------------------------------------


def test_a_thread_that_is_left_is_found(server: FaultServer):
    before, over = Before(server), threading.Event()
    thread = threading.Thread(target=over.wait, name="sot-left")
    thread.start()
    (left,) = before.left()
    over.set()
    thread.join()
    assert left.startswith("the thread sot-left, ")
    assert "threading.py" in left
    assert before.settled() == []


async def test_a_task_that_is_left_is_found(server: FaultServer):
    before = Before(server)
    task = asyncio.create_task(asyncio.sleep(60), name="left")
    assert before.left(tasks=True)[0].startswith("the task left")
    task.cancel()
    assert await before.asettled() == []


def test_an_open_request_is_found(server: FaultServer):
    before = Before(server)
    with socket.create_connection(server.server_address[:2]) as left:
        assert before.left() == ["a socket in ESTABLISHED"]
        left.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        while not server.open:
            time.sleep(0.001)
        assert before.left() == ["1 open request(s) on the server"]
    assert before.settled() == []


def test_a_socket_that_the_server_has_closed_is_found(server: FaultServer):
    before = Before(server)
    with socket.create_connection(server.server_address[:2]) as left:
        left.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while left.recv(1000):
            pass
        assert before.left() == ["a socket in CLOSE_WAIT"]
    assert before.settled() == []
