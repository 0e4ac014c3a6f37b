"""Draw escape curves with Pillow, on a dark canvas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..mitigation.escape.curve import EscapeCurve

WIDTH, HEIGHT = 896, 512
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 52, 56
BACK, GRID, TEXT, FREE = (24, 26, 32), (52, 56, 66), (214, 218, 226), (70, 76, 90)
COLOURS = ((102, 194, 255), (255, 159, 92), (126, 217, 133), (240, 118, 160), (196, 160, 255), (250, 214, 96))
SCALE = 2  # drawn twice as large and reduced, which smooths the lines
BAR, MOST_BARS = 6, 16  # height of a bar below the curves, and how many are drawn
TITLES = {
    "pull": "pull towards the first step's direction",
    "guidance magnitude": "relative guidance magnitude",  # the font that Pillow brings has no root sign
}
QUANTITIES = list(TITLES)


def plot_curves(curves: list[EscapeCurve], quantity: str = "pull") -> Tensor:
    """IMAGE (1, H, W, 3): a line per sample over the steps, with a ring where guidance begins.

    Several curves have one colour each; a single curve has one per sample. Below the lines, a bar per sample is grey
    without CFG and in the line's colour with it. The dashed line is the threshold: a sample that starts above it is
    inside a basin.
    """
    lines = [line for k, curve in enumerate(curves) for line in _lines(curve, quantity, k if len(curves) > 1 else None)]
    steps = max(max(c.steps for c in curves), 2)
    threshold = curves[0].threshold if quantity == "pull" and math.isfinite(curves[0].threshold) else 0.0
    highest = max([1e-6, threshold, *(v for line in lines for _, v in line.points)]) * 1.08
    canvas = _Canvas(steps, highest, min(len(lines), MOST_BARS))
    canvas.axes(TITLES[quantity] + "    ring: guidance begins")
    if threshold:
        canvas.dashes(threshold)
    for line in lines:
        canvas.curve(line)
    for i, line in enumerate(lines[:MOST_BARS]):
        canvas.bar(i, line)
    return torch.from_numpy(np.asarray(canvas.image.reduce(SCALE), dtype=np.float32) / 255)[None]


class _Line(NamedTuple):
    points: list[tuple[int, float]]  # (step, value) of the measured steps of one sample
    steps: int
    begins: int  # the step at which guidance begins; `steps` if it never does
    colour: tuple[int, int, int]


def _lines(curve: EscapeCurve, quantity: str, colour: int | None) -> Iterator[_Line]:
    values = (curve.pull if quantity == "pull" else curve.relative).tolist()
    for i, begins in enumerate(curve.transition.tolist()):
        points = [(step, v) for step, v in enumerate(values[i]) if math.isfinite(v)]
        yield _Line(points, curve.steps, begins, COLOURS[(i if colour is None else colour) % len(COLOURS)])


class _Canvas:
    def __init__(self, steps: int, highest: float, bars: int) -> None:
        self.steps, self.highest = steps, highest
        self.image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACK)
        self.pen = ImageDraw.Draw(self.image)
        self.font, self.small = ImageFont.load_default(26 * SCALE), ImageFont.load_default(22 * SCALE)
        self.floor = HEIGHT - BOTTOM - bars * BAR - 8  # where the value 0 is drawn

    def at(self, step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / (self.steps - 1)
        return x * SCALE, (self.floor - (self.floor - TOP) * max(value, 0.0) / self.highest) * SCALE

    def axes(self, title: str) -> None:
        for i in range(6):
            value = self.highest * i / 5
            left, y = self.at(0, value)
            self.pen.line([(left, y), self.at(self.steps - 1, value)], fill=GRID, width=SCALE)
            self.pen.text((left - 8 * SCALE, y), f"{value:.3f}", fill=TEXT, font=self.small, anchor="rm")
        every = max(1, self.steps // 10)
        for number in sorted({1, *range(every, self.steps + 1, every)}):  # people count steps from 1
            place = self.at(number - 1, 0)[0], (HEIGHT - BOTTOM + 2) * SCALE
            self.pen.text(place, str(number), fill=TEXT, font=self.small, anchor="ma")
        self.pen.text((LEFT * SCALE, 16 * SCALE), title, fill=TEXT, font=self.font)
        below = (LEFT + WIDTH - RIGHT) / 2 * SCALE, (HEIGHT - 28) * SCALE
        note = "step    (bars: grey without CFG, coloured with it)"
        self.pen.text(below, note, fill=TEXT, font=self.small, anchor="ma")

    def dashes(self, value: float) -> None:
        (left, y), (right, _) = self.at(0, value), self.at(self.steps - 1, value)
        for x in range(round(left), round(right), 16 * SCALE):
            self.pen.line([(x, y), (min(x + 8 * SCALE, right), y)], fill=(255, 255, 255), width=SCALE)

    def curve(self, line: _Line) -> None:
        points = [self.at(*point) for point in line.points]
        if len(points) > 1:
            self.pen.line(points, fill=line.colour, width=3 * SCALE, joint="curve")
        if points and line.begins < line.steps:  # guidance can begin after the last measurement
            _, value = min(line.points, key=lambda point: abs(point[0] - line.begins))
            (x, y), r = self.at(line.begins, value), 7 * SCALE
            self.pen.ellipse([x - r, y - r, x + r, y + r], outline=line.colour, fill=BACK, width=3 * SCALE)

    def bar(self, number: int, line: _Line) -> None:
        y = (HEIGHT - BOTTOM - (number + 1) * BAR) * SCALE
        ends = 0, min(line.begins, self.steps - 1), max(line.steps - 1, 0)
        start, turn, end = (self.at(step, 0)[0] for step in ends)
        for left, right, colour in ((start, turn, FREE), (turn, end, line.colour)):
            if right > left:
                self.pen.rectangle([left, y, right, y + (BAR - 2) * SCALE], fill=colour)
