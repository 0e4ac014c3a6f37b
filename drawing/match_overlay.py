"""Colour the places of an image that match another one, or say in a picture why there is nothing to colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ..mitigation.references.match_map import MatchedPair
from .copy_comparison import BACK, FOOT, GAP, SIDE, TEXT, fitted, side_by_side
from .fonts import Fonts

WARM, HOTTEST = (250, 200, 70), (226, 60, 40)
STRONGEST = 0.75  # of the colour over the grey image


def match_pictures(
    images: Iterable[Tensor],
    pairs: Iterable[MatchedPair],
    closeness: Sequence[float],
    mark: float,
    words: Sequence[str],
) -> Tensor:
    """`side_by_side`, with what matches coloured on both, from yellow to the red of the place that adds most.

    Colours are paler the less similar the pair is: some place adds most to any similarity, also to that of no copy.
    """
    own: list[Tensor] = []
    others: list[Tensor] = []
    for image, pair in zip(images, pairs, strict=True):
        most = max(1e-6, *(float(match.max()) for match in (pair.own, pair.other) if match is not None))
        strength = STRONGEST * float(pair.own.sum().clamp(0, 1)) ** 0.5
        own.append(coloured(image, pair.own / most, strength))
        if pair.reference is not None and pair.other is not None:
            others.append(coloured(pair.reference, pair.other / most, strength))
    return side_by_side(own, others or None, closeness, mark, words)


def coloured(pixels: Tensor, heat: Tensor, strength: float) -> Tensor:
    """The image (H, W, 3) in grey, SIDE pixels large, coloured where the heat (h, w) is above 0: red at 1."""
    image = fitted(pixels)
    grey = torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)[..., None]
    size = (image.height, image.width)
    heat = F.interpolate(heat[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0, ..., None]
    heat = heat.clamp(0, 1)
    warm, hottest = (torch.tensor(colour) / 255 for colour in (WARM, HOTTEST))
    return torch.lerp(grey.expand(-1, -1, 3), torch.lerp(warm, hottest, heat), strength * heat)


def nothing_to_colour(why: str) -> Tensor:
    """IMAGE (1, h, w, 3): a grey picture with a sentence."""
    canvas = Image.new("RGB", (2 * SIDE + 3 * GAP, FOOT), BACK)
    words, font = Fonts(22).fitted(why, 2 * SIDE + GAP)
    ImageDraw.Draw(canvas).text((canvas.width / 2, FOOT / 2), words, fill=TEXT, font=font, anchor="mm")
    return torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255)[None]
