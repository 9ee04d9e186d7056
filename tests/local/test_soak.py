"""Thousands of short requests, many cancelled early, leave no rows, threads or memory behind."""

from __future__ import annotations

import gc
import random
import threading
from typing import Any

import psutil

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.row import Row

REQUESTS = 2400
THREADS = 4
ROOM = 24 << 20
"""Bytes that a process may grow by in a storm: allocators keep some freed memory."""


def requests(engine: LocalEngine, count: int, seed: int, errors: list[BaseException]) -> None:
    source = random.Random(seed)
    try:
        for _ in range(count):
            words = ["the", "river", "bread", "why", "leaves", str(source.randrange(50))]
            prompt = " ".join(source.choices(words, k=source.randint(1, 12)))
            stream = engine.stream(prompt, max_new_tokens=source.randint(1, 8), temperature=source.choice([0.0, 0.9]))
            how = source.random()
            if how < 0.15:
                stream.close()
            elif how < 0.3:
                next(stream, None)
                stream.close()
            elif how < 0.35:
                del stream  # forgotten
                continue
            else:
                for _ in stream:
                    pass
    except BaseException as error:
        errors.append(error)


def storm(engine: LocalEngine, count: int, seed: int) -> None:
    errors: list[BaseException] = []
    threads = [
        threading.Thread(target=requests, args=(engine, count // THREADS, seed + i, errors)) for i in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    assert errors == []


def rows() -> int:
    """Rows that are in memory, those of other tests' engines included."""
    gc.collect()
    return sum(type(thing) is Row for thing in gc.get_objects())


def test_thousands_of_requests_leak_no_rows_threads_or_memory(llama: Any, tokenizer: Any, tiny: Any) -> None:
    process, before = psutil.Process(), rows()
    with LocalEngine(llama, tokenizer, prefix_cache_tokens=256, max_batch_size=8) as engine:
        engine._eos_ids = frozenset()
        storm(engine, REQUESTS // 2, 0)  # fills caches of libraries and lets allocators settle
        tiny.eventually(lambda: engine.stats().rows == engine.stats().waiting == 0)
        gc.collect()
        threads = set(threading.enumerate())
        files = process.num_fds() if hasattr(process, "num_fds") else 0
        grown, asked = [], REQUESTS // 2
        # A leak grows with every storm; the memory that allocators keep depends on the threads, and stops growing.
        while not grown or (grown[-1] >= ROOM and len(grown) < 3):
            memory = process.memory_info().rss
            storm(engine, REQUESTS, 1000 * (1 + len(grown)))
            asked += REQUESTS
            tiny.eventually(lambda: engine.stats().rows == engine.stats().waiting == 0)
            tiny.eventually(lambda asked=asked: engine.stats().completed + engine.stats().cancelled == asked)
            gc.collect()
            grown.append(process.memory_info().rss - memory)
        stats = engine.stats()
        assert stats.failed == 0
        assert stats.cancelled > REQUESTS // 20
        assert stats.peak_batch_size <= 8
        assert set(threading.enumerate()) <= threads
        assert engine._worker._store.tokens <= 256
        assert rows() <= before
        assert grown[-1] < ROOM, grown
        if files:
            assert process.num_fds() <= files
    assert not tiny.runs(engine)
