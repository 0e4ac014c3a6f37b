"""A part of `make matrix`: tiny models of the host's families, and every node on them."""

import pytest

from support.executor import Host
from support.families import FAST, built, cells, files, kinds

FAMILIES = {f.name: f for f in [*files.FAMILIES, *built.FAMILIES]}


@pytest.mark.parametrize(("family", "precision"), sorted(FAST))
def test_every_node_runs_and_changes_nothing_at_zero(host: Host, family: str, precision: str) -> None:
    found = cells.row(host, FAMILIES[family], kinds.PRECISIONS[precision])
    wrong = {n: str(c) for n, c in found.items() if c.outcome != "pass"}
    if family == built.DISTILLED.name:
        assert wrong.pop("AMG, deduplication").startswith("not here")
        for name in ("Detector", "Sampler, dynamic", "Optimizer, per-sample"):
            assert "only compares" in found[name].said, "it says what d is there"
    assert not wrong


def test_a_cell_that_fails_is_said(host: Host, monkeypatch) -> None:
    monkeypatch.setitem(cells.NODES, "Sampler, off", lambda bench: bench.other(k=bench.words.deferred("off")))
    found = cells.row(host, built.SCHNELL, kinds.PRECISIONS["fp32"], ("Sampler, off",))
    assert str(found["Sampler, off"]) == "FAIL: it did nothing"
