"""What came of a run: samples, copies, or one sentence that refuses it."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from support.executor import Host, NodeError, Prompt
from support.graphs import lab, references
from support.lab_pack import exact


def samples(output: list[Any]) -> Tensor:
    return output[0]["samples"]


def copies(output: list[Any]) -> float:
    return float(exact.is_copy(output[0]).float().mean())


def same_bits(*outputs: list[Any]) -> bool:
    return all(torch.equal(samples(output), samples(outputs[0])) for output in outputs[1:])


def fails(host: Host, prompt: Prompt, given: Mapping[str, Any] | None = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        host.run(prompt, given)
    return caught.value


def refused(host: Host, prompt: Prompt, given: Mapping[str, Any] | None = None) -> str:
    error = fails(host, prompt, given)
    assert error.kind.endswith("GuardError"), error
    return error.message


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
