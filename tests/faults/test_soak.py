"""After many answers, of which many were left early, nothing is left: no thread, task, socket or open request."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from fault_matrix.server import FaultServer
from fault_matrix.soak import soak

LONG = os.environ.get("SOT_FAULTS_LONG") == "1"
ANSWERS = 3000 if LONG else 48
NEEDS = {"chain": "langchain_openai", "chat": "langchain_openai", "engine": "llama_index"}


# Ctrl-C inside of the HTTP client, while it connects, leaves a socket to the collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("surface", NEEDS)
def test_answers_that_are_left_early_leave_nothing_behind(server: FaultServer, surface: str) -> None:
    if find_spec(NEEDS[surface]) is None:
        pytest.skip(f"{NEEDS[surface]} is not installed")
    ends, left = soak(server, surface, ANSWERS, seed=1)
    assert left == []
    assert server.mistakes == []
    assert ends.total() == 2 * ANSWERS
    # Each kind of end occurred, so the soak did what it is for.
    assert {"answered", "cancelled", "interrupted"} <= ends.keys(), ends
