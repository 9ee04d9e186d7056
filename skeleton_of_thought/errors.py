"""The errors of Skeleton-of-Thought.

    SotError
    ├── InvalidInput (ValueError)        an invalid setting, question or prompt; no call was made
    │   ├── PromptFileError              an invalid prompt file or template
    │   └── PromptTooLong                a prompt that does not fit the model's window
    ├── MissingExtra (ImportError)       an optional dependency is not installed
    ├── ModelLoadError                   a model that cannot be found or loaded
    ├── SkeletonError                    the model wrote no usable skeleton
    ├── PointError                       a point of the answer failed; carries the partial answer
    ├── ReplyError                       a reply that ended as a failure, or without text
    ├── MergeError                       the merge gave no complete text; never raised, see `Answer.merge_error`
    ├── ForeignError                     in a pickle: an error of another package that cannot be pickled itself
    ├── PointTimeout (TimeoutError)      a point, or its retrieval, took longer than `point_timeout`
    ├── EngineClosed (RuntimeError)      the local engine was used after `close()`
    │   └── EngineForked                 the local engine was used in a fork of the process that made it
    └── EngineReentered (RuntimeError)   the local engine was called from inside of itself

An error of the model itself (a rate limit, a lost connection) in the route, skeleton or direct call is raised as it is,
with its own type; so is an error in a retrieval for the question as a whole. In a point, or in the retrieval for it, it
becomes the `__cause__` of a `PointError`. So does a `ReplyError`: the call raised nothing, but its reply is of no use.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.pickling import PortableError

if TYPE_CHECKING:
    from pathlib import Path

    from skeleton_of_thought.types.answer import Answer, Point, Skeleton

__all__ = [
    "EngineClosed",
    "EngineForked",
    "EngineReentered",
    "ForeignError",
    "InvalidInput",
    "MergeError",
    "MissingExtra",
    "ModelLoadError",
    "OpeningWritten",
    "ParentError",
    "PointError",
    "PointOverlap",
    "PointTimeout",
    "PromptFileError",
    "PromptTooLong",
    "ReasoningShown",
    "ReplyError",
    "RoleError",
    "SkeletonError",
    "SotError",
    "error_text",
    "install_line",
    "is_missing",
    "without_secrets",
]

_NAME = "skeleton-of-thought"


class SotError(PortableError):
    """The base of every error that this project defines.

    Example:
        >>> from skeleton_of_thought import SotError, parse_skeleton
        >>> try:
        ...     parse_skeleton("1. Move", max_points=0)
        ... except SotError as error:
        ...     print(type(error).__name__)
        InvalidInput

    Errors can be pickled, with their attributes and causes. What cannot be is replaced, so that a pool of processes
    always gets the error: an object by its text, another package's error by a `ForeignError`.
    """


class InvalidInput(SotError, ValueError):
    """A setting, question or prompt is invalid. Raised before any call is made."""


class PromptFileError(InvalidInput):
    """A prompt file or template cannot be read, or lacks a key or placeholder."""


class PromptTooLong(InvalidInput):
    """A prompt, together with the tokens to generate, does not fit the model's window."""


class MissingExtra(SotError, ImportError):
    """An optional dependency is not installed; the message has the `pip install` line."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what}: {install_line(extra)}")


class ModelLoadError(SotError):
    """A model cannot be found or loaded; the message says what to check."""


class SkeletonError(SotError):
    """The model wrote no usable skeleton and `on_empty_skeleton="raise"`.

    Attributes:
        skeleton: The skeleton as parsed, with the model's whole text in its `text`.
    """

    def __init__(self, message: str, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        super().__init__(message)


class PointError(SotError):
    """A point failed and `on_point_error="raise"`; `__cause__` is the model's own error, or the retriever's.

    Attributes:
        point: The point that failed.
        answer: The text written until then, as a partial `Answer`.
    """

    def __init__(self, message: str, point: Point, answer: Answer) -> None:
        self.point = point
        self.answer = answer
        super().__init__(message)


class ReplyError(SotError):
    """A model's reply failed although its call succeeded: it was blocked or refused, or it has no text.

    Attributes:
        finish_reason: `"content_filter"`, `"refusal"`; `"length"` if the token limit was reached before any text;
            `"error"` for everything else.
    """

    def __init__(self, message: str, finish_reason: str = "error") -> None:
        self.finish_reason = finish_reason
        super().__init__(message)


class MergeError(SotError):
    """The merge gave no complete text, so the answer is the joined points. Never raised: see `Answer.merge_error`."""


class ParentError(SotError):
    """A point that this one builds on has failed, and `on_parent_error="fail"`."""


class RoleError(SotError):
    """The opening or the closing has no usable text. Never raised: see `Answer.role_errors`."""


class OpeningWritten(SotError):
    """The opening comes before text that was shown. Never raised: the reason of a restart with `opening="restart"`."""


class PointOverlap(SotError):
    """A point repeats another one. Never raised: the reason of its restart with `rewrite_overlap`."""


class ReasoningShown(SotError):
    """Text that was shown is the model's reasoning. Never raised: the reason of a restart in a stream."""


