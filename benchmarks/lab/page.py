"""The lab benchmark's report: tables, trade-off plots and a grid of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from ..cases import MEMORIZED, ORDINARY
from ..methods import NONE
from ..scorers import Scorers
from ..scores import Experiment, Row, columns, put, table, told
from .configuration import GPU, GROUPS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GRID, TILE = 8, 144  # prompts a row, pixels of an image
MARKS = "osD^vPX*<>hdp8"


def trade_off(rows: Sequence[Row], file: Path, against: str, label: str) -> None:
    """Copies over `against`, one mark a method, with 95 % intervals; other authors' methods are hollow."""
    chosen = [r for r in rows if r["group"] == MEMORIZED]
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    for i, family in enumerate(dict.fromkeys(r["family"] for r in chosen)):
        own = [r for r in chosen if r["family"] == family]
        x = [np.atleast_1d(r[against])[0] for r in own]
        y, low, high = np.array([r["copies"] for r in own]).T
        look = {"markerfacecolor": "none"} if own[0]["peer"] else {}
        look |= {"fmt": MARKS[i % len(MARKS)], "color": f"C{i % 10}", "elinewidth": 0.7}
        axes.errorbar(x, y, yerr=[y - low, high - y], label=family, **look)
    axes.set(xlabel=label, ylabel="copies", ylim=(-0.03, 1.03))
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    if against == "aligned":
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        for usual in (r["aligned"][0] for r in rows if r["group"] == ORDINARY and r["method"] == NONE.name):
            axes.axvline(usual, color="grey", linestyle="--", linewidth=1)
            axes.text(usual, 0.97, " ordinary prompts", color="grey", va="top")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def grid(run: Experiment, file: Path, seed: int) -> str:
    """A row a method, a column a memorized prompt, the training images on top; returns what the rows are."""
    cases, names = [c for c in run.cases if c.group == MEMORIZED][:GRID], ["the training images"]
    lines = [[work.path for work in run.works[:GRID]]]
    for method in run.methods:
        if all(run.images.there(method, case, [seed]) for case in cases):
            lines.append([run.images.file(method, case, seed) for case in cases])
            names.append(method.name)
    sheet = Image.new("RGB", (GRID * TILE, len(lines) * TILE))
    for y, files in enumerate(lines):
        for x, path in enumerate(files):
            tile = Image.open(path).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (x * TILE, y * TILE))
    sheet.save(file, quality=75)
    return "Rows, from the top: " + "; ".join(names) + "."


def write_page(run: Experiment, results: dict[str, Any], scorers: Scorers, out: Path, docs: Path | None) -> None:
    """report.md and its images into `out`; the tables and images into docs/bench.md and docs/img, too."""
    rows = results["rows"]
    # A CPU does other things beside it: its times are in results.json alone.
    wanted = [c for c in columns(scorers) if GPU or c.key not in ("seconds_per_image", "time")]
    for folder in (out, *([docs / "img"] if docs else [])):
        folder.mkdir(exist_ok=True)
        trade_off(rows, folder / "bench-alignment.png", "aligned", "images that show what was asked")
        trade_off(rows, folder / "bench-evaluations.png", "evaluations_per_image", "model evaluations an image")
        names = grid(run, folder / "bench-grid.jpg", results["facts"]["first"])
    tables = {group: table([r for r in rows if r["group"] == group], wanted) for group in GROUPS}
    tables |= {"grid": names, "facts": _facts(results["facts"], run)}
    images = [f"![]({n})" for n in ("bench-alignment.png", "bench-evaluations.png", "bench-grid.jpg")]
    failed = [f"**{name}** failed: {why}" for name, why in results["failed"].items()]
    tables |= {"nodes": told([r for r in rows if r["group"] == MEMORIZED])}
    sections = [f"## {name}\n\n{text}" for name, text in tables.items()]
    (out / "report.md").write_text("\n\n".join(["# Benchmark", *failed, *images, *sections]) + "\n", encoding="utf-8")
    for name, text in tables.items() if docs else ():
        put(docs / "bench.md", f"bench-{name}", text)


def _facts(facts: dict[str, Any], run: Experiment) -> str:
    counts = {g: len({c.row for c in run.cases if c.group == g}) for g in GROUPS}
    plan = run.checkpoint.plan
    return (
        f"{counts[MEMORIZED]} memorized prompts, noises a prompt: {facts['seeds']} for no mitigation and the "
        f"recommended rows, {facts['others']} for the others; {counts[ORDINARY]} ordinary prompts, "
        f"{min(facts['ordinary'], facts['seeds'])} noise each; {plan.sampler.upper()}, "
        f"{plan.steps} steps, CFG {plan.cfg:g}; {facts['device']}, torch {facts['torch']}."
    )
