"""What the nodes of a page show: read out of the page, and held against the data that it should be drawn from."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from support.frontend.page import Page

VIEW = "memorization_guard"  # among a node's outputs
WIDGET = "memorization_guard_view"
Shown = SimpleNamespace  # what a view holds and shows, with the fields that read_view.js gives
READ = Path(__file__).with_name("read_view.js").read_text(encoding="utf-8")


def shown(page: Page, node: str | int) -> Shown:
    """`node`: its execution id."""
    return Shown(**page.tab.evaluate(READ, node))


def sent(entry: dict) -> dict[str, dict]:
    """The views in a history entry, by execution id; a node that never sampled has none."""
    outputs = {node: output[VIEW][0] for node, output in entry["outputs"].items() if VIEW in output}
    return {node: view for node, view in outputs.items() if view}


def check(page: Page, entry: dict) -> dict[str, Shown]:
    """Every view of a run is on its node, whole, and drawn from its numbers. Returns them."""
    left, top, *_ = page.mg("bounds")
    page.mg("show", 0.3, 250 - left, 200 - top)  # all of it: a view outside of the window has no height
    page.settle()
    found = {node: shown(page, node) for node in sent(entry)}
    for node, view in sent(entry).items():
        assert found[node].view == view, node
        check_drawn(found[node])
    return found


def check_both(page: Page, entry: dict) -> dict[str, Shown]:
    """The same in both renderers. Returns the views in the one that is in use."""
    first, _ = (check(page, entry) for _ in page.renderers())
    return first


def quoted(text: str) -> str:
    """As the page writes names of inputs."""
    return re.sub(r"`([^`]+)`", r"“\1”", text)


def check_drawn(seen: Shown, chosen: int = 0) -> None:
    view = seen.view
    assert view is not None and seen.there and seen.inside
    assert seen.headline == quoted(view["headline"])
    assert seen.warning == (f"⚠ {quoted(view['warning'])}" if view["warning"] else "")
    assert seen.notes == quoted("\n".join(view["notes"]))
    assert [(title, kept) for title, _, kept in seen.nearest] == [
        (n["name"], bool(n["picture"])) for n in view["nearest"]
    ]
    if not seen.plotted:
        assert not any(v is not None for s in view["series"] for line in s["lines"] for v in line)
        return
    series = view["series"][chosen]
    assert seen.height >= 130
    assert [line["sample"] for line in seen.lines] == list(range(len(series["lines"])))
    assert len({line["stroke"] for line in seen.lines}) == len(seen.lines)
    _check_places(seen, series)
    acted = view["acted"].values()
    assert seen.marks == sum(any(row[i] > 0 for row in rows) for rows in acted for i in range(len(rows[0])))


def _check_places(seen: Shown, series: dict) -> None:
    """One straight line maps steps to x, another one values to y: of all lines, the limit and the ticks."""
    view = seen.view
    assert view is not None
    steps, values, xs, ys = [], [], [], []

    def expect(known: list[tuple[int, float]], points: list[list[float]]) -> None:
        assert len(points) == len(known)
        for (step, value), (x, y) in zip(known, points, strict=True):
            steps.append(step), values.append(value), xs.append(x), ys.append(y)

    for line, data in zip(seen.lines, series["lines"], strict=True):
        expect([(i, v) for i, v in enumerate(data) if v is not None], line["points"])
    if values and series["limit"]:
        limit = series["limit"] * (max(view["steps"], 2) if len(series["limit"]) == 1 else 1)
        expect([(i, v) for i, v in enumerate(limit) if v is not None], seen.limit)
    if not values:  # only the shading: its right edges are steps
        assert seen.ticks == [] and seen.axis == ""
        return
    (a, b), off = _line(values, ys)
    assert b < 0 and off < 0.15, "a larger value is higher up, to the rounding of the drawing"
    assert all(abs(a + b * value - y) < 0.5 for y, value in seen.ticks) and seen.ticks
    (left, wide), off = _line(steps, xs) if len(set(steps)) > 1 else ((xs[0], 0.0), 0.0)
    assert off < 0.15 and wide >= 0
    begins = view["begins"]
    if wide:
        last = max(view["steps"] - 1, 1)
        shades = {int(i): (x, x + w) for i, x, w in seen.shades}
        assert set(shades) == {i for i, begin in enumerate(begins) if begin > 0}
        for i, (start, end) in shades.items():
            assert abs(start - left) < 0.15 and abs(end - left - wide * min(begins[i], last)) < 0.2
    for line in seen.lines:
        begin = begins[line["sample"]] if begins else 0
        data = series["lines"][line["sample"]]
        known = [v for v in data[: begin + 1] if v is not None]
        if 0 < begin < view["steps"] and known:
            x, y = line["begin"]
            assert abs(x - left - wide * begin) < 0.2 and abs(y - a - b * known[-1]) < 0.2
        else:
            assert line["begin"] is None


def _line(given: list[float], got: list[float]) -> tuple[tuple[float, float], float]:
    """((offset, slope), the largest deviation) of the straight line through the points."""
    x, y = np.asarray(given, float), np.asarray(got, float)
    slope, offset = np.polyfit(x, y, 1) if np.ptp(x) else (-1e-9, y.min())
    return (float(offset), float(slope)), float(np.abs(offset + slope * x - y).max())
