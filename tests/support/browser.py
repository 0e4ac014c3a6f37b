"""The host's real frontend in a real browser, driven by Playwright.

with Server() as server, Page(server) as page:
    page.load_workflow("workflows/example.json")
    page.queue_and_wait()
    page.screenshot("example.png")
"""

from __future__ import annotations

import functools
import shutil
import time
from pathlib import Path

from playwright import sync_api

from support.client import Client, PromptError, checked

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    *(
        "--no-sandbox",
        "--disable-gpu",
        "--disable-gpu-rasterization",
        "--disable-accelerated-2d-canvas",
        "--disable-background-networking",
        "--no-first-run",
    ),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the frontend calls home
]
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Workflow.Persist": False,  # each page starts with the default graph
    "Comfy.Workflow.ShowMissingNodesWarning": False,  # dialogs; `missing_nodes` tells
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # draw the text at every zoom
}
RENDERER = "Comfy.VueNodes.Enabled"
ROOM = {True: (64, 130, 24, 24), False: (24, 24, 24, 24)}  # left, top, right, bottom; with the menus?

# Console errors with the stacks of the errors in them and of the call, so that the file at fault shows.
BEFORE = """
const shown = (v) => v instanceof Error ? (v.stack || String(v))
  : v && typeof v === "object" && Object.values(v).some((x) => x instanceof Error)
  ? Object.values(v).map(shown).join(" ") : v;
const original = console.error;
console.error = (...all) => original(...all.map(shown), "\\n@ " + new Error().stack);
localStorage.setItem("vueNodesBannerDismissed", "true");
localStorage.setItem("comfy.vueNodesMigration.dismissed", "true");
"""
# What the rest of this file calls in the page.
HELPERS = """() => {
  const open = app.handleFile.bind(app);
  const nodes = (graph = app.graph) => (graph.nodes ?? graph._nodes).flatMap((n) =>
    n.isSubgraphNode?.() ? [n, ...nodes(n.subgraph)] : [n]);
  // A node's execution id: "5", or "12:5" in subgraph node 12.
  const path = (n) => {
    const root = app.graph.rootGraph ?? app.graph;
    if (n.graph === root) return String(n.id);
    const holder = nodes(root).find((m) => m.isSubgraphNode?.() && m.subgraph === n.graph);
    return `${path(holder)}:${n.id}`;
  };
  window.mg = { opened: 0, nodes: () => nodes(app.graph.rootGraph ?? app.graph), path };
  app.handleFile = async (...all) => { try { return await open(...all) } finally { mg.opened += 1 } };
}"""
SET_WIDGETS = """([type, name, value]) => mg.nodes().filter((n) => n.type === type).map((n) => {
  const widget = n.widgets?.find((w) => w.name === name);
  if (!widget) return 0;
  widget.value = value;
  widget.callback?.(value, app.canvas, n);
  return 1;
}).reduce((a, b) => a + b, 0)"""
SET_NODE = """([id, name, value]) => {
  const node = mg.nodes().find((n) => mg.path(n) === String(id)), widget = node?.widgets?.find((w) => w.name === name);
  if (!widget) throw new Error(`node ${id} has no widget ${name}`);
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
}"""
# Pairs of nodes that cover each other, titles included; a bypassed or collapsed node counts as any other.
OVERLAPS = """() => {
  const boxes = app.graph.nodes.map((n) => { n.updateArea?.(); return [n.title, ...n.boundingRect] });
  const over = ([, x, y, w, h], [, p, q, v, u]) => x < p + v && p < x + w && y < q + u && q < y + h;
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => over(a, b)).map((b) => [a[0], b[0]]));
}"""
RESIZED = """([id, width]) => {
  const node = app.graph.getNodeById(id);
  node.setSize([width, node.computeSize()[1]]);
  node.pos = [0, -10000]; // away from the others
  node.updateArea?.();
  return [node.boundingRect[0], node.boundingRect[1], node.boundingRect[3]];
}"""
# In window coordinates: a node's title, and its view down to the legend.
VIEW_OF = """(id) => {
  const node = app.graph.getNodeById(id), { scale, offset } = app.canvas.ds;
  const root = node.widgets.find((w) => w.name === "memorization_guard_view").element;
  const frame = app.canvas.canvas.getBoundingClientRect();
  const x = frame.x + (node.pos[0] + offset[0]) * scale, width = node.size[0] * scale;
  const top = frame.y + (node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT + offset[1]) * scale;
  const view = root.getBoundingClientRect();
  const last = (root.querySelector(".mg-legend") ?? root).getBoundingClientRect();
  return [{ x, y: top, width, height: LiteGraph.NODE_TITLE_HEIGHT * scale },
          { x, y: view.y, width, height: last.bottom - view.y }];
}"""
BOUNDS = """() => {
  const graph = app.canvas.graph ?? app.graph; // a subgraph, when one is open
  const boxes = [...graph.nodes.map((n) => (n.updateArea?.(), n.boundingRect)),
                 ...graph.groups.map((g) => g._bounding)];
  if (!boxes.length) return null;
  const [x, y] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])));
  const [r, b] = [0, 1].map((i) => Math.max(...boxes.map((b) => b[i] + b[i + 2])));
  return [x, y, r - x, b - y];
}"""
SHOW = """([scale, x, y]) => {
  app.canvas.deselectAll?.();
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset[0] = x;
  app.canvas.ds.offset[1] = y;
  app.canvas.setDirty(true, true);
}"""
PICTURES_THERE = "() => mg.nodes().every((n) => (n.imgs ?? []).every((i) => i.complete))"


