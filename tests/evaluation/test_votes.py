"""The blind page, and the votes that it saves."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.votes import count_votes, numbered_votes, voters, write_vote_page

WAYS = ("normal", "sot", "auto")
HOSTILE = "</script><script>alert(1)</script> \u2028 \ud800 <!--data--> & é"


def row(number, way, text=None, **more):
    text = f"answer {number}{WAYS.index(way)}" if text is None else text
    named = {"key": f"{way}-{number}", "number": number, "id": f"q{number}", "question": f"Why {number}?"}
    return Row(**(named | {"way": way, "model": "m", "text": text, "plain": f"plain {text}"} | more))


ROWS = [row(number, way, category="cook") for number in range(1, 9) for way in WAYS]


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def saved(tmp_path, page, choose, **more):
    """The file that the page saves where each pair gets the choice of `choose`."""
    data = data_of(page.read_text(encoding="utf-8"))
    votes = [{"pair": pair["id"], "choice": choose(pair), "at": "2026-01-01"} for pair in data["pairs"]]
    file = tmp_path / "votes.json"
    file.write_text(
        json.dumps({key: data[key] for key in ("kind", "version", "run", "seed")} | {"votes": votes} | more)
    )
    return file


@pytest.mark.parametrize("form", ["written", "plain"])
def test_votes_lead_back_to_the_ways(tmp_path, form):
    page = tmp_path / "vote.html"
    assert write_vote_page(page, ROWS, forms=[form], seed=5) == 16
    file = saved(tmp_path, page, lambda pair: "left" if pair["left"].endswith("0") else "right")
    verdicts = count_votes(file, ROWS)
    assert len(verdicts) == len({verdict.key for verdict in verdicts}) == 16
    assert {(verdict.a, verdict.b) for verdict in verdicts} == {("normal", "sot"), ("normal", "auto")}
    assert {(verdict.winner, verdict.judge, verdict.form, verdict.category) for verdict in verdicts} == {
        ("normal", "human", form, "cook")
    }
    assert {verdict.first == "normal" for verdict in verdicts} == {True, False}, "the sides are drawn"


def test_the_page_names_no_way_and_is_the_same_each_time(tmp_path):
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        write_vote_page(page, ROWS, seed=1)
    text = pages[0].read_text(encoding="utf-8")
    assert text == pages[1].read_text(encoding="utf-8")
    assert not re.search("|".join([*WAYS, "merge"]), text)
    write_vote_page(pages[1], ROWS, seed=2)
    first, second = (data_of(page.read_text(encoding="utf-8"))["pairs"] for page in pages)
    assert [pair["left"] for pair in first] != [pair["left"] for pair in second]


def test_hostile_answers_stay_data(tmp_path):
    page = tmp_path / "vote.html"
    write_vote_page(page, [row(1, "normal", HOSTILE), row(1, "sot", "fine")])
    text = page.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert "\u2028" not in text
    (pair,) = data_of(text)["pairs"]
    assert HOSTILE in (pair["left"], pair["right"])
    assert "default-src 'none'" in text
    assert "unsafe" not in text


def test_failed_empty_and_same_answers_are_not_asked_for(tmp_path):
    rows = [row(1, "normal"), row(1, "sot"), row(2, "normal", "same"), row(2, "sot", "same")]
    rows += [row(3, "normal"), row(3, "sot", "", error="down"), row(4, "normal"), row(4, "sot", " ")]
    page = tmp_path / "vote.html"
    assert write_vote_page(page, rows) == 1
    verdicts = count_votes(saved(tmp_path, page, lambda _: "tie"), rows)
    assert [(verdict.number, verdict.winner) for verdict in verdicts] == [(1, "tie"), (2, "tie")]
    with pytest.raises(InvalidInput, match="nothing to vote on"):
        write_vote_page(page, rows[2:])


def test_only_the_pairs_that_are_named_are_asked_for(tmp_path):
    page = tmp_path / "vote.html"
    assert write_vote_page(page, ROWS, pairs=[("auto", "sot")]) == 8
    verdicts = count_votes(saved(tmp_path, page, lambda _: "left"), ROWS, ways=WAYS)
    assert {(verdict.a, verdict.b) for verdict in verdicts} == {("sot", "auto")}


def test_the_later_of_two_votes_counts(tmp_path):
    page = tmp_path / "vote.html"
    write_vote_page(page, ROWS[:2])
    (pair,) = data_of(page.read_text(encoding="utf-8"))["pairs"]
    votes = [{"pair": pair["id"], "choice": choice} for choice in ("left", "right", "tie")]
    (verdict,) = count_votes(saved(tmp_path, page, lambda _: "left", votes=votes), ROWS[:2])
    assert verdict.winner == "tie"


def test_votes_of_two_people_have_two_keys_and_those_of_one_person_one(tmp_path):
    page = tmp_path / "vote.html"
    write_vote_page(page, [*ROWS[:2], row(2, "normal", "same"), row(2, "sot", "same")])
    rows = [*ROWS[:2], row(2, "normal", "same"), row(2, "sot", "same")]

    def counted(choice, **more):
        return count_votes(saved(tmp_path, page, lambda _: choice, **more), rows)

    ann, bob, ann_again = counted("left", voter="a1"), counted("right", voter="b2"), counted("tie", voter="a1")
    assert [vote.key for vote in ann] == [vote.key for vote in ann_again]
    assert not {vote.key for vote in ann} & {vote.key for vote in bob}
    assert voters([*ann, *bob, *ann_again]) == 2
    unnamed, same, another = counted("left"), counted("left"), counted("right")
    assert [vote.key for vote in unnamed] == [vote.key for vote in same]
    assert voters([*ann, *unnamed, *same, *another]) == 3


def test_votes_follow_questions_that_moved(tmp_path):
    page = tmp_path / "vote.html"
    write_vote_page(page, ROWS[:2])
    votes = count_votes(saved(tmp_path, page, lambda _: "left"), ROWS[:2])
    moved = [replace(each, number=7, id="moved", category="new") for each in ROWS[:2]]
    assert [(vote.number, vote.id, vote.category) for vote in numbered_votes(votes, moved)] == [(7, "moved", "new")]
    assert numbered_votes(votes, []) == votes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": "else"}, "no file of votes"),
        ({"version": 2}, "cannot read"),
        ({"seed": "0"}, "lacks the seed"),
        ({"votes": {}}, "lacks the seed or the votes"),
        ({"votes": []}, "has no votes"),
        ({"voter": 3}, "no readable voter"),
        ({"voter": "../x"}, "no readable voter"),
        ({"votes": [{"pair": "x", "choice": "best"}]}, "vote 1 needs"),
        ({"votes": ["left"]}, "vote 1 needs"),
        ({"votes": [{"pair": ["x"], "choice": "left"}]}, "vote 1 needs"),
        ({"votes": [{"pair": "x", "choice": ["left"]}]}, "vote 1 needs"),
        ({"votes": [{"pair": "x", "choice": "left"}]}, "another run"),
        ({"seed": 8}, "another run"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, more, message):
    page = tmp_path / "vote.html"
    write_vote_page(page, ROWS)
    with pytest.raises(InvalidInput, match=message):
        count_votes(saved(tmp_path, page, lambda _: "left", **more), ROWS)


def test_votes_on_a_run_that_has_changed_are_refused(tmp_path):
    page = tmp_path / "vote.html"
    write_vote_page(page, ROWS)
    file = saved(tmp_path, page, lambda _: "left")
    assert len(count_votes(file, [*ROWS, row(9, "normal"), row(9, "sot")])) == 16, "a run may grow"
    with pytest.raises(InvalidInput, match="vote 1 is on a pair"):
        count_votes(file, [*ROWS, row(1, "normal", "made anew")])
    for broken in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        file.write_bytes(broken)
        with pytest.raises(InvalidInput, match="no file of votes"):
            count_votes(file, ROWS)
    with pytest.raises(InvalidInput, match="cannot be read"):
        count_votes(tmp_path / "none.json", ROWS)


def test_a_page_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    page = tmp_path / "vote.html"
    page.write_text("before")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SotError, match=r"vote\.html.*No space left"):
        write_vote_page(page, ROWS)
    assert page.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["vote.html"]
