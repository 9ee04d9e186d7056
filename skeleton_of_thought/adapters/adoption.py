"""Adoption: running the model of another library's object on a local engine.

An adapter knows its framework's classes by name, and imports nothing for them.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from skeleton_of_thought.errors import InvalidInput, error_text

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine

__all__ = ["Adoptions", "NotAdopted", "library_base", "library_class", "overridden"]

AdoptedT = TypeVar("AdoptedT")


class NotAdopted(Exception):
    """The reason why an object keeps running as it is."""


_MOST_REASONS = 20
"""The most reasons that are logged for one object."""


class _Record:
    """Data of one object: its engines by their tokenizers' ids, and the reasons that were logged."""

    def __init__(self) -> None:
        self.engines: dict[int, LocalEngine] = {}
        self.reasons: set[str] = set()


class Adoptions:
    """The engines of adopted objects, for as long as these objects live.

    `LocalEngine.for_model` shares an engine but does not keep it, so this does. Objects are found by their ids:
    pydantic models cannot be dictionary keys.

    Args:
        logger: Logs why an object was not adopted, once per object and reason.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._records: dict[int, _Record] = {}
        self._lock = threading.Lock()

    def attempt(self, source: Any, name: str, adopt: Callable[[], AdoptedT]) -> AdoptedT | None:
        """Adopts an object, or logs why that cannot be done.

        Args:
            source: The object whose record is kept.
            name: The object's class in the log.
            adopt: Makes the adopted model.

        Returns:
            None where it raised any error: the object itself still works.
        """
        try:
            return adopt()
        except Exception as error:
            own = isinstance(error, NotAdopted | InvalidInput)
            self._warn(source, name, str(error) if own else error_text(error))
            return None

    def engine(self, source: Any, model: Any, tokenizer: Any) -> LocalEngine:
        """The engine of an object's model and tokenizer, made anew where it was closed or the model was replaced."""
        from skeleton_of_thought.local import LocalEngine

        # Under the lock: two first calls would pack the same weights twice.
        with self._lock:
            engines = self._record(source).engines
            engine = engines.get(id(tokenizer))
            if engine is None or engine.closed or engine.model is not model:
                engine = engines[id(tokenizer)] = LocalEngine.for_model(model, tokenizer)
            return engine

    def _warn(self, source: Any, name: str, reason: str) -> None:
        with self._lock:
            reasons = self._record(source).reasons
            if reason in reasons or len(reasons) >= _MOST_REASONS:  # a reason may quote what differs in each call
                return
            reasons.add(reason)
        self._logger.warning("This %s is used as it is, one prompt after another: %s", name, reason)

    def _record(self, source: Any) -> _Record:
        record = self._records.get(id(source))
        if record is None:
            record = self._records[id(source)] = _Record()
            weakref.finalize(source, self._records.pop, id(source), None).atexit = False
        return record


def library_class(value: Any, name: str, packages: Iterable[str]) -> type | None:
    """The class of this name from one of these packages, if the value is an instance of it or of a subclass."""
    kind: Any = type(value)
    return library_base(kind, name, tuple(packages))


@lru_cache(maxsize=1024)
def library_base(kind: type, name: str, packages: tuple[str, ...]) -> type | None:
    """`library_class` for the class of a value; cached, because every answer needs it."""
    for cls in kind.__mro__:
        if cls.__name__ == name and any(f"{cls.__module__}.".startswith(f"{package}.") for package in packages):
            return cls
    return None


def overridden(value: Any, owner: type, methods: Iterable[str]) -> str | None:
    """The first of these methods that the value's class has in place of the owner's; None where it has none.

    Looked up statically: some frameworks wrap methods in descriptors that give another object at each access.
    """
    kind = type(value)
    for name in methods:
        if inspect.getattr_static(kind, name, None) is not inspect.getattr_static(owner, name, None):
            return name
    return None
