"""A gradient through half precision, at the size of an image."""

import torch
from torch import Tensor, nn

from memorization_guard.mitigation.references.features import latent_features
from memorization_guard.mitigation.scaled_gradient import scaled_gradient


def climb(dtype: torch.dtype, size: float) -> Tensor:
    """Of a prediction that x moves a thousandth of the way, by a layer of this type."""
    draw = torch.Generator().manual_seed(2)
    x, rest, reference = (torch.randn(2, 4, 64, 64, generator=draw) for _ in range(3))
    x.requires_grad_()
    prediction = rest + (0.001 * x.to(dtype)).float()
    similar = (latent_features(prediction) * latent_features(reference)).sum()
    return scaled_gradient(similar, x, size)


def test_half_precision_keeps_what_it_would_lose() -> None:
    expected = climb(torch.float32, 1.0).flatten(1)
    lost, kept = (climb(torch.float16, size).flatten(1) for size in (1.0, 4 * 64 * 64))
    closeness = nn.functional.cosine_similarity
    assert closeness(lost, expected).max() < 0.995
    assert closeness(kept, expected).min() > 0.99999


def test_single_precision_is_the_same_bits() -> None:
    assert torch.equal(climb(torch.float32, 1.0), climb(torch.float32, 4 * 64 * 64))
    assert torch.equal(climb(torch.bfloat16, 1.0), climb(torch.bfloat16, 4 * 64 * 64))
