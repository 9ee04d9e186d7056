"""The errors of Skeleton-of-Thought.

    SotError
    ├── InvalidInput (ValueError)        a setting, question or prompt that cannot work; no call was made
    │   ├── PromptFileError              a prompt file or template that lacks what it needs
    │   └── PromptTooLong                a prompt that does not fit the model's window
    ├── MissingExtra (ImportError)       an optional dependency is not installed
    ├── ModelLoadError                   a model that cannot be found or loaded
    ├── SkeletonError                    the model wrote no usable skeleton
    ├── PointError                       a point of the answer failed; carries the partial answer
    ├── MergeError                       the merge gave no whole text; never raised, see `Answer.merge_error`
    ├── PointTimeout (TimeoutError)      a point, or its retrieval, took longer than `point_timeout`
    ├── EngineClosed (RuntimeError)      the local engine was used after `close()`
    │   └── EngineForked                 the local engine was used in a fork of the process that made it
    └── EngineReentered (RuntimeError)   the local engine was called from inside of itself

An error of the model itself (a rate limit, a lost connection) in the route, skeleton or direct call, and of a
retrieval for the question as a whole, is raised as it is, with its own type; in a point, or in the retrieval for
it, it becomes the `__cause__` of a `PointError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skeleton_of_thought.types import Answer, Point, Skeleton

__all__ = [
    "EngineClosed",
    "EngineForked",
    "EngineReentered",
    "InvalidInput",
    "MergeError",
    "MissingExtra",
    "ModelLoadError",
    "PointError",
    "PointTimeout",
    "PromptFileError",
    "PromptTooLong",
    "SkeletonError",
    "SotError",
]


class SotError(Exception):
    """The base of every error that this project defines.

    Example:
        >>> from skeleton_of_thought import SotError, parse_skeleton
        >>> try:
        ...     parse_skeleton("1. Move", max_points=0)
        ... except SotError as error:
        ...     print(type(error).__name__)
        InvalidInput
    """


class InvalidInput(SotError, ValueError):
    """A setting, question or prompt that cannot work. Raised before any call is made."""


class PromptFileError(InvalidInput):
    """A prompt file or template that lacks what it needs."""


class PromptTooLong(InvalidInput):
    """A prompt (with the tokens asked for) that does not fit the model's window."""


class MissingExtra(SotError, ImportError):
    """An optional dependency is not installed; the message has the `pip install` line."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f'{what}: pip install "skeleton-of-thought[{extra}]"')


class ModelLoadError(SotError):
    """A model that cannot be found or loaded; the message says what to check."""


class SkeletonError(SotError):
    """The model wrote no usable skeleton and `on_empty_skeleton="raise"`.

    Attributes:
        skeleton: What was parsed, its `text` being all that the model wrote.
    """

    def __init__(self, message: str, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        super().__init__(message)


class PointError(SotError):
    """A point failed and `on_point_error="raise"`; `__cause__` is the model's own error, or the retriever's.

    Attributes:
        point: The point that failed.
        answer: All that had been written when it failed, as a partial `Answer`.
    """

    def __init__(self, message: str, point: Point, answer: Answer) -> None:
        self.point = point
        self.answer = answer
        super().__init__(message)


class MergeError(SotError):
    """The merge gave no whole text, so the answer is the points as they are. Never raised: `Answer.merge_error`."""


class PointTimeout(SotError, TimeoutError):
    """An attempt at a point, or at the retrieval for it, took longer than `point_timeout` seconds."""


class EngineClosed(SotError, RuntimeError):
    """The local engine was used after `close()`."""


class EngineForked(EngineClosed):
    """The local engine was used in a fork of the process that made it, where its thread does not run."""


class EngineReentered(SotError, RuntimeError):
    """The local engine was called from inside of itself, such as by a signal handler, and would never answer."""
