"""Contracts: the private names of other packages that we use, and the error text of a failing test."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "decisions.md"
TITLE = "## Private names that we use"

_PACKAGES = {
    "accelerate": "accelerate",
    "langchain_community": "langchain-community",
    "langchain_core": "langchain-core",
    "langchain_huggingface": "langchain-huggingface",
    "langchain_openai": "langchain-openai",
    "langgraph": "langgraph",
    "llama_index.core": "llama-index-core",
    "llama_index.llms.huggingface": "llama-index-llms-huggingface",
    "torch": "torch",
    "transformers": "transformers",
}
"""How a name begins, and the package that has it."""


class Row(NamedTuple):
    """A row of the table: the name, the modules of ours that use it, the reason, and the alternative."""

    name: str
    users: str
    purpose: str
    replacement: str

    @property
    def package(self) -> str:
        return next(package for start, package in _PACKAGES.items() if self.name.startswith(f"{start}."))

    @property
    def attribute(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


def rows() -> dict[str, Row]:
    """The table of private names, by name."""
    section = PAGE.read_text(encoding="utf-8").partition(f"{TITLE}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([\w.]+)` \| (`.*?`) \| (.*?) \| (.*?) \|$", section, re.M)
    return {name: Row(name, users.replace("`", ""), *rest) for name, users, *rest in found}


def version(package: str) -> tuple[int, ...]:
    """The first two numbers of an installed package's version."""
    return tuple(int(number) for number in re.findall(r"\d+", importlib.metadata.version(package))[:2])


@contextlib.contextmanager
def contract(name: str) -> Iterator[None]:
    """Fails with the text of the name's row when the block fails: the block uses the name as our code does."""
    row = rows()[name]
    try:
        yield
    except Exception as error:
        pytest.fail(
            f"{row.package} {importlib.metadata.version(row.package)} no longer has {name} as we use it: "
            f"{row.users} needs it to {row.purpose}. What to do: {row.replacement}. ({type(error).__name__}: {error})",
            pytrace=False,
        )
