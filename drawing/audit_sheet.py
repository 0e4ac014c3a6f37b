"""Draw an audit's images that are nearest to a reference, each beside it: a sheet per LoRA, a row per strength."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..mitigation.copy_rates import PAIRS, LoraAudit, Row
from .copy_comparison import BACK, CALM, FAINT, HOT, TEXT
from .fonts import Fonts

SIDE, GAP, HEAD, LABEL, FOOT = 160, 12, 44, 170, 24
WIDTH = LABEL + PAIRS * (2 * SIDE + 2 * GAP)
HEIGHT = SIDE + FOOT + 2 * GAP  # of a row


def contact_sheets(audit: LoraAudit, thumbnails: Tensor | None, sign: float = 1.0) -> Tensor:
    """IMAGE (LoRAs, H, W, 3). `thumbnails`: the references' (N, h, w, 3) uint8. `sign`: as for `summary_lines`."""
    sheets = []
    title, label, small = Fonts(26), Fonts(20), Fonts(16)
    for lora in audit.loras:
        canvas = Image.new("RGB", (WIDTH, HEAD + HEIGHT * len(audit.strengths)), BACK)
        pen = ImageDraw.Draw(canvas)
        words, font = title.fitted(lora, WIDTH - 2 * GAP)
        pen.text((GAP, HEAD // 2 + 4), words, TEXT, font, "lm")
        for i, row in enumerate(audit.of(lora)):
            top = HEAD + HEIGHT * i
            pen.line([0, top, WIDTH, top], FAINT)
            _label(pen, row, top, label)
            for k, one in enumerate(row.worst):
                left = LABEL + k * (2 * SIDE + 2 * GAP)
                reference = None if thumbnails is None else thumbnails[one.nearest]
                for place, pixels in ((left, one.thumbnail), (left + SIDE, reference)):
                    _paste(canvas, pen, pixels, place, top + GAP)
                is_copy = one.similarity > row.limit
                if is_copy:
                    pen.rectangle([left - 2, top + GAP - 2, left + 2 * SIDE + 1, top + GAP + SIDE + 1], None, HOT, 3)
                words, font = small.fitted(f"{sign * one.similarity:.2f}  {audit.names[one.nearest]}", 2 * SIDE)
                pen.text((left, top + GAP + SIDE + FOOT // 2), words, HOT if is_copy else TEXT, font, "lm")
        sheets.append(torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255))
    return torch.stack(sheets)


def _label(pen: ImageDraw.ImageDraw, row: Row, top: int, fonts: Fonts) -> None:
    share = f"{row.copies} of {len(row.images)} copies"
    lines = ((f"strength {row.strength:g}", TEXT), (share, HOT if row.copies else CALM))
    for i, (line, colour) in enumerate(lines):
        words, font = fonts.fitted(line, LABEL - 2 * GAP)
        pen.text((GAP, top + HEIGHT // 2 - 14 + 28 * i), words, colour, font, "lm")


def _paste(canvas: Image.Image, pen: ImageDraw.ImageDraw, pixels: Tensor | None, left: int, top: int) -> None:
    if pixels is None:
        pen.rectangle([left, top, left + SIDE - 1, top + SIDE - 1], outline=FAINT)
        return
    image = Image.fromarray(pixels.numpy()).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas.paste(image, (left, top))
