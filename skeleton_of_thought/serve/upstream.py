"""What the server asks of a model: calls of an answer by points, and whole chat completions that pass through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from skeleton_of_thought.types import Call, Reply, Stage

if TYPE_CHECKING:
    from skeleton_of_thought.serve.requests import ChatRequest

__all__ = ["Passed", "Upstream"]


@dataclass(frozen=True)
class Passed:
    """A response that passes through.

    Attributes:
        status: The HTTP status.
        headers: Its headers, those that may reach the caller.
        body: The bytes, as they come. Closing the iterator ends the call.
        own_events: Whether the body is a stream of whole events that this server writes itself, the first one with the
            role alone. Comments may stand between them.
    """

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]
    own_events: bool = False


class Upstream(Protocol):
    """A model, on a server or in this process, for any number of tasks of one event loop.

    Attributes:
        prefill: The stages whose prefill the model continues.
        stop_loops: Whether the model tends to repeat itself until it is stopped.
        local: Whether the model runs in this process.
        remark: A line that readers need to judge the model's answers; None for nothing.
    """

    prefill: Collection[Stage]
    stop_loops: bool
    local: bool
    remark: str | None

    def check(self, sampling: Mapping[str, Any]) -> None:
        """Checks fields of a request that go with each call of its answer, before the first one is made.

        Raises:
            ServeError: A value that no call could take.
        """
        ...

    def open_call(
        self, call: Call, sampling: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        """Opens one call of an answer and streams its text, then one `Reply`.

        Args:
            call: The call.
            sampling: Fields of the caller's request that each call takes by itself, such as `temperature`.
            headers: Headers for the model's server, such as the one that keeps an answer on one replica.
        """
        ...

    async def pass_through(self, request: ChatRequest) -> Passed:
        """Answers a request as the model does by itself.

        Raises:
            Exception: The request cannot be followed, or the model fails. So may the body, later. What it means for
                the caller, `skeleton_of_thought.serve.errors.explained` says.
        """
        ...

    def explain(self, error: BaseException) -> str:
        """Describes an error of a call, one of our own too, in one line that says what to do."""
        ...

    async def close(self) -> None:
        """Ends calls that are still open, and frees the model."""
        ...
