"""The quality of the project's prompts with a small local model: the number of usable skeletons and expansions.

A large model copes with any wording; a small one shows the difference between a good and a bad wording. The answers are
made as in use: `AnswerFlow`, pumped by `drive.run`, over a `LocalEngine`, greedy. The counts cover all questions, and
separately those with the label of a suitable question.

Skeletons, per question
    raw          the list as written has 3 to 10 points
    raw, clean   the same, without a repeated title, and every title is short
    usable       3 to 10 points are left after the flow's de-duplication and its cut at 10
    all short    usable, and every title has at most 8 words
    direct       no point at all: a user gets a direct answer (not written here)

Expansions, per point; "stays" counts those without any of the following faults
    empty        the text has no word
    off topic    it shares no word (first five letters) with its own title or the question, apart from stop words
    drifts       it covers more of a sibling's title (at least half) than of its own, without words of both titles and
                 words of the question
    lists        it has a line with a list mark, two list numbers within a line, or two siblings' titles
    echoes       it has 8 words in a row from the prompt, examples included; 12 if its own title is long
    loops        more than a fifth of its 4-word sequences occur before in the text
    repeats      more than a third of its 4-word sequences occur in an earlier point of the same answer
    unfinished   it does not end like a sentence

"own words" is stricter than "off topic" and no part of "stays": the text has a word of its title, not only of the
question. All counts are automatic and do not show whether a text is true or good.

    python benchmarks/prompts.py --questions 80

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from questions import QUESTIONS, load_questions

from skeleton_of_thought.drive import run
from skeleton_of_thought.events import AnswerDone, AnswerFailed
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.local import CompletionStream, LocalEngine
from skeleton_of_thought.parsing.parser import parse_skeleton
from skeleton_of_thought.types import Answer, Call, Conversation, Expansion, Reply

FEWEST, MOST, SHORT = 3, 10, 8
FAULTS = ("empty", "off topic", "drifts", "lists", "echoes", "loops", "repeats", "unfinished")

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_MARKED_LINE = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.)]|#+)\s", re.MULTILINE)
_INLINE_NUMBER = re.compile(r"(?:^|[\s(])\d{1,2}[.)](?=\s+\D)")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]*_]*$")
_STOP_WORDS = frozenset(
    _WORD.findall("""
        a about all also an and any are as at be been being but by can could did do does each for from had has have
        how if in into is it its many may more most much must no not of on or other our out over should so some such
        than that the their them then there these they this those through to too up use used using very was were
        what when where which while who why will with would you your
    """)
)


# --- the measures ---------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def stems(text: str) -> set[str]:
    """The content words of a text, each cut to five letters: a crude stem, but the same for all texts."""
    return {word[:5] for word in words(text) if word not in _STOP_WORDS}


def runs(text: str, length: int) -> list[tuple[str, ...]]:
    """All sequences of `length` words."""
    found = words(text)
    return [tuple(found[i : i + length]) for i in range(len(found) - length + 1)]


def covered(title: set[str], text: set[str]) -> float:
    """The share of a title's content words that occur in a text."""
    return len(title & text) / len(title) if title else 0.0


def faults(expansion: Expansion, answer: Answer, prompt: str) -> set[str]:
    """The faults of an expansion, as the module docstring defines them."""
    text = expansion.text
    if not words(text):
        return {"empty"}
    own, written = stems(expansion.point.title), stems(text)
    siblings = [e for e in answer.expansions if e.point.index != expansion.point.index]
    theirs = [stems(e.point.title) for e in siblings]
    question = stems(answer.question)
    known = own | question
    fours = runs(text, 4)
    earlier = {run for e in siblings if e.point.index < expansion.point.index for run in runs(e.text, 4)}
    echo = 12 if len(words(expansion.point.title)) >= 8 else 8
    titles = sum(_has_title(text, e.point.title) for e in siblings)
    checks = {
        # Without a content word in title and question there is nothing to compare with.
        "off topic": bool(known) and not known & written,
        "drifts": any(_drifts(own - question, other - question, written) for other in theirs),
        "lists": bool(_MARKED_LINE.search(text)) or len(_INLINE_NUMBER.findall(text)) > 1 or titles > 1,
        "echoes": bool(set(runs(text, echo)) & set(runs(prompt, echo))),
        "loops": len(fours) - len(set(fours)) > len(fours) / 5,
        "repeats": sum(run in earlier for run in fours) > len(fours) / 3,
        "unfinished": not _SENTENCE_END.search(text.rstrip()),
    }
    return {name for name, found in checks.items() if found}


def _drifts(own: set[str], other: set[str], text: set[str]) -> bool:
    # Two titles can be distinguished only if each has a word of its own.
    if own <= other or other <= own:
        return False
    theirs = covered(other - own, text)
    return theirs >= 0.5 and theirs > covered(own - other, text)


def _has_title(text: str, title: str) -> bool:
    # A title of one word occurs in many texts by chance.
    return len(words(title)) > 1 and f" {' '.join(words(title))} " in f" {' '.join(words(text))} "


def in_range(titles: Sequence[str]) -> bool:
    return FEWEST <= len(titles) <= MOST


def all_short(titles: Sequence[str]) -> bool:
    return all(len(title.split()) <= SHORT for title in titles)


def all_different(titles: Sequence[str]) -> bool:
    return len({title.casefold() for title in titles}) == len(titles)


# --- the answers ----------------------------------------------------------------------------------


@dataclass
class Made:
    """An answer, the model's text for its skeleton, and the prompt of each point by its index."""

    answer: Answer
    skeleton: str
    prompts: dict[int, str]


