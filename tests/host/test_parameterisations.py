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
    refs = {"refs": references(), "g": amg(), "o": optimizer()}
    guided = {"k": ksampler(model=["g", 0]), "n": deferred("off", noise=["o", 0])}
    out = host.run({"lab": lab(GUIDED, kind), **refs, **guided}, WORKS)
    runs = {"no mitigation": many["a"], "dynamic deferral": many["b"], "AMG": out["k"], "per-sample": out["n"]}
    found = {name: copies(run) for name, run in runs.items()}
    print(f"\n{kind}, copies: " + ", ".join(f"{name} {share:.0%}" for name, share in found.items()), end="; ")
    assert found["no mitigation"] >= 0.95 and found["AMG"] == 0 and out["o"][1].reached.all()
    assert max(found["dynamic deferral"], found["per-sample"]) <= 0.05
    assert exact.rmse(out["k"][0]).max() < 1.2, "and the images are not thrown far away"
    plan = {"positive": ORDINARY}
    plain = {"a": ksampler(**plan), "b": deferred(**plan), "k": ksampler(model=["g", 0], **plan)}
    out = host.run({"lab": lab(8, kind), "refs": references(), "g": amg(), **plain}, WORKS)
    assert same_bits(out["a"], out["b"], out["k"]), "an ordinary prompt"
