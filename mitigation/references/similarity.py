"""How close a sample is to a reference: one number per sample, larger is closer. [AMG] Sec. 4.1."""

from __future__ import annotations

import torch
from torch import Tensor

from .features import centre_all, remove_mean, shared_mean
from .index import ReferenceIndex
from .reference_set import NL2_ALPHA, Metric, ReferenceSet

MEMORIZED = {"latent": 0.5, "nL2": -1.4, "descriptor": 0.5}  # σ above which a sample counts as memorized


def negative_nl2(query: Tensor, neighbours: Tensor, alpha: float = NL2_ALPHA) -> Tensor:
    """σ = −ℓ₂(x, n₀) / (α · mean of ℓ₂ to the k nearest), (B, D), (B, k, D) -> (B,). [AMG] Eq. 8.

    The k nearest include n₀ itself, which comes first, as in Carlini et al. (2301.13188, Sec. 5.1).
    """
    distance = torch.linalg.vector_norm(query[:, None] - neighbours, dim=2)
    return nl2_ratio(distance[:, :1], distance, alpha)[:, 0]


def nl2_ratio(distance: Tensor, nearest: Tensor, alpha: float = NL2_ALPHA) -> Tensor:
    """σ of Eq. 8 for distances (B, m): minus each one over α times the mean of the k nearest distances (B, k)."""
    return -distance / (alpha * nearest.mean(dim=1, keepdim=True)).clamp_min(1e-8)


def similarity(metric: Metric, query: Tensor, neighbours: Tensor, alpha: float = NL2_ALPHA) -> Tensor:
    """σ of each sample (B, D) to its nearest reference -> (B,). `neighbours`: (B, `ReferenceSet.neighbours`, D)."""
    if metric == "nL2":
        return negative_nl2(query, neighbours, alpha)
    return (query * neighbours[:, 0]).sum(dim=1)  # the cosine, because features have length 1


def nearest_similarity(references: ReferenceSet, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, D) -> σ to the nearest reference (B,) float32, and its row (B,) int64.

    Latents are compared after the set's shared mean is removed (features.py), so that a shared style does not count
    as a copy.
    """
    kept, queries = references.features, features.float()
    if references.metric == "latent":
        mean = shared_mean(kept)
        kept, queries = centre_all(kept, mean), remove_mean(mean.to(queries.device), queries)
    index = ReferenceIndex(kept, references.metric)
    _, rows = index.nearest(queries, references.neighbours)
    return similarity(references.metric, queries, index.take(rows), references.alpha), rows[:, 0]
