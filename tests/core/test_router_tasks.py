"""The labelled prompts with a question in them: their shape, their reader, and the decisions of the default router."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.embedded import Weights
from skeleton_of_thought.routers.measures import LabelledTask, read_tasks
from skeleton_of_thought.routers.question import LANGUAGES
from skeleton_of_thought.routers.training import train_tasks
from skeleton_of_thought.types import Conversation

FILE = Path(__file__).parent.parent / "data" / "router_tasks.csv"
TASKS = read_tasks(FILE)
SHIPPED = Path(sys.modules[AutoRouter.__module__].__file__ or "").with_name("tasks.bin")


def normal(text: str) -> str:
    """A text without differences of case and white space."""
    return " ".join(text.casefold().split())


TRAIN = [task for task in TASKS if task.split == "train"]
HELD_OUT = [task for task in TASKS if task.split == "heldout"]


def test_the_set_is_large_and_half_of_it_keeps_its_skeleton():
    assert len(TASKS) >= 1800
    assert sum(task.use_skeleton for task in TASKS) / len(TASKS) == pytest.approx(0.5, abs=0.01)


def test_the_prompts_held_out_are_of_an_author_of_their_own():
    """Prompts of one author resemble each other: only those of another show how the router does on anybody's."""
    assert len(TRAIN) + len(HELD_OUT) == len(TASKS)
    assert len({task.source for task in TRAIN}) >= 4
    assert {task.source for task in TRAIN}.isdisjoint(task.source for task in HELD_OUT)


def test_both_labels_have_many_kinds():
    kinds = Counter((task.use_skeleton, task.kind) for task in TRAIN)
    assert len([kind for kind in kinds if not kind[0]]) >= 40
    assert len([kind for kind in kinds if kind[0]]) >= 15


def test_both_labels_have_all_languages():
    for label in (True, False):
        languages = Counter(task.language for task in TASKS if task.use_skeleton is label)
        assert set(languages) == set(LANGUAGES)
        assert min(languages.values()) >= 8
        assert 0.6 <= languages["en"] / languages.total() <= 0.75


def test_both_labels_have_system_messages_and_texts_around_the_question():
    for label in (True, False):
        systems = Counter(bool(task.system) for task in TASKS if task.use_skeleton is label)
        assert min(systems.values()) >= 80


def test_no_text_occurs_twice_and_no_instruction_in_both_splits():
    rows = Counter((normal(task.system), normal(task.prompt)) for task in TASKS)
    assert [row for row, count in rows.items() if count > 1] == []
    # A bare question goes with many system messages: there the system message decides.
    trained = {normal(task.system or task.prompt) for task in TRAIN}
    both = [task for task in HELD_OUT if normal(task.system or task.prompt) in trained]
    assert len(both) <= len(HELD_OUT) / 50, [task.kind for task in both]


def test_the_questions_alone_do_not_tell_the_label():
    """Most questions that stand alone below a system message have one with each label."""
    bare = [task for task in TASKS if task.system and "\n" not in task.prompt and task.language == "en"]
    labels: dict[str, set[bool]] = {}
    for task in bare:
        labels.setdefault(normal(task.prompt), set()).add(task.use_skeleton)
    assert len(labels) >= 60
    assert sum(len(found) == 2 for found in labels.values()) / len(labels) >= 0.6


# --- the reader ---


def test_missing_columns_are_empty(tmp_path):
    file = tmp_path / "tasks.csv"
    file.write_text('label,prompt\n1,"What are\nthe kinds of tea?"\n0,Translate it.\n')
    assert read_tasks(file) == [LabelledTask("What are\nthe kinds of tea?", True), LabelledTask("Translate it.", False)]


def test_all_columns_are_read(tmp_path):
    file = tmp_path / "tasks.csv"
    file.write_text("prompt,language,kind,split,system,label\nWhy?,en,one word,heldout,One word.,0\n")
    assert read_tasks(file) == [LabelledTask("Why?", False, "One word.", "heldout", "one word", "en")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,question\n1,Why?\n", "need the columns label and prompt, and at least one row"),
        ("label,prompt\n", "need the columns label and prompt, and at least one row"),
        ("label,prompt\n1,Why?\n2,Why?\n", "Row 2 of .* has the label '2'"),
        ("label,prompt\n1,\n", "Row 1 of .* must be 0 or 1, with a prompt"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    file = tmp_path / "tasks.csv"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_tasks(file)


# --- the default router ---


@pytest.mark.parametrize(("split", "least"), [(TRAIN, 0.96), (HELD_OUT, 0.94)], ids=["train", "heldout"])
def test_the_text_around_a_question_decides(split, least):
    """A failure names kinds only, so that the prompts held out stay unseen."""
    router = AutoRouter()
    wrong = Counter(
        f"{int(task.use_skeleton)} {task.kind} ({task.language})"
        for task in split
        if router.route(Conversation.of(task.prompt, system=task.system)).use_skeleton is not task.use_skeleton
    )
    assert wrong.total() <= (1 - least) * len(split), dict(wrong)


def test_the_weights_are_those_of_the_training_command():
    """`benchmarks/train_tasks.py` writes the weights in the package, from the prompts in the repository."""
    rows = [task for file in (FILE, FILE.with_name("router_instructions.csv")) for task in read_tasks(file)]
    trained, shipped = train_tasks([task for task in rows if task.split != "heldout"]), Weights.read(SHIPPED)
    # Versions of Python add numbers in different ways.
    assert max(abs(mine - theirs) for mine, theirs in zip(trained.buckets, shipped.buckets, strict=True)) <= 2
    assert trained.about == shipped.about
    assert SHIPPED.stat().st_size < 100_000
