"""Inputs that do not fit each other or the model: one clear sentence says what to change."""

from __future__ import annotations

import pytest
import torch

from support.executor import Host
from support.graphs import deferred, detector, faulty, lab, optimizer
from support.outcomes import refused

BROKEN = ["f", 0]


def test_a_noise_of_another_shape_names_both_shapes(host: Host) -> None:
    wide = {"samples": torch.zeros(2, 4, 8, 16)}
    message = refused(
        host, {"lab": lab(2), "o": optimizer(), "k": deferred(noise=["o", 0], latent_image=["w", 0])}, {"w": wide}
    )
    assert "2 × 4 × 8 × 8" in message and "2 × 4 × 8 × 16" in message and "latent_image" in message


def test_a_noise_of_another_batch_names_both_batches(host: Host) -> None:
    prompt = {"lab": lab(2), "more": lab(3), "o": optimizer(), "k": deferred(noise=["o", 0], latent_image=["more", 4])}
    message = refused(host, prompt)
    assert "2 × 4 × 8 × 8" in message and "3 × 4 × 8 × 8" in message


def test_a_curve_of_another_batch(host: Host) -> None:
    prompt = {"lab": lab(2), "more": lab(3), "d": detector(), "k": deferred(curve=["d", 3], latent_image=["more", 4])}
    message = refused(host, prompt)
    assert "`curve`" in message and "batch of 2" in message and "has 3" in message


@pytest.mark.parametrize("node", [optimizer, detector, deferred])
def test_an_empty_latent(host: Host, node) -> None:
    empty = {"samples": torch.zeros(0, 4, 8, 8)}
    message = refused(host, {"lab": lab(2), "n": node(latent_image=["e", 0])}, {"e": empty})
    assert "`latent_image` is empty" in message and "0 × 4 × 8 × 8" in message


@pytest.mark.parametrize("node", [optimizer, detector, deferred])
def test_a_latent_of_another_family(host: Host, node) -> None:
    other = {"samples": torch.ones(1, 16, 8, 8)}
    message = refused(host, {"lab": lab(2), "n": node(latent_image=["e", 0])}, {"e": other})
    assert "16 channels" in message and "works with 4" in message


@pytest.mark.parametrize("node", [optimizer, detector, deferred])
def test_nan_from_the_model(host: Host, node) -> None:
    message = refused(host, {"lab": lab(2), "f": faulty("nan"), "n": node(model=BROKEN)})
    assert "NaN" in message and "`model`" in message


def test_a_quantized_model_is_refused_for_gradients_and_shown_the_way_out(host: Host) -> None:
    message = refused(host, {"lab": lab(2), "f": faulty("quantized"), "o": optimizer(model=BROKEN)})
    assert "cannot be differentiated" in message and "search" in message
    for method in ("search", "batch-wise"):
        report = host.run({"lab": lab(2), "f": faulty("quantized"), "o": optimizer(method, model=BROKEN)})["o"][1]
        assert torch.isfinite(report.after).all()


def test_a_schedule_of_one_value(host: Host) -> None:
    assert "at least two" in refused(host, {"lab": lab(1), "d": detector(sigmas=["s", 0])}, {"s": torch.tensor([14.6])})
