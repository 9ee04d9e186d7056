"""`model.generate` of transformers as a stream, for comparisons with the engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from skeleton_of_thought.local.codec import TextCodec
from skeleton_of_thought.local.engine import LocalEngine
from skeleton_of_thought.types import Prompt, Reply, Usage

__all__ = ["GenerateStream"]

_DEFAULT_NEW_TOKENS = 512
_PATIENCE = 10.0
"""Seconds to wait for the current step when a stream is closed: a thread inside torch at the end of the
interpreter can crash the process."""


class GenerateStream:
    """The model's answer to a prompt, streamed from one call of `model.generate`.

    Runs the engine's model as it was loaded, without the faster forwards. The prompt has the engine's chat template.
    Iteration calls `generate` on a separate thread.

    Args:
        engine: The engine whose model and tokenizer are used. It should be idle meanwhile.
        prompt: The prompt. Its `max_tokens` and `min_tokens` apply; stop strings, prefill and penalties do not, since a
            plain call has none.
        temperature: 0 is greedy; above 0, tokens are drawn from the whole vocabulary, as the engine draws them.
        seed: Makes sampling repeatable.
    """

    def __init__(
        self, engine: LocalEngine, prompt: Prompt, *, temperature: float = 0.0, seed: int | None = None
    ) -> None:
        self._model, self._tokenizer = engine.model, engine.tokenizer
        self._ids = TextCodec(engine.tokenizer).encode(engine.render(prompt.messages)).ids
        self._settings = _settings(engine, prompt, temperature)
        self._seed = seed
        self._stopped = threading.Event()
        self._inbox: queue.SimpleQueue[str | Reply | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sot-generate", daemon=True)

    def __iter__(self) -> Iterator[str | Reply]:
        self._thread.start()
        try:
            while True:
                item = self._inbox.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Reply):
                    return
        finally:
            self.close()

    def cancel(self) -> None:
        """End the call after its current step, without waiting for it. Callable from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """End the call and wait for its current step."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            self._inbox.put(self._generate())
        except BaseException as error:
            self._inbox.put(error)

    def _generate(self) -> Reply:
        ids = torch.tensor([self._ids], device=self._model.device)
        # `generate` draws from torch's global generator; its state is restored afterwards.
        with torch.random.fork_rng(devices=[self._model.device] if ids.is_cuda else []):
            if self._seed is not None:
                torch.manual_seed(self._seed)
            out = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                tokenizer=self._tokenizer,  # for stop strings of the generation config
                streamer=_Streamer(self._tokenizer, self._inbox),
                stopping_criteria=StoppingCriteriaList([_Stop(self._stopped)]),
                **self._settings,
            )
        usage = Usage(len(self._ids), out.shape[1] - len(self._ids))
        return Reply(usage, "cancelled" if self._stopped.is_set() else None)


def _settings(engine: LocalEngine, prompt: Prompt, temperature: float) -> dict[str, Any]:
    limit = prompt.hints.max_tokens or _DEFAULT_NEW_TOKENS
    if (window := engine.context_window) is not None:
        limit = min(limit, max(1, window - engine.count_tokens(prompt.messages)))
    pad = engine.tokenizer.pad_token_id
    return {
        "max_new_tokens": limit,
        "min_new_tokens": min(prompt.hints.min_tokens, limit),
        # Given, since the model's generation config may sample or search with beams. The rest of that config applies,
        # as in the engine. For greedy decoding `generate` expects a top_k of 50.
        "do_sample": temperature > 0,
        "temperature": temperature or 1.0,
        "top_k": 0 if temperature > 0 else 50,
        "top_p": 1.0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "pad_token_id": engine.tokenizer.eos_token_id if pad is None else pad,
    }


class _Streamer(TextStreamer):
    """Puts text into a queue, whole words at a time."""

    def __init__(self, tokenizer: Any, inbox: queue.SimpleQueue[Any]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._inbox = inbox

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Put a piece of text into the queue."""
        if text:
            self._inbox.put(text)


class _Stop(StoppingCriteria):
    """Ends `generate` when an event is set."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        rows = input_ids.shape[0]
        return torch.full((rows,), self._stopped.is_set(), dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]
