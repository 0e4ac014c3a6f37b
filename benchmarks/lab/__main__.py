"""`make bench`: what each method does on the lab checkpoint, and what it costs.

    make bench                                     # everything; an interrupted run is continued
    .host/python -m benchmarks.lab --seeds 4 --methods recommended AMG
    .host/python -m benchmarks.lab --smoke         # three rows, for CI: bench/smoke.json
    .host/python -m benchmarks.lab --first 101     # an independent run, into bench/from-101/

16 memorized and 16 ordinary prompts × seeds × methods, through the real host. Images are kept in the work folder;
results go to bench/results.json and bench/report.md and, with --docs, to docs/bench.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from support.in_process import lab_host
from support.paths import ROOT

from ..cases import MEMORIZED, ORDINARY, BenchmarkError
from ..methods import NONE, Method, chosen
from .configuration import experiment
from .methods import METHODS, RECOMMENDED, SMOKE
from .page import write_page

OUT = ROOT / "bench"
WORK = Path(tempfile.gettempdir()) / "memorization-guard-bench"
GENERATED = 1024


def smoke() -> int:
    """Three methods, 16 memorized prompts, one seed; returns 1 unless the methods do what they are known to do."""
    with lab_host() as host, tempfile.TemporaryDirectory() as work:
        run = experiment(host, Path(work), SMOKE, lambda *_: range(1, 2), [1], groups=[MEMORIZED])
        run.sample()
        rows = run.rows(run.scorers())
    names = ("method", "copies", "alignment", "evaluations", "time ratio")
    values = [(r["method"], r["copies"][0], r["aligned"][0], r["evaluations"], r["time"]) for r in rows]
    found = [dict(zip(names, row, strict=True)) for row in values]
    print(json.dumps(found, indent=1))
    OUT.mkdir(exist_ok=True)
    (OUT / "smoke.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    none, recommended, dynamic = (row["copies"] for row in found)
    return int(not (none >= 0.8 and recommended <= 0.07 and dynamic <= 0.6))


def bench(asked: argparse.Namespace) -> int:
    """Sample, score and write; returns 1 if a method failed."""

    def wanted(method: Method, group: str) -> range:
        """Ordinary prompts, most of whose images no method changes, get half as many seeds, or fewer."""
        count = asked.seeds if method in (NONE, RECOMMENDED) else min(asked.seeds, asked.others)
        count = min(asked.ordinary, (count + 1) // 2) if group == ORDINARY else count
        return range(asked.first, asked.first + count)

    seeds = range(asked.first, asked.first + asked.seeds)
    out = OUT if asked.first == 1 else OUT / f"from-{asked.first}"
    with lab_host() as host:
        run = experiment(host, asked.work, chosen(METHODS, asked.methods), wanted, seeds, generated=GENERATED)
        run.sample()
        scorers = run.scorers()
        results: dict[str, Any] = {
            "facts": {"seeds": asked.seeds, "others": asked.others, "first": asked.first, "torch": torch.__version__},
            "failed": run.failed,
            "rows": run.rows(scorers),
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        write_page(run, results, scorers, out, ROOT / "docs" if asked.docs and out == OUT else None)
    print(out / "report.md")
    return int(bool(run.failed))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32, help="noises a prompt, of no mitigation and recommended")
    parser.add_argument("--others", type=int, default=8, help="noises a memorized prompt, of the other methods")
    parser.add_argument("--ordinary", type=int, default=8, help="noises an ordinary prompt, at most")
    parser.add_argument("--first", type=int, default=1, help="the first seed: another one is an independent run")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="parts of names; all methods otherwise")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the images")
    parser.add_argument("--smoke", action="store_true", help="three rows, for CI")
    parser.add_argument("--docs", action="store_true", help="write the tables and the plots into docs/, too")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    try:
        return smoke() if asked.smoke else bench(asked)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
