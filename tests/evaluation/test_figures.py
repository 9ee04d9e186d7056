"""All figures of a run: recomputed from its lines by other code, JSON-ready, and honest about what weakens them."""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from skeleton_of_thought.evaluation.figures import Figures, base_of, figures_of
from skeleton_of_thought.evaluation.rows import PointRow, Row, from_json, to_json
from skeleton_of_thought.evaluation.verdicts import FORMS, HUMAN, Verdict

WAYS = ("normal", "sot", "auto")
CATEGORIES = ("writing", "math", "facts")
WORDS = ("tea", "wakes", "calms", "a", "reader", "who", "likes", "to", "walk", "in", "the", "rain", "with", "friends")


def _texts(draw: random.Random, count: int, longest: int) -> list[str]:
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, longest))).capitalize() + "." for _ in range(count)]


def _answer(draw: random.Random, number: int, way: str, repeat: int) -> Row:
    direct = way == "normal" or (way == "auto" and number % 3 == 0)
    texts = _texts(draw, 1 if direct else draw.randint(2, 6), 90 if direct else 25)
    points = tuple(
        PointRow(index, "Tea", text, finish_reason="length" if draw.random() < 0.1 else "stop")
        for index, text in enumerate(texts, 1)
    )
    text = "\n\n".join(f"{point.index}. {point.title}: {point.text}" for point in points)
    return Row(
        key=f"{number} {way} {repeat}",
        number=number,
        id=f"v{number}",
        question=f"Question {number}?",
        way=way,
        model="scripted",
        repeat=repeat,
        category=CATEGORIES[number % 3],
        text=texts[0] if direct else text,
        route="direct" if direct else "skeleton",
        seconds=draw.uniform(1, 4) * (2 if direct else 1),
        first_text=draw.uniform(0.1, 1),
        input_tokens=draw.randint(10, 300),
        output_tokens=draw.randint(100, 300),
        answer_tokens=draw.randint(50, 100),
        calls=1 if direct else len(points) + 1,
        finish_reason="stop",
        points=() if direct else points,
    )


