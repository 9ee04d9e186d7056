"""The files of questions: formats, names of columns, and lines that are no question."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.questions import Question, digest, read_questions


@pytest.fixture
def file(tmp_path: Path):
    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def texts(path: Path, **options) -> list[str]:
    return [question.text for question in read_questions(path, **options)]


def test_a_text_has_a_question_a_line(file):
    path = file("q.txt", "\ufeffWhy is the sky blue?\r\n\r\n  How do ships float?  \n\nOld\rMac")
    assert [(each.number, each.id, each.text) for each in read_questions(path)] == [
        (1, "1", "Why is the sky blue?"),
        (2, "2", "How do ships float?"),
        (3, "3", "Old"),
        (4, "4", "Mac"),
    ]
    assert texts(file("no-ending", "Why?")) == ["Why?"]
    assert texts(path, limit=2) == ["Why is the sky blue?", "How do ships float?"]


def test_a_table_has_columns_and_quoted_lines(file):
    path = file(
        "q.csv", '\ufeffid,question,category,system,note\r\na,"One\nor ""two""?",math,Be brief.,x\r\n\r\nb,Why?,,,\r\n'
    )
    assert read_questions(path) == [
        Question(1, 'One\nor "two"?', "a", "math", "Be brief.", {"note": "x"}),
        Question(2, "Why?", "b", extra={"note": ""}),
    ]
    assert texts(file("q.tsv", "nr\tfrage\n7\tWarum?\n"), column="frage", id_column="nr") == ["Warum?"]


def test_lines_of_json_are_objects_texts_or_those_of_vicuna(file):
    lines = [
        {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."], "reference": [1]},
        {"id": "own", "question": "Why\ud800?", "category": None},
        "Just a text?",
    ]
    path = file("q.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_questions(path) == [
        Question(1, "Write.", "81", "writing", extra={"reference": [1]}),
        Question(2, "Why\ufffd?", "own"),
        Question(3, "Just a text?", "3"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("q.txt", "", {}, "has no questions"),
        ("q.txt", " \n\n", {}, "has no questions"),
        ("q.csv", "question\n", {}, "has no questions"),
        ("q.csv", "", {}, "has no questions"),
        ("q.txt", b"good\n\xff\xfe\n", {}, "line 2 is no text in UTF-8"),
        ("q.csv", b'question\n"a\nb"\n\xe9\n', {}, "line 4 is no text in UTF-8"),
        ("q.csv", "id,text\n1,Why?\n", {}, "has no column 'question', but 'id', 'text'"),
        ("q.csv", "id,question\n1,Why?\n", {"category": "kind"}, "has no column 'kind'"),
        ("q.csv", "id,question\n1,Why?\n2,  \n", {}, "line 3: the question is empty"),
        ("q.csv", 'id,question\n1,"a\nb"\n2,Why, oh why?\n', {}, "line 4 has 3 fields"),
        ("q.csv", 'question\nWhy?\n"How', {}, "line 3 cannot be read"),
        ("q.csv", "id,question\n1,Why?\n2,How?\n1,Who?\n", {}, "lines 2 and 4 have the same id '1'"),
        ("q.csv", "question,question\na,b\n", {}, "two columns 'question'"),
        ("q.jsonl", '"Why?"\n{"question":\n', {}, "line 2 is no JSON"),
        ("q.jsonl", "[1]\n", {}, "line 1 is neither an object nor a string"),
        ("q.jsonl", '{"text": "Why?"}\n', {}, "line 1 has no 'question', but 'text'"),
        ("q.jsonl", '{"question": 3}\n', {}, "line 1: 'question' is no text"),
        ("q.jsonl", '{"question": "Why?", "category": {}}\n', {}, "line 1: 'category' is no text"),
        ("q.jsonl", '{"question": "Why?"}\n', {"category": "kind"}, "has no column 'kind'"),
        ("q.jsonl", "[" * 100_000 + "\n", {}, "line 1 is no JSON"),
        ("q.xlsx", "Why?", {}, "ending"),
    ],
)
def test_what_is_no_question_is_named_by_its_line(file, name, content, options, message):
    with pytest.raises(InvalidInput, match=message):
        read_questions(file(name, content), **options)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.txt", tmp_path, "a\0b.txt"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_questions(path)
    if hasattr(os, "mkfifo"):  # nobody writes to it, and nothing waits for that
        os.mkfifo(tmp_path / "pipe.txt")
        with pytest.raises(InvalidInput, match="no questions"):
            read_questions(tmp_path / "pipe.txt")


def test_standard_input_is_a_text(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Why?\n\nHow?\n"))
    assert texts("-") == ["Why?", "How?"]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InvalidInput, match="closed"):
        read_questions("-")


def test_the_digest_is_that_of_the_texts(file):
    first = read_questions(file("a.txt", "Why?\nHow?"))
    assert digest(first) == digest(read_questions(file("b.csv", "question,category\nWhy?,x\nHow?,y")))
    assert digest(first) != digest(first[:1])
