"""Draw the share of copies over the LoRAs, such as the epochs of one training, or over the strength."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..mitigation.copy_rates import LoraAudit, Row
from .escape_plot import BACK, COLOURS, GRID, HEIGHT, SCALE, TEXT, WIDTH
from .fonts import Fonts

LEFT, RIGHT, TOP, BOTTOM = 84, 40, 92, 76
LEGEND = 150  # pixels of a strength's name
APART = 5  # pixels between points that would hide each other


def short_names(names: Sequence[str]) -> list[str]:
    """What tells the files apart, such as their epochs."""
    stems = [str(PurePosixPath(name.replace("\\", "/")).with_suffix("")) for name in names]
    shared = len(os.path.commonprefix(stems).rstrip("0123456789")) if len(stems) > 1 else 0
    ends = [stem[shared:].lstrip("-_ .") for stem in stems]
    return [str(int(end)) if end.isdecimal() else end or stem for end, stem in zip(ends, stems, strict=True)]


def plot_audit(audit: LoraAudit) -> Tensor:
    """IMAGE (1, H, W, 3): the share of copies with its interval of 95 %.

    With several LoRAs they lie along the axis, and each strength is a line; else the strengths lie along it.
    """
    if len(audit.loras) > 1:
        ticks, axis = short_names(audit.loras), "LoRA"
        lines = {f"strength {s:g}": [r for r in audit.rows if r.strength == s] for s in audit.strengths}
    else:
        ticks, axis = [f"{strength:g}" for strength in audit.strengths], f"strength of {short_names(audit.loras)[0]}"
        lines = {"": audit.rows}
    plot = _Plot(ticks)
    plot.axes(axis)
    for i, (name, rows) in enumerate(lines.items()):
        plot.line(rows, COLOURS[i % len(COLOURS)], APART * (i - (len(lines) - 1) / 2), name, i)
    return torch.from_numpy(np.asarray(plot.image.reduce(SCALE), dtype=np.float32) / 255)[None]


class _Plot:
    def __init__(self, ticks: Sequence[str]) -> None:
        self.ticks = ticks
        self.image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACK)
        self.pen = ImageDraw.Draw(self.image)
        self.large, self.small = Fonts(26 * SCALE), Fonts(20 * SCALE)
        self.pitch = (WIDTH - LEFT - RIGHT) / len(ticks)

    def at(self, column: float, share: float) -> tuple[float, float]:
        x = LEFT + self.pitch * (column + 0.5)
        return x * SCALE, (HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share) * SCALE

    def axes(self, axis: str) -> None:
        self.text(LEFT, 24, "share of images that may be copies, with 95 % intervals", self.large, "lm", WIDTH - LEFT)
        for i in range(6):
            y = self.at(0, i / 5)[1]
            self.pen.line([LEFT * SCALE, y, (WIDTH - RIGHT) * SCALE, y], GRID, SCALE)
            self.text(LEFT - 8, y / SCALE, f"{20 * i} %", self.small, "rm", LEFT)
        every = -(-len(self.ticks) // max(int((WIDTH - LEFT - RIGHT) / 40), 1))
        for i in range(0, len(self.ticks), every):
            x = self.at(i, 0)[0] / SCALE
            self.text(x, HEIGHT - BOTTOM + 18, self.ticks[i], self.small, "mm", every * self.pitch - 6)
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 24, axis, self.small, "mm", WIDTH - LEFT - RIGHT)

    def line(self, rows: Sequence[Row], colour: tuple[int, int, int], aside: float, name: str, number: int) -> None:
        points = []
        for i, row in enumerate(rows):
            if not row.images:
                continue
            (x, y), ends = self.at(i, row.copies / len(row.images)), [self.at(i, end)[1] for end in row.interval]
            x += aside * SCALE
            points.append((x, y))
            self.pen.line([x, ends[0], x, ends[1]], colour, SCALE)
            for end in ends:
                self.pen.line([x - 4 * SCALE, end, x + 4 * SCALE, end], colour, SCALE)
            r = 5 * SCALE
            self.pen.ellipse([x - r, y - r, x + r, y + r], colour)
        if len(points) > 1:
            self.pen.line(points, colour, 2 * SCALE, "curve")
        across = (WIDTH - LEFT - RIGHT) // LEGEND
        if name and number < 2 * across:
            x, y = LEFT + LEGEND * (number % across), 54 + 22 * (number // across)
            self.pen.rectangle([x * SCALE, (y - 6) * SCALE, (x + 12) * SCALE, (y + 6) * SCALE], colour)
            self.text(x + 18, y, name, self.small, "lm", LEGEND - 24)

    def text(self, x: float, y: float, words: str, fonts: Fonts, anchor: str, width: float) -> None:
        drawn, font = fonts.fitted(words, width * SCALE)
        self.pen.text((x * SCALE, y * SCALE), drawn, TEXT, font, anchor)
