"""`make bench`: what each method does on the lab checkpoint, and what it costs (docs/bench.md).

24 memorized prompts and ordinary ones × seeds × methods, through the real host: on a CPU as many as two cores can make
in some hours, on a GPU more. An interrupted run is continued. Images are kept in the work folder; results go to
bench/results.json and bench/report.md (--first 101, --lora and --study rules into folders of their own), with --smoke
to bench/smoke.json, and with --docs to docs/bench.md.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image

from support.in_process import lab_host
from support.paths import ROOT

from ..cases import MEMORIZED, ORDINARY, BenchmarkError
from ..methods import NONE, Method, chosen
from ..scorers import Scorers
from ..scores import TOLD, Experiment, Row, columns, put, table, told
from .configuration import GPU, GROUPS, experiment, lora_experiment, small_experiment
from .methods import LORA, METHODS, RECOMMENDED, SMOKE, STUDIES

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
            axes.text(usual, 0.97, "ordinary prompts ", color="grey", ha="right", va="top")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def grid(run: Experiment, file: Path, seed: int) -> str:
    """A row a method, a column a memorized prompt, the training images on top; returns what the rows are."""
    cases, names = [c for c in run.cases if c.group == MEMORIZED][:GRID], ["the training images"]
    lines = [[work.path for work in run.works[:GRID]]]
    for method in run.methods:
        if all(run.images.kept(method, case, [seed]) for case in cases):
            lines.append([run.images.file(method, case, seed) for case in cases])
            names.append(method.name)
    sheet = Image.new("RGB", (GRID * TILE, len(lines) * TILE))
    for y, files in enumerate(lines):
        for x, path in enumerate(files):
            tile = Image.open(path).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (x * TILE, y * TILE))
    sheet.save(file, quality=75)
    return "Rows, from the top: " + "; ".join(names) + "."


def hide_unseen(run: Experiment, seed: int) -> None:
    """The images of the grid have to be here, not only what was measured on them."""
    for method in run.methods:
        for case in [c for c in run.cases if c.group == MEMORIZED][:GRID]:
            if not run.images.kept(method, case, [seed]):
                run.images.record.hide(method, case, seed)


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


def _by_group(rows: Sequence[Row], keys: Sequence[str], scorers: Scorers) -> str:
    shown = [c for c in columns(scorers) if c.key in keys]
    parts = ((group, [r for r in rows if r["group"] == group]) for group in GROUPS)
    return "\n\n".join(f"{group.capitalize()} prompts:\n\n{table(own, shown)}" for group, own in parts)


OUT = ROOT / "bench"
SHORT = ("method", "images", "copies", "aligned", "unchanged", "evaluations", "seconds_per_image", "time")
WORK = Path(tempfile.gettempdir()) / "memorization-guard-bench"


def smoke() -> int:
    """Three methods on the small lab, one seed; returns 1 unless the methods do what they are known to do."""
    with lab_host() as host, tempfile.TemporaryDirectory() as work:
        run = small_experiment(host, Path(work), SMOKE)
        run.sample()
        rows = run.rows(run.scorers())
    names = ("method", "copies", "evaluations", "time ratio")
    found = [dict(zip(names, (r["method"], r["copies"][0], r["evaluations"], r["time"]), strict=True)) for r in rows]
    print(json.dumps(found, indent=1))
    OUT.mkdir(exist_ok=True)
    (OUT / "smoke.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    none, recommended, dynamic = (row["copies"] for row in found)
    return int(not (none >= 0.8 and recommended <= 0.07 and dynamic <= 0.6))


def bench(asked: argparse.Namespace) -> int:
    def wanted(method: Method, group: str) -> range:
        count = asked.seeds if method is NONE or method in RECOMMENDED else min(asked.seeds, asked.others)
        return range(asked.first, asked.first + (min(count, asked.ordinary) if group == ORDINARY else count))

    seeds = range(asked.first, asked.first + asked.seeds)
    name = "lora" if asked.lora else asked.study
    out = OUT / name if asked.first == 1 else OUT / name / f"from-{asked.first}"
    known = LORA if asked.lora else [NONE, *STUDIES[asked.study]] if asked.study else METHODS
    # A tenth faster on a CPU; every image of a run is made so, or `unchanged` would mean nothing.
    with lab_host("" if GPU else "--force-channels-last", threads=torch.get_num_threads()) as host:
        methods = chosen(known, asked.methods)
        prompts = {MEMORIZED: asked.memorized_prompts, ORDINARY: asked.ordinary_prompts}
        if asked.lora:
            run = lora_experiment(host, asked.work / "lora", methods, wanted, seeds)
        else:
            run = experiment(
                host, asked.work, methods, wanted, seeds, prompts=prompts, sscd=asked.sscd, record=asked.record
            )
            hide_unseen(run, asked.first)
        run.sample(asked.minutes)
        scorers = run.scorers()
        facts = {k: getattr(asked, k) for k in ("seeds", "others", "ordinary", "first")}
        device = torch.cuda.get_device_name() if GPU else f"CPU, {torch.get_num_threads()} threads"
        facts |= {"torch": torch.__version__, "device": device}
        results: dict[str, Any] = {"facts": facts, "failed": run.failed, "rows": run.rows(scorers)}
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        write_page(run, results, scorers, out, ROOT / "docs" if asked.docs and out == OUT else None)
        page = ROOT / "docs" / "bench.md"
        if asked.docs and name:
            put(page, name, table(results["rows"], [*columns(scorers), *TOLD[1:]]))
        elif asked.docs and asked.first != 1:
            put(page, "other-noises", _by_group(results["rows"], SHORT[:-2], scorers))
        if asked.docs and asked.lora:
            put(page, "lora-grid", grid(run, page.parent / "img" / "bench-lora.jpg", asked.first))
        print(f"\n{_by_group(results['rows'], SHORT, scorers)}\n\n{out / 'report.md'}")
    return int(bool(run.failed))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__.splitlines()[0])
    seeds = "noises a memorized prompt, of no mitigation and the recommended methods: %(default)s here"
    parser.add_argument("--seeds", type=int, default=16 if GPU else 8, help=seeds)
    parser.add_argument("--others", type=int, default=16 if GPU else 2, help="the same, of the other methods")
    parser.add_argument("--ordinary", type=int, default=4 if GPU else 1, help="noises an ordinary prompt, at most")
    parser.add_argument("--memorized-prompts", type=int, default=24, help="how many: %(default)s here")
    parser.add_argument("--ordinary-prompts", type=int, default=49 if GPU else 24, help="how many: %(default)s here")
    parser.add_argument("--first", type=int, default=1, help="the first seed: another one is an independent run")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="parts of names; all methods otherwise")
    parser.add_argument("--lora", action="store_true", help="on an overtrained LoRA, with and without its images")
    parser.add_argument("--study", choices=STUDIES, default="", help="the settings of one method, not all methods")
    parser.add_argument("--sscd", type=Path, help="weights of sscd_disc_mixup: a second opinion on copies")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the images")
    record = "what was measured so far, by this run or on another machine: read, and written with what is new"
    parser.add_argument("--record", type=Path, metavar="FILE", help=record)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no batch after so long")
    parser.add_argument("--smoke", action="store_true", help="three rows on the small lab, for CI")
    parser.add_argument("--docs", action="store_true", help="write the tables and the plots into docs/, too")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    try:
        if asked.record and asked.sscd:
            raise BenchmarkError("--record holds no similarity by SSCD: give --sscd without it.")
        return smoke() if asked.smoke else bench(asked)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
