"""Models of a framework over a `LocalEngine`: how they get their engine, and their name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from skeleton_of_thought.errors import InvalidInput

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine
    from skeleton_of_thought.local.settings import LoadingSettings

__all__ = ["EAGER_PAYS_LOCALLY", "EngineModel", "find_engine", "model_name"]

EAGER_PAYS_LOCALLY = False
"""Whether `eager="auto"` starts points early on a local engine where no text is shown before the answer is complete.

One batch of a local engine has the whole answer no sooner, only its first text; docs/planning.md has the figures.
"""


class EngineModel:
    """Mixin of pydantic models with the fields `model`, `model_kwargs` and `engine`."""

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, **settings: Any) -> Self:
        """Makes an instance over a loaded model and tokenizer; all such instances share one engine.

        Args:
            model: A `PreTrainedModel` that generates text.
            tokenizer: Its tokenizer.
            settings: The attributes of this class.
        """
        from skeleton_of_thought.local import LocalEngine

        make: Any = cls
        made: Self = make(**{"model": model_name(model), **settings}, engine=LocalEngine.for_model(model, tokenizer))
        return made


def find_engine(model: str | None, model_kwargs: Mapping[str, Any], engine: LocalEngine | None) -> LocalEngine:
    """The engine of an instance: the given one, or the shared one of its model.

    Args:
        model: The model's name, as for `LocalEngine.from_pretrained`.
        model_kwargs: Keyword arguments for the same.
        engine: The engine that the user gave.

    Raises:
        InvalidInput: There are both an engine and keyword arguments to make one.
        ModelLoadError, MissingExtra: The model cannot be loaded.
    """
    if engine is None:
        from skeleton_of_thought.local import shared_engine

        return shared_engine(model, cast("LoadingSettings", model_kwargs))
    if model_kwargs:
        raise InvalidInput("model_kwargs are for making an engine, but an engine is given: leave out either.")
    return engine


def model_name(model: Any) -> str:
    """The name of a loaded model: where it was loaded from, or its class."""
    return getattr(model, "name_or_path", "") or type(model).__name__
