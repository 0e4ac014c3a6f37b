"""Transformers of a few thousand random weights: the host's own networks of other families, as `given` objects."""

from typing import Any

import comfy.supported_models as supported
import torch

from support.families import built
from support.families.kinds import PRECISIONS
from support.families.weights import prompt
from support.graphs.features import Feature

UNET = {**built.FLUX, "depth": 2, "depth_single_blocks": 2}
COSMOS = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "crossattn_emb_channels": 24,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 2,
    "num_heads": 2,
    "rope_enable_fps_modulation": False,
}
NETWORKS = {
    "Flux": (supported.FluxSchnell, UNET, (16, 8, 8)),
    "Cosmos": (supported.CosmosT2IPredict2, COSMOS, (16, 1, 8, 8)),
}
FEATURE = Feature(
    {}, {"model": ["dit", 0], "positive": ["one", 0], "negative": ["other", 0], "latent_image": ["dit latent", 0]}
)


def given(batch: int = 2, network: str = "Flux") -> dict[str, Any]:
    """The model, two prompts and an empty latent."""
    kind, config, shape = NETWORKS[network]
    prompts = {name: prompt(6, 24, seed, 16) for seed, name in enumerate(("one", "other"))}
    model = built.family(network, kind, config).made(PRECISIONS["fp32"])["m"]
    return {"dit": model, "dit latent": {"samples": torch.zeros(batch, *shape)}, **prompts}
