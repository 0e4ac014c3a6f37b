"""Draw how the similarities of a batch are distributed, with the threshold as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .copy_comparison import BACK, CALM, FAINT, GAP, HOT, SIDE, TEXT
from .fonts import Fonts

LEAST = 8  # images: fewer are read one by one
SCALE, HEIGHT = 2, 260
BINS, NARROWEST, MOST_TICKS = 40, 1e-4, 10
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 56, 64


def histogram(values: Sequence[float], limit: float, copies: Sequence[bool], name: str) -> Tensor:
    """IMAGE (1, h, w, 3): how many images have which value, those that count as copies in red above the others.

    `name`: what the values are. They may lie on either side of `limit`.
    """
    width = 2 * SIDE + 3 * GAP
    image = Image.new("RGB", (width * SCALE, HEIGHT * SCALE), BACK)
    pen, font, small = ImageDraw.Draw(image), Fonts(20 * SCALE), Fonts(17 * SCALE)
    bins = _bins(values, limit)
    low, high = float(bins[0]), float(bins[-1])
    red = np.histogram([v for v, c in zip(values, copies, strict=True) if c], bins)[0]
    count = np.histogram(values, bins)[0]
    floor, step = HEIGHT - BOTTOM, max(math.ceil(max(count) / 4), 1)
    most = step * math.ceil(max(count) / step)

    def x(value: float) -> float:
        return (LEFT + (width - LEFT - RIGHT) * (value - low) / (high - low)) * SCALE

    def y(number: float) -> float:
        return (floor - (floor - TOP) * number / most) * SCALE

    def write(place: tuple[float, float], text: str, fonts: Fonts, anchor: str) -> None:
        words, drawn = fonts.fitted(text, (width - 2 * GAP) * SCALE)
        pen.text(place, words, fill=TEXT, font=drawn, anchor=anchor)

    for number in range(0, most + 1, step):
        pen.line([x(low), y(number), x(high), y(number)], fill=FAINT, width=SCALE)
        write((x(low) - 8 * SCALE, y(number)), str(number), small, "rm")
    for i in range(len(count)):
        sides = x(bins[i]) + SCALE, x(bins[i + 1]) - SCALE
        for start, end, colour in ((0, count[i] - red[i], CALM), (count[i] - red[i], count[i], HOT)):
            if end > start:
                pen.rectangle([sides[0], y(end), sides[1], y(start) - 1], fill=colour)
    apart = _tick(high - low)
    for tick in range(math.ceil(low / apart), math.floor(high / apart) + 1):
        write((x(tick * apart), (floor + 6) * SCALE), f"{tick * apart:.4g}".replace("-", "−"), small, "ma")
    pen.line([x(limit), (TOP - 10) * SCALE, x(limit), floor * SCALE], fill=TEXT, width=2 * SCALE)
    side = "la" if x(limit) < image.width / 2 else "ra"
    write((x(limit), (TOP - 38) * SCALE), f"threshold {limit:.2f}", font, side)
    write((image.width / 2, (HEIGHT - 32) * SCALE), f"{len(values)} images by {name}", font, "ma")
    return torch.from_numpy(np.asarray(image.reduce(SCALE), dtype=np.float32) / 255)[None]


def _bins(values: Sequence[float], limit: float) -> np.ndarray:
    """Edges of about BINS bins, one of them at the limit, so that no bin has images on both sides."""
    low, high = min(limit, *values), max(limit, *values)
    wide = max((high - low) / BINS, NARROWEST)
    return limit + wide * np.arange(math.floor((low - limit) / wide) - 1, math.ceil((high - limit) / wide) + 2)


def _tick(span: float) -> float:
    """1, 2 or 5 times a power of ten: at most MOST_TICKS of them fit into the span."""
    power = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    return next(power * step for step in (1, 2, 5, 10) if span / (power * step) <= MOST_TICKS)
