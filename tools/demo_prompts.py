"""The graphs of the demo in the API's format: one prompt, one batch of seeds, one method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

METHODS = ("vanilla", "per-sample noise", "batch-wise + deferred", "dynamic")
SEED = 2025
RULE = {"rule": "sharp drop", "drop_ratio": 0.5, "memorized_threshold": 0.02}


@dataclass(frozen=True)
class Setting:
    """What depends on the checkpoint: size, and the strengths that the papers scale with it."""

    checkpoint: str
    size: int
    count: int
    optimizer: dict[str, Any]
    batchwise: dict[str, Any]
    batchwise_start: float
    dynamic: dict[str, Any]

    @classmethod
    def for_lab(cls, count: int) -> Setting:
        """Strengths found on the lab checkpoint."""
        return cls(
            "lab.safetensors",
            96,
            count,
            optimizer={"target_magnitude": 0.015, "learning_rate": 0.03},
            batchwise={"sharpness_radius": 9.0, "adjustments": 4, "adjustment_strength": 2.0},
            batchwise_start=0.4,
            dynamic={"pre_escape_cfg": -1.0, "start_percent": 0.5, "memorized_threshold": 0.024},
        )

    @classmethod
    def for_own(cls, checkpoint: str, count: int, size: int = 512) -> Setting:
        """The papers' values for SD 1.4 at 512×512."""
        return cls(checkpoint, size, count, optimizer={}, batchwise={}, batchwise_start=0.1, dynamic={})


def graph(s: Setting, prompt: str, method: str, run: int) -> dict[str, Any]:
    """Node `save` holds the pictures, node `tell` what was measured."""
    common = {
        "model": ["meter", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
    }
    plan = {"seed": SEED, "steps": 50, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    deferral = {"mode": "off", "pre_escape_cfg": 0.0, "start_percent": 0.5, **RULE}
    noise = {
        "noise_seed": SEED,
        "method": "per-sample",
        "target_magnitude": 0.007,
        "target_units": "relative",
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "max_iterations": 200,
        "adjustment_strength": 0.7,
        "sharpness_radius": 50.0,
        "adjustments": 2,
        "candidates": 16,
    }
    tell: dict[str, Any] = {"meter": ["meter", 1], "after": ["sample", 0]}
    nodes: dict[str, Any] = {
        "checkpoint": _node("CheckpointLoaderSimple", ckpt_name=s.checkpoint),
        "meter": _node("MGLab_MeteredModel", model=["checkpoint", 0], run=run),
        "positive": _node("CLIPTextEncode", clip=["checkpoint", 1], text=prompt),
        "negative": _node("CLIPTextEncode", clip=["checkpoint", 1], text=""),
        "latent": _node("EmptyLatentImage", width=s.size, height=s.size, batch_size=s.count),
        "decode": _node("VAEDecode", samples=["sample", 0], vae=["checkpoint", 2]),
        "save": _node("SaveImage", images=["decode", 0], filename_prefix="demo"),
    }
    if method in ("vanilla", "without CFG"):
        nodes["sample"] = _node("KSampler", **common, **{**plan, "cfg": 7.0 if method == "vanilla" else 0.0})
    elif method == "per-sample noise":
        nodes["noise"] = _node("MG_NoiseOptimizer", **common, **{**noise, **s.optimizer})
        nodes["sample"] = _node("MG_DeferredCFGKSampler", **common, **plan, **deferral, noise=["noise", 0])
        tell["report"] = ["noise", 1]
    elif method == "batch-wise + deferred":
        nodes["noise"] = _node("MG_NoiseOptimizer", **common, **{**noise, "method": "batch-wise", **s.batchwise})
        late = {**deferral, "mode": "static", "start_percent": s.batchwise_start}
        nodes["sample"] = _node("MG_DeferredCFGKSampler", **common, **plan, **late, noise=["noise", 0])
        tell["report"] = ["noise", 1]
    else:
        nodes["sample"] = _node(
            "MG_DeferredCFGKSampler", **common, **plan, **{**deferral, "mode": "dynamic", **s.dynamic}
        )
        tell["curve"] = ["sample", 1]
    nodes["tell"] = _node("MGLab_Tell", **tell)
    return nodes


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
