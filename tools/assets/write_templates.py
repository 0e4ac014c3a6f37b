"""Write the templates into `workflows/`; with --thumbnails also a .jpg of each, from a run of the file on the lab.

.host/python tools/assets/write_templates.py --thumbnails

Wires that would run behind a node are led around it, through reroutes as the frontend saves them.
"""

import argparse
import heapq
import io
import itertools
import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lab.copies import COPY_RMSE, LORA, LORA_IMAGES, distances, training_pairs
from support.frontend.page import Page, title_and_view
from support.frontend.workflow import WorkflowError, write
from support.paths import ROOT
from support.server import Server
from tools.assets.templates import KNOWN, MIRRORED, TEMPLATES
from tools.assets.templates.template import Template
from tools.assets.templates.words_and_loras import LORA_TRAINING

CELL = 12  # pixels between two wires that run side by side
ROOM, TITLE, LETTER = 10, 34, 13  # around a node, above it for its title, and of a letter of a group's title
BEND, BUSY = 6, 5  # what a bend costs, and a cell in which another wire or a title is, in cells
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))
# Newer frontends have texts as ids.
ENDS = """() => [...app.graph.links.values()].map((l) => [
  Number(l.id), Number(l.origin_id), l.origin_slot, Number(l.target_id),
  [...app.graph.getNodeById(l.origin_id).getOutputPos(l.origin_slot)],
  [...app.graph.getNodeById(l.target_id).getInputPos(l.target_slot)]])"""
Cell = tuple[int, int]
Box = tuple[float, float, float, float]


def behind_nodes(page: Page, workflow: dict) -> list[tuple[int, int, int, list[float], list[float]]]:
    """The wires of the open workflow that run behind a node unless they are led around: id, output, two ends."""
    boxes = {node["id"]: _box(node, workflow["groups"]) for node in workflow["nodes"]}
    return [
        (link, source, slot, start, end)
        for link, source, slot, target, start, end in page.tab.evaluate(ENDS)
        if any(_behind(start, end, box) for node, box in boxes.items() if node not in (source, target))
    ]


def lead_around(page: Page, workflow: dict) -> dict:
    """The workflow, which is open in the page, with reroutes. Wires from one output share them as far as they can."""
    boxes = [_box(node, workflow["groups"]) for node in workflow["nodes"]]
    blocked = {cell for box in boxes for cell in _cells(box)}
    titles = {cell for group in workflow["groups"] for cell in _cells(_title(group))}
    trees: dict[tuple[int, int], dict[Cell, int]] = {}  # of an output: its reroutes by their places
    reroutes: dict[int, dict] = {}
    extensions, busy = [], set[Cell]()
    shortest_first = sorted(behind_nodes(page, workflow), key=lambda wire: (wire[1:3], math.dist(*wire[3:])))
    for link, source, slot, start, end in shortest_first:
        tree = trees.setdefault((source, slot), {})
        starts = [(_cell(start, 1), 0), *((place, None) for place in tree)]
        path = _path(starts, _cell(end, -1), blocked, titles | busy - set(tree))
        parent = tree.get(path[0])
        for place in _bends(path):
            if place not in tree:
                number = tree[place] = len(reroutes) + 1
                reroutes[number] = {"id": number, "pos": [side * CELL for side in place], "linkIds": []}
                if parent is not None:
                    reroutes[number]["parentId"] = parent
            parent = tree[place]
        busy |= set(path)
        if parent is not None:
            extensions.append({"id": link, "parentId": parent})
            while parent is not None:
                reroutes[parent]["linkIds"].append(link)
                parent = reroutes[parent].get("parentId")
    if reroutes:
        workflow["extra"] |= {"reroutes": list(reroutes.values()), "linkExtensions": extensions}
    return workflow


def _box(node: dict, groups: list[dict]) -> Box:
    """What a node covers: one that shows its run grows down to the end of its group."""
    (x, y), (w, h) = node["pos"][:2], node["size"][:2]
    bottom = y + h
    if node["type"].startswith("MG_") or node["type"] == "SaveImage":
        for left, top, width, height in (group["bounding"] for group in groups):
            if left <= x <= left + width and top <= y <= top + height:
                bottom = max(bottom, top + height - 2 * CELL)
    return x - ROOM, y - TITLE, x + w + ROOM, bottom + ROOM


def _title(group: dict) -> Box:
    left, top, width, _ = group["bounding"]
    return left, top - TITLE, left + min(width, LETTER * len(group["title"])), top + TITLE


def _cell(place: list[float], side: int) -> Cell:
    return round(place[0] / CELL) + 2 * side, round(place[1] / CELL)


def _cells(box: Box) -> list[Cell]:
    left, top, right, bottom = (side / CELL for side in box)
    return list(
        itertools.product(range(math.ceil(left), math.floor(right) + 1), range(math.ceil(top), math.floor(bottom) + 1))
    )


