"""The local engine: one model, any number of callers, one batch."""

from __future__ import annotations

import asyncio
import functools
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack, get_args

from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.local.encode import PromptInput, TextCodec, Tools
from skeleton_of_thought.local.grammar import Grammar, Grammars
from skeleton_of_thought.local.guard import Guard
from skeleton_of_thought.local.models import load
from skeleton_of_thought.local.row import Row, Sink
from skeleton_of_thought.local.runner import ModelRunner, Optimization, Optimize
from skeleton_of_thought.local.sampling import SamplingParams
from skeleton_of_thought.local.sink import AsyncSink, QueueSink
from skeleton_of_thought.local.stats import EngineStats
from skeleton_of_thought.local.stream import AsyncCompletionStream, CompletionStream
from skeleton_of_thought.local.worker import Worker
from skeleton_of_thought.types import Completion, Prompt

__all__ = ["LocalEngine", "Settings"]

_DEFAULT_NEW_TOKENS = 512


class Settings(TypedDict, total=False):
    """The keyword arguments of a request: the fields of `SamplingParams`, `prefill` and `tools`."""

    max_new_tokens: int | None
    min_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    grammar: Grammar | None
    skip_special_tokens: bool
    prefill: str
    tools: Tools


class LocalEngine:
    """Decodes a Hugging Face causal language model for any number of callers at once.

    Whoever wants text gets a stream of their own; all open streams are rows of one batch, which they join
    and leave between two steps. What prompts share at their beginning is computed once. Safe to use from
    any thread or task; the model runs on one thread of the engine's own.

        engine = LocalEngine.from_pretrained("demo")
        for piece in engine.stream("Once upon a time", max_new_tokens=50):   # text as it comes
            print(piece, end="")
        engine.generate([prompt_1, prompt_2, prompt_3])                      # one batch, whole texts
        engine.stream([Message("user", "Hello")], temperature=0.7, seed=1)   # chat, sampled

    Args:
        model: A loaded causal language model. It keeps its device, its types and its mode.
        tokenizer: Its tokenizer.
        max_batch_size: Rows that are decoded at once; further requests wait for a free row.
        prefix_cache_tokens: Prompt tokens whose keys and values are kept for later prompts that begin alike.
        kv_memory: What keys and values may take: bytes (an int), or a share of the memory that is free now (a
            float up to 1). Requests wait until there is room for the longest that they may become.
        prefill_chunk: Prompt tokens that are run between two steps while others are being decoded.
        share_prefix: Whether rows attend to a common beginning where it lies, instead of having copies of it. The
            text is the same; False is for comparisons.
        optimize: `"auto"` runs the model in the way that was measured to be fastest on its device, which the
            attribute `optimization` names. On CPUs, in float32 and bfloat16, that is `"lean"` for Llama and its
            close relatives (a forward of fewer operations, on packed copies of the weights), else `"packed"`
            (the model's own forward on packed copies), as far as half of the free memory goes; elsewhere
            `"none"`, the model as it is. Naming one of these asks for no more than that.
        chat_template_kwargs: Extra variables for the chat template, such as `{"enable_thinking": False}`.

    Raises:
        InvalidInput: The model is no causal language model, or a setting is out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_batch_size: int = 64,
        prefix_cache_tokens: int = 4096,
        kv_memory: int | float = 0.5,
        prefill_chunk: int = 64,
        share_prefix: bool = True,
        optimize: Optimize = "auto",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise InvalidInput(f"max_batch_size is {max_batch_size!r}; it must be at least 1.")
        if prefix_cache_tokens < 0:
            raise InvalidInput(f"prefix_cache_tokens is {prefix_cache_tokens!r}; it must be at least 0.")
        if optimize not in get_args(Optimize):
            known = ", ".join(repr(name) for name in get_args(Optimize))
            raise InvalidInput(f"optimize is {optimize!r:.40}; it must be one of {known}.")
        self.model = model
        self.tokenizer = tokenizer
        self._codec = TextCodec(tokenizer, chat_template_kwargs)
        _check_share(kv_memory)
        if prefill_chunk < 1:
            raise InvalidInput(f"prefill_chunk is {prefill_chunk!r}; it must be at least 1.")
        self._runner = ModelRunner(model, optimize, share=share_prefix)
        self._eos_ids = _eos_ids(model, tokenizer)
        self._grammars = Grammars(tokenizer, self._eos_ids, self._codec.exclusively)
        self._budget = self._runner.tokens_in(kv_memory)
        self._max_batch_size = max_batch_size
        self._worker = Worker(self._runner, max_batch_size, prefix_cache_tokens, prefill_chunk, self._budget)
        self._finalizer = weakref.finalize(self, self._worker.abandon)
        self._finalizer.atexit = False  # the workers see to the end of the interpreter themselves

    @classmethod
    def from_pretrained(
        cls,
        model: str | PathLike[str] | None = None,
        *,
        dtype: Any = None,
        device: Any = None,
        progress: Callable[[str], None] | None = None,
        max_batch_size: int = 64,
        prefix_cache_tokens: int = 4096,
        kv_memory: int | float = 0.5,
        prefill_chunk: int = 64,
        share_prefix: bool = True,
        optimize: Optimize = "auto",
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a model and make an engine for it.

        Args:
            model: A name on the Hugging Face hub, a directory, a `.gguf` file, or None (or `"demo"`) for the
                small embedded demo model.
            dtype: As for transformers: a torch dtype, its name, or `"auto"`, the default: as it is stored.
            device: Where to put it, such as `"cuda"`; by default a GPU if there is one.
            progress: Told in a line of text what takes long (downloading, converting).
            max_batch_size: See the class.
            prefix_cache_tokens: See the class.
            kv_memory: See the class.
            prefill_chunk: See the class.
            share_prefix: See the class.
            optimize: See the class.
            chat_template_kwargs: See the class.
            **model_kwargs: Handed on to transformers' `from_pretrained`.

        Raises:
            ModelLoadError: There is no such model, or it cannot be loaded.
            MissingExtra: A package that the model needs is not installed.
        """
        loaded, tokenizer = load(model, dtype=dtype, device=device, progress=progress, **model_kwargs)
        return cls(
            loaded,
            tokenizer,
            max_batch_size=max_batch_size,
            prefix_cache_tokens=prefix_cache_tokens,
            kv_memory=kv_memory,
            prefill_chunk=prefill_chunk,
            share_prefix=share_prefix,
            optimize=optimize,
            chat_template_kwargs=chat_template_kwargs,
        )

    @classmethod
    def for_model(cls, model: Any, tokenizer: Any) -> LocalEngine:
        """The engine of a model: the one that others already use for it, or a new one.

        All who ask for the same model and tokenizer objects share one engine, and so one batch, as long as
        one of them holds it. A forked process has engines of its own.
        """
        key = (id(model), id(tokenizer))

        def find() -> LocalEngine:
            # The engine holds both objects, so their ids are not reused while the entry lives.
            engine = _engines.get(key)
            if engine is None or engine.closed:
                engine = _engines[key] = cls(model, tokenizer)
            return engine

        return _engines_guard.run(find)

    def stream(self, prompt: PromptInput, **settings: Unpack[Settings]) -> CompletionStream:
        """The completion of one prompt, as an iterator over its text.

        It is decoded from now on, whether or not it is read.

        Args:
            prompt: Raw text, a `Prompt`, or messages. Messages that end with the assistant's are continued.
            **settings: The fields of `SamplingParams`; and `prefill`, a start of the answer that the model
                is to continue (not part of the text), and `tools`, descriptions of what the model may call, for
                models whose chat template shows them.

        Raises:
            InvalidInput: A setting or the prompt cannot work.
            PromptTooLong: The prompt, with `max_new_tokens`, does not fit the model's window.
            EngineClosed: The engine is closed, or (`EngineForked`) this is a fork of the process that made it.
            EngineReentered: The call is a signal handler's or finalizer's, amid another call on this thread.
        """
        sink = QueueSink()
        row = self._row(prompt, sink, settings)
        self._worker.submit([row])
        return CompletionStream(sink, functools.partial(self._cancel, row))

    def astream(self, prompt: PromptInput, **settings: Unpack[Settings]) -> AsyncCompletionStream:
        """Async twin of `stream`; to be called where an event loop runs."""
        sink = AsyncSink(asyncio.get_running_loop())
        row = self._row(prompt, sink, settings)
        self._worker.submit([row])
        return AsyncCompletionStream(sink, functools.partial(self._cancel, row))

    def generate(self, prompts: Iterable[PromptInput], **settings: Unpack[Settings]) -> list[Completion]:
        """The completions of several prompts, decoded as one batch.

        Args:
            prompts: As for `stream`; all are admitted together.
            **settings: As for `stream`; the same for all.

        Raises:
            InvalidInput: `prompts` is a single text, or a prompt or setting cannot work.
            PromptTooLong: A prompt does not fit.
            EngineClosed, EngineReentered: As for `stream`.
            Exception: The model's own error, if it fails.
        """
        if isinstance(prompts, str):
            raise InvalidInput("generate takes a list of prompts: put the text into a list.")
        sinks: list[QueueSink] = []
        rows: list[Row] = []
        for prompt in prompts:
            sinks.append(QueueSink())
            rows.append(self._row(prompt, sinks[-1], settings))
        self._worker.submit(rows)
        streams = [
            CompletionStream(sink, functools.partial(self._cancel, row)) for sink, row in zip(sinks, rows, strict=True)
        ]
        try:
            for stream in streams:
                for _ in stream:
                    pass
        finally:
            for stream in streams:
                stream.close()
        return [stream.completion for stream in streams]

    def count_tokens(self, prompt: PromptInput, *, prefill: str = "", tools: Tools = ()) -> int:
        """The tokens of a prompt, its chat template and BOS included.

        Raises:
            InvalidInput: The prompt cannot work.
            EngineClosed, EngineReentered: As for `stream`.
        """
        self._worker.check()
        return len(self._codec.encode(prompt, prefill, tools).ids)

    def render(self, prompt: PromptInput, *, prefill: str = "", tools: Tools = ()) -> str:
        """The text of a prompt as the model sees it, in its chat template.

        Raises:
            InvalidInput: The prompt cannot work.
            EngineClosed, EngineReentered: As for `stream`.
        """
        self._worker.check()
        return self._codec.render(prompt, prefill, tools)

    def checkpoint(self) -> Callable[[], None]:
        """What is kept for prompts that begin alike, as it is now: a function that goes back to that.

        So requests can be repeated at the cost they had at first, for measurements. The function may be called any
        number of times, when the requests before it have ended; nobody else should use the engine meanwhile.
        """
        return self._worker.checkpoint()

    def prepare(self, grammar: Grammar) -> None:
        """Get ready for requests with a grammar, so that the first of them need not wait for it to be compiled.

        Raises:
            InvalidInput: The model's tokenizer or the grammar cannot be used.
            EngineClosed, EngineReentered: As for `stream`.
        """
        self._worker.check()
        self._grammars.constraint(grammar)

    @property
    def context_window(self) -> int | None:
        """The longest prompt and completion together, in tokens; None when the model names no limit."""
        return self._runner.context_window

    @property
    def parallel_rows(self) -> int:
        """The most rows that are decoded at once: 1 for a model whose rows run one after another."""
        return self._max_batch_size if self._runner.cache_kind == "batched" else 1

    @property
    def optimization(self) -> Optimization:
        """The way in which the model runs.

        `"lean"`, `"packed"`, or `"none"` where it runs as it is; `"unbatched"` where its rows are decoded one after
        another, `"uncached"` where each token runs the whole text too. `stats().reason` says why.
        """
        return self._runner.optimization

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts may be messages."""
        return self._codec.has_chat_template

    @property
    def closed(self) -> bool:
        """Whether it takes no more prompts: `close()` was called, or this is a fork of its process."""
        return self._worker.closed

    def stats(self) -> EngineStats:
        """What the engine has done so far."""
        return self._worker.stats()

    def close(self) -> None:
        """End the thread; whoever still waits gets `EngineClosed`. The model stays as it is.

        From any thread and any signal handler; again without effect. Where the thread's end cannot be waited
        for (inside of the model, or amid another call on this thread) it comes after the step that is running.
        """
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row(self, prompt: PromptInput, sink: Sink, settings: Settings) -> Row:
        self._worker.check()
        given: dict[str, Any] = dict(settings)
        prefill, tools = given.pop("prefill", ""), given.pop("tools", ())
        unknown = given.keys() - SamplingParams.__dataclass_fields__.keys()
        if unknown:
            known = ", ".join((*SamplingParams.__dataclass_fields__, "prefill", "tools"))
            raise InvalidInput(f"There is no setting {', '.join(sorted(unknown))}; the settings are {known}.")
        if isinstance(prompt, Prompt):
            given.setdefault("frequency_penalty", prompt.hints.frequency_penalty)
            given.setdefault("presence_penalty", prompt.hints.presence_penalty)
            given.setdefault("stop_after_text", prompt.hints.stop)
            given.setdefault("min_new_tokens", prompt.hints.min_tokens)
        params = SamplingParams(**given)
        encoded = self._codec.encode(prompt, prefill, tools)
        return Row(
            encoded,
            params,
            limit=self._limit(len(encoded.ids), params.max_new_tokens, encoded.max_tokens),
            eos_ids=self._eos_ids,
            decode=functools.partial(self._codec.decode, special=not params.skip_special_tokens),
            sink=sink,
            constraint=None if params.grammar is None else self._grammars.constraint(params.grammar),
        )

    def _limit(self, prompt: int, wanted: int | None, sensible: int | None) -> int:
        """How many tokens may be generated."""
        window = self.context_window
        room = None if window is None else window - prompt
        if room is not None and room < (wanted or 1):
            raise PromptTooLong(
                f"The prompt has {prompt} tokens and {wanted or 'at least 1'} are to be generated, but the model's "
                f"window is {window}: shorten the prompt or lower max_new_tokens."
            )
        if prompt + (wanted or 1) > self._budget:
            raise PromptTooLong(
                f"The prompt has {prompt} tokens and {wanted or 'at least 1'} are to be generated, but keys and values "
                f"of {self._budget} tokens are all that kv_memory allows for: raise it or shorten the prompt."
            )
        room = self._budget - prompt if room is None else min(room, self._budget - prompt)
        if wanted is None and sensible is None:
            configured = getattr(getattr(self.model, "generation_config", None), "max_new_tokens", None)
            wanted = configured or _DEFAULT_NEW_TOKENS
        return max(1, min(limit for limit in (wanted, sensible, room) if limit is not None))

    def _cancel(self, row: Row) -> None:
        row.cancelled = True
        self._worker.wake()


def _check_share(kv_memory: float) -> None:
    number = isinstance(kv_memory, int | float) and not isinstance(kv_memory, bool)
    # Not `<= 0`: a NaN is neither.
    if not number or not kv_memory > 0 or (isinstance(kv_memory, float) and kv_memory > 1):
        raise InvalidInput(
            f"kv_memory is {kv_memory!r:.40}; it must be a number of bytes (an int) or a share of free memory "
            "(a float above 0 and up to 1)."
        )


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    # The generation config overrules the model's own, and the tokenizer's counts besides: either may be
    # missing the end of a turn.
    generation = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    own = generation if generation is not None else getattr(model.config, "eos_token_id", None)
    found: set[int] = set()
    for ids in (own, getattr(tokenizer, "eos_token_id", None)):
        found.update(ids if isinstance(ids, list | tuple | set) else () if ids is None else (ids,))
    return frozenset(found)


_engines: weakref.WeakValueDictionary[tuple[int, int], LocalEngine] = weakref.WeakValueDictionary()
_engines_guard = Guard()


def _begin_anew() -> None:
    # A thread of the parent's may have been inside of the guard, and will never leave it here.
    global _engines_guard  # noqa: PLW0603
    _engines_guard = Guard()
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
