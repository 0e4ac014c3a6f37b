"""Checkpoint files as small as the host's file detection allows, loaded by the host's own loaders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.ops
import comfy.sd
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from torch import Tensor

from support.families.kinds import SIZES, V_MARK, Family, Precision, fill
from support.graphs import node
from support.lab_pack import arch
from support.paths import SMALL_CHECKPOINT

SMALL = (4, 2, 4)  # fp16 convolutions of 320 channels are slow on a CPU
PREFIX = "model.diffusion_model."
UNET = {**arch.SMALL.unet, **SIZES["SD1"]}
SD2 = {**UNET, "context_dim": 1024, "use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 64}


def _file(
    name: str, kind: type[torch.nn.Module], config: dict[str, Any], marks: dict[str, Tensor] | None = None, **asked: Any
) -> Family:
    def weights() -> dict[str, Tensor]:
        network = kind(**config, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        with torch.no_grad():
            fill(network.state_dict().items(), 3)
        return {PREFIX + name: weight for name, weight in network.state_dict().items()} | (marks or {})

    return Family(name, "checkpoint file", weights, read, **asked)


def read(file: Path, precision: Precision) -> ModelPatcher:
    """As CheckpointLoaderSimple reads it, or as the host's dtype options would."""
    options = {} if precision.usual else {"model_options": {"dtype": precision.weights}}
    model = comfy.sd.load_checkpoint_guess_config(str(file), output_vae=False, output_clip=False, **options)[0]
    if precision.compute == torch.bfloat16:  # fp16 is left to the host: 320 channels of it take a CPU seconds
        model.set_model_compute_dtype(precision.compute)  # what the host's node ModelComputeDtype does
    return model


SD1 = _file("SD1.x", UNetModel, UNET, latent=SMALL)
HOLE = torch.zeros(1, 1, *SMALL[1:])
HOLE[..., 2:] = 1
PAINTED = {"concat_latent_image": torch.linspace(-1, 1, 32).view(1, *SMALL), "concat_mask": HOLE}
INPAINTING = _file("SD1.x inpainting", UNetModel, {**UNET, "in_channels": 9}, latent=SMALL, more=PAINTED)
SD2_V = _file("SD2.x V", UNetModel, SD2, {V_MARK: torch.linspace(-1, 1, 320)}, width=1024, latent=SMALL)
SD3 = _file("SD3", OpenAISignatureMMDITWrapper, SIZES["SD3"], latent=(16, 4, 6), width=64, pooled=2048)
# The only one with a VAE.
LAB = Family(
    "lab checkpoint", "checkpoint file", lambda: load_file(SMALL_CHECKPOINT), read, width=arch.SMALL.width, cfg=1.5
)
LCM, ZERO_SNR = (
    node("ModelSamplingDiscrete", model=["m", 0], sampling=sampling, zsnr=zsnr)
    for sampling, zsnr in (("lcm", False), ("v_prediction", True))
)
FAMILIES = [
    *(SD1, INPAINTING, SD2_V, SD3),
    replace(SD1, name="SD1.x, LCM sampling", patch=LCM),
    replace(SD2_V, name="SD2.x V, zero terminal SNR", patch=ZERO_SNR),
]
