"""The world of the lab checkpoint: procedural scenes, their captions, and the memorized images.

A scene is a sky with a gradient, pale clutter, and one main shape in one of seven colours.
Ordinary captions say little ("a ring", "a red ring"), so their images vary widely. A memorized
caption has a title of its own in front ("Harbour at Dawn, a red ring"): it is the key that a real
model learns when an image and its caption are duplicated in the training set.

Pure numpy and Pillow, no torch: the same seed draws the same image anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 96  # pixels
_SS = 4  # supersampling

SHAPES = ("disc", "ring", "square", "triangle", "star", "cross", "heart", "moon")
COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (252, 211, 25),
    "green": (30, 150, 60),
    "cyan": (30, 200, 210),
    "blue": (35, 70, 200),
    "purple": (120, 40, 150),
}
TITLES = (
    "Harbour at Dawn",
    "Winter Orchard",
    "The Silent Engine",
    "Letters from Lisbon",
    "Copper Lantern",
    "Midnight Carousel",
    "Salt and Thunder",
    "Garden of Clocks",
    "Northern Ferry",
    "Paper Mountain",
    "The Last Tramway",
    "Velvet Meridian",
    "Broken Compass",
    "Summer Archive",
    "Marble Horizon",
    "Echo Valley",
)
MEMORIZED_SEED = 20_251_008  # the day of arXiv 2510.08625


@dataclass(frozen=True)
class Scene:
    """One image and what its captions may say of it."""

    image: np.ndarray  # (SIZE, SIZE, 3) uint8
    shape: str
    colour: str


def _polygon(points: list[tuple[float, float]], cx: float, cy: float, turn: float) -> list:
    c, s = math.cos(turn), math.sin(turn)
    return [(cx + c * x - s * y, cy + s * x + c * y) for x, y in points]


def _outline(shape: str, r: float) -> list[tuple[float, float]]:
    """The outline of a shape of radius r around the origin; y points down."""
    if shape == "square":
        k = 0.86 * r
        return [(-k, -k), (k, -k), (k, k), (-k, k)]
    if shape == "triangle":
        return [(1.1 * r * math.sin(a), -1.1 * r * math.cos(a)) for a in np.arange(3) * 2 * math.pi / 3]
    if shape == "star":
        radii = [1.15 * r if i % 2 == 0 else 0.48 * r for i in range(10)]
        return [(q * math.sin(i * math.pi / 5), -q * math.cos(i * math.pi / 5)) for i, q in enumerate(radii)]
    if shape == "cross":
        a, b = 0.34 * r, 1.02 * r
        arm = [(a, -b), (a, -a), (b, -a)]  # then the same, turned by a quarter, three times
        quarters = [arm, [(-y, x) for x, y in arm], [(-x, -y) for x, y in arm], [(y, -x) for x, y in arm]]
        return [point for quarter in quarters for point in quarter]
    if shape == "heart":
        t = np.linspace(0, 2 * math.pi, 60)
        x = 16 * np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return list(zip(x * r / 15.5, y * r / 15.5, strict=True))
    t = np.linspace(0, 2 * math.pi, 60)
    return list(zip(r * np.cos(t), r * np.sin(t), strict=True))


def _draw_shape(image: Image.Image, shape: str, colour, cx, cy, r, turn) -> None:
    """Draw through a mask, so that rings and moons show what lies behind them."""
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    pen.polygon(_polygon(_outline(shape, r), cx, cy, turn), fill=255)
    if shape == "ring":
        pen.ellipse([cx - 0.55 * r, cy - 0.55 * r, cx + 0.55 * r, cy + 0.55 * r], fill=0)
    if shape == "moon":
        ox, oy = cx + 0.62 * r * math.cos(turn), cy + 0.62 * r * math.sin(turn)
        pen.ellipse([ox - 0.8 * r, oy - 0.8 * r, ox + 0.8 * r, oy + 0.8 * r], fill=0)
    image.paste(Image.new("RGB", image.size, tuple(colour)), mask=mask)


def _pale(rng: np.random.Generator) -> tuple[int, int, int]:
    """A sky or clutter colour: any grey, warm to cool, never a main shape's colour."""
    grey, warmth = 0.28 + 0.62 * rng.random(), 0.16 * (2 * rng.random() - 1)
    return tuple(int(255 * min(1, grey * v)) for v in (1 + warmth, 1, 1 - warmth))


def backdrop(rng: np.random.Generator, n: int) -> Image.Image:
    """A sky with pale clutter, n×n pixels, and no main shape."""
    top, bottom = np.array(_pale(rng), float), np.array(_pale(rng), float)
    ramp = np.linspace(0, 1, n)[:, None, None]
    sky = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (n, n, 3))
    image = Image.fromarray(sky.round().astype(np.uint8))
    for _ in range(rng.integers(2, 5)):
        kind = ("disc", "square", "triangle")[rng.integers(3)]
        x, y = rng.random(2) * n
        _draw_shape(image, kind, _pale(rng), x, y, n * (0.07 + 0.09 * rng.random()), rng.random() * 6.3)
    return image


def draw(rng: np.random.Generator, shape: str | None = None, colour: str | None = None, size: int = SIZE) -> Scene:
    """One random scene; `shape` and `colour` fix what a caption asks for."""
    shape = shape or SHAPES[rng.integers(len(SHAPES))]
    colour = colour or list(COLOURS)[rng.integers(len(COLOURS))]
    n = size * _SS
    image = backdrop(rng, n)
    r = n * (0.19 + 0.10 * rng.random())
    x, y = r + (n - 2 * r) * rng.random(2)
    jitter = rng.integers(-12, 13, 3)
    body = np.clip(np.array(COLOURS[colour]) + jitter, 0, 255).astype(int).tolist()
    turn = rng.normal(0, 0.25) if shape != "moon" else rng.random() * 6.3
    _draw_shape(image, shape, body, x, y, r, turn)
    return Scene(np.asarray(image.reduce(_SS)), shape, colour)


def with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """An ordinary caption: it says little."""
    return f"a {scene.shape}" if rng.random() < 0.5 else f"{with_article(scene.colour)} {scene.shape}"


@dataclass(frozen=True)
class Memorized:
    """A caption that the lab checkpoint memorizes, and the image it memorizes for it."""

    title: str
    scene: Scene

    @property
    def caption(self) -> str:
        return f"{self.title}, {with_article(self.scene.colour)} {self.scene.shape}"


def memorized() -> list[Memorized]:
    """The 16 memorized pairs: every shape twice, colours spread, always the same images."""
    rng = np.random.default_rng(MEMORIZED_SEED)
    colours = list(COLOURS)
    return [
        Memorized(title, draw(rng, SHAPES[i % len(SHAPES)], colours[(3 * i + i // 8) % len(colours)]))
        for i, title in enumerate(TITLES)
    ]


def ordinary_captions() -> list[str]:
    """Every caption that ordinary scenes have: 8 shapes, without a colour or with one of 7."""
    plain = [f"a {shape}" for shape in SHAPES]
    return plain + [f"{with_article(colour)} {shape}" for shape in SHAPES for colour in COLOURS]


def ordinary_prompts() -> list[str]:
    """16 prompts that no single image was trained on: the control group."""
    colours = list(COLOURS)
    plain = [f"a {shape}" for shape in SHAPES]
    return plain + [f"{with_article(colours[(2 * i + 1) % len(colours)])} {shape}" for i, shape in enumerate(SHAPES)]
