"""Views while several workflows are open: a run shows its views on the nodes of the workflow that queued it."""

from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Route

from support.frontend import views
from support.frontend.page import Page
from support.frontend.workflow import SIDE, LabWorkflow, save

pytestmark = pytest.mark.timeout(600)
STEPS, MANY = 120, 900  # of a run during which the user opens another tab, and of one that is cancelled
HISTORY = "**/history?max_items=32"  # as the pack asks for it; the host asks for more
PROMPT = "**/api/prompt"
FIRST, SECOND = -2, -1  # the places of the two tabs that a test has opened


def open_tab(page: Page, place: int) -> None:
    path = "() => app.extensionManager.workflow.activeWorkflow.path"
    before = page.tab.evaluate(path)
    tabs = page.tab.locator(".workflow-tabs").locator("[role=tab], .p-togglebutton")  # frontend 1.58, 1.32
    tabs.nth(place).click()
    page.tab.mouse.move(800, 700)  # frontend 1.32 shows a large preview below a tab that the mouse is on
    page.tab.wait_for_function(f"(before) => ({path})() !== before", arg=before)
    page.tab.locator(".workflow-popover-fade").wait_for(state="hidden")
    page.settle()


def built(page: Page, lab: LabWorkflow, title: str, emptied: bool = True) -> str:
    """In a tab of its own, which the frontend takes for changed; the id of the node with this title."""
    node = str(lab.build(page, emptied)[title])
    page.tab.evaluate("() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange() }")
    return node


def two_tabs(page: Page) -> tuple[str, views.Shown]:
    """Two tabs with the same ids, which both have run. The sampler's id, and its view in the second, which is open."""
    for seed in (1, 2):
        lab = LabWorkflow(seed=seed)
        lab.shown(lab.sampler()["latent"])
        node = built(page, lab, "sampler")
        own = views.check(page, page.queue_and_wait())[node]
    return node, own


def begin(page: Page) -> str:
    """Queue the open workflow, and wait for some of its views; the id of the run."""
    page.mg("listen")
    run = page.queue()
    more(page)
    return run


def more(page: Page) -> None:
    page.tab.wait_for_function("(n) => mg.events.length > n + 2", arg=page.tab.evaluate("() => mg.events.length"))
    page.settle()


def end(page: Page, run: str) -> None:
    page.server.wait(run, 300, pause=lambda: page.tab.wait_for_timeout(200))
    page.tab.wait_for_function("() => app.ui.lastQueueSize === 0")
    page.settle()


def cancel(page: Page) -> None:
    page.server.post("/interrupt", {})
    page.tab.wait_for_function("() => app.ui.lastQueueSize === 0")
    page.settle()


def test_a_run_draws_nothing_on_the_node_with_the_same_id_in_another_tab(page: Page) -> None:
    node, own = two_tabs(page)
    open_tab(page, FIRST)
    page.mg("setOne", node, "steps", STEPS)
    run = begin(page)
    assert views.shown(page, node).view["run"] == run
    open_tab(page, SECOND)
    more(page)
    assert views.shown(page, node).view == own.view
    views.check_drawn(views.shown(page, node))
    end(page, run)  # and its output, which the host gives to the node that is shown
    assert views.shown(page, node).view == own.view
    open_tab(page, FIRST)
    finished = views.shown(page, node).view
    assert finished["run"] == run and finished["done"]
    open_tab(page, SECOND)
    assert views.shown(page, node).view == own.view  # among its outputs, too


def test_a_patch_shows_what_the_sampler_did_while_another_tab_was_open(page: Page) -> None:
    lab = LabWorkflow(steps=STEPS)
    lab.patched()
    lab.shown(lab.plain()[0])
    patched = built(page, lab, "patched")
    page.tab.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.settle()
    open_tab(page, FIRST)
    run = begin(page)
    open_tab(page, SECOND)
    end(page, run)
    open_tab(page, FIRST)
    seen = views.shown(page, patched)
    assert seen.view["run"] == run and seen.view["done"]
    views.check_drawn(seen)


