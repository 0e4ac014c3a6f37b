"""A Flux of a few thousand random weights: the host's own network of another family, as `given` objects."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.supported_models
import torch
from comfy.ldm.flux.model import FluxParams
from comfy.model_patcher import ModelPatcher

from support.graphs.features import Feature

UNET = {
    "image_model": "flux",
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 16,
    "context_in_dim": 24,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": False,
}
if "txt_ids_dims" in FluxParams.__annotations__:  # newer hosts
    UNET["txt_ids_dims"] = []
FEATURE = Feature(
    {}, {"model": ["flux", 0], "positive": ["one", 0], "negative": ["other", 0], "latent_image": ["flux latent", 0]}
)


def given(batch: int = 2) -> dict[str, Any]:
    """The model, two prompts and an empty latent."""
    draw = torch.Generator().manual_seed(6)
    with torch.inference_mode():
        config = comfy.supported_models.FluxSchnell(dict(UNET))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "")
        for name, weight in model.diffusion_model.named_parameters():
            flat = weight.ndim < 2
            weight.copy_(torch.randn(weight.shape, generator=draw) * (0.1 if flat else weight.shape[-1] ** -0.5))
            if name.endswith("scale"):
                weight.fill_(1.0)
        prompts = [
            [[torch.randn(1, 6, 24, generator=draw), {"pooled_output": torch.randn(1, 16, generator=draw)}]]
            for _ in range(2)
        ]
    management = comfy.model_management
    patcher = ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    latent = {"samples": torch.zeros(batch, 16, 8, 8)}
    return {"flux": patcher, "one": prompts[0], "other": prompts[1], "flux latent": latent}
