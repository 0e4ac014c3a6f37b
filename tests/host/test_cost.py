"""What the nodes cost: model evaluations, by the code of `make bench-cost`, and the view of a run."""

import json
import time

import pytest

from benchmarks.cost.measurements import COLUMNS, evaluations, exact_model, figure
from benchmarks.report import table
from support.executor import Host
from support.graphs import references
from support.graphs.checkpoint import amg, base, deferred, empty, ksampler
from support.paths import PACK

MOST = 0.01  # of the run's processor time


def test_evaluations_on_the_exact_model(host: Host) -> None:
    rows = list(evaluations(exact_model(host)))
    assert len(rows) == 5
    assert all(row["verdict"] == "pass" for row in rows), "\n" + table(rows, COLUMNS)


def test_a_missed_bound_is_said() -> None:
    assert figure("m", "n", 1.1, 1.03, vanilla=1.0)["verdict"] == "SHORT"
    assert figure("m", "n", 1.02, 1.03, vanilla=1.0)["verdict"] == "pass"
    assert figure("m", "n", 5, 4, exact=True)["verdict"] == "SHORT"


@pytest.mark.parametrize(("kind", "batch", "steps"), [("deferral", 16, 20), ("guidance", 4, 50)])
def test_a_view_costs_at_most_a_hundredth(host: Host, checkpoint, monkeypatch, kind, batch: int, steps: int) -> None:
    """On the small lab, whose steps are far shorter than those of any real model."""
    live = host.module(PACK, "adapter.live_view").LiveView
    spent: list[float] = []

    def timed(method):
        def wrapper(self, *args):
            began = time.thread_time()
            try:
                return method(self, *args)
            finally:
                spent.append(time.thread_time() - began)

        return wrapper

    for name in ("show", "finish"):
        monkeypatch.setattr(live, name, timed(getattr(live, name)))
    prompt = base(batch, side=12)
    if kind == "deferral":
        prompt["s"] = deferred(steps=steps, pre_escape_cfg=-1.0, start_percent=1.0)
    else:
        guided = {"g": amg(), "s": ksampler(model=["g", 0], steps=steps)}
        prompt |= {"works": empty(3, side=12), "refs": references(), **guided}
    began = time.thread_time()
    host.run(prompt, given=checkpoint)
    whole = time.thread_time() - began
    sent = [data["view"] for event, data in host.events if event == f"{PACK}.view"]
    began = time.thread_time()
    for view in sent:
        json.dumps(view)  # the server does this in its own thread, under the same lock
    written = time.thread_time() - began
    share = (sum(spent) + written) / whole
    size = max(len(json.dumps(view)) for view in sent)
    print(
        f"\n{kind}, batch {batch}: {len(sent)} views in {whole:.2f} s, {1000 * sum(spent):.1f} ms to make and send, "
        f"{1000 * written:.1f} ms to write, {size / 1024:.0f} kB the largest: {share:.2%}"
    )
    assert len(sent) > 2 and sent[-1]["done"]
    assert share <= MOST
