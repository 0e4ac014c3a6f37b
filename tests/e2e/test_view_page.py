"""Views in the page: messages, settings, themes, foreign text, damaged data, and how fast they are drawn."""

import re
import statistics

import pytest
from PIL import Image

from support.frontend import views
from support.frontend.page import Page
from support.frontend.workflow import LabWorkflow, Node, build_classic
from support.server import Server

pytestmark = pytest.mark.timeout(300)
WARNINGS, CURVES = "MemorizationGuard.Warnings", "MemorizationGuard.Curves"
TOASTS = "li[role=alert], .p-toast-message"  # frontend 1.58, 1.32
RECORDED = """(toasts) => {
    const known = window.known ?? new WeakSet()
    const record = (root) => root.querySelectorAll?.(toasts).forEach((one) => {
        if (!known.has(one)) window.told.push(one.textContent)
        known.add(one)
    })
    if (!window.told) {
        Object.assign(window, { known, told: [] })
        const added = (changes) => changes.forEach((change) => record(change.target))
        new MutationObserver(added).observe(document.body, { childList: true, subtree: true })
        record(document.body)
    }
    return window.told.splice(0)
}"""
MARKUP = "<img src=x onerror='window.mgHacked=1'>"


def toasts(page: Page) -> list[str]:
    """The messages since the last call, also those that have disappeared; the first call returns those still there."""
    page.settle()
    found = page.tab.evaluate(RECORDED, TOASTS)
    page.tab.locator(TOASTS).get_by_role("button").evaluate_all("(all) => all.forEach((close) => close.click())")
    return [text for text in found if "memorized" in text.lower() or "copies" in text.lower()]


def checked(lab: LabWorkflow, folder: str = "training") -> Node:
    """A memorized prompt: the detector and the copy check both warn. Returns the references."""
    lab.detector()
    references = lab.references(folder)
    lab.check(lab.shown(lab.plain()[0]), references)
    return references


def test_messages_come_once_and_can_be_silenced(page: Page) -> None:
    lab = LabWorkflow()
    checked(lab)
    ids = lab.build(page)
    toasts(page)
    entry = page.queue_and_wait()
    told = toasts(page)
    found = views.check(page, entry)
    detector, check = found[str(ids["detector"])], found[str(ids["check"])]
    assert "Memorized prompt: 2 of 2" in detector.warning and re.search("may be (a copy|copies)", check.warning)
    assert len(told) == 2
    for seen in (detector, check):
        assert any(seen.warning.removeprefix("⚠ ") in text for text in told)
    for remade in (False, True):
        if remade:
            build_classic(page, lab.graph, "lab")
        again = views.sent(page.queue_and_wait())
        assert again and all(views.sent(entry)[node] == view for node, view in again.items())
        assert toasts(page) == []  # these are the views of the first run, which came out of the cache
    page.set(WARNINGS, False)
    try:
        page.mg("setAll", "KSampler", "seed", 2)
        page.mg("setAll", "MG_BasinEscapeDetector", "noise_seed", 2)
        again = views.check_both(page, page.queue_and_wait())
        assert again[str(ids["detector"])].warning and again[str(ids["check"])].warning  # the mark stays
        assert toasts(page) == []
    finally:
        page.set(WARNINGS, True)


def test_curves_can_be_turned_off_and_on_and_the_other_series_is_a_click_away(page: Page) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    node = str(lab.build(page)["sampler"])
    first = views.check(page, page.queue_and_wait())[node]
    pull, magnitude = (series["y"] for series in first.view["series"])
    assert first.axis == f"⇄ {pull}" and "memorized_threshold" in first.legend
    button = page.tab.locator(".mg-view button").first
    button.focus()
    page.tab.keyboard.press("Enter")
    second = views.shown(page, node)
    assert second.axis == f"⇄ {magnitude}" and second.lines != first.lines and second.limit == []
    views.check_drawn(second, chosen=1)
    page.tab.keyboard.press("Enter")  # the new button has the focus
    assert views.shown(page, node).axis == first.axis
    size = "(id) => app.graph.getNodeById(id).size[1]"
    tall = page.tab.evaluate(size, int(node))
    for _ in page.renderers():
        page.set(CURVES, False)
        try:
            page.settle()
            off = views.shown(page, node)
            assert not off.plotted and not off.legend and off.headline == first.headline and off.view == first.view
            if not page.nodes2:
                assert page.tab.evaluate(size, int(node)) < tall - 130
        finally:
            page.set(CURVES, True)
        page.settle()
        views.check_drawn(views.shown(page, node))
        assert views.shown(page, node).lines == first.lines or page.nodes2


