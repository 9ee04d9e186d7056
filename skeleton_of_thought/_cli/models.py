"""What `--model` says, read without loading anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from skeleton_of_thought.errors import InvalidInput

__all__ = ["ModelSpec", "check_address"]

Kind = Literal["local", "openai", "langchain"]

_OPENAI, _LANGCHAIN = "openai:", "langchain:"
_ADDRESS = re.compile(r"@\s*(?=https?://)", re.I)
_HOST = re.compile(
    r"""://                                 # of any scheme, and wherever it stands
    | ^\s*https?:                           # a scheme without its slashes
    | @\s*(?: $                            # nothing after the @
        | https?: | https?/                 # a scheme without its slashes
        | \[                                # an address of IPv6
        | localhost\b
        | \d+(?:\.\d+){3}(?:[:/]|$)         # an address of IPv4
        | [\w.-]+:\d+(?:/|$)               # a port
        | [\w-]+(?:\.[\w-]+)+/             # a domain with a path
        | [^@]*/v\d\w*/?\s*$               # the path of an API
    )""",
    re.X | re.I,
)
"""What in a model's name can only be meant for the address of a server: taken for a name, it would be sent to OpenAI
with the key. Names may hold an @ themselves, as @cf/meta/m and m@2024 do."""
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
"""How names begin that only servers have, and what goes before them. On the hub these would be OWNER/NAME."""


@dataclass(frozen=True)
class ModelSpec:
    """What `--model` says.

    Attributes:
        name: A hub id, directory or file for a local model (None for the embedded one); the server's name for its
            model; PROVIDER:NAME for LangChain.
        kind: Who runs it: this process, an OpenAI-compatible server, or whatever a provider of LangChain's stands for.
        base_url: The server's address; None for the SDK's own.
    """

    name: str | None = None
    kind: Kind = "local"
    base_url: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> ModelSpec:
        """Reads `--model`, and checks what can be checked before anything is loaded.

        Raises:
            InvalidInput: A file that is not there, an address that is none, or a name that only a server knows.
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
        if (at := _ADDRESS.search(name)) is not None:
            name, url = name[: at.start()], name[at.end() :].strip()
            check_address(url, f"The server's address in {text!r}")
        if _HOST.search(name):
            raise InvalidInput(
                f"{text!r} has no server's address that can be used: write openai:NAME@http://host:port/v1, or "
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


def check_address(url: str, what: str) -> None:
    """Checks the address of a server.

    Args:
        url: The address.
        what: What it is called in errors.

    Raises:
        InvalidInput: It is none.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{what} cannot be used: {error}.") from error
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise InvalidInput(f"{what} must be like http://host:port/v1.")


def _refuse_served(text: str) -> None:
    """Says what to write for a name that would be looked for on the hub in vain."""
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
