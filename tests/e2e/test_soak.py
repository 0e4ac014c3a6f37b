"""`make soak` in small: interruptions and faults on a real server leave KSampler's picture as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.server import Server
from tools.soak import Soak

pytestmark = pytest.mark.timeout(300)
NAMES = ("per-sample noise", "detector, then its curve", "AMG latent, deduplication, copy check")


@pytest.fixture(scope="module")
def soak() -> Iterator[Soak]:
    """After an undisturbed round, on a server with one thread: two wait for each other on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with Server() as server:
            made = Soak(server, seed=1, names=NAMES)
            made.run(len(NAMES), say=False)
            made.census(len(NAMES))
            yield made


@pytest.mark.parametrize(
    ("name", "kind", "call", "ended"),
    [
        (NAMES[1], "RuntimeError", 5, "failed by"),
        (NAMES[2], "NaN", 6, "failed by"),
        (NAMES[0], "out of memory", 2, "went on after"),  # while it optimizes: one picture at a time
        (NAMES[0], "out of memory", 9, "failed by"),
    ],
)
def test_a_fault_leaves_nothing_behind(soak: Soak, name: str, kind: str, call: int, ended: str) -> None:
    """The workflow again, and KSampler without the pack, are bit-identical to what they were before."""
    before = soak.count.copy()
    soak.once(name, kind, call)
    told = soak.count - before
    assert soak.wrong == []
    assert told["vanilla, identical"] == told["queued again, identical"] == told[f"{ended} {kind}"] == 1


def test_an_interruption_leaves_nothing_behind(soak: Soak) -> None:
    before = soak.count.copy()
    soak.once(NAMES[0], "interrupt")
    told = soak.count - before
    assert soak.wrong == []
    assert told["vanilla, identical"] == told["queued again, identical"] == 1


def test_undisturbed_workflows_repeat(soak: Soak) -> None:
    soak.run(len(NAMES), undisturbed=1.0, say=False)
    assert soak.wrong == []
    assert soak.count["repeated, identical"] == soak.count["repeated"] == len(NAMES)


def test_nothing_stays_in_memory(soak: Soak) -> None:
    """Tensors that are alive in the server's process after a collection, before all this and afterwards."""
    soak.census(soak.count["runs"])
    first, last = soak.curve[0], soak.curve[-1]
    assert first["tensors"] > 100
    assert [last[k] for k in ("tensors", "bytes", "patchers")] == [first[k] for k in ("tensors", "bytes", "patchers")]
