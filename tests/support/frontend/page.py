"""One browser tab on the host's frontend, driven by Playwright; screenshots of one node, or of a node's view."""

import contextlib
import functools
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright import sync_api

from support.client import Client, accepted

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZE = (1600, 900)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-gpu-rasterization",
    "--disable-accelerated-2d-canvas",
    "--disable-background-networking",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the frontend calls home
]
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Workflow.Persist": False,  # each page starts with the default graph
    "Comfy.Queue.History.Expanded": False,
    "Comfy.Workflow.ShowMissingNodesWarning": False,  # these two open dialogs; `missing` of page.js tells instead
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # draw text at every zoom
}
RENDERER = "Comfy.VueNodes.Enabled"
HELPERS = Path(__file__).with_name("page.js").read_text(encoding="utf-8")


class PageError(RuntimeError):
    """The frontend did not do what was asked; the message holds its dialogs' text and its errors."""


@functools.cache
def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Page:
    """A browser tab on a server's frontend, as a context manager; `tab` is Playwright's own page."""

    def __init__(self, server: Client):
        self.server = server
        self.settings = {**SETTINGS, RENDERER: False}
        self._errors: list[str] = []

    def __enter__(self) -> "Page":
        path = find_browser()
        if path is None:
            raise PageError(f"no browser: install one of {', '.join(BROWSERS)}")
        with contextlib.ExitStack() as opened:
            browser = opened.enter_context(sync_api.sync_playwright()).chromium.launch(executable_path=path, args=FLAGS)
            opened.callback(browser.close)
            self.tab = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
            self.tab.set_default_timeout(60_000)
            self.tab.on("console", self._on_console)
            self.tab.on("pageerror", lambda e: self._errors.append(f"{e.message}\n{e.stack or ''}"))
            self.tab.add_init_script(path=Path(__file__).with_name("before_page.js"))
            self.open()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _on_console(self, message: sync_api.ConsoleMessage) -> None:
        if message.type == "error":
            place = message.location
            self._errors.append(f"{message.text} ({place.get('url')}:{place.get('lineNumber')})")

    def open(self) -> None:
        self.server.post("/settings", self.settings)
        self.tab.goto(self.server.url)
        self.tab.wait_for_function("() => window.app?.graph && window.app.vueAppReady", timeout=120_000)
        self._run_button().wait_for(timeout=60_000)
        self.tab.evaluate(HELPERS)
        # Screenshots in focus mode would show this button.
        self.tab.add_style_tag(content=".comfy-menu-hamburger { display: none !important }")

    @functools.cached_property
    def schemas(self) -> dict:
        return self.server.object_info()

    @property
    def nodes2(self) -> bool:
        """Whether the Vue renderer ("Nodes 2.0") draws the nodes, instead of the classic canvas."""
        return bool(self.settings[RENDERER])

    def use(self, nodes2: bool) -> None:
        """Switch the renderer, as the user's setting does, without loading the page again.

        Frontend 1.32 scatters the nodes of a workflow that is opened in Nodes 2.0, and keeps the layout of one that is
        already open: open workflows with the classic renderer.
        """
        if self.nodes2 != nodes2:
            self.settings[RENDERER] = nodes2
            self.set(RENDERER, nodes2)
            self.tab.wait_for_timeout(500)

    def renderers(self) -> Iterator[str]:
        """Each renderer in turn, from the one in use, which is in use again afterwards."""
        for nodes2 in (self.nodes2, not self.nodes2):
            self.use(nodes2)
            self.settle()
            yield "nodes2" if nodes2 else "classic"
        self.use(not nodes2)

    def set(self, name: str, value: object) -> None:
        self.tab.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])

    def _run_button(self) -> sync_api.Locator:
        return self.tab.get_by_role("button", name="Run", exact=True).first

    def _error(self, text: str) -> PageError:
        dialogs = " ".join(self.tab.get_by_role("dialog").all_inner_texts())
        return PageError("\n".join([text, f"dialog: {dialogs[:2000]}", *self._errors[-5:]]))

    def load_workflow(self, path: Path | str) -> None:
        """Open a workflow file (UI or API format) through the frontend's own file input."""
        self.close_dialogs()
        before = self.tab.evaluate("() => mg.opened")
        self.tab.set_input_files("#comfy-file-input", str(path))
        try:
            self.tab.wait_for_function("(n) => mg.opened > n", arg=before, timeout=30_000)
        except sync_api.TimeoutError:
            raise self._error(f"the frontend did not open {path}") from None
        self.settle()
        if self.tab.get_by_role("dialog").count():
            raise self._error(f"the frontend complains about {path}")

    def open_run(self, place: int) -> None:
        """Open the workflow of an earlier run out of the frontend's history; 0 is the latest."""
        toggle = self.tab.get_by_test_id("queue-overlay-toggle")  # older frontends have a side bar and this key
        switch = toggle.click if toggle.count() else lambda: self.tab.keyboard.press("q")
        switch()
        self.tab.locator("[data-job-id], .task-item").nth(place).click(button="right")
        self.tab.get_by_role("menuitem", name=re.compile("Load Workflow|Open as workflow")).click()
        self.settle()
        switch()

    def close_dialogs(self) -> None:
        dialogs = self.tab.get_by_role("dialog")
        while count := dialogs.count():
            dialogs.last.get_by_role("button", name="Close").first.click(timeout=10_000)
            dialogs.nth(count - 1).wait_for(state="detached", timeout=10_000)

    def serialized(self) -> dict:
        return self.tab.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")

    def api_prompt(self) -> dict:
        return self.tab.evaluate("async () => (await app.graphToPrompt()).output")

    def mg(self, name: str, *given: object) -> Any:
        return self.tab.evaluate("([name, given]) => mg[name](...given)", [name, given])

    def queue(self) -> str:
        """Press Run; returns the id of the prompt. Raises PromptError when the server refuses it, or PageError."""
        posted = lambda got: got.request.method == "POST" and got.url.split("?")[0].endswith("/prompt")  # noqa: E731
        try:
            with self.tab.expect_response(posted, timeout=60_000) as waiting:
                self._run_button().click(timeout=20_000)
            answer = waiting.value.json()
        except sync_api.Error as error:
            raise self._error(f"the frontend did not queue the prompt: {error.message}") from None
        return accepted(answer, {})

    def queue_and_wait(self, timeout: float = 300.0) -> dict:
        """Press Run, wait for the end, return the history entry. Raises PromptError, TimeoutError or PageError."""
        entry = self.server.wait(self.queue(), timeout, pause=lambda: self.tab.wait_for_timeout(200))
        self.tab.wait_for_function("() => app.ui.lastQueueSize === 0", timeout=30_000)
        self.settle()
        return entry

    def settle(self) -> None:
        """Give the frontend the time it needs to draw, and wait for the images on the nodes."""
        for _ in range(2):  # an image is requested only once its node is drawn
            self.tab.evaluate("() => app.canvas.setDirty(true, true)")
            self.tab.wait_for_timeout(250)
            self.tab.wait_for_function("() => mg.imagesLoaded()", timeout=30_000)

    def frames(self) -> None:
        self.tab.evaluate("() => app.canvas.setDirty(true, true)")
        for _ in range(3):
            self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(done))")

    def console_errors(self, part: str = "") -> list[str]:
        """The errors of the page so far that contain `part`, such as a file's address."""
        return [error for error in self._errors if part in error]

    def clear_errors(self) -> None:
        self._errors.clear()


