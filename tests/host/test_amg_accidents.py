"""AMG Guidance: what cannot work is said before sampling."""

from typing import Any

import torch

from support.accidents import hooked
from support.executor import Host
from support.graphs import amg, faulty, ksampler, lab, references
from support.lab_pack import exact
from support.lab_pack.meter import Meter
from support.outcomes import fails

GUIDED = ["g", 0]


def refused(host: Host, node: str, *says: str, captions: str = "", given: dict | None = None, **changed: Any) -> None:
    """This node refuses in these words, and nothing was evaluated."""
    meter = Meter()
    given = {"works": {"samples": exact.x_mem()}, "m": hooked(exact.build(), meter)} | (given or {})
    nodes = {"g": amg(**{"model": ["m", 0], **changed}), "k": ksampler(model=GUIDED)}
    error = fails(host, {"lab": lab(2), "refs": references(captions), **nodes}, given)
    assert error.kind.endswith("GuardError") and error.node_id == node, error
    assert all(words in error.message for words in says), error
    assert meter.rows == 0


def a_set(host: Host, metric: str, count: int, dim: tuple[int, ...], **extra: Any) -> Any:
    kind = host.module("memorization_guard", "mitigation.references.reference_set").ReferenceSet
    size = int(torch.tensor(dim).prod())
    blank = ("",) * count
    return kind(metric, torch.ones(count, size).half(), dim, blank, blank, **extra)


def test_deduplication_without_captions_or_without_clip(host: Host) -> None:
    wanted, advice = {"deduplication": 5.0, "clip": ["clip", 0]}, "set deduplication to 0"
    refused(host, "g", "deduplication needs captions", advice, given={"clip": exact.TextEncoder()}, **wanted)
    refused(host, "g", "connect `clip`", advice, captions="a ring", deduplication=5.0)


def test_a_set_of_another_size_or_family_and_no_set_at_all(host: Host) -> None:
    wide, deep = ({"works": {"samples": torch.randn(1, *shape)}} for shape in ((4, 8, 16), (16, 8, 8)))
    refused(host, "k", "4 × 8 × 16", "4 × 8 × 8", "`references`", given=wide)
    refused(host, "g", "16 channels", "works with 4", given=deep)
    refused(host, "g", "Connect a reference set", given={"s": {"samples": 1}}, references=["s", 0])


def test_a_metric_that_needs_a_vae_of_this_family_and_its_descriptor(host: Host, vae: Any) -> None:
    class Wide:
        latent_channels = 16

    links, vaes = {"references": ["s", 0]}, {"vae": ["v", 0]}
    pixels, plain = a_set(host, "nL2", 60, (3, 64, 64)), a_set(host, "descriptor", 60, (8,))
    named = a_set(host, "descriptor", 4, (8,), descriptor_name="SSCD")
    refused(host, "g", "connect `vae`", "nL2", given={"s": pixels}, **links)
    refused(host, "g", "connect `vae`", "descriptor", given={"s": plain}, **links)
    refused(host, "g", "16 channels", "`vae`", given={"s": pixels, "v": Wide()}, **links, **vaes)
    refused(host, "g", "SSCD", "not loaded", given={"s": named, "v": vae}, **links, **vaes)


def test_a_threshold_that_falls(host: Host) -> None:
    refused(host, "g", "`threshold_min`", "`threshold_max`", threshold_min=0.7)


def test_a_quantized_model_through_the_model(host: Host) -> None:
    prompt = {"lab": lab(2), "refs": references(), "f": faulty("quantized")}
    given = {"works": {"samples": exact.x_mem()}}
    error = fails(host, {**prompt, "g": amg(model=["f", 0], gradient="through model")}, given)
    assert error.node_id == "g" and "through prediction" in error.message
    out = host.run({**prompt, "g": amg(model=["f", 0]), "k": ksampler(model=GUIDED)}, given)["k"][0]
    assert not exact.is_copy(out).any(), "through the prediction it works"
