"""Inputs that a choice does not use are hidden and keep their values; what changes the graph can be undone."""

import json
from pathlib import Path

import pytest

from support.frontend import views
from support.frontend.page import Page
from support.frontend.views import WIDGET
from support.frontend.workflow import SIDE, Graph, LabWorkflow, build_classic, save

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
    info = page.schemas[kind]["input"]
    every = {**info.get("required", {}), **info.get("optional", {})}
    return {n for n, spec in every.items() if isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "COMBO")}


def alone(page: Page, kind: str, **values: object) -> None:
    """A workflow of this node only, with its advanced inputs, which newer frontends show after a click."""
    graph = Graph()
    graph.node(kind, **values)
    build_classic(page, graph, "alone")
    page.tab.evaluate("() => { app.graph.nodes[0].showAdvanced = true }")


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in HIDDEN}))
def test_hidden_and_back(page: Page, kind: str) -> None:
    alone(page, kind)
    every, start = inputs_of(page, kind), page.mg("values", 1)
    at_first = set(page.mg("seen", 1)) & every
    choices = [(decider, value, hidden) for (node, decider, value), hidden in HIDDEN.items() if node == kind]
    for _, (decider, value, hidden) in ((r, choice) for r in page.renderers() for choice in choices):
        before = page.mg("value", 1, decider)
        page.mg("setOne", 1, decider, value)
        page.frames()
        assert set(page.mg("seen", 1)) & every == every - hidden, value
        if not page.nodes2:
            place = page.mg("rows", 1)
            gaps = {b - a for a, b in zip(place["rows"], place["rows"][1:], strict=False)}
            assert gaps <= {24} and place["height"] == place["least"], value
        page.mg("setOne", 1, decider, before)
        page.frames()
        assert set(page.mg("seen", 1)) & every == at_first
        assert page.mg("values", 1) == start


def test_a_click_hides_and_a_reload_remembers(page: Page, tmp_path: Path) -> None:
    alone(page, "MG_NoiseOptimizer", learning_rate=0.25, candidates=5)
    for _ in page.renderers():
        _choose(page, "method", "search")
        page.settle()
        seen = set(page.mg("seen", 1))
        assert {"candidates", "target_magnitude"} <= seen and not seen & {"learning_rate", "adjustments"}
        values = save(page, tmp_path / "saved.json")["nodes"][0]["widgets_values"]
        assert "search" in values and 0.25 in values and 5 in values
        assert page.mg("values", 1) == values
        assert set(page.mg("seen", 1)) == seen
        _choose(page, "method", "per-sample")
        page.settle()
        assert {"learning_rate", "constraint"} <= set(page.mg("seen", 1))
        assert page.mg("value", 1, "learning_rate") == 0.25


def _choose(page: Page, name: str, value: str) -> None:
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


def test_a_connected_latent_stands_in_for_the_size(page: Page) -> None:
    graph = Graph()
    graph.node("MG_ReferencesFromFolder", size_of=graph.node("EmptyLatentImage")[0])
    build_classic(page, graph, "size")
    for _ in page.renderers():
        assert not set(page.mg("seen", 2)) & {"width", "height"}
        page.mg("link", 1, 2, "size_of", False)
        page.settle()
        assert {"width", "height"} <= set(page.mg("seen", 2))
        page.mg("link", 1, 2, "size_of", True)
        page.settle()


def test_copy_check_shows_the_threshold_of_its_references_alone(page: Page) -> None:
    """The metric is chosen on another node, which may be some nodes away. What a file holds is not known."""
    graph = Graph()
    kept = graph.node("MG_SaveReferences", references=graph.node("MG_ReferencesFromFolder", metric="nL2")[0])
    graph.node("MG_CopyCheck", references=kept[0])
    graph.node("MG_LoadReferences")
    build_classic(page, graph, "thresholds")
    every = {"nL2": "nl2_threshold", "latent": "latent_threshold", "descriptor": "threshold"}

    def shown() -> set[str]:
        page.settle()
        return set(page.mg("seen", 3)) & set(every.values())

    for _ in page.renderers():
        for metric, threshold in every.items():
            page.mg("setOne", 1, "metric", metric)
            assert shown() == {threshold}
        page.mg("link", 4, 3, "references", True)
        assert shown() == set(every.values())
        page.mg("link", 2, 3, "references", True)
        assert shown() == {"threshold"}


def test_the_view_is_no_value(vue: Page, tmp_path: Path) -> None:
    lab = LabWorkflow()
    lab.shown(lab.sampler()["latent"])
    ids = lab.build(vue)
    values, before = vue.mg("values", ids["sampler"]), vue.api_prompt()
    vue.queue_and_wait()
    assert vue.mg("values", ids["sampler"]) == values
    assert len(values) == len(inputs_of(vue, "MG_DeferredCFGKSampler")) + 1  # and control_after_generate
    assert vue.api_prompt() == before
    saved = save(vue, tmp_path / "saved.json")
    assert WIDGET not in json.dumps([saved, before]) and "headline" not in json.dumps(saved)
    assert vue.api_prompt() == before
    assert vue.mg("values", ids["sampler"]) == values