def test_a_view_out_of_the_history_comes_too_late_for_the_tab_that_is_open(page: Page, tmp_path: Path) -> None:
    for seed in (1, 2):
        lab = LabWorkflow(seed=seed)
        lab.shown(lab.sampler()["latent"])
        node = built(page, lab, "sampler", emptied=seed == 1)
        if seed == 1:
            page.queue_and_wait()
            save(page, tmp_path / "saved.json")  # a tab of its own, whose nodes have shown nothing
    open_tab(page, FIRST)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.tab.route(HISTORY, hold)
    end(page, page.queue())
    assert views.shown(page, node).view is None and len(held) == 1
    open_tab(page, SECOND)
    held[0].continue_()
    page.tab.unroute(HISTORY)
    page.settle()
    assert views.shown(page, node).view is None


def test_a_node_out_of_the_cache_shows_no_other_values(page: Page) -> None:
    """The server keeps the results of its last prompt only, which another tab may have queued."""
    for place in (FIRST, SECOND):
        lab = LabWorkflow()
        lab.shown(lab.sampler()["latent"])
        node = built(page, lab, "sampler", emptied=place == FIRST)
        if place == FIRST:
            page.mg("setOne", node, "seed", 2)
            other = views.check(page, page.queue_and_wait())[node]
    own = views.check(page, page.queue_and_wait())[node]
    open_tab(page, FIRST)
    assert views.shown(page, node).view == other.view != own.view
    page.mg("setOne", node, "seed", 1)
    assert node not in page.queue_and_wait()["outputs"]
    seen = views.shown(page, node)
    assert seen.view == own.view and not seen.stale
    views.check_drawn(seen)


def test_views_that_come_before_the_answer_to_the_prompt(page: Page) -> None:
    node, own = two_tabs(page)
    open_tab(page, FIRST)
    page.mg("setOne", node, "steps", MANY)
    page.mg("listen")
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        held.append((route, route.fetch()))

    page.tab.route(PROMPT, hold)
    page.tab.get_by_role("button", name="Run", exact=True).first.click()
    more(page)
    assert views.shown(page, node).view["steps"] == MANY
    open_tab(page, SECOND)
    more(page)
    assert views.shown(page, node).view == own.view
    ((route, answer),) = held
    route.fulfill(response=answer)
    page.tab.unroute(PROMPT)
    more(page)
    assert views.shown(page, node).view == own.view
    cancel(page)


def test_a_cancelled_run_dims_only_the_views_of_its_own_workflow(page: Page) -> None:
    node, own = two_tabs(page)
    open_tab(page, FIRST)
    page.mg("setOne", node, "steps", MANY)
    run = begin(page)
    open_tab(page, SECOND)
    more(page)
    cancel(page)
    for _ in range(2):
        seen = views.shown(page, node)
        assert seen.view == own.view and not seen.stale and not seen.dimmed
        open_tab(page, FIRST)
        seen = views.shown(page, node)
        assert seen.view["run"] == run and "cancelled" in seen.stale and seen.dimmed
        open_tab(page, SECOND)


def test_a_run_that_leaves_a_node_out_does_not_call_its_view_current(page: Page) -> None:
    lab = LabWorkflow(steps=MANY)
    decoded = lab.shown(lab.sampler()["latent"])
    blank = lab.graph.node("EmptyImage", width=SIDE, height=SIDE)
    lab.graph.node("PreviewImage", images=blank)
    node = built(page, lab, "sampler")
    begin(page)
    cancel(page)
    half = views.shown(page, node)
    assert not half.view["done"] and "cancelled" in half.stale
    page.tab.evaluate("(id) => { app.graph.getNodeById(id).mode = 2 }", decoded.id)
    page.tab.evaluate("(id) => { app.graph.getNodeById(id).mode = 2 }", decoded.id + 1)  # its preview
    page.queue_and_wait()  # the blank image alone
    after = views.shown(page, node)
    assert after.view == half.view and "cancelled" in after.stale and after.dimmed
