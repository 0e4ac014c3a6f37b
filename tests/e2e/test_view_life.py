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


def test_live_and_in_another_tab(either: Page) -> None:
    lab = LabWorkflow()
    lab.detector()
    lab.guided(lab.references())
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(either)
    either.mg("listen")
    first = views.check(either, either.queue_and_wait())
    names = ("detector", "guided", "sampler")
    assert set(first) == {str(ids[name]) for name in (*names, "references")}
    for node in (str(ids[name]) for name in names):
        told = [e["view"] for e in either.tab.evaluate("() => mg.events") if str(e["node"]) == node]
        assert len(told) > 1 and [view["done"] for view in told] == [False] * (len(told) - 1) + [True]
        assert told[-1] == first[node].view and len(first[node].lines) == 2
        measured = [sum(v is not None for v in view["series"][0]["lines"][0]) for view in told]
        assert measured == sorted(measured) and measured[0] < measured[-1]
    either.tab.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    either.settle()
    assert either.tab.evaluate("() => mg.nodes().length") == 0
    either.tab.locator(".workflow-tabs").locator("[role=tab], .p-togglebutton").nth(-2).click()  # frontend 1.58, 1.32
    either.tab.wait_for_function("() => mg.nodes().length > 0")
    either.settle()
    assert {node: views.shown(either, node).view for node in first} == {node: s.view for node, s in first.items()}


def test_out_of_the_cache(either: Page, tmp_path: Path) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    node = str(lab.build(either)["sampler"])
    first = views.check(either, either.queue_and_wait())[node]
    cached = either.queue_and_wait()
    assert views.sent(cached) == {}  # the host does not visit it
    assert views.shown(either, node) == first
    save(either, tmp_path / "saved.json")  # and opened again: a new node, which has shown nothing
    assert views.shown(either, node).view is None
    either.queue_and_wait()
    assert views.shown(either, node).view == first.view
    either.set_node(node, "seed", 4)
    save(either, tmp_path / "saved.json")
    other = views.check(either, either.queue_and_wait())[node]
    assert other.view["series"] != first.view["series"]


def test_patches_show_what_they_did_and_again_out_of_the_history(either: Page, artefacts: Path, renderer: str) -> None:
    ids = patched().build(either)
    entry = either.queue_and_wait()
    first = views.check(either, entry)
    guided, deferred = str(ids["guided"]), str(ids["patched"])
    assert {guided, deferred} <= set(first)
    assert first[guided].plotted and first[guided].marks and first[deferred].shades and first[deferred].lines
    either.set_node(ids["plain"], "seed", 2)  # the patches are cached now
    second = either.queue_and_wait()
    other = {node: views.shown(either, node) for node in (guided, deferred)}
    for node in (guided, deferred):
        views.check_drawn(other[node])
        assert other[node].view["run"] == second["prompt"][1] != first[node].view["run"]
        assert other[node].view["series"] != first[node].view["series"]
    stored = either.server.call("GET", f"/history/{entry['prompt'][1]}").json()[entry["prompt"][1]]
    assert views.sent(stored) == views.sent(entry)  # the second run left the first one's history alone

    either.open()
    either.open_run(1)
    either.tab.wait_for_function("(id) => mg.nodes().some((n) => String(n.id) === id)", arg=guided)
    either.settle()
    if not either.tab.evaluate("() => Object.keys(app.nodeOutputs).length"):
        return  # frontend 1.58 opens the workflow of a run without its outputs: images do not come back either
    assert {node: views.shown(either, node).view for node in first} == views.sent(entry)
    for node in first:
        views.check_drawn(views.shown(either, node))
    screenshots.whole_graph(either, artefacts / f"history, {renderer}.png", menus=True)


