"""Checkpoint files as small as the host's file detection allows, loaded by the host's own loaders.

SD1.x and SD2.x are told by 320 channels and the width of their text, SD3 by its blocks: everything else
about them may be small.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import comfy.ops
import comfy.sd
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from torch import Tensor

from support.executor import Host
from support.families.kinds import Family, Precision
from support.families.weights import fill
from support.graphs import node
from support.lab_pack import arch

SMALL = (4, 2, 4)  # fp16 convolutions of 320 channels are slow on a CPU
PREFIX = "model.diffusion_model."
UNET = {
    **arch.UNET,
    "model_channels": 320,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 0],
    "transformer_depth_middle": -2,
    "context_dim": 768,
    "num_heads": 8,
}
SD2 = {**UNET, "context_dim": 1024, "use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 64}
# The host takes an SD2 file for a V model by the spread of this one weight, which our file has no block for.
V_MARK = PREFIX + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
MMDIT = {
    "patch_size": 2,
    "in_channels": 16,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": 2048,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 128}},
    "num_patches": 64,
    "pos_embed_max_size": 8,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
}


def weights(kind: type[torch.nn.Module], config: dict[str, Any]) -> dict[str, Tensor]:
    network = kind(**config, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    with torch.no_grad():
        fill(network.state_dict().items(), 3)
    return {PREFIX + name: weight for name, weight in network.state_dict().items()}


def loaded(host: Host, name: str, weights: dict[str, Tensor], precision: Precision) -> ModelPatcher:
    """Write the checkpoint, and read it with CheckpointLoaderSimple, or as the host's dtype options would."""
    folder = host.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}_{precision.name}.safetensors"
    # The host takes the spread of the V mark, which it cannot do in eight bits.
    save_file({k: v if k == V_MARK else v.to(precision.weights) for k, v in weights.items()}, file)
    try:
        if precision.weights == torch.float32:
            return host.run({"loader": node("CheckpointLoaderSimple", ckpt_name=file.name)})["loader"][0]
        with torch.inference_mode():
            options = {"output_vae": False, "output_clip": False, "model_options": {"dtype": precision.weights}}
            model = comfy.sd.load_checkpoint_guess_config(str(file), **options)[0]
        if precision.compute == torch.bfloat16:  # fp16 is left to the host: 320 channels of it take a CPU seconds
            model.set_model_compute_dtype(precision.compute)  # what the host's node ModelComputeDtype does
        return model
    finally:
        gc.collect()
        file.unlink()


def _file(
    name: str, kind: type[torch.nn.Module], config: dict[str, Any], marks: dict[str, Tensor] | None = None, **asked: Any
) -> Family:
    def make(host: Host, precision: Precision) -> ModelPatcher:
        return loaded(host, name.replace(" ", "_"), weights(kind, config) | (marks or {}), precision)

    return Family(name, "checkpoint file", make, **asked)


SD1 = _file("SD1.x", UNetModel, UNET, latent=SMALL)
HOLE = torch.zeros(1, 1, *SMALL[1:])
HOLE[..., 2:] = 1
PAINTED = {"concat_latent_image": torch.linspace(-1, 1, 32).view(1, *SMALL), "concat_mask": HOLE}
INPAINTING = _file("SD1.x inpainting", UNetModel, {**UNET, "in_channels": 9}, latent=SMALL, more=PAINTED)
SD2_V = _file("SD2.x V", UNetModel, SD2, {V_MARK: torch.linspace(-1, 1, 320)}, width=1024, latent=SMALL)
SD3 = _file("SD3", OpenAISignatureMMDITWrapper, MMDIT, latent=(16, 4, 6), width=64, pooled=2048)
LCM, ZERO_SNR = (
    node("ModelSamplingDiscrete", model=["m", 0], sampling=sampling, zsnr=zsnr)
    for sampling, zsnr in (("lcm", False), ("v_prediction", True))
)
FAMILIES = [
    *(SD1, INPAINTING, SD2_V, SD3),
    replace(SD1, name="SD1.x, LCM sampling", patch=LCM),
    replace(SD2_V, name="SD2.x V, zero terminal SNR", patch=ZERO_SNR),
]
