"""Prompts on the exact model: node `lab` gives MODEL, memorized, ordinary, null, LATENT."""

from typing import Any

from support.graphs.words import SEED, Link, Node, Prompt, Words, defaults, node

__all__ = ["SEED", "Link", "Node", "Prompt", "Words", "defaults", "node"]
MODEL, MEMORIZED, ORDINARY, NULL, LATENT = ([("lab"), i] for i in range(5))
EXACT = Words({"model": MODEL, "positive": MEMORIZED, "negative": NULL, "latent_image": LATENT})
ksampler, deferred, patch, guider = EXACT.ksampler, EXACT.deferred, EXACT.patch, EXACT.guider
optimizer, detector, calibrate, amg = EXACT.optimizer, EXACT.detector, EXACT.calibrate, EXACT.amg
stage, custom = EXACT.stage, EXACT.custom
RULE = {name: defaults("MG_DeferredCFG")[name] for name in ("rule", "drop_ratio", "memorized_threshold")}


def lab(batch: int, kind: str = "eps") -> Node:
    return node("MGLab_ExactModel", parameterisation=kind, batch_size=batch)


def faulty(fault: str, at_call: int = 1) -> Node:
    return node("MGLab_MeteredModel", model=MODEL, fault=fault, at_call=at_call)


def references(captions: str = "", latents: str = "works") -> Node:
    return node("MG_ReferencesFromLatents", latents=[latents, 0], captions=captions)


def from_images(metric: str = "latent", **changed: Any) -> Node:
    """A set of the images given as `i`; the metric's network is given as `vae` or `descriptor`."""
    needs = {"latent": ["vae"], "descriptor": ["descriptor"], "nL2": []}[metric]
    own = {"images": ["i", 0], "metric": metric, **{name: [name, 0] for name in needs}}
    return node("MG_ReferencesFromImages", **{**own, **changed})


def from_folder(folder: str, size: int = 96, **changed: Any) -> Node:
    """A set of latents of a folder's images; `vae` is given."""
    own = {"folder": folder, "width": size, "height": size, "vae": ["vae", 0]}
    return node("MG_ReferencesFromFolder", **{**own, **changed})


def check(references: str = "refs", **changed: Any) -> Node:
    return node("MG_CopyCheck", **{"images": ["i", 0], "references": [references, 0], **changed})


def keep(references: str, name: str) -> Node:
    return node("MG_SaveReferences", references=[references, 0], name=name, overwrite=True)
