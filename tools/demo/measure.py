"""Ask the server for one batch, and sum up what the batches showed, in numbers and in a contact sheet."""

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from support.client import Client
from tools.demo.methods import SEED, Setting, calibration, prompt


@dataclass
class Row:
    """All images of one prompt by one method, which of them are copies, and what was measured."""

    images: list[np.ndarray]
    told: dict[str, Any]
    copied: list[bool] = field(default_factory=list)
    aligned: list[bool] = field(default_factory=list)


@dataclass
class Subject:
    """A prompt with its seed, and its row for each method."""

    prompt: str
    training: np.ndarray | None = None  # the memorized image, if it is known
    seed: int = SEED
    rows: dict[str, Row] = field(default_factory=dict)


def ask(server: Client, setting: Setting, subject: Subject, method: str, run: int, out: Path | None = None) -> Row:
    """One batch through the server; its images are also written into the folder `out`."""
    asked = prompt(setting, subject.prompt, method, run, subject.seed)
    outputs = server.run(asked, timeout=3600)["outputs"]
    files = [server.image(**reference) for reference in outputs["save"]["images"]]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    row = Row(images, json.loads(outputs["told"]["told"][0]))
    if subject.training is not None:
        row.copied = [setting.is_copy(image, subject.training) for image in images]
    if out is not None:
        folder = out / method.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(files):
            (folder / f"{re.sub(r'[^a-zA-Z0-9]', '_', subject.prompt)[:60]}-{i}.png").write_bytes(file)
    return row


def calibrated(server: Client, setting: Setting, prompts: str, kept: Path) -> tuple[float, float]:
    """What Calibrate Thresholds suggests as target and threshold; from the file `kept`, if it was asked before."""
    key = json.dumps([setting.checkpoint, setting.size, prompts])
    held = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if key not in held:
        outputs = server.run(calibration(setting, prompts), timeout=3600)["outputs"]
        held[key] = [float(outputs[name]["text"][0]) for name in ("target", "threshold")]
        kept.write_text(json.dumps(held, indent=1), encoding="utf-8")
    return tuple(held[key])


def share(subjects: Iterable[Subject], method: str, key: str = "copied") -> float:
    found = [value for subject in subjects for value in getattr(subject.rows[method], key)]
    return sum(found) / len(found)


def per_image(subjects: list[Subject], method: str, key: str) -> float:
    rows = [subject.rows[method] for subject in subjects]
    return sum(row.told[key] for row in rows) / sum(len(row.images) for row in rows)


CELL, GAP, LINE = 176, 4, 24
BACK, TEXT, RED, GREEN = (24, 26, 32), (220, 224, 232), (235, 80, 80), (110, 205, 130)


def contact_sheet(subjects: list[Subject], methods: tuple[str, ...], file: Path) -> None:
    """One row per prompt: the training image, then each method's images of the same seeds. A red frame marks a copy."""
    known = subjects[0].training is not None
    columns = {"training image": 1} if known else {}
    columns |= {method: len(subjects[0].rows[method].images) for method in methods}
    left = np.cumsum([GAP * 4, *(count * (CELL + GAP) + GAP * 4 for count in columns.values())]).tolist()
    height = CELL + LINE + GAP * 2
    sheet = Image.new("RGB", (left[-1], 2 * LINE + len(subjects) * height), BACK)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for x, title in zip(left, columns, strict=False):
        pen.text((x, 8), title, fill=TEXT, font=font)
    for i, subject in enumerate(subjects):
        y = 2 * LINE + i * height
        groups = [[subject.training]] if known else []
        groups += [subject.rows[method].images for method in methods]
        for x, title, group in zip(left, columns, groups, strict=False):
            marks = subject.rows[title].copied if title in subject.rows else []
            for k, image in enumerate(group):
                corner = (x + k * (CELL + GAP), y)
                sheet.paste(Image.fromarray(image).resize((CELL, CELL), Image.Resampling.LANCZOS), corner)
                if marks:
                    colour = RED if marks[k] else GREEN
                    frame = [corner[0] - 2, corner[1] - 2, corner[0] + CELL + 1, corner[1] + CELL + 1]
                    pen.rectangle(frame, outline=colour, width=2)
        pen.text((left[0], y + CELL + 3), subject.prompt, fill=TEXT, font=font)
    sheet.save(file)
