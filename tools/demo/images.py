"""The demo's two pictures: a contact sheet and the escape curves."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, HEAD = 96, 4, 34
BACK, TEXT, RED, GREEN = (24, 26, 32), (220, 224, 232), (235, 80, 80), (110, 205, 130)


def contact_sheet(subjects: list, methods: tuple[str, ...], file: Path, count: int | None = None) -> None:
    """A row a prompt: training picture | each method's pictures of the same seeds. A red frame is a copy."""
    from lab.copies import is_copy

    count = count or len(subjects[0].rows[methods[0]].pictures)
    known = subjects[0].training is not None
    widths = ([1] if known else []) + [count] * len(methods)
    titles = (["training picture"] if known else []) + list(methods)
    left = [GAP * 4]
    for w in widths:
        left.append(left[-1] + w * (CELL + GAP) + GAP * 4)
    size = (left[-1], HEAD + len(subjects) * (CELL + HEAD // 2 + GAP * 2))
    sheet = Image.new("RGB", size, BACK)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for x, title in zip(left, titles, strict=False):
        pen.text((x, 8), title, fill=TEXT, font=font)
    for i, s in enumerate(subjects):
        y = HEAD + i * (CELL + HEAD // 2 + GAP * 2)
        groups = [[s.training]] if known else []
        groups += [s.rows[m].pictures[:count] for m in methods]
        for x, group in zip(left, groups, strict=False):
            for k, picture in enumerate(group):
                at = (x + k * (CELL + GAP), y)
                sheet.paste(Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS), at)
                if known and picture is not s.training:
                    colour = RED if is_copy(picture, s.training) else GREEN
                    pen.rectangle([at[0] - 2, at[1] - 2, at[0] + CELL + 1, at[1] + CELL + 1], outline=colour, width=2)
        pen.text((left[0], y + CELL + 3), s.prompt, fill=TEXT, font=font)
    sheet.save(file)


def escape_curves(memorized: list, ordinary: list, file: Path) -> None:
    """d/√dim while it is measured: every memorized sample in orange, every ordinary one in blue."""
    width, height, left, bottom = 900, 480, 70, 50
    image = Image.new("RGB", (2 * width, 2 * height), BACK)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(28)
    groups = [(memorized, (255, 159, 92)), (ordinary, (102, 194, 255))]
    curves = [(c, d) for subjects, c in groups for s in subjects for d in s.rows["dynamic"].told["d"]]
    steps = len(curves[0][1])
    top = 1.1 * max(max(d) for _, d in curves)

    def at(step: float, d: float) -> tuple[float, float]:
        x = left + (width - left - 20) * step / (steps - 1)
        return 2 * x, 2 * (height - bottom - (height - bottom - 50) * d / top)

    for i in range(6):
        value = top * i / 5
        pen.line([at(0, value), at(steps - 1, value)], fill=(52, 56, 66), width=2)
        pen.text((at(0, value)[0] - 12, at(0, value)[1]), f"{value:.3f}", fill=TEXT, font=font, anchor="rm")
    for step in range(0, steps, 5):
        pen.text((at(step, 0)[0], at(step, 0)[1] + 16), str(step), fill=TEXT, font=font, anchor="ma")
    for colour, d in curves:
        points = [at(i, v) for i, v in enumerate(d) if v >= 0]
        if len(points) > 1:
            pen.line(points, fill=colour, width=3, joint="curve")
        x, y = points[-1]
        pen.ellipse([x - 7, y - 7, x + 7, y + 7], outline=colour, width=3)
    pen.text((2 * left, 24), "relative guidance magnitude over the steps, until the last look", fill=TEXT, font=font)
    pen.text((2 * left, 62), "memorized prompts", fill=(255, 159, 92), font=font)
    pen.text((2 * left + 330, 62), "ordinary prompts", fill=(102, 194, 255), font=font)
    image.resize((width, height), Image.Resampling.LANCZOS).save(file)
