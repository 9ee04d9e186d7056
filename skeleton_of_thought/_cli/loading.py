"""From `--model` to a backend, with a word on what is going on while it loads."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from skeleton_of_thought._cli.backends import DEMO, Backend, Prefill, local_backend, openai_backend
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought.errors import ModelLoadError

__all__ = ["load"]

_SERVERS = " Models of servers are openai:NAME, openai:NAME@http://host:port/v1 or langchain:PROVIDER:NAME."


def load(
    model: ModelSpec,
    *,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    prefill: Prefill = "auto",
    quiet: bool = False,
) -> Backend:
    """The backend for a model.

    Args:
        model: What `--model` says.
        temperature: None for the model's own, which is 0 for local models.
        seed: For sampling.
        max_tokens: The most tokens of a call.
        prefill: Whether the model is given the start of its turns.
        quiet: Whether to say nothing of what is being done.

    Raises:
        SotError: An extra is missing, or the model cannot be loaded.
    """
    with exit_at_once():
        if model.kind == "local":
            sampling: dict[str, Any] = {"temperature": temperature or 0.0, "seed": seed, "max_new_tokens": max_tokens}
            return _local(model.name, quiet=quiet, prefill=prefill, **sampling)
        assert model.name is not None
        settings: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
        if model.kind == "openai":
            return openai_backend(model.name, base_url=model.base_url, prefill=prefill, **settings)
        from skeleton_of_thought._cli.langchain_backend import langchain_backend

        return langchain_backend(model.name, prefill=prefill, **settings)


def _local(name: str | None, *, quiet: bool, **settings: Any) -> Backend:
    began = time.perf_counter()
    with _progress(quiet) as tell:
        if tell is not None:
            tell(f"Loading {'the demo model' if name in (None, DEMO) else name} ...")
        from skeleton_of_thought.local import LocalEngine

        try:
            engine = LocalEngine.from_pretrained(name, progress=tell)
        except ModelLoadError as error:
            raise ModelLoadError(f"{error}{_SERVERS if _may_be_served(name) else ''}") from error
    backend = local_backend(engine, name=name or DEMO, **settings)
    return dataclasses.replace(backend, loading=time.perf_counter() - began)


def _may_be_served(name: str | None) -> bool:
    """Whether a name that could not be loaded looks like one of a server: no path, no owner before it."""
    return name not in (None, DEMO) and not set(name) & set("/\\") and not name.endswith(".gguf")


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """Shows what is being done, on stderr and only on a terminal; None elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.markup import escape
    except ImportError:
        yield lambda line: print(f"sot: {line}", file=sys.stderr)
        return

    def tell(line: str) -> None:
        status.update(escape(line))
        if line.startswith("Downloading"):
            # The hub draws bars of its own, which a spinner on the same lines would garble.
            status.stop()
            console.print(escape(line))

    console = Console(stderr=True)
    with console.status("") as status:
        yield tell
