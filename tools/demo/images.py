"""The demo's two images: a contact sheet and the escape curves."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.demo.measure import Subject
from tools.demo.methods import DYNAMIC

matplotlib.use("Agg")
from matplotlib import pyplot

CELL, GAP, LINE = 176, 4, 24
BACK, TEXT, RED, GREEN = (24, 26, 32), (220, 224, 232), (235, 80, 80), (110, 205, 130)
ORANGE, BLUE = "#ff9f5c", "#66c2ff"


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


def escape_curves(memorized: list[Subject], ordinary: list[Subject], file: Path) -> None:
    """d/√dim of every image while it was measured, with a dot where the measuring ended."""
    figure, axes = pyplot.subplots(figsize=(9, 4.8), layout="constrained")
    for subjects, colour, label in ((memorized, ORANGE, "memorized prompts"), (ordinary, BLUE, "ordinary prompts")):
        curves = [[d for d in curve if d >= 0] for s in subjects for curve in s.rows[DYNAMIC].told["d"]]
        for i, curve in enumerate(curves):
            axes.plot(curve, color=colour, marker="o", markevery=[-1], label=label if i == 0 else None)
    axes.set(xlabel="step", ylabel="relative guidance magnitude d/√dim", ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
