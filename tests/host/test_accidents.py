"""Inputs that do not fit each other or the model: one clear sentence says what to change."""

import pytest
import torch

from support.executor import Host
from support.graphs import deferred, detector, faulty, ksampler, lab, optimizer, patch
from support.outcomes import refused

BROKEN = ["f", 0]


@pytest.mark.parametrize("shape", [(2, 4, 8, 16), (3, 4, 8, 8)])
def test_a_noise_of_another_shape_or_batch_names_both(host: Host, shape: tuple[int, ...]) -> None:
    prompt = {"lab": lab(2), "o": optimizer(), "k": deferred(noise=["o", 0], latent_image=["w", 0])}
    message = refused(host, prompt, {"w": {"samples": torch.zeros(shape)}})
    assert "2 × 4 × 8 × 8" in message and " × ".join(map(str, shape)) in message and "latent_image" in message


def test_a_curve_of_another_batch(host: Host) -> None:
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
