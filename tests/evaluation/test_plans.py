"""`sot eval` with plans: what scopes do to a model that heeds them, and what the report says of plans."""

from __future__ import annotations

import json

import pytest
from scripted_cli import Script

from skeleton_of_thought.cli import main

FACTS = {
    "feeding": "A cat eats two small meals a day and leaves the rest for later.",
    "walks": "A dog has to go out three times a day whatever the weather is.",
    "insurance": "Insurance for a large dog costs about twice as much as for a cat.",
    "vet": "A visit to the vet is due once a year and costs more at night.",
    "rooms": "Two rooms are enough for a cat that has a window to look out of.",
    "garden": "A fenced garden spares a dog owner the first walk of the morning.",
}
GREETING = "Both animals are good company for people who are often at home."
PLAN = {"Daily care": "feeding, walks", "Yearly costs": "insurance, vet", "Space at home": "rooms, garden"}


class Heeding(Script):
    """Writes all that it knows of a topic, and where its prompt gives the point a scope, what that names.

    It begins each point with the same sentence. A plan has scopes if its prompt asks for what points cover.
    """

    def text(self, call):
        if call.stage not in ("skeleton", "point"):
            return "It depends."
        prompt = "\n".join(message.text for message in call.prompt.messages)
        if call.stage == "skeleton":
            noted = "covers" in prompt
            return "".join(
                f"{i}. {title}{f': {scope}' if noted else ''}\n" for i, (title, scope) in enumerate(PLAN.items(), 1)
            )
        scope = PLAN[call.point.title]
        scoped = f"{call.point.title}: {scope}" in prompt
        facts = [fact for about, fact in FACTS.items() if not scoped or about in scope]
        return " ".join((GREETING, *facts))


@pytest.fixture
def figures(tmp_path, capsys):
    questions = tmp_path / "questions.txt"
    questions.write_text("Should we get a cat or a dog?\nIs a parrot or a hamster the better pet?\n")

    def run(ways):
        words = ["eval", str(questions), "--ways", ways, "--out", str(tmp_path / "run"), "-q"]
        assert main(words, backend=Heeding().backend()) == 0
        capsys.readouterr()
        return json.loads((tmp_path / "run" / "report.json").read_text()), (tmp_path / "run" / "report.md").read_text()

    return run


def test_scopes_at_least_halve_what_points_share_where_the_model_heeds_them(figures):
    found, page = figures("sot,scoped")
    titles, scoped = (found["quality"][way] for way in ("sot", "scoped"))
    assert titles["shared_trigrams"] == 1.0, "without a scope the model writes all it knows in each point"
    assert 0 < scoped["shared_trigrams"] <= titles["shared_trigrams"] / 2
    assert (titles["scoped_points"], scoped["scoped_points"], scoped["points"]) == (0, 6, 6)
    assert (titles["waves"], scoped["waves"], scoped["dependent_points"]) == (1, 1, 0)
    assert all(0 < each["plan_share"] < 1 for each in (titles, scoped))
    assert "What the skeletons said of their points" in page


def test_a_report_of_titles_alone_says_nothing_of_plans(figures):
    found, page = figures("sot,eager")
    assert found["quality"]["eager"]["points"] == found["quality"]["sot"]["points"] == 6
    assert "What the skeletons said of their points" not in page
