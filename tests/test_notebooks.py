"""The notebooks run, and their stored outputs match their cells."""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
v4 = nbformat.v4

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def load() -> Any:
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "notebooks" / "refresh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


refresh = load()


def good() -> Any:
    """A notebook with current outputs."""
    first = v4.new_code_cell("print(1)", execution_count=1, outputs=[v4.new_output("stream", text="1\n")])
    second = v4.new_code_cell("2", execution_count=2, outputs=[v4.new_output("execute_result", {"text/plain": "2"})])
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("Two numbers"), first, second])
    notebook.metadata["outputs_of"] = refresh.digest(notebook)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_outputs_are_current_and_readable(path):
    assert refresh.faults(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_shows_a_time_line_of_the_package(path):
    notebook = nbformat.read(path, as_version=4)
    data = [output.data for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any('role="img"' in shown.get("image/svg+xml", "") and "█" in shown["text/plain"] for shown in data)
    assert not any("<rect" in cell.source for cell in notebook.cells)


def test_other_pages_show_the_notebooks_picture():
    name, path = refresh.PICTURE
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert path.read_text(encoding="utf-8") == refresh.picture(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_stored_answer_repeats_itself(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            written = "".join(output.get("text", "") for output in cell.outputs)
            sentences = [text.strip() for text in re.split(r"[.:!?]\s", written) if len(text.strip()) > 40]
            assert sorted(set(sentences)) == sorted(sentences)


def test_a_notebook_with_current_outputs_has_no_faults():
    assert refresh.faults(good()) == []


def _put_out(text: str, **more: Any) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.cells[1].outputs.append(v4.new_output("stream", text=text, **more))

    return change


def _clear(notebook: Any) -> None:
    for cell in notebook.cells[1:]:
        cell.outputs = []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda n: n.cells[1].update(source="print(3)"), "the code was changed after it ran"),
        (lambda n: n.metadata.pop("outputs_of"), "the code was changed after it ran"),
        (lambda n: n.cells.pop(1), "the code was changed after it ran"),
        (lambda n: n.cells[2].update(execution_count=5), "its cells were not run once, in order"),
        (lambda n: n.cells[2].update(execution_count=None), "its cells were not run once, in order"),
        (_clear, "there are no outputs"),
        (lambda n: n.cells[1].outputs.append(v4.new_output("error", ename="E", evalue="e")), r"cell \[1\] failed"),
        (_put_out("loading\n", name="stderr"), r"cell \[1\] wrote to standard error"),
        (_put_out("/home/me/model.gguf"), r"cell \[1\] shows a path of the machine"),
        (_put_out("in lib/site-packages/x.py"), r"cell \[1\] shows a path of the machine"),
        (_put_out("FutureWarning: soon"), r"cell \[1\] shows a warning"),
        (_put_out("weights:  50%|#####"), r"cell \[1\] shows a progress bar"),
        (_put_out("\x1b[31mred"), r"cell \[1\] shows a colour of a terminal"),
        (_put_out("<object at 0x7f6c55149580>"), r"cell \[1\] shows an object's address"),
        (_put_out("x" * 70_000), "it has 7.... bytes, more than"),
    ],
)
def test_unwanted_outputs_are_reported(change, fault):
    notebook = good()
    change(notebook)
    with pytest.raises(AssertionError, match=fault):
        assert refresh.faults(notebook) == []


def test_text_between_the_cells_may_change_without_a_new_run():
    notebook = good()
    notebook.cells[0].source = "Two small numbers"
    notebook.cells.append(v4.new_markdown_cell("The end"))
    assert refresh.faults(notebook) == []


def test_the_pieces_of_a_stream_are_one_output():
    cell = v4.new_code_cell("", outputs=[v4.new_output("stream", text=text) for text in "ab"])
    cell.outputs.append(v4.new_output("display_data", {"text/plain": "", "image/svg+xml": ""}))
    assert refresh.normalized(cell) == ["stream stdout", "image/svg+xml text/plain"]


def test_every_pattern_of_the_packages_own_text_occurs_in_a_stored_output():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    stored = [text for cell in cells for text in refresh.texts(cell)]
    for what, pattern in refresh.PUT_BY_PACKAGE.items():
        assert any(re.search(pattern, text, re.M) for text in stored), what


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("direct because gate (arithmetic): to be calculated", "direct because gate (arithmetic): a sum", False),
        ("skeleton ['Sleep']\n\n1. Sleep: Rest.\n\n2. Eat: Well.", "skeleton ['Walk']\n\n1. Walk: Far.", True),
        ("skeleton ['Sleep']\n\n1. Sleep: Rest.", "skeleton ['Sleep']\n\n## Sleep\nRest.", False),
        ("1. Sleep: Rest.", "1) Sleep: Rest.", False),
        ("The whole answer after 20.85 s\nskeleton ██ 1.00 s", "The whole answer after 9.1 s\nskeleton █ 0.50 s", True),
        ("The whole answer after 20.85 s", "Whole answer: 20.85 s", False),
        ("First text after 1.42 s, the whole answer after 7.93 s", "The whole answer after 7.93 s", False),
        ("by the question alone: ['guests', 'winter']", "by the question alone: ['guests', 'stove']", False),
        ("1 Water ['water']\n  It comes.", "1 Power ['power']\n  It goes.", True),
        (
            "['Sleep'] {'input_tokens': 12, 'output_tokens': 8}",
            "['Walk'] {'input_tokens': 9, 'output_tokens': 7}",
            True,
        ),
        ("['Sleep'] {'input_tokens': 12, 'output_tokens': 8}", "['Sleep'] {'prompt_tokens': 12}", False),
        ("<svg><style>.a{fill:#111}</style></svg>", "<svg><style>.a{fill:#222}</style></svg>", False),
        ("['Listen well']\n['Explain simply']", "['Listen well', 'Explain simply']", False),
    ],
)
def test_the_check_compares_the_packages_text_and_ignores_the_models_words(before, now, same):
    cells = [v4.new_code_cell("", outputs=[v4.new_output("stream", text=text)]) for text in (before, now)]
    assert (refresh.by_package(cells[0]) == refresh.by_package(cells[1])) is same


