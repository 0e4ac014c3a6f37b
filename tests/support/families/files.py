"""Files as small as the host's detection allows, read by its loaders; models of sizes that it does not know, built."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models as supported
import comfy.utils
import torch
from comfy.ldm.flux.model import FluxParams
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from torch import Tensor

from support.families.kinds import PRECISIONS, SIZES, V_MARK, Family, Precision, fill, prompt
from support.graphs import node
from support.graphs.features import Feature
from support.lab_pack import arch
from support.paths import SMALL_CHECKPOINT

SMALL = (4, 2, 4)  # fp16 convolutions of 320 channels are slow on a CPU
PREFIX = "model.diffusion_model."
SD1_UNET = {**arch.SMALL.unet, **SIZES["SD1"]}
SD2 = {**SD1_UNET, "context_dim": 1024, "use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 64}


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


SD1 = _file("SD1.x", UNetModel, SD1_UNET, latent=SMALL)
HOLE = torch.zeros(1, 1, *SMALL[1:])
HOLE[..., 2:] = 1
PAINTED = {"concat_latent_image": torch.linspace(-1, 1, 32).view(1, *SMALL), "concat_mask": HOLE}
INPAINTING = _file("SD1.x inpainting", UNetModel, {**SD1_UNET, "in_channels": 9}, latent=SMALL, more=PAINTED)
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


SDXL_UNET = {**arch.SMALL.unet, **SIZES["SDXL"]}
FLUX = SIZES["Flux"]
if "txt_ids_dims" in FluxParams.__annotations__:  # newer hosts
    FLUX["txt_ids_dims"] = []
SDXL_ASKED: dict[str, Any] = {"width": 2048, "pooled": 1280}
FLUX_ASKED: dict[str, Any] = {"latent": (16, 4, 6), "width": 24, "pooled": 16}
GUIDED: dict[str, Any] = {**FLUX_ASKED, "cfg": 1.0, "more": {"guidance": 3.5}}
DEEPER = {**FLUX, "depth": 2, "depth_single_blocks": 2}
NETWORKS = {
    "Flux": (supported.FluxSchnell, DEEPER, (16, 8, 8)),
    "Cosmos": (supported.CosmosT2IPredict2, SIZES["Cosmos"], (16, 1, 8, 8)),
}
FEATURE = Feature(
    {}, {"model": ["dit", 0], "positive": ["one", 0], "negative": ["other", 0], "latent_image": ["dit latent", 0]}
)


def family(name: str, config_class, unet: dict[str, Any], marks: tuple[str, ...] = (), **asked: Any) -> Family:
    """A model of the host's class for this family. `marks`: keys by which its files tell their variant."""

    def build(dtype: torch.dtype, compute: torch.dtype | None = None) -> BaseModel:
        config = config_class(dict(unet))
        config.set_inference_dtype(dtype, compute)
        return config.get_model({mark: torch.ones(3) for mark in marks}, "")

    def weights() -> dict[str, Tensor]:
        held = build(torch.float32).diffusion_model.state_dict()
        fill(held.items(), 5)
        return held

    def read(file: Path, precision: Precision) -> ModelPatcher:
        device, offload = management.get_torch_device(), management.unet_offload_device()
        types = config_class(dict(unet)).supported_inference_dtypes
        cast = management.unet_manual_cast(precision.weights, device, types) if precision.compute is None else None
        made = build(precision.weights, cast).to(offload)
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)(made, device, offload)
        # With dynamic VRAM, as the host's loaders do it: the network has no weights before.
        assign = {"assign": True} if getattr(patcher, "is_dynamic", bool)() else {}
        made.diffusion_model.load_state_dict(comfy.utils.load_torch_file(str(file)), **assign)
        return patcher

    return Family(name, "built in process", weights, read, **asked)


def _fresh(config_class):
    """The host writes a variant's settings into the class: take a class that is used once."""

    def made(unet: dict[str, Any]):
        own = type(config_class.__name__, (config_class,), {"sampling_settings": dict(config_class.sampling_settings)})
        return own(unet)

    return made


SDXL = family("SDXL", _fresh(supported.SDXL), SDXL_UNET, **SDXL_ASKED)
SDXL_V = family("SDXL V, zero SNR", _fresh(supported.SDXL), SDXL_UNET, ("v_pred", "ztsnr"), **SDXL_ASKED)
EDM = family("SDXL EDM (Playground)", _fresh(supported.SDXL), SDXL_UNET, ("edm_mean", "edm_std"), **SDXL_ASKED)
SCHNELL = family("Flux, true CFG", supported.FluxSchnell, FLUX, **FLUX_ASKED)
DISTILLED = family("Flux, guidance-distilled", supported.Flux, {**FLUX, "guidance_embed": True}, **GUIDED)
CASCADE_ASKED: dict[str, Any] = {"latent": (16, 4, 6), "width": 64, "pooled": 32}
STAGE_C = family("Stable Cascade C", supported.Stable_Cascade_C, SIZES["Stable Cascade"], **CASCADE_ASKED)
VIDEO = family("Wan video (5-D)", supported.WAN21_T2V, SIZES["Wan"], latent=(16, 3, 4, 6), width=32)
BUILT = [SDXL, SDXL_V, EDM, SCHNELL, DISTILLED, STAGE_C, VIDEO]


def given(batch: int = 2, network: str = "Flux") -> dict[str, Any]:
    kind, config, shape = NETWORKS[network]
    prompts = {name: prompt(6, 24, seed, 16) for seed, name in enumerate(("one", "other"))}
    model = family(network, kind, config).made(PRECISIONS["fp32"])["m"]
    return {"dit": model, "dit latent": {"samples": torch.zeros(batch, *shape)}, **prompts}
