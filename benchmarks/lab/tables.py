"""`make tables`: what each choice does on the lab checkpoint, into docs/ and lab/MODEL_CARD.md.

    .host/python -m benchmarks.lab.tables rules --seeds 2 --work /some/folder

Images are kept in the work folder; delete it to measure anew.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from lab.copies import TRAINING_IMAGES
from support.in_process import lab_host
from support.paths import ROOT

from ..cases import MEMORIZED, ORDINARY
from ..methods import NONE, Method, deferred
from ..report import TOLD, columns, put, table
from .configuration import experiment
from .methods import METHODS, PULLS, TARGET, guided, noised, to
from .methods import TARGET as MAGNITUDE

if TYPE_CHECKING:
    from support.executor import Host

SCORES = "method copies aligned aligned_and_no_copy"
THRICE = "every-pair-three-times"  # a folder of the host's input directory


class Table(NamedTuple):
    page: str
    methods: Sequence[Method]
    columns: str = ""  # keys of report.columns and report.TOLD beside SCORES
    groups: tuple[str, ...] = (MEMORIZED,)


BY_NAME = {m.name: m for m in METHODS}
NOISE = [
    *(noised("per-sample", f"to {TARGET:.4f}, {c}", to(TARGET, constraint=c)) for c in ("free", "shell", "sphere")),
    *(noised("per-sample", f"to {share} × ordinary", to(round(share * MAGNITUDE, 4))) for share in (1.0, 1.5)),
    noised("per-sample", "then dynamic", to(TARGET), deferred("dynamic", **PULLS)),
    BY_NAME["search, to the target"],
]
RULES = [
    *(BY_NAME[f"static, from {p}%"] for p in (10, 20, 30)),
    *(Method("sharp drop", str(r), deferred("dynamic", **PULLS, drop_ratio=r)) for r in (0.6, 0.5, 0.4)),
    Method("local minimum", "", deferred("dynamic", **PULLS, rule="local minimum")),
    *(Method("sharp drop 0.5", f"g0 {g:g}", deferred("dynamic", **PULLS, pre_escape_cfg=g)) for g in (1.0, -1.0)),
]
ALONE = {"despecification": 13.0, "deduplication": 13.0, "dissimilarity": 10.0}
COMBINED = [  # as in the paper's Table 4
    guided(" + ".join(c), "", {"references": {"folder": THRICE}}, **{k: v * (k in c) for k, v in ALONE.items()})
    for count in (1, 2, 3)
    for c in combinations(ALONE, count)
]
ONCE = guided("deduplication, no caption occurs twice", "", **{**ALONE, "despecification": 0.0, "dissimilarity": 0.0})
CHOICES = [  # the node's defaults with one thing changed
    BY_NAME["AMG, defaults"],
    guided("AMG", "thresholds 0.4 … 0.5", threshold_min=0.4, threshold_max=0.5),
    guided("AMG", "constant growth", dissimilarity_growth="constant"),
    guided("AMG", "through model", gradient="through model"),
    guided("AMG", "every 4th step", every=4),
]
BOTH = (MEMORIZED, ORDINARY)
CFG = [Method("CFG", f"{scale:g}", deferred("off", cfg=scale)) for scale in (1.0, 0.0)]
TABLES = {
    "noise": Table("docs/noise.md", NOISE, "std relative_after reached iterations"),
    "amg": Table("docs/amg.md", [*COMBINED, ONCE]),
    "amg-choices": Table("docs/amg.md", CHOICES, groups=BOTH),
    "rules": Table("docs/escape.md", RULES, "without_cfg"),
    "checkpoint": Table("lab/MODEL_CARD.md", CFG, "images diversity", BOTH),
}


def measure(host: Host, wanted: Table, seeds: int, prompts: int, work: Path) -> str:
    """The table, as Markdown."""
    numbers = range(1, seeds + 1)
    asked = dict.fromkeys(wanted.groups, prompts)
    run = experiment(host, work, [NONE, *wanted.methods], lambda *_: numbers, numbers, prompts=asked)
    thrice = Path(run.checkpoint.module("adapter.folders").input_root()) / THRICE
    for i in range(3):
        shutil.copytree(TRAINING_IMAGES, thrice / str(i), dirs_exist_ok=True)
    run.sample()
    scorers = run.scorers()
    rows = sorted(run.rows(scorers), key=lambda r: wanted.groups.index(r["group"]))
    for held in rows:
        if held["group"] != wanted.groups[0]:
            held["method"] = f"{held['group']} prompts, {held['method']}"
    known = {c.key: c for c in [*columns(scorers), *TOLD]}
    return table(rows, [known[key] for key in f"{SCORES} {wanted.columns}".split()])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab.tables", description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="table", help=", ".join(TABLES))
    parser.add_argument("--seeds", type=int, default=1, help="noises for each prompt")
    parser.add_argument("--prompts", type=int, default=24, help="prompts of each group")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "memorization-guard-tables")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with lab_host("", threads=torch.get_num_threads()) as host:
        for name in asked.tables:
            wanted = TABLES[name]
            text = measure(host, wanted, asked.seeds, asked.prompts, asked.work)
            print(text, flush=True)
            put(ROOT / wanted.page, name, text)


if __name__ == "__main__":
    main()
