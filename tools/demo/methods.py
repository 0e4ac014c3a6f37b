"""The graphs of the demo in the API's format: one prompt, one batch of seeds, one method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support import graphs as prompts

METHODS = ("vanilla", "per-sample noise", "batch-wise + deferred", "dynamic")
SEED = 2025


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
    common: dict[str, Any] = {
        "model": ["meter", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
    }
    common["seed"] = SEED
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
    start = {k: v for k, v in common.items() if k != "seed"} | {"noise_seed": SEED}
    if method in ("vanilla", "without CFG"):
        nodes["sample"] = prompts.ksampler(**common, cfg=7.0 if method == "vanilla" else 0.0)
    elif method == "per-sample noise":
        nodes["noise"] = prompts.optimizer(**start, **s.optimizer)
        nodes["sample"] = prompts.deferred("off", **common, noise=["noise", 0])
        tell["report"] = ["noise", 1]
    elif method == "batch-wise + deferred":
        nodes["noise"] = prompts.optimizer("batch-wise", **start, **s.batchwise)
        nodes["sample"] = prompts.deferred("static", **common, start_percent=s.batchwise_start, noise=["noise", 0])
        tell["report"] = ["noise", 1]
    else:
        nodes["sample"] = prompts.deferred("dynamic", **common, **s.dynamic)
        tell["curve"] = ["sample", 1]
    nodes["tell"] = _node("MGLab_Tell", **tell)
    return nodes


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
