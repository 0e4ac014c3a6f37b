"""Score normalisation: is an image closer to a reference than to ordinary images? Pizzi et al., arXiv 2202.10261."""

from __future__ import annotations

from torch import Tensor

from .index import ReferenceIndex
from .reference_set import ReferenceSet

NEAREST = 3  # images of the background whose mean is subtracted
SAME_IMAGE = 0.995  # cosine


def background_similarity(queries: Tensor, background: ReferenceSet) -> Tensor:
    """Mean cosine of each query (B, D), of length 1, to the three nearest images of the background -> (B,).

    Eq. 8 is the similarity to a reference minus this, with n = 1, n_end = 3 and a weight of 1.
    """
    return ReferenceIndex(background.features, "descriptor").nearest(queries, NEAREST)[0].mean(dim=1)


def in_background(references: ReferenceSet, rows: Tensor, background: ReferenceSet) -> list[int]:
    """Which of these rows are also in the background, each once: their copies lose nearly all of their similarity."""
    once = rows.unique()
    cosines, _ = ReferenceIndex(background.features, "descriptor").nearest(references.features[once.cpu()], 1)
    return once[cosines[:, 0] > SAME_IMAGE].tolist()
