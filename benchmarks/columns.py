"""The decoding methods that the engine's benchmark compares, each as a function of the same signature.

A column decodes exactly the given number of tokens for each prompt, greedily, and returns the time that this took,
including the prompts. Servers get streaming requests, as from the chains.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import servers
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from workload import Prompts

from skeleton_of_thought.local import LocalEngine

__all__ = ["Column", "Run", "continuous", "padded", "sequential", "served", "threads", "with_engine"]

SEQUENTIAL_ROWS = 2
"""The most rows that `sequential` decodes: each takes as long as the others."""

_GLANCE = 0.005
_PAGE, _BATCH_TOKENS = 16, 512


@dataclass(frozen=True)
class Run:
    """One run of a column.

    Attributes:
        tokens: Tokens decoded.
        seconds: Seconds from the first prompt to the last token.
        step: Seconds between two tokens of a row while all rows were decoding; None if unknown.
    """

    tokens: int
    seconds: float
    step: float | None = None


Column = Callable[[Prompts, int], Run]


# --- transformers ----------------------------------------------------------------------------------


class _Stamps(StoppingCriteria):
    """Records the time of each token, and never stops the generation."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _Generate:
    """`model.generate`, greedy, for a fixed number of tokens of each row."""

    def __init__(self, model: Any, pad: int) -> None:
        self._model, self._pad = model, pad

    def __call__(self, rows: Sequence[Sequence[int]], tokens: int) -> tuple[int, list[float]]:
        """Decodes; returns the number of tokens, and the time at which each step ended."""
        width = max(len(row) for row in rows)
        ids = torch.tensor([[self._pad] * (width - len(row)) + list(row) for row in rows], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._model.device)
        stamps = _Stamps()
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=self._pad,
                stopping_criteria=StoppingCriteriaList([stamps]),
            )
        return (out.shape[1] - width) * len(rows), stamps.times


def sequential(model: Any, pad: int) -> Column:
    """One row after another."""
    generate = _Generate(model, pad)

    def run(prompts: Prompts, tokens: int) -> Run:
        start = time.perf_counter()
        done = [generate([row], tokens) for row in prompts.ids[:SEQUENTIAL_ROWS]]
        seconds = time.perf_counter() - start
        gaps = [gap for _, times in done if (gap := _mean_gap(times)) is not None]
        return Run(sum(count for count, _ in done), seconds, statistics.median(gaps) if gaps else None)

    return run


def threads(model: Any, pad: int) -> Column:
    """One thread per row, each in `generate` on the same model."""
    generate = _Generate(model, pad)

    def run(prompts: Prompts, tokens: int) -> Run:
        with ThreadPoolExecutor(len(prompts.ids)) as pool:
            start = time.perf_counter()
            done = list(pool.map(lambda row: generate([row], tokens), prompts.ids))
            return Run(sum(count for count, _ in done), time.perf_counter() - start)

    return run


def padded(model: Any, pad: int) -> Column:
    """All rows in one `generate`, padded on the left."""
    generate = _Generate(model, pad)

    def run(prompts: Prompts, tokens: int) -> Run:
        start = time.perf_counter()
        count, times = generate(prompts.ids, tokens)
        return Run(count, time.perf_counter() - start, _mean_gap(times))

    return run


def continuous(model: Any, pad: int) -> Column:
    """transformers' own continuous batching, with shared blocks.

    Its defaults suit GPUs. On a CPU it was several times faster with short batches of prompt tokens, which limit the
    size of its masks and let later rows reuse the blocks of earlier ones, and with pages shorter than the prefix.

    Raises:
        ImportError: This version of transformers has no such continuous batching.
    """
    from transformers import ContinuousBatchingConfig

    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=pad)

    def run(prompts: Prompts, tokens: int) -> Run:
        pages = sum(-(-(len(row) + tokens) // _PAGE) + 1 for row in prompts.ids)
        config = ContinuousBatchingConfig(
            page_size=_PAGE,
            num_blocks=pages,
            max_batch_tokens=_BATCH_TOKENS,
            allow_block_sharing=True,
            auto_switch_to_flash=False,
        )
        with model.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=config, block=True, timeout=5
        ) as manager:
            _finish(manager, [prompts.ids[0][-1:]], 2)  # the first batch allocates memory
            start = time.perf_counter()
            done = _finish(manager, prompts.ids, tokens)
            seconds = time.perf_counter() - start
        return Run(sum(len(r.generated_tokens) for r in done), seconds, _common_gap([r.timestamps for r in done]))

    return run


def _finish(manager: Any, rows: Sequence[Sequence[int]], tokens: int) -> list[Any]:
    manager.add_requests(inputs=[list(row) for row in rows], max_new_tokens=tokens, record_timestamps=True)
    done: list[Any] = []
    while len(done) < len(rows):
        result = manager.get_result(timeout=1)
        if result is None and not manager.is_running():
            raise RuntimeError("transformers' continuous batching ended before its requests")
        if result is not None and result.error is not None:
            raise RuntimeError(f"transformers' continuous batching failed: {result.error}")
        if result is not None and result.is_finished():
            done.append(result)
    return done


# --- servers and the engine --------------------------------------------------------------------------


def served(url: str, model: str) -> Column:
    """A server that gets the requests for all rows at once."""

    def run(prompts: Prompts, tokens: int) -> Run:
        start = time.perf_counter()
        done = servers.complete(url, model, prompts.ids, tokens)
        seconds = time.perf_counter() - start
        step = _common_gap([row.times for row in done])
        pieces, count = sum(len(row.times) for row in done), sum(row.tokens for row in done)
        # A piece of text may hold more than one token.
        return Run(count, seconds, None if step is None else step * pieces / count)

    return run


def with_engine(engine: LocalEngine) -> Column:
    """The local engine with all rows at once."""

    def run(prompts: Prompts, tokens: int) -> Run:
        with _watched(engine) as steps:
            start = time.perf_counter()
            done = engine.generate(prompts.texts, max_new_tokens=tokens, ignore_eos=True)
            seconds = time.perf_counter() - start
        wrong = [c.usage.input_tokens for c, row in zip(done, prompts.ids, strict=True)
                 if c.usage.input_tokens != len(row)]  # fmt: skip
        assert not wrong, f"the engine read prompts of {wrong} tokens, not those that the others read"
        (first, began), (last, ended) = (steps[0], steps[-1]) if steps else ((0, 0.0), (0, 0.0))
        step = (ended - began) / (last - first) if last > first else None
        return Run(sum(c.usage.output_tokens for c in done), seconds, step)

    return run


@contextlib.contextmanager
def _watched(engine: LocalEngine) -> Iterator[list[tuple[int, float]]]:
    """Records the number of decoding steps, with the time at which each new number is seen."""
    seen: list[tuple[int, float]] = []
    before, end = engine.stats().steps, threading.Event()

    def look() -> None:
        while True:
            over = end.wait(_GLANCE)
            steps = engine.stats().steps - before
            if steps > (seen[-1][0] if seen else 0):
                seen.append((steps, time.perf_counter()))
            if over:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


def _mean_gap(times: Sequence[float]) -> float | None:
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None


def _common_gap(rows: Sequence[Sequence[float]]) -> float | None:
    """The mean time between two tokens of a row while all rows are decoding.

    Rows begin while the prompts of others are still being read, and end before others. Those times are no whole steps.
    """
    if not all(rows):
        return None
    begin, end = max(times[0] for times in rows), min(times[-1] for times in rows)
    gaps = [b - a for times in rows for a, b in itertools.pairwise(times) if begin <= a and b <= end]
    return statistics.fmean(gaps) if gaps else None
