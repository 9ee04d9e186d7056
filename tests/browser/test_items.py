"""The page of an answer item by item: no skeleton, a part for each item."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

SENTENCES = ["Good morning to you.", "How are you today?", "See you tomorrow."]
QUESTION = "Translate these sentences into French:\n" + "\n".join(f"- {sentence}" for sentence in SENTENCES)


def test_items_stand_side_by_side_without_a_skeleton(open_tab, scripted):
    tab = open_tab(model=scripted.ScriptedModel(pace=0.02))
    tab.page.click("button.fold[aria-controls=settings]")
    tab.page.select_option("[name=items]", "auto")
    asked = []
    tab.page.on("request", lambda request: asked.append(request.post_data_json) if request.post_data else None)
    tab.ask(QUESTION)
    tab.await_end()
    assert next(body["sot"] for body in asked if "sot" in body) == {"items": "auto", "events": True}
    assert tab.texts("#sot .point h3") == SENTENCES
    assert tab.text("#sot .remark") == "Item by item, each with a call of its own: it asks the same of 3 items"
    assert "Skeleton" not in tab.texts("#timeline .calls bdi")
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in tab.text("#figures tbody").split("\n")}
    assert rows["Calls"][:2] == ["1", "3"]
    tab.photograph("items")
