"""The same weights in another precision, and other weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memorization_guard.mitigation.references.weights_fingerprint import same_weights, weights_fingerprint

SIZES = {"conv": (8, 4, 3, 3), "norm": (8,), "tiny": (99,), "one": ()}
OWN = {
    f"{part}.{name}": torch.randn(size, generator=torch.Generator().manual_seed(i)) * (1e-7 if name == "tiny" else 1)
    for part in ("encoder", "decoder")
    for i, (name, size) in enumerate(SIZES.items())
} | {"none": torch.zeros(0)}


def moved(part: str, by: float) -> dict[str, Tensor]:
    """Each weight of that part moves by that share of itself, up or down."""
    return {n: w * (1 + by * torch.randn_like(w).sign()) if n.startswith(part) else w for n, w in OWN.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("largest", [9, 1000], ids=["small ones, as dynamic VRAM", "all"])
def test_a_cast_makes_no_other_weights(dtype: torch.dtype, largest: int) -> None:
    assert same(OWN, {n: w.to(dtype) if w.numel() < largest else w for n, w in OWN.items()}) is True


def test_other_weights() -> None:
    assert same(OWN, moved("encoder", 0.01)) is False
    assert same(OWN, {n: w * 1.01 for n, w in OWN.items()}) is False
    assert same(OWN, {n: w for n, w in OWN.items() if n != "encoder.norm"}) is False
    assert same(OWN, OWN | {"encoder.norm": torch.full((8,), torch.nan)}) is False
    assert same(OWN, moved("decoder", 0.5)) is True, "as sd-vae-ft-mse: the latents are the same"


@pytest.mark.parametrize("numbers", ["", ":", ":?", ":AAAA"])
def test_an_older_hash_alone_proves_only_that_weights_are_the_same(numbers: str) -> None:
    own = weights_fingerprint(OWN)
    assert same_weights(own.partition(":")[0] + numbers, own) is True
    assert same_weights("0" * 64 + numbers, own) is None


def same(*both: dict[str, Tensor]) -> bool | None:
    return same_weights(*(weights_fingerprint(w | {"steps": torch.tensor(7)}, unused=("decoder.",)) for w in both))
