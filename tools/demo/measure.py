"""Ask the server for one batch, and sum up what the batches showed."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from lab.copies import is_copy
from support.client import Client
from tools.demo.methods import Setting, prompt


@dataclass
class Row:
    """All images of one prompt by one method, and what was measured."""

    images: list[np.ndarray]
    told: dict[str, Any]
    copies: int = 0


@dataclass
class Subject:
    """A prompt, and its row for each method."""

    prompt: str
    training: np.ndarray | None = None  # the memorized image, if it is known
    rows: dict[str, Row] = field(default_factory=dict)


def ask(server: Client, setting: Setting, subject: Subject, method: str, run: int, out: Path | None = None) -> Row:
    """One batch through the server; its images are also written into the folder `out`."""
    outputs = server.run(prompt(setting, subject.prompt, method, run), timeout=3600)["outputs"]
    files = [server.image(**reference) for reference in outputs["save"]["images"]]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    row = Row(images, json.loads(outputs["told"]["told"][0]))
    if subject.training is not None:
        row.copies = sum(is_copy(image, subject.training) for image in images)
    if out is not None:
        folder = out / method.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(files):
            (folder / f"{re.sub(r'[^a-zA-Z0-9]', '_', subject.prompt)[:60]}-{i}.png").write_bytes(file)
    return row


def share_of_copies(rows: Iterable[Row]) -> float:
    rows = list(rows)
    return sum(row.copies for row in rows) / sum(len(row.images) for row in rows)


def per_image(subjects: list[Subject], method: str, key: str) -> float:
    """The mean of a measured cost over all images of a method."""
    rows = [subject.rows[method] for subject in subjects]
    return sum(row.told[key] for row in rows) / sum(len(row.images) for row in rows)


def first_magnitude(subjects: list[Subject]) -> float:
    """Median d/√dim at the first step."""
    return median(curve[0] for subject in subjects for curve in subject.rows["dynamic deferral"].told["d"])


def identical(subjects: list[Subject], method: str, other: str) -> float:
    """The share of images that are bit-identical by both methods."""
    pairs = [pair for s in subjects for pair in zip(s.rows[method].images, s.rows[other].images, strict=True)]
    return sum(np.array_equal(a, b) for a, b in pairs) / len(pairs)
