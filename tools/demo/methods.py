"""The demo's prompts for the server: one text, one batch of seeds, one method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab.copies import is_copy
from support.graphs import Prompt, Words, from_folder, node
from support.graphs.checkpoint import CLIP, VAE, WIRES, start

PLAIN, PER_SAMPLE, BATCH_WISE = "KSampler", "per-sample noise", "batch-wise + deferred"
DYNAMIC, AMG = "dynamic deferral", "AMG guidance"
METHODS = (PLAIN, PER_SAMPLE, BATCH_WISE, DYNAMIC, AMG)
SEED = 2025


@dataclass(frozen=True)
class Setting:
    """What depends on the checkpoint. `strengths`: by method, inputs that differ from the nodes' defaults."""

    checkpoint: str
    count: int
    size: int = 512
    plan: Mapping[str, Any] = field(default_factory=dict)  # steps, sampler and so on
    strengths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    start_percent: float = 0.1  # when CFG begins after batch-wise noise
    references: str = ""  # folder of the training images in the host's input directory
    is_copy: Callable[[np.ndarray, np.ndarray], bool] = is_copy


def prompt(setting: Setting, text: str, method: str, run: int, seed: int = SEED) -> Prompt:
    """Node `save` holds the images, node `told` the measurements. A new `run` keeps the server from using its cache."""
    nodes = {
        **start(text, setting.size, setting.count, setting.checkpoint),
        "metered": node("MGLab_MeteredModel", model=["checkpoint", 0], run=run),
        **sampled_by(method, setting, seed),
        "decode": node("VAEDecode", samples=["sample", 0], vae=VAE),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="demo"),
    }
    measured = {}
    if "noise" in nodes:
        measured = {"report": ["noise", 1]}
    elif method == DYNAMIC:
        measured = {"curve": ["sample", 1]}
    told = node("MGLab_Tell", meter=["metered", 1], after=["sample", 0], **measured)
    return {**nodes, "told": told}


def sampled_by(method: str, setting: Setting, seed: int) -> Prompt:
    words = Words({**WIRES, "model": ["metered", 0]}, {**setting.plan, "seed": seed})
    own = setting.strengths.get(method, {})
    if method == PLAIN:
        return {"sample": words.ksampler()}
    if method == DYNAMIC:
        return {"sample": words.deferred("dynamic", **own)}
    if method == AMG:
        references = from_folder(setting.references, setting.size, vae=VAE)
        return {"refs": references, "guided": words.amg(**own), "sample": words.ksampler(model=["guided", 0])}
    if method == PER_SAMPLE:
        kind, mode = "per-sample", {"mode": "off"}
    else:
        kind, mode = "batch-wise", {"mode": "static", "start_percent": setting.start_percent}
    return {
        "noise": words.optimizer(kind, noise_seed=seed, **own),
        "sample": words.deferred(**mode, noise=["noise", 0]),
    }


def calibration(setting: Setting, prompts: str) -> Prompt:
    """Calibrate Thresholds on these prompts; nodes `target` and `threshold` hold its suggestions as text."""
    links = {"model": ["checkpoint", 0], "clip": CLIP, "latent_image": ["latent", 0]}
    return {
        **start("", setting.size, 1, setting.checkpoint),
        "calibrate": node("MG_Calibrate", **links, **({"prompts": prompts} if prompts else {})),
        "target": node("PreviewAny", source=["calibrate", 1]),
        "threshold": node("PreviewAny", source=["calibrate", 2]),
    }
