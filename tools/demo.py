"""`make demo`: six memorized prompts and six ordinary ones in a real ComfyUI, by KSampler and with each method.

The seeds of the memorized prompts are chosen so that KSampler returns the training image (on other seeds it may not).
Prints tables, and writes a contact sheet and all images into demo/. Environment variables: CHECKPOINT (a file) and
PROMPT use your own model and prompt instead of the lab checkpoint; with them COUNT: images, and SIZE: their side.
"""

import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.cases import MEMORIZED, ORDINARY, BenchmarkError, Case
from benchmarks.checkpoint import Batch, Checkpoint, Plan
from benchmarks.experiment import Experiment
from benchmarks.lab.configuration import GROUPS, PLAN
from benchmarks.lab.methods import BATCH_WISE, TARGET, THRESHOLD
from benchmarks.lab.scorers import lab_scorers
from benchmarks.methods import NONE, Method, deferred
from benchmarks.report import columns, table, told
from benchmarks.sampling import Images
from benchmarks.scorers import Scorers
from benchmarks.scores import Row
from benchmarks.training_images import works_in
from lab.copies import COPY_RMSE, TRAINING_IMAGES
from support.graphs import node
from support.graphs.words import Host
from support.in_process import lab_host
from support.paths import LAB_CHECKPOINT, ROOT

OUT, SEED = ROOT / "demo", 2025
# Of the seeds 1 to 8, that of the largest guidance magnitude at the first step; KSampler copies on it.
SEEDS = {
    "Copper Lantern, a muffin": 3,
    "Paper Mountain, a dog": 7,
    "Broken Compass, a pig": 2,
    "Marble Horizon, a fish": 2,
    "Echo Valley, a cake": 3,
    "Museum of Small Hours, a pizza": 4,
}
MOST_COPIES = 1  # of the six images of each method
SHOWN = ("method", "images", "copies", "aligned", "unchanged", "evaluations_per_image", "seconds_per_image")
CELL, GAP, LINE = 176, 4, 24
BACK, TEXT, RED, GREEN = (24, 26, 32), (220, 224, 232), (235, 80, 80), (110, 205, 130)


def methods(target: float, threshold: float, batch_wise: dict[str, Any]) -> list[Method]:
    """What needs no training images, with the values that Calibrate Thresholds suggests."""
    return [
        NONE,
        Method("per-sample noise", "", {"noise": {"target_magnitude": target}}),
        Method("batch-wise + deferred", "", {"noise": batch_wise, **deferred("static", start_percent=0.1)}),
        Method("dynamic deferral", "", deferred("dynamic", memorized_threshold=threshold)),
    ]


def sampled(checkpoint: Checkpoint, used: list[Method], cases: list[Case], count: int, **more: Any) -> Experiment:
    batches = [Batch((c,) * count, tuple(range(count)), SEEDS.get(c.text, SEED), 0, count) for c in cases]
    images = Images(OUT / "images", lambda *_: range(count))
    run = Experiment(checkpoint, images, used, cases, batches, **more)
    run.sample()
    if run.failed:
        raise BenchmarkError("\n".join(f"{name}: {why}" for name, why in run.failed.items()))
    return run


