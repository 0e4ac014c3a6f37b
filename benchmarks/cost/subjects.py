"""The models whose cost is measured: the exact model, the lab checkpoint, and UNets of real sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from support.graphs.words import Host, Node

# What the host's detection adds to its own unet_config for a checkpoint of this kind, beside the lab's.
SD15 = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "num_heads": 8,
    "num_head_channels": -1,
}
SDXL = {
    **SD15,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "num_heads": -1,
    "num_head_channels": 64,
    "num_classes": "sequential",
}
LINKS = {"model": ["m", 0], "positive": ["p", 0], "negative": ["n", 0], "latent_image": ["l", 0]}


@dataclass(frozen=True)
class Subject:
    name: str
    host: Host
    model: Any
    positive: Any
    negative: Any
    shape: tuple[int, ...]

    def latent(self, batch: int) -> dict[str, Any]:
        return {"samples": torch.zeros(batch, *self.shape)}

    def given(self, latent: dict[str, Any], model: Any = None) -> dict[str, Any]:
        return {"m": model or self.model, "p": self.positive, "n": self.negative, "l": latent}

    def run(self, node: Callable[..., Node], *args: Any, latent: dict[str, Any], model: Any = None, **inputs: Any):
        return self.host.run({"node": node(*args, **{**LINKS, **inputs})}, self.given(latent, model))["node"]


def exact_model(host: Host) -> Subject:
    from support.lab_pack import exact

    prompts = [exact.conditioning(p) for p in ("memorized", "null")]
    return Subject("exact model", host, exact.build(), *prompts, exact.SHAPE)


def lab_checkpoint(host: Host) -> Subject:
    """The lab checkpoint as the host's loader gives it, with the first of its memorized prompts."""
    from lab.scenes import memorized_captions
    from support.graphs import checkpoint
    from support.paths import LAB_CHECKPOINT

    held = checkpoint.load(host, LAB_CHECKPOINT)
    out = host.run({"p": checkpoint.text(memorized_captions()[0]), "n": checkpoint.text("")}, held)
    return Subject("lab checkpoint", host, held["m"], out["p"][0], out["n"][0], (4, 64, 64))


def random_model(host: Host, kind: str, side: int, channels: int = 320) -> Subject:
    """SD1.5 or SDXL (or a narrower one) with small random weights: its images mean nothing, its cost is real."""
    import comfy.model_management as management
    import comfy.supported_models as supported
    from comfy.model_patcher import ModelPatcher

    from support.lab_pack.arch import SMALL

    own, added, width, more = {
        "SD1.5": (supported.SD15, SD15, 768, {}),
        "SDXL": (supported.SDXL, SDXL, 2048, {"pooled_output": torch.zeros(1, 1280)}),
    }[kind]
    device = management.get_torch_device()
    draw = torch.Generator(device).manual_seed(0)
    with torch.inference_mode():
        config = own({**SMALL.unet, **own.unet_config, **added, "model_channels": channels, "dtype": torch.bfloat16})
        config.set_inference_dtype(torch.bfloat16, None)
        model = config.get_model({}, "", device=device)
        for name, weight in model.diffusion_model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5 * weight[0].numel() ** -0.5, generator=draw)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
        prompts = [[[torch.randn((1, 77, width), generator=draw, device=device).cpu(), more]] for _ in range(2)]
    patcher = ModelPatcher(model, device, management.unet_offload_device())
    name = f"{kind}, {side}×{side}" + ("" if channels == 320 else f", {channels} channels")
    return Subject(name, host, patcher, *prompts, (4, side // 8, side // 8))
