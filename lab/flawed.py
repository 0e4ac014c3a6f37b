"""Flawed images, as a diffusion model draws them: rough shapes, blobs, and nothing but the sky.

The judge learns from blobs and empty scenes to say `none`, and is tested on rough shapes without learning them.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from . import scenes

_SS = 4  # supersampling
_N = scenes.SIZE * _SS

Outline = list[tuple[float, float]]


def empty(rng: np.random.Generator) -> np.ndarray:
    """(96, 96, 3) uint8 without a main shape."""
    return np.asarray(scenes.backdrop(rng, _N).reduce(_SS))


def rough(rng: np.random.Generator, shape: str, colour: str) -> np.ndarray:
    """(96, 96, 3) uint8: a main shape with a wavy edge, arms and corners too thin or too fat, perhaps a patch."""
    image, r = scenes.backdrop(rng, _N), _N * (0.17 + 0.13 * rng.random())
    x, y = r + (_N - 2 * r) * rng.random(2)
    turn = rng.normal(0, 0.25) if shape != "moon" else rng.random() * 6.3
    power, wave = float(np.exp(rng.normal(0, 0.3)).clip(0.65, 1.7)), _wave(rng, 0.04)
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    circle = scenes._outline("disc", r)
    parts = [(scenes._outline(shape, r), 255)]
    if shape == "ring":
        parts.append(([(0.55 * a, 0.55 * b) for a, b in circle], 0))
    if shape == "moon":
        parts.append(([(0.62 * r + 0.8 * a, 0.8 * b) for a, b in circle], 0))
    for outline, fill in parts:
        bent = [_bend(a, b, r, power, wave) for a, b in _dense(outline)]
        pen.polygon(scenes._polygon(bent, x, y, turn), fill=fill)
    _paint(rng, image, mask, colour)
    if rng.random() < 0.3:  # a patch of another colour
        patch = Image.new("L", image.size, 0)
        angle, q = rng.random() * 6.3, r * (0.3 + 0.3 * rng.random())
        px, py = x + r * math.cos(angle), y + r * math.sin(angle)
        ImageDraw.Draw(patch).ellipse([px - q, py - q, px + q, py + q], fill=255)
        _paint(rng, image, ImageChops.multiply(mask, patch), _colour(rng))
    return np.asarray(image.reduce(_SS))


def blob(rng: np.random.Generator, colour: str) -> np.ndarray:
    """(96, 96, 3) uint8: a lump in a main colour, or two shapes run together."""
    image, r = scenes.backdrop(rng, _N), _N * (0.17 + 0.10 * rng.random())
    x, y = 1.2 * r + (_N - 2.4 * r) * rng.random(2)
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    for outline in [_lump(rng, r)] if rng.random() < 0.6 else _pair(rng, 0.75 * r):
        pen.polygon([(x + a, y + b) for a, b in outline], fill=255)
    _paint(rng, image, mask, colour)
    return np.asarray(image.reduce(_SS))


def _colour(rng: np.random.Generator) -> str:
    return list(scenes.COLOURS)[rng.integers(len(scenes.COLOURS))]


def _paint(rng: np.random.Generator, image: Image.Image, mask: Image.Image, colour: str) -> None:
    body = np.clip(np.array(scenes.COLOURS[colour]) + rng.integers(-12, 13, 3), 0, 255).astype(int).tolist()
    image.paste(Image.new("RGB", image.size, tuple(body)), mask=mask)


def _wave(rng: np.random.Generator, size: float) -> list[tuple[int, float, float]]:
    """Random waves around a circle: order 2 to 5, amplitude, phase."""
    return [(k, float(rng.normal(0, size)), float(rng.random() * 6.3)) for k in range(2, 6)]


def _swing(wave: list[tuple[int, float, float]], angle):
    return sum(a * np.cos(k * angle + phase) for k, a, phase in wave)


def _dense(outline: Outline) -> Outline:
    """Eight points for every edge."""
    ends = outline[1:] + outline[:1]
    return [
        (a + (c - a) * i / 8, b + (d - b) * i / 8)
        for (a, b), (c, d) in zip(outline, ends, strict=True)
        for i in range(8)
    ]


def _bend(a: float, b: float, r: float, power: float, wave: list[tuple[int, float, float]]) -> tuple[float, float]:
    """A point moved along its radius: a power above 1 pulls in what lies inside r, arms and sides get thin."""
    rho, angle = math.hypot(a, b) / r, math.atan2(b, a)
    far = r * min(1.15, rho**power) * (1 + _swing(wave, angle))
    return far * math.cos(angle), far * math.sin(angle)


def _lump(rng: np.random.Generator, r: float) -> Outline:
    """A closed line around the origin that is far from a circle."""
    t = np.linspace(0, 2 * math.pi, 90)
    swing = np.zeros_like(t)
    while swing.std() < 0.14:
        swing = _swing(_wave(rng, 0.14), t)
    radii = r * (1 + swing).clip(0.25)
    return list(zip(radii * np.cos(t), radii * np.sin(t), strict=True))


def _pair(rng: np.random.Generator, r: float) -> list[Outline]:
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
