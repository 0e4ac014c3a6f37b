"""Draw escape curves with what the host has: Pillow, on a dark canvas."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..mitigation.curve import EscapeCurve

WIDTH, HEIGHT = 896, 512
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 52, 56
BACK, GRID, TEXT, SHADE = (24, 26, 32), (52, 56, 66), (214, 218, 226), (36, 48, 66)
COLOURS = ((102, 194, 255), (255, 159, 92), (126, 217, 133), (240, 118, 160), (196, 160, 255), (250, 214, 96))


def plot_curves(curves: list[EscapeCurve]) -> Tensor:
    """IMAGE (1, H, W, 3): d/√dim over the steps, a line a sample, its transition marked by a ring.

    The phase without CFG (up to the latest transition) is shaded; the dashed line is the threshold
    above which the first step counts as inside a basin.
    """
    scale = 2  # drawn twice as large and reduced: smooth lines
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), BACK)
    pen = ImageDraw.Draw(image)
    steps = max(c.steps for c in curves)
    top = max([1e-6, curves[0].threshold, *(float(c.relative.nan_to_num(0).max()) for c in curves)]) * 1.08
    font, small = ImageFont.load_default(26 * scale), ImageFont.load_default(22 * scale)

    def at(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps - 1, 1)
        return x * scale, (HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top) * scale

    latest = min(max(c.latest for c in curves), steps - 1)
    if latest > 0:
        pen.rectangle([at(0, top), at(latest, 0)], fill=SHADE)
    for i in range(6):
        value = top * i / 5
        pen.line([at(0, value), at(steps - 1, value)], fill=GRID, width=scale)
        x, y = at(0, value)
        pen.text((x - 8 * scale, y), f"{value:.3f}", fill=TEXT, font=small, anchor="rm")
    for step in range(0, steps, max(1, steps // 10)):
        x, y = at(step, 0)
        pen.text((x, y + 8 * scale), str(step), fill=TEXT, font=small, anchor="ma")
    _dashed(pen, at(0, curves[0].threshold), at(steps - 1, curves[0].threshold), scale)
    number = 0
    for curve in curves:
        for row, left in zip(curve.relative.tolist(), curve.transition.tolist(), strict=True):
            colour = COLOURS[number % len(COLOURS)]
            number += 1
            points = [at(i, v) for i, v in enumerate(row) if v == v]
            if len(points) > 1:
                pen.line(points, fill=colour, width=3 * scale, joint="curve")
            if left < len(row) and row[left] == row[left]:
                x, y = at(left, row[left])
                r = 7 * scale
                pen.ellipse([x - r, y - r, x + r, y + r], outline=colour, fill=BACK, width=3 * scale)
    title = "relative guidance magnitude    ring: leaves the basin"  # the host font has no root sign
    pen.text((LEFT * scale, 16 * scale), title, fill=TEXT, font=font)
    pen.text(((LEFT + WIDTH - RIGHT) / 2 * scale, (HEIGHT - 26) * scale), "step", fill=TEXT, font=small, anchor="ma")
    pixels = np.asarray(image.reduce(scale), dtype=np.float32) / 255
    return torch.from_numpy(pixels).unsqueeze(0)


def _dashed(pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], scale: int) -> None:
    x, y = start
    while x < end[0]:
        pen.line([(x, y), (min(x + 8 * scale, end[0]), y)], fill=(255, 255, 255), width=scale)
        x += 16 * scale
