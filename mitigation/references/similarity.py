"""How close a sample is to a reference: one number per sample, larger is closer. [AMG] Sec. 4.1."""

from __future__ import annotations

from collections.abc import Iterable

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


class NearestReference:
    """Finds the nearest reference of one image at a time.

    An image is the features (V, D) of all the ways in which it may be placed; its σ is the largest of them.
    Latents are compared after the set's shared mean is removed (features.py), so that a shared style does not count
    as a copy.
    """

    def __init__(self, references: ReferenceSet) -> None:
        self.references = references
        kept, self.mean = references.features, None
        if references.metric == "latent":
            self.mean = shared_mean(kept)
            kept = centre_all(kept, self.mean)
        self.index = ReferenceIndex(kept, references.metric)

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """σ to the nearest reference () float32, its row () int64, and which placement found it () int64."""
        references, mean = self.references, self.mean
        queries = features.float() if mean is None else remove_mean(mean.to(features.device), features)
        _, rows = self.index.nearest(queries, references.neighbours)
        values = similarity(references.metric, queries, self.index.take(rows), references.alpha)
        best = values.argmax()
        return values[best], rows[best, 0], best


def nearest_similarity(references: ReferenceSet, images: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """σ to the nearest reference, its row, and the placement that found it, (B,) each, of B images (V, D)."""
    find = NearestReference(references)
    sigma, nearest, placement = zip(*map(find, images), strict=True)
    return torch.stack(sigma), torch.stack(nearest), torch.stack(placement)
