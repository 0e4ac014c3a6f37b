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

from lab import vae
from lab.copies import PICTURES
from lab.judge import reference
from support.in_process import lab_host
from support.paths import ROOT

from ..cases import MEMORIZED, ORDINARY, Case
from ..checkpoint import Facts
from ..methods import NONE, Method, deferred
from ..report import TOLD, columns, put, table
from ..scorers import Scorers
from ..scores import Row, row, score
from .configuration import GROUPS, experiment
from .methods import METHODS, PER_SAMPLE, guided, noised

if TYPE_CHECKING:
    from support.executor import Host

SCORES = "method copies aligned shape colour quality"
THRICE = "every-pair-three-times"  # a folder of the host's input directory


class Table(NamedTuple):
    page: str
    methods: Sequence[Method]
    columns: str = ""  # keys of report.columns and report.TOLD beside SCORES
    groups: tuple[str, ...] = (MEMORIZED,)
    seeds: int = 2
    generated: int = 512  # images that quality is measured against


BY_NAME = {m.name: m for m in METHODS}
TARGETS = [*((0.015, c) for c in ("free", "shell", "sphere", "chi")), (0.020, "shell"), (0.020, "sphere")]
ADJUSTED = {(t, c): {**PER_SAMPLE, "target_magnitude": t, "constraint": c} for t, c in TARGETS}
NOISE = [
    *(noised("per-sample", f"to {t:.3f}, {c}", inputs) for (t, c), inputs in ADJUSTED.items()),
    noised("per-sample", "to 0.015, sphere; then dynamic", ADJUSTED[0.015, "sphere"], deferred("dynamic")),
    BY_NAME["search, 16 candidates"],
]
RULES = [
    *(BY_NAME[f"static, from {p}%"] for p in (30, 40, 50)),
    *(Method("sharp drop", str(r), deferred("dynamic", drop_ratio=r)) for r in (0.6, 0.5, 0.4)),
    Method("local minimum", "", deferred("dynamic", rule="local minimum")),
    *(Method("sharp drop 0.5", f"g0 {g:g}", deferred("dynamic", pre_escape_cfg=g)) for g in (1.0, -1.0)),
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
    BY_NAME["AMG, thresholds 0.4 … 0.5"],
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
    "checkpoint": Table("lab/MODEL_CARD.md", CFG, "diversity", BOTH, seeds=4, generated=768),
}


def of_the_generator(cases: Sequence[Case], seeds: int, scorers: Scorers) -> Row:
    """The same scores for the generator's own images through the VAE: what a perfect model gets."""
    own = vae.through(reference([c.text for c in cases], seeds * len(cases), seed=2))
    each = own.reshape(seeds, len(cases), *own.shape[1:]).swapaxes(0, 1)
    works, facts = range(len(GROUPS[MEMORIZED])), [Facts(0, 0)] * seeds
    scored = [score(images, facts, case, scorers, works) for images, case in zip(each, cases, strict=True)]
    return row(Method("the generator itself"), cases[0].group, scored, scorers)


def measure(host: Host, wanted: Table, seeds: int, work: Path) -> str:
    """The table, as Markdown."""
    numbers = range(1, seeds + 1)
    methods, asked = [NONE, *wanted.methods], {"groups": wanted.groups, "generated": wanted.generated}
    run = experiment(host, work, methods, lambda *_: numbers, numbers, **asked)
    thrice = Path(run.checkpoint.module("adapter.folders").input_root()) / THRICE
    for i in range(3):
        shutil.copytree(PICTURES, thrice / str(i), dirs_exist_ok=True)
    run.sample()
    scorers = run.scorers()
    own = [of_the_generator(GROUPS[group], seeds, scorers) for group in wanted.groups]
    rows = sorted([*own, *run.rows(scorers)], key=lambda r: wanted.groups.index(r["group"]))
    for held in rows:
        if held["group"] != wanted.groups[0]:
            held["method"] = f"{held['group']} prompts, {held['method']}"
    known = {c.key: c for c in [*columns(scorers), *TOLD]}
    return table(rows, [known[key] for key in f"{SCORES} {wanted.columns}".split()])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab.tables", description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="table", help=", ".join(TABLES))
    parser.add_argument("--seeds", type=int, help="noises for each prompt; 2 or 4 by default")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "memorization-guard-tables")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with lab_host() as host:
        for name in asked.tables:
            wanted = TABLES[name]
            text = measure(host, wanted, asked.seeds or wanted.seeds, asked.work)
            print(text, flush=True)
            put(ROOT / wanted.page, name, text)


if __name__ == "__main__":
    main()
