"""Questions for several items, each for itself: how many the rules find on labelled prompts, and how many wrongly.

Of the prompts of `tests/data/items/labelled.jsonl`, half ask the same of several items, or one thing for several
targets, or for several different things; the other half look like them, but need one answer. Each row has the texts
of its items as the prompt has them ("1", "2", ... for different things, which are nowhere in the prompt), the form, the
language, the kind of prompt, and its part. A third of the rows, `held_out`, was drawn by chance within each label and
language, and some kinds are only there: rules may be tuned on the part `seen` only, whose misses `--show` prints.

    python benchmarks/items_found.py                    # by part, language and kind
    python benchmarks/items_found.py --show             # and each prompt of the part seen that goes wrong
    python benchmarks/items_found.py --labels my.jsonl  # other prompts with these fields

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from skeleton_of_thought.routers.items import find_items
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS

LABELS = Path(__file__).parent.parent / "tests" / "data" / "items" / "labelled.jsonl"
SEEN = "seen"


@dataclass(frozen=True)
class Labelled:
    """A prompt with the items that it asks for.

    Attributes:
        text: The prompt.
        items: The items in order, as the prompt has them; () if the prompt needs one answer.
        form: "list", "targets", "different", or "" if the prompt needs one answer.
        language: The language of the prompt, as in `routers.question.LANGUAGES`.
        kind: What the prompt is, in a word or two.
        part: "seen" or "held_out".
    """

    text: str
    items: tuple[str, ...]
    form: str
    language: str
    kind: str
    part: str


@dataclass(frozen=True)
class Result:
    """What the rules found in one prompt.

    Attributes:
        prompt: The prompt.
        found: The titles of the items that were found; None if the rules found no items.
        form: The form that was found, "" without one.
        seconds: How long it took.
    """

    prompt: Labelled
    found: tuple[str, ...] | None
    form: str
    seconds: float

    @property
    def exact(self) -> bool:
        """The form is right, and so is each item."""
        if self.found is None or self.form != self.prompt.form:
            return False
        if self.form == "different":
            return len(self.found) == len(self.prompt.items)
        return self.found == tuple(" ".join(item.split()) for item in self.prompt.items)

    @property
    def wrong(self) -> bool:
        """The rules found items where there are none, or none, or others."""
        return self.found is not None if not self.prompt.items else not self.exact


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    results = [look(prompt) for prompt in read(args.labels)]
    parts = {"all": figures(results), **by("part", results)}
    languages, kinds = by("language", results), by("kind", results)
    print_table("part", parts)
    print_table("language", languages)
    print_table("kind, with mistakes", {kind: row for kind, row in kinds.items() if mistakes(row)})
    if args.show:
        show(result for result in results if result.wrong and result.prompt.part == SEEN)
    milliseconds = round(median(result.seconds for result in results) * 1e3, 4)
    print(json.dumps({"parts": parts, "languages": languages, "kinds": kinds, "ms": milliseconds}))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, default=LABELS, metavar="JSONL", help="the labelled prompts")
    parser.add_argument("--show", action="store_true", help="print the prompts of the part seen that go wrong")
    args = parser.parse_args(argv)
    if not args.labels.is_file():
        parser.error(f"there is no {args.labels}: give a file of labelled prompts with --labels")
    return args


def read(path: Path = LABELS) -> list[Labelled]:
    """The labelled prompts of a file with one JSON object a line."""
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return [Labelled(**{**row, "items": tuple(row["items"])}) for row in rows]


def look(prompt: Labelled) -> Result:
    """What the rules find in a prompt, as the router asks them: not without the cheap condition on its text."""
    began = time.perf_counter()
    found = find_items(prompt.text) if MAY_HOLD_ITEMS.search(prompt.text) else None
    seconds = time.perf_counter() - began
    if found is None:
        return Result(prompt, None, "", seconds)
    return Result(prompt, tuple(point.title for point in found.points), found.form, seconds)


def figures(results: Iterable[Result]) -> dict[str, int]:
    """The counts of some prompts.

    Returns:
        `items`, the prompts that ask for items; `found` of them, and `exact`, those of the found with the right form
        and items; `others`, the prompts that need one answer, and `false` of them, in which items were found.
    """
    results = list(results)
    asked = [result for result in results if result.prompt.items]
    others = [result for result in results if not result.prompt.items]
    return {
        "items": len(asked),
        "found": sum(result.found is not None for result in asked),
        "exact": sum(result.exact for result in asked),
        "others": len(others),
        "false": sum(result.found is not None for result in others),
    }


def by(field: str, results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """The counts for each value of a field of the prompts."""
    values = sorted({getattr(result.prompt, field) for result in results})
    return {value: figures(r for r in results if getattr(r.prompt, field) == value) for value in values}


def mistakes(row: Mapping[str, int]) -> int:
    """The prompts in which the rules find items wrongly, or not, or others."""
    return row["items"] - row["exact"] + row["false"]


def print_table(title: str, rows: Mapping[str, Mapping[str, int]]) -> None:
    print(f"{title:24}{'items':>7}{'found':>12}{'exact':>12}{'others':>9}{'false':>11}")
    for name, row in rows.items():
        found = share(row["found"], row["items"])
        print(
            f"  {name:22}{row['items']:>7}{found:>12}{share(row['exact'], row['found']):>12}"
            f"{row['others']:>9}{share(row['false'], row['others']):>11}"
        )
    print()


def share(count: int, of: int) -> str:
    return f"{count} {count / of:>6.1%}" if of else "-"


def show(results: Iterable[Result]) -> None:
    for result in results:
        prompt = result.prompt
        print(f"--- {prompt.language}, {prompt.kind}: {prompt.form or 'one answer'}, found: {result.form or 'none'}")
        print(prompt.text)
        if result.found is not None:
            print(f"    found: {list(result.found)}\n    right: {list(prompt.items)}")
    print()


if __name__ == "__main__":
    main()
