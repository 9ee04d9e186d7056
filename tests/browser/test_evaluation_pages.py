"""The report of an evaluation and the page to vote on, as files in Chromium."""

from __future__ import annotations

import pytest
from made_up_run import HOSTILE, MANIFEST, made_rows, made_verdicts

from skeleton_of_thought.evaluation.figures import figures_of
from skeleton_of_thought.evaluation.report import write_report
from skeleton_of_thought.evaluation.votes import count_votes, write_vote_page

pytestmark = pytest.mark.browser

ROWS, VERDICTS = made_rows(24), made_verdicts(24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("run")
    write_report(folder, figures_of(MANIFEST, ROWS, VERDICTS), ROWS, VERDICTS, judge_prompt="Compare both.")
    write_vote_page(folder / "vote.html", ROWS)
    return folder


@pytest.fixture
def opened(chromium, folder):
    """Opens a file; afterwards nothing may have gone wrong, and nothing may have been loaded."""
    contexts, faults, asked = [], [], []

    def open_file(name, *, width=1280, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / name).as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert faults == []
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(contexts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["report.html", "vote.html"])
def test_a_page_is_no_wider_than_its_window(opened, name, width, scheme):
    page = opened(name, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page_colour, text_colour = page.evaluate(
        "[document.documentElement, document.querySelector('svg.plot text, #question')].map((each) => {"
        "  const style = getComputedStyle(each);"
        "  const shown = each.tagName === 'text' ? style.fill : each.id ? style.color : style.backgroundColor;"
        "  return shown.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);"
        "})"
    )
    assert abs(page_colour - text_colour) > 250, "text stands out from the page"
    assert (page_colour > text_colour) == (scheme == "light")


def test_answers_are_shown_in_pages_and_can_be_filtered(opened):
    page = opened("report.html")
    told = page.locator(".pager p").first

    def chosen(**filters):
        for name, value in filters.items():
            page.evaluate("([name, value]) => { document.forms.filters.elements[name].value = value; }", [name, value])
        page.evaluate("document.getElementById('filters').dispatchEvent(new Event('change'))")
        return told.inner_text(), page.locator(".card").count(), page.locator(".side").count()

    assert (told.inner_text(), page.locator(".card").count()) == ("1 to 10 of 24", 10)
    page.get_by_role("button", name="Next").first.click()
    assert told.inner_text() == "11 to 20 of 24"
    assert page.title().startswith("Does Skeleton-of-Thought pay"), "a script in an answer has not run"
    assert chosen(text="THING 7,") == ("1 to 1 of 1", 1, 3)
    assert chosen(text="", way="auto", state="failed") == ("1 to 1 of 1", 1, 1)
    assert chosen(way="", state="trouble") == ("1 to 3 of 3", 3, 9)
    assert chosen(state="", winner="none") == ("1 to 1 of 1", 1, 3)
    assert chosen(winner="", category="writing") == ("1 to 8 of 8", 8, 24)
    assert HOSTILE[:40] in page.locator(".card").first.inner_text()
    assert chosen(text="nowhere") == ("No answers like that.", 0, 0)


def test_votes_are_kept_saved_and_counted(opened, tmp_path):
    page = opened("vote.html")
    for key in ("1", "2", "0"):
        page.keyboard.press(key)
    assert page.inner_text("#count").endswith("3 voted on")
    page.keyboard.press("ArrowLeft")
    assert page.locator("[aria-pressed=true]").inner_text().startswith("Equal")
    page.get_by_role("button", name="Answer 1").click()
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "votes.json")
    voted = [verdict for verdict in count_votes(tmp_path / "votes.json", ROWS) if verdict.at]
    assert [verdict.winner == verdict.first for verdict in voted] == [True, False, True]
    again = opened("vote.html")
    assert again.inner_text("#count") == "Pair 1 of 44, 0 voted on", "another browser has votes of its own"
