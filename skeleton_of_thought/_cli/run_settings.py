"""From options to what answers questions: the settings, the prompts, the router, the model."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.models import ModelSpec, load_backend
from skeleton_of_thought._cli.streams import as_utf8
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation

if TYPE_CHECKING:
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = ["AnswerOptions", "check_raw", "model_of", "router_of", "settings_of", "system_of", "warn_if_slow"]


def settings_of(args: Namespace) -> Settings:
    """How an answer is made."""
    return Settings(
        max_points=args.max_points,
        eager=args.eager,
        on_point_error=args.on_point_error,
        max_retries=args.retries,
        point_timeout=args.point_timeout,
        point_words=args.words,
        join=args.join,
        merge=args.merge,
    )


def system_of(args: Namespace) -> str | None:
    """The system message."""
    return None if args.system is None else as_utf8(args.system, "The system message")


def model_of(args: Namespace) -> ModelSpec:
    """The model; an error says where its name comes from."""
    try:
        return ModelSpec.parse(args.model)
    except InvalidInput as error:
        setting = args.defaults.settings.get("model")
        if setting is None or setting.value != args.model:
            raise
        raise InvalidInput(f"{setting.origin}: {error}") from error


def check_raw(args: Namespace) -> None:
    """Refuses what a text without a chat around it cannot have."""
    if not getattr(args, "raw", False):
        return
    if args.compare:
        raise InvalidInput("--raw goes without --compare, which needs a skeleton.")
    for name in ("system", "prompts", "merge"):
        setting = args.defaults.settings.get(name)
        if getattr(args, name) and (setting is None or setting.value != getattr(args, name)):
            raise InvalidInput(f"--raw goes without --{name}: the model gets the question's text alone.")
    args.system, args.prompts, args.merge = None, None, False
    if model_of(args).source != "local":
        raise InvalidInput("--raw is for local models: servers put every question into a chat.")


def router_of(args: Namespace) -> AnyRouter | None:
    """The router of `sot ask` and `sot chat`; None for a skeleton in every case. Imports it only if it is used."""
    if getattr(args, "raw", False):
        return lambda question: False
    if getattr(args, "compare", False) or not args.router:
        return None
    from skeleton_of_thought.routers.auto import AutoRouter, as_router
    from skeleton_of_thought.routers.cost import CostGuard
    from skeleton_of_thought.routers.embedded import EmbeddedRouter

    guard = CostGuard(max_points=args.max_points)
    if args.threshold is None:
        return as_router("auto", guard=guard)
    return AutoRouter(EmbeddedRouter(args.threshold), guard=guard)


@dataclass(frozen=True)
class AnswerOptions:
    """The options that can be checked before a model is loaded."""

    settings: Settings
    prompts: PromptSet
    model: ModelSpec

    @classmethod
    def of(cls, args: Namespace) -> AnswerOptions:
        """Checks the options."""
        settings = settings_of(args)
        prompts = PromptSet() if args.prompts is None else PromptSet.from_json(args.prompts)
        return cls(settings, prompts, model_of(args))

    def load(self, args: Namespace, load: Callable[..., ModelBackend] = load_backend) -> ModelBackend:
        """Loads the model, by another function than `load_backend` if there is one."""
        return load(
            self.model,
            temperature=args.temperature,
            seed=args.seed,
            max_tokens=args.max_tokens,
            prefill=args.prefill,
            raw=getattr(args, "raw", False),
            quiet=args.quiet,
        )

    def flows(
        self, args: Namespace, backend: ModelBackend, *, live: bool = True
    ) -> Callable[[Conversation], AnswerFlow]:
        """A function that makes the flow for a conversation; all its flows share one router."""
        return partial(
            backend.flow,
            settings=self.settings,
            prompts=self.prompts,
            router=router_of(args),
            max_concurrency=args.max_concurrency,
            live=live,
        )


def warn_if_slow(backend: ModelBackend, args: Namespace) -> None:
    """Tells the user why the model's rows are not decoded in one batch."""
    if not args.quiet and (reason := backend.notice()):
        print(f"sot: this model's rows are not decoded in one batch: {as_line(reason)}", file=sys.stderr)
