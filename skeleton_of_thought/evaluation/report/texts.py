"""What the report says in sentences: what was compared, what came of it, and what it does not show."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from skeleton_of_thought.evaluation.report.rates import WinRate, win_rates
from skeleton_of_thought.evaluation.report.wording import form_words, judge_words, number, one_line, share, times
from skeleton_of_thought.evaluation.single_page import as_json
from skeleton_of_thought.evaluation.verdicts import HUMAN
from skeleton_of_thought.evaluation.ways import WAYS

__all__ = ["compared", "headlines", "limits", "setup", "title", "ways"]

_SHOWN_APART = {"version", "kind", "package", "python", "platform", "processors", "versions", "model", "judge", "ways"}
_SHOWN_APART |= {"questions", "started", "runs", "settings", "judge_prompt"}


def title(figures: Mapping[str, Any]) -> str:
    """The report's heading."""
    model = figures["manifest"].get("model")
    model = "the demo model" if model == "demo" else model
    return f"Does Skeleton-of-Thought pay with {one_line(model, 80)}?" if model else "Does Skeleton-of-Thought pay?"


def compared(figures: Mapping[str, Any]) -> str:
    """What was compared, and how, in one paragraph."""
    people = "1 person" if figures["voters"] == 1 else f"{figures['voters']} people"
    names = dict.fromkeys(pair["judge"] for pair in figures["verdicts"])
    judges = [people if name == HUMAN else one_line(judge_words(name), 80) for name in names]
    repeats = f", {figures['repeats']} times each" if figures["repeats"] > 1 else ""
    judged = f" Pairs of answers were compared blind by {_listed(judges)}." if judges else ""
    return (
        f"{_count(figures['questions'], 'question')}, answered in {_count(len(figures['ways']), 'way')}{repeats}, with "
        "the same model and the same settings. The order of the ways rotates from question to question, so that none "
        f"has the better time.{judged}"
    )


def ways(figures: Mapping[str, Any]) -> list[str]:
    """What each way does."""
    return [f"{way}: {WAYS[way].description}" if way in WAYS else way for way in figures["ways"]]


def headlines(figures: Mapping[str, Any]) -> list[str]:
    """The main figures in words, with their intervals."""
    found = [*_speed(figures), *_quality(figures)]
    return found or ["There are no two answers to the same question yet, so there is nothing to compare."]


def _speed(figures: Mapping[str, Any]) -> Iterator[str]:
    base = figures["base"]
    for way, each in figures["speed"].items():
        if each["ratio_median"] is None:
            continue
        of = _count(each["questions"], "question")
        text = f"{way} was {_faster(each['ratio_median'])} as {base} ({_interval(each['interval'], times)}{of})."
        if each["ratio_equal_length"] is not None:
            interval = _interval(each["interval_equal_length"], times).rstrip(", ")
            at = f" ({interval})" if interval else ""
            text += f" At equal length, {_faster(each['ratio_equal_length'])}{at}."
        text += f" It was faster on {each['faster']} of {each['questions']}."
        if each["interval"] is not None and each["interval"][0] <= 1 <= each["interval"][1]:
            text += " The interval holds 1: these questions do not show which is faster."
        yield text + _first_text(figures["summary"], way, base)


def _first_text(summary: Mapping[str, Any], way: str, base: str) -> str:
    """When a reader sees something: a skeleton comes before the first text, which no speed-up shows."""
    first, of_base = (summary[each]["first_text"]["median"] for each in (way, base))
    if first is None or of_base is None:
        return ""
    return f" Its first text came after {number(first)} s, that of {base} after {number(of_base)} s (medians)."


def _faster(ratio: float) -> str:
    return f"{ratio:.2f} times as fast"


def _interval(interval: Any, shown: Any) -> str:
    return f"95 % interval {shown(interval[0]).rstrip('×% ')} to {shown(interval[1]).rstrip('×')}, " if interval else ""


def _quality(figures: Mapping[str, Any]) -> Iterator[str]:
    found: dict[tuple[str, str, str], list[WinRate]] = {}
    for each in win_rates(figures):
        if not each.category:
            found.setdefault((each.judge, each.way, each.other), []).append(each)
    for (_, way, other), forms in found.items():
        rates = " and in ".join(map(_rate, forms))
        flips = sum(each.tally["flips"] for each in forms)
        pairs = sum(each.tally["pairs"] for each in forms)
        text = f"{_who(forms[0])} preferred {way} to {other} in {rates}; ties count half."
        if all(each.interval is not None and each.interval[0] <= 0.5 <= each.interval[1] for each in forms):
            holds = "interval holds" if len(forms) == 1 else "intervals hold"
            text += f" The {holds} 50 %: these verdicts do not show which is better."
        text += _controlled(figures, forms[0])
        if pairs:
            text += f" With the order of the answers, {flips} of {pairs} verdicts changed the winner."
        yield text


