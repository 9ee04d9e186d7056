"""Takes `page.png`, README's picture of the page of `sot serve`: a real comparison by a server that runs.

    sot serve &
    python docs/pictures/page.py http://127.0.0.1:8000/

It needs playwright, Chromium and Pillow. A first question warms the model up; the second one is in the picture. The
answers come one after the other, so that neither slows the other: run it on a machine that does nothing else.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURE = Path(__file__).parent / "page.png"
WARM_UP = "What makes a good teacher?"
QUESTION = "How can I stay motivated at work?"
SIZE = (1280, 900)
COLOURS = 64
PATIENCE = 300_000
"""Milliseconds that both answers may take."""


def ask(page: Page, url: str, question: str) -> None:
    """Opens the page, asks a question and waits for the end of both answers."""
    page.goto(url)
    page.wait_for_selector("select[name=model]:enabled")
    page.check("input[value=sequence]", force=True)
    page.fill("#question", question)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#sot[data-status=done]", timeout=PATIENCE)
    page.wait_for_selector("#stop", state="hidden")


def photograph(url: str) -> Image.Image:
    """The page after a comparison, down to its figures."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        for question in (WARM_UP, QUESTION):
            ask(page, url, question)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        end = page.evaluate("document.querySelector('#figures').getBoundingClientRect().bottom")
        browser.close()
    return picture.crop((0, 0, picture.width, min(picture.height, round(end) + 32)))


if __name__ == "__main__":
    whole = photograph(sys.argv[1])
    whole.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {whole.width} x {whole.height}, {PICTURE.stat().st_size:,} bytes")
