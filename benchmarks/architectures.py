"""The local engine against one-at-a-time greedy `model.generate`, for every causal type of the installed transformers.

Each type is built tiny, with random weights (`tiny_models.py`), and writes four kinds of prompts in float32: short ones
of unequal length at once; prompts with shared beginnings, twice; prompts that continue an answer; prompts that arrive
while others are being written. Then the seconds of a single row are compared, interleaved, as the median of ratios.

    python benchmarks/architectures.py
    python benchmarks/architectures.py --types "qwen3_5_text;mamba" --no-speed

Each type runs in a process of its own, forked from one that has imported transformers, with a limit of time.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import transformers as hf
from tiny_models import EOS, PAD, VOCABULARY, Kind, build, kinds
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from skeleton_of_thought.local import LocalEngine

TOKENS, LONG = 10, 32
LEAST_GAP = 1e-3
MOST_ROUNDING = 0.1
"""Between the two likeliest tokens: below it, another order of summation might well choose the other one."""

SEEDS = 3
"""The most sets of weights to try for texts that are lively and without near ties."""

SPEED_PROMPT, SPEED_TOKENS, SPEED_REPEATS = 100, 32, 5


@dataclass
class Report:
    """What was found for one type.

    Attributes:
        type: The type.
        model: Its class.
        path: `engine.optimization`.
        cache_kind: `stats().cache_kind`.
        reason: Why the path is not the fastest kind, or why there are no figures.
        outcome: `"equal"`; `"wrong"`; `"refused"`, by the engine; `"failed"`, in the engine; `"not run"`, where the
            type cannot be built or plain `generate` fails; `"timeout"`; `"crash"`.
        cases: For each kind of prompts the number of texts that differ, near ties apart.
        lively: Whether the texts depend on their prompts and have no near ties; otherwise equal texts mean little.
        speed: The engine's seconds for one row, relative to `generate`; None if not measured.
    """

    type: str
    model: str
    path: str = ""
    cache_kind: str = ""
    reason: str = ""
    outcome: str = "not run"
    cases: dict[str, int] = field(default_factory=dict)
    lively: bool = False
    speed: float | None = None


# --- prompts and their own texts ------------------------------------------------------------------


def letters(count: int, seed: int) -> str:
    """A random text of this many tokens."""
    source = random.Random(seed)
    return "".join(chr(0x100 + source.randrange(3, VOCABULARY)) for _ in range(count))


END = letters(9, 1)
MIXED = [letters(1, 2), letters(2, 3), letters(5, 4), END, letters(8, 5) + END, letters(33, 6)]
FIRST, SECOND = letters(120, 7), letters(90, 8)
TWIN = FIRST + letters(7, 9)
SHARED = [FIRST + letters(3, 10), SECOND + letters(5, 11), TWIN, FIRST, SECOND + letters(1, 12), TWIN + MIXED[2]]
LASTING = letters(60, 13)
"""Its text is longer than the others', so that they join while it is written, and later prompts continue it."""


