"""Inputs that do not fit each other or the model: one clear sentence says what to change, before sampling."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support.accidents import hooked
from support.executor import Host
from support.graphs import amg, deferred, detector, faulty, ksampler, lab, optimizer, patch, references
from support.lab_pack import exact
from support.lab_pack.meter import Meter
from support.outcomes import fails, refused

GUIDED = ["g", 0]


@pytest.mark.parametrize("shape", [(2, 4, 8, 16), (3, 4, 8, 8)])
def test_a_noise_or_a_curve_of_another_shape_or_batch_names_both(host: Host, shape: tuple[int, ...]) -> None:
    prompt = {"lab": lab(2), "o": optimizer(), "k": deferred(noise=["o", 0], latent_image=["w", 0])}
    message = refused(host, prompt, {"w": {"samples": torch.zeros(shape)}})
    assert "2 × 4 × 8 × 8" in message and " × ".join(map(str, shape)) in message and "latent_image" in message
    more, known = {"latent_image": ["more", 4]}, {"curve": ["d", 3]}
    prompt = {"lab": lab(2), "more": lab(3), "d": detector()}
    for ours in ({"k": deferred(**known, **more)}, {"p": patch(**known), "k": ksampler(model=["p", 0], **more)}):
        message = refused(host, prompt | ours)
        assert "`curve`" in message and "batch of 2" in message and "has 3" in message


@pytest.mark.parametrize("node", [optimizer, detector, deferred])
def test_a_latent_that_is_empty_or_of_another_family(host: Host, node) -> None:
    prompt = {"lab": lab(2), "n": node(latent_image=["e", 0])}
    message = refused(host, prompt, {"e": {"samples": torch.zeros(0, 4, 8, 8)}})
    assert "`latent_image` is empty" in message and "0 × 4 × 8 × 8" in message
    message = refused(host, prompt, {"e": {"samples": torch.ones(1, 16, 8, 8)}})
    assert "16 channels" in message and "works with 4" in message
    if node is detector:  # a schedule of one value
        short = {"lab": lab(1), "d": detector(sigmas=["s", 0])}
        assert "at least two" in refused(host, short, {"s": torch.tensor([14.6])})


def refuses(host: Host, node: str, *says: str, captions: str = "", given: dict | None = None, **changed: Any) -> None:
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


def test_amg_names_what_is_missing_or_does_not_fit(host: Host, vae: Any) -> None:
    wanted, advice = {"deduplication": 5.0, "clip": ["clip", 0]}, "set deduplication to 0"
    refuses(host, "g", "deduplication needs captions", advice, given={"clip": exact.TextEncoder()}, **wanted)
    refuses(host, "g", "connect `clip`", advice, captions="a ring", deduplication=5.0)
    refuses(host, "g", "`threshold_min`", "`threshold_max`", threshold_min=0.7)
    wide, deep = ({"works": {"samples": torch.randn(1, *shape)}} for shape in ((4, 8, 16), (16, 8, 8)))
    refuses(host, "k", "4 × 8 × 16", "4 × 8 × 8", "`references`", given=wide)
    refuses(host, "g", "16 channels", "works with 4", given=deep)
    refuses(host, "g", "Connect a reference set", given={"s": {"samples": 1}}, references=["s", 0])
    links, vaes = {"references": ["s", 0]}, {"vae": ["v", 0]}
    pixels, plain = a_set(host, "nL2", 60, (3, 64, 64)), a_set(host, "descriptor", 60, (8,))
    named = a_set(host, "descriptor", 4, (8,), descriptor_name="SSCD")
    refuses(host, "g", "connect `vae`", "nL2", given={"s": pixels}, **links)
    refuses(host, "g", "connect `vae`", "descriptor", given={"s": plain}, **links)
    other = SimpleNamespace(latent_channels=16)
    refuses(host, "g", "16 channels", "`vae`", given={"s": pixels, "v": other}, **links, **vaes)
    refuses(host, "g", "SSCD", "not loaded", given={"s": named, "v": vae}, **links, **vaes)


def test_a_quantized_model_through_the_model(host: Host) -> None:
    prompt = {"lab": lab(2), "refs": references(), "f": faulty("quantized")}
    given = {"works": {"samples": exact.x_mem()}}
    error = fails(host, {**prompt, "g": amg(model=["f", 0], gradient="through model")}, given)
    assert error.node_id == "g" and "through prediction" in error.message
    out = host.run({**prompt, "g": amg(model=["f", 0]), "k": ksampler(model=GUIDED)}, given)["k"][0]
    assert not exact.is_copy(out).any(), "through the prediction it works"
