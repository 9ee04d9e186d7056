"""The local engine: Hugging Face models on this machine, all requests in one batch. Needs the extra `local`."""

from __future__ import annotations

import sys

from skeleton_of_thought.errors import MissingExtra, is_missing
from skeleton_of_thought.local.openmp import short_waits

try:
    with short_waits():
        import torch  # noqa: F401
    import transformers  # noqa: F401
except ModuleNotFoundError as _error:
    if not is_missing(_error, "torch", "transformers"):
        raise
    _missing = "transformers" if sys.modules.get("torch") else "torch"
    raise MissingExtra(f"The local engine needs {_missing}, which is not installed", "local") from _error

from skeleton_of_thought.local.codec import PromptInput
from skeleton_of_thought.local.engine import LocalEngine, shared_engine
from skeleton_of_thought.local.grammar import Grammar
from skeleton_of_thought.local.sampling import SamplingParams
from skeleton_of_thought.local.stats import EngineStats
from skeleton_of_thought.local.stream import AsyncCompletionStream, CompletionStream
from skeleton_of_thought.types import Completion

__all__ = [
    "AsyncCompletionStream",
    "Completion",
    "CompletionStream",
    "EngineStats",
    "Grammar",
    "LocalEngine",
    "PromptInput",
    "SamplingParams",
    "shared_engine",
]
