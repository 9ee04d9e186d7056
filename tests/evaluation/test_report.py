"""The report: the same figures in all three files, every text escaped, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from made_up_run import HOSTILE, MANIFEST, WAYS, made_rows, made_verdicts

from skeleton_of_thought.errors import MissingExtra, SotError
from skeleton_of_thought.evaluation.figures import figures_of
from skeleton_of_thought.evaluation.report import check_plots, write_report
from skeleton_of_thought.evaluation.report.markdown import markdown_of
from skeleton_of_thought.evaluation.report.rates import win_rates
from skeleton_of_thought.evaluation.report.tables import tables_of
from skeleton_of_thought.evaluation.report.texts import headlines, limits
from skeleton_of_thought.evaluation.report.wording import number
from skeleton_of_thought.evaluation.verdicts import HUMAN

PROMPT = "Compare <b>both</b>:\n````\n{question} {first} {second}"


def figures(questions=20, *, judged=True, rows=None):
    rows = made_rows(questions) if rows is None else rows
    return figures_of(MANIFEST, rows, made_verdicts(questions) if judged else ())


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, figures(), made_rows(), made_verdicts(), judge_prompt=PROMPT)
    return folder


@pytest.fixture(scope="module")
def page(report):
    return (report / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.code = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.code = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self.code = ""

    def handle_data(self, data):
        if not self.code:
            self.text.append(data)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


# --- the page ---------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_its_own_script_alone(page):
    tags = Reader(page).tags
    assert not [tag for tag, _ in tags if tag in ("img", "link", "iframe", "object", "base")]
    links = [more.get(name) for _, more in tags for name in ("src", "href", "action") if name in more]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not [more for _, more in tags for name in more if name == "style" or name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import", page)
    policy = next(more["content"] for tag, more in tags if tag == "meta" and "http-equiv" in more)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    code = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page, re.S)
    assert len(code) >= 2
    for each in code:
        assert base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() in policy


def test_hostile_texts_are_only_ever_text(page):
    assert "document.title='run'</script>" not in page
    assert "<img" not in page
    assert "\u2028" not in page
    cards = data_of(page)["cards"]
    assert cards[2]["question"] == HOSTILE
    assert HOSTILE in cards[2]["answers"]["sot"]["parts"][0][0]
    text = "".join(Reader(page).text)
    assert "math $x$ | <b>" in text
    assert PROMPT in text


def test_identifiers_are_unique_and_their_links_lead_somewhere(page):
    tags = Reader(page).tags
    names = [more["id"] for _, more in tags if "id" in more]
    assert len(names) == len(set(names))
    wanted = {more["href"][1:] for _, more in tags if more.get("href", "").startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", page))
    wanted |= {name for _, more in tags for name in more.get("aria-labelledby", "").split()}
    assert wanted <= set(names)


def test_plots_are_text_in_the_colours_of_the_page(page):
    plots = re.findall(r'<svg viewBox[^>]*class="plot">.*?</svg>', page, re.S)
    assert len(plots) == 4
    for plot in plots:
        assert re.search(r'role="img" aria-label="[^"]{20,}"', plot)
        assert "<text" in plot
        assert "<style" not in plot
        assert set(re.findall(r'(?:fill|stroke)="(?!none|inherit)([^"]+)"', plot)) <= {
            f"var(--{name})" for name in ("ink", "soft", "line", "way0", "way1", "way2")
        }
    assert page.count('role="img"') == 6, "four plots, and the time lines of the best and the worst answer"


def test_every_answer_is_there_with_what_is_wrong_with_it(page):
    data = data_of(page)
    assert data["ways"] == list(WAYS)
    assert len(data["cards"]) == 20
    rows = {(row.id, row.way): row for row in made_rows()}
    for card in data["cards"]:
        assert len(card["verdicts"]) == 8
        for way, answer in card["answers"].items():
            assert "".join(text for text, _ in answer["parts"]) == rows[card["id"], way].text
    failed = data["cards"][4]["answers"]["auto"]
    assert failed == {"error": "APIConnectionError: <refused>", "parts": []}
    cut = data["cards"][1]["answers"]["sot"]
    assert [mark for _, mark in cut["parts"]] == ["", "cut", ""]
    assert cut["troubles"] == ["Point 3, Part 3: cut at the limit of tokens"]
    assert data["cards"][3]["answers"]["normal"]["parts"][0][1] == "cut"
    assert data["cards"][5]["answers"]["sot"]["troubles"] == ["Point 4, Part 4: failed: APITimeoutError: no reply"]


def test_the_same_run_makes_the_same_files(report, tmp_path):
    write_report(tmp_path, figures(), made_rows(), made_verdicts(), judge_prompt=PROMPT)
    for path in report.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_of_several_tries_the_last_is_shown(tmp_path):
    pytest.importorskip("matplotlib")
    rows = made_rows(2)
    first = [
        type(rows[0])(key=row.key, number=1, id="q1", question="?", way=row.way, model="m", error="x") for row in rows
    ]
    write_report(tmp_path, figures(rows=[*first, *rows]), [*first, *rows])
    cards = data_of((tmp_path / "report.html").read_text(encoding="utf-8"))["cards"]
    assert [answer.get("error") for card in cards for answer in card["answers"].values()] == [None] * 6


@pytest.mark.parametrize("rows", [[], made_rows(1)[:1], made_rows(5)[12:]])
def test_a_run_with_little_in_it_has_a_report(tmp_path, rows):
    pytest.importorskip("matplotlib")
    paths = write_report(tmp_path, figures(judged=False, rows=rows), rows)
    assert [path.name for path in paths] == ["report.html", "report.md", "report.json"]
    assert all(path.stat().st_size for path in paths)
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))


# --- tables and texts ---------------------------------------------------------------------------------------


def test_page_and_markdown_hold_the_same_tables(report, page):
    text = (report / "report.md").read_text(encoding="utf-8")
    shown = "".join(Reader(page).text)
    tables = tables_of(figures())
    assert {table.section for table in tables} == {"speed", "quality", "verdicts", "spent", "failed"}
    for table in tables:
        assert table.title in shown
        for row in table.rows:
            assert len(row) == len(table.columns)
            line = " | ".join(re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", cell) for cell in row)
            assert f"| {line} |" in text
            assert all(cell in shown for cell in row)
    assert "`````text\nCompare" in text, "the fence is longer than any in the prompt"


def test_the_figures_file_has_the_figures(report):
    told = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert told["speed"]["sot"]["ratio_median"] == figures()["speed"]["sot"]["ratio_median"]
    assert told["failed"][0]["id"] == "q5"


def test_win_rates_are_those_of_the_other_way_against_the_base():
    rates = [each for each in win_rates(figures()) if (each.way, each.form) == ("sot", "written")]
    whole, *categories = rates
    assert (whole.other, whole.category) == ("normal", "")
    # Of 20 questions one has no verdict; five show the first place; of the others a third goes to each outcome.
    assert [whole.tally[kind] for kind in ("wins", "losses", "ties")] == [5, 4, 10]
    assert whole.rate == pytest.approx((5 + 10 / 2) / 19)
    low, high = whole.interval
    assert low < whole.rate < high
    assert {each.category: each.tally["wins"] for each in categories} == {
        "writing": 5,
        "common-sense": 0,
        "math $x$ | <b>": 0,
    }


def test_the_headlines_say_what_the_intervals_hold():
    speed, _, wins, _ = headlines(figures())
    assert re.match(r"sot was 2\.00 times as fast as normal \(95 % interval [\d.]+ to [\d.]+, 20 questions\)\.", speed)
    assert "The judge other-model preferred sot to normal in 53 % of 19 questions as written" in wins
    assert "and in 53 % of 19 questions as plain paragraphs" in wins
    assert "The intervals hold 50 %" in wins
    assert "10 of 38 verdicts changed the winner" in wins
    assert headlines(figures(judged=False, rows=[])) == [
        "There are no two answers to the same question yet, so there is nothing to compare."
    ]


def test_controlled_win_rates_are_shown_with_what_moves_the_judge():
    told = figures()
    length = {
        "rate": 0.5,
        "interval": [0.4, 0.6],
        "questions": 19,
        "effects": {"order": 0.0, "length": 0.6931},
        "why": "",
    }
    style = {"rate": None, "interval": None, "questions": 19, "effects": {}, "why": "They always differ."}
    told["controlled"] = [
        {"judge": "other-model", "a": "sot", "b": "normal", "length": length, "style": style, "both": style}
    ]
    (row,) = next(table.rows for table in tables_of(told) if "biased" in table.title)
    assert row[:3] == ["sot", "normal", "other-model"]
    assert row[3:] == [
        "50 % (40 to 60 %)",
        "first place ×1.00, much longer ×2.00",
        "They always differ.",
        "–",
        "They always differ.",
        "–",
    ]
    assert "The rate would be 50 % at equal length (95 % interval 40 to 60 %)." in headlines(told)[2]
    assert "There is no rate in equal style and with both equal: They always differ." in headlines(told)[2]


def test_the_limits_depend_on_who_judged():
    assert any("Nobody compared" in said for said in limits(figures(judged=False)))
    judged = limits(figures())
    assert any("A judge is a model" in said for said in judged)
    people = figures()
    for pair in people["verdicts"]:
        pair["judge"] = HUMAN
    assert any("voted" in said for said in limits(people))
    assert "People preferred sot" in "".join(headlines(people))


def test_numbers_are_short():
    assert [number(value) for value in (None, 0, 7.0, 1234567.0, 0.01234, 12.345, 123.4)] == [
        *("–", "0", "7", "1,234,567", "0.0123", "12.3", "123")
    ]


def test_markdown_has_no_mark_of_a_text():
    text = markdown_of(figures())
    assert "math \\$x\\$ \\| \\<b\\>" in text
    assert "math $x$" not in text
    assert "<script>" not in text


# --- what cannot be done --------------------------------------------------------------------------------------


def test_without_matplotlib_it_says_what_to_install_and_writes_nothing(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"plots need matplotlib.*pip install .*\[eval\]"):
        check_plots()
    with pytest.raises(MissingExtra):
        write_report(tmp_path, figures(), made_rows())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_error_and_leaves_the_older_report(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "report.html").write_text("older")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SotError, match=r"report\.html.*No space left"):
        write_report(tmp_path, figures(2), made_rows(2))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "older")]
