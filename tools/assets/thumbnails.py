"""Thumbnails of the example workflows: what a real run on the lab checkpoint left on the nodes, put together.

A picture of the whole graph is a sea of nodes at the size the template browser shows it. So a thumbnail is a
square of two batches of pictures, each under its caption and with the number of copies among them, and the view of
one node under its title, cut out of the page.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.assets.make_workflow import Graph, WorkflowError

if TYPE_CHECKING:
    from support.browser import Page

SIDE, GAP, CAPTION = 800, 12, 40
BACK, TEXT, GOOD, BAD = (24, 26, 32), (236, 238, 244), (110, 200, 140), (240, 110, 96)
NODE = 520  # width that a node is given for its picture


def run_on_lab(page: Page, graph: Graph, steps: int | None = None) -> dict:
    """Run the workflow that is open in the page on the lab checkpoint; returns the history entry."""
    for node, name, value in graph.lab:
        page.set_node(node, name, value)
    if steps is not None:
        for kind in ("KSampler", "MG_DeferredCFGKSampler", "MG_BasinEscapeDetector"):
            page.set_widgets(kind, "steps", steps)
    return page.queue_and_wait()


def thumbnail(page: Page, graph: Graph, entry: dict, path: Path) -> None:
    """Write the thumbnail of a run that the page has just shown."""
    if graph.poster is None:
        raise WorkflowError(f"{path}: the description does not say what the thumbnail shows; call Graph.shows")
    view = _view(page, graph.poster.view)
    canvas = Image.new("RGB", (SIDE, SIDE), BACK)
    canvas.paste(view, (0, SIDE - view.height))
    pen = ImageDraw.Draw(canvas)
    wide, side = SIDE // len(graph.poster.pictures), SIDE - view.height - 2 * CAPTION - 2 * GAP
    for i, (caption, node) in enumerate(graph.poster.pictures):
        files = entry["outputs"][str(node)]["images"]
        pictures = [Image.open(io.BytesIO(page.server.image(**file))).convert("RGB") for file in files]
        middle, copies = wide * i + wide // 2, _copies(pictures)
        pen.text((middle, GAP + CAPTION // 2), caption, TEXT, ImageFont.load_default(30), "mm")
        if copies is not None:
            said = f"{copies} of {len(pictures)} are copies"
            pen.text((middle, GAP + 3 * CAPTION // 2), said, BAD if copies else GOOD, ImageFont.load_default(28), "mm")
        block = _block(pictures, min(wide - 2 * GAP, side))
        canvas.paste(block, (middle - block.width // 2, 2 * CAPTION + GAP + (side - block.height) // 2))
    canvas.save(path, quality=88)


def _copies(pictures: list[Image.Image]) -> int | None:
    """How many are copies, of the lab model's own pictures, which have the size that it was trained with."""
    from lab.copies import COPY_RMSE, rmse, training_pairs

    trained = [picture for _, picture in training_pairs()]
    if any(np.asarray(p).shape != trained[0].shape for p in pictures):
        return None
    return sum(min(rmse(np.asarray(p), t) for t in trained) < COPY_RMSE for p in pictures)


def _block(pictures: list[Image.Image], side: int) -> Image.Image:
    """Two by two, as large as fits into a square; wide ones below each other, and only two of them."""
    wide = pictures[0].width > 1.4 * pictures[0].height
    pictures = pictures[: 2 if wide else 4]
    across = 1 if wide or len(pictures) == 1 else 2
    down = -(-len(pictures) // across)
    shape = pictures[0].width / pictures[0].height
    width = int(min(side / across, side / down * shape)) - 4
    height = int(width / shape)
    block = Image.new("RGB", (across * (width + 4), down * (height + 4)), BACK)
    for i, picture in enumerate(pictures):
        resized = picture.resize((width, height), Image.Resampling.LANCZOS)
        block.paste(resized, (i % across * (width + 4) + 2, i // across * (height + 4) + 2))
    return block


def _view(page: Page, node: int) -> Image.Image:
    """The title and the view of a node, as wide as the thumbnail."""
    title, view = (Image.open(io.BytesIO(b)).convert("RGB") for b in page.view_of(node, NODE, SIDE))
    whole = Image.new("RGB", (SIDE, title.height + view.height), BACK)
    whole.paste(title.resize((SIDE, title.height)), (0, 0))
    whole.paste(view.resize((SIDE, view.height)), (0, title.height))
    return whole