def test_a_check_names_stale_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refresh, "FOLDER", tmp_path)
    nbformat.write(good(), tmp_path / "good.ipynb")
    changed = good()
    changed.cells[1].source = "print(3)"
    nbformat.write(changed, tmp_path / "stale.ipynb")
    monkeypatch.setattr("sys.argv", ["refresh.py", "--check"])
    assert refresh.main() == 1
    assert capsys.readouterr().out == "good.ipynb: current\nstale.ipynb: the code was changed after it ran\n"
    monkeypatch.setattr("sys.argv", ["refresh.py", "--check", "good"])
    assert refresh.main() == 0
    monkeypatch.setattr("sys.argv", ["refresh.py", "nothing"])
    assert refresh.main() == 2


# Jupyter's own packages warn on a machine without a configuration.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_a_run_stores_current_outputs():
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = good()
    notebook.cells[1].source = "print(3)\nfrom skeleton_of_thought import Answer"
    notebook.cells[2].source = "Answer('', '', 'direct').timeline()"
    assert "the code was changed after it ran" in refresh.faults(notebook)
    refresh.execute(notebook)
    assert refresh.faults(notebook) == []
    assert [refresh.normalized(cell) for cell in notebook.cells[1:]] == [
        ["stream stdout"],
        ["image/svg+xml text/plain"],
    ]
    assert notebook.cells[1].outputs[0].text == "3\n"


@pytest.mark.model
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_a_new_run_changes_only_times_and_the_models_words(path):
    pytest.importorskip("nbclient")
    stored = nbformat.read(path, as_version=4)
    ran = refresh.execute(copy.deepcopy(stored))
    assert refresh.faults(ran) == []
    for before, now in zip(stored.cells, ran.cells, strict=True):
        if now.cell_type == "code":
            assert refresh.normalized(now) == refresh.normalized(before), now.source
            assert refresh.by_package(now) == refresh.by_package(before), now.source
