"""The page of the server in headless Chromium, over a scripted model; skipped without playwright or Chromium."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATIENCE = 20.0
"""Seconds after which a wait fails the test, so that the test does not hang."""

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    """The module `scripted_model` of this folder, which test modules cannot import."""
    pytest.importorskip("starlette", reason="the server needs its extra: pip install 'skeleton-of-thought[serve]'")
    spec = importlib.util.spec_from_file_location("scripted_model", Path(__file__).with_name("scripted_model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Not for the session: while playwright runs, its event loop counts as running in this thread, and no async test can.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is driven by playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve_app() -> Iterator[Callable[[Any], str]]:
    """Serves an app on a free port of this machine; returns its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server needs uvicorn")
    running: list[tuple[Any, threading.Thread]] = []

    def start(app: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        settings = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_for(lambda: server.started, "the server started")
        running.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(PATIENCE)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"this condition never held: {what}"
        time.sleep(0.01)


@pytest.fixture
def eventually_so() -> Callable[[Callable[[], bool], str], None]:
    """`eventually_so(condition, what)`, for tests without an event loop."""
    return wait_for


class Tab:
    """A page of its own in the browser, with what went wrong in it.

    Attributes:
        page: Playwright's page.
        faults: What its console reports as errors, a breach of its security policy included, and what it threw.
        model: The scripted model behind it.
    """

    def __init__(self, page: Any, model: Any) -> None:
        self.page, self.model = page, model
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda said: self._note(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._note(str(error)))

    def _note(self, text: str) -> None:
        # Chromium reports each response with an error's status; the tests of these look at what the page says.
        if "the server responded with a status of" not in text:
            self.faults.append(text)

    def ask(self, question: str) -> None:
        self.page.fill("#question", question)
        self.page.click("#run")

    def await_end(self) -> None:
        """Waits until both answers have ended."""
        ended = "s => ['done', 'failed', 'stopped'].includes(document.querySelector(s).dataset.status)"
        for side in ("#normal", "#sot"):
            self.page.wait_for_function(ended, arg=side)
        self.page.wait_for_selector("#run:enabled")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector)).strip()

    def texts(self, selector: str) -> list[str]:
        return [str(text).strip() for text in self.page.locator(selector).all_inner_texts()]

    def photograph(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def module_tab(chromium: Any, serve_app: Callable[[Any], str], scripted: ModuleType) -> Iterator[Tab]:
    """One page for the tests of a module that change nothing in it."""
    model = scripted.ScriptedModel()
    page = chromium.new_page()
    tab = Tab(page, model)
    page.goto(serve_app(scripted.server(model)))
    yield tab
    page.close()
    assert tab.faults == []


@pytest.fixture
def open_tab(chromium: Any, serve_app: Callable[[Any], str], scripted: ModuleType) -> Iterator[Callable[..., Tab]]:
    """Opens the page over a new scripted model; at its end, nothing may have gone wrong in it."""
    tabs: list[tuple[Any, Tab]] = []

    def start(
        *, key: str | None = None, width: int = 1280, height: int = 900, model: Any = None, **options: Any
    ) -> Tab:
        model = model or scripted.ScriptedModel()
        address = serve_app(scripted.server(model, key))
        options = {"color_scheme": "light", "reduced_motion": "reduce", **options}
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        tab = Tab(context.new_page(), model)
        tabs.append((context, tab))
        tab.page.goto(address)
        if key is None:
            tab.page.wait_for_selector("body[data-models]")
        return tab

    yield start
    for context, tab in tabs:
        context.close()
        assert tab.faults == []
