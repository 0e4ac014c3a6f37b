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
from pathlib import Path
from typing import Any

import torch

from support.in_process import lab_host
from support.paths import ROOT

from ..cases import MEMORIZED, ORDINARY, BenchmarkError
from ..methods import NONE, Method, chosen
from ..scores import TOLD, columns, put, table
from .configuration import GPU, GROUPS, experiment, lora_experiment, small_experiment
from .methods import LORA, METHODS, RECOMMENDED, SMOKE, STUDIES
from .page import write_page

OUT = ROOT / "bench"
SHORT = ("method", "images", "copies", "aligned", "evaluations_per_image", "seconds_per_image", "time")
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
    with lab_host("", threads=torch.get_num_threads()) as host:
        methods = chosen(known, asked.methods)
        prompts = {MEMORIZED: asked.memorized_prompts, ORDINARY: asked.ordinary_prompts}
        if asked.lora:
            run = lora_experiment(host, asked.work / "lora", methods, wanted, seeds)
        else:
            run = experiment(host, asked.work, methods, wanted, seeds, prompts=prompts)
        run.sample()
        scorers = run.scorers()
        facts = {k: getattr(asked, k) for k in ("seeds", "others", "ordinary", "first")}
        device = torch.cuda.get_device_name() if GPU else f"CPU, {torch.get_num_threads()} threads"
        facts |= {"torch": torch.__version__, "device": device}
        results: dict[str, Any] = {"facts": facts, "failed": run.failed, "rows": run.rows(scorers)}
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        write_page(run, results, scorers, out, ROOT / "docs" if asked.docs and out == OUT else None)
        if asked.docs and name:
            put(ROOT / "docs" / "bench.md", name, table(results["rows"], [*columns(scorers), *TOLD[1:]]))
    shown = [c for c in columns(scorers) if c.key in SHORT]
    for group in GROUPS:
        print(f"\n{group} prompts\n{table([r for r in results['rows'] if r['group'] == group], shown)}")
    print(out / "report.md")
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
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the images")
    parser.add_argument("--smoke", action="store_true", help="three rows on the small lab, for CI")
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
