"""What changes the user's graph: Apply to graph, and Replace with Deferred-CFG KSampler. Both can be undone."""

from pathlib import Path

import pytest

from support.frontend import screenshots, views
from support.frontend.lab_workflow import SIDE, LabWorkflow
from support.frontend.page import Page

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


def test_calibrated_values_go_into_the_graph(page: Page, artefacts: Path) -> None:
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
    for renderer in page.renderers():
        before = page.serialized()
        said = press(page, ids["measure"])
        assert f"memorized_threshold is now {wanted['memorized_threshold']} in sampler, optimizer." in said
        assert f"target_magnitude is now {wanted['target_magnitude']} in optimizer." in said
        sampler, optimizer = (page.api_prompt()[str(ids[name])]["inputs"] for name in ("sampler", "optimizer"))
        assert sampler["memorized_threshold"] == wanted["memorized_threshold"]
        assert optimizer["target_magnitude"] == wanted["target_magnitude"] and optimizer["target_units"] == "relative"
        assert optimizer["memorized_threshold"] == wanted["memorized_threshold"]
        screenshots.whole_graph(page, artefacts / f"apply, {renderer}.png")
        undo(page)
        values = [node["widgets_values"] for node in before["nodes"] if "widgets_values" in node]
        assert values == [n["widgets_values"] for n in page.serialized()["nodes"] if "widgets_values" in n]


def test_a_ksampler_is_replaced_with_its_links_and_values(page: Page, artefacts: Path) -> None:
    lab = LabWorkflow(seed=7)
    plain = lab.plain(sampler_name="heun", denoise=0.9)
    lab.shown(plain[0])
    lab.shown(plain[0])
    node = lab.build(page)["plain"]
    for renderer in page.renderers():
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
        screenshots.whole_graph(page, artefacts / f"replaced, {renderer}.png")
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
