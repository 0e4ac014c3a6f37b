"""Duplicates inside a set: captions and pictures that occur more than once are why models memorize.

[AMG] Sec. 3 names the two causes that can be seen in the data: duplicated captions and duplicated
pictures. Near-duplicates are found on tiny pictures, so that another size, compression or brightness
does not hide them; a crop does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from .features import image_features

SIGNATURE = 16  # pixels a side
NEAR = 0.03  # root mean square difference of two signatures, in [0, 1]; see tests/unit/test_duplicates.py
MOST = 20_000  # rows whose pairs are compared: beyond it minutes, not seconds


def plain_caption(caption: str) -> str:
    """What makes two captions the same: letter case and spacing do not count."""
    return " ".join(caption.split()).casefold()


def duplicate_captions(captions: Sequence[str]) -> list[list[int]]:
    """Rows that share a caption, the largest group first; references without a caption are in none.

    A duplicated caption is the key that retrieves a memorized picture. [AMG] Sec. 4.2.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, caption in enumerate(captions):
        if caption.strip():
            groups[plain_caption(caption)].append(row)
    return sorted((g for g in groups.values() if len(g) > 1), key=len, reverse=True)


def signature(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] -> (B, 768): tiny and less their own mean brightness."""
    tiny = image_features(pictures, SIGNATURE)
    return tiny - tiny.mean(dim=1, keepdim=True)


def near_duplicates(signatures: Tensor, nearer_than: float = NEAR) -> list[list[int]]:
    """Groups of rows (N, D) connected by a root mean square difference below the bound, largest first.

    Compares every pair; raises ValueError above MOST rows.
    """
    count, dim = signatures.shape
    if count > MOST:
        raise ValueError(f"{count} pictures are too many to compare every pair (at most {MOST})")
    squared = signatures.square().sum(dim=1)
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for start in range(0, count, 1024):
        rows = signatures[start : start + 1024]
        gap = squared[start : start + 1024, None] + squared[None] - 2 * rows @ signatures.T
        for i, j in torch.nonzero(gap < dim * nearer_than**2).tolist():
            if start + i < j:
                parent[root(start + i)] = root(j)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(count):
        groups[root(i)].append(i)
    return sorted((g for g in groups.values() if len(g) > 1), key=len, reverse=True)
