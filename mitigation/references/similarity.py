"""How close a prediction is to a reference: the three metrics of [AMG], differentiable, in float32.

Features are what is compared (B, D); a similarity is one number a sample, larger is closer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference_set import NL2_ALPHA, NL2_SIZE, Descriptor, Metric

MEMORIZED = {"latent": 0.5, "nL2": -1.4, "descriptor": 0.5}  # σ above which a sample counts as memorized


def unit(rows: Tensor) -> Tensor:
    """Rows (B, D) at length 1; a row of zeros stays zero and has no gradient."""
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-8)


def latent_features(latents: Tensor) -> Tensor:
    """(B, C, H, W), or any (B, ...) -> (B, D): less the mean of all elements of a sample, at length 1.

    Their inner product is the correlation of two latents: the same under x -> a·x + b with a > 0, so
    a VAE's scaling factor does not matter. Latents as a VAE gives them: of a model whose own scaling
    differs by channel, convert the prediction back first.
    """
    rows = latents.float().flatten(1)
    return unit(rows - rows.mean(dim=1, keepdim=True))


def image_features(pictures: Tensor, size: int = NL2_SIZE) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] -> (B, 3·size²): squeezed to a square, averaged over areas."""
    small = F.interpolate(pictures.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.flatten(1)


def descriptor_features(pictures: Tensor, descriptor: Descriptor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] -> embeddings (B, D) at length 1. [AMG] Sec. 4.1, object level."""
    return unit(descriptor(pictures.float()).float().flatten(1))


def cosine(query: Tensor, reference: Tensor) -> Tensor:
    """Inner product of two sets of rows of length 1: (B, D), (B, D) -> (B,)."""
    return (query * reference).sum(dim=1)


def negative_nl2(query: Tensor, neighbours: Tensor, alpha: float = NL2_ALPHA) -> Tensor:
    """[AMG] Eq. 8: σ = −ℓ₂(x, n₀) / (α · mean of ℓ₂ to the k nearest), (B, D), (B, k, D) -> (B,).

    `neighbours`: the k nearest, the nearest of all first; it is one of the k, as in Carlini et al.
    (2301.13188, Sec. 5.1). −σ < 1.4 is memorized. The gradient passes through both distances.
    """
    distance = torch.linalg.vector_norm(query[:, None] - neighbours, dim=2)
    return -distance[:, 0] / (alpha * distance.mean(dim=1)).clamp_min(1e-8)


def similarity(metric: Metric, query: Tensor, neighbours: Tensor, alpha: float = NL2_ALPHA) -> Tensor:
    """σ of each sample to its nearest reference: features (B, D), its neighbours (B, k, D) -> (B,).

    k may be 1 but for nL2; see `ReferenceSet.neighbours`.
    """
    if metric == "nL2":
        return negative_nl2(query, neighbours, alpha)
    return cosine(query, neighbours[:, 0])
