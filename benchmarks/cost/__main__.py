"""`make bench-cost`: what the nodes cost, each figure paired with the vanilla KSampler in the same run.

Counts model evaluations, times runs (CPU seconds of one thread, runs interleaved, median of paired ratios) and
measures peak memory (a process of its own a figure), on the exact model, the lab checkpoint and a UNet of SD1.5's size
with random weights in bf16. Prints a table, writes bench/cost.json, and returns 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from support.graphs import ksampler
from support.in_process import lab_host
from support.paths import ROOT

from ..report import table
from .figure import COLUMNS, Figure
from .measurements import eight_together, evaluations, guidance_time, iteration_time, sampling_time
from .memory import memory
from .subjects import exact_model, in_float64, lab_checkpoint, sd15

OUT = ROOT / "bench" / "cost.json"
SIZE = 256  # pixels, at SD1.5's size
NOTES = f"""Time: CPU seconds of one thread (a quiet machine's wall time); the ratio is the median of paired runs, and
beside it that of the fastest run of each. SD1.5's size: random weights, {SIZE}×{SIZE}, bf16 (the papers' precision;
fp32 takes three times as long on this CPU). Memory: peak resident set above that before the model was built, so
weights and working memory. PyTorch's attention throughout, as the host chooses it on NVIDIA cards."""


def counts(host, quick: bool) -> Iterator[Figure]:
    """What does not depend on the machine: evaluations, and whether a batch equals its samples."""
    exact, lab = exact_model(host), lab_checkpoint(host)
    yield from evaluations(exact)
    yield from evaluations(lab)
    yield from eight_together(exact, 0)
    yield from eight_together(in_float64(lab), 0, ", float64")
    yield from eight_together(lab, 0, ", float32")


def times_of_the_lab(host, quick: bool) -> Iterator[Figure]:
    lab, rounds = lab_checkpoint(host), 2 if quick else 8
    for batch in (1,) if quick else (1, 4):
        yield from sampling_time(lab, batch, 50, rounds + 1)
        yield from iteration_time(lab, batch, 10, 10, rounds // batch + 2)
    yield from eight_together(lab, rounds // 4 + 1)


def times_of_sd15(host, quick: bool) -> Iterator[Figure]:
    subject = sd15(host, SIZE)
    subject.run(ksampler, latent=subject.latent(1), steps=1)  # warm
    yield from sampling_time(subject, 1, 5, 4, warm=False)
    yield from iteration_time(subject, 1, 1, 2, 2, warm=False)


PARTS: dict[str, Callable[..., Iterator[Figure]]] = {
    "counts": counts,
    "lab": times_of_the_lab,
    "amg": lambda host, quick: guidance_time(lab_checkpoint(host), 9),
    "sd15": times_of_sd15,
    "memory": lambda host, quick: memory(SIZE),
}
QUICK = ("counts", "lab")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)} only, under two minutes")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    logging.disable(logging.WARNING)
    began, figures = time.monotonic(), []
    kept = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    with lab_host("--cpu --use-pytorch-cross-attention") as host:
        for part in QUICK if asked.quick else asked.parts or PARTS:
            own = []
            for figure in PARTS[part](host, asked.quick):
                own.append(figure)
                shown = filter(None, figure.cells().values())
                print(f"[{time.monotonic() - began:4.0f} s] " + "  ".join(shown), flush=True)
            kept[part] = [{**asdict(f), "ratio": f.ratio, "verdict": f.verdict} for f in own]
            OUT.parent.mkdir(exist_ok=True)
            OUT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            figures += own
    print(f"\n{table([f.cells() for f in figures], COLUMNS)}\n\n{NOTES}")
    return int(any(f.verdict == "SHORT" for f in figures))


if __name__ == "__main__":
    sys.exit(main())
