"""Models of the host's own classes at sizes that its file detection does not know, built in this process."""

from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models as supported
import comfy.utils
import torch
from comfy.ldm.flux.model import FluxParams
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from support.families.kinds import PRECISIONS, SIZES, Family, Precision, fill, prompt
from support.graphs.features import Feature
from support.lab_pack import arch

UNET = {**arch.SMALL.unet, **SIZES["SDXL"]}
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


SDXL = family("SDXL", _fresh(supported.SDXL), UNET, **SDXL_ASKED)
SDXL_V = family("SDXL V, zero SNR", _fresh(supported.SDXL), UNET, ("v_pred", "ztsnr"), **SDXL_ASKED)
EDM = family("SDXL EDM (Playground)", _fresh(supported.SDXL), UNET, ("edm_mean", "edm_std"), **SDXL_ASKED)
SCHNELL = family("Flux, true CFG", supported.FluxSchnell, FLUX, **FLUX_ASKED)
DISTILLED = family("Flux, guidance-distilled", supported.Flux, {**FLUX, "guidance_embed": True}, **GUIDED)
CASCADE_ASKED: dict[str, Any] = {"latent": (16, 4, 6), "width": 64, "pooled": 32}
STAGE_C = family("Stable Cascade C", supported.Stable_Cascade_C, SIZES["Stable Cascade"], **CASCADE_ASKED)
VIDEO = family("Wan video (5-D)", supported.WAN21_T2V, SIZES["Wan"], latent=(16, 3, 4, 6), width=32)
FAMILIES = [SDXL, SDXL_V, EDM, SCHNELL, DISTILLED, STAGE_C, VIDEO]


def given(batch: int = 2, network: str = "Flux") -> dict[str, Any]:
    kind, config, shape = NETWORKS[network]
    prompts = {name: prompt(6, 24, seed, 16) for seed, name in enumerate(("one", "other"))}
    model = family(network, kind, config).made(PRECISIONS["fp32"])["m"]
    return {"dit": model, "dit latent": {"samples": torch.zeros(batch, *shape)}, **prompts}
