"""The gradient of the dissimilarity term against finite differences, inside a real sampling run.

A wrapper around the guided run stops at some steps, asks the run for its gradient and measures the same
slope by moving x (through the model) or the prediction (through the prediction) to both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from support.executor import Host
from support.graphs import ORDINARY, ksampler, lab
from support.graphs.checkpoint import load
from support.lab_pack import exact

BATCH, STEPS, SIDE = 2, (0, 4, 7), 32  # of ten steps


class Looks(nn.Module):
    """A small smooth network in place of SSCD: images to 24 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 5, stride=4).double(), nn.Linear(8 * 49, 24).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x.double())).flatten(1))


@pytest.fixture(scope="module")
def vae(host: Host) -> Any:
    """A VAE of its own in double precision; its weights are inference tensors, as the loader leaves them."""
    made = load(host)["vae"]
    with torch.inference_mode():
        made.first_stage_model.double()
        made.vae_dtype = torch.float64
    return made


@pytest.fixture
def room(host: Host) -> Callable[[str], Any]:
    return lambda name: host.module("memorization_guard", name)


def descriptor(room: Callable) -> Any:
    with torch.inference_mode():
        torch.manual_seed(0)
        network = Looks()
    device = comfy.model_management.get_torch_device()
    patcher = ModelPatcher(network, load_device=device, offload_device=device)
    kind = room("adapter.copy_detector").LoadedDescriptor
    return kind("looks", "0", patcher, network, SIDE, (0.5,) * 3, (0.3,) * 3)


def a_set(room: Callable, metric: str, vae: Any) -> Any:
    """The memorized latent and neighbours of it, as a set of this metric."""
    similarity, sets = room("mitigation.references.features"), room("mitigation.references.reference_set")
    count = 10 if metric == "nL2" else 4
    noise = torch.randn(count, *exact.SHAPE, generator=torch.Generator().manual_seed(5))
    latents = exact.x_mem() + 0.4 * noise * torch.linspace(0, 2, count).view(-1, 1, 1, 1)
    extra: dict[str, Any] = {"k": 8}
    if metric == "latent":
        features, shape = similarity.latent_features(latents), exact.SHAPE
    else:
        with torch.inference_mode():
            images = vae.decode(latents).movedim(-1, 1).float()
        if metric == "nL2":
            features, shape = similarity.image_features(images), (3, 64, 64)
        else:
            extra["descriptor"] = descriptor(room)
            with torch.inference_mode():
                features = similarity.descriptor_features(images, extra["descriptor"])
            shape = tuple(features.shape[1:])
    blank = ("",) * count
    return sets.ReferenceSet(metric, features.half().cpu(), tuple(shape), blank, blank, **extra)


def checks(room: Callable, metric: str, vae: Any, through_model: bool, kind: str = "eps") -> tuple[Any, list[tuple]]:
    """(a guided model that checks itself while it samples, the (gradient's, measured) slopes it finds)."""
    maths, plans, patch = room("mitigation.amg.guidance"), room("methods.amg.plan"), room("methods.amg.patch")
    runs, guidances = room("methods.amg.run"), room("methods.amg.linear_guidance")
    threshold = room("mitigation.amg.threshold").Threshold(-1.0, -1.0)
    guidance = maths.GuidanceStrengths(despecification=2.0, dissimilarity=1e-3, threshold=threshold)
    plan = plans.AMGPlan(a_set(room, metric, vae), guidance, through_model, vae=None if metric == "latent" else vae)
    found: list[tuple] = []

    class Checked(runs.AMGRun):
        def _move_from_reference(self, call, nearest, steered, close, linear, remaining):
            if self.step in STEPS:
                found.append(slopes(self, call, steered, close, linear))
            return steered

    def slopes(run: Any, call: Any, steered: Tensor, above: Tensor, linear: Any) -> tuple:
        nearest = run.scorer.nearest(steered)
        rows = nearest.rows
        if through_model:
            gradient = run.model_gradient(call, nearest, above, linear)
            start = call.x.double()

            def value(x: Tensor) -> Tensor:
                moved, recorder = replace(call, x=x), guidances.GuidanceRecorder()
                denoised = moved.predict(recorder.hooked(call.options))
                steered = denoised if linear is None else linear.apply(denoised, recorder.pair, None)
                return run.scorer.similarity(steered, rows)
        else:
            gradient, start = run.scorer.gradient(steered, rows, above), steered.double()

            def value(x: Tensor) -> Tensor:
                return run.scorer.similarity(x, rows)

        length = gradient.flatten(1).norm(dim=1)
        way = gradient / length.view(-1, 1, 1, 1)
        size = start.flatten(1).norm(dim=1)

        with pytest.MonkeyPatch.context() as patched:  # everything in double precision
            patched.setattr(Tensor, "float", Tensor.double)
            step = (1e-5 * size).view(-1, 1, 1, 1)
            slope = (value(start + step * way) - value(start - step * way)) / (2e-5 * size)
        assert slope.dtype == torch.float64
        return length.tolist(), slope.tolist()

    made = exact.build(kind)
    made.model.diffusion_model.dtype = torch.float64  # what the host casts the model's input to
    guided = patch.add_amg(made, plan)
    return (guided, Checked), found


CASES = [(metric, way, "eps") for metric in ("latent", "nL2", "descriptor") for way in ("prediction", "model")]


@pytest.mark.parametrize(("metric", "way", "kind"), [*CASES, ("latent", "model", "v"), ("latent", "model", "flow")])
def test_gradient_is_the_finite_difference(
    host: Host, room: Callable, vae: Any, monkeypatch: pytest.MonkeyPatch, metric: str, way: str, kind: str
) -> None:
    (guided, checked), found = checks(room, metric, vae, way == "model", kind)
    monkeypatch.setattr(room("methods.amg.patch"), "AMGRun", checked)
    host.run({"lab": lab(BATCH, kind), "k": ksampler(model=["m", 0], positive=ORDINARY, steps=10)}, {"m": guided})
    assert len(found) == len(STEPS)
    for by_autograd, measured in found:
        assert min(by_autograd) > 1e-6
        assert measured == pytest.approx(by_autograd, rel=1e-3)