def run_of(questions: int = 20, repeats: int = 2, seed: int = 3) -> list[Row]:
    """Rows of a run in which some answers failed, and some of those were retried."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for number in range(1, questions + 1):
        for repeat in range(1, repeats + 1):
            for way in draw.sample(WAYS, 3):
                row = _answer(draw, number, way, repeat)
                if draw.random() < 0.15:
                    rows.append(replace(row, text="", points=(), error="TimeoutError: no answer in time", calls=2))
                    if draw.random() < 0.5:
                        continue
                rows.append(row)
    return rows


MANIFEST: dict[str, Any] = {
    "version": 1,
    "kind": "eval",
    "model": "scripted",
    "ways": WAYS,
    "questions": {"file": "q.jsonl", "count": 20},
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return run_of()


@pytest.fixture(scope="module")
def figures(rows) -> Figures:
    return figures_of(MANIFEST, rows)


# What follows computes figures from the lines of a file with the shortest code that does, and nothing of the package.


def _middle(values: list[float]) -> float:
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def _geometric_middle(values: list[float]) -> float:
    values = sorted(values)
    return (values[(len(values) - 1) // 2] * values[len(values) // 2]) ** 0.5


def _counted(lines: list[str]) -> dict[tuple[str, int, int], dict[str, Any]]:
    """The last line of each answer, of those that are answers, by way, question and repeat."""
    last = {line["key"]: line for line in map(json.loads, lines)}
    return {(line["way"], line["number"], line["repeat"]): line for line in last.values() if not line["error"]}


def _ratios(counted, way, value) -> list[float]:
    by_question: dict[int, list[float]] = {}
    for (name, number, repeat), line in counted.items():
        other = counted.get(("normal", number, repeat))
        if name == way and other:
            by_question.setdefault(number, []).append(value(other) / value(line))
    return [_geometric_middle(ratios) for ratios in by_question.values()]


def _trigrams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().replace(".", "").split()
    return set(zip(words, words[1:], words[2:], strict=False))


def test_the_raw_rows_give_the_same_headline_figures(rows, figures):
    lines = [json.dumps(to_json(row)) for row in rows]
    counted = _counted(lines)
    for way in ("sot", "auto"):
        found = figures["speed"][way]
        ratios = _ratios(counted, way, lambda line: line["seconds"])
        assert found["ratio_median"] == pytest.approx(_geometric_middle(ratios))
        assert found["questions"] == len(ratios) == len(found["by_question"])
        assert found["faster"] == sum(ratio > 1 for ratio in ratios)
        draw = random.Random(11)
        drawn = sorted(_geometric_middle(draw.choices(ratios, k=len(ratios))) for _ in range(4000))
        assert found["interval"] == pytest.approx([drawn[100], drawn[-101]], rel=0.05)
        equal = _ratios(counted, way, lambda line: line["seconds"] / line["answer_tokens"])
        assert found["ratio_equal_length"] == pytest.approx(_geometric_middle(equal))
        longer = _ratios(counted, way, lambda line: len(line["text"].split()))
        assert figures["quality"][way]["words_ratio"] == pytest.approx(1 / _geometric_middle(longer))
    for way in WAYS:
        mine = {place: line for place, line in counted.items() if place[0] == way}
        by_question: dict[int, list[float]] = {}
        for (_, number, _), line in mine.items():
            by_question.setdefault(number, []).append(line["seconds"])
        assert figures["summary"][way]["seconds"]["median"] == pytest.approx(
            _middle(list(map(_middle, by_question.values())))
        )
        found = figures["quality"][way]
        assert figures["summary"][way]["answers"] == found["answers"] == len(mine)
        assert found["routes"] == Counter(line["route"] for line in mine.values())
        assert found["cut"] == sum(p["finish_reason"] == "length" for line in mine.values() for p in line["points"])
        sizes = [len(line["text"].encode()) / len(zlib.compress(line["text"].encode(), 9)) for line in mine.values()]
        assert found["compression"] == pytest.approx(sum(sizes) / len(sizes))
    shares = []
    for (way, _, _), line in counted.items():
        if way == "sot":
            grams = Counter(gram for point in line["points"] for gram in _trigrams(point["text"]))
            shares.append(sum(count > 1 for count in grams.values()) / len(grams))
    assert figures["quality"]["sot"]["shared_trigrams"] == pytest.approx(sum(shares) / len(shares))


def test_no_row_is_dropped_silently(rows, figures):
    last = {row.key: row for row in rows}
    assert figures["answers"] + len(figures["failed"]) == len(last)
    assert figures["missing"] == 20 * 3 * 2 - len(last)
    assert sum(each["failed"] for each in figures["summary"].values()) == len(figures["failed"]) > 0
    assert {each["error"] for each in figures["failed"]} == {"TimeoutError: no answer in time"}
    assert figures["spent"]["answers"]["rows"] == len(rows) > len(last)
    assert figures["spent"]["answers"]["calls"] == sum(row.calls for row in rows)
    assert figures["spent"]["way:sot"]["output_tokens"] == sum(row.output_tokens for row in rows if row.way == "sot")
    for found in figures["speed"].values():
        assert found["pairs"] + found["unpaired"] == 40
    assert {note["way"] for note in figures["notes"] if note["kind"] == "failed"} == set(WAYS)


def test_figures_are_plain_data_and_the_same_again(rows, figures):
    text = json.dumps(figures, allow_nan=False)
    assert json.loads(text) == figures
    assert json.dumps(figures_of(MANIFEST, [from_json(json.loads(json.dumps(to_json(row)))) for row in rows])) == text
    assert (figures["version"], figures["ways"], figures["base"]) == (1, list(WAYS), "normal")
    assert sorted(figures["categories"]) == sorted(CATEGORIES)
    assert (figures["questions"], figures["repeats"]) == (20, 2)


def _row(number: int = 1, way: str = "normal", **fields: Any) -> Row:
    fields = {"seconds": 2.0, "answer_tokens": 10, "text": "One two three.", "route": "direct"} | fields
    return Row(key=f"{number}{way}", number=number, id=str(number), question=f"q{number}", way=way, model="m", **fields)


def _kinds(*rows: Row, manifest: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    enough = [_row(n, way) for n in range(10, 20) for way in {row.way: None for row in rows}]
    return [(note["kind"], note["way"]) for note in figures_of(manifest or {}, [*rows, *enough])["notes"]]


def test_notes_say_what_weakens_the_figures():
    skeleton: dict[str, Any] = {"way": "sot", "route": "skeleton"}
    point = PointRow(1, "t", "One two three.")
    assert _kinds(_row()) == []
    assert _kinds(_row(error="no")) == [("failed", "normal")]
    assert _kinds(_row(finish_reason="length")) == [("cut", "normal")]
    cut = _row(**skeleton, finish_reason="length", points=(point, replace(point, finish_reason="length")))
    assert ("cut", "sot") in _kinds(_row(), cut)
    assert _kinds(_row(tokens_estimated=True)) == [("estimated", "normal")]
    assert _kinds(_row(busy="this machine is busy")) == [("busy", "")]
    assert _kinds(_row(), _row(way="auto")) == [("direct", "auto")]
    assert ("points", "sot") in _kinds(_row(), _row(**skeleton, points=(point, replace(point, text="", error="no"))))
    assert _kinds(_row(), manifest={"ways": ["normal"], "questions": {"count": 12}}) == [("missing", "")]
    longer = [_row(n, "sot", route="skeleton", text="One " * 9) for n in range(20, 31)]
    assert ("lengths", "sot") in _kinds(*longer, *(_row(n) for n in range(20, 31)))


@pytest.mark.parametrize(("questions", "interval"), [(1, False), (2, True), (9, True)])
def test_few_questions_are_said_to_be_few(questions, interval):
    rows = [_row(n, way) for n in range(questions) for way in ("normal", "sot")]
    found = figures_of({}, rows)
    assert "few" in {note["kind"] for note in found["notes"]}
    assert (found["speed"]["sot"]["interval"] is not None) is interval
    assert (found["summary"]["sot"]["seconds"]["interval"] is not None) is interval


def test_a_run_without_rows_or_without_the_normal_way_has_figures():
    nothing = figures_of({"ways": ["normal", "sot"], "questions": {"count": 3}}, [])
    assert (nothing["answers"], nothing["questions"], nothing["speed"]["sot"]["ratio_median"]) == (0, 0, None)
    assert json.loads(json.dumps(nothing, allow_nan=False)) == nothing
    assert figures_of({}, [])["base"] == base_of([]) == ""
    rows = [_row(n, way, seconds=each) for n in (1, 2) for way, each in (("sot", 2.0), ("merge", 4.0))]
    found = figures_of({"ways": ["normal", "sot", "merge"]}, rows)
    assert (found["base"], base_of(["sot", "normal"])) == ("sot", "normal")
    assert found["speed"]["merge"]["ratio_median"] == pytest.approx(0.5)


def test_similarity_stands_only_where_there_are_vectors():
    points = tuple(PointRow(index, "t", text) for index, text in enumerate(["aa", "bb", "cc"], 1))
    rows = [_row(), _row(way="sot", route="skeleton", points=points)]
    assert figures_of({}, rows)["quality"]["sot"]["similarity"] is None
    found = figures_of({}, rows, vectors={"aa": [1.0, 0.0], "bb": [1.0, 0.0], "cc": [0.0, 1.0]})
    assert found["quality"]["sot"]["similarity"] == pytest.approx(1 / 3)
    assert found["quality"]["normal"]["similarity"] is None


def _verdicts(
    judge: str, winner: Callable[[int, str], str], *, form: str = "written", questions: int = 12
) -> list[Verdict]:
    """Verdicts on both orders of each question; `winner` gets the question's number and the way that is shown first."""
    return [
        Verdict(
            f"{judge} {form} {n} {first}",
            n,
            f"v{n}",
            "normal",
            "sot",
            first,
            form,
            judge,
            winner(n, first),
            category=CATEGORIES[n % 3],
            calls=1,
            input_tokens=50,
        )
        for n in range(1, questions + 1)
        for first in ("normal", "sot")
    ]


