"""A run of `sot eval` that nobody made: rows and verdicts by rule, for the tests of its figures and its report."""

from __future__ import annotations

from typing import Any

from skeleton_of_thought.evaluation.rows import PointRow, Row
from skeleton_of_thought.evaluation.verdicts import TIE, Verdict

WAYS = ("normal", "sot", "auto")
CATEGORIES = ("writing", "common-sense", "math $x$ | <b>")
HOSTILE = "</script><script>document.title='run'</script> \u2028 \ud800 <!--data--> `x` | <img onerror=alert(1)> é"
MANIFEST: dict[str, Any] = {
    "version": 1,
    "kind": "eval",
    "package": "0.2.0",
    "python": "3.12.1",
    "platform": "Linux",
    "processors": 2,
    "versions": {"torch": "2.10.0", "transformers": "5.10.1"},
    "model": "demo",
    "judge": ["other-model"],
    "settings": {"temperature": 0.0, "max_tokens": 512, "seed": 0},
    "ways": list(WAYS),
    "questions": {"file": "vicuna.jsonl", "count": 20, "sha256": "ab" * 32},
    "started": "2026-01-01T00:00:00Z",
    "runs": [{"at": "2026-01-01T00:00:00Z", "arguments": ["eval"]}],
}


def made_rows(questions: int = 20) -> list[Row]:
    """Answers of all ways: every seventh question is direct for `auto`; some points are cut or failed, a row failed."""
    return [_row(number, way) for number in range(1, questions + 1) for way in WAYS]


def _row(number: int, way: str) -> Row:
    told = {
        "key": f"{way}-{number}",
        "number": number,
        "id": f"q{number}",
        "question": f"How do I do thing {number}, and what should I look at?" if number != 3 else HOSTILE,
        "way": way,
        "model": "demo",
        "category": CATEGORIES[number % 3],
        "at": "2026-01-01T00:00:00Z",
    }
    if number == 5 and way == "auto":
        return Row(**told, error="APIConnectionError: <refused>")
    direct = way == "normal" or (way == "auto" and number % 7 == 0)
    seconds = 8 + number % 5 + (0 if direct else -4 - number % 3 + (6 if number == 11 else 0))
    if direct:
        text = f"**Answer** {number} in one piece.\n\n" + "It goes on with plain sentences. " * (20 + number % 4)
        more = {"route": "direct", "calls": 1, "stages": {"direct": (0.0, float(seconds), 0.3)}}
        finish = "length" if number == 4 else "stop"
    else:
        points = tuple(_point(number, index, seconds) for index in range(1, 5))
        text = "\n\n".join(f"{point.index}. **{point.title}:** {point.text}" for point in points)
        if number == 3:
            text += "\n\n" + HOSTILE
        stages = {"skeleton": (0.0, 1.0, 0.2), "point": (1.0, float(seconds), 1.2)}
        more = {"route": "skeleton", "calls": 5, "points": points, "stages": stages}
        finish = "stop"
    return Row(
        **told,
        **more,
        text=text,
        plain=text.replace("*", ""),
        reason="the question asks for several things" if way == "auto" else "",
        seconds=float(seconds),
        first_text=0.3 if direct else 1.2,
        input_tokens=40 if direct else 700,
        cached_tokens=0 if direct else 560,
        output_tokens=200 + number if direct else 260 + number,
        answer_tokens=200 + number,
        finish_reason=finish,
    )


def _point(number: int, index: int, seconds: float) -> PointRow:
    text = f"Text of point {index} for thing {number}. " * 6
    ends = seconds - 0.2 * index
    told: dict[str, Any] = {"index": index, "title": f"Part {index}", "start": 1.0, "first": 1.2, "end": ends}
    told |= {"released": 1.2 + 0.3 * index, "attempts": 1, "output_tokens": 60, "finish_reason": "stop"}
    if number == 2 and index == 3:
        told["finish_reason"] = "length"
    if number == 6 and index == 4:
        return PointRow(**told | {"finish_reason": None, "error": "APITimeoutError: no reply", "attempts": 2})
    return PointRow(**told, text=text.strip())


def made_verdicts(questions: int = 20) -> list[Verdict]:
    """Verdicts of one judge that is drawn to the first place on every fourth question."""
    found = []
    for number in range(1, questions + 1):
        for other in WAYS[1:]:
            for form in ("written", "plain"):
                for first in ("normal", other):
                    winner = first if number % 4 == 0 else (other, "normal", TIE)[number % 3]
                    if number == 13:
                        winner = ""
                    found.append(
                        Verdict(
                            key=f"{number}-{other}-{form}-{first}",
                            number=number,
                            id=f"q{number}",
                            category=CATEGORIES[number % 3],
                            a="normal",
                            b=other,
                            first=first,
                            form=form,
                            judge="other-model",
                            winner=winner,
                            reason="It is clearer. " + (HOSTILE if number == 3 else ""),
                            error="" if winner else "the reply could not be read",
                            calls=1,
                            input_tokens=600,
                            output_tokens=80,
                            seconds=1.5,
                        )
                    )
    return found
