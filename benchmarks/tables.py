"""The tables of docs/: what each choice does on the lab checkpoint.

    make tables                        # all of them, into docs/
    .host/python benchmarks/tables.py rules --seeds 2 --work /some/folder

Rows are kept in the work folder; delete it to measure anew.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from benchmarks.study import Row, Study, amg, deferred, optimizer, references
from memorization_guard.mitigation.noise.norm_constraint import CONSTRAINTS
from support import bootstrap  # noqa: F401 - it prepares the host
from support.paths import ROOT

# The target lies below what the 16 memorized prompts show (0.038) and above ordinary ones (0.009).
PLAN = {"target_magnitude": 0.015, "learning_rate": 0.03, "max_iterations": 80, "constraint": "sphere"}


def noise_table(study: Study) -> list[Row]:
    """Initial noise alone: CFG from the first step, every constraint, two targets."""
    rows = [study.generator("the generator itself"), study.row("no mitigation", {"k": deferred("off")})]
    tried = [(0.015, c) for c in CONSTRAINTS] + [(0.020, c) for c in ("shell", "sphere")]
    for target, constraint in tried:
        prompt = {
            "n": optimizer(**{**PLAN, "target_magnitude": target, "constraint": constraint}),
            "k": deferred("off", noise=["n", 0]),
        }
        rows.append(study.row(f"per-sample to {target:.3f}, {constraint}", prompt))
    both = {"n": optimizer(**PLAN), "k": deferred("dynamic", noise=["n", 0])}
    rows.append(study.row("per-sample to 0.015, sphere; then dynamic", both))
    search = {"n": optimizer("search", candidates=16), "k": deferred("off", noise=["n", 0])}
    rows.append(study.row("search, 16 candidates", search))
    return rows


def rule_table(study: Study) -> list[Row]:
    """Deferral alone: the rules and their strengths, against static starts that spend as many steps."""
    rows = [study.row("no mitigation", {"k": deferred("off")})]
    for percent in (0.3, 0.4, 0.5):
        rows.append(study.row(f"static, from {percent:.0%}", {"k": deferred("static", start_percent=percent)}))
    for ratio in (0.6, 0.5, 0.4):
        rows.append(study.row(f"sharp drop {ratio}", {"k": deferred("dynamic", drop_ratio=ratio)}))
    rows.append(study.row("local minimum", {"k": deferred("dynamic", rule="local minimum")}))
    for g0 in (1.0, -1.0):
        rows.append(study.row(f"sharp drop 0.5, g0 {g0:g}", {"k": deferred("dynamic", pre_escape_cfg=g0)}))
    return rows


def guided(study: Study, name: str, group: str = "memorized", copies: int = 3, **changed: Any) -> Row:
    """KSampler on a model that AMG Guidance has patched."""
    sampler = deferred("off", group, model=["g", 0])
    return study.row(name, {"r": references(copies), "g": amg(**changed), "k": sampler}, group)


def amg_table(study: Study) -> list[Row]:
    """Each guidance of AMG alone and each pair, as in the paper's Table 4; then the choices that it leaves open."""
    strengths = {"despecification": 13.0, "deduplication": 13.0, "dissimilarity": 10.0}
    rows = [study.generator("the generator itself"), study.row("no mitigation", {"k": deferred("off")})]
    for count in (1, 2, 3):
        for chosen in combinations(strengths, count):
            rows.append(guided(study, " + ".join(chosen), **{k: v * (k in chosen) for k, v in strengths.items()}))
    off = {"despecification": 0.0, "dissimilarity": 0.0}
    rows.append(guided(study, "deduplication, no caption occurs twice", copies=1, **{**off, "deduplication": 13.0}))
    return rows


def amg_choices(study: Study) -> list[Row]:
    """The node's defaults with one thing changed, for memorized and for ordinary prompts."""
    tried: dict[str, dict[str, Any]] = {
        "defaults": {},
        "threshold 0.4 … 0.5": {"threshold_min": 0.4, "threshold_max": 0.5},
        "constant growth": {"dissimilarity_growth": "constant"},
        "through model": {"gradient": "through model"},
        "every 4th step": {"every": 4},
    }
    rows = [guided(study, name, **changed) for name, changed in tried.items()]
    rows.append(study.generator("ordinary prompts, the generator itself", "ordinary"))
    rows.append(study.row("ordinary prompts, no mitigation", {"k": deferred("off", "ordinary")}, "ordinary"))
    for name in ("defaults", "threshold 0.4 … 0.5"):
        rows.append(guided(study, f"ordinary prompts, {name}", "ordinary", **tried[name]))
    return rows


COLUMNS = {
    "copies": ("copies", "{:.1%}"),
    "aligned": ("aligned", "{:.1%}"),
    "shape": ("shape right", "{:.1%}"),
    "colour": ("colour right", "{:.1%}"),
    "quality": ("Fréchet", "{:.1f}"),
    "without_cfg": ("steps without CFG", "{:.1%}"),
    "std": ("noise std", "{:.2f}"),
    "d_after": ("d/√dim after", "{:.4f}"),
    "reached": ("reached", "{:.0%}"),
    "iterations": ("iterations", "{:.0f}"),
}
SCORES = ["copies", "aligned", "shape", "colour", "quality"]
TABLES = {
    "noise": (noise_table, "noise.md", ["copies", "aligned", "shape", "colour", "quality", *list(COLUMNS)[6:]]),
    "amg": (amg_table, "amg.md", SCORES),
    "amg-choices": (amg_choices, "amg.md", SCORES),
    "rules": (rule_table, "escape.md", ["copies", "aligned", "shape", "colour", "quality", "without_cfg"]),
}


def markdown(rows: list[Row], columns: list[str]) -> str:
    head = ["", *(COLUMNS[c][0] for c in columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        values = [getattr(row, c) for c in columns]
        shown = ["" if v != v else COLUMNS[c][1].format(v) for c, v in zip(columns, values, strict=True)]
        lines.append("| " + " | ".join([row.name, *shown]) + " |")
    return "\n".join(lines)


def put(file: Path, name: str, table: str) -> None:
    """Replace what stands between the page's two marks."""
    begin, end = f"<!-- table: {name} -->", "<!-- end -->"
    text = file.read_text(encoding="utf-8")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    file.write_text(re.sub(pattern, f"{begin}\n{table}\n{end}", text, flags=re.S), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="table", help=" or ".join(TABLES))
    parser.add_argument("--seeds", type=int, default=2, help="noises for each of the 16 prompts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "memorization-guard-tables")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.tables:
        make, page, columns = TABLES[name]
        table = markdown(make(Study(args.work, args.seeds)), columns)
        print(table, flush=True)
        if (ROOT / "docs" / page).is_file():
            put(ROOT / "docs" / page, name, table)


if __name__ == "__main__":
    main()
