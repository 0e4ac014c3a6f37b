"""The same weights in another precision, and other weights."""

import pytest
import torch
from torch import Tensor

from memorization_guard.mitigation.references.weights_fingerprint import same_weights, weights_fingerprint

SIZES = {"conv": (8, 4, 3, 3), "norm": (8,), "tiny": (99,), "one": (), "none": (0,)}
OWN = {
    name: torch.randn(size, generator=torch.Generator().manual_seed(1)) * (1e-7 if name == "tiny" else 1)
    for name, size in SIZES.items()
}


def same(other: dict[str, Tensor]) -> bool | None:
    return same_weights(*(weights_fingerprint(w | {"steps": torch.tensor(7)}) for w in (OWN, other)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("largest", [9, 1000], ids=["small ones, as dynamic VRAM", "all"])
def test_a_cast_makes_no_other_weights(dtype: torch.dtype, largest: int) -> None:
    from_half = {n: w.half() for n, w in OWN.items()}
    assert same({n: w.to(dtype) if w.numel() < largest else w for n, w in from_half.items()}) is True


def test_other_weights() -> None:
    assert same({n: w * 1.01 for n, w in OWN.items()}) is False
    assert same({n: w for n, w in OWN.items() if n != "norm"}) is False
    assert same(OWN | {"norm": torch.full((8,), torch.nan)}) is False


@pytest.mark.parametrize("numbers", ["", ":", ":?", ":AAAA"])
def test_an_older_hash_alone_proves_only_that_weights_are_the_same(numbers: str) -> None:
    own = weights_fingerprint(OWN)
    assert same_weights(own.partition(":")[0] + numbers, own) is True
    assert same_weights("0" * 64 + numbers, own) is None
