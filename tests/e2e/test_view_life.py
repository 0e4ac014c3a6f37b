"""Views in a run and afterwards: live, cached, in other tabs, from the history, copied, bypassed, in subgraphs."""

from pathlib import Path

import pytest

from support.client import PromptError
from support.frontend import screenshots, views
from support.frontend.lab_workflow import SIDE, LabWorkflow, save
from support.frontend.page import Page

pytestmark = pytest.mark.timeout(300)


def patched() -> LabWorkflow:
    """Two patches on one model, and KSampler."""
    lab = LabWorkflow()
    lab.guided(lab.references())
    lab.patched()
    lab.shown(lab.plain()[0])
    return lab


def test_live_and_in_another_tab(vue: Page) -> None:
    lab = LabWorkflow()
    lab.detector()
    lab.guided(lab.references())
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(vue)
    vue.mg("listen")
    first = views.check(vue, vue.queue_and_wait())
    names = ("detector", "guided", "sampler")
    assert set(first) == {str(ids[name]) for name in (*names, "references")}
    for node in (str(ids[name]) for name in names):
        told = [e["view"] for e in vue.tab.evaluate("() => mg.events") if str(e["node"]) == node]
        assert len(told) > 1 and [view["done"] for view in told] == [False] * (len(told) - 1) + [True]
        assert told[-1] == first[node].view and len(first[node].lines) == 2
        measured = [sum(v is not None for v in view["series"][0]["lines"][0]) for view in told]
        assert measured == sorted(measured) and measured[0] < measured[-1]
    vue.tab.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    vue.settle()
    assert vue.tab.evaluate("() => mg.nodes().length") == 0
    vue.tab.locator(".workflow-tabs").locator("[role=tab], .p-togglebutton").nth(-2).click()  # frontend 1.58, 1.32
    vue.tab.wait_for_function("() => mg.nodes().length > 0")
    vue.settle()
    for _ in vue.renderers():
        assert {node: views.shown(vue, node).view for node in first} == {node: s.view for node, s in first.items()}


def test_out_of_the_cache(page: Page, tmp_path: Path) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    node = str(lab.build(page)["sampler"])
    first = views.check(page, page.queue_and_wait())[node]
    cached = page.queue_and_wait()
    assert views.sent(cached) == {}  # the host does not visit it
    assert views.shown(page, node) == first
    save(page, tmp_path / "saved.json")  # and opened again: a new node, which has shown nothing
    assert views.shown(page, node).view is None
    page.queue_and_wait()
    assert views.shown(page, node).view == first.view
    page.set_node(node, "seed", 4)
    save(page, tmp_path / "saved.json")
    other = views.check(page, page.queue_and_wait())[node]
    assert other.view["series"] != first.view["series"]


def test_patches_show_what_they_did_and_again_out_of_the_history(page: Page, artefacts: Path) -> None:
    ids = patched().build(page)
    entry = page.queue_and_wait()
    first = views.check(page, entry)
    guided, deferred = str(ids["guided"]), str(ids["patched"])
    assert {guided, deferred} <= set(first)
    assert first[guided].plotted and first[guided].marks and first[deferred].shades and first[deferred].lines
    page.set_node(ids["plain"], "seed", 2)  # the patches are cached now
    second = page.queue_and_wait()
    other = {node: views.shown(page, node) for node in (guided, deferred)}
    for node in (guided, deferred):
        views.check_drawn(other[node])
        assert other[node].view["run"] == second["prompt"][1] != first[node].view["run"]
        assert other[node].view["series"] != first[node].view["series"]
    stored = page.server.call("GET", f"/history/{entry['prompt'][1]}").json()[entry["prompt"][1]]
    assert views.sent(stored) == views.sent(entry)  # the second run left the first one's history alone

    page.open()
    page.open_run(1)
    page.tab.wait_for_function("(id) => mg.nodes().some((n) => String(n.id) === id)", arg=guided)
    page.settle()
    if not page.tab.evaluate("() => Object.keys(app.nodeOutputs).length"):
        return  # frontend 1.58 opens the workflow of a run without its outputs: images do not come back page
    assert {node: views.shown(page, node).view for node in first} == views.sent(entry)
    for renderer in page.renderers():
        for node in first:
            views.check_drawn(views.shown(page, node))
        screenshots.whole_graph(page, artefacts / f"history, {renderer}.png", menus=True)


