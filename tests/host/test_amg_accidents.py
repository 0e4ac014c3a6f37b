"""AMG Guidance: what cannot work is said before sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.accidents import hooked
from support.executor import Host
from support.graphs import amg, faulty, ksampler, lab, references
from support.lab_pack import exact
from support.lab_pack.meter import Meter
from support.outcomes import fails

GUIDED = ["g", 0]


def refused(host: Host, given: dict[str, Any], captions: str = "", **changed: Any) -> tuple[str, str]:
    """(the node that refused, what it said); nothing was evaluated."""
    meter = Meter()
    given = {"works": {"samples": exact.x_mem()}, "m": hooked(exact.build(), meter)} | given
    nodes = {"g": amg(**{"model": ["m", 0], **changed}), "k": ksampler(model=GUIDED)}
    error = fails(host, {"lab": lab(2), "refs": references(captions), **nodes}, given)
    assert error.kind.endswith("GuardError"), error
    assert meter.rows == 0
    return error.node_id, error.message


def a_set(host: Host, metric: str, count: int, dim: tuple[int, ...], **extra: Any) -> Any:
    kind = host.module("memorization_guard", "mitigation.references.reference_set").ReferenceSet
    size = int(torch.tensor(dim).prod())
    blank = ("",) * count
    return kind(metric, torch.ones(count, size).half(), dim, blank, blank, **extra)


def test_deduplication_without_captions(host: Host) -> None:
    node, said = refused(host, {"clip": exact.TextEncoder()}, deduplication=5.0, clip=["clip", 0])
    assert node == "g" and "deduplication needs captions" in said and "set deduplication to 0" in said


def test_deduplication_without_clip(host: Host) -> None:
    node, said = refused(host, {}, "a ring", deduplication=5.0)
    assert node == "g" and "connect `clip`" in said and "set deduplication to 0" in said


def test_a_set_of_another_size(host: Host) -> None:
    node, said = refused(host, {"works": {"samples": torch.randn(1, 4, 8, 16)}})
    assert node == "k" and "4 × 8 × 16" in said and "4 × 8 × 8" in said and "`references`" in said


def test_a_set_of_another_family(host: Host) -> None:
    node, said = refused(host, {"works": {"samples": torch.randn(1, 16, 8, 8)}})
    assert node == "g" and "16 channels" in said and "works with 4" in said


@pytest.mark.parametrize("metric", ["nL2", "descriptor"])
def test_a_metric_that_needs_a_vae(host: Host, metric: str) -> None:
    made = a_set(host, metric, 60, (3, 64, 64) if metric == "nL2" else (8,))
    node, said = refused(host, {"s": made}, references=["s", 0])
    assert node == "g" and "connect `vae`" in said and metric in said


def test_a_vae_of_another_family(host: Host) -> None:
    class Wide:
        latent_channels = 16

    made = a_set(host, "nL2", 60, (3, 64, 64))
    node, said = refused(host, {"s": made, "v": Wide()}, references=["s", 0], vae=["v", 0])
    assert node == "g" and "16 channels" in said and "`vae`" in said


def test_a_descriptor_that_is_not_loaded(host: Host, vae: Any) -> None:
    made = a_set(host, "descriptor", 4, (8,), descriptor_name="SSCD")
    node, said = refused(host, {"s": made, "v": vae}, references=["s", 0], vae=["v", 0])
    assert node == "g" and "SSCD" in said and "not loaded" in said


def test_a_threshold_that_falls(host: Host) -> None:
    node, said = refused(host, {}, threshold_min=0.7)
    assert node == "g" and "`threshold_min`" in said and "`threshold_max`" in said


def test_something_else_than_a_set(host: Host) -> None:
    node, said = refused(host, {"s": {"samples": 1}}, references=["s", 0])
    assert node == "g" and "Connect a reference set" in said


def test_a_quantized_model_through_the_model(host: Host) -> None:
    prompt = {"lab": lab(2), "refs": references(), "f": faulty("quantized")}
    given = {"works": {"samples": exact.x_mem()}}
    error = fails(host, {**prompt, "g": amg(model=["f", 0], gradient="through model")}, given)
    assert error.node_id == "g" and "through prediction" in error.message
    out = host.run({**prompt, "g": amg(model=["f", 0]), "k": ksampler(model=GUIDED)}, given)["k"][0]
    assert not exact.is_copy(out).any(), "through the prediction it works"
