"""AMG Guidance on the exact model, whose memorized latent is the reference."""

from typing import Any

import torch

from support.executor import Host
from support.graphs import lab, references
from support.lab_pack import exact

GUIDED = ["g", 0]


def works(copies: int = 1) -> dict[str, Any]:
    return {"works": {"samples": exact.x_mem().repeat(copies, 1, 1, 1)}}


def run(host: Host, given: dict[str, Any] | None = None, batch: int = 24, kind: str = "eps", **nodes: Any) -> dict:
    return host.run({"lab": lab(batch, kind), "refs": references(), **nodes}, works() | (given or {}))


def pixel_set(host: Host, vae: Any) -> Any:
    """nL2 references: the memorized latent's image and nine others."""
    sets = host.module("memorization_guard", "mitigation.references.reference_set")
    maths = host.module("memorization_guard", "mitigation.references.features")
    noise = torch.randn(9, *exact.SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        near = vae.decode(torch.cat([exact.x_mem(), exact.x_mem() + noise])).movedim(-1, 1)
    blank = ("",) * 10
    return sets.ReferenceSet("nL2", maths.image_features(near).half(), (3, 64, 64), blank, blank, k=8)