def _controlled(figures: Mapping[str, Any], of: WinRate) -> str:
    kinds = {"length": "at equal length", "style": "in equal style", "both": "with both equal"}
    found = [
        (name, each[kind])
        for each in figures["controlled"]
        if (each["judge"], each["a"], each["b"]) == (of.judge, of.way, of.other)
        for kind, name in kinds.items()
    ]
    rates = [
        f"{share(each['rate'])} {name} ({_interval(each['interval'], share).rstrip(', ')})"
        for name, each in found
        if each["rate"] is not None
    ]
    text = f" The rate would be {_listed(rates)}." if rates else ""
    missing: dict[str, list[str]] = {}
    for name, each in found:
        if each["rate"] is None and each["why"]:
            missing.setdefault(each["why"], []).append(name)
    return text + "".join(f" There is no rate {_listed(names)}: {why}" for why, names in missing.items())


def _rate(each: WinRate) -> str:
    interval = _interval(each.interval, share).rstrip(", ")
    of = f"{share(each.rate)} of {_count(each.tally['questions'], 'question')} {form_words(each.form)}"
    return f"{of} ({interval})" if interval else of


def _who(each: WinRate) -> str:
    return "People" if each.judge == HUMAN else f"The judge {one_line(each.judge, 80)}"


def limits(figures: Mapping[str, Any]) -> list[str]:
    """What the report does not show."""
    judges = {pair["judge"] for pair in figures["verdicts"]}
    of = f"these {figures['questions']} questions" if figures["questions"] != 1 else "this question"
    said = [
        f"It is about {of}. The intervals say how much the figures would vary with other questions of the same kind, "
        "not how they would be with questions of another kind.",
        "Seconds are those of this model, on this machine or server, at its load of that time. Points are written in "
        "parallel, which saves time where there is capacity to spare: at a saturated server it saves none.",
        "No figure says whether an answer is true.",
    ]
    if not judges:
        said.append(
            "Nobody compared the answers: the figures of the texts say how they are made, not which are better."
        )
    if judges - {HUMAN}:
        said.append(
            "A judge is a model. Models prefer long texts, lists, the first place and their own style. Look at the "
            "flips, at the verdicts on plain paragraphs and at the controlled rates before you trust a win rate. The "
            "rate at equal length leaves what lists do, and the one in equal style leaves what length does."
        )
    if HUMAN in judges:
        said.append("Those who voted may tell the ways apart by the form of the answers, though no name was shown.")
    return said


def setup(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """With which model, questions, settings and versions: names and values."""
    manifest = figures["manifest"]
    told: list[tuple[str, Any]] = [("Model", manifest.get("model")), ("Judges", manifest.get("judge"))]
    told.append(("Ways", ", ".join(figures["ways"])))
    questions = manifest.get("questions")
    if isinstance(questions, Mapping):
        digest = str(questions.get("sha256", ""))[:12]
        file = f"{questions.get('count', '?')} in {questions.get('file', '?')}"
        told.append(("Questions", file + (f" (SHA-256 {digest}…)" if digest else "")))
    settings = manifest.get("settings")
    told += sorted(settings.items()) if isinstance(settings, Mapping) else []
    told += [(name, value) for name, value in manifest.items() if name not in _SHOWN_APART]
    told += [("skeleton-of-thought", manifest.get("package")), ("Python", manifest.get("python"))]
    told += [("Platform", manifest.get("platform")), ("Processors", manifest.get("processors"))]
    versions = manifest.get("versions")
    told += sorted(versions.items()) if isinstance(versions, Mapping) else []
    runs = manifest.get("runs")
    told += [("Started", manifest.get("started")), ("Commands", len(runs) if isinstance(runs, list) else None)]
    told.append(("Last command", _last_command(runs)))
    return [(str(name), _value(value)) for name, value in told if value not in (None, "", [], {})]


def _last_command(runs: Any) -> str:
    arguments = runs[-1].get("arguments") if isinstance(runs, list) and runs and isinstance(runs[-1], Mapping) else None
    return shlex.join(["sot", *map(str, arguments)]) if isinstance(arguments, list) else ""


def _value(value: Any) -> str:
    if isinstance(value, str):
        return one_line(value, 300)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return one_line(", ".join(value), 300)
    return one_line(as_json(value), 300)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
