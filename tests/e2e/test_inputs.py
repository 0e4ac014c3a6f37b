"""Inputs that a choice does not use are hidden in both renderers, come back, and keep their values."""

import json
from pathlib import Path

import pytest

from support.frontend.lab_workflow import LabWorkflow, build_classic, save
from support.frontend.page import Page
from support.frontend.views import WIDGET
from support.frontend.workflow import Graph

pytestmark = pytest.mark.timeout(300)
TARGET = {"target_magnitude", "target_units"}
DESCENT = {"learning_rate", "weight_decay", "max_iterations", "constraint", "checkpointing"}
NUDGE = {"adjustment_strength", "sharpness_radius", "adjustments"}
WAIT, RULE = {"pre_escape_cfg", "start_percent"}, {"rule", "drop_ratio", "memorized_threshold"}
DEFERRED = ("MG_DeferredCFGKSampler", "MG_DeferredCFGGuider", "MG_DeferredCFG")
# (node, deciding input, its value) -> what is hidden then, with all others at their defaults.
HIDDEN: dict[tuple[str, str, str], set[str]] = {
    ("MG_NoiseOptimizer", "method", "per-sample"): NUDGE | {"candidates"},
    ("MG_NoiseOptimizer", "method", "batch-wise"): TARGET | DESCENT | {"candidates", "memorized_threshold"},
    ("MG_NoiseOptimizer", "method", "search"): DESCENT | NUDGE,
    **{(node, "mode", "dynamic"): set() for node in DEFERRED},
    **{(node, "mode", "static"): RULE for node in DEFERRED},
    **{(node, "mode", "off"): WAIT | RULE for node in DEFERRED},
    **{(node, "rule", "local minimum"): {"drop_ratio"} for node in (*DEFERRED, "MG_BasinEscapeDetector")},
    ("MG_AMGGuidance", "threshold_schedule", "constant"): {"threshold_max"},
    ("MG_AMGGuidance", "threshold_schedule", "exponential"): set(),
    ("MG_ReferencesFromFolder", "metric", "nL2"): set(),
    ("MG_ReferencesFromFolder", "metric", "descriptor"): {"width", "height"},
}


def inputs_of(page: Page, kind: str) -> set[str]:
    """The widgets that the node has by its schema."""
    info = page.server.object_info()[kind]["input"]
    every = {**info.get("required", {}), **info.get("optional", {})}
    return {n for n, spec in every.items() if isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "COMBO")}


def alone(page: Page, kind: str, **values: object) -> None:
    """A workflow of this node only."""
    graph = Graph()
    graph.node(kind, **values)
    build_classic(page, graph, "alone")


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in HIDDEN}))
def test_hidden_and_back(either: Page, kind: str) -> None:
    alone(either, kind)
    every, start = inputs_of(either, kind), either.mg("values", 1)
    at_first = set(either.mg("seen", 1)) & every
    for (node, decider, value), hidden in HIDDEN.items():
        if node != kind:
            continue
        before = either.mg("value", 1, decider)
        either.set_node(1, decider, value)
        either.frames()
        assert set(either.mg("seen", 1)) & every == every - hidden, value
        if not either.nodes2:
            place = either.mg("rows", 1)
            gaps = {b - a for a, b in zip(place["rows"], place["rows"][1:], strict=False)}
            assert gaps <= {24} and place["height"] == place["least"], value
        either.set_node(1, decider, before)
        either.frames()
        assert set(either.mg("seen", 1)) & every == at_first
        assert either.mg("values", 1) == start


def test_a_click_hides_and_a_reload_remembers(either: Page, tmp_path: Path) -> None:
    alone(either, "MG_NoiseOptimizer", learning_rate=0.25, candidates=5)
    _choose(either, "method", "search")
    either.settle()
    seen = set(either.mg("seen", 1))
    assert {"candidates", "target_magnitude"} <= seen and not seen & {"learning_rate", "adjustments"}
    values = save(either, tmp_path / "saved.json")["nodes"][0]["widgets_values"]
    assert "search" in values and 0.25 in values and 5 in values
    assert either.mg("values", 1) == values
    assert set(either.mg("seen", 1)) == seen
    _choose(either, "method", "per-sample")
    either.settle()
    assert {"learning_rate", "constraint"} <= set(either.mg("seen", 1))
    assert either.mg("value", 1, "learning_rate") == 0.25


def _choose(page: Page, name: str, value: str) -> None:
    """Click on a combo of node 1 and on one of its values."""
    if page.nodes2:
        row = page.tab.locator('[data-node-id="1"] .lg-node-widget').filter(has_text=name)
        row.get_by_role("combobox").click()
        page.tab.get_by_role("option", name=value, exact=True).click()
        return
    page.tab.mouse.click(*page.mg("middle", 1, name))
    page.tab.locator(".litemenu-entry", has_text=value).click()


def test_a_linked_decider_hides_nothing(page: Page) -> None:
    """Its value is not known before the run."""
    graph = Graph()
    graph.node("PrimitiveString", value="search")
    graph.node("MG_NoiseOptimizer", method="batch-wise")
    build_classic(page, graph, "linked")
    every = inputs_of(page, "MG_NoiseOptimizer") - {"method"}  # frontend 1.58 does not draw what is linked
    unlinked = every - HIDDEN["MG_NoiseOptimizer", "method", "batch-wise"]
    assert set(page.mg("seen", 2)) & every == unlinked
    for linked, expected in ((True, every), (False, unlinked)):
        page.mg("link", 1, 2, "method", linked)
        page.settle()
        assert set(page.mg("seen", 2)) & every == expected


def test_a_connected_latent_stands_in_for_the_size(either: Page) -> None:
    graph = Graph()
    graph.node("MG_ReferencesFromFolder", size_of=graph.node("EmptyLatentImage")[0])
    build_classic(either, graph, "size")
    assert not set(either.mg("seen", 2)) & {"width", "height"}
    either.mg("link", 1, 2, "size_of", False)
    either.settle()
    assert {"width", "height"} <= set(either.mg("seen", 2))


def test_the_view_is_no_value(either: Page, tmp_path: Path) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(either)
    values, before = either.mg("values", ids["sampler"]), either.api_prompt()
    either.queue_and_wait()
    assert either.mg("values", ids["sampler"]) == values
    assert len(values) == len(inputs_of(either, "MG_DeferredCFGKSampler")) + 1  # and control_after_generate
    assert either.api_prompt() == before
    saved = save(either, tmp_path / "saved.json")
    assert WIDGET not in json.dumps([saved, before]) and "headline" not in json.dumps(saved)
    assert either.api_prompt() == before
    assert either.mg("values", ids["sampler"]) == values
