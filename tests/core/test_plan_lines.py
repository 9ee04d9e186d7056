"""Lines of plans: titles with notes, lengths, and what they build on."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lines_run import lines_run

from skeleton_of_thought.parsing.parser import SkeletonParser, parse_skeleton
from skeleton_of_thought.parsing.plan_lines import PlanLine, read_plan_line, sums_up
from skeleton_of_thought.types import Planning, Point, Skeleton

pytestmark = pytest.mark.filterwarnings("error")
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLANS: list[Planning] = ["scoped", "graph"]

NOTES = {
    "{} – {}": "en dash",
    "{} - {}": "hyphen",
    "{} — {}": "em dash",
    "{} ― {}": "bar",
    "{}—{}": "em dash without spaces",
    "{} -- {}": "two hyphens",
    "{}: {}": "colon",
    "{}：{}": "full-width colon",
    "{} | {}": "pipe",
    "{} ({})": "brackets",
    "{}（{}）": "full-width brackets",
    "{} – Covers: {}": "label",
}


@pytest.mark.parametrize("form", NOTES)
def test_a_note_may_stand_behind_any_sign(form: str) -> None:
    line = form.format("Which one to choose", "price against comfort")
    for planning in PLANS:
        assert read_plan_line(line, planning) == PlanLine("Which one to choose", "price against comfort")
    assert read_plan_line(line, "titles") == PlanLine(line)


DEPENDENCIES: dict[str, tuple[int, ...]] = {
    "(after 1, 3)": (1, 3),
    "(After 3 and 1)": (3, 1),
    "[after: 1 and 3]": (1, 3),
    "{builds on 1–3}": (1, 2, 3),
    "(after 2 to 4)": (2, 3, 4),
    "(based on points 1 and 3)": (1, 3),
    "(depends on #1 & #3)": (1, 3),
    "(needs 2)": (2,),
    "(after [1] and [3])": (1, 3),
    "(builds on: [1, 3])": (1, 3),
    "(after points 1, 2, and 3)": (1, 2, 3),
    "(after 1.)": (1,),
    "(after １，３)": (1, 3),
    "（after 1、3）": (1, 3),
    "【after 1】": (1,),
    "(after ①、③)": (1, 3),
    "(after ٣)": (3,),
    "→ after 1": (1,),
    "– after 1 and 3": (1, 3),
    "; builds on 1, 3": (1, 3),
    "| after 1": (1,),
    ". Builds on 1.": (1,),
    ", based on points 1 and 3": (1, 3),
    "depends on #1": (1,),
    "(after 1": (1,),
    "(after none)": (),
    "(no dependencies)": (),
    "(nach 1 und 3)": (1, 3),
    "(baut auf 1 und 3 auf)": (1, 3),
    "(setzt 1 voraus)": (1,),
    "(après les points 1 et 3)": (1, 3),
    "(s’appuie sur 1)": (1,),
    "(después de 1 y 3)": (1, 3),
    "(basado en 1, 3)": (1, 3),
    "(dopo 1 e 3)": (1, 3),
    "(si basa sui punti 1 e 3)": (1, 3),
    "(depois de 1 e 3)": (1, 3),
    "(com base nos pontos 1 e 3)": (1, 3),
    "(na 1 en 3)": (1, 3),
    "(bouwt voort op 1 en 3)": (1, 3),
    "(после пунктов 1 и 3)": (1, 3),
    "（在1和3之后）": (1, 3),
    "（基于第1点和第3点）": (1, 3),
    "（1と3の後）": (1, 3),
    "（ポイント1と3に基づく）": (1, 3),
}


@pytest.mark.parametrize("form", DEPENDENCIES)
@pytest.mark.parametrize("title", ["Which one", "Which one: price against comfort"])
def test_dependencies_are_read_in_ten_languages_and_leave_the_text(title: str, form: str) -> None:
    line, plain = f"{title} {form}", read_plan_line(title, "graph")
    assert read_plan_line(line, "graph") == plain._replace(after=DEPENDENCIES[form])
    assert read_plan_line(line, "scoped") == plain


@pytest.mark.parametrize(
    "form",
    [
        *("(after all)", "(based on all of the above)", "(after the others)", "→ after all other points"),
        *("(nach allen anderen)", "(après tous les points)", "(después de todos)", "(dopo tutti)", "(depois de todos)"),
        *("(na alle punten)", "(после всех)", "（在所有之后）", "（全ての後）"),
    ],
)
def test_a_line_may_build_on_all_before_it(form: str) -> None:
    assert read_plan_line(f"Which one {form}", "graph") == PlanLine("Which one", after_all=True)


def test_a_line_may_build_on_the_one_before_it() -> None:
    assert read_plan_line("Which one (builds on the previous point)", "graph") == PlanLine("Which one", after_last=True)


LINES: dict[str, PlanLine] = {
    "A (after 1): b c": PlanLine("A", "b c", (1,)),
    "(after 1) A": PlanLine("A", "", (1,)),
    "A – after 1, 3 – b c": PlanLine("A", "b c", (1, 3)),
    "A (after 1; weighs b)": PlanLine("A", "weighs b", (1,)),
    "A (weighs b, builds on 1 and 2)": PlanLine("A", "weighs b", (1, 2)),
    "A – Covers: b; leaves c to 3; After: 1": PlanLine("A", "b; leaves c to 3", (1,)),
    "A: leaves prices to 4": PlanLine("A", "leaves prices to 4"),
    "A (about 80 words)": PlanLine("A", words=80),
    "A – b (after 1, 3; ~80 words)": PlanLine("A", "b", (1, 3), 80),
    "A (80 Wörter, nach 1)": PlanLine("A", "", (1,), 80),
    "A (60–100 words)": PlanLine("A", words=80),
    "A：b（约80字，基于1、2）": PlanLine("A", "b", (1, 2), 80),
    "A (after 1) (after 2) (80 mots)": PlanLine("A", "", (1, 2), 80),
    "AI (Artificial Intelligence): what it is": PlanLine("AI (Artificial Intelligence)", "what it is"),
    "A: “b: c” – d": PlanLine("A", "“b: c” – d"),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_may_say_several_things(line: str) -> None:
    assert read_plan_line(line, "graph") == LINES[line]


@pytest.mark.parametrize(
    "title",
    [
        *(
            "Life (2020)",
            "A (1)",
            "A (1, 3)",
            "War (after 1945)",
            "The day after",
            "AI (AI)",
            "A (part 1)",
            "(after 1)",
        ),
        *("Cost–benefit of a risk-free year", "A ratio of 3:1", "f(x) of x", "A slogan (3 words)", "Point(s) of note"),
        *("Choosing (cost – benefit) wisely", "A “b: c” day", "The code `a: b`", "Rest after 3 weeks", "A (after )"),
        *("1990 – ", "Is it worth it after all?", "(", ")", "–", ""),
    ],
)
def test_what_is_no_note_and_no_dependency_stays_in_the_title(title: str) -> None:
    assert read_plan_line(title, "graph") == PlanLine(" ".join(title.split()).rstrip(" –") or title)


@pytest.mark.parametrize(
    "title",
    [
        *("Summary", "Conclusion and outlook", "Cost comparison", "Which one to choose", "Our final recommendation"),
        *("Fazit", "Vergleich der Kosten", "Abschließende Empfehlung", "Synthèse", "Lequel choisir", "Comparaison"),
        *("Conclusiones", "Recomendación", "Cuál elegir", "Confronto", "Raccomandazioni", "Quale scegliere"),
        *("Conclusão", "Comparação", "Qual escolher", "Samenvatting", "Vergelijking", "Итоги", "Сравнение", "Выводы"),
        *("总结", "方案比较", "最终建议", "まとめ", "料金の比較", "結論"),
    ],
)
def test_titles_that_sum_up_are_known_in_ten_languages(title: str) -> None:
    assert sums_up(title)


@pytest.mark.parametrize(
    "title", ["Drawing conclusions from data", "Recommended dosage", "Abschlussprüfung", "Salary", "Comparable prices"]
)
def test_other_titles_do_not_sum_up(title: str) -> None:
    assert not sums_up(title)


# --- properties -----------------------------------------------------------------------------------

SNIPPETS = (
    "(|)|[|]|{|}|（|）|【|】|: |：| – | - |—| | | → |;|, |. |after |builds on |based on |needs |depends on: |nach |基于"
    "|の後|之后|all|none|the previous point|points |point |#|1|2|3|12|999|1945|①|３|1–3|2 to 4| and | und |和|~|about "
    '|80 words|80 Wörter|80字|Covers: |Title|note|“|”|"|`|*|**|_|?|…|\x00|\ud800|\ufeff|<|im_end|>| |\n'
)
lines = st.text(st.characters(exclude_categories=())) | st.lists(st.sampled_from(SNIPPETS.split("|")), max_size=30).map(
    "".join
)


@many
@given(lines, st.sampled_from(PLANS))
@example("(after 1", "graph")
@example("A (after 1", "graph")
def test_any_line_is_read(line: str, planning: Planning) -> None:
    read = read_plan_line(line, planning)
    assert read.title or not any(map(str.isalnum, line))
    assert read.title or read == PlanLine("")
    assert len(set(read.after)) == len(read.after)
    assert planning == "graph" or not (read.after or read.after_all or read.after_last)
    assert read.words is None or read.words >= 10


@many
@given(st.lists(lines, max_size=6), st.sampled_from(PLANS), st.data())
def test_a_plan_does_not_depend_on_the_pieces(texts: list[str], planning: Planning, data: st.DataObject) -> None:
    text = "\n".join([f"{n}. {line}" for n, line in enumerate(texts, 1)])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    parser = SkeletonParser(planning=planning)
    returned: list[Point] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found = parser.feed(text[start:end])
        returned = found if parser.restarted else returned + found
    skeleton = parser.close()
    assert skeleton == parse_skeleton(text, planning=planning)
    assert skeleton.points[: len(returned)] == tuple(returned) or parser.restarted
    for point in skeleton.points:
        assert point.title
        assert all(1 <= parent < point.index for parent in point.depends_on)
        assert list(point.depends_on) == sorted(set(point.depends_on))


WORDS = "cars trains prices the of comfort Bremen Zürich цены 价格 3.5 $5 C++ don't risk/benefit 50%"
word = st.sampled_from(WORDS.split())
phrases = st.lists(word, min_size=1, max_size=5).map(" ".join)


@st.composite
def plans(draw: st.DrawFn) -> Skeleton:
    points: list[Point] = []
    for index in range(1, draw(st.integers(1, 12)) + 1):
        parents = draw(st.sets(st.integers(1, index - 1), max_size=4)) if index > 1 else set()
        title, scope = draw(phrases.map("T {} x".format)), draw(st.just("") | phrases.map("covers {} y".format))
        points.append(Point(index, title, tuple(sorted(parents)), scope))
    return Skeleton(tuple(points))


@many
@given(plans())
def test_a_written_plan_is_read_back(plan: Skeleton) -> None:
    assert parse_skeleton(str(plan), planning="graph").points == plan.points


# --- cost -----------------------------------------------------------------------------------------

HOSTILE = [
    *("(", "()", "(((((", "[{(", "(a", "(after ", "(after 1", "(after 1)", "(after 1 x)", "; after 1", "; after 1 x"),
    *(", 1", "1, ", "1 and ", "after ", "– ", ": ", "a: ", "“", "„", '"', ' "', "`", "(after 1-999)", "~80 words; "),
    *("all of the above ", "; after all of ", "→ ", "based on ", "（", "基于1、", "① ", "(1)", "– after 1, "),
]


def steps(line: str) -> int:
    """Lines of Python that reading a line runs."""
    return lines_run(lambda: read_plan_line(line, "graph"))


@pytest.mark.parametrize("unit", HOSTILE)
def test_work_grows_linearly(unit: str) -> None:
    small, large = ("A " + unit * (n // len(unit)) for n in (1000, 4000))
    read_plan_line(small, "graph")  # compiles the patterns
    assert steps(large) < 6 * steps(small) + 1000


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_line_does_not_hang(unit: str) -> None:
    # Patterns run no lines of Python. Quadratic work of one on so long a line is caught by the timeout of the run.
    read_plan_line("A " + unit * (60_000 // len(unit)), "graph")
