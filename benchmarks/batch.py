"""`sot batch` against the bare calls, over an upstream of known pace: what the command costs while a server has room.

Two processes: the upstream (`benchmarks/paced_upstream.py`) and this one. Two kinds of answers, `direct` and `points`.
In turns, and as often as `--repeats` says:

    bare    the calls of all answers by the same client, without this project: `--concurrency` at a time, each as soon
            as another one has ended. Points do not wait for a skeleton, so this is the least that the calls can take
    batch   `sot batch` in this process, from its arguments to answers.jsonl, with the same number of calls at a time

The upstream counts the calls, and how many were open at a time, so that both have done the same. Printed are medians
of the seconds, and of the ratio of a batch to the bare calls beside it.

    python benchmarks/batch.py
    python benchmarks/batch.py --questions 200 --concurrency 64 --repeats 5

The last line is JSON, with the target and whether it was met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from paced_upstream import PROMPTS
from served import MODEL, process

from skeleton_of_thought._cli.backend import LoopThread, ModelBackend, RemoteStream
from skeleton_of_thought._cli.openai_backend import ChatCompletions
from skeleton_of_thought.cli import main as sot
from skeleton_of_thought.types import Call, Conversation, Prompt, Reply

TARGET = 1.1
"""The most seconds of a batch, over those of the bare calls."""
ROUTERS = {"direct": "never", "points": "always"}


class Bench:
    """Both ways to make the calls.

    Args:
        upstream: The upstream's address.
        args: The options.
    """

    def __init__(self, upstream: str, args: argparse.Namespace) -> None:
        self._upstream, self._args = upstream, args
        self._chat = ChatCompletions.of(MODEL, f"{upstream}/v1")
        self._thread = LoopThread()
        self._pace = {
            "tokens": args.tokens,
            "seconds": args.seconds,
            "points": [args.seconds] * args.points,
            "skeleton": args.skeleton,
        }

    def close(self) -> None:
        """Closes the client."""
        asyncio.run_coroutine_threadsafe(self._chat.client.close(), self._thread.loop).result()
        self._thread.stop()

    def _stream(self, prompt: Prompt) -> Any:
        return self._chat.stream(prompt, {"pace": self._pace})

    def bare(self, kind: str, questions: list[str]) -> float:
        """The seconds of the calls alone."""
        return asyncio.run_coroutine_threadsafe(self._bare(kind, questions), self._thread.loop).result()

    async def _bare(self, kind: str, questions: list[str]) -> float:
        room = asyncio.Semaphore(self._args.concurrency)

        async def call(text: str) -> None:
            async with room:
                async for item in self._stream(Prompt(Conversation.of(text).messages)):
                    assert isinstance(item, str | Reply)

        began = time.perf_counter()
        await asyncio.gather(*(call(text) for text in self._texts(kind, questions)))
        return time.perf_counter() - began

    def _texts(self, kind: str, questions: list[str]) -> Iterator[str]:
        for question in questions:
            if kind == "direct":
                yield question
                continue
            yield PROMPTS["outline_prompt"].format(request=question)
            for point in range(1, self._args.points + 1):
                yield PROMPTS["point_prompt"].format(point=point, request=question, outline="")

    def batch(self, kind: str, file: Path, folder: Path) -> float:
        """The seconds of the command."""

        def open_call(call: Call, index: int) -> RemoteStream:
            assert call.prompt is not None
            return RemoteStream(self._stream(call.prompt), self._thread)

        prompts = folder.with_suffix(".prompts.json")
        prompts.write_text(json.dumps(PROMPTS))
        command = ["batch", str(file), str(folder), "--quiet", "--router", ROUTERS[kind], "--prompts", str(prompts)]
        began = time.perf_counter()
        code = sot(
            [*command, "--concurrency", str(self._args.concurrency)], backend=ModelBackend(MODEL, open_call=open_call)
        )
        seconds = time.perf_counter() - began
        assert code == 0, f"sot batch has ended with {code}"
        lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        assert not any(json.loads(line)["error"] for line in lines)
        assert len(lines) == self._args.questions
        return seconds

    def counts(self) -> dict[str, Any]:
        """The calls that the upstream had since the last time, by their kind, and the most that were open."""
        stats = httpx.get(f"{self._upstream}/stats").json()
        kinds = Counter(call["kind"].partition(" ")[0] for call in stats["calls"])
        return {"calls": dict(sorted(kinds.items())), "most": stats["most"]}


def measured(bench: Bench, kind: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures both ways in turns, and prints the medians.

    Raises:
        AssertionError: They have made different calls.
    """
    questions = [f"What are good ways to spend day {i}?" for i in range(1, args.questions + 1)]
    file = folder / "questions.txt"
    file.write_text("".join(f"{question}\n" for question in questions), encoding="utf-8")
    seconds: dict[str, list[float]] = {"bare": [], "batch": []}
    counts: dict[str, Any] = {}
    bench.counts()
    for turn in range(args.repeats):
        for way in ("bare", "batch")[:: 1 if turn % 2 else -1]:
            if way == "bare":
                seconds[way].append(bench.bare(kind, questions))
            else:
                seconds[way].append(bench.batch(kind, file, folder / f"{kind}-{turn}"))
            counts[way] = bench.counts()
    assert counts["bare"]["calls"] == counts["batch"]["calls"], counts
    ratio = statistics.median(b / a for a, b in zip(seconds["bare"], seconds["batch"], strict=True))
    row = {way: round(statistics.median(values), 3) for way, values in seconds.items()}
    print(f"  {kind:8}{row['bare']:>10.2f}{row['batch']:>10.2f}{ratio:>10.3f}", flush=True)
    return {**row, "ratio": round(ratio, 4), **counts["batch"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--questions", type=int, default=40)
    add("--concurrency", type=int, default=8)
    add("--points", type=int, default=4)
    add("--seconds", type=float, default=0.4, help="of each text (default: %(default)s)")
    add("--skeleton", type=float, default=0.2, help="seconds of a skeleton (default: %(default)s)")
    add("--tokens", type=int, default=20, help="of each text (default: %(default)s)")
    add("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"seconds, median of {args.repeats}; {args.questions} answers, {args.concurrency} calls at a time")
    print(f"  {'':8}{'bare':>10}{'batch':>10}{'ratio':>10}")
    with (
        process("benchmarks/paced_upstream.py", address=0) as (_, upstream),
        tempfile.TemporaryDirectory() as folder,
    ):
        bench = Bench(upstream, args)
        try:
            rows = {kind: measured(bench, kind, args, Path(folder)) for kind in ROUTERS}
        finally:
            bench.close()
    met = all(row["ratio"] <= TARGET for row in rows.values())
    print(json.dumps({**vars(args), "target": TARGET, "met": met, "kinds": rows}))


if __name__ == "__main__":
    main()
