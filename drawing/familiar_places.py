"""Draw each image beside itself in grey, with the places coloured that the model knows by heart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from ..mitigation.familiarity import FamiliarityVerdict
from .copy_comparison import side_by_side
from .match_overlay import STRONGEST, coloured

RED = 4  # a place is red that adds so many times what the threshold asks of all places on average


def familiar_pictures(images: Iterable[Tensor], places: Sequence[Tensor], verdict: FamiliarityVerdict) -> Tensor:
    """IMAGE (B, h, w, 3) of images (H, W, 3) in [0, 1].

    Colours are paler the less familiar an image is, and gone at 1: some place is known best in any image.
    """
    every, (bars, mark) = list(images), verdict.bars
    most = RED * max(verdict.threshold - 1, 1e-6)
    strengths = [STRONGEST * min(max(bar / mark, 0.0), 1.0) for bar in bars]
    heats = [coloured(*one) for one in zip(every, [heat / most for heat in places], strengths, strict=True)]
    return side_by_side(every, heats, bars, mark, verdict.lines)
