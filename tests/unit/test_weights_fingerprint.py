"""The same weights in another precision, and other weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memorization_guard.mitigation.references.weights_fingerprint import same_weights, weights_fingerprint

Weights = dict[str, Tensor]
DRAW = torch.Generator().manual_seed(0)
OWN: Weights = {
    f"{part}.{name}": scale * torch.randn(shape, generator=DRAW)
    for part in ("encoder", "decoder")
    for name, shape, scale in (
        ("conv", (8, 4, 3, 3), 0.1),
        ("norm", (8,), 1.0),
        ("tiny", (99,), 1e-7),
        ("one", (), 1.0),
    )
} | {"none": torch.zeros(0)}
COUNT = {"steps": torch.tensor(7)}  # a number that no cast changes


def changed(**parts: float) -> Weights:
    """`part=0.01`: each weight of that part moves by 1 % of itself, up or down."""
    moved = {n: parts.get(n.partition(".")[0], 0) * torch.randn(w.shape, generator=DRAW).sign() for n, w in OWN.items()}
    return {n: w * (1 + moved[n]) for n, w in OWN.items()}


def same(other: Weights) -> bool | None:
    return same_weights(*(weights_fingerprint(w | COUNT, unused=("decoder.",)) for w in (OWN, other)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_cast_makes_no_other_weights(dtype: torch.dtype) -> None:
    assert same({n: w.to(dtype) for n, w in OWN.items()}) is True
    under_dynamic_vram = {n: w.to(dtype) if w.numel() < 9 else w for n, w in OWN.items()}
    assert same(under_dynamic_vram) is True


def test_other_weights() -> None:
    assert same(changed(encoder=0.01)) is False
    assert same({n: w * 1.01 for n, w in OWN.items()}) is False
    assert same({n: w for n, w in OWN.items() if n != "encoder.norm"}) is False
    assert same(OWN | {"encoder.norm": torch.full((8,), torch.nan)}) is False
    assert same(changed(decoder=0.5)) is True, "as sd-vae-ft-mse: the latents are the same"


@pytest.mark.parametrize("numbers", ["", ":", ":?", ":AAAA", ":AAAAAA=="])
def test_an_older_hash_alone_proves_only_that_weights_are_the_same(numbers: str) -> None:
    own = weights_fingerprint(OWN)
    assert same_weights(own.partition(":")[0] + numbers, own) is True
    assert same_weights("0" * 64 + numbers, own) is None