class ForeignError(SotError):
    """Stands, after a pickle, for another package's error that cannot be pickled: its type's name and its text.

    It has the notes of that error, and its attributes that are numbers or texts, such as `status_code`.
    """


class PointTimeout(SotError, TimeoutError):
    """An attempt at a point, or at the retrieval for it, took longer than `point_timeout` seconds."""


class EngineClosed(SotError, RuntimeError):
    """The local engine was used after `close()`."""


class EngineForked(EngineClosed):
    """The local engine was used in a fork of the process that made it, where its thread does not run."""


class EngineReentered(SotError, RuntimeError):
    """The local engine was called from inside itself, for example by a signal handler, and could never answer."""


def error_text(error: BaseException) -> str:
    """An error as text: its type and its message, without passwords and keys in addresses."""
    return without_secrets(f"{type(error).__name__}: {error}")


_LOGIN = re.compile(r"(?<=://)(?:[^\s/?#\"'<>]{0,400}|[^\s/@:\[]{1,200}:[^\s@]{0,200})@")
"""A login before the host of an address; a password may hold characters that it should not."""
_KEY = re.compile(
    r"([?&;][\w.-]{0,40}(?:key|token|secret|passw|pwd|auth|signature|credential|sig)[\w.-]{0,40}=)[^&;\s\"'<>)]+", re.I
)


def without_secrets(text: str) -> str:
    """The text with `***` in place of logins and keys in its addresses: clients put addresses into their errors.

    Example:
        >>> without_secrets("GET http://me:hunter2@host/v1?api_key=abc&n=1 failed")
        'GET http://***@host/v1?api_key=***&n=1 failed'
    """
    return _KEY.sub(r"\1***", _LOGIN.sub("***@", text)) if "://" in text or "=" in text else text


# --- what to install ------------------------------------------------------------------------------------


def is_missing(error: ImportError, *packages: str) -> bool:
    """Whether an import failed because one of these packages is not installed.

    An import that fails inside an installed package does not count.

    Args:
        error: The error of the import.
        packages: Import names, such as `llama_index.core`.
    """
    if not isinstance(error, ModuleNotFoundError):
        return False

    def concerns(package: str) -> bool:
        # For `a.b.c` the error names `a` or `a.b`, whichever is missing. It has no name if an import hook that hides
        # packages raised it.
        name = error.name
        return name is None or f"{package}.".startswith(f"{name}.") or name.startswith(f"{package}.")

    return any(concerns(package) and sys.modules.get(package) is None for package in packages)


def install_line(extra: str) -> str:
    """The `pip install` command that adds an extra to this package, from the same source as the package itself.

    pip records that source (PEP 610) if it was a directory, a file or a repository. The command has the package's name
    alone if there is no record (the package came from an index), if the record cannot be read, or if the file or
    directory is gone.

    Args:
        extra: One of the extras in pyproject.toml, such as `local`.
    """
    # Imported here: they take longer to import than the rest of the core, and are only needed for this error.
    import importlib.metadata
    import json

    try:
        distribution = importlib.metadata.distribution(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return _from_a_clone(extra)
    try:
        source = _source(extra, json.loads(distribution.read_text("direct_url.json") or "{}"))
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        # The record may hold anything; an error in reading it must not hide the error that this text is for.
        source = _by_name(extra)
    return f"pip install {source}"


def _from_a_clone(extra: str) -> str:
    """The command for a package that is on the path without being installed."""
    from pathlib import Path

    root = Path(__file__).parents[1]
    return (
        f'pip install -e "{root}[{extra}]"' if _is_ours(root / "pyproject.toml") else f"pip install {_by_name(extra)}"
    )


def _is_ours(project: Path) -> bool:
    """Whether it is this project's pyproject.toml, and not that of a project with a copy of this package."""
    import tomllib

    try:
        with project.open("rb") as file:
            return bool(tomllib.load(file)["project"]["name"] == _NAME)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _by_name(extra: str) -> str:
    return f'"{_NAME}[{extra}]"'


def _source(extra: str, record: dict[str, Any]) -> str:
    """The quoted argument of `pip install` for a record of PEP 610."""
    url = record.get("url", "")
    if not isinstance(url, str):
        return _by_name(extra)
    by_url = f'"{_NAME}[{extra}] @ {{}}"'
    if vcs := record.get("vcs_info"):
        place = f"#subdirectory={record['subdirectory']}" if record.get("subdirectory") else ""
        revision = vcs.get("requested_revision") or vcs["commit_id"]
        return by_url.format(f"{vcs['vcs']}+{url}@{revision}{place}")
    path = _local_path(url)
    if not url or (path is not None and not path.exists()):
        return _by_name(extra)
    if path is not None and "dir_info" in record:
        editable = "-e " if record["dir_info"].get("editable") else ""
        return f'{editable}"{path}[{extra}]"'
    return by_url.format(url)


def _local_path(url: str) -> Path | None:
    from pathlib import Path
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
