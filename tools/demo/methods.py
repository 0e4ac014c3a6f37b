"""The demo's prompts for the server: one text, one batch of seeds, one method."""

from __future__ import annotations

from dataclasses import dataclass

from support import lab_strengths
from support.graphs import Prompt, Words, node
from support.server_prompts import VAE, WIRES, start

METHODS = ("no mitigation", "per-sample noise", "batch-wise + deferred", "dynamic deferral")
WITHOUT_CFG = "without CFG"
SEED = 2025
METERED = Words({**WIRES, "model": ["metered", 0]}, {"seed": SEED})


@dataclass(frozen=True)
class Setting:
    """What depends on the checkpoint. The nodes' own strengths are the papers' for SD 1.4; the lab has its own."""

    checkpoint: str
    count: int
    size: int = 512
    for_the_lab: bool = False

    @classmethod
    def for_lab(cls, count: int) -> Setting:
        return cls("lab.safetensors", count, 96, for_the_lab=True)


def prompt(setting: Setting, text: str, method: str, run: int) -> Prompt:
    """Node `save` holds the images, node `told` the measurements. A new `run` keeps the server from using its cache."""
    nodes = {
        **start(text, setting.size, setting.count, setting.checkpoint),
        "metered": node("MGLab_MeteredModel", model=["checkpoint", 0], run=run),
        **sampled_by(method, setting),
        "decode": node("VAEDecode", samples=["sample", 0], vae=VAE),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="demo"),
    }
    measured = {}
    if "noise" in nodes:
        measured = {"report": ["noise", 1]}
    elif method == "dynamic deferral":
        measured = {"curve": ["sample", 1]}
    told = node("MGLab_Tell", meter=["metered", 1], after=["sample", 0], **measured)
    return {**nodes, "told": told}


def sampled_by(method: str, setting: Setting) -> Prompt:
    """The nodes of a method; `sample` gives the latents."""
    if method == "no mitigation":
        return {"sample": METERED.ksampler()}
    if method == WITHOUT_CFG:
        return {"sample": METERED.ksampler(cfg=0.0)}
    if method == "dynamic deferral":
        return {"sample": METERED.deferred("dynamic", **(lab_strengths.DEFERRED if setting.for_the_lab else {}))}
    if method == "per-sample noise":
        kind, strength, mode = "per-sample", lab_strengths.PER_SAMPLE, {"mode": "off"}
    else:
        start = lab_strengths.BATCH_WISE_START if setting.for_the_lab else {"start_percent": 0.1}
        kind, strength, mode = "batch-wise", lab_strengths.BATCH_WISE, {"mode": "static", **start}
    return {
        "noise": METERED.optimizer(kind, noise_seed=SEED, **(strength if setting.for_the_lab else {})),
        "sample": METERED.deferred(**mode, noise=["noise", 0]),
    }