def test_verdicts_are_counted_by_judge_form_and_category(rows):
    verdicts = [
        *_verdicts("other", lambda n, first: "sot" if n % 3 else "normal"),
        *_verdicts("other", lambda n, first: "tie", form="plain"),
    ]
    vote = Verdict("vote 1", 1, "v1", "normal", "sot", "", "written", HUMAN, "sot")
    found = figures_of(MANIFEST, rows, verdicts, [vote, replace(vote, key="vote 2", number=2, winner="normal")])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    written, plain, human = found["verdicts"]
    assert [(each["judge"], each["form"], each["a"], each["b"]) for each in found["verdicts"]] == [
        ("other", "written", "sot", "normal"),
        ("other", "plain", "sot", "normal"),
        (HUMAN, "written", "sot", "normal"),
    ]
    assert (written["wins"], written["losses"], written["rate"]) == (8, 4, pytest.approx(8 / 12))
    assert {name: each["rate"] for name, each in written["by_category"].items()} == {
        "math": 1,
        "facts": 1,
        "writing": 0,
    }
    assert len(written["by_question"]) == 12
    assert "by_question" not in written["by_category"]["math"]
    assert (plain["rate"], plain["ties"]) == (0.5, 12)
    assert (human["questions"], human["rate"], human["by_category"]) == (2, 0.5, {})
    assert found["spent"]["judge:other"]["calls"] == 48
    assert "judge:human" not in found["spent"]


