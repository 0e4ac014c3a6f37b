"""Where a copy lies: an image that is moved by a few pixels, or mirrored, is a copy of the same image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SHIFT = 0.06  # of a side
MOST_STEPS = 4  # to each side, so that large features have no more places than small ones


def moved(features: Tensor) -> Tensor:
    """(..., H, W) -> (places, ..., H, W): moved by up to 6 % of each side, with the border repeated."""
    *leading, high, wide = features.shape
    reach = [round(LARGEST_SHIFT * side) for side in (high, wide)]
    padding = (reach[1], reach[1], reach[0], reach[0])
    padded = F.pad(features.reshape(1, -1, high, wide), padding, mode="replicate")[0]
    places = [padded[:, top : top + high, left : left + wide] for top in _steps(reach[0]) for left in _steps(reach[1])]
    return torch.stack(places).view(-1, *leading, high, wide)


def _steps(reach: int) -> list[int]:
    step = max(-(-reach // MOST_STEPS), 1)
    return sorted({*range(reach, 2 * reach + 1, step), *range(reach, -1, -step)})