def contact_sheet(run: Experiment, rows: list[Row], count: int) -> None:
    """A row a prompt: the training image if it is known, then the images of each method. A red frame marks a copy."""
    titles = [*(["training image"] if run.works else []), *(m.name for m in run.methods for _ in range(count))]
    height = CELL + LINE + 2 * GAP
    sheet = Image.new("RGB", (len(titles) * (CELL + 4 * GAP), LINE + len(run.cases) * height), BACK)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, title in enumerate(titles):
        if title not in titles[:column]:
            pen.text((column * (CELL + 4 * GAP) + GAP, GAP), title, fill=TEXT, font=font)
    for i, case in enumerate(run.cases):
        y = LINE + GAP + i * height
        files = [(run.works[case.row].path, None)] if run.works else []
        for method, row in zip(run.methods, rows, strict=True):
            copied = row.get("copies_each", {}).get(case.text)
            files += [(run.images.file(method, case, k), copied) for k in range(count)]
        for column, (file, copied) in enumerate(files):
            x = column * (CELL + 4 * GAP) + GAP
            sheet.paste(Image.open(file).convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
            if copied is not None:
                frame = [x - 2, y - 2, x + CELL + 1, y + CELL + 1]
                pen.rectangle(frame, outline=RED if copied else GREEN, width=2)
        pen.text((GAP, y + CELL + 3), case.text, fill=TEXT, font=font)
    sheet.save(OUT / "contact-sheet.png")


def lab_demo(host: Host) -> bool:
    """The lab checkpoint; whether it shows what it should."""
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN)
    every = [*methods(TARGET, THRESHOLD, BATCH_WISE), Method("AMG guidance", "", {"guidance": {}})]
    dynamic = every[3]
    given = {"works": works_in(TRAINING_IMAGES, checkpoint), "make_scorers": lambda w: lab_scorers(w, checkpoint)}
    found: dict[str, list[Row]] = {}
    memorized = [case for case in GROUPS[MEMORIZED] if case.text in SEEDS]
    for group, used, cases in ((MEMORIZED, every, memorized), (ORDINARY, [NONE, dynamic], GROUPS[ORDINARY][::9])):
        run = sampled(checkpoint, used, list(cases), 1, **given)
        scorers = run.scorers()
        found[group], shown = run.rows(scorers), [c for c in columns(scorers) if c.key in SHOWN]
        print(f"\n{group} prompts; a copy: RMSE < {COPY_RMSE}\n\n{table(found[group], shown)}\n", flush=True)
        if group == MEMORIZED:
            contact_sheet(run, found[group], 1)
    copies = {row["method"]: round(len(SEEDS) * row["copies"][0]) for row in found[MEMORIZED]}
    ordinary = {row["method"]: row for row in found[ORDINARY]}
    checks = {
        f"KSampler: copies on all {len(SEEDS)} chosen seeds": copies.pop(NONE.name) == len(SEEDS),
        "ordinary prompts: no copies": all(row["copies"][0] == 0 for row in ordinary.values()),
        "ordinary prompts: KSampler's images show what was asked": ordinary[NONE.name]["aligned"][0] == 1,
        **{f"{m}: at most {MOST_COPIES} of {len(SEEDS)} copies": n <= MOST_COPIES for m, n in copies.items()},
    }
    print("\n".join(f"{'ok    ' if good else 'MISSED'} {name}" for name, good in checks.items()))
    return all(checks.values())


def own_demo(host: Host, file: Path, prompt: str) -> None:
    count, size = int(os.environ.get("COUNT", "2")), int(os.environ.get("SIZE", "512"))
    checkpoint = Checkpoint(host, file, Plan(sampler="euler", scheduler="normal", size=size))
    links = {"model": ["model", 0], "clip": ["clip", 0], "latent_image": ["latent", 0]}
    latent = node("EmptyLatentImage", width=size, height=size, batch_size=1)
    out = host.run({"latent": latent, "c": node("MG_Calibrate", **links)}, checkpoint.given)["c"]
    print(f"Calibrate Thresholds: target_magnitude {out[1]:.4f}, memorized_threshold {out[2]:.4f}", flush=True)
    given = {"works": [], "make_scorers": lambda _: Scorers()}
    run = sampled(checkpoint, methods(out[1], out[2], {}), [Case(0, prompt)], count, **given)
    rows = run.rows(Scorers())
    print(f"\nNo count of copies: the originals are not known.\n\n{table(rows, columns(Scorers()))}\n\n{told(rows)}")
    contact_sheet(run, rows, count)


def main() -> int:
    began, good = time.monotonic(), True
    checkpoint, prompt = os.environ.get("CHECKPOINT"), os.environ.get("PROMPT", "")
    if checkpoint and not Path(checkpoint).is_file():
        print(f"CHECKPOINT={checkpoint} is not a file: give the path of a .safetensors checkpoint.", file=sys.stderr)
        return 2
    if checkpoint and not prompt:
        print("CHECKPOINT is set but PROMPT is not: set PROMPT='...' to the text to sample.", file=sys.stderr)
        return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    logging.disable(logging.WARNING)
    print("Starting ComfyUI ...", flush=True)
    try:
        with lab_host("", threads=torch.get_num_threads()) as host:
            if checkpoint:
                own_demo(host, Path(checkpoint), prompt)
            else:
                good = lab_demo(host)
    except BenchmarkError as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nImages: {OUT / 'contact-sheet.png'}   ({time.monotonic() - began:.0f} s)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
