"""`make bench`: what each method does on the lab checkpoint, and what it costs.

    make bench                                     # everything; goes on where it was interrupted
    .host/python benchmarks/bench.py --seeds 4 --only recommended AMG
    .host/python benchmarks/bench.py --smoke            # three rows, for CI: bench/smoke.json
    .host/python benchmarks/bench.py --first 101        # an independent run, into bench/from-101/

16 memorized and 16 ordinary prompts × seeds × methods, through the real host. Pictures are kept in the
work folder; results go to bench/results.json, the page to bench/index.html and, with --docs, to docs/bench.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_lab import Bench, Scores, row
from benchmarks.detection import table
from benchmarks.lab_methods import METHODS, NONE, RECOMMENDED, Method
from benchmarks.peaks import ratios
from support import bootstrap  # noqa: F401 - it prepares the host
from support.paths import ROOT

OUT = ROOT / "bench"
SMOKE = [NONE, RECOMMENDED, next(m for m in METHODS if m.name == "dynamic, drop 0.5")]
MAIN = (NONE, RECOMMENDED)  # get all seeds, the others a part of them


def wanted(method: Method, group: str, args: argparse.Namespace) -> range:
    """Seeds of a row: ordinary prompts, of which most rows leave every bit, get half as many, or fewer."""
    count = args.seeds if method in MAIN else min(args.seeds, args.others)
    if group == "ordinary":
        count = min(args.ordinary, (count + 1) // 2)
    return range(args.first, args.first + count)


def sample(bench: Bench, plan: list[tuple[Method, str, int]]) -> None:
    """Everything of the plan that is not there yet; seeds outside, so that costs are paired in time."""
    missing = [(m, g, s) for m, g, s in plan if not bench.file(m, g, s).is_file()]
    if missing:
        bench.warm()
    began = time.monotonic()
    for i, (method, group, seed) in enumerate(missing):
        bench.run(method, group, seed)
        left = (time.monotonic() - began) / (i + 1) * (len(missing) - i - 1)
        print(f"[{i + 1}/{len(missing)}, {left / 60:.0f} min left] {method.name}, {group}, seed {seed}", flush=True)


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What `make` finds, once: the file has it from then on."""
    if not file.is_file():
        file.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def smoke(bench: Bench) -> int:
    """Three methods, 16 memorized prompts, one seed; ends with 1 if the picture is not the expected one."""
    bench.warm()
    scores, rows = Scores(bench), []
    for method in SMOKE:
        found = row(bench, scores, method, "memorized", [1])
        rows.append(
            {
                "method": method.name,
                "copies": found["copies"][0],
                "alignment": found["aligned"][0],
                "evaluations": found["evaluations"],
                "time ratio": found["time"],
            }
        )
        print(rows[-1], flush=True)
    OUT.mkdir(exist_ok=True)
    (OUT / "smoke.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    none, recommended, dynamic = (r["copies"] for r in rows)
    return int(not (none >= 0.8 and recommended <= 0.07 and dynamic <= 0.6))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32, help="noises a prompt, of no mitigation and recommended")
    parser.add_argument("--others", type=int, default=8, help="noises a memorized prompt, of the other methods")
    parser.add_argument("--ordinary", type=int, default=8, help="noises an ordinary prompt, at most")
    parser.add_argument("--first", type=int, default=1, help="the first seed: another one is an independent run")
    parser.add_argument("--only", nargs="*", metavar="FAMILY", help="methods whose name begins with one of these")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "memorization-guard-bench")
    parser.add_argument("--sample-only", action="store_true", help="fill the work folder, write nothing")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table and the plots into docs/, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    if args.smoke:
        with tempfile.TemporaryDirectory() as work:
            return smoke(Bench(Path(work)))
    chosen = [m for m in METHODS if not args.only or m is NONE or m.name.startswith(tuple(args.only))]
    seeds = {(m, g): wanted(m, g, args) for m in chosen for g in ("memorized", "ordinary")}
    bench = Bench(args.work)
    order = sorted({s for held in seeds.values() for s in held})
    sample(bench, [(m, g, s) for s in order for (m, g), held in seeds.items() if s in held])
    if args.sample_only:
        return 0
    scores = Scores(bench)
    peaks = kept(args.work / "peaks.json", lambda: ratios(NONE.name))
    rows = [{**row(bench, scores, m, g, held), "memory": peaks.get(m.name)} for (m, g), held in seeds.items()]
    facts = {"seeds": args.seeds, "others": args.others, "first": args.first, "torch": torch.__version__}
    noises = range(args.first, args.first + args.seeds)
    detection = kept(
        args.work / f"detection {args.first} {args.seeds}.json",
        lambda: table(bench, noises, noises[: -(-args.seeds // 8)]),
    )
    found = {"facts": facts, "rows": rows, "detection": detection}
    out = OUT if args.first == 1 else OUT / f"from-{args.first}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    from bench_page import write_page

    write_page(bench, out, ROOT / "docs" if args.docs and out == OUT else None)
    print(f"{out / 'index.html'}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
