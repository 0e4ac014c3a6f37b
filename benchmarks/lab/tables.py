"""`make tables`: what each choice does on the lab checkpoint, into docs/ and lab/MODEL_CARD.md.

    .host/python -m benchmarks.lab.tables rules --seeds 2 --work /some/folder

Images are kept in the work folder; delete it to measure anew.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab import vae
from lab.judge import reference
from support.in_process import lab_host
from support.paths import ROOT

from ..cases import MEMORIZED, ORDINARY, Case
from ..checkpoint import Facts
from ..methods import NONE, Inputs, Method, deferred
from ..report import TOLD, columns, put, table
from ..scorers import Scorers
from ..scores import Row, row, score
from ..training_images import copy_to_input
from .configuration import GROUPS, experiment
from .methods import METHODS, PER_SAMPLE, guided, noised

if TYPE_CHECKING:
    from support.executor import Host

CONSTRAINTS = ("free", "shell", "sphere", "chi")


class Table(NamedTuple):
    page: str
    methods: Callable[[Inputs], list[Method]]  # from the inputs that make references of every pair three times
    columns: str  # keys of report.columns and report.TOLD
    groups: tuple[str, ...] = (MEMORIZED,)
    seeds: int = 2
    generated: int = 512  # images that quality is measured against


def noise_methods(_: Inputs) -> list[Method]:
    """Initial noise alone: CFG from the first step, every constraint, two targets."""
    tried = [(0.015, c) for c in CONSTRAINTS] + [(0.020, c) for c in ("shell", "sphere")]
    methods = [
        noised("per-sample", f"to {target:.3f}, {kept}", {**PER_SAMPLE, "target_magnitude": target, "constraint": kept})
        for target, kept in tried
    ]
    sphere = {**PER_SAMPLE, "constraint": "sphere"}
    both = noised("per-sample", "to 0.015, sphere; then dynamic", sphere, deferred("dynamic"))
    return [NONE, *methods, both, named("search, 16 candidates")]


def rule_methods(_: Inputs) -> list[Method]:
    """Deferral alone: the rules and their strengths, against static starts that leave out as many steps."""
    drops = [Method("sharp drop", str(r), deferred("dynamic", drop_ratio=r)) for r in (0.6, 0.5, 0.4)]
    opposite = [Method("sharp drop 0.5", f"g0 {g:g}", deferred("dynamic", pre_escape_cfg=g)) for g in (1.0, -1.0)]
    static = [named(f"static, from {p}%") for p in (30, 40, 50)]
    return [NONE, *static, *drops, Method("local minimum", "", deferred("dynamic", rule="local minimum")), *opposite]


def amg_methods(thrice: Inputs) -> list[Method]:
    """Each guidance of AMG alone and each combination, as in the paper's Table 4."""
    strengths = {"despecification": 13.0, "deduplication": 13.0, "dissimilarity": 10.0}
    found = [
        guided(" + ".join(chosen), "", {"references": thrice}, **{k: v * (k in chosen) for k, v in strengths.items()})
        for count in (1, 2, 3)
        for chosen in combinations(strengths, count)
    ]
    alone = {"despecification": 0.0, "dissimilarity": 0.0, "deduplication": 13.0}
    return [NONE, *found, guided("deduplication, no caption occurs twice", "", **alone)]


def amg_choices(_: Inputs) -> list[Method]:
    """The node's defaults with one thing changed."""
    tried: dict[str, Inputs] = {
        "constant growth": {"dissimilarity_growth": "constant"},
        "through model": {"gradient": "through model"},
        "every 4th step": {"every": 4},
    }
    known = [named("AMG, defaults"), named("AMG, thresholds 0.4 … 0.5")]
    return [NONE, *known, *(guided("AMG", name, **changed) for name, changed in tried.items())]


def cfg_methods(_: Inputs) -> list[Method]:
    """The checkpoint itself, with less guidance."""
    return [NONE, *(Method("CFG", f"{scale:g}", deferred("off", cfg=scale)) for scale in (1.0, 0.0))]


def named(name: str) -> Method:
    return next(m for m in METHODS if m.name == name)


def of_the_generator(cases: Sequence[Case], seeds: int, scorers: Scorers) -> Row:
    """The same scores for the generator's own images through the VAE: what a perfect model gets."""
    own = vae.through(reference([c.text for c in cases], seeds * len(cases), seed=2))
    each = own.reshape(seeds, len(cases), *own.shape[1:]).swapaxes(0, 1)
    works, facts = range(len(GROUPS[MEMORIZED])), [Facts(0, 0)] * seeds
    scored = [score(images, facts, case, scorers, works) for images, case in zip(each, cases, strict=True)]
    return row(Method("the generator itself"), cases[0].group, scored, scorers)


SCORES = "method copies aligned shape colour quality"
BOTH = (MEMORIZED, ORDINARY)
TABLES = {
    "noise": Table("docs/noise.md", noise_methods, f"{SCORES} std relative_after reached iterations"),
    "amg": Table("docs/amg.md", amg_methods, SCORES),
    "amg-choices": Table("docs/amg.md", amg_choices, SCORES, BOTH),
    "rules": Table("docs/escape.md", rule_methods, f"{SCORES} without_cfg"),
    "checkpoint": Table("lab/MODEL_CARD.md", cfg_methods, f"{SCORES} diversity", BOTH, seeds=4, generated=768),
}


def measure(host: Host, wanted: Table, seeds: int, work: Path) -> str:
    """The table, as Markdown."""
    numbers = range(1, seeds + 1)
    run = experiment(host, work, [], lambda *_: numbers, numbers, groups=wanted.groups, generated=wanted.generated)
    thrice = copy_to_input(run.works * 3, {i: w.caption for i, w in enumerate(run.works * 3)}, run.checkpoint)
    run.methods = wanted.methods({"folder": thrice})
    run.sample()
    scorers = run.scorers()
    own = [of_the_generator(GROUPS[group], seeds, scorers) for group in wanted.groups]
    rows = sorted([*own, *run.rows(scorers)], key=lambda r: wanted.groups.index(r["group"]))
    for held in rows:
        if held["group"] != wanted.groups[0]:
            held["method"] = f"{held['group']} prompts, {held['method']}"
    known = {c.key: c for c in [*columns(scorers), *TOLD]}
    return table(rows, [known[key] for key in wanted.columns.split()])


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
