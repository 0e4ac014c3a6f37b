"""A node that asks the pack's probe for d, its gradient, and what d really does along random directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import nodes
from support.executor import AnyType, Host
from support.graphs import SEED, node
from support.graphs.checkpoint import detector
from support.graphs.features import Feature

PACK = "memorization_guard"
STEP, DIRECTIONS = 0.02, 3


@dataclass(frozen=True)
class Gradient:
    d: Tensor  # (B,) at the drawn noise, without a graph
    gradient: Tensor  # (B, C, H, W)
    along: Tensor  # (DIRECTIONS, B) the gradient along each direction
    measured: Tensor  # (DIRECTIONS, B) central differences of d without a graph

    @property
    def error(self) -> float:
        """Largest disagreement, as a share of the gradient's norm (a direction is N(0, I), so that is its scale)."""
        return float(((self.along - self.measured).abs() / self.gradient.flatten(1).norm(dim=1)).max())


class Measure:
    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "run"
    host: Host

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"}
        return {
            "required": {**{k: (v,) for k, v in kinds.items()}, "checkpoints": ("STRING", {})},
            "optional": {"null": ("CONDITIONING",)},
        }

    def run(self, model, positive, negative, latent_image, checkpoints, null=None) -> tuple[Gradient]:
        of = lambda name: self.host.module(PACK, name)  # noqa: E731
        magnitude, samples = of("mitigation.prediction").guidance_magnitude, latent_image["samples"]

        def body(pair, noise: Tensor) -> Gradient:
            d = lambda x: magnitude(pair.prediction(x))  # noqa: E731

            def descend() -> Tensor:
                x = noise.clone().requires_grad_()
                return torch.autograd.grad(d(x).sum(), x)[0]

            gradient = pair.with_gradients(descend, checkpoints)
            draw = torch.Generator().manual_seed(5)
            ways = [torch.randn(noise.shape, generator=draw) for _ in range(DIRECTIONS)]
            along = torch.stack([(gradient * v).flatten(1).sum(1) for v in ways])
            measured = torch.stack([(d(noise + STEP * v) - d(noise - STEP * v)) / (2 * STEP) for v in ways])
            return Gradient(d(noise), gradient, along, measured)

        drawn = of("adapter.noise").drawn_noise(samples, SEED, latent_image.get("batch_index"))
        inputs = of("adapter.sampling").SamplingInputs(
            model=model,
            positive=positive,
            negative=negative,
            null=null,
            latent=latent_image,
            noise=drawn,
            sigmas=of("adapter.schedule").one_step_schedule(model, None, "test"),
            seed=SEED,
            node="test",
        )
        return (of("adapter.two_predictions").run_in_sampling_scope(body, inputs),)


def gradients(
    host: Host, feature: Feature, checkpoint: dict[str, Any], checkpoints: str = "off"
) -> tuple[Gradient, Tensor]:
    """The gradient under `feature`, and d (B,) as the detector measures it in its first step."""
    Measure.host = host
    nodes.NODE_CLASS_MAPPINGS["MGTest_Gradient"] = Measure
    links = {k: v for k, v in feature.inputs().items() if k != "denoise"}
    prompt = feature.prompt(
        gradient=node("MGTest_Gradient", checkpoints=checkpoints, **links), watch=detector(**links, steps=2)
    )
    out = host.run(prompt, feature.given(checkpoint))
    return out["gradient"][0], out["watch"][3].d[:, 0]
