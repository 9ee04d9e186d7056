"""README's pictures of the live view: a script draws them from a record, and they are small."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("PIL", reason="pictures are drawn by Pillow")

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_pictures", PICTURES / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_plays_to_its_end(record: ModuleType) -> None:
    player = record.Player(record.json.loads(record.RUN.read_text(encoding="utf-8")))
    player.play(player.length)
    lines = ["".join(text for text, _ in line) for line in player.lines()]
    boxes = sum(line.count("╭") for line in lines)
    assert boxes >= 3, "the picture shows too few points"
    assert lines[1].startswith(f"points done: {boxes} of {boxes} - ")
    assert len(lines) <= record.SIZE[1]


def test_the_picture_of_the_page_is_small_and_has_both_columns() -> None:
    from PIL import Image

    assert (PICTURES / "page.png").stat().st_size < 200_000
    with Image.open(PICTURES / "page.png") as image:
        assert image.width >= 1200, "narrower pages show one column"
        assert image.height < 1.6 * image.width


@pytest.mark.parametrize("name", ["live.png", "live.gif"])
def test_pictures_are_small_and_fit_the_terminals_size(record: ModuleType, name: str) -> None:
    from PIL import Image

    assert (PICTURES / name).stat().st_size < 400_000
    with Image.open(PICTURES / name) as image:
        columns, rows = record.SIZE
        # A cell of a terminal is about twice as high as wide.
        assert 1.5 < (image.height / rows) / (image.width / columns) < 2.5
