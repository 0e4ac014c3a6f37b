"""What the nodes promise, with all their defaults, whatever the network predicts: ε, v or a flow's velocity.

`pytest -s` prints the figures.
"""

from __future__ import annotations

import pytest
import torch

from support.executor import Host
from support.graphs import ORDINARY, amg, deferred, ksampler, lab, optimizer, references
from support.lab_pack import exact

BATCH, GUIDED = 128, 24
WORKS = {"works": {"samples": exact.x_mem()}}


def copies(output: list) -> int:
    return int(exact.is_copy(output[0]).sum())


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_copies_without_mitigation_and_not_with_it(host: Host, kind: str) -> None:
    many = host.run({"lab": lab(BATCH, kind), "a": ksampler(), "b": deferred()})
    guided = {"lab": lab(GUIDED, kind), "refs": references(), "g": amg(), "k": ksampler(model=["g", 0])}
    found = {
        "no mitigation": (copies(many["a"]), BATCH),
        "dynamic deferral": (copies(many["b"]), BATCH),
        "AMG": (copies(host.run(guided, WORKS)["k"]), GUIDED),
    }
    print(f"\n{kind}: " + ", ".join(f"{name} {n} of {of} copies" for name, (n, of) in found.items()), end="; ")
    assert found["no mitigation"][0] >= 0.95 * BATCH
    assert found["dynamic deferral"][0] <= 0.05 * BATCH
    assert found["AMG"][0] == 0


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_an_optimized_noise_does_not_lead_to_a_copy(host: Host, kind: str) -> None:
    prompt = {"lab": lab(GUIDED, kind), "o": optimizer(), "k": deferred("off", noise=["o", 0])}
    out = host.run(prompt)
    print(f"\n{kind}: per-sample, then KSampler: {copies(out['k'])} of {GUIDED} copies", end="; ")
    assert out["o"][1].reached.all()
    assert copies(out["k"]) <= 0.05 * GUIDED


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_an_ordinary_prompt_is_bit_identical(host: Host, kind: str) -> None:
    plan = {"positive": ORDINARY}
    prompt = {"lab": lab(8, kind), "refs": references(), "g": amg(), "k": ksampler(model=["g", 0], **plan)}
    out = host.run(prompt | {"a": ksampler(**plan), "b": deferred(**plan)}, WORKS)
    for name in ("b", "k"):
        assert torch.equal(out[name][0]["samples"], out["a"][0]["samples"]), name
