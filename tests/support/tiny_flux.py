"""A Flux of a few thousand random weights: the host's own network of another family, as `given` objects."""

from __future__ import annotations

from typing import Any

import comfy.supported_models as supported
import torch

from support.families import built
from support.families.kinds import PRECISIONS
from support.families.weights import prompt
from support.graphs.features import Feature

UNET = {**built.FLUX, "depth": 2, "depth_single_blocks": 2}
FEATURE = Feature(
    {}, {"model": ["flux", 0], "positive": ["one", 0], "negative": ["other", 0], "latent_image": ["flux latent", 0]}
)


def given(batch: int = 2) -> dict[str, Any]:
    """The model, two prompts and an empty latent."""
    prompts = {name: prompt(6, 24, seed, 16) for seed, name in enumerate(("one", "other"))}
    model = built.family("Flux", supported.FluxSchnell, UNET).made(PRECISIONS["fp32"])["m"]
    return {"flux": model, "flux latent": {"samples": torch.zeros(batch, 16, 8, 8)}, **prompts}
