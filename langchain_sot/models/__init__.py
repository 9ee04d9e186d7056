"""The models of a chain: which one a config chooses, what it can do, and how it is called."""

from types import SimpleNamespace


def __getattr__(name: str) -> type:
    if name == "Models":  # pickles of 0.1 have a `PromptRouter` with an object of this class, which is gone
        return SimpleNamespace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
