"""What the nodes promise, with all their defaults, whatever the network predicts: ε, v or a flow's velocity."""

import pytest

from support.executor import Host
from support.graphs import ORDINARY, amg, deferred, ksampler, lab, optimizer, references
from support.lab_pack import exact
from support.outcomes import copies, same_bits

BATCH, GUIDED = 128, 24
WORKS = {"works": {"samples": exact.x_mem()}}


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_copies_without_mitigation_and_not_with_it(host: Host, kind: str) -> None:
    many = host.run({"lab": lab(BATCH, kind), "a": ksampler(), "b": deferred()})
    guided = {"lab": lab(GUIDED, kind), "refs": references(), "g": amg(), "k": ksampler(model=["g", 0])}
    steered = host.run(guided, WORKS)["k"]
    found = {"no mitigation": copies(many["a"]), "dynamic deferral": copies(many["b"]), "AMG": copies(steered)}
    print(f"\n{kind}, copies: " + ", ".join(f"{name} {share:.0%}" for name, share in found.items()), end="; ")
    assert found["no mitigation"] >= 0.95
    assert found["dynamic deferral"] <= 0.05
    assert found["AMG"] == 0
    assert exact.rmse(steered[0]).max() < 1.2, "and the images are not thrown far away"


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_an_optimized_noise_does_not_lead_to_a_copy(host: Host, kind: str) -> None:
    prompt = {"lab": lab(GUIDED, kind), "o": optimizer(), "k": deferred("off", noise=["o", 0])}
    out = host.run(prompt)
    print(f"\n{kind}: per-sample, then KSampler: {copies(out['k']):.0%} copies", end="; ")
    assert out["o"][1].reached.all()
    assert copies(out["k"]) <= 0.05


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_an_ordinary_prompt_is_bit_identical(host: Host, kind: str) -> None:
    plan = {"positive": ORDINARY}
    prompt = {"lab": lab(8, kind), "refs": references(), "g": amg(), "k": ksampler(model=["g", 0], **plan)}
    out = host.run(prompt | {"a": ksampler(**plan), "b": deferred(**plan)}, WORKS)
    assert same_bits(out["a"], out["b"], out["k"])