class _Stream:
    """A completion for a driver to read or cancel. It keeps the text of the skeleton's call."""

    def __init__(self, stream: CompletionStream, keep: list[str]) -> None:
        self._stream = stream
        self._keep = keep
        self.cancel = self.close = stream.close

    def __iter__(self) -> Iterator[str | Reply]:
        for text in self._stream:
            self._keep.append(text)
            yield text
        yield Reply(self._stream.completion.usage, self._stream.completion.finish_reason)


def answers(engine: LocalEngine, questions: Sequence[str], max_tokens: int) -> list[Made]:
    """The answers to all questions, made at the same time, with up to 64 open calls."""
    written: list[list[str]] = [[] for _ in questions]
    prompts: list[dict[int, str]] = [{} for _ in questions]

    def open_call(call: Call, index: int) -> Iterable[str | Reply]:
        assert call.prompt is not None
        if call.stage == "direct":
            return iter([Reply()])
        if call.point is not None:
            # All turns, since a point may echo any of them.
            prompts[index][call.point.index] = "\n\n".join(message.text for message in call.prompt.messages)
            return _Stream(engine.stream(call.prompt, max_new_tokens=max_tokens), [])
        written[index][:] = [call.prompt.prefill]
        return _Stream(engine.stream(call.prompt, max_new_tokens=max_tokens), written[index])

    flows = [AnswerFlow(Conversation.of(question), prefill={"skeleton", "point"}) for question in questions]
    done: dict[int, Answer] = {}
    for index, event in run(flows, open_call, max_concurrency=64):
        if isinstance(event, AnswerFailed):
            raise event.error
        if isinstance(event, AnswerDone):
            done[index] = event.answer
            print(f"\r{len(done)} of {len(questions)} answers", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [Made(done[i], "".join(written[i]), prompts[i]) for i in range(len(questions))]


# --- the counts -----------------------------------------------------------------------------------


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0


def count_skeletons(made: Sequence[Made]) -> dict[str, float]:
    raw = [parse_skeleton(m.skeleton).titles for m in made]
    kept = [m.answer.skeleton.titles if m.answer.route == "skeleton" else () for m in made]
    titles = [title for some in kept for title in some]
    return {
        "raw_3_to_10": sum(map(in_range, raw)),
        "raw_3_to_10_clean": sum(in_range(r) and all_different(r) and all_short(r) for r in raw),
        "usable_3_to_10": sum(map(in_range, kept)),
        "usable_all_short": sum(in_range(k) and all_short(k) for k in kept),
        "direct": sum(m.answer.route == "direct" for m in made),
        "points": len(titles),
        "points_short": sum(len(title.split()) <= SHORT for title in titles),
        "median_points": median([len(k) for k in kept]),
        "median_title_words": median([len(title.split()) for title in titles]),
        "titles_dropped_as_repeated": sum(len(r) - len({t.casefold() for t in r}) for r in raw),
    }


def count_expansions(made: Sequence[Made]) -> dict[str, float]:
    found = dict.fromkeys(FAULTS, 0)
    stays = own_words = 0
    lengths: list[int] = []
    for m in made:
        for expansion in m.answer.expansions:
            wrong = faults(expansion, m.answer, m.prompts[expansion.point.index])
            for fault in wrong:
                found[fault] += 1
            stays += not wrong
            own_words += bool(stems(expansion.point.title) & stems(expansion.text))
            lengths.append(len(words(expansion.text)))
    return {
        "expansions": len(lengths),
        "non_empty": len(lengths) - found["empty"],
        "stays": stays,
        "own_words": own_words,
        **{fault.replace(" ", "_"): count for fault, count in found.items()},
        "median_words": median(lengths),
        "longest_words": max(lengths, default=0),
    }


def count(made: Sequence[Made]) -> dict[str, Any]:
    return {"questions": len(made), "skeletons": count_skeletons(made), "expansions": count_expansions(made)}


def show(title: str, counts: dict[str, float], whole: str) -> None:
    print(f"\n{title}")
    for name, value in counts.items():
        share = f"{100 * value / counts[whole]:>6.0f} %" if counts.get(whole) and name in _SHARES else ""
        print(f"  {name.replace('_', ' '):<30}{value:>8g}{share}")


_SHARES = frozenset({"points_short", "non_empty", "stays", "own_words", *(f.replace(" ", "_") for f in FAULTS)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=80, help="answer the first N questions (default 80)")
    parser.add_argument("--csv", type=Path, help=f"a CSV file with a column `question` (default {QUESTIONS})")
    parser.add_argument("--model", help="hub id, directory or GGUF file (default: the demo model)")
    parser.add_argument("--max-tokens", type=int, default=200, help="the most tokens of any call (default 200)")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N answers with their faults")
    args = parser.parse_args()

    questions = load_questions(args.csv, args.questions)
    start = time.perf_counter()
    with LocalEngine.from_pretrained(args.model) as engine:
        made = answers(engine, [question.text for question in questions], args.max_tokens)
    seconds = time.perf_counter() - start
    for m in made[: args.show]:
        print(f"\n## {m.answer.question}")
        for e in m.answer.expansions:
            wrong = ", ".join(sorted(faults(e, m.answer, m.prompts[e.point.index])))
            print(f"{e.point} -> {e.text!r}" + (f"   [{wrong}]" if wrong else ""))

    suited = [m for m, question in zip(made, questions, strict=True) if question.suited]
    counts = {"all": count(made), "suited": count(suited)}
    for group, found in counts.items():
        if found["questions"]:
            show(f"Skeletons of {found['questions']} questions ({group})", found["skeletons"], "points")
            show(f"Expansions ({group})", found["expansions"], "expansions")
    print(f"\n{seconds:.0f} s")
    print(
        json.dumps(
            {
                "benchmark": "prompts",
                "model": args.model or "demo",
                **counts["all"],
                "suited": counts["suited"],
                "seconds": round(seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