def test_two_instances_by_copy_and_paste(vue: Page) -> None:
    lab = LabWorkflow()
    lab.graph.node("PreviewAny", "told", source=lab.sampler()["transition_step"])
    ids = lab.build(vue)
    views.check(vue, vue.queue_and_wait())
    twin = vue.mg("twin", [ids["sampler"], ids["told"]], "MG_DeferredCFGKSampler")
    vue.set_node(twin, "seed", 7)
    vue.settle()
    pasted = views.shown(vue, twin)
    assert pasted.view is None and not pasted.plotted and pasted.headline == ""
    entry = vue.queue_and_wait()
    original, copy = views.shown(vue, ids["sampler"]), views.shown(vue, twin)
    assert views.check_both(vue, entry)[str(twin)] == copy
    assert original.view["series"] != copy.view["series"]


def test_a_bypassed_patch_shows_nothing_and_disturbs_nothing(page: Page) -> None:
    ids = patched().build(page)
    page.tab.evaluate("(id) => { app.graph.getNodeById(id).mode = 4 }", ids["guided"])
    found = views.check_both(page, page.queue_and_wait())
    assert str(ids["guided"]) not in found and views.shown(page, ids["guided"]).view is None
    assert found[str(ids["patched"])].plotted


def test_what_is_not_of_the_last_run_is_dimmed_and_says_why(vue: Page, artefacts: Path) -> None:
    lab = LabWorkflow(steps=4)
    blank = lab.graph.node("EmptyImage", width=SIDE, height=SIDE)
    scaled = lab.graph.node("ImageScaleBy", "scaled", image=blank, upscale_method="bilinear", scale_by=1.0)
    lab.shown(lab.sampler(latent_image=lab.graph.node("VAEEncode", pixels=scaled, vae=lab.vae))[0])
    ids = lab.build(vue)
    sampler = ids["sampler"]
    vue.queue_and_wait()

    def told() -> str:
        vue.settle()
        seen = views.shown(vue, sampler)
        assert seen.dimmed == bool(seen.stale) and seen.inside
        return seen.stale

    assert told() == ""
    vue.set_node(ids["scaled"], "scale_by", 0.001)
    with pytest.raises(PromptError):
        vue.queue_and_wait()
    vue.tab.locator(".mg-dimmed").wait_for(timeout=20_000)
    vue.settle()
    vue.close_dialogs()  # frontend 1.58 shows none
    for renderer in vue.renderers():
        assert "stopped with an error" in told()
        screenshots.whole_graph(vue, artefacts / f"after an error, {renderer}.png")
    vue.set_node(ids["scaled"], "scale_by", 1.0)
    vue.set_node(sampler, "seed", 2)
    vue.queue_and_wait()
    assert told() == ""
    vue.mg("listen")
    vue.set_node(sampler, "steps", 900)
    vue.queue()
    vue.tab.wait_for_function("() => mg.events.length > 2")
    vue.server.post("/interrupt", {})
    vue.tab.wait_for_function("() => app.ui.lastQueueSize === 0")
    assert "cancelled" in told()
    vue.set_node(sampler, "steps", 4)
    vue.queue_and_wait()
    assert told() == ""  # out of the cache, and shown again
    vue.tab.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", sampler)
    vue.tab.keyboard.press("Control+b")
    vue.tab.wait_for_timeout(300)
    assert told().startswith("Bypassed")


def test_in_a_subgraph(vue: Page, artefacts: Path) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(vue)
    holder = vue.mg("enclose", ids["sampler"])
    entry = vue.queue_and_wait()
    screenshots.whole_graph(vue, artefacts / "subgraph from outside.png", menus=True)
    (path,) = views.sent(entry)
    assert path.startswith(f"{holder}:")
    outside = vue.tab.locator(".mg-view:visible")
    assert outside.count() == 1 and views.sent(entry)[path]["headline"] in outside.inner_text()
    vue.mg("enter", holder)
    vue.settle()
    found = views.check_both(vue, entry)
    assert found[path].plotted
    screenshots.whole_graph(vue, artefacts / "subgraph.png", menus=True)
    vue.set_node(path, "seed", 5)
    again = views.check(vue, vue.queue_and_wait())  # while it is open
    assert again[path].view != found[path].view
    vue.mg("leave")
