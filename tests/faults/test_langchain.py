"""The chain and the chat model, with langchain-openai's client, over a server that breaks."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_openai", reason="the client is not installed: pip install langchain-openai")

from fault_matrix.cells import Cell, chosen_cells
from fault_matrix.matrix import run_cell
from fault_matrix.server import FaultServer


@pytest.mark.parametrize("cell", chosen_cells("chain", "chat"), ids=str)
def test_an_answer_ends_well_or_by_a_named_error_and_leaves_nothing_behind(server: FaultServer, cell: Cell) -> None:
    assert not run_cell(cell, server).wrong