def test_controlled_rates_stand_beside_the_judge_and_the_pair(rows):
    verdicts = _verdicts("other", lambda n, first: "sot" if n % 3 else "normal")
    (found,) = figures_of(MANIFEST, rows, verdicts)["controlled"]
    assert (found["judge"], found["a"], found["b"]) == ("other", "sot", "normal")
    low, high = found["length"]["interval"]
    assert 0 < low < found["length"]["rate"] < high < 1
    assert {"order", "length"} <= set(found["length"]["effects"])


def test_a_newer_verdict_on_the_same_pair_takes_the_place_of_the_old(rows):
    old = _verdicts("other", lambda n, first: "normal")
    new = [replace(each, key=f"{each.key} again", winner="sot") for each in old[:4]]
    (found,) = figures_of(MANIFEST, rows, [*old, *new])["verdicts"]
    assert (found["questions"], found["wins"], found["losses"]) == (12, 2, 10)


def test_notes_say_what_weakens_the_verdicts(rows):
    def texts(verdicts: list[Verdict]) -> list[tuple[str, str]]:
        notes = figures_of(MANIFEST, rows, verdicts)["notes"]
        return [(note["kind"], note["text"]) for note in notes if note["kind"] in ("judge", "unread")]

    assert texts(_verdicts("other", lambda n, first: "sot" if n % 2 else "normal")) == []
    ((kind, text),) = texts(_verdicts("scripted", lambda n, first: "sot" if n % 2 else "normal"))
    assert (kind, "of its own" in text) == ("judge", True)
    flips, place = texts(_verdicts("other", lambda n, first: first))
    assert "in 12 of 12 comparisons" in flips[1]
    assert "saw first 100 % on sot and normal (as written); a fair judge" in place[1]
    both = [each for form in FORMS for each in _verdicts("other", lambda n, first: first, form=form)]
    _, place = texts(both)
    assert "(as written), 100 % on sot and normal (as plain paragraphs); a fair judge" in place[1]
    assert texts(_verdicts("other", lambda n, first: "" if n == 1 else "tie"))[0][0] == "unread"
