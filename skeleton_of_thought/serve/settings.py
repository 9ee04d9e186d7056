"""The settings of the server, and of the models that it serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from skeleton_of_thought.prompts import DEFAULT_PROMPTS, PromptSet
from skeleton_of_thought.settings import Settings

__all__ = ["SUFFIX", "ModelSettings", "RouterName", "ServeSettings"]

SUFFIX = "-sot"
"""Ends the name under which a model answers by Skeleton-of-Thought."""

RouterName = Literal["auto", "always", "never"]
"""Which questions get a skeleton: those that suit it, all, or none."""

_SETTINGS = Settings(on_point_error="placeholder")
"""A client cannot ask for a single point again, so a failed one does not end the answer."""


@dataclass(frozen=True)
class ModelSettings:
    """A model that the server serves.

    Attributes:
        name: The name that clients give. The model passes through under this name, and answers by points under the name
            with `SUFFIX`.
        spec: What the command's `--model` takes; None for the demo model.
        key: The key of the model's server; None for `OPENAI_API_KEY`, or for a server without one.
        settings: How its answers are made.
        prompts: Its prompts.
        router: Which of its questions get a skeleton.
        prefill: Whether the model gets the start of its turns; `"auto"`: if it is known to continue them.
        max_tokens: The most tokens of a call that sets no limit of its own; None for the model's own.
        max_concurrency: The most calls of one answer that are open at a time; None for as many as there are points.
    """

    name: str
    spec: str | None = None
    key: str | None = field(default=None, repr=False)
    settings: Settings = _SETTINGS
    prompts: PromptSet = DEFAULT_PROMPTS
    router: RouterName = "auto"
    prefill: Literal["auto", "yes", "no"] = "auto"
    max_tokens: int | None = None
    max_concurrency: int | None = None

    def with_options(self, changes: Mapping[str, Any]) -> ModelSettings:
        """The same model with other fields of `Settings`.

        Raises:
            InvalidInput: A value is out of range.
        """
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **changes))


@dataclass(frozen=True)
class ServeSettings:
    """How the server listens, and what it allows.

    Attributes:
        models: The models, each under a name of its own.
        host: The address that it binds to.
        port: Its port; 0 for any free one.
        keys: The keys that callers may use; none for a server that asks for no key.
        open_to_all: Whether an address other than this machine's own is allowed without a key.
        origins: The origins whose pages may call the server (CORS).
        max_open_calls: The most calls that are open upstream at any time, over all clients.
        max_waiting: The most requests that wait for a free call; further ones are refused with 429.
        max_request_bytes: The largest request.
        timeout: Seconds after which a request is ended.
        keep_alive: Seconds of silence in a stream after which a comment line keeps the connection open.
        grace: Seconds that answers in flight have to end after SIGTERM.
        log_texts: Whether the log has questions and answers. It never has keys.
        page: Whether `GET /` shows the page.
    """

    models: tuple[ModelSettings, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    open_to_all: bool = False
    origins: tuple[str, ...] = ()
    max_open_calls: int = 32
    max_waiting: int = 64
    max_request_bytes: int = 4_000_000
    timeout: float = 600.0
    keep_alive: float = 15.0
    grace: float = 30.0
    log_texts: bool = False
    page: bool = True