def _behind(start: list[float], end: list[float], box: Box) -> bool:
    """Whether the frontend's curve between two sockets passes through a box."""
    reach = math.dist(start, end) / 4
    controls = (start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)
    for i in range(61):
        t, u = i / 60, 1 - i / 60
        weights = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
        x, y = (sum(w * point[axis] for w, point in zip(weights, controls, strict=True)) for axis in (0, 1))
        if box[0] + ROOM < x < box[2] - ROOM and box[1] < y < box[3] - ROOM:
            return True
    return False


def _path(starts: list[tuple[Cell, int | None]], end: Cell, blocked: set[Cell], busy: set[Cell]) -> list[Cell]:
    """The cheapest way through the free cells to `end`, which it reaches from the left."""
    todo: list = [(0, cell, way, ()) for cell, ways in starts for way in ([ways] if ways is not None else range(4))]
    heapq.heapify(todo)
    seen: dict[tuple[Cell, int], tuple] = {}  # and where each was reached from
    limits = [(min(c[axis] for c in blocked) - 12, max(c[axis] for c in blocked) + 12) for axis in (0, 1)]
    while todo:
        cost, cell, way, before = heapq.heappop(todo)
        if (cell, way) in seen:
            continue
        seen[cell, way] = before
        if cell == end and way == 0:
            path, here = [], (cell, way)
            while here:
                path.append(here[0])
                here = seen[here]
            return path[::-1]
        for turn, (dx, dy) in enumerate(MOVES):
            to = (cell[0] + dx, cell[1] + dy)
            inside = all(low <= at <= high for at, (low, high) in zip(to, limits, strict=True))
            if turn != (way + 2) % 4 and inside and (to not in blocked or to == end):
                more = 1 + BEND * (turn != way) + BUSY * (to in busy)
                heapq.heappush(todo, (cost + more, to, turn, (cell, way)))
    raise ValueError(f"no way to {end}")


def _bends(path: list[Cell]) -> list[Cell]:
    around = zip(path, path[1:], path[2:], strict=False)
    return [b for a, b, c in around if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all templates otherwise")
    parser.add_argument("--thumbnails", action="store_true", help="run each template and write its thumbnail")
    options = parser.parse_args()
    with Server() as server, Page(server) as page:
        place_works(server)
        written = []
        for name, make in TEMPLATES.items():
            if not options.names or any(part in name for part in options.names):
                written.append((make(), ROOT / "workflows" / f"{name}.json"))
                write(page, written[-1][0].graph, written[-1][1], lead_around)
                print(written[-1][1])
        if options.thumbnails:
            place_lora(server)
            page.open()  # with the LoRA among the choices
        for template, path in written if options.thumbnails else ():
            page.load_workflow(path)
            entry = template.run(page, template.on_lab)
            if overlaps := page.mg("overlaps"):
                raise WorkflowError(f"{path}: after a run these nodes cover each other: {overlaps}")
            write_thumbnail(page, template, entry, path.with_suffix(".jpg"))


def place_works(server: Server) -> None:
    """A training image, as it is and mirrored, for Load Image."""
    image = Image.fromarray(training_pairs()[0][1])
    image.save(server.base / "input" / KNOWN)
    ImageOps.mirror(image).save(server.base / "input" / MIRRORED)


def place_lora(server: Server) -> None:
    """Only now: Load LoRA would begin with it in the templates."""
    loras = server.base / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(LORA, loras / LORA.name)
    shutil.copytree(LORA_IMAGES, server.base / "input" / LORA_TRAINING, dirs_exist_ok=True)


SIDE, GAP, CAPTION = 800, 12, 40
CARD = 640  # pixels of the file; the page shows it smaller
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
        middle, below = width * i + width // 2, GAP + height  # above, newer frontends put a badge
        pen.text((middle, below + CAPTION // 2), caption, TEXT, ImageFont.load_default(30), "mm")
        if (copies := _count_copies(images)) is not None:
            count, colour = f"{copies} of {len(images)} are copies", BAD if copies else GOOD
            pen.text((middle, below + 3 * CAPTION // 2), count, colour, ImageFont.load_default(28), "mm")
        block = _block(images, min(width - 2 * GAP, height))
        canvas.paste(block, (middle - block.width // 2, GAP + (height - block.height) // 2))
    canvas.resize((CARD, CARD), Image.Resampling.LANCZOS).save(path, quality=82, optimize=True)


def _count_copies(images: list[Image.Image]) -> int | None:
    """The number of copies of training images; None for images that the lab did not make, by their size."""
    trained = np.stack([image for _, image in (*training_pairs(), *training_pairs(LORA_IMAGES))])
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