def make_tokenizer() -> Any:
    """A tokenizer with one letter per token."""
    letter = {PAD: "<pad>", EOS: "</s>"}
    core = Tokenizer(models.WordLevel({letter.get(i, chr(0x100 + i)): i for i in range(VOCABULARY)}, unk_token="ā"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>")


class Own:
    """The model's own texts, one prompt at a time.

    Attributes:
        texts: The tokens written for each prompt.
        gaps: For each prompt and token the gap between the two likeliest tokens of that step.
        least_gap: A gap up to this one is a near tie.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.least_gap = max(LEAST_GAP, min(2 * _rounding(model, tokenizer), MOST_ROUNDING))
        self.texts: dict[str, tuple[int, ...]] = {}
        self.gaps: dict[str, list[float]] = {}

    def write(self, prompt: str, tokens: int) -> tuple[int, ...]:
        """The tokens that `generate` writes for a prompt."""
        if prompt not in self.texts:
            ids = torch.tensor([self._tokenizer(prompt)["input_ids"]])
            with torch.inference_mode():
                out = self._model.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
                    return_dict_in_generate=True, output_logits=True,
                )  # fmt: skip
            best = torch.stack(out.logits)[:, 0].float().topk(2).values
            self.gaps[prompt] = (best[:, 0] - best[:, 1]).tolist()
            self.texts[prompt] = tuple(out.sequences[0, ids.shape[1] :].tolist())
        return self.texts[prompt]

    def write_all(self) -> list[str]:
        """Write every text of the sweep. Returns the prompts that continue an answer."""
        answer = self._tokenizer.decode(self.write(LASTING, LONG), skip_special_tokens=True)
        follow_ups = [LASTING + answer + letters(4, 14), LASTING + answer[:5] + letters(6, 15)]
        for prompt in (*MIXED, *SHARED, *follow_ups):
            self.write(prompt, TOKENS)
        return follow_ups

    @property
    def lively(self) -> bool:
        """Whether the texts depend on their prompts, and no near tie excuses a different token."""
        texts = list(self.texts.values())
        various = len(set(texts)) >= len(texts) - 2 and len({token for text in texts for token in text}) > 20
        return various and min(min(gaps) for gaps in self.gaps.values()) > LEAST_GAP

    def differs(self, prompt: str, got: Sequence[int], tokens: int) -> bool:
        """Whether another text was written; one that parts at a near tie does not count."""
        wanted = self.texts[prompt][:tokens]
        at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), None)
        if at is None:
            return len(wanted) != len(got)
        return self.gaps[prompt][at] > self.least_gap


def _rounding(model: Any, tokenizer: Any) -> float:
    """How far the logits after a long prompt are from those in double precision.

    A model that runs its layers again and again (HRM) makes hundredths of a rounding error. 0 if it has no double form.
    """
    ids = torch.tensor([tokenizer(max(SHARED, key=len))["input_ids"]])
    with torch.inference_mode(), contextlib.suppress(Exception):
        own = model(input_ids=ids).logits[0, -1].double()
        return float((own - copy.deepcopy(model).double()(input_ids=ids).logits[0, -1]).abs().max())
    return 0.0


# --- one type ----------------------------------------------------------------------------------


def examine(kind: Kind, *, speed: bool) -> Report:
    """Build a type and compare the engine with it."""
    report = Report(kind.name, kind.model)
    tokenizer = make_tokenizer()
    try:
        model, own, follow_ups = _lively_model(kind, tokenizer)
    except Exception as error:
        report.reason = _told(error)
        return report
    report.lively = own.lively
    try:
        engine = LocalEngine(model, tokenizer)
    except Exception as error:
        report.outcome, report.reason = "refused", _told(error)
        return report
    report.path, report.cache_kind, report.reason = (
        engine.optimization,
        engine.stats().cache_kind,
        engine.stats().reason,
    )
    try:
        with engine:
            _at_rest(engine, own, follow_ups, report.cases)
            if speed:
                report.speed = _ratio(engine, model, tokenizer)
        with LocalEngine(model, tokenizer, prefill_chunk=5, max_batch_size=4) as engine:
            _in_mid_flight(engine, own, follow_ups, report.cases)
    except Exception as error:
        report.outcome, report.reason = "failed", _told(error)
        return report
    report.outcome = "wrong" if any(report.cases.values()) else "equal"
    return report


def _lively_model(kind: Kind, tokenizer: Any) -> tuple[Any, Own, list[str]]:
    for seed in range(SEEDS):
        model = build(kind, seed)
        own = Own(model, tokenizer)
        follow_ups = own.write_all()
        if own.lively:
            break
    return model, own, follow_ups


def _at_rest(engine: LocalEngine, own: Own, follow_ups: Sequence[str], cases: dict[str, int]) -> None:
    """Prompts that are submitted together."""

    def differing(prompts: Sequence[str], tokens: int = TOKENS) -> int:
        done = engine.generate(prompts, max_new_tokens=tokens)
        return sum(own.differs(p, c.token_ids, tokens) for c, p in zip(done, prompts, strict=True))

    cases["short"] = differing(MIXED)
    cases["shared"] = differing([*SHARED, *MIXED[:2]]) + differing(SHARED)
    cases["follow-up"] = differing([LASTING], LONG) + differing([*follow_ups, *MIXED[:1]])


def _in_mid_flight(engine: LocalEngine, own: Own, follow_ups: Sequence[str], cases: dict[str, int]) -> None:
    """Prompts that are submitted one by one, while the first of them is being written."""
    prompts = [LASTING, follow_ups[1], *SHARED, *MIXED]
    lengths = [LONG, *([TOKENS, 3, 9, 1, 6, TOKENS, 2] * 2)[: len(prompts) - 1]]
    streams: list[Any] = []
    for prompt, length in zip(prompts, lengths, strict=True):
        streams.append(engine.stream(prompt, max_new_tokens=length))
        next(streams[0], None)
    for stream in streams:
        for _ in stream:
            pass
    got = [stream.completion.token_ids for stream in streams]
    cases["mid-flight"] = sum(own.differs(p, g, n) for g, p, n in zip(got, prompts, lengths, strict=True))


def _ratio(engine: LocalEngine, model: Any, tokenizer: Any) -> float:
    """The engine's seconds for a single row of a new prompt, relative to `generate`."""
    # The model's own: `generate` would fill in an end that another config lacks, and stop there.
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.eos_token_id = None
    ratios = []
    for repeat in range(SPEED_REPEATS + 1):
        prompt = letters(SPEED_PROMPT, 100 + repeat)
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        began = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=SPEED_TOKENS)
        between = time.perf_counter()
        assert out.shape[1] == ids.shape[1] + SPEED_TOKENS, "both must write the same number of tokens"
        engine.generate([prompt], max_new_tokens=SPEED_TOKENS, ignore_eos=True)
        ratios.append((time.perf_counter() - between) / (between - began))
    return statistics.median(ratios[1:])  # the first one warms up


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


# --- all types --------------------------------------------------------------------------------


@dataclass
class _Child:
    kind: Kind
    process: Any
    answer: Connection
    ends: float


def _child(kind: Kind, speed: bool, answer: Connection) -> None:
    warnings.simplefilter("ignore")
    answer.send(examine(kind, speed=speed))
    answer.close()
    sys.stdout.flush()
    os._exit(0)  # without handlers of the parent's


def sweep(types: Sequence[Kind], *, jobs: int, speed: bool, limit: float) -> list[Report]:
    """Examine types, each in a process of its own, and print a line for each."""
    context = multiprocessing.get_context("fork")
    waiting, running, reports = list(types), list[_Child](), list[Report]()
    while waiting or running:
        while waiting and len(running) < jobs:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(waiting[0], speed, theirs))
            process.start()
            theirs.close()
            running.append(_Child(waiting.pop(0), process, ours, time.monotonic() + limit))
        wait([child.answer for child in running], timeout=1)
        for child in list(running):
            if (report := _finished(child)) is not None:
                running.remove(child)
                reports.append(report)
                print(line(report), flush=True)
    return sorted(reports, key=lambda report: [kind.name for kind in types].index(report.type))


