"""What a completion may look like: grammars that its tokens have to follow. Following one needs the extra `structured`.

The work is llguidance's: it knows which tokens of a vocabulary may come next. This module gives it the engine's
tokenizer, and its rows what to ask it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch

from skeleton_of_thought.errors import InvalidInput, MissingExtra, is_missing

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["Constraint", "Grammar", "Grammars"]

_T = TypeVar("_T")

_KEPT = 32
"""Compiled grammars that are kept, since the same ones tend to come again."""

# One line, as json.dumps writes it. Where white space is free, small models write it without end.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Grammar:
    """What a text may look like, for the setting `grammar` of a request.

    The model chooses among the tokens with which the text can still become what the grammar describes. It may end
    where the text is complete, and ends by itself where nothing more can follow. Only `max_new_tokens`, the stop
    strings of the request or a cancellation end it before.

        colour = Grammar.from_regex("red|green|blue")
        engine.generate(["The sky is "], grammar=colour)[0].text                   # "blue"
        engine.stream(messages, grammar=Grammar.from_json_schema({"type": "object", "properties": {...}}))

    Attributes:
        text: The grammar in llguidance's own form.

    Raises:
        InvalidInput: The grammar cannot be followed; the message says which part of it.
        MissingExtra: llguidance is not installed.
    """

    text: str

    def __post_init__(self) -> None:
        failed, messages = _library().LLMatcher.validate_grammar_with_warnings(self.text)
        if failed:
            raise InvalidInput(f"The output cannot be held to this grammar: {'; '.join(messages):.300}")

    @classmethod
    def from_json_schema(cls, schema: Mapping[str, Any]) -> Self:
        """JSON that is valid against a schema, on one line. Properties come in the order of the schema."""
        try:
            return cls(_library().LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON_STYLE))
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"The output cannot be held to this JSON schema: {error}") from error

    @classmethod
    def from_regex(cls, pattern: str) -> Self:
        """A text that matches a regular expression (of Rust's kind) from its first to its last character."""
        return cls(_library().LLMatcher.grammar_from_regex(pattern))

    @classmethod
    def from_lark(cls, grammar: str) -> Self:
        """A text that a context-free grammar in Lark's syntax describes; see llguidance for what of it is known."""
        return cls(_library().LLMatcher.grammar_from_lark(grammar))


class Constraint:
    """Holds one row to its grammar. Used by one thread at a time.

    Args:
        matcher: At the beginning of the text.
        words: Numbers of 32 bits in a mask of the tokenizer's vocabulary.
    """

    def __init__(self, matcher: LLMatcher, words: int) -> None:
        self._matcher = matcher
        self.words = words

    def fill(self, bits: torch.Tensor) -> None:
        """Write which tokens may come next, one bit for each, lowest first; the same when asked again.

        Args:
            bits: `[words]`, int32, in the processor's memory.

        Raises:
            RuntimeError: The grammar became too complex to follow.
        """
        self._matcher.unsafe_compute_mask_ptr(bits.data_ptr(), self.words * 4)
        self._check()

    def accept(self, token: int) -> bool:
        """Take the token that was chosen. Returns whether the text is complete and nothing can follow.

        Raises:
            RuntimeError: The token was not allowed, or the grammar became too complex to follow.
        """
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RuntimeError(f"The grammar of the output cannot be followed: {self._matcher.get_error():.300}")


class Grammars:
    """Makes the constraints of one engine.

    Args:
        tokenizer: The engine's.
        eos_ids: Tokens that end a text.
        exclusively: Calls a function while nobody else uses the tokenizer.
    """

    def __init__(
        self, tokenizer: Any, eos_ids: Collection[int], exclusively: Callable[[Callable[[], Constraint]], Constraint]
    ) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = sorted(eos_ids)
        self._exclusively = exclusively
        # Per object, and touched by one thread at a time alone.
        self._compiled = functools.lru_cache(maxsize=_KEPT)(self._compile)

    def constraint(self, grammar: Grammar) -> Constraint:
        """A new constraint, at the beginning of its text. The first one takes about a second: it reads the tokenizer.

        Raises:
            InvalidInput: The grammar, or the tokenizer, cannot be used.
        """

        def make() -> Constraint:
            return Constraint(self._compiled(grammar.text).deep_copy(), (self._known.vocab_size + 31) // 32)

        return self._exclusively(make)

    @functools.cached_property
    def _known(self) -> LLTokenizer:
        from transformers import PreTrainedTokenizerFast

        _library()
        from llguidance.hf import from_tokenizer

        if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
            raise InvalidInput(
                f"{type(self._tokenizer).__name__} is no fast tokenizer, so its output cannot be held to a grammar: "
                "load the tokenizer with use_fast=True."
            )
        ids = [token for token in self._eos_ids if token < len(self._tokenizer)]
        return from_tokenizer(self._tokenizer, eos_token=ids or None)

    def _compile(self, grammar: str) -> LLMatcher:
        # Silent: what it has to say comes with the error.
        matcher: LLMatcher = _library().LLMatcher(self._known, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidInput(f"The output cannot be held to this grammar: {matcher.get_error():.300}")
        return matcher


def _library() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError as error:
        if not is_missing(error, "llguidance"):
            raise
        raise MissingExtra("Output by a grammar needs llguidance, which is not installed", "structured") from error
    return llguidance
