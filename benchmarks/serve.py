"""`sot serve` over an upstream of known pace: what it adds to times, and what it leaves behind.

Three processes: the upstream (`benchmarks/paced_upstream.py`), `sot serve`, and this client. Four parts:

    direct    a stream of the upstream itself, the same through the server under the model's name, and under its name
              for answers by points with a question that the router sends on directly; in turns. Milliseconds to the
              first byte of the body and tokens per second; then the same as fast as the upstream can write
    points    answers of 8 points: seconds over the ideal, the skeleton and the slowest point, and when the first text
              came, before or after the end of the first point; with `eager`, too
    many      64 streams at once: of the upstream itself, passed through, and answers by points
    soak      answers of all kinds, half of which are left at random moments. At each checkpoint all is at rest: what
              is open upstream and in the server, threads, asyncio tasks and sockets of the server, its memory

    python benchmarks/serve.py
    python benchmarks/serve.py --parts direct,points --repeats 31

It waits until the load of the machine is below `--calm`, and says the load at which each part began. Printed are
medians. The last line is JSON, with the targets and whether they were met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from served import BY_POINTS, MODEL, Bench, Told, ask, bench

PARTS = ("direct", "points", "many", "soak")
TARGETS = {
    "direct: ms more to the first byte": 5.0,
    "direct: tokens per second, % less": 3.0,
    "points: % over skeleton + slowest point": 3.0,
    "soak: % more memory in the second half": 2.0,  # it goes up and down by 1 % at rest; objects do not
    "soak: % more objects in the second half": 0.5,
}


async def calm(most: float, patience: float) -> float:
    """Waits until the load of the machine is below `most`, but not for ever; the load."""
    end = time.monotonic() + patience
    while os.getloadavg()[0] >= most and time.monotonic() < end:  # noqa: ASYNC110 - nothing tells when it is
        await asyncio.sleep(2)
    return round(os.getloadavg()[0], 2)


def middle(values: Sequence[float], digits: int = 4) -> float:
    return round(statistics.median(values), digits)


# --- direct -----------------------------------------------------------------------------------------


async def direct(b: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Streams through the server and of the upstream itself."""
    ways = {"upstream": (b.upstream, MODEL), "passed": (b.server, MODEL), "routed": (b.server, BY_POINTS)}
    routes = {"upstream": None, "passed": "passed", "routed": "direct"}
    result: dict[str, Any] = {}
    for name, tokens, seconds in (
        ("paced", args.tokens, args.tokens * args.ms_per_token / 1e3),
        ("as fast as it can", args.fast_tokens, 0.0),
    ):
        told: dict[str, list[Told]] = {way: [] for way in ways}
        for repeat in range(-1, args.repeats):
            order = [*ways]
            order = order[repeat % 3 :] + order[: repeat % 3]
            for way in order:
                got = await ask(b, *ways[way], {"tokens": tokens, "seconds": seconds})
                assert (got.tokens, got.route, got.complete) == (tokens, routes[way], True), (way, got)
                if repeat >= 0:  # the first ones open connections
                    told[way].append(got)
        result[name] = {way: _direct_figures(all_of, told["upstream"], tokens) for way, all_of in told.items()}
        print(f"direct, {name}")
        for way, row in result[name].items():
            print(
                f"    {way:9} first byte {row['first_byte_ms']:6.2f} ms (+{row['ms_more']:.2f}), "
                f"{row['tokens_per_second']:9.1f} tokens/s ({row['percent_less']:.2f} % less)",
                flush=True,
            )
    return result


