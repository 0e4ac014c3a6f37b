"""Workflows are written and open, every template runs; views in a run and afterwards, in tabs, history, subgraphs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from support.client import PromptError
from support.frontend import views
from support.frontend.page import Page
from support.frontend.workflow import SIDE, Graph, LabWorkflow, save, write
from support.paths import PACK_NAME, ROOT
from tools.assets.templates import TEMPLATES
from tools.assets.templates.words_and_loras import SMALL_LORA
from tools.assets.write_templates import behind_nodes


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
    page.mg("setOne", node, "seed", 4)
    save(page, tmp_path / "saved.json")
    other = views.check(page, page.queue_and_wait())[node]
    assert other.view["series"] != first.view["series"]


def test_out_of_the_cache_of_another_workflow(page: Page) -> None:
    """The server shares it between workflows, in which the same node has another id."""
    first = None
    for shift in (0, 3):
        lab = LabWorkflow()
        for i in range(shift):
            lab.text(str(i))
        lab.shown(lab.sampler()["latent"])
        node = str(lab.build(page, emptied=not shift)["sampler"])
        entry = page.queue_and_wait()
        first = first or views.check(page, entry)[node]
    assert views.sent(entry) == {} and views.shown(page, node).view == first.view


def test_patches_show_what_they_did_and_again_out_of_the_history(page: Page) -> None:
    lab = LabWorkflow()  # two patches on one model, and KSampler
    lab.guided(lab.references())
    lab.patched()
    lab.shown(lab.plain()[0])
    ids = lab.build(page)
    entry = page.queue_and_wait()
    first = views.check(page, entry)
    guided, deferred = str(ids["guided"]), str(ids["patched"])
    assert {guided, deferred} <= set(first)
    assert first[guided].plotted and first[guided].marks and first[deferred].shades and first[deferred].lines
    page.mg("setOne", ids["plain"], "seed", 2)  # the patches are cached now
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
    for _ in page.renderers():
        for node in first:
            views.check_drawn(views.shown(page, node))


def test_two_instances_by_copy_and_paste(vue: Page) -> None:
    lab = LabWorkflow()
    lab.graph.node("PreviewAny", "told", source=lab.sampler()["transition_step"])
    ids = lab.build(vue)
    views.check(vue, vue.queue_and_wait())
    twin = vue.mg("twin", [ids["sampler"], ids["told"]], "MG_DeferredCFGKSampler")
    vue.mg("setOne", twin, "seed", 7)
    vue.settle()
    pasted = views.shown(vue, twin)
    assert pasted.view is None and not pasted.plotted and pasted.headline == ""
    entry = vue.queue_and_wait()
    original, copy = views.shown(vue, ids["sampler"]), views.shown(vue, twin)
    assert views.check_both(vue, entry)[str(twin)] == copy
    assert original.view["series"] != copy.view["series"]


def test_what_is_not_of_the_last_run_is_dimmed_and_says_why(vue: Page) -> None:
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
    vue.mg("setOne", ids["scaled"], "scale_by", 0.001)
    with pytest.raises(PromptError):
        vue.queue_and_wait()
    vue.tab.locator(".mg-dimmed").wait_for(timeout=20_000)
    vue.settle()
    vue.close_dialogs()  # frontend 1.58 shows none
    for _ in vue.renderers():
        assert "stopped with an error" in told()
    vue.mg("setOne", ids["scaled"], "scale_by", 1.0)
    vue.mg("setOne", sampler, "seed", 2)
    vue.queue_and_wait()
    assert told() == ""
    vue.mg("listen")
    vue.mg("setOne", sampler, "steps", 900)
    vue.queue()
    vue.tab.wait_for_function("() => mg.events.length > 2")
    vue.server.post("/interrupt", {})
    vue.tab.wait_for_function("() => app.ui.lastQueueSize === 0")
    assert "cancelled" in told()
    vue.mg("setOne", sampler, "steps", 4)
    vue.queue_and_wait()
    assert told() == ""  # out of the cache, and shown again
    vue.tab.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", sampler)
    vue.tab.keyboard.press("Control+b")
    vue.tab.wait_for_timeout(300)
    assert told().startswith("Bypassed")


def test_in_a_subgraph(vue: Page) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(vue)
    holder = vue.mg("enclose", ids["sampler"])
    entry = vue.queue_and_wait()
    vue.mg("show", 0.5, 250, 250)
    (path,) = views.sent(entry)
    assert path.startswith(f"{holder}:")
    outside = vue.tab.locator(".mg-view:visible")
    assert outside.count() == 1 and views.sent(entry)[path]["headline"] in outside.inner_text()
    vue.mg("enter", holder)
    vue.settle()
    found = views.check_both(vue, entry)
    assert found[path].plotted
    vue.mg("setOne", path, "seed", 5)
    again = views.check(vue, vue.queue_and_wait())  # while it is open
    assert again[path].view != found[path].view
    vue.mg("leave")


pytestmark = pytest.mark.timeout(900)


def stock() -> Graph:
    graph = Graph()
    width = graph.node("PrimitiveInt", "Width", value=96)
    image = graph.node("EmptyImage", width=width, height=64, color=0x3366CC)
    inverted = graph.node("ImageInvert", image=image["IMAGE"])
    graph.node("PreviewImage", images=inverted).sized(260, 300)
    graph.node("RandomNoise", noise_seed=7)
    graph.note("## Stock\n\nNodes of the host only.").sized(300, 160)
    graph.group("Images", image, inverted)
    return graph


def test_a_stock_workflow_is_written_opened_and_run(page, tmp_path: Path) -> None:
    path = tmp_path / "stock.json"
    workflow = write(page, stock(), path)
    values = {node["type"]: node.get("widgets_values") for node in workflow["nodes"]}
    assert values["RandomNoise"] == [7, "fixed"]
    assert json.loads(path.read_text(encoding="utf-8")) == workflow
    assert page.mg("missing") == []
    outputs = page.queue_and_wait()["outputs"]
    assert [len(output["images"]) for output in outputs.values() if "images" in output] == [1]
    workflow["nodes"][2]["type"] = "NodeOfAnotherPack"
    path.write_text(json.dumps(workflow), encoding="utf-8")
    page.load_workflow(path)
    assert page.mg("missing") == ["NodeOfAnotherPack"]


def test_our_subgraphs_are_offered_and_open(page) -> None:
    offered = page.server.call("GET", "/global_subgraphs").json().values()
    offered = [
        entry for entry in offered if entry["info"]["node_pack"].endswith(PACK_NAME)
    ]  # newer hosts have their own
    files = sorted((ROOT / "subgraphs").glob("*.json"))
    assert {entry["name"] for entry in offered} == {file.stem for file in files} and len(files) == 2
    for file in files:
        page.load_workflow(file)
        title, shown = page.tab.evaluate("() => app.graph.nodes.map((n) => [n.title, n.widgets.map((w) => w.name)])[0]")
        assert page.mg("missing") == [] and title == file.stem
        assert {"steps", "cfg", "scheduler"} <= {name.split(": ")[-1] for name in shown}
        LabWorkflow().build(page)  # and beside other nodes, where the frontend gives those inside other ids
        dropped = page.mg("drop", json.loads(file.read_text(encoding="utf-8")))
        assert set(dropped) >= {name for name in shown if "guard_view" not in name}


STEPS = 8
ITERATIONS = 12  # of an optimizer
CLEAN = "Save Image: no alarm"
# What each one is about: these nodes draw curves.
DRAWN = {
    "Memorization Guard (Simple)": {"MG_Guard"},
    "Per-sample noise": {"MG_NoiseOptimizer"},
    "Batch-wise noise, deferred start": {"MG_NoiseOptimizer", "MG_DeferredCFGKSampler"},
    "Dynamic deferral": {"MG_DeferredCFGKSampler"},
    "Find the words that pull": set(),
    "Another wording while it samples": set(),
    "Detect first, then sample": {"MG_BasinEscapeDetector", "MG_DeferredCFGKSampler"},
    "Recommended, where you have the pictures": {"MG_AMGGuidance"},
    "Keep a LoRA from copying": {"MG_AMGGuidance"},
    "Everything together, with a copy check": {"MG_AMGGuidance", "MG_DeferredCFGKSampler"},
    "Which epoch of my LoRA copies least": set(),
    "Check a batch for copies": set(),
    "Check finished images": set(),
    "Does the model know this image": set(),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_template(page: Page, name: str) -> None:
    path, template = ROOT / "workflows" / f"{name}.json", TEMPLATES[name]()
    (page.server.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.zeros(1)}, page.server.base / "models" / "loras" / SMALL_LORA)  # used at strength 0 only
    page.server.emptied()  # the host keeps no view of a node that it did not visit, because what follows it was cached
    page.load_workflow(path)
    assert page.mg("missing") == []
    assert {p.stem for p in (ROOT / "workflows").iterdir()} == set(TEMPLATES) == set(DRAWN)
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert {wire for wire, *_ in behind_nodes(page, saved)} <= {led["id"] for led in saved["extra"]["linkExtensions"]}
    page.use(nodes2=list(TEMPLATES).index(name) % 2 == 1)
    page.mg("setAll", "MG_NoiseOptimizer", "max_iterations", ITERATIONS)
    page.frames()
    entry = template.run(page, template.on_small, STEPS)
    for _ in page.renderers():
        found = views.check(page, entry)
        assert page.mg("overlaps") == page.mg("outgrown") == []
    nodes = {str(n["id"]): n for n in saved["nodes"]}
    assert {nodes[node]["type"] for node, seen in found.items() if seen.plotted} == DRAWN[name]
    for node, kept in nodes.items():
        if kept["type"] == "SaveImage":
            images = entry["outputs"].get(node, {}).get("images", [])
            # What is clean: as many as Copy Check lets pass.
            assert len(images) == 4 or (kept["title"] == CLEAN and len(images) < 4)
