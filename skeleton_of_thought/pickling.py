"""Copies and pickles of values that hold errors, read-only mappings or objects of other packages.

Many errors of model clients cannot be pickled. Others can be written but not read, because their `__init__` needs
arguments that pickle does not know; one of these breaks a pool of processes. So each pickle of an error is read once,
on trial. If that fails, the error travels as one of the same type with those attributes that can be pickled. If that
fails, too, it travels as a `ForeignError` with its text.

A copy in the same process shares the errors of its original.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import pairwise
from types import MappingProxyType
from typing import Any

__all__ = ["Portable", "PortableError"]

_DEPTH = 8
"""The most causes of an error that travel with it."""

_NESTED = 3
"""The most errors within errors, as attributes, that travel: each repeats its causes, so the work multiplies."""

_LONGEST = 1000
"""The most characters of the text of an object that cannot travel."""

_active = threading.local()
"""The ids of the errors that this thread is writing: an error that holds itself, or too many others, ends as text."""


class Portable:
    """The base of frozen dataclasses whose fields may hold errors, read-only mappings, or any objects."""

    __slots__ = ()

    def __copy__(self) -> Any:
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {name: _wrapped(value) for name, value in vars(self).items()}


class PortableError(Exception):
    """The base of errors that travel with their attributes, notes and causes.

    What cannot be pickled is replaced: an object by its text, an error by one of its type or by a `ForeignError`.
    """

    def __copy__(self) -> PortableError:
        parts: Any = super().__reduce__()
        kind, args, *state = parts
        copied: PortableError = _remade(kind, args)
        copied.__setstate__({**(state[0] if state else {}), "__cause__": self.__cause__})
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        # The type's own `__init__` takes other arguments than `args`.
        parts: Any = super().__reduce__()
        kind, args, *state = parts
        attributes: dict[str, Any] = {name: _Attribute(value) for name, value in (state[0] if state else {}).items()}
        if self.__cause__ is not None:
            attributes["__cause__"] = _Carried(self.__cause__, self)
        return _remade, (kind, _Attribute(args)), attributes

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        attributes = dict(state or {})
        if (cause := attributes.pop("__cause__", None)) is not None:
            self.__cause__ = cause
        if notes := attributes.get("__notes__"):
            attributes["__notes__"] = list(notes)
        super().__setstate__(attributes)


def _wrapped(value: Any) -> Any:
    """The value with a `_Carried` around each error and each read-only mapping in it."""
    if isinstance(value, (BaseException, MappingProxyType)):
        return _Carried(value)
    if type(value) in (tuple, list):
        return type(value)([_wrapped(item) for item in value])
    return {key: _wrapped(item) for key, item in value.items()} if type(value) is dict else value


class _Carried:
    """An error or a read-only mapping on its way through a copy or a pickle; what is read is the value itself."""

    def __init__(self, value: BaseException | Mapping[Any, Any], above: BaseException | None = None) -> None:
        self._value = value
        self._above = above  # the error whose cause it is, if it is one

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if isinstance(self._value, BaseException):
            return self._value
        import copy

        return MappingProxyType({key: copy.deepcopy(_wrapped(item), memo) for key, item in self._value.items()})

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not isinstance(self._value, BaseException):
            return _read_only, (_wrapped(dict(self._value)),)
        chain = [self._value, *_causes(self._value)] if self._above is None else _causes(self._above)
        return _chain, tuple(_packed(error, protocol) for error in chain)


class _Attribute:
    """An attribute of an error on its way through a copy or a pickle: it never keeps the error from travelling."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        import copy

        try:
            return copy.deepcopy(_wrapped(self._value), memo)
        except Exception:  # of any object: the copy shares it
            return self._value

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _loaded, (_dumped(_travelling(self._value, protocol), protocol),)


