"""How close finished pictures are to a set: the comparison behind a copy check."""

from __future__ import annotations

from torch import Tensor

from .centring import centre_all, remove_mean, shared_mean
from .index import ReferenceIndex
from .reference_set import ReferenceSet
from .similarity import similarity


def check(references: ReferenceSet, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, D) -> similarity σ to the nearest reference (B,) float32, and its row (B,) int64.

    Latents are compared without what all references have in common (centring.py), so that a style is
    not taken for a copy. nL2 is Eq. 8 of [AMG], negative: −1.4 and more is memorized.
    """
    kept, queries = references.features, features.float()
    if references.metric == "latent":
        common = shared_mean(kept)
        kept, queries = centre_all(kept, common), remove_mean(common.to(queries.device), queries)
    store = ReferenceIndex(kept, references.metric)
    _, rows = store.nearest(queries, references.neighbours)
    return similarity(references.metric, queries, store.take(rows), references.alpha), rows[:, 0]
