"""Write the templates into `workflows/`; with --thumbnails also a .jpg of each, from a run of the file on the lab.

.host/python tools/assets/write_templates.py --thumbnails
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lab.copies import COPY_RMSE, distances, training_pairs
from support.frontend.page import Page, title_and_view
from support.frontend.workflow import WorkflowError, write
from support.paths import ROOT
from support.server import Server
from tools.assets.templates import TEMPLATES
from tools.assets.templates.references import MIRRORED
from tools.assets.templates.template import Template
from tools.assets.wires import lead_around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all templates otherwise")
    parser.add_argument("--thumbnails", action="store_true", help="run each template and write its thumbnail")
    options = parser.parse_args()
    with Server() as server, Page(server) as page:
        _, image = training_pairs()[0]
        ImageOps.mirror(Image.fromarray(image)).save(server.base / "input" / MIRRORED)
        for name, make in TEMPLATES.items():
            if options.names and not any(part in name for part in options.names):
                continue
            template, path = make(), ROOT / "workflows" / f"{name}.json"
            write(page, template.graph, path, lead_around)
            print(path)
            if options.thumbnails:
                entry = template.run(page, template.on_lab)
                if overlaps := page.mg("overlaps"):
                    raise WorkflowError(f"{path}: after a run these nodes cover each other: {overlaps}")
                write_thumbnail(page, template, entry, path.with_suffix(".jpg"))


SIDE, GAP, CAPTION = 800, 12, 40
BACK, TEXT, GOOD, BAD = (24, 26, 32), (236, 238, 244), (110, 200, 140), (240, 110, 96)
NODE_WIDTH = 520


def write_thumbnail(page: Page, template: Template, entry: dict, path: Path) -> None:
    assert template.poster, f"{path}: the template does not say what its thumbnail shows"
    node, batches = template.poster
    view = _title_and_view(page, node.id)
    canvas = Image.new("RGB", (SIDE, SIDE), BACK)
    canvas.paste(view, (0, SIDE - view.height))
    pen = ImageDraw.Draw(canvas)
    width, height = SIDE // len(batches), SIDE - view.height - 2 * CAPTION - 2 * GAP
    for i, (caption, source) in enumerate(batches.items()):
        files = entry["outputs"][str(source.id)]["images"]
        images = [Image.open(io.BytesIO(page.server.image(**file))).convert("RGB") for file in files]
        middle = width * i + width // 2
        pen.text((middle, GAP + CAPTION // 2), caption, TEXT, ImageFont.load_default(30), "mm")
        if (copies := _count_copies(images)) is not None:
            count, colour = f"{copies} of {len(images)} are copies", BAD if copies else GOOD
            pen.text((middle, GAP + 3 * CAPTION // 2), count, colour, ImageFont.load_default(28), "mm")
        block = _block(images, min(width - 2 * GAP, height))
        canvas.paste(block, (middle - block.width // 2, 2 * CAPTION + GAP + (height - block.height) // 2))
    canvas.save(path, quality=88)


def _count_copies(images: list[Image.Image]) -> int | None:
    """The number of copies of training images; None for images that the lab did not make, by their size."""
    trained = np.stack([image for _, image in training_pairs()])
    if any(np.asarray(image).shape != trained[0].shape for image in images):
        return None
    made = np.stack([np.asarray(image) for image in images])
    return int((distances(made, trained).amin(1) < COPY_RMSE).sum())


def _block(images: list[Image.Image], side: int) -> Image.Image:
    """The images two by two, as large as fits into a square; wide ones below each other, and only two of them."""
    shape = images[0].width / images[0].height
    images = images[: 2 if shape > 1.4 else 4]
    across = 1 if shape > 1.4 or len(images) == 1 else 2
    down = -(-len(images) // across)
    width = int(min(side / across, side / down * shape)) - 4
    height = int(width / shape)
    block = Image.new("RGB", (across * (width + 4), down * (height + 4)), BACK)
    for i, image in enumerate(images):
        resized = image.resize((width, height), Image.Resampling.LANCZOS)
        block.paste(resized, (i % across * (width + 4) + 2, i // across * (height + 4) + 2))
    return block


def _title_and_view(page: Page, node: int) -> Image.Image:
    title, view = (Image.open(io.BytesIO(b)).convert("RGB") for b in title_and_view(page, node, NODE_WIDTH, SIDE))
    whole = Image.new("RGB", (SIDE, title.height + view.height), BACK)
    whole.paste(title.resize((SIDE, title.height)), (0, 0))
    whole.paste(view.resize((SIDE, view.height)), (0, title.height))
    return whole


if __name__ == "__main__":
    main()