def _read_only(items: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(items)


class _Call:
    """Stands in a pickle for what a function returns."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._form = function, args

    def __reduce__(self) -> Any:
        return self._form


# --- errors ---------------------------------------------------------------------------------------


def _causes(error: BaseException) -> list[BaseException]:
    """The error's cause, the cause of that, and so on: each once, and no more than `_DEPTH`."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) <= _DEPTH:
        if any(cause is each for each in chain):
            break
        chain.append(cause)
    return chain[1:]


def _remade(kind: type[BaseException], args: tuple[Any, ...]) -> Any:
    """An error of this type with these arguments, made without the type's own `__init__`."""
    error = kind.__new__(kind, *args)
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    builtin.__init__(error, *args)  # sets the fields that the interpreter keeps, such as `ImportError.msg`
    return error


def _stated(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = _remade(kind, args)
    error.__setstate__(state)
    return error  # type: ignore[no-any-return]


def _chain(*packed: tuple[Any, ...]) -> BaseException:
    """The error that was packed, with its causes."""
    errors = [_unpacked(*each) for each in packed]
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def _packed(error: BaseException, protocol: int) -> tuple[Any, ...]:
    """The error without its causes: its pickle, and for a stand-in its type's name, its text and plain attributes."""
    kind = type(error)
    attributes = {name: value for name, value in vars(error).items() if type(value) in (str, int, float, bool)}
    if notes := getattr(error, "__notes__", None):
        attributes["__notes__"] = list(map(str, notes))
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    writing: set[int] = vars(_active).setdefault("ids", set())
    if id(error) in writing or len(writing) == _NESTED:
        return b"", name, _text(error), attributes
    writing.add(id(error))
    try:
        return _written(error, protocol), name, _text(error), attributes
    finally:
        writing.discard(id(error))


def _written(error: BaseException, protocol: int) -> bytes:
    """The error's pickle, which was read on trial; empty if it has none."""
    for form in (_as_it_is, _without_init):
        try:
            data = _dumped(form(error, protocol), protocol)
            again = _loaded(data)
            if type(again) is type(error) and str(again) == str(error):
                return data
        except Exception:  # any method of any object may run here
            continue
    return b""


def _as_it_is(error: BaseException, protocol: int) -> Any:
    if not isinstance(error, PortableError):
        return error
    _, args, state = error.__reduce__()
    return _Call(_stated, *args, {name: value for name, value in state.items() if name != "__cause__"})


def _without_init(error: BaseException, protocol: int) -> Any:
    attributes = {name: value for name, value in vars(error).items() if _travels(_wrapped(value), protocol)}
    return _Call(_stated, type(error), _travelling(error.args, protocol), _wrapped(attributes))


def _unpacked(data: bytes, name: str, text: str, attributes: dict[str, Any]) -> BaseException:
    try:
        if data:
            error: BaseException = _loaded(data)
            return error
    except Exception:  # this process lacks the error's module, or has another version of it
        pass
    # By name, because that module imports this one.
    stand_in: BaseException = import_module("skeleton_of_thought.errors").ForeignError(
        f"{name}: {text}" if text else name
    )
    vars(stand_in).update(attributes)
    return stand_in


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


# --- attributes -----------------------------------------------------------------------------------


def _dumped(value: Any, protocol: int) -> bytes:
    import pickle

    return pickle.dumps(value, protocol)


def _loaded(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def _travels(value: Any, protocol: int) -> bool:
    try:
        _loaded(_dumped(value, protocol))
    except Exception:  # of any object
        return False
    return True


def _travelling(value: Any, protocol: int) -> Any:
    """The value, with a text in place of each part that cannot be pickled."""
    try:
        return _travelling_parts(value, protocol)
    except RecursionError:  # lists in lists, for example, as a server's JSON may have them
        return f"<{type(value).__name__}>"


def _travelling_parts(value: Any, protocol: int) -> Any:
    value = _wrapped(value)
    if _travels(value, protocol):
        return value
    if type(value) in (tuple, list):
        return type(value)([_travelling(item, protocol) for item in value])
    if type(value) is dict:
        return {_travelling(key, protocol): _travelling(item, protocol) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
        fields = {name: _travelling(item, protocol) for name, item in vars(value).items()}
        return _Call(_with_fields, type(value), fields)
    try:
        return repr(value)[:_LONGEST]
    except Exception:
        return f"<{type(value).__name__}>"


def _with_fields(kind: type, fields: dict[str, Any]) -> Any:
    value: Any = object.__new__(kind)
    vars(value).update(fields)
    return value
