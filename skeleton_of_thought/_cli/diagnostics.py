"""Texts of the `sot` command about errors, and about answers that were cut short."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping

from skeleton_of_thought.adapters import finish_reasons
from skeleton_of_thought.adapters.finish_reasons import CUT
from skeleton_of_thought.draft import REPEATED
from skeleton_of_thought.errors import InvalidInput, PointError, SotError
from skeleton_of_thought.routers.base import FAILED
from skeleton_of_thought.types import Answer, Item

__all__ = [
    "as_line",
    "as_options",
    "explain",
    "explain_langchain",
    "explain_openai",
    "fail",
    "one_line",
    "shortcomings",
]

_OPTIONS: Mapping[str, str] = {
    "point_words": "--words",
    "max_points": "--max-points",
    "max_retries": "--retries",
    "point_timeout": "--point-timeout",
    "on_point_error": "--on-point-error",
    "max_concurrency": "--max-concurrency",
    "max_new_tokens": "--max-tokens",
    "max_tokens": "--max-tokens",
}
_SETTING = re.compile(rf"(?<![\w'\"-])({'|'.join(_OPTIONS)})\b(?:=(?=[\w\"']))?")
"""A setting outside quotes: between quotes is what the user has written."""


def as_line(text: str, most: int = 2000) -> str:
    """The text in one line of at most `most` characters: a server must not add lines to the command's own."""
    line = " ".join(text[: 10 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"


def one_line(error: BaseException) -> str:
    """The type and text of an error in one line; at most 400 characters of the text."""
    text = as_line(str(error), 400)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def as_options(text: str) -> str:
    """The text with the command's options in place of settings.

    Example:
        >>> as_options("shorten the prompt or lower max_new_tokens")
        'shorten the prompt or lower --max-tokens'
    """
    return _SETTING.sub(lambda found: _OPTIONS[found[1]] + (" " if found[0].endswith("=") else ""), text)


def fail(error: BaseException, message: str) -> int:
    """Says on standard errors why the command has failed; returns its exit code."""
    print(f"sot: error: {as_options(as_line(message))}", file=sys.stderr)
    return 2 if isinstance(error, InvalidInput) else 1


def shortcomings(answer: Answer, explain: Callable[[Exception], str], *, cuts: bool = True) -> Iterator[str]:
    """Lines about the parts of an answer that failed or were cut short.

    Args:
        answer: The answer.
        explain: The text of an error for the user.
        cuts: Whether a text that reached its token limit is one of them. Such a text is no failure, and the JSON of an
            answer says so itself.
    """
    if answer.decision is not None and answer.decision.reason.startswith(FAILED):
        yield f"{as_line(answer.decision.reason)}; the model answered directly"
    if answer.route == "direct" and answer.finish_reason == REPEATED:
        yield "the model repeated itself, so its answer was ended"
    elif answer.route == "direct":
        yield from _cut_short(answer.finish_reason, "the answer", cuts=cuts)
    noun = "item" if answer.route == "items" else "point"
    for expansion in answer.expansions:
        if expansion.error is None:
            yield from _cut_short(expansion.finish_reason, f"{noun} {expansion.point.index}", cuts=cuts)
    for index, error in answer.errors.items():
        yield f"{noun} {index} failed: {as_line(explain(error))}"
    for expansion in answer.expansions:
        if expansion.missing and expansion.error is None:
            missing = ", ".join(map(str, expansion.missing))
            yield f"point {expansion.point.index} was written without {missing}, which failed"
    for role, failure in answer.role_errors.items():
        yield f"the {role} failed, so the answer goes without it: {as_line(explain(failure))}"
    if answer.merge_error is not None:
        yield f"merge failed, so the points stand as they are: {as_line(explain(answer.merge_error))}"


def _cut_short(reason: str | None, text: str, *, cuts: bool) -> Iterator[str]:
    """Yields a line about a text, which `text` names, if its end is missing."""
    if reason == REPEATED:
        yield f"{text} repeated itself, so it was ended"
    elif reason == CUT:
        yield f"{text} did not end, so it was cut at the most characters that are read"
    elif reason == "length":
        if cuts:
            yield f"{text} was cut at the token limit (--max-tokens)"
    elif reason and finish_reasons.FINISH_REASONS.get(reason.lower()) in finish_reasons.FAILED:
        yield f"{text} was ended by the provider (finish reason {reason!r})"


def explain(error: Exception, by_backend: Callable[[BaseException], str]) -> str:
    """The text of an error for the user, who knows the options of the command and not parameters.

    Args:
        error: The error of an answer.
        by_backend: Explains the errors that calls of the backend raise.
    """
    if isinstance(error, PointError):
        cause = error.__cause__
        why = explain(cause, by_backend) if isinstance(cause, Exception) else one_line(error)
        noun = "Item" if isinstance(error.point, Item) else "Point"
        return (
            f"{noun} {error.point.index} ({error.point.title[:60]!r}) failed: {why} "
            "(--on-point-error placeholder keeps the others going.)"
        )
    return str(error) if isinstance(error, SotError) else by_backend(error)


def explain_openai(error: BaseException, model: str, url: str, *, serving: bool = False) -> str:
    """Describes an error of an OpenAI-compatible server, and says what to do about it.

    Args:
        error: The error.
        model: The server's name for the model.
        url: The server's address.
        serving: Whether the reader is a client of `sot serve`, who has no options of the command.
    """
    import openai

    if isinstance(error, openai.APITimeoutError):
        return f"The server at {url} did not answer in time."
    if isinstance(error, openai.APIConnectionError):
        cause = f" ({one_line(error.__cause__)})" if error.__cause__ is not None else ""
        return f"The server at {url} cannot be reached, or broke off{cause}."
    if isinstance(error, openai.AuthenticationError):
        key = "the key that `sot serve` has for it" if serving else "the key in OPENAI_API_KEY"
        return f"The server at {url} does not accept {key}: {one_line(error)}"
    if isinstance(error, openai.NotFoundError):
        return f"The server at {url} does not know the model {model!r}, or has no /chat/completions: {one_line(error)}"
    if isinstance(error, openai.RateLimitError):
        advice = "" if serving else " (--max-concurrency makes fewer at a time.)"
        return (
            f"The server at {url} takes no more calls for now, or the account has no credit: {one_line(error)}{advice}"
        )
    if isinstance(error, openai.InternalServerError):
        return f"The server at {url} failed; try again later, or look into its log: {one_line(error)}"
    if isinstance(error, openai.APIStatusError):
        return f"The server at {url} rejects this call of the model {model!r}: {one_line(error)}"
    if isinstance(error, openai.APIError | ConnectionError):
        return f"The server at {url} broke off: {one_line(error)}"
    if isinstance(error, ValueError | TypeError | AttributeError | LookupError | RecursionError):
        # The SDK takes any JSON, so the mistake shows where a part of it is read.
        return f"The server at {url} sent something that is not a chat completion: {one_line(error)}"
    return one_line(error)


def explain_langchain(error: BaseException, name: str) -> str:
    """Describes an error of LangChain's model `name`, and says what to do about it.

    Each provider's package has errors of its own, so they are recognised by the names of their types.
    """
    provider = name.partition(":")[0]
    causes = list(_causes(error))
    root = causes[-1]
    said = one_line(error) if root is error else f"{one_line(error)} ({one_line(root)})"
    types = {base.__name__ for cause in causes for base in type(cause).__mro__}
    if any(part in each for each in types for part in ("Connect", "Timeout", "Transport")):
        return (
            f"The server of LangChain's provider {provider} cannot be reached, or broke off: {said}. "
            "Check the network, and the address that its package has from the environment."
        )
    if any(part in each for each in types for part in ("Authentication", "PermissionDenied")):
        return f"The server of LangChain's provider {provider} does not accept the key in the environment: {said}"
    return f"LangChain's model {name!r} failed: {said}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and the chain of its causes, each once."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__
