"""`--embeddings`: a model that turns texts into vectors, in this process or on a server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from skeleton_of_thought._cli.backend import LoopThread
from skeleton_of_thought._cli.diagnostics import explain_openai
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought._cli.openai_backend import ChatCompletions
from skeleton_of_thought.errors import InvalidInput, SotError

__all__ = ["EmbeddingModel"]

_BATCH = 64
"""The texts of one call of a server."""

Vectors = Callable[[Sequence[str]], list[list[float]]]


@dataclass(frozen=True)
class EmbeddingModel:
    """The model that `--embeddings` names.

    Attributes:
        name: Its name, as in the report.
        load: Loads it; returns the function that turns texts into vectors, in their order.
    """

    name: str
    load: Callable[[], Vectors]

    @classmethod
    def of(cls, text: str) -> EmbeddingModel:
        """Checks as much as is possible before anything is loaded.

        Raises:
            InvalidInput: The name is none of an embedding model, or its server cannot be used.
            MissingExtra: The `openai` SDK is not installed.
        """
        try:
            spec = ModelSpec.parse(text)
        except InvalidInput as error:
            raise InvalidInput(f"--embeddings: {error}") from error
        name = spec.name
        if spec.source == "langchain" or name is None or name.endswith(".gguf"):
            raise InvalidInput(
                f"--embeddings takes a hub id, a directory, openai:NAME or openai:NAME@http://..., not {text!r}."
            )
        if spec.source == "openai":
            ChatCompletions.of(name, spec.base_url)  # checks the address and the key
            return cls(name, lambda: partial(_served, name, spec.base_url))
        return cls(os.path.basename(name.rstrip("/")) if os.path.exists(name) else name, lambda: _local(name))


def _local(name: str) -> Vectors:
    with exit_at_once():
        from skeleton_of_thought.local.sentence_encoder import SentenceEncoder

        return SentenceEncoder.from_pretrained(name).vectors


def _served(name: str, url: str | None, texts: Sequence[str]) -> list[list[float]]:
    chat, thread = ChatCompletions.of(name, url), LoopThread()

    async def ask() -> list[list[float]]:
        found: list[list[float]] = []
        try:
            for start in range(0, len(texts), _BATCH):
                # Servers refuse an empty text.
                part = [text or " " for text in texts[start : start + _BATCH]]
                reply = await chat.client.embeddings.create(model=name, input=part, encoding_format="float")
                if len(reply.data) != len(part):
                    raise ValueError(f"{len(reply.data)} vectors for {len(part)} texts")
                found += [each.embedding for each in sorted(reply.data, key=lambda each: each.index)]
        finally:
            await chat.client.close()
        return found

    try:
        return asyncio.run_coroutine_threadsafe(ask(), thread.loop).result()
    except Exception as error:
        raise SotError(explain_openai(error, name, chat.address)) from error
    finally:
        thread.stop()
