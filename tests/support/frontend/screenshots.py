"""Screenshots of a page: the whole graph, one node, or a node's view."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.frontend.page import SIZE, Page

LARGEST = (2400, 1500)  # of the window; a graph that does not fit is scaled down
ROOM = {True: (64, 130, 24, 24), False: (24, 24, 24, 24)}  # left, top, right, bottom; with the menus?
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


def whole_graph(page: Page, path: Path, menus: bool = False) -> None:
    """Write the whole open graph to a .png or .jpg, in a window that makes it legible."""
    x, y, w, h = page.mg("bounds")
    left, top, right, bottom = ROOM[menus]
    scale = min(1.0, (LARGEST[0] - left - right) / w, (LARGEST[1] - top - bottom) / h)
    width = max(round(w * scale) + left + right, 1100 if menus else 480)
    height = max(round(h * scale) + top + bottom, 700 if menus else 320)
    middle = ((width - right + left) / 2, (height - bottom + top) / 2)
    with window(page, width, height, menus):
        page.mg("show", scale, middle[0] / scale - x - w / 2, middle[1] / scale - y - h / 2)
        page.settle()
        page.tab.screenshot(path=str(path))


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
