"""The table of private names in docs/decisions.md is complete, and each of its rows has one contract test."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts import contract, rows

ROOT = Path(__file__).parent.parent
PACKAGES = ("skeleton_of_thought", "langchain_sot", "llama_index_sot")
ADAPTERS = PACKAGES[1:]
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]

STANDARD_LIBRARY = {
    *("_SubParsersAction", "_actions", "_exit", "_fill_text", "_format_action_invocation", "_replace", "_width"),
    *("_abc_impl", "_step_functions"),  # metaclasses write these into classes
}
"""Private names that the standard library defines or writes into classes."""

DOCUMENTED = {
    *("_generate", "_agenerate", "_stream", "_astream", "_llm_type", "_identifying_params", "_type"),
    *("_query", "_aquery", "_select", "_aselect", "_get_prompts", "_update_prompts", "_get_prompt_modules"),
}
"""Methods that LangChain and LlamaIndex require of subclasses."""

NO_NAMES = {"_proj", "_class_name"}
"""Strings in our code that look like private names."""

SEEN_BY_NAME = {
    *("GraphBubbleUp", "LangChainBetaWarning"),
    *("BaseChatOpenAI", "ChatHuggingFace", "ChatLlamaCpp", "HuggingFacePipeline", "LlamaCpp"),
    *("linear_prepack_fp16", "linear_dynamic_fp16"),
}
"""Names without an underscore: not documented for others, in a private module, or compared as strings."""


def own_names(tree: ast.AST) -> Iterator[str]:
    """Names that this code defines or assigns: functions, classes, variables, attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def used_names(tree: ast.AST) -> Iterator[str]:
    """Names that this code looks up: attributes, imports, and strings that are names (but no parts of f-strings)."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def class_names(tree: ast.AST) -> Iterator[str]:
    """Names of classes in strings that also have the module, whole or in part."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z_.]*\.[A-Z]\w+", str(node.value)):
            yield str(node.value).rpartition(".")[2]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and not name.isupper()


def overridden() -> Iterator[str]:
    """Private methods of other packages' classes that classes of ours override."""
    for package in ADAPTERS:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            for cls in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(cls) and cls.__module__ == module.name:
                    yield from inherited(cls)


def inherited(cls: type) -> Iterator[str]:
    ours = [base for base in cls.__mro__ if base.__module__.partition(".")[0] in PACKAGES]
    foreign = [base for base in cls.__mro__ if base not in ours and base.__module__ not in sys.stdlib_module_names]
    for name in {name for base in ours for name in vars(base) if is_private(name)}:
        if any(name in vars(base) for base in foreign):
            yield name


@pytest.fixture(scope="module")
def used() -> set[str]:
    """Private names of other packages that our code uses, except those that our code also defines."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    own = {name for tree in trees for name in own_names(tree)}
    looked_up = {name for tree in trees for name in used_names(tree)}
    private = {name for name in looked_up - own if is_private(name)} | (looked_up & SEEN_BY_NAME)
    private |= {name for tree in trees for name in class_names(tree)} - own
    return (private | set(overridden())) - STANDARD_LIBRARY - DOCUMENTED - NO_NAMES


def test_every_private_name_that_the_code_uses_has_a_row(used: set[str]) -> None:
    missing = used - {row.attribute for row in rows().values()}
    assert not missing, f"add a row to docs/decisions.md and a contract test for {sorted(missing)}"


def test_every_row_is_about_a_name_that_its_modules_use() -> None:
    for row in rows().values():
        for user in row.users.split(", "):
            path = ROOT / user.replace(".", "/")
            files = list(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
            assert files, f"{row.name}: there is no {user}"
            text = "".join(file.read_text(encoding="utf-8") for file in files)
            assert re.search(rf"\b{row.attribute}\b", text), f"{user} does not use {row.name} any more: drop its row"


def test_every_row_has_one_contract_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/*/test_contracts.py"))
    assert {name: tests.count(f'"{name}"') for name in rows()} == dict.fromkeys(rows(), 1)


def test_the_error_of_a_broken_contract_gives_the_remedy() -> None:
    with pytest.raises(pytest.fail.Exception) as caught, contract("langgraph.errors.GraphBubbleUp"):
        raise AttributeError("gone")
    text = str(caught.value)
    assert re.match(r"langgraph [\d.]+ no longer has langgraph\.errors\.GraphBubbleUp as we use it: ", text)
    assert "langchain_sot.interrupts needs it to tell LangGraph's control flow" in text
    assert "What to do: name the new base class" in text
