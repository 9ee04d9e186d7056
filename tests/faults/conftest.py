"""The server that breaks, and which cells of the matrix are run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fault_matrix.server import FaultServer


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer().running() as served:
        yield served
    assert served.open == 0
