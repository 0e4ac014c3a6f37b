"""Pictures that fit no caption of the lab: its sky and clutter without a main shape, or with a blob.

A diffusion model that loses its way draws such things. The judge learns from them to say `none`.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from . import scenes

_SS = 4  # supersampling


def empty(rng: np.random.Generator) -> np.ndarray:
    """(96, 96, 3) uint8 without a main shape."""
    return np.asarray(scenes.backdrop(rng, scenes.SIZE * _SS).reduce(_SS))


def blob(rng: np.random.Generator, colour: str) -> np.ndarray:
    """(96, 96, 3) uint8: a wavy lump in a main colour, or two shapes run together."""
    n = scenes.SIZE * _SS
    image = scenes.backdrop(rng, n)
    r = n * (0.17 + 0.10 * rng.random())
    x, y = 1.2 * r + (n - 2.4 * r) * rng.random(2)
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    outlines = [_wave(rng, r)] if rng.random() < 0.6 else _pair(rng, 0.75 * r)
    for outline in outlines:
        pen.polygon([(x + a, y + b) for a, b in outline], fill=255)
    body = np.clip(np.array(scenes.COLOURS[colour]) + rng.integers(-12, 13, 3), 0, 255).astype(int).tolist()
    image.paste(Image.new("RGB", image.size, tuple(body)), mask=mask)
    return np.asarray(image.reduce(_SS))


def _wave(rng: np.random.Generator, r: float) -> list[tuple[float, float]]:
    """A closed line around the origin that is far from a circle: random waves of order 2 to 5."""
    t = np.linspace(0, 2 * math.pi, 90)
    swing = np.zeros_like(t)
    while swing.std() < 0.14:
        parts = [rng.normal(0, 0.14) * np.cos(k * t + rng.random() * 6.3) for k in range(2, 6)]
        swing = np.sum(parts, 0)
    radii = r * (1 + swing).clip(0.25)
    return list(zip(radii * np.cos(t), radii * np.sin(t), strict=True))


def _pair(rng: np.random.Generator, r: float) -> list[list[tuple[float, float]]]:
    """Two different shapes, overlapping."""
    away, turn = r * (0.8 + 0.4 * rng.random()), rng.random() * 6.3
    dx, dy = 0.5 * away * math.cos(turn), 0.5 * away * math.sin(turn)
    kinds = rng.choice(("disc", "square", "triangle", "star", "cross", "heart"), 2, replace=False)
    return [
        scenes._polygon(
            scenes._outline(str(kind), r * (0.8 + 0.3 * rng.random())), side * dx, side * dy, rng.normal(0, 0.5)
        )
        for kind, side in zip(kinds, (-1, 1), strict=True)
    ]
