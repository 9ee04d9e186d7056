"""The query engine over a server that breaks, with LlamaIndex's OpenAILike where it is installed, else over httpx."""

from __future__ import annotations

import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed: pip install llama-index-core")

from importlib.util import find_spec

from fault_matrix.cells import Cell, chosen_cells
from fault_matrix.matrix import run_cell
from fault_matrix.server import FaultServer

HAS_CLIENT = find_spec("llama_index.llms") is not None and find_spec("llama_index.llms.openai_like") is not None


@pytest.mark.parametrize("cell", chosen_cells("openai_like" if HAS_CLIENT else "engine"), ids=str)
def test_an_answer_ends_well_or_by_a_named_error_and_leaves_nothing_behind(server: FaultServer, cell: Cell) -> None:
    assert not run_cell(cell, server).wrong
