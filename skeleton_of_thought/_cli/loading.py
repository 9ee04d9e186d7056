"""From `--model` to a backend, with a word on what is going on while it loads."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator

from skeleton_of_thought._cli.backends import DEMO, Backend, ModelSpec, local_backend, openai_backend

__all__ = ["load"]


def load(
    model: ModelSpec,
    *,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    quiet: bool = False,
) -> Backend:
    """The backend for a model; `quiet` says nothing of what is being done.

    Raises:
        SotError: An extra is missing, or the model cannot be loaded.
    """
    if model.server:
        assert model.name is not None
        return openai_backend(
            model.name, base_url=model.base_url, temperature=temperature, seed=seed, max_tokens=max_tokens
        )
    began = time.perf_counter()
    with _progress(quiet) as tell:
        if tell is not None:
            tell(f"Loading {model.name or 'the demo model'} ...")
        from skeleton_of_thought.local import LocalEngine

        engine = LocalEngine.from_pretrained(model.name, progress=tell)
    backend = local_backend(
        engine, name=model.name or DEMO, temperature=temperature or 0.0, seed=seed, max_new_tokens=max_tokens
    )
    return dataclasses.replace(backend, loading=time.perf_counter() - began)


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