FOCUS = "(on) => { app.extensionManager.focusMode = on }"


@contextmanager
def window(page: Page, width: int, height: int, menus: bool = False) -> Iterator[None]:
    page.tab.set_viewport_size({"width": width, "height": height})
    page.tab.evaluate(FOCUS, not menus)
    page.tab.wait_for_timeout(300)
    try:
        yield
    finally:
        page.tab.evaluate(FOCUS, False)
        page.tab.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})


def single_node(page: Page, node_type: str, scale: float, margin: int) -> bytes:
    x, y, w, h = page.mg("box", node_type)
    width, height = (round(scale * side + 2 * margin) for side in (w, h))
    with window(page, max(width, 900), max(height, 600)):
        page.mg("show", scale, margin / scale - x, margin / scale - y)
        page.settle()
        return page.tab.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})


def title_and_view(page: Page, node: int, node_width: int, width: int) -> list[bytes]:
    """PNGs of a node's title and its view, `width` pixels wide, of a node made `node_width` wide. Classic renderer."""
    x, y, _, h = page.mg("isolate", node, node_width)
    scale = width / node_width
    with window(page, width + 100, round(h * scale) + 100):
        page.mg("show", scale, 50 / scale - x, 50 / scale - y)
        page.settle()
        return [page.tab.screenshot(clip=clip) for clip in page.mg("titleAndView", node)]