def _direct_figures(told: list[Told], plain: list[Told], tokens: int) -> dict[str, Any]:
    first, plain_first = (statistics.median(each.first_byte for each in of) for of in (told, plain))
    seconds, plain_seconds = (statistics.median(each.seconds for each in of) for of in (told, plain))
    return {
        "first_byte_ms": round(first * 1e3, 3),
        "ms_more": round((first - plain_first) * 1e3, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "percent_less": round(100 * (1 - plain_seconds / seconds), 3),
        "runs": len(told),
    }


# --- answers by points ------------------------------------------------------------------------------


async def points(b: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Answers of points that take from half of the slowest one's time to all of it."""
    count, slowest = args.points, args.point_seconds
    delays = [slowest * (0.5 + 0.5 * (i * 5 % count) / (count - 1)) for i in range(count)]
    delays = [slowest * each / max(delays) for each in delays]
    pace = {"points": delays, "tokens": args.point_tokens, "skeleton": args.skeleton_seconds}
    result: dict[str, Any] = {"points": count, "delays": delays}
    for name, sot, ideal in (
        ("skeleton first", {}, args.skeleton_seconds + slowest),
        # Each point begins with its line.
        ("eager", {"eager": True}, max(args.skeleton_seconds * i / count + each for i, each in enumerate(delays, 1))),
    ):
        seconds, first, early, calls = [], [], 0, 0
        for repeat in range(-1, args.repeats):
            await b.stats()
            began = time.monotonic()
            got = await ask(b, b.server, BY_POINTS, pace, sot={"router": "always", **sot})
            made = (await b.stats())["calls"]
            assert (got.tokens, got.route, got.complete) == (count * args.point_tokens, "skeleton", True), got
            if repeat < 0:
                continue
            seconds.append(got.seconds)
            first.append(got.first_text - began)
            calls += len(made)
            early += got.first_text < next(call["ended"] for call in made if call["kind"] == "point 1")
        row = result[name] = {
            "ideal": round(ideal, 4),
            "seconds": middle(seconds),
            "percent_over": round(100 * (statistics.median(seconds) / ideal - 1), 2),
            "first_text": middle(first),
            "first_text_before_the_first_point_ended": early,
            "calls": calls,
            "runs": len(seconds),
        }
        print(
            f"points, {name}: {row['seconds']:.3f} s, {row['percent_over']:.2f} % over {ideal:.3f} s; first text after "
            f"{row['first_text']:.3f} s, before the first point had ended in {early} of {len(seconds)}",
            flush=True,
        )
    return result


# --- many at once -----------------------------------------------------------------------------------


async def many(b: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Streams at once."""
    text = {"tokens": args.many_tokens, "seconds": args.many_seconds}
    half = args.many_seconds / 2
    tokens = args.many_tokens // args.many_points
    by_points = {"points": [half] * args.many_points, "tokens": tokens, "skeleton": half}
    ways = {
        "upstream": (b.upstream, MODEL, text),
        "passed": (b.server, MODEL, text),
        "points": (b.server, BY_POINTS, by_points),
    }
    result: dict[str, Any] = {"streams": args.streams, "ideal": args.many_seconds}
    for way, (address, model, pace) in ways.items():
        await b.stats()
        cpu, began = b.cpu(), time.monotonic()
        fields = {"sot": {"router": "always"}} if way == "points" else {}
        told = await asyncio.gather(*(ask(b, address, model, pace, **fields) for _ in range(args.streams)))
        seconds, cpu = time.monotonic() - began, b.cpu() - cpu
        stats = await b.stats()
        whole = sum(each.complete and each.tokens in (args.many_tokens, tokens * args.many_points) for each in told)
        result[way] = {
            "complete": whole,
            "seconds": round(seconds, 3),
            "first_byte_ms": middle([each.first_byte * 1e3 for each in told], 1),
            "slowest_first_byte_ms": round(max(each.first_byte for each in told) * 1e3, 1),
            "server_cpu_seconds": round(cpu, 2),
            "most_open": stats["most"],
            "open": stats["open"],
        }
        print(
            f"many, {way}: {whole} of {args.streams} complete in {seconds:.2f} s (ideal {args.many_seconds:g}), "
            f"at most {stats['most']} calls open, {stats['open']} left open; processor of the server {cpu:.2f} s",
            flush=True,
        )
    return result


# --- answers that are left --------------------------------------------------------------------------


async def soak(b: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Answers, half of which are left at random moments; what is there at rest after each group of them."""
    chance = random.Random(args.seed)
    ends: Counter[str] = Counter()
    left_upstream = calls = 0
    checkpoints: list[dict[str, int]] = []
    groups = 1 + args.checkpoints  # the first one warms up: it fills caches and opens connections
    for group in range(groups):
        plans = [_plan(chance) for _ in range(args.answers // args.checkpoints)]
        plans.reverse()

        async def work(plans: list[Any] = plans) -> None:
            while plans:
                ends[await _leave(b, *plans.pop())] += 1

        await asyncio.gather(*(work() for _ in range(args.at_once)))
        stats, here = await _rest(b, args.rest)
        left_upstream, calls = left_upstream + stats["left"], calls + len(stats["calls"])
        checkpoints.append(here)
        print(f"soak, {'warm-up' if group == 0 else f'group {group}'}: {here}", flush=True)
    before, after = checkpoints[0], checkpoints[-1]
    more = {name: after[name] - before[name] for name in before}
    counted = len(checkpoints) - 1
    answers = counted * (args.answers // args.checkpoints)
    result = {"answers": answers, "seed": args.seed, "ends": dict(ends.most_common()), "calls": calls}
    result |= {"left_upstream": left_upstream, "checkpoints": checkpoints, "more": more}
    # Objects tell a leak from memory that the allocator keeps in pieces.
    for name in ("memory_kb", "objects"):
        later = after[name] / checkpoints[counted // 2][name] - 1
        result[f"percent_more_{name}_in_the_second_half"] = round(100 * later, 2)
    return result


Plan = tuple[str, bool, float | None]


def _plan(chance: random.Random) -> Plan:
    """A model, whether it streams, and after how many seconds it is left; None to stay to its end."""
    model, stream = chance.choice((MODEL, BY_POINTS)), chance.random() < 0.75
    leave = chance.uniform(0.0, 0.3) if chance.random() < 0.5 else None
    return model, stream, leave


async def _leave(b: Bench, model: str, stream: bool, leave: float | None) -> str:
    pace = {"tokens": 20, "seconds": 0.2, "skeleton": 0.1, "points": [0.1, 0.05, 0.15]}
    if model == MODEL:
        del pace["points"]
    fields: dict[str, Any] = {} if stream else {"stream": False}
    if model == BY_POINTS:
        fields["sot"] = {"router": "always"}
    kind = f"{model}, {'stream' if stream else 'whole'}"
    try:
        async with asyncio.timeout(leave):
            told = await ask(b, b.server, model, pace, **fields)
    except TimeoutError:
        return f"{kind}, left"
    tokens = 60 if model == BY_POINTS else 20
    return f"{kind}, {'complete' if told.complete and told.tokens == tokens else 'BROKEN'}"


async def _rest(b: Bench, seconds: float) -> tuple[dict[str, Any], dict[str, int]]:
    """Waits until nothing is under way; the upstream's counts, and what is there in the server."""
    await asyncio.sleep(seconds)
    # The upstream has closed its idle connections; the server notices when it looks for one.
    for model, sot in ((MODEL, {}), (BY_POINTS, {"router": "never", "events": True})):
        await ask(b, b.server, model, {"tokens": 1, "seconds": 0.0}, sot=sot)
    stats = await b.stats()
    looks = []
    # What is left for good is there at each look; the end of a connection is there at one.
    for _ in range(5):
        await asyncio.sleep(0.1)
        health, open_upstream = await b.health(), (await b.stats())["open"]
        here = {"open_upstream": open_upstream, "open_calls": health["open_calls"], "waiting": health["waiting"]}
        here |= {"threads": b.status("Threads"), "sockets": b.sockets(), **b.inside()}
        looks.append(here | {"memory_kb": b.status("VmRSS")})
    return stats, {name: min(look[name] for look in looks) for name in looks[0]}


# --- all of it --------------------------------------------------------------------------------------


def verdicts(result: dict[str, Any]) -> dict[str, Any]:
    """Each target with its figure, and whether it was met."""
    figures: dict[str, float] = {}
    if "direct" in result:
        rows = [row for way, row in result["direct"]["paced"].items() if way != "upstream"]
        figures["direct: ms more to the first byte"] = max(row["ms_more"] for row in rows)
        figures["direct: tokens per second, % less"] = max(row["percent_less"] for row in rows)
    if "points" in result:
        rows = [row for row in result["points"].values() if isinstance(row, dict)]
        figures["points: % over skeleton + slowest point"] = max(row["percent_over"] for row in rows)
    if "soak" in result:
        for name, key in (("memory", "memory_kb"), ("objects", "objects")):
            figures[f"soak: % more {name} in the second half"] = result["soak"][
                f"percent_more_{key}_in_the_second_half"
            ]
    told = {name: {"target": TARGETS[name], "figure": figure, "met": figure <= TARGETS[name]}
            for name, figure in figures.items()}  # fmt: skip
    if "points" in result:
        late = sum(row["runs"] - row["first_text_before_the_first_point_ended"] for row in rows)
        told["points: first texts after the end of the first point"] = {"target": 0, "figure": late, "met": not late}
    if "many" in result:
        rows = [row for row in result["many"].values() if isinstance(row, dict)]
        broken = sum(result["many"]["streams"] - row["complete"] + row["open"] for row in rows)
        told["many: streams that are broken or left open"] = {"target": 0, "figure": broken, "met": not broken}
    if "soak" in result:
        left = sum(max(0, result["soak"]["more"][name]) for name in ("threads", "tasks", "sockets"))
        left += sum(result["soak"]["checkpoints"][-1][name] for name in ("open_upstream", "open_calls", "waiting"))
        left += sum(count for end, count in result["soak"]["ends"].items() if "BROKEN" in end)
        told["soak: calls, threads, tasks and sockets left"] = {"target": 0, "figure": left, "met": not left}
    return told


async def run(args: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"cores": os.cpu_count(), "load": {}}
    # All calls of the part with many streams are to be open at once.
    async with bench("--max-open-calls", str(max(args.points, args.streams * args.many_points))) as b:
        for name in args.parts.split(","):
            result["load"][name] = await calm(args.calm, args.patience)
            result[name] = await {"direct": direct, "points": points, "many": many, "soak": soak}[name](b, args)
    result["targets"] = verdicts(result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", default=",".join(PARTS))
    add("--repeats", type=int, default=15, help="runs of each way of `direct` and `points`")
    add("--calm", type=float, default=2.0, help="the load of the machine below which a part begins")
    add("--patience", type=float, default=300.0, help="seconds to wait for that")
    add("--tokens", type=int, default=200, help="of a direct answer")
    add("--ms-per-token", type=float, default=5.0)
    add("--fast-tokens", type=int, default=5000, help="of a direct answer that is written as fast as it can be")
    add("--points", type=int, default=8)
    add("--point-tokens", type=int, default=60)
    add("--point-seconds", type=float, default=2.0, help="of the slowest point")
    add("--skeleton-seconds", type=float, default=0.8)
    add("--streams", type=int, default=64)
    add("--many-tokens", type=int, default=100)
    add("--many-seconds", type=float, default=10.0)
    add("--many-points", type=int, default=4)
    add("--answers", type=int, default=1000)
    add("--checkpoints", type=int, default=5)
    add("--at-once", type=int, default=8)
    add("--rest", type=float, default=3.0, help="seconds before a checkpoint")
    add("--seed", type=int, default=1)
    args = parser.parse_args()
    if unknown := set(args.parts.split(",")) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}, but {', '.join(PARTS)}")
    print(json.dumps(asyncio.run(run(args))))


if __name__ == "__main__":
    main()
