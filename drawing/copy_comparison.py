"""Draw each image beside its nearest reference, with a bar that shows how close they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .fonts import Fonts

SIDE, GAP, FOOT = 384, 12, 84
BACK, TEXT, FAINT = (24, 26, 32), (230, 233, 240), (90, 95, 108)
CALM, HOT = (74, 158, 116), (226, 88, 76)


def side_by_side(
    images: Iterable[Tensor],
    nearest: Sequence[Tensor] | Tensor | None,
    closeness: Sequence[float],
    mark: float,
    words: Sequence[str],
) -> Tensor:
    """IMAGE (B, h, w, 3) of images (H, W, 3) and their references, of any size, both in [0, 1].

    closeness: 0 … 1 of the bar, one per image; above `mark` it is red. words: a line under each.
    """
    drawn, fonts = [], Fonts(22)
    for i, image in enumerate(images):
        canvas = Image.new("RGB", (2 * SIDE + 3 * GAP, SIDE + 2 * GAP + FOOT), BACK)
        pen = ImageDraw.Draw(canvas)
        _paste(canvas, image, GAP)
        if nearest is None:
            pen.rectangle([2 * GAP + SIDE, GAP, 2 * (GAP + SIDE), GAP + SIDE], outline=FAINT)
            none, font = fonts.fitted("no thumbnail kept", SIDE)
            pen.text((2 * GAP + 1.5 * SIDE, GAP + SIDE / 2), none, fill=FAINT, font=font, anchor="mm")
        else:
            _paste(canvas, nearest[i], 2 * GAP + SIDE)
        _bar(pen, closeness[i], mark)
        line, font = fonts.fitted(words[i], 2 * SIDE + GAP)
        pen.text((GAP, SIDE + GAP + 44), line, fill=TEXT, font=font)
        drawn.append(torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255))
    return torch.stack(drawn)


def fitted(pixels: Tensor) -> Image.Image:
    """The image (H, W, 3) in [0, 1], with a longer side of SIDE."""
    image = Image.fromarray((pixels.float().clamp(0, 1) * 255).round().byte().cpu().numpy())
    width, height = (max(round(side * SIDE / max(image.size)), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _paste(canvas: Image.Image, pixels: Tensor, left: int) -> None:
    image = fitted(pixels)
    canvas.paste(image, (left + (SIDE - image.width) // 2, GAP + (SIDE - image.height) // 2))


def _bar(pen: ImageDraw.ImageDraw, closeness: float, mark: float) -> None:
    top, width = SIDE + 2 * GAP + 2, 2 * SIDE + GAP
    end, at = (GAP + min(max(value, 0.0), 1.0) * width for value in (closeness, mark))
    pen.rectangle([GAP, top, GAP + width, top + 20], fill=FAINT)
    pen.rectangle([GAP, top, end, top + 20], fill=HOT if closeness > mark else CALM)
    pen.line([at, top - 4, at, top + 24], fill=TEXT, width=3)
