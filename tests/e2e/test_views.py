"""Every template, run in one renderer: what its nodes show in both is what the server measured."""

import json
from pathlib import Path

import pytest

from support.frontend import screenshots, views
from support.frontend.page import Page
from support.paths import ROOT
from tools.assets.templates import TEMPLATES
from tools.assets.wires import behind_nodes

STEPS = 8
ITERATIONS = 12  # of an optimizer
CLEAN = "Save Image: no alarm"
pytestmark = pytest.mark.timeout(300)
# What each one is about: these nodes draw curves.
DRAWN = {
    "Memorization Guard (Simple)": {"MG_Guard"},
    "Per-sample noise": {"MG_NoiseOptimizer"},
    "Batch-wise noise, deferred start": {"MG_NoiseOptimizer", "MG_DeferredCFGKSampler"},
    "Dynamic deferral": {"MG_DeferredCFGKSampler"},
    "Find the words that pull": set(),
    "Detect first, then sample": {"MG_BasinEscapeDetector", "MG_DeferredCFGKSampler"},
    "Recommended, where you have the pictures": {"MG_AMGGuidance"},
    "Keep a LoRA from copying": {"MG_AMGGuidance"},
    "Everything together, with a copy check": {"MG_AMGGuidance", "MG_DeferredCFGKSampler"},
    "Check a batch for copies": set(),
    "Check finished images": set(),
}


def test_the_templates_are_those_described() -> None:
    assert {p.stem for p in (ROOT / "workflows").iterdir()} == set(TEMPLATES) == set(DRAWN)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template(page: Page, artefacts: Path, name: str) -> None:
    path, template = ROOT / "workflows" / f"{name}.json", TEMPLATES[name]()
    page.server.emptied()  # the host keeps no view of a node that it did not visit, because what follows it was cached
    page.load_workflow(path)
    assert page.missing_nodes() == []
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert {wire for wire, *_ in behind_nodes(page, saved)} <= {led["id"] for led in saved["extra"]["linkExtensions"]}
    page.use(nodes2=list(TEMPLATES).index(name) % 2 == 1)
    page.set_all("MG_NoiseOptimizer", "max_iterations", ITERATIONS)
    page.frames()
    entry = template.run(page, template.on_small, STEPS)
    for renderer in page.renderers():
        found = views.check(page, entry)
        screenshots.whole_graph(page, artefacts / f"{name}, {renderer}.png")
        assert page.overlaps() == []
    nodes = {str(n["id"]): n for n in saved["nodes"]}
    assert {nodes[node]["type"] for node, seen in found.items() if seen.plotted} == DRAWN[name]
    for node, kept in nodes.items():
        if kept["type"] == "SaveImage":
            images = entry["outputs"].get(node, {}).get("images", [])
            # What is clean: as many as Copy Check lets pass.
            assert len(images) == 4 or (kept["title"] == CLEAN and len(images) < 4)
