"""Grammars that a completion follows. Needs the extra `structured`.

llguidance finds the tokens of a vocabulary that may come next. This module connects it with the engine's tokenizer and
rows.
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
"""The number of compiled grammars that are kept, since requests often repeat a grammar."""

# One line, in the style of json.dumps. With free white space, small models write white space without end.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Grammar:
    """A description of the texts that a request allows, for its setting `grammar`.

    The model chooses among the tokens after which the text can still match the grammar. It may end a complete text, and
    the text ends by itself when nothing more can follow. Only `max_new_tokens`, the stop strings of the request and a
    cancellation end it earlier.

        colour = Grammar.from_regex("red|green|blue")
        engine.generate(["The sky is "], grammar=colour)[0].text                   # "blue"
        engine.stream(messages, grammar=Grammar.from_json_schema({"type": "object", "properties": {...}}))

    Attributes:
        text: The grammar in llguidance's own form.

    Raises:
        InvalidInput: The grammar has an error, or a part that llguidance does not know; the message names it.
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
        """A text that matches a regular expression, in Rust's syntax, from its first to its last character."""
        return cls(_library().LLMatcher.grammar_from_regex(pattern))

    @classmethod
    def from_lark(cls, grammar: str) -> Self:
        """A text of a context-free grammar in Lark's syntax; llguidance documents the supported subset."""
        return cls(_library().LLMatcher.grammar_from_lark(grammar))


class Constraint:
    """The state of one row within its grammar. Used by one thread at a time.

    Args:
        matcher: A matcher at the beginning of the text.
        words: The number of 32-bit words in a mask of the tokenizer's vocabulary.
    """

    def __init__(self, matcher: LLMatcher, words: int) -> None:
        self._matcher = matcher
        self.words = words

    def fill(self, bits: torch.Tensor) -> None:
        """Write a mask of the allowed next tokens, one bit per token, lowest bit first. May be called again.

        Args:
            bits: `[words]`, int32, in main memory.

        Raises:
            RuntimeError: The grammar became too complex to follow.
        """
        self._matcher.unsafe_compute_mask_ptr(bits.data_ptr(), self.words * 4)
        self._check()

    def accept(self, token: int) -> bool:
        """Add the chosen token to the text. Returns whether the text is complete and nothing can follow.

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
    """Compiles grammars for one engine.

    Args:
        tokenizer: The engine's tokenizer.
        eos_ids: Tokens that end a text.
        exclusively: Calls a function while no other thread uses the tokenizer.
    """

    def __init__(
        self, tokenizer: Any, eos_ids: Collection[int], exclusively: Callable[[Callable[[], Constraint]], Constraint]
    ) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = sorted(eos_ids)
        self._exclusively = exclusively
        # A cache per object, used by one thread at a time.
        self._compiled = functools.lru_cache(maxsize=_KEPT)(self._compile)

    def constraint(self, grammar: Grammar) -> Constraint:
        """A new constraint, at the beginning of its text. The first call takes about a second to read the tokenizer.

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
        # No log output: the error has the message.
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
