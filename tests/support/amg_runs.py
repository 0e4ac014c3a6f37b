"""AMG Guidance on the exact model, whose memorized latent is the reference."""

from __future__ import annotations

from typing import Any

from support.executor import Host
from support.graphs import lab, references
from support.lab_pack import exact

GUIDED = ["g", 0]


def works(copies: int = 1) -> dict[str, Any]:
    return {"works": {"samples": exact.x_mem().repeat(copies, 1, 1, 1)}}


def run(host: Host, given: dict[str, Any] | None = None, batch: int = 24, kind: str = "eps", **nodes: Any) -> dict:
    return host.run({"lab": lab(batch, kind), "refs": references(), **nodes}, works() | (given or {}))
