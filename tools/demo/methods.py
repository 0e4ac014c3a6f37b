"""The demo's prompts for the server: one text, one batch of seeds, one method."""

from __future__ import annotations

from dataclasses import dataclass

from support import lab_strengths
from support.client import Client
from support.server_prompts import VAE, WIRES, Prompt, node, start, with_defaults

METHODS = ("no mitigation", "per-sample noise", "batch-wise + deferred", "dynamic deferral")
WITHOUT_CFG = "without CFG"
SEED = 2025
MODEL = {**WIRES, "model": ["metered", 0]}
SAMPLING = {**MODEL, "seed": SEED, "steps": 50, "cfg": 7.0, "scheduler": "normal"}


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


def prompt(server: Client, setting: Setting, text: str, method: str, run: int) -> Prompt:
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
    nodes["told"] = node("MGLab_Tell", meter=["metered", 1], after=["sample", 0], **measured)
    return with_defaults(server, nodes)


def sampled_by(method: str, setting: Setting) -> Prompt:
    """The nodes of a method; `sample` gives the latents."""
    if method == "no mitigation":
        return {"sample": node("KSampler", **SAMPLING)}
    if method == WITHOUT_CFG:
        return {"sample": node("KSampler", **{**SAMPLING, "cfg": 0.0})}
    if method == "dynamic deferral":
        strength = lab_strengths.DEFERRED if setting.for_the_lab else {}
        return {"sample": node("MG_DeferredCFGKSampler", **SAMPLING, **strength)}
    if method == "per-sample noise":
        kind, strength, mode = "per-sample", lab_strengths.PER_SAMPLE, {"mode": "off"}
    else:
        start = lab_strengths.BATCH_WISE_START if setting.for_the_lab else {"start_percent": 0.1}
        kind, strength, mode = "batch-wise", lab_strengths.BATCH_WISE, {"mode": "static", **start}
    noise = {"method": kind, **(strength if setting.for_the_lab else {})}
    return {
        "noise": node("MG_NoiseOptimizer", **MODEL, noise_seed=SEED, **noise),
        "sample": node("MG_DeferredCFGKSampler", **SAMPLING, **mode, noise=["noise", 0]),
    }
