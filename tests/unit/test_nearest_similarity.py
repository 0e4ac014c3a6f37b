"""The comparison behind a copy check."""

from __future__ import annotations

import torch
from torch import Tensor

from memorization_guard.mitigation.references.features import latent_features
from memorization_guard.mitigation.references.reference_set import ReferenceSet
from memorization_guard.mitigation.references.similarity import nearest_similarity, negative_nl2


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(features: Tensor, metric: str = "latent", **more) -> ReferenceSet:
    count = len(features)
    return ReferenceSet(metric, features.half(), features.shape[1:], ("",) * count, ("",) * count, **more)


def test_one_style_is_no_copy() -> None:
    """Latents that share most of what they are: a new one of the style is near to none, a copy is."""
    style = 2 * noise(1, 64, seed=0)
    known, new = style + noise(40, 64, seed=1), style + noise(10, 64, seed=2)
    references = made(latent_features(known))
    raw = (latent_features(new) @ references.features.float().T).amax(dim=1)
    sigma, _ = nearest_similarity(references, latent_features(new))
    assert raw.min() > 0.75 and sigma.max() < 0.6
    sigma, rows = nearest_similarity(references, latent_features(known[[3, 30]] + 0.1 * noise(2, 64, seed=3)))
    assert sigma.min() > 0.95 and rows.tolist() == [3, 30]


def test_a_single_reference_is_compared_as_it_is() -> None:
    known = noise(1, 64, seed=0)
    sigma, rows = nearest_similarity(made(latent_features(known)), latent_features(3 * known + 1))
    torch.testing.assert_close(sigma, torch.ones(1), atol=1e-3, rtol=0)
    assert rows.tolist() == [0]


def test_nl2_is_equation_8_over_the_k_nearest() -> None:
    known, new = noise(60, 12, seed=0).half().float(), noise(3, 12, seed=1)
    sigma, rows = nearest_similarity(made(known, "nL2", k=7), new)
    near = torch.cdist(new, known).topk(7, largest=False)
    torch.testing.assert_close(sigma, negative_nl2(new, known[near.indices]))
    assert torch.equal(rows, near.indices[:, 0])
