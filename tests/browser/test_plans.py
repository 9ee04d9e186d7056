"""The page of a planned answer: who waits for whom, notes, opening and closing."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

QUESTION = "Let me weigh train and plane: what speaks for each?"


def settings(tab, **values):
    tab.page.click("button.fold[aria-controls=settings]")
    for name, value in {"router": "always", **values}.items():
        tab.page.select_option(f"[name={name}]", value)


def test_a_plan_shows_notes_waits_opening_and_closing(open_tab, scripted):
    tab = open_tab(model=scripted.ScriptedModel(pace=0.02))
    settings(tab, planning="graph", opening="yes", closing="yes")
    asked = []
    tab.page.on("request", lambda request: asked.append(request.post_data_json) if request.post_data else None)
    tab.ask(QUESTION)
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('#sot .point .verb')].some((one) => one.textContent === 'waits for 1, 3')"
    )
    tab.page.wait_for_selector("#sot .point[data-state=writing] .prose p")
    tab.photograph("plan-mid-stream")
    tab.await_end()
    sent = next(body["sot"] for body in asked if "sot" in body)
    assert sent == {
        "router": "always",
        "planning": "graph",
        "opening": True,
        "closing": True,
        "events": True,
    }
    notes = ["tickets, fees and what a day costs", "seats, noise and sleep", "from door to door"]
    assert tab.texts("#sot .point .scope:not([hidden])") == notes
    assert tab.text("#sot .opening") == scripted.ROLES["opening"].replace("*", "")
    assert tab.text("#sot .closing") == scripted.ROLES["closing"]
    labels = tab.texts("#timeline .calls bdi")
    titles = ["Price", "Comfort", "Speed", "Which one to choose"]
    assert labels == ["Normal decoding", "Skeleton", *titles, "Opening", "Closing"]
    waits = tab.page.locator("#timeline .track text.after").all_text_contents()
    assert waits == ["after 1, 3"]
    assert "after 1, 3" in tab.page.get_attribute("#timeline .calls li:nth-child(6)", "title")
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in tab.text("#figures tbody").split("\n")}
    assert rows["Calls"][:2] == ["1", "7"]
    tab.photograph("plan")
    tab.page.set_viewport_size({"width": 390, "height": 800})
    tab.photograph("plan-narrow")


def test_settings_of_plans_are_kept_and_sent_as_the_server_takes_them(open_tab):
    tab = open_tab()
    settings(tab, planning="scoped", opening="restart", closing="no", rewrite_overlap="yes", eager="auto")
    tab.page.fill("[name=max_depth]", "3")
    tab.page.press("[name=max_depth]", "Tab")
    tab.page.reload()
    tab.page.wait_for_selector("body[data-models]")
    asked = []
    tab.page.on("request", lambda request: asked.append(request.post_data_json) if request.post_data else None)
    tab.ask(QUESTION)
    tab.await_end()
    assert next(body["sot"] for body in asked if "sot" in body) == {
        "router": "always",
        "planning": "scoped",
        "max_depth": 3,
        "eager": "auto",
        "opening": "restart",
        "closing": False,
        "rewrite_overlap": True,
        "events": True,
    }
    assert tab.text("#sot .opening") != ""
    assert tab.page.locator("#sot .closing").is_hidden()
