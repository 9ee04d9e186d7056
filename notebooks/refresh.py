"""Runs the notebooks on the demo model and stores their outputs, so that they can be read without running them.

python notebooks/refresh.py            # runs all notebooks
python notebooks/refresh.py --check    # runs nothing; checks that the outputs belong to the current code
python notebooks/refresh.py langchain  # runs the notebooks with this word in their names

Each notebook stores a digest of the code that made its outputs; the tests compare it. Run this on an idle machine: the
pictures show measured seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

__all__ = ["FOLDER", "PICTURE", "PUT_BY_PACKAGE", "by_package", "digest", "execute", "faults", "normalized", "picture"]

FOLDER = Path(__file__).resolve().parent
PICTURE = ("first_answers", FOLDER.parent / "docs" / "pictures" / "timeline.svg")
"""A notebook, and the file for a copy of its first picture, which other pages show."""

_KEY = "outputs_of"
"""The key of the digest in a notebook's metadata."""

_MOST = 60_000
"""The most bytes of a notebook with its outputs; more is hard to review."""

PUT_BY_PACKAGE = {
    "a route": r"^skeleton (?=\[)",
    "a router's reason": r"\b(?:direct|skeleton) because .*",
    "how points are joined": r"^\d+\. (?=\w)|^\d+ (?=\w)",
    "titles that a parser read": r"^\['(?:Listen|Explain)[\w ]*'\]$",
    "the pages that were found": r"^by the question alone: .*|^\['stove'\]$|^\d pages$|(?<=\w) \['(?=\w+'\]$)",
    "usage": r"'(?:\w+_token(?:s|_details)|cache_read)':",
    "what the engine counted": r"^most rows in one step: \d+$|^prompt tokens not computed again: \d+$",
    "a time line's heading": r"^(?:The whole answer|First text) after .*",
    "a time line's colours": r"<style>.*?</style>",
}
"""Names and patterns of output that the package itself writes, unlike a model's words and measured seconds."""

_GARBAGE = {
    "a path of the machine": re.compile(r"/(?:home|root|work|tmp|Users|usr|opt|var)/|site-packages|[A-Z]:\\\\Users"),
    "a progress bar": re.compile(r"\d+%\||it/s\]|\r"),
    "a colour of a terminal": re.compile("\x1b"),
    "a warning": re.compile(r"Warning\b|\bWARNING\b"),
    "an object's address": re.compile(r"\bat 0x[0-9a-f]{6,}"),
}


def digest(notebook: Any) -> str:
    """A digest of all code cells; other cells may change without a new run."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def texts(cell: Any) -> list[str]:
    """The outputs of a code cell, each as text."""
    found = []
    for output in cell.outputs:
        found += [output[key] for key in ("text", "evalue") if key in output]
        found += [str(value) for _, value in sorted(output.get("data", {}).items())]
    return found


def faults(notebook: Any) -> list[str]:
    """The faults of the stored outputs; empty if they are current and clean."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if notebook.metadata.get(_KEY) != digest(notebook):
        found.append("the code was changed after it ran")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("its cells were not run once, in order")
    if not any(cell.outputs for cell in code):
        found.append("there are no outputs")
    for number, cell in enumerate(code, 1):
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"cell [{number}] failed")
        if any(output.get("name") == "stderr" for output in cell.outputs):
            found.append(f"cell [{number}] wrote to standard error")
        written = "\n".join(texts(cell))
        found += [f"cell [{number}] shows {what}" for what, pattern in _GARBAGE.items() if pattern.search(written)]
    if (size := len(nbformat.writes(notebook))) > _MOST:
        found.append(f"it has {size} bytes, more than {_MOST}")
    return found


def normalized(cell: Any) -> list[str]:
    """The shape of a cell's outputs, which stays the same in another run, unlike seconds and a model's words."""
    # The number of pieces of a stream varies between runs.
    kinds = [
        f"stream {output.name}" if output.output_type == "stream" else " ".join(sorted(output.get("data", {})))
        for output in cell.outputs
    ]
    return [kind for i, kind in enumerate(kinds) if kind != (kinds[i - 1] if i else None)]


def by_package(cell: Any) -> list[str]:
    """The texts in a cell's outputs that the package itself wrote, each once and with masked numbers.

    A model's words, and so the number of its points, may differ between processors, even with greedy decoding.
    """
    patterns = re.compile("|".join(f"(?:{pattern})" for pattern in PUT_BY_PACKAGE.values()), re.M)
    found = [match[0] for text in texts(cell) for match in patterns.finditer(text)]
    masked = [text if text.startswith("<style>") else re.sub(r"\d+(?:\.\d+)?", "0", text) for text in found]
    return list(dict.fromkeys(masked))


def picture(notebook: Any) -> str | None:
    """The first picture in the outputs; None without a picture."""
    shown = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
    return next((data["image/svg+xml"] for data in shown if "image/svg+xml" in data), None)


def execute(notebook: Any) -> Any:
    """Runs a notebook in a new kernel, with the checkout as its working directory; returns it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    import nbclient

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # A warning of tqdm without widgets, of no use to a reader.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(FOLDER.parent)}}, coalesce_streams=True
    )
    client.execute()
    for cell in notebook.cells:
        # The times of execution would add changes to every review.
        cell.metadata.pop("execution", None)
    # Without the version of Python, which depends on the machine.
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata[_KEY] = digest(notebook)
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the notebooks and keep their outputs.")
    parser.add_argument("names", nargs="*", help="words in the names of the notebooks to run (default all)")
    parser.add_argument("--check", action="store_true", help="run nothing; list the outputs that are not current")
    args = parser.parse_args()
    paths = [p for p in sorted(FOLDER.glob("*.ipynb")) if not args.names or any(name in p.stem for name in args.names)]
    if not paths:
        print(f"No notebook has {' or '.join(args.names)} in its name.", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bad = 0
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if not args.check:
            print(f"{path.name} ...", flush=True)
            nbformat.write(execute(notebook), path)
            if path.stem == PICTURE[0] and (drawn := picture(notebook)) is not None:
                PICTURE[1].parent.mkdir(parents=True, exist_ok=True)
                PICTURE[1].write_text(drawn, encoding="utf-8")
        wrong = faults(notebook)
        bad += len(wrong)
        print(f"{path.name}: {'; '.join(wrong) or 'current'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