def test_a_name_with_markup_is_text(vue: Page, server: Server) -> None:
    folder = server.base / "input" / "markup"
    folder.mkdir(exist_ok=True)
    training = sorted((server.base / "input" / "training").glob("*.png"))
    for i, source in enumerate(training[:2]):  # the first is the image that the prompt copies
        name = MARKUP if i == 0 else f"{MARKUP} twice"
        Image.open(source).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"{MARKUP} a caption", encoding="utf-8")
    (folder / f"{MARKUP} broken.png").write_bytes(b"not an image")
    vue.open()  # its list of folders is new
    lab = LabWorkflow()
    lab.guided(checked(lab, "markup"))
    lab.shown(lab.plain(seed=3)[0])
    ids = lab.build(vue)
    found = views.check_both(vue, vue.queue_and_wait())
    references, check, guided = (found[str(ids[name])] for name in ("references", "check", "guided"))
    assert MARKUP in references.notes and "broken" in references.notes and MARKUP in check.notes
    assert any(MARKUP in title for title, _, _ in guided.nearest)
    assert vue.tab.evaluate("() => [window.mgHacked ?? 0, document.querySelectorAll('img[src=x]').length]") == [0, 0]


def test_views_of_another_version_and_the_canvas_under_a_view(page: Page) -> None:
    """Fields that are missing, that are unknown, and nodes that are not there."""
    lab = LabWorkflow()
    lab.sampler()
    node = str(lab.build(page)["sampler"])
    for view in (
        {"kind": "escape"},
        {"kind": "escape", "headline": "old", "steps": 3, "series": [{"lines": [[1, None, 2]]}]},
        {"kind": "of tomorrow", "headline": "new", "series": [], "nearest": [{"name": "n"}], "colour": 7},
        {"kind": "escape", "headline": "one", "steps": 1, "series": [{"y": "d", "lines": [[0.5]], "limit": [0.4]}]},
        {"kind": "escape", "steps": 2, "series": [{"lines": [[0, 0], [0, 0]]}], "marked": [True], "begins": [1]},
        {"kind": "escape", "headline": "h", "steps": 2, "series": [{"y": "d", "lines": [[1, 2]]}]},
    ):
        page.mg("send", {"node": node, "view": view})
        assert views.shown(page, node).headline == view.get("headline", "")
    for detail in ({"node": "999", "view": view}, {"node": f"{node}:1", "view": view}):
        page.mg("send", detail)
    where = "() => { const { scale, offset } = app.canvas.ds; return [scale, ...offset] }"
    for _ in page.renderers():
        box = page.tab.locator(".mg-view svg").first.bounding_box()
        page.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        scale = page.tab.evaluate(where)[0]
        page.tab.mouse.wheel(0, -120)
        page.frames()
        larger, *moved = page.tab.evaluate(where)
        assert larger > scale
        page.tab.mouse.down(button="middle")
        page.tab.mouse.move(box["x"] - 100, box["y"] - 100, steps=5)
        page.tab.mouse.up(button="middle")
        page.frames()
        assert page.tab.evaluate(where)[1:] != moved
        page.tab.mouse.wheel(0, 120)
    page.mg("send", {"node": node, "view": {}})


def test_a_batch_of_sixteen_and_a_light_theme(page: Page) -> None:
    lab = LabWorkflow(batch=16)
    lab.shown(lab.sampler()["latent"])
    sampler = lab.build(page)["sampler"]
    seen = views.check(page, page.queue_and_wait())[str(sampler)]
    assert len(seen.lines) == 16
    rows = [[0.04 * (1 - i / 70) ** (1 + s / 16) for i in range(50)] for s in range(16)]
    series = [{**old, "lines": rows} for old in seen.view["series"]]
    view = {**seen.view, "done": False, "steps": 50, "series": series, "begins": [20 + s for s in range(16)]}
    dark = []
    for renderer in page.renderers():
        got = page.mg("times", sampler, view, 50)
        middle = statistics.median(got["times"])
        print(
            f"\n{renderer}: redraw of 16 curves of 50 steps: median {middle:.2f} ms, slowest {max(got['times']):.2f} ms"
            f"; frames in a second: {got['still']} at rest, {got['busy']} with ten redraws"
        )
        views.check_drawn(views.shown(page, sampler))
        assert middle < 16 and got["kept"]  # a new element costs Nodes 2.0 more than all changes of an old one
        dark.append(page.mg("colours", sampler))
    page.set("Comfy.ColorPalette", "light")
    try:
        for before, _ in zip(dark, page.renderers(), strict=True):
            light = page.mg("colours", sampler)
            assert all(_brightness(a) > 110 > _brightness(b) for a, b in zip(before, light, strict=True)), light
    finally:
        page.set("Comfy.ColorPalette", "dark")


def _brightness(colour: str) -> float:
    return statistics.fmean(float(v) for v in colour.strip("rgba()").split(",")[:3])