def test_two_instances_by_copy_and_paste(either: Page) -> None:
    lab = LabWorkflow()
    lab.graph.node("PreviewAny", "told", source=lab.sampler()["transition_step"])
    ids = lab.build(either)
    views.check(either, either.queue_and_wait())
    twin = either.mg("twin", [ids["sampler"], ids["told"]], "MG_DeferredCFGKSampler")
    either.set_node(twin, "seed", 7)
    either.settle()
    pasted = views.shown(either, twin)
    assert pasted.view is None and not pasted.plotted and pasted.headline == ""
    entry = either.queue_and_wait()
    original, copy = views.shown(either, ids["sampler"]), views.shown(either, twin)
    assert copy.view == views.sent(entry)[str(twin)]
    for seen in (original, copy):
        views.check_drawn(seen)
    assert original.view["series"] != copy.view["series"]


def test_a_bypassed_patch_shows_nothing_and_disturbs_nothing(either: Page) -> None:
    ids = patched().build(either)
    either.tab.evaluate("(id) => { app.graph.getNodeById(id).mode = 4 }", ids["guided"])
    found = views.check(either, either.queue_and_wait())
    assert str(ids["guided"]) not in found and views.shown(either, ids["guided"]).view is None
    assert found[str(ids["patched"])].plotted


def test_what_is_not_of_the_last_run_is_dimmed_and_says_why(either: Page, artefacts: Path, renderer: str) -> None:
    lab = LabWorkflow(steps=4)
    blank = lab.graph.node("EmptyImage", width=SIDE, height=SIDE)
    scaled = lab.graph.node("ImageScaleBy", "scaled", image=blank, upscale_method="bilinear", scale_by=1.0)
    lab.shown(lab.sampler(latent_image=lab.graph.node("VAEEncode", pixels=scaled, vae=lab.vae))[0])
    ids = lab.build(either)
    sampler = ids["sampler"]
    either.queue_and_wait()

    def told() -> str:
        either.settle()
        seen = views.shown(either, sampler)
        assert seen.dimmed == bool(seen.stale) and seen.inside
        return seen.stale

    assert told() == ""
    either.set_node(ids["scaled"], "scale_by", 0.001)
    with pytest.raises(PromptError):
        either.queue_and_wait()
    either.tab.keyboard.press("Escape")
    assert "stopped with an error" in told()
    screenshots.whole_graph(either, artefacts / f"after an error, {renderer}.png")
    either.set_node(ids["scaled"], "scale_by", 1.0)
    either.set_node(sampler, "seed", 2)
    either.queue_and_wait()
    assert told() == ""
    either.mg("listen")
    either.set_node(sampler, "steps", 900)
    either.queue()
    either.tab.wait_for_function("() => mg.events.length > 2")
    either.server.post("/interrupt", {})
    either.tab.wait_for_function("() => app.ui.lastQueueSize === 0")
    assert "cancelled" in told()
    either.set_node(sampler, "steps", 4)
    either.queue_and_wait()
    assert told() == ""  # out of the cache, and shown again
    either.tab.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", sampler)
    either.tab.keyboard.press("Control+b")
    either.tab.wait_for_timeout(300)
    assert told().startswith("Bypassed")


def test_in_a_subgraph(either: Page, artefacts: Path, renderer: str) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(either)
    holder = either.mg("enclose", ids["sampler"])
    entry = either.queue_and_wait()
    screenshots.whole_graph(either, artefacts / f"subgraph from outside, {renderer}.png", menus=True)
    (path,) = views.sent(entry)
    assert path.startswith(f"{holder}:")
    outside = either.tab.locator(".mg-view:visible")
    assert outside.count() == 1 and views.sent(entry)[path]["headline"] in outside.inner_text()
    either.mg("enter", holder)
    either.settle()
    found = views.check(either, entry)
    assert found[path].plotted
    screenshots.whole_graph(either, artefacts / f"subgraph, {renderer}.png", menus=True)
    either.set_node(path, "seed", 5)
    again = views.check(either, either.queue_and_wait())  # while it is open
    assert again[path].view != found[path].view
    either.mg("leave")
