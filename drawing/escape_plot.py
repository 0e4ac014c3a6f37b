"""Draw escape curves with Pillow, on a dark canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..mitigation.escape.curve import EscapeCurve

QUANTITIES = ["pull", "guidance magnitude"]
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


def plot_curves(curves: list[EscapeCurve], quantity: str = "pull") -> Tensor:
    """IMAGE (1, H, W, 3): a line per sample over the steps, with a ring where guidance begins.

    Several curves have one colour each; a single curve has one per sample. Below the lines, a bar per sample is grey
    without CFG and in the line's colour with it. The dashed line is the threshold: a sample that starts above it is
    inside a basin.
    """
    rows = [
        _Row(values, int(begins), COLOURS[(k if len(curves) > 1 else i) % len(COLOURS)])
        for k, curve in enumerate(curves)
        for i, (values, begins) in enumerate(
            zip((curve.pull if quantity == "pull" else curve.relative).tolist(), curve.transition, strict=True)
        )
    ]
    steps = max(max(c.steps for c in curves), 2)
    threshold = curves[0].threshold if quantity == "pull" and math.isfinite(curves[0].threshold) else 0.0
    highest = max([1e-6, threshold, *(v for row in rows for _, v in row.known)]) * 1.08
    canvas = _Canvas(steps, highest, min(len(rows), MOST_BARS))
    canvas.axes(TITLES[quantity] + "    ring: guidance begins")
    if threshold:
        canvas.dashes(threshold)
    for row in rows:
        canvas.curve(row)
    for i, row in enumerate(rows[:MOST_BARS]):
        canvas.bar(i, row)
    pixels = np.asarray(canvas.image.reduce(SCALE), dtype=np.float32) / 255
    return torch.from_numpy(pixels).unsqueeze(0)


@dataclass(frozen=True)
class _Row:
    """One sample."""

    values: list[float]
    begins: int  # the step at which guidance begins
    colour: tuple[int, int, int]

    @property
    def known(self) -> list[tuple[int, float]]:
        """(step, value) of the measured steps."""
        return [(i, v) for i, v in enumerate(self.values) if math.isfinite(v)]


class _Canvas:
    def __init__(self, steps: int, highest: float, bars: int):
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
            self.pen.line([self.at(0, value), self.at(self.steps - 1, value)], fill=GRID, width=SCALE)
            x, y = self.at(0, value)
            self.pen.text((x - 8 * SCALE, y), f"{value:.3f}", fill=TEXT, font=self.small, anchor="rm")
        for step in range(0, self.steps, max(1, self.steps // 10)):
            x = self.at(step, 0)[0]
            self.pen.text((x, (HEIGHT - BOTTOM + 2) * SCALE), str(step), fill=TEXT, font=self.small, anchor="ma")
        self.pen.text((LEFT * SCALE, 16 * SCALE), title, fill=TEXT, font=self.font)
        middle = (LEFT + WIDTH - RIGHT) / 2 * SCALE
        note = "step    (bars: grey without CFG, coloured with it)"
        self.pen.text((middle, (HEIGHT - 28) * SCALE), note, fill=TEXT, font=self.small, anchor="ma")

    def dashes(self, value: float) -> None:
        (x, y), (end, _) = self.at(0, value), self.at(self.steps - 1, value)
        while x < end:
            self.pen.line([(x, y), (min(x + 8 * SCALE, end), y)], fill=(255, 255, 255), width=SCALE)
            x += 16 * SCALE

    def curve(self, row: _Row) -> None:
        points = [self.at(*known) for known in row.known]
        if len(points) > 1:
            self.pen.line(points, fill=row.colour, width=3 * SCALE, joint="curve")
        if points and row.begins < len(row.values):
            last, r = row.known[-1][0], 7 * SCALE
            x, y = self.at(row.begins, row.values[min(row.begins, last)])  # it can begin after the last measurement
            self.pen.ellipse([x - r, y - r, x + r, y + r], outline=row.colour, fill=BACK, width=3 * SCALE)

    def bar(self, number: int, row: _Row) -> None:
        y = (HEIGHT - BOTTOM - (number + 1) * BAR) * SCALE
        left, turn = self.at(0, 0)[0], self.at(min(row.begins, self.steps - 1), 0)[0]
        end = self.at(max(len(row.values) - 1, 0), 0)[0]
        height = (BAR - 2) * SCALE
        if turn > left:
            self.pen.rectangle([left, y, turn, y + height], fill=FREE)
        if end > turn:
            self.pen.rectangle([turn, y, end, y + height], fill=row.colour)