pytestmark = pytest.mark.timeout(300)
TOASTS = "li[role=alert], .p-toast-message"  # frontend 1.58, 1.32
BUTTON, ENTRY = "Apply to graph", "Replace with Deferred-CFG KSampler"


def press(page: Page, node: int) -> str:
    page.tab.locator(TOASTS).get_by_role("button").evaluate_all("(all) => all.forEach((close) => close.click())")
    page.tab.wait_for_timeout(500)
    if page.nodes2:
        page.tab.get_by_role("button", name=BUTTON).click()
    else:
        page.tab.mouse.click(*page.mg("middle", node, BUTTON))
    page.settle()
    return page.tab.locator(TOASTS).last.inner_text()


def comes(page: Page, prompt: dict) -> bool:
    """Whether the graph becomes this one: Nodes 2.0 builds it while the page goes on."""
    for _ in range(50):
        if page.api_prompt() == prompt:
            return True
        page.tab.wait_for_timeout(100)
    return False


def undo(page: Page) -> None:
    page.tab.keyboard.press("Control+z")
    page.settle()


def test_calibrated_values_go_into_the_graph(page: Page) -> None:
    lab = LabWorkflow()
    latent = lab.graph.node("EmptyLatentImage", width=SIDE, height=SIDE)
    lab.graph.node("MG_Calibrate", "measure", model=lab.model, clip=lab.clip, latent_image=latent)
    lab.sampler(memorized_threshold=0.5)
    lab.graph.node("MG_NoiseOptimizer", "optimizer", **lab.wires, target_magnitude=9.0, target_units="absolute")
    ids = lab.build(page)
    prompt = page.api_prompt()
    assert "first" in press(page, ids["measure"])
    assert page.api_prompt() == prompt and BUTTON not in str(prompt)
    wanted = views.check(page, page.queue_and_wait())[str(ids["measure"])].view["suggested"]
    for _ in page.renderers():
        before = page.serialized()
        said = press(page, ids["measure"])
        assert f"memorized_threshold is now {wanted['memorized_threshold']} in sampler, optimizer." in said
        assert f"target_magnitude is now {wanted['target_magnitude']} in optimizer." in said
        sampler, optimizer = (page.api_prompt()[str(ids[name])]["inputs"] for name in ("sampler", "optimizer"))
        assert sampler["memorized_threshold"] == wanted["memorized_threshold"]
        assert optimizer["target_magnitude"] == wanted["target_magnitude"] and optimizer["target_units"] == "relative"
        assert optimizer["memorized_threshold"] == wanted["memorized_threshold"]
        undo(page)
        values = [node["widgets_values"] for node in before["nodes"] if "widgets_values" in node]
        assert values == [n["widgets_values"] for n in page.serialized()["nodes"] if "widgets_values" in n]


def test_a_ksampler_is_replaced_with_its_links_and_values(page: Page) -> None:
    lab = LabWorkflow(seed=7)
    plain = lab.plain(sampler_name="heun", denoise=0.9)
    lab.shown(plain[0])
    lab.shown(plain[0])
    node = lab.build(page)["plain"]
    for _ in page.renderers():
        before = page.api_prompt()
        page.mg("show", 0.7, 150, 350)  # the bar above the node would lie under the tabs
        page.settle()
        choose(page, node)
        page.settle()
        after = page.api_prompt()
        (made,) = (key for key in after if key not in before)
        assert after[made]["class_type"] == "MG_DeferredCFGKSampler" and str(node) not in after
        assert before[str(node)]["inputs"].items() <= after[made]["inputs"].items()
        for key in before.keys() & after.keys():
            links = [made if v == [str(node), 0] else v for v in before[key]["inputs"].values()]
            assert links == [made if v == [made, 0] else v for v in after[key]["inputs"].values()]
        assert sum(v == [made, 0] for n in after.values() for v in n["inputs"].values()) == 2
        undo(page)
        if page.nodes2 and not comes(page, before):
            undo(page)  # it measures the new node a moment later, which is a step of its own
        assert comes(page, before)
    page.queue_and_wait()


def choose(page: Page, node: int) -> None:
    """The entry of the node's menu, or in Nodes 2.0 its button in the bar above the selected node."""
    x, y = page.tab.evaluate(
        """(id) => {
            const node = app.graph.getNodeById(id), { scale, offset } = app.canvas.ds
            const frame = app.canvas.canvas.getBoundingClientRect()
            return [frame.x + (node.pos[0] + 60 + offset[0]) * scale, frame.y + (node.pos[1] - 15 + offset[1]) * scale]
        }""",
        node,
    )
    page.tab.mouse.click(x, y, button="left" if page.nodes2 else "right")
    page.settle()
    page.tab.locator("button:has(.pi-shield)").click() if page.nodes2 else page.tab.get_by_text(ENTRY).click()
