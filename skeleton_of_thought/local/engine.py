"""The local engine, one model with one batch for any number of callers, and the engines that callers share."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Self, Unpack, get_args

from skeleton_of_thought.adapters.hints import engine_settings
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.codec import PromptInput, SplitTokens, TextCodec, Tools
from skeleton_of_thought.local.configuration import read
from skeleton_of_thought.local.generation import (
    GenerationDefaults,
    GenerationOverrides,
    configured_limit,
    settings_of,
)
from skeleton_of_thought.local.grammar import Grammar, Grammars
from skeleton_of_thought.local.guard import Guard
from skeleton_of_thought.local.limits import Limits, checked_share
from skeleton_of_thought.local.models import load_model
from skeleton_of_thought.local.processors import row_processors
from skeleton_of_thought.local.row import Row, Sink
from skeleton_of_thought.local.runner import ModelRunner, Optimization, Optimize
from skeleton_of_thought.local.sampling import SamplingParams, as_integer
from skeleton_of_thought.local.settings import DecodingSettings, EngineSettings, LoadingSettings
from skeleton_of_thought.local.stats import EngineStats
from skeleton_of_thought.local.stream import AsyncCompletionStream, AsyncSink, CompletionStream, QueueSink
from skeleton_of_thought.local.worker import Worker
from skeleton_of_thought.types import Completion, Prompt

__all__ = ["LocalEngine", "shared_engine"]


class LocalEngine:
    """Decodes a Hugging Face causal language model for any number of callers at once.

    Each caller gets a separate stream. All open streams are rows of one batch: a row joins and leaves between two
    steps, and prompts that begin alike compute their beginning once. Safe to use from any thread or task; the model
    runs on one thread that the engine owns.

        engine = LocalEngine.from_pretrained("demo")
        for piece in engine.stream("Once upon a time", max_new_tokens=50):   # text as it comes
            print(piece, end="")
        engine.generate([prompt_1, prompt_2, prompt_3])                      # one batch, whole texts
        engine.stream([Message("user", "Hello")], temperature=0.7, seed=1)   # chat, sampled

    Args:
        model: A loaded causal language model. The engine changes neither its device, its types nor its mode.
        tokenizer: The model's tokenizer.
        max_batch_size: The most rows decoded at once; further requests wait for a free row.
        prefix_cache_tokens: Prompt tokens whose keys and values are kept for later prompts that begin alike.
        kv_memory: The memory for keys and values: bytes (an int), or a share of the memory that is free now (a
            float up to 1). A request waits until its longest possible text fits.
        prefill_chunk: Prompt tokens that run between two steps while other rows are being decoded.
        share_prefix: Whether rows attend to one copy of a common beginning instead of holding a copy each. The text
            is the same; False is for comparisons.
        optimize: `"auto"` picks the forward that was measured to be fastest on the device; the attribute
            `optimization` names it. On CPUs, in float32, bfloat16 and float16, that is `"lean"` for Llama and its
            close relatives (a forward of fewer operations, on packed copies of the weights), otherwise `"packed"`
            (the model's own forward on packed copies), provided the copies fit half of the free memory. On other
            devices it is `"none"`, the unchanged model. Any of these names limits the engine to that forward and
            slower ones.
        chat_template_kwargs: Extra variables for the chat template, such as `{"enable_thinking": False}`.
        generation_config: Values that replace those of the model's generation config, by name, such as
            `{"repetition_penalty": 1.0, "num_beams": 1}` (None for no such setting); a `GenerationConfig` with such
            values; or `"ignore"` to follow nothing of the model's but its end tokens and lengths. The model's own
            config is read with each request; docs/local.md lists what is followed and what is refused.
        use_checkpoint_sampling: Whether requests without settings of their own are sampled where the generation
            config says so (`do_sample`, with its `temperature`, `top_k`, `top_p`, `min_p` and the like). By default
            they are greedy.
        split_special_tokens: Whether the text of a special token is ordinary text in all messages, and not only in
            text of a model or a retriever. The chat template's own special tokens stay.

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
        generation_config: GenerationOverrides = None,
        use_checkpoint_sampling: bool = False,
        split_special_tokens: bool = False,
    ) -> None:
        max_batch_size = as_integer("max_batch_size", max_batch_size, 1)
        prefix_cache_tokens = as_integer("prefix_cache_tokens", prefix_cache_tokens, 0)
        prefill_chunk = as_integer("prefill_chunk", prefill_chunk, 1)
        if optimize not in get_args(Optimize):
            known = ", ".join(repr(name) for name in get_args(Optimize))
            raise InvalidInput(f"optimize is {optimize!r:.40}; it must be one of {known}.")
        self.model = model
        self.tokenizer = tokenizer
        self._codec = TextCodec(tokenizer, chat_template_kwargs, split_special_tokens)
        kv_memory = checked_share(kv_memory)
        self._generation = GenerationDefaults(model, tokenizer, generation_config, use_checkpoint_sampling)
        self._runner = ModelRunner(model, optimize, share=share_prefix)
        self._eos_ids = self._known_eos_ids = self._generation.eos_ids()
        self._vocabulary = _vocabulary(model)
        self._grammars = Grammars(tokenizer, self._eos_ids, self._codec.exclusively)
        self._limits = Limits(self._runner, kv_memory)
        self._max_batch_size = max_batch_size
        self._worker = Worker(self._runner, max_batch_size, prefix_cache_tokens, prefill_chunk, self._limits.budget)
        self._finalizer = weakref.finalize(self, self._worker.abandon)
        self._finalizer.atexit = False  # at the end of the interpreter the workers end themselves

    @classmethod
    def from_pretrained(
        cls,
        model: str | PathLike[str] | None = None,
        **settings: Unpack[LoadingSettings],
    ) -> Self:
        """Load a model and make an engine for it.

        Args:
            model: A name on the Hugging Face hub, a directory, a `.gguf` file, or None (or `"demo"`) for the
                small embedded demo model.
            dtype: As for transformers: a torch dtype, its name, or `"auto"`, the default, for the stored one. On
                CPUs, weights in half precision are faster for models that run `"lean"`.
            device: The model's device, such as `"cuda"`; by default a GPU if there is one.
            progress: Called with a line of text before each slow step (downloading, converting).
            **settings: The settings of the class. All other keyword arguments are passed on to transformers'
                `from_pretrained`.

        Raises:
            ModelLoadError: There is no such model, or it cannot be loaded.
            MissingExtra: A package that the model needs is not installed.
        """
        given: dict[str, Any] = {**settings}
        own = {name: given.pop(name) for name in EngineSettings.__optional_keys__ & given.keys()}
        loaded, tokenizer = load_model(model, **given)
        return cls(loaded, tokenizer, **own)

    @classmethod
    def for_model(cls, model: Any, tokenizer: Any) -> LocalEngine:
        """The engine that already serves this model, or a new one.

        All callers with the same model and tokenizer objects share one engine, and so one batch, while any of them
        holds a reference to it. A forked process makes new engines.
        """
        key = (id(model), id(tokenizer))

        def find() -> LocalEngine:
            # The engine holds both objects, so their ids are not reused while the entry lives.
            engine = _by_objects.get(key)
            if engine is None or engine.closed:
                engine = _by_objects[key] = cls(model, tokenizer)
            return engine

        return _by_objects_guard.run(find)

    def stream(self, prompt: PromptInput, **settings: Unpack[DecodingSettings]) -> CompletionStream:
        """The completion of one prompt, as an iterator over its text.

        Decoding begins at once, whether or not the stream is read.

        Args:
            prompt: Raw text, a `Prompt`, or messages. Messages that end with the assistant's are continued.
            **settings: As in `DecodingSettings`.

        Raises:
            InvalidInput: A setting or the prompt cannot work.
            PromptTooLong: The prompt, with `max_new_tokens`, does not fit the model's window.
            EngineClosed: The engine is closed, or (`EngineForked`) this is a fork of the process that made it.
            EngineReentered: A signal handler or finalizer made the call during another call on this thread.
        """
        sink = QueueSink()
        row = self._row(prompt, sink, settings)
        self._worker.submit([row])
        return CompletionStream(sink, functools.partial(self._cancel, row))

    def astream(self, prompt: PromptInput, **settings: Unpack[DecodingSettings]) -> AsyncCompletionStream:
        """Async twin of `stream`; call it where an event loop runs."""
        sink = AsyncSink(asyncio.get_running_loop())
        row = self._row(prompt, sink, settings)
        self._worker.submit([row])
        return AsyncCompletionStream(sink, functools.partial(self._cancel, row))

    def generate(self, prompts: Iterable[PromptInput], **settings: Unpack[DecodingSettings]) -> list[Completion]:
        """The completions of several prompts, decoded as one batch.

        Args:
            prompts: As for `stream`; all join the batch together.
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

    def count_tokens(
        self,
        prompt: PromptInput,
        *,
        prefill: str = "",
        tools: Tools = (),
        split_special_tokens: SplitTokens = None,
    ) -> int:
        """The tokens of a prompt, its chat template and BOS included. Settings as for `stream`.

        Raises:
            InvalidInput: The prompt cannot work.
            EngineClosed, EngineReentered: As for `stream`.
        """
        self._worker.check()
        return len(self._codec.encode(prompt, prefill, tools, split_special_tokens=split_special_tokens).ids)

    def with_special_tokens(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts in which the tokenizer may read a special token, for `split_special_tokens`."""
        return self._codec.with_special_tokens(texts)

    def render(self, prompt: PromptInput, *, prefill: str = "", tools: Tools = ()) -> str:
        """The text of a prompt as the model sees it, in its chat template.

        Raises:
            InvalidInput: The prompt cannot work.
            EngineClosed, EngineReentered: As for `stream`.
        """
        self._worker.check()
        return self._codec.render(prompt, prefill, tools)

    def checkpoint(self) -> Callable[[], None]:
        """Remember which beginnings of prompts are kept now; returns a function that forgets all later ones.

        Measurements use it to repeat requests at their first cost. Call the function any number of times, but only
        after all earlier requests have ended and while no other caller uses the engine.
        """
        return self._worker.checkpoint()

    def prepare(self, grammar: Grammar) -> None:
        """Compile a grammar ahead of the first request that needs it.

        Raises:
            InvalidInput: The model's tokenizer or the grammar cannot be used.
            EngineClosed, EngineReentered: As for `stream`.
        """
        self._worker.check()
        self._grammars.constraint(grammar)

    @property
    def context_window(self) -> int | None:
        """The longest prompt and completion together, in tokens; None when the model names no limit."""
        return self._limits.window

    @property
    def parallel_rows(self) -> int:
        """The most rows that are decoded at once: 1 for a model whose rows of unequal length run one after another."""
        return self._max_batch_size if self._runner.batches else 1

    @property
    def optimization(self) -> Optimization:
        """How the model runs.

        `"lean"` or `"packed"`, or `"none"` for the unchanged model. `"unbatched"`: its rows are decoded one after
        another, at most those of equal length together. `"uncached"`: each token runs the whole text as well.
        `stats().reason` says why.
        """
        return self._runner.optimization

    @property
    def has_chat_template(self) -> bool:
        """Whether the model has a chat template. Messages for a model without one become a plain transcript."""
        return self._codec.template.exists

    @property
    def takes_prefill(self) -> bool:
        """Whether the start of an answer can be given without harm.

        False where the chat template begins each answer with reasoning, and has no variable that switches it off: a
        given start then replaces the reasoning.
        """
        return self._codec.template.takes_prefill

    @property
    def reasons(self) -> bool:
        """Whether an answer without a given start may begin with reasoning, by the chat template."""
        return self._codec.template.reasons

    def configured_stops(self, generation_config: GenerationOverrides = None) -> tuple[str, ...]:
        """The stop strings of a request that gives none: those of the model's generation config.

        Args:
            generation_config: As for `stream`.
        """
        stops = self._generation.read(generation_config).get("stop_strings", ())
        return (stops,) if isinstance(stops, str) else tuple(stops)

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more prompts: `close()` was called, or this is a fork of its process."""
        return self._worker.closed

    def stats(self) -> EngineStats:
        """Counts and times of the engine so far."""
        return self._worker.stats()

    def close(self) -> None:
        """End the engine's thread; open streams fail with `EngineClosed`. The model stays usable.

        Safe in any thread and any signal handler; a second call does nothing. Waits for the thread, except inside
        the model and during another call on this thread: there the thread ends after its current step.
        """
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row(self, prompt: PromptInput, sink: Sink, settings: DecodingSettings) -> Row:
        self._worker.check()
        own: dict[str, Any] = {**settings}
        prefill, tools = own.pop("prefill", ""), own.pop("tools", ())
        split, at_once = own.pop("split_special_tokens", None), own.get("grammar") is not None
        encoded = self._codec.encode(prompt, prefill, tools, at_once=at_once, split_special_tokens=split)
        hints = prompt.hints if isinstance(prompt, Prompt) else None
        # A hint of 0 is none, and None stands for the default.
        suggested = engine_settings(hints, reasons=encoded.reasons) if hints else {}
        given: dict[str, Any] = {name: value for name, value in suggested.items() if value}
        given |= {name: value for name, value in own.items() if value is not None}
        values = self._generation.read(given.pop("generation_config", None))
        fields = SamplingParams.__dataclass_fields__
        if unknown := given.keys() - fields:
            known = ", ".join((*fields, "prefill", "tools", "split_special_tokens"))
            raise InvalidInput(f"There is no setting {', '.join(sorted(unknown))}; the settings are {known}.")
        params = settings_of(values, given, len(encoded.ids))
        # The limit of a prompt suits its answer, and has no room for reasoning.
        suited = hints.max_tokens if hints and not encoded.reasons else None
        configured = configured_limit(values, len(encoded.ids))
        limit = self._limits.new_tokens(
            encoded.ids, params.max_new_tokens, suited, configured, self._codec.token, reasons=encoded.reasons
        )
        eos_ids = self._generation.eos_ids(values)
        if eos_ids == self._known_eos_ids:
            eos_ids = self._eos_ids
        return Row(
            encoded,
            params,
            limit=limit,
            embeddings=self._limits.embeddings,
            eos_ids=eos_ids,
            decode=functools.partial(self._codec.decode, special=not params.skip_special_tokens),
            sink=sink,
            constraint=None if params.grammar is None else self._grammars.constraint(params.grammar),
            processors=row_processors(
                params,
                encoded.ids,
                limit=limit,
                eos_ids=eos_ids,
                own_eos_ids=self._generation.own_eos_ids(values),
                vocabulary=self._vocabulary,
                device=self._runner.device,
            ),
        )

    def _cancel(self, row: Row) -> None:
        row.cancelled = True
        self._worker.wake()


def _vocabulary(model: Any) -> int | None:
    config: Any = getattr(model, "config", None)
    text: Any = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = read(text, "vocab_size")
    return size if isinstance(size, int) else None


# --- shared engines ------------------------------------------------------------------------------------

_by_objects: weakref.WeakValueDictionary[tuple[int, int], LocalEngine] = weakref.WeakValueDictionary()
_by_objects_guard = Guard()

_by_name: weakref.WeakValueDictionary[tuple[str, ...], LocalEngine] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def shared_engine(model: str | None, kwargs: LoadingSettings) -> LocalEngine:
    """The engine that already serves the model of this name, or a new one. It ends with the last reference to it.

    Args:
        model: As for `LocalEngine.from_pretrained`.
        kwargs: Keyword arguments of `LocalEngine.from_pretrained`. Callers with other arguments get another engine.

    Raises:
        ModelLoadError, MissingExtra, InvalidInput: As for `LocalEngine.from_pretrained`.
    """
    key = (model or "demo", *(f"{name}={_key_text(value)}" for name, value in sorted(kwargs.items())))
    # Under the lock, so that two threads do not load the same weights at the same time.
    with _loading:
        engine = _by_name.get(key)
        if engine is None or engine.closed:
            engine = _by_name[key] = LocalEngine.from_pretrained(model, **kwargs)
        return engine


def _key_text(value: Any) -> str:
    # torch.bfloat16 and "bfloat16" mean the same, and so do torch.device("cpu") and "cpu".
    kind = f"{type(value).__module__}.{type(value).__name__}"
    return repr(str(value).removeprefix("torch.") if kind in ("torch.dtype", "torch.device") else value)


def _forget_engines() -> None:
    # A thread of the parent process may have been inside the guard; in this process it will never leave it.
    global _by_objects_guard  # noqa: PLW0603
    _by_objects_guard = Guard()
    _by_objects.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_engines)
