"""Which async methods are async, and which do all their work at once and so block the event loop.

LlamaIndex asks integrations for async methods, and many give `async def aretrieve(...): return self.retrieve(...)`. A
coroutine function that awaits nothing, nor makes anything that does, never lets the loop go. That is seen in its code.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

__all__ = ["lets_the_loop_go"]

_WAITS = frozenset({"GET_AWAITABLE", "GET_ANEXT", "BEFORE_ASYNC_WITH"})


def lets_the_loop_go(thing: object, method: str) -> bool:
    """Whether an async method of this object, or class, awaits anything.

    Looked up statically: LlamaIndex wraps methods in descriptors that give another object at each access.
    """
    found: Any = inspect.getattr_static(thing, method, None)
    functions = list(_functions(found))
    # What is not written in Python is left to be what it says it is.
    return not functions or any(_waits(function.__code__) for function in functions)


def _functions(found: Any) -> Iterator[Any]:
    """The function that a method is when its decorators are taken off; of one that cannot be, all that it holds."""
    while callable(inner := getattr(found, "__wrapped__", None)):
        found = inner
    if not inspect.isfunction(found):
        return
    # LlamaIndex's decorators of LLMs keep the function in their closure.
    held = [cell.cell_contents for cell in found.__closure__ or () if _filled(cell)]
    inner_functions = [value for value in held if inspect.iscoroutinefunction(value)]
    if inner_functions:
        for function in inner_functions:
            yield from _functions(function)
    else:
        yield found


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


# Asked with every call of an LLM, and reading code takes longer than all else before a call.
@functools.lru_cache(maxsize=1024)
def _waits(code: CodeType) -> bool:
    # The functions within count, too: a stream is a generator that the method makes and returns.
    within = (part for part in code.co_consts if isinstance(part, CodeType))
    return any(step.opname in _WAITS for step in dis.get_instructions(code)) or any(map(_waits, within))