class PageError(RuntimeError):
    """The frontend did not do what was asked; the message holds its dialogs' text and its errors."""


@functools.cache
def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Page:
    """One browser tab on a server's frontend, as a context manager.

    size: the viewport. nodes2: the Vue renderer ("Nodes 2.0") instead of the classic canvas.
    `tab` is Playwright's own page, for whatever is not here.
    """

    def __init__(self, server: Client, size: tuple[int, int] = (1600, 900), nodes2: bool = False):
        self.server, self.size = server, size
        self.settings = {**SETTINGS, RENDERER: nodes2}
        self._errors: list[str] = []

    def __enter__(self) -> Page:
        browser = find_browser()
        if browser is None:
            raise PageError(f"no browser: install one of {', '.join(BROWSERS)}")
        self._playwright = sync_api.sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=browser, args=FLAGS)
            width, height = self.size
            self.tab = self._browser.new_page(viewport={"width": width, "height": height})
            self.tab.set_default_timeout(60_000)
            self.tab.on("console", self._on_console)
            self.tab.on("pageerror", lambda e: self._errors.append(f"{e.message}\n{e.stack or ''}"))
            self.tab.add_init_script(BEFORE)
            self.open()
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._browser.close()
        finally:
            self._playwright.stop()

    def _on_console(self, message: sync_api.ConsoleMessage) -> None:
        if message.type == "error":
            place = message.location
            self._errors.append(f"{message.text} ({place.get('url')}:{place.get('lineNumber')})")

    def open(self) -> None:
        """Load (or reload) the frontend and wait until it is ready."""
        self.server.post("/settings", self.settings)
        self.tab.goto(self.server.url)
        self.tab.wait_for_function("() => window.app?.graph && window.app.vueAppReady", timeout=120_000)
        self._run_button().wait_for(timeout=60_000)
        self.tab.evaluate(HELPERS)
        self.tab.add_style_tag(content=".comfy-menu-hamburger { display: none !important }")  # of the focus mode

    @property
    def nodes2(self) -> bool:
        return bool(self.settings[RENDERER])

    def use(self, nodes2: bool) -> None:
        """Switch the renderer, as the user's setting does, without loading the page again.

        Frontend 1.32 scatters the nodes of a workflow that is opened in Nodes 2.0; one that is open keeps its layout.
        """
        if self.nodes2 != nodes2:
            self.settings[RENDERER] = nodes2
            self.set(RENDERER, nodes2)
            self.tab.wait_for_timeout(500)

    def set(self, name: str, value: object) -> None:
        """Change one of the frontend's settings."""
        self.tab.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])

    def _run_button(self) -> sync_api.Locator:
        return self.tab.locator("[data-testid=queue-button] button").first

    def _error(self, text: str) -> PageError:
        dialogs = " ".join(self.tab.locator(".p-dialog").all_inner_texts())
        return PageError("\n".join([text, f"dialog: {dialogs[:2000]}", *self._errors[-5:]]))

    def load_workflow(self, path: Path | str) -> None:
        """Open a workflow file (UI or API format) through the frontend's own file input."""
        self.dismiss_dialogs()
        before = self.tab.evaluate("() => mg.opened")
        self.tab.set_input_files("#comfy-file-input", str(path))
        try:
            self.tab.wait_for_function("(n) => mg.opened > n", arg=before, timeout=30_000)
        except sync_api.TimeoutError:
            raise self._error(f"the frontend did not open {path}") from None
        self.settle()
        if self.tab.locator(".p-dialog").count():
            raise self._error(f"the frontend complains about {path}")

    def dismiss_dialogs(self) -> None:
        """Close the frontend's dialogs, such as those of an earlier error."""
        dialogs = self.tab.locator(".p-dialog")
        while count := dialogs.count():
            dialogs.last.locator(".p-dialog-close-button").first.click(timeout=10_000)
            self.tab.wait_for_function(
                "(n) => document.querySelectorAll('.p-dialog').length < n", arg=count, timeout=10_000
            )

    def node_types(self) -> list[str]:
        """Every node type the frontend knows."""
        return sorted(self.tab.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))

    def missing_nodes(self) -> list[str]:
        """The types of the graph's red nodes: those the frontend could not make."""
        known = "mg.nodes().filter((n) => n.has_errors || !(n.type in LiteGraph.registered_node_types))"
        return self.tab.evaluate(f"() => {known}.map((n) => n.last_serialization?.type ?? n.type)")

    def set_widgets(self, node_type: str, name: str, value: object) -> int:
        """Set a widget on every node of a type, as a click would; returns how many there were."""
        return self.tab.evaluate(SET_WIDGETS, [node_type, name, value])

    def set_node(self, node: int | str, name: str, value: object) -> None:
        """Set a widget of one node, given by its execution id, as a click would."""
        self.tab.evaluate(SET_NODE, [node, name, value])

    def overlaps(self) -> list[list[str]]:
        """The titles of nodes that cover each other, in pairs."""
        return self.tab.evaluate(OVERLAPS)

    def queue_and_wait(self, timeout: float = 300.0) -> dict:
        """Press Run, wait for the end, return the history entry.

        Raises comfy_client.PromptError when the server refuses or fails it, TimeoutError, or
        PageError when the frontend sends nothing.
        """
        try:
            with self.tab.expect_response(_is_prompt, timeout=60_000) as waiting:
                self._run_button().click(timeout=20_000)
            answer = waiting.value.json()
        except sync_api.Error as error:
            raise self._error(f"the frontend did not queue the prompt: {error.message}") from None
        for node_id, node in (answer.get("node_errors") or {}).items():
            texts = "; ".join(f"{e['message']}: {e['details']}" for e in node["errors"])
            raise PromptError("validation", texts, node_id, node["class_type"], answer)
        if "error" in answer:
            raise PromptError("validation", answer["error"]["message"], details=answer)
        prompt_id, end = answer["prompt_id"], time.monotonic() + timeout
        while (entry := self.server.call("GET", f"/history/{prompt_id}").json().get(prompt_id)) is None:
            if time.monotonic() > end:
                self.server.cancel(prompt_id)
                raise TimeoutError(f"the prompt did not end in {timeout:.0f} s")
            self.tab.wait_for_timeout(200)
        checked(entry)
        self.tab.wait_for_function("() => app.ui.lastQueueSize === 0", timeout=30_000)
        self.settle()
        return entry

    def settle(self) -> None:
        """Give the frontend the frames it needs to draw, and wait for the pictures on the nodes."""
        for _ in range(2):  # a picture is asked for only once its node is drawn
            self.tab.evaluate("() => app.canvas.setDirty(true, true)")
            self.tab.wait_for_timeout(250)
            self.tab.wait_for_function(PICTURES_THERE, timeout=30_000)

    def frames(self) -> None:
        """Give the frontend the frames it needs to draw a change."""
        self.tab.evaluate("() => app.canvas.setDirty(true, true)")
        for _ in range(3):
            self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(done))")

    def screenshot(self, path: Path | str, menus: bool = False, largest: tuple[int, int] = (2400, 1500)) -> None:
        """Write the whole graph to a .png or .jpg, the window sized so that it is legible.

        menus: with the frontend's menus around it. largest: of the window, in pixels; a graph that
        does not fit is scaled down.
        """
        if bounds := self.tab.evaluate(BOUNDS):
            left, top, right, bottom = ROOM[menus]
            x, y, w, h = bounds
            scale = min(1.0, (largest[0] - left - right) / w, (largest[1] - top - bottom) / h)
            width = max(round(w * scale) + left + right, 480 if not menus else 1100)
            height = max(round(h * scale) + top + bottom, 320 if not menus else 700)
            self.tab.set_viewport_size({"width": width, "height": height})
            self._focus_mode(not menus)
            self.tab.wait_for_timeout(300)
            middle = ((width - left - right) / 2 + left, (height - top - bottom) / 2 + top)
            offset = (middle[0] / scale - x - w / 2, middle[1] / scale - y - h / 2)
            self.tab.evaluate(SHOW, [scale, *offset])
        self.settle()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=str(path))
        self._focus_mode(False)
        self.tab.set_viewport_size({"width": self.size[0], "height": self.size[1]})

    def view_of(self, node: int, node_width: int, width: int) -> tuple[bytes, bytes]:
        """PNGs of a node's title and of its view, `width` pixels wide, the node `node_width`. Classic renderer."""
        x, y, h = self.tab.evaluate(RESIZED, [node, node_width])
        scale = width / node_width
        self.tab.set_viewport_size({"width": width + 100, "height": round(h * scale) + 100})
        self._focus_mode(True)
        self.tab.wait_for_timeout(300)
        self.tab.evaluate(SHOW, [scale, 50 / scale - x, 50 / scale - y])
        self.settle()
        clips = self.tab.evaluate(VIEW_OF, node)
        shots = [self.tab.screenshot(clip=clip) for clip in clips]
        self._focus_mode(False)
        self.tab.set_viewport_size({"width": self.size[0], "height": self.size[1]})
        return shots[0], shots[1]

    def _focus_mode(self, on: bool) -> None:
        self.tab.evaluate("(on) => { app.extensionManager.focusMode = on }", on)

    def console_errors(self, part: str = "") -> list[str]:
        """The errors of the page so far that contain `part`, such as a file's address."""
        return [error for error in self._errors if part in error]

    def clear_errors(self) -> None:
        self._errors.clear()


def _is_prompt(response: sync_api.Response) -> bool:
    return response.request.method == "POST" and response.url.split("?")[0].endswith("/prompt")


def api_prompt(page: Page) -> dict:
    """The graph of the page as an API-format prompt, made by the frontend."""
    return page.tab.evaluate("async () => (await app.graphToPrompt()).output")
