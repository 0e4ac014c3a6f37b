"""Short words for prompts on the exact model: node `lab` gives MODEL, memorized, ordinary, null, LATENT."""

from __future__ import annotations

from typing import Any

Node = dict[str, Any]
MODEL, MEMORIZED, ORDINARY, NULL, LATENT = ([("lab"), i] for i in range(5))
RULE = {"rule": "sharp drop", "drop_ratio": 0.5, "memorized_threshold": 0.02}
SEED = 7


def lab(batch: int, kind: str = "eps") -> Node:
    return {"class_type": "MGLab_ExactModel", "inputs": {"parameterisation": kind, "batch_size": batch}}


def faulty(fault: str, at_call: int = 1) -> Node:
    return {"class_type": "MGLab_Faulty", "inputs": {"model": MODEL, "fault": fault, "at_call": at_call}}


def _common() -> dict[str, Any]:
    return {"model": MODEL, "positive": MEMORIZED, "negative": NULL, "latent_image": LATENT}


def ksampler(**changed: Any) -> Node:
    plan = {"seed": SEED, "steps": 50, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return {"class_type": "KSampler", "inputs": {**_common(), **plan, **changed}}


def deferred(mode: str = "dynamic", **changed: Any) -> Node:
    """The sampler with the defaults of its schema, but 50 steps at CFG 7."""
    own = {"mode": mode, "pre_escape_cfg": 0.0, "start_percent": 0.5, **RULE}
    return {"class_type": "MG_DeferredCFGKSampler", "inputs": {**ksampler()["inputs"], **own, **changed}}


def optimizer(method: str = "per-sample", **changed: Any) -> Node:
    """The optimizer with the defaults of its schema."""
    own = {
        "noise_seed": SEED,
        "method": method,
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
    return {"class_type": "MG_NoiseOptimizer", "inputs": {**_common(), **own, **changed}}


def detector(**changed: Any) -> Node:
    own = {"noise_seed": SEED, "steps": 50, "scheduler": "normal", **RULE}
    return {"class_type": "MG_BasinEscapeDetector", "inputs": {**_common(), **own, **changed}}


def references(captions: str = "") -> Node:
    """A set of the latents given as `works`."""
    return {"class_type": "MG_ReferencesFromLatents", "inputs": {"latents": ["works", 0], "captions": captions}}


def amg(**changed: Any) -> Node:
    """AMG Guidance with the defaults of its schema, on the set `refs`."""
    own = {
        "model": MODEL,
        "references": ["refs", 0],
        "despecification": 13.0,
        "deduplication": 0.0,
        "dissimilarity": 10.0,
        "threshold_min": 0.5,
        "threshold_max": 0.6,
        "threshold_schedule": "parabolic",
        "gradient": "through prediction",
    }
    return {"class_type": "MG_AMGGuidance", "inputs": {**own, **changed}}
