"""The prompts of installed packages, which are read when a test runs and are no part of this repository."""

from __future__ import annotations

import importlib
import importlib.util
import string
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from skeleton_of_thought import AutoRouter
from skeleton_of_thought.types import Conversation, Message, Request


def installed_prompt(path: str) -> Any:
    """The prompt at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def prompt_values(names: Iterable[str], question: str) -> dict[str, str]:
    """A value for each placeholder: the question, a history, or a text."""
    return {name: _value(name, question) for name in names}


def _value(name: str, question: str) -> str:
    if name.lower() in ("question", "query", "query_str", "input"):
        return question
    return "Human: hi\nAI: hello" if "history" in name else "Exercise strengthens the heart. It lifts the mood."


def prompts_of(package: str, pattern: str = "*prompt*.py") -> Iterator[tuple[str, Any]]:
    """Yields the prompts with placeholders in a package's modules whose files fit the pattern, by `module:name`."""
    found = importlib.util.find_spec(package)
    seen = set[str]()
    for root in found.submodule_search_locations if found is not None else ():
        for file in sorted(Path(root).rglob(pattern)):
            name = ".".join((package, *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    module = importlib.import_module(name)
            except ImportError:  # it needs a package that is not here
                continue
            for key, value in vars(module).items():
                if isinstance(value, type) or not _placeholders(value) or (text := repr(value)) in seen:
                    continue
                seen.add(text)
                yield f"{name}:{key}", value


def filled(prompt: Any, fill: Callable[[str], str]) -> list[tuple[str, str]]:
    """The roles and texts of a prompt whose placeholders are filled in."""
    values = {name: fill(name) for name in _placeholders(prompt)}
    if isinstance(prompt, str):
        return [("user", prompt.format(**values))]
    if hasattr(prompt, "template_vars"):
        return [(one.role.value, one.content or "") for one in prompt.format_messages(**values)]
    roles = {"human": "user", "ai": "assistant"}
    return [(roles.get(one.type, one.type), one.text) for one in prompt.invoke(values).to_messages()]


def _placeholders(prompt: Any) -> list[str]:
    if isinstance(prompt, str):
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None]
        except ValueError:
            return []
        return names if "\n" in prompt and all(map(str.isidentifier, names)) else []
    return list(getattr(prompt, "template_vars", None) or getattr(prompt, "input_variables", None) or ())


def is_of_items(messages: Iterable[tuple[str, str]]) -> bool:
    """Whether a call each answers the items that these messages ask for."""
    conversation = Conversation(tuple(Message(role, text) for role, text in messages if text.strip()))
    return AutoRouter().route(replace(conversation, request=Request(items=True))).items is not None


def fanned_out(package: str, *, but: Iterable[str] = ()) -> list[str]:
    """The prompts of a package that are answered item by item, whatever stands in them, and are not among `but`."""
    found = []
    for path, prompt in prompts_of(package):
        for question in (_POINTS, _TARGETS):
            for text in (_LIST, _TARGETS, _NUMBERED) if question == _POINTS else (_NUMBERED,):
                messages = filled(prompt, lambda name, q=question, t=text: _filling(name, q, t))
                if messages[-1][0] == "user" and is_of_items(messages):
                    found.append(path)
    return sorted({path for path in found if path.rpartition(":")[2] not in but})


_POINTS = "What are the main benefits of regular exercise?"
_LIST = "Translate these sentences into French:\n1. Good morning.\n2. Thank you.\n3. See you soon."
_TARGETS = "Translate this into French, Spanish and German: The cat sits on the mat."
_NUMBERED = "1. Exercise lifts the mood.\n2. Bees need flowers.\n3. Tea is a drink.\n4. Sleep helps memory."


def _filling(name: str, question: str, text: str) -> str:
    if name.lower() in ("question", "query", "query_str", "input", "new_question"):
        return question
    return "3" if name.startswith(("num", "max", "top")) else text
