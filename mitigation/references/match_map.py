"""Where two images match: what each place adds to their similarity. Ours; see `embedding_by_place` in sscd.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MatchedPair:
    """The match maps of an image and of its reference, (h, w) each.

    `own` sums to the similarity, `other` to the similarity to the reference's thumbnail, which is a smaller version of
    it. Without thumbnails the last two are None.
    """

    own: Tensor
    reference: Tensor | None = None  # (H, W, 3) in [0, 1]
    other: Tensor | None = None


def match_map(places: Tensor, other: Tensor) -> Tensor:
    """The cosine of an image's embedding, given by place (D, h, w), with another one (D,) of length 1 -> (h, w).

    Its sum is the cosine. The dot product of two embeddings is a sum over pairs of places, one of each image: a place
    has the sum of its pairs.
    """
    length = torch.linalg.vector_norm(places.sum(dim=(1, 2))).clamp_min(1e-8)
    return torch.einsum("dhw,d->hw", places, other) / length
