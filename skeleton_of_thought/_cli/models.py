"""From options to what answers questions: what `--model` names and how it is loaded, settings, prompts, the router."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from skeleton_of_thought._cli.arguments import SWITCHES
from skeleton_of_thought._cli.backend import ModelBackend, Prefill
from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.local_backend import DEMO, local_backend
from skeleton_of_thought._cli.openai_backend import check_address, openai_backend, without_login
from skeleton_of_thought._cli.streams import CommandStream, as_utf8, unwrapped
from skeleton_of_thought._cli.terminal_text import printable
from skeleton_of_thought.errors import InvalidInput, ModelLoadError
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = [
    "AnswerOptions",
    "ModelSpec",
    "check_raw",
    "load_backend",
    "load_failure",
    "model_of",
    "router_of",
    "settings_of",
    "system_of",
    "warn_if_slow",
]

_SERVERS = " Models of servers are openai:NAME, openai:NAME@http://host:port/v1 or langchain:PROVIDER:NAME."
_OPENAI, _LANGCHAIN = "openai:", "langchain:"
_ADDRESS = re.compile(r"@\s*(?=https?://)", re.I)
_HOST = re.compile(
    r"""://                                 # any scheme, anywhere
    | ^\s*https?:                           # a scheme without slashes
    | @\s*(?: $                            # nothing after the @
        | https?: | https?/                 # a scheme without slashes
        | \[                                # an IPv6 address
        | localhost\b
        | \d+(?:\.\d+){3}(?:[:/]|$)         # an IPv4 address
        | [\w.-]+:\d+(?:/|$)               # a port
        | [\w-]+(?:\.[\w-]+)+/             # a domain with a path
        | [^@]*/v\d\w*/?\s*$               # the path of an API
    )""",
    re.X | re.I,
)
"""Parts of a name that can only be meant as the address of a server. Taken as a name, they would be sent to OpenAI,
with the key. An @ alone does not make an address: @cf/meta/m and m@2024 are names."""
_PROVIDER = re.compile(r"([a-z][\w-]+):(?!//)(.+)", re.S | re.I)
_SERVED: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.I), prefix)
    for pattern, prefix in (
        (r"(gpt-\d|chatgpt|o[1-9](-|$))", _OPENAI),
        (r"claude-", f"{_LANGCHAIN}anthropic:"),
        (r"gemini-", f"{_LANGCHAIN}google_genai:"),
        (r"grok-", f"{_LANGCHAIN}xai:"),
        (r"(mistral|magistral|codestral|ministral)-\w+-latest$", f"{_LANGCHAIN}mistralai:"),
        (r"deepseek-(chat|reasoner)$", f"{_LANGCHAIN}deepseek:"),
    )
]
"""Prefixes of model names that only servers know, each with its provider. Hub ids have the form OWNER/NAME."""


@dataclass(frozen=True)
class ModelSpec:
    """The model that `--model` names.

    Attributes:
        name: A hub id, directory or file of a local model, None for the embedded one; a server's name for the model; or
            PROVIDER:NAME for LangChain.
        source: This process, an OpenAI-compatible server, or a provider of LangChain.
        base_url: The server's address; None for the SDK's default.
    """

    name: str | None = None
    source: Literal["local", "openai", "langchain"] = "local"
    base_url: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> ModelSpec:
        """Reads `--model`, and checks as much as is possible before anything is loaded.

        Raises:
            InvalidInput: The file does not exist, the address is invalid, or only a server knows the name.
        """
        if text is None:
            return cls()
        if not text.strip():
            raise InvalidInput(
                "The model's name is empty: give a hub id, a directory, a .gguf file, openai:NAME or "
                "langchain:PROVIDER:NAME."
            )
        if text.startswith(_OPENAI):
            return cls._parse_server(text)
        if text.startswith(_LANGCHAIN):
            return cls._parse_provider(text)
        for prefix in (_OPENAI, _LANGCHAIN):
            if text.lower().startswith(prefix):
                raise InvalidInput(f"{text!r} begins with capitals: write {prefix}{text[len(prefix) :]}.")
        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise InvalidInput(f"The model {text!r} is not there: no such home directory.") from error
        if text.endswith(".gguf") or path.is_absolute() or text.startswith((".", "~")):
            if not path.exists():
                raise InvalidInput(f"The model {text!r} is not there: no such file or directory.")
            return cls(str(path))
        if not path.exists():
            _refuse_served(text)
        return cls(text)

    @classmethod
    def _parse_server(cls, text: str) -> ModelSpec:
        name, url = text.removeprefix(_OPENAI), None
        model, mark, address = text.partition("@")
        shown = f"{model}{mark}{without_login(address)}"
        if (at := _ADDRESS.search(name)) is not None:
            name, url = name[: at.start()], name[at.end() :].strip()
            check_address(url, f"The server's address in {shown!r}")
        if _HOST.search(name):
            raise InvalidInput(
                f"{shown!r} has no server's address that can be used: write openai:NAME@http://host:port/v1, or "
                "openai:NAME for OpenAI."
            )
        name = name.strip()
        if not name:
            raise InvalidInput(f"{text!r} names no model: write openai:NAME or openai:NAME@http://host:port/v1.")
        return cls(name, "openai", url)

    @classmethod
    def _parse_provider(cls, text: str) -> ModelSpec:
        provider, _, name = text.removeprefix(_LANGCHAIN).partition(":")
        if not provider or not name:
            raise InvalidInput(
                f"{text!r} needs a provider and a model: write langchain:PROVIDER:NAME, such as "
                "langchain:ollama:llama3.2."
            )
        return cls(f"{provider}:{name}", "langchain")


def _refuse_served(text: str) -> None:
    """Rejects a name that the hub cannot have, and says what to write instead."""
    if text.lower().startswith(("http://", "https://")):
        raise InvalidInput(f"{text!r} is an address, not a model: write openai:NAME@{text}.")
    if (named := _PROVIDER.fullmatch(text)) is not None:
        provider, name = named.groups()
        server = f", or openai:{name}@http://127.0.0.1:11434/v1" if provider == "ollama" else ""
        raise InvalidInput(
            f"{text!r} is no local model. For a provider of LangChain's write {_LANGCHAIN}{provider}:{name}{server}."
        )
    for pattern, prefix in _SERVED:
        if "/" not in text and pattern.match(text):
            raise InvalidInput(
                f"{text!r} is a model of a server, not one on the Hugging Face hub: write {prefix}{text}."
            )


def load_backend(
    model: ModelSpec,
    *,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    prefill: Prefill = "auto",
    raw: bool = False,
    quiet: bool = False,
) -> ModelBackend:
    """Loads a model, or opens a client of its server.

    Args:
        model: The model.
        temperature: For sampling; None for the model's default, which is 0 for local models.
        seed: For sampling.
        max_tokens: The most tokens of a call.
        prefill: Whether the model gets the start of its turns.
        raw: Whether a local model continues the text of the question, without a chat around it.
        quiet: Whether to leave out progress messages.

    Raises:
        SotError: An extra is missing, or the model cannot be loaded.
    """
    with exit_at_once():
        if model.source == "local":
            sampling: dict[str, Any] = {"temperature": temperature or 0.0, "seed": seed, "max_new_tokens": max_tokens}
            return _load_local(model.name, quiet=quiet, prefill=prefill, raw=raw, **sampling)
        assert model.name is not None
        settings: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
        if model.source == "openai":
            return openai_backend(model.name, base_url=model.base_url, prefill=prefill, **settings)
        from skeleton_of_thought._cli.langchain_backend import langchain_backend

        return langchain_backend(model.name, prefill=prefill, **settings)


def _load_local(name: str | None, *, quiet: bool, raw: bool, **settings: Any) -> ModelBackend:
    start = time.perf_counter()
    noted = quiet or raw
    with _progress(quiet) as report:
        if report is not None:
            report(f"Loading {'the demo model' if name in (None, DEMO) else name} ...")
        from skeleton_of_thought.local import LocalEngine
        from skeleton_of_thought.local.models import has_chat_template

        try:
            # Before a conversion, which takes minutes.
            if not noted and has_chat_template(name) is False:
                noted = _note_plain_text()
            engine = LocalEngine.from_pretrained(name, progress=report)
        except ModelLoadError as error:
            raise load_failure(error, name) from error
    if not noted and not engine.has_chat_template:
        _note_plain_text()
    backend = local_backend(engine, name=name or DEMO, raw=raw, **settings)
    return dataclasses.replace(backend, loading=time.perf_counter() - start)


def _note_plain_text() -> bool:
    # The engine's own line in the log says the same for programs.
    logging.getLogger("skeleton_of_thought.local.chat_template").addHandler(logging.NullHandler())
    print(
        "sot: this model has no chat template (base models have none): it continues plain text with the question in "
        "it; ask --raw continues the question itself",
        file=sys.stderr,
    )
    return True


def load_failure(error: ModelLoadError, name: str | None) -> ModelLoadError:
    """The error of a local model that cannot be loaded; it says how to name a server's where the name may be one."""
    # A path or a hub id has a slash, at least.
    served = name not in (None, DEMO) and not set(name) & set("/\\") and not name.endswith(".gguf")
    return ModelLoadError(f"{error}{_SERVERS if served else ''}")


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """A function that shows progress on stderr; None if stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.markup import escape
    except ImportError:
        yield lambda line: print(f"sot: {line}", file=sys.stderr)
        return

    def report(line: str) -> None:
        line = printable(line)
        status.update(escape(line))
        if line.startswith("Downloading"):
            # The hub draws progress bars of its own, and a spinner on the same lines would garble them.
            status.stop()
            console.print(escape(line))

    stderr = sys.stderr
    console = Console(file=unwrapped(stderr))
    try:
        with console.status("") as status:
            # Now a stream of rich, which writes the lines of others above the spinner; it knows no control sequences.
            sys.stderr = cast("TextIO", CommandStream(sys.stderr, is_log=True))
            yield report
    finally:
        sys.stderr = stderr


# --- from options to values ---


def settings_of(args: Namespace) -> Settings:
    """How an answer is made."""
    return Settings(
        max_points=args.max_points,
        eager=SWITCHES.get(args.eager, args.eager),
        planning=args.planning,
        items=args.items,
        max_depth=args.max_depth,
        opening=SWITCHES.get(args.opening, args.opening),
        closing=args.closing,
        rewrite_overlap=args.rewrite_overlap,
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
    for name in ("system", "prompts", "merge", "opening", "closing"):
        setting, value = args.defaults.settings.get(name), getattr(args, name)
        if value not in (None, "", False, "no") and (setting is None or setting.value != value):
            raise InvalidInput(f"--raw goes without --{name}: the model gets the question's text alone.")
    args.system, args.prompts, args.merge, args.opening, args.closing = None, None, False, False, False
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
            plans=self.plans() if self.settings.planning == "auto" else None,
        )

    def plans(self) -> PlanMemory:
        """What the plans of the model have been like; one for all its answers."""
        from skeleton_of_thought.plan_memory import PlanMemory

        return PlanMemory()


def warn_if_slow(backend: ModelBackend, args: Namespace) -> None:
    """Tells the user why the model's rows are not decoded in one batch."""
    if not args.quiet and (reason := backend.notice()):
        print(f"sot: this model's rows are not decoded in one batch: {as_line(reason)}", file=sys.stderr)
