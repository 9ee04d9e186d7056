"""How far a model in half precision is from the same weights in float32, as the local engine runs it.

The model's weights are rounded to bfloat16 and to float16, as checkpoints that were saved in these types have them. A
fixed text is cut into `--rows` rows, and each row's next token is predicted step by step, from the text itself. Each
setting has, against the same rounded weights in float32:

    logits       the largest difference of a logit, as a share of the largest logit of its token; and the median of
                 the differences at all tokens
    choices      the share of tokens for which the most likely next token is the same
    perplexity   of the text; `weights` is that of the rounded weights in float32

The settings are the engine's own choice (`optimize="auto"`) with one row and with all rows, since products differ, and
transformers' own modules in the type of the weights.

    python benchmarks/drift.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from handbooks import HANDBOOKS
from transformers import DynamicCache

from skeleton_of_thought.local.decoding_path import cache_argument
from skeleton_of_thought.local.kv import RowsCache
from skeleton_of_thought.local.models import load_model
from skeleton_of_thought.local.runner import ModelRunner

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
TEXT = " ".join(page for pages in HANDBOOKS.values() for page in pages.values())


def by_engine(runner: ModelRunner, ids: torch.Tensor) -> torch.Tensor:
    """The logits of each token's step, `[rows, tokens, vocabulary]`, by the engine's forward."""
    rows, tokens = ids.shape
    cache, steps = RowsCache(rows, tokens), []
    for at in range(tokens):
        steps.append(runner.forward(ids[:, at : at + 1], cache, torch.full((rows, 1), at)))
        cache.advance()
    return torch.cat(steps, 1)


def by_modules(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The same by transformers' own modules."""
    cache = {str(cache_argument(model)): DynamicCache(config=model.config)}
    steps = [model(input_ids=ids[:, at : at + 1], **cache).logits for at in range(ids.shape[1])]
    return torch.cat(steps, 1).float()


def perplexity(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """The perplexity of all tokens but each row's first."""
    return math.exp(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def compare(logits: torch.Tensor, wanted: torch.Tensor, ids: torch.Tensor) -> dict[str, float]:
    """The figures of a setting."""
    distances = (logits - wanted).abs().amax(-1) / wanted.abs().amax(-1)
    return {
        "logits_max": float(f"{float(distances.max()):.2g}"),
        "logits_median": float(f"{float(distances.median()):.2g}"),
        "choices": round(float((logits.argmax(-1) == wanted.argmax(-1)).float().mean()), 4),
        "perplexity": round(perplexity(logits, ids), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="hub id, directory or GGUF file (default: the demo model)")
    parser.add_argument("--rows", type=int, default=16, help="rows of the text (default 16)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each row (default 48)")
    args = parser.parse_args()
    model, tokenizer = load_model(args.model, dtype=torch.float32)
    found = tokenizer(TEXT, return_tensors="pt").input_ids[0, : args.rows * args.tokens]
    if len(found) < args.rows * args.tokens:
        parser.error(f"the text has {len(found)} tokens: choose fewer rows or tokens")
    ids = found.view(args.rows, args.tokens)
    report: dict[str, Any] = {"benchmark": "drift", "rows": args.rows, "tokens": args.tokens, "settings": {}}
    with torch.inference_mode():
        report["float32"] = {"perplexity": round(perplexity(by_engine(ModelRunner(model), ids), ids), 3)}
        print(f"float32: perplexity {report['float32']['perplexity']}")
        print(f"{'weights':10}{'setting':22}{'logits, max':>12}{'median':>9}{'choices':>9}{'perplexity':>12}")
        for name, dtype in TYPES.items():
            half = copy.deepcopy(model).to(dtype)
            wanted = by_modules(copy.deepcopy(half).float(), ids)
            print(f"{name:10}{'float32':22}{'':30}{perplexity(wanted, ids):>12.3f}", flush=True)
            report["settings"][name] = {"float32": {"perplexity": round(perplexity(wanted, ids), 3)}}
            runner = ModelRunner(half)
            ways: dict[str, Callable[[], torch.Tensor]] = {
                "engine, 1 row": lambda runner=runner: torch.cat([by_engine(runner, row[None]) for row in ids]),
                f"engine, {args.rows} rows": lambda runner=runner: by_engine(runner, ids),
                "transformers": lambda half=half: by_modules(half, ids),
            }
            for way, run in ways.items():
                row = report["settings"][name][way] = compare(run(), wanted, ids)
                print(
                    f"{name:10}{way:22}{row['logits_max']:>12.1e}{row['logits_median']:>9.1e}{row['choices']:>9.1%}"
                    f"{row['perplexity']:>12.3f}",
                    flush=True,
                )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
