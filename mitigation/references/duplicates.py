"""Duplicates inside a set: captions and images that occur more than once are why models memorize.

[AMG] Sec. 3 names the two causes that are visible in the data: duplicated captions and duplicated images.
Near-duplicates are compared as tiny images, so another size, compression or brightness does not hide them; a crop does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .features import image_features

TINY_SIDE = 16  # pixels
NEAR = 0.03  # root mean square difference of two tiny images in [0, 1]; see tests/unit/test_duplicates.py
ROWS = 256  # compared with all others at a time


def duplicate_captions(captions: Sequence[str]) -> list[list[int]]:
    """Rows that share a caption, the largest group first; letter case and spacing do not count, nor do empty captions.

    A duplicated caption is the key that retrieves a memorized image. [AMG] Sec. 4.2.
    """
    plain = [" ".join(caption.split()).casefold() for caption in captions]
    return [group for group in _groups(plain) if plain[group[0]]]


def duplicate_features(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> (B, 768) for `near_duplicates`: tiny images minus their own mean brightness."""
    tiny = image_features(images, TINY_SIDE)
    return tiny - tiny.mean(dim=1, keepdim=True)


def near_duplicates(
    features: Tensor, nearer_than: float = NEAR, on_block: Callable[[], object] = lambda: None
) -> list[list[int]]:
    """Groups of rows (N, D) connected by a root mean square difference below the bound, the largest first.

    Identical rows are one row; of the others every pair is compared. `on_block` is called between blocks and may raise.
    """
    unique, place = torch.unique(features, dim=0, return_inverse=True)
    count, dim = unique.shape
    squared = unique.square().sum(dim=1)
    labels = np.arange(count)
    for start in range(0, count, ROWS):
        on_block()
        rows = unique[start : start + ROWS]
        gap = squared[start : start + ROWS, None] + squared[None] - 2 * rows @ unique.T
        i, j = torch.nonzero((gap < dim * nearer_than**2).triu(start + 1)).T.numpy()  # each pair once
        # Joined block by block: the pairs of thousands of frames that are all alike would fill the memory.
        edges = (np.ones(len(i), bool), (labels[i + start], labels[j]))
        labels = connected_components(coo_array(edges, shape=(count, count)))[1][labels]
    return _groups(labels[place.numpy()].tolist())


def _groups(labels: Iterable[Hashable]) -> list[list[int]]:
    """The positions of every label that occurs more than once, the largest group first."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        groups[label].append(position)
    return sorted((g for g in groups.values() if len(g) > 1), key=len, reverse=True)