def _finished(child: _Child) -> Report | None:
    """The report of a process that ended or whose time is over; None while it runs."""
    report = Report(child.kind.name, child.kind.model)
    if child.answer.poll():
        try:
            report = child.answer.recv()
        except EOFError:
            child.process.join()
            report.outcome, report.reason = "crash", f"its process ended with {child.process.exitcode}"
    elif time.monotonic() < child.ends:
        return None
    else:
        report.outcome, report.reason = "timeout", "the limit of time (--limit)"
        child.process.kill()
    child.process.join()
    child.answer.close()
    return report


def line(report: Report) -> str:
    """A row of the table."""
    cases = " ".join(str(report.cases.get(case, "-")) for case in ("short", "shared", "follow-up", "mid-flight"))
    speed = "-" if report.speed is None else f"{report.speed:.2f}"
    dull = "" if report.lively or not report.cases else "(dull texts) "
    return (
        f"{report.type:<28} {report.path or '-':<10} {report.cache_kind or '-':<9} {report.outcome:<8} {cases:<8} "
        f"{speed:>6}  {dull}{report.reason}"
    ).rstrip()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", type=lambda text: text.split(";"), help="only these types (default all)")
    parser.add_argument("--jobs", type=int, default=1, help="types examined at once; 1 for true speeds (default 1)")
    parser.add_argument("--no-speed", action="store_true", help="compare texts only")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one type (default 120)")
    args = parser.parse_args()
    known = list(kinds())
    if unknown := set(args.types or ()) - {kind.name for kind in known}:
        parser.error(f"unknown types: {', '.join(sorted(unknown))}")
    by_name = {kind.name: kind for kind in known}
    args.kinds = known if args.types is None else [by_name[name] for name in args.types]
    return args


def main() -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        # OpenMP's threads do not survive a fork, and count in the new process nevertheless: all others would sleep.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    args = arguments()
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    # What every type needs is imported before the processes fork.
    Own(build(Kind("llama", "LlamaForCausalLM"), 0), make_tokenizer()).write(MIXED[0], 2)
    print(
        "type, path, kind of cache, outcome, texts that differ (short, shared, follow-up, mid-flight), seconds/generate"
    )
    reports = sweep(args.kinds, jobs=args.jobs, speed=not args.no_speed, limit=args.limit)
    outcomes = [report.outcome for report in reports]
    counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    slow = sorted(report.type for report in reports if (report.speed or 0.0) > 1.1)
    print(f"\n{counts}; slower than 1.1 times: {', '.join(slow) or 'none'}")
    result = {"benchmark": "architectures", "transformers": hf.__version__, "torch_threads": torch.get_num_threads()}
    print(json.dumps(result | {"outcomes": counts, "slower": slow, "types": [asdict(report) for report in reports]}))


if __name__ == "__main__":
    main()
