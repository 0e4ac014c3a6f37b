"""The benchmark's page: tables, trade-off plots and a grid of pictures, from bench/results.json."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from benchmarks.bench_lab import Bench
from benchmarks.lab_methods import METHODS, NONE
from lab import scenes

COLUMNS = {
    "method": "",
    "pictures": "pictures",
    "copies": "copies",
    "distance_least": "nearest",
    "distance_5th": "5th percentile",
    "aligned": "aligned",
    "aligned_and_no_copy": "aligned, no copy",
    "frechet": "Fréchet",
    "diversity": "diversity",
    "unchanged": "unchanged",
    "evaluations": "evaluations",
    "time": "time",
    "memory": "memory",
}
PERCENT = ("copies", "aligned", "aligned_and_no_copy", "unchanged")
GRID = 8  # prompts a row
MARKS = "osD^vPX*<>hdp8"


def cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        mean, low, high = value
        return f"{mean:.1%} ({low:.0%}–{high:.0%})"
    if key in PERCENT:
        return f"{value:.1%}"
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if key.startswith("distance") else f"{value:.0f}" if key == "pictures" else f"{value:.2f}"


def markdown(rows: list[dict[str, Any]], group: str) -> str:
    """The rows of one group; peers last, marked with a star."""
    chosen = sorted((r for r in rows if r["group"] == group), key=lambda r: r["peer"])
    keys = [k for k in COLUMNS if k in ("method", "copies") or group == "memorized" or k != "aligned_and_no_copy"]
    lines = ["| " + " | ".join(COLUMNS[k] for k in keys) + " |", "|---" * len(keys) + "|"]
    for r in chosen:
        name = {"method": r["method"] + (" \\*" if r["peer"] else "")}
        lines.append("| " + " | ".join(cell(k, {**r, **name}.get(k)) for k in keys) + " |")
    return "\n".join(lines)


def trade_off(rows: list[dict[str, Any]], file: Path, against: str, label: str) -> None:
    """Copies over `against`, one mark a method, with the 95 % intervals; peers hollow."""
    chosen = [r for r in rows if r["group"] == "memorized"]
    families = list(dict.fromkeys(r["family"] for r in chosen))
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    for i, family in enumerate(families):
        own = [r for r in chosen if r["family"] == family]
        x = [r[against][0] if isinstance(r[against], list) else r[against] for r in own]
        y = [r["copies"][0] for r in own]
        bars = np.array([[r["copies"][0] - r["copies"][1], r["copies"][2] - r["copies"][0]] for r in own]).T
        kind = {"markerfacecolor": "none"} if own[0]["peer"] else {}
        axes.errorbar(
            x, y, yerr=bars, fmt=MARKS[i % len(MARKS)], label=family, color=f"C{i % 10}", elinewidth=0.7, **kind
        )
    usual = [r for r in rows if r["group"] == "ordinary" and r["family"] == NONE.family]
    if against == "aligned" and usual:
        axes.axvline(usual[0]["aligned"][0], color="grey", linestyle="--", linewidth=1)
        axes.text(usual[0]["aligned"][0], 0.97, " ordinary prompts", color="grey", va="top")
    axes.set(xlabel=label, ylabel="copies", ylim=(-0.03, 1.03))
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    if against == "aligned":
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def grid(bench: Bench, rows: list[dict[str, Any]], file: Path, seed: int) -> list[str]:
    """A row a method, a column a memorized prompt, the training pictures on top; returns the rows' names."""
    names = [r["method"] for r in rows if r["group"] == "memorized"]
    lines = [np.concatenate([p.scene.image for p in scenes.memorized()[:GRID]], axis=1)]
    kept = ["the training pictures"]
    for method in METHODS:
        held = bench.file(method, "memorized", seed)
        if method.name in names and held.is_file():
            lines.append(np.concatenate(list(np.load(held)["pictures"][:GRID]), axis=1))
            kept.append(method.name)
    Image.fromarray(np.concatenate(lines)).save(file, quality=88)
    return kept


def write_page(bench: Bench, out: Path, docs: Path | None) -> None:
    """index.html and its pictures into `out`; the tables and pictures into docs/bench.md and docs/img, too."""
    held = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = held["rows"]
    for folder in (out, *([docs / "img"] if docs else [])):
        folder.mkdir(exist_ok=True)
        trade_off(rows, folder / "bench-alignment.png", "aligned", "pictures that show what was asked")
        trade_off(rows, folder / "bench-time.png", "time", "time over KSampler's")
        names = grid(bench, rows, folder / "bench-grid.jpg", held["facts"]["first"])
    tables = {group: markdown(rows, group) for group in ("memorized", "ordinary")}
    tables |= {
        "grid": "Rows, from the top: " + "; ".join(names) + ".",
        "detection": detection(held.get("detection", [])),
    }
    sections = [f"<h2>{html.escape(k)}</h2><pre>{html.escape(v)}</pre>" for k, v in tables.items() if v]
    images = [f'<img src="{n}">' for n in ("bench-alignment.png", "bench-time.png", "bench-grid.jpg")]
    body = "\n".join(["<meta charset='utf-8'><title>Benchmark</title>", *images, *sections])
    (out / "index.html").write_text(body, encoding="utf-8")
    again = out / "from-101" / "results.json"
    if again.is_file():
        tables["again"] = twice(rows, json.loads(again.read_text(encoding="utf-8"))["rows"])
    if docs:
        from tables import put

        for name, table in tables.items():
            put(docs / "bench.md", f"bench-{name}", table)


def twice(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str:
    """Rows that both runs have, with the other run's noises; they agree where the intervals meet."""
    others = {(r["group"], r["method"]): r for r in second}
    lines = ["|  | prompts | copies | again | aligned | again | intervals meet |", "|---" * 7 + "|"]
    for r in first:
        other = others.get((r["group"], r["method"]))
        if other is None:
            continue
        pairs = [(r[key], other[key]) for key in ("copies", "aligned")]
        meet = all(a[1] <= b[2] and b[1] <= a[2] for a, b in pairs)
        cells = [cell("", value) for pair in pairs for value in pair]
        lines.append(f"| {r['method']} | {r['group']} | {' | '.join(cells)} | {'yes' if meet else 'no'} |")
    return "\n".join(lines)


def detection(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = ["| score | paired evaluations | AUC | hits at 1 % false alarms | cases |", "|---|---|---|---|---|"]
    for r in rows:
        cases = f"{r['memorized']} memorized, {r['ordinary']} ordinary"
        lines.append(f"| {r['score']} | {r['evaluations']} | {r['auc']:.4f} | {r['hits_at_1_percent']:.1%} | {cases} |")
    return "\n".join(lines)
