"""`make bench-cost`: what the nodes cost, each figure paired with the vanilla KSampler in the same run.

Counts model evaluations, times runs (CPU seconds of one thread, runs interleaved, median of paired
ratios) and measures peak memory (a process of its own a figure), on the exact model, the lab
checkpoint and a UNet of SD1.5's size with random weights in bf16. Prints a table, writes bench/cost.json, and ends
with 1 when a bound is missed. `--quick` leaves SD1.5's size out.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

import torch

from bench_host import host, sd15
from bench_memory import peak_memory
from bench_table import Row, save, table

SIZE = 256  # pixels, at SD1.5's size
NOTES = f"""Time is CPU seconds of one thread (wall time of a quiet machine); the ratio is the median of paired runs.
SD1.5's size: random weights, {SIZE}×{SIZE}, bf16 (the papers' precision; fp32 takes three times as long on this CPU),
5 steps. Memory: peak resident set above that before the model was built, weights and working memory together."""


def counted(made) -> Iterator[Row]:
    """What does not depend on the machine: evaluations, and whether a batch equals its samples."""
    from bench_runs import eight_together, evaluations, exact_model, in_float64, lab_checkpoint

    exact, lab = exact_model(made), lab_checkpoint(made)
    yield from evaluations(exact)
    yield from evaluations(lab)
    yield from eight_together(exact, 0)
    yield from eight_together(in_float64(lab), 0, ", float64")
    yield from eight_together(lab, 0, ", float32")


def timed_lab(made, rounds: int) -> Iterator[Row]:
    from bench_runs import eight_together, iteration_time, lab_checkpoint, sampling_time

    lab = lab_checkpoint(made)
    yield from sampling_time(lab, 50, rounds)
    yield from iteration_time(lab, 10, 10, rounds)
    yield from eight_together(lab, max(rounds // 4, 1))


def timed_sd15(made, rounds: int) -> Iterator[Row]:
    from bench_runs import Subject, iteration_time, sampling_time

    model, prompts = sd15(torch.bfloat16)
    shape = (4, SIZE // 8, SIZE // 8)
    subject = Subject(f"SD1.5, {SIZE}×{SIZE}", made, model, prompts["positive"], prompts["negative"], shape)
    yield from sampling_time(subject, 5, rounds)
    yield from iteration_time(subject, 1, 2, rounds)


def memory(size: int = SIZE) -> Iterator[Row]:
    """Peaks at SD1.5's size. Working memory, the peak without the weights, has no bound and is for comparison."""
    model, vanilla = f"SD1.5, {size}×{size}", peak_memory("sampling", size)
    for name, kind, bound in (("with checkpoints", "checkpoints", 1.5), ("without checkpoints", "graph", None)):
        ours = peak_memory(kind, size)
        for what, limit in (("peak", bound), ("working", None)):
            said = f"{what} memory, per-sample {name}"
            yield Row(model, said, ours[what], "MB", vanilla=vanilla[what], bound=limit)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="exact model and lab checkpoint only, under two minutes")
    parser.add_argument("--memory", type=int, metavar="SIZE", help="only the memory, at this size in pixels")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    began, rows = time.monotonic(), []

    def collect(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            print(f"[{time.monotonic() - began:4.0f} s] " + "  ".join(filter(None, row.cells())), flush=True)

    if options.memory:
        collect(memory(options.memory))
    else:
        with host() as made:
            import comfy.utils

            comfy.utils.PROGRESS_BAR_ENABLED = False
            collect(counted(made))
            collect(timed_lab(made, 5 if options.quick else 13))
            if not options.quick:
                collect(timed_sd15(made, 3))
        if not options.quick:
            collect(memory())
    print(f"\n{table(rows)}\n\n{NOTES}")
    facts = {"torch": torch.__version__, "machine": platform.machine(), "seconds": round(time.monotonic() - began)}
    save(rows, facts, ROOT / "bench" / "cost.json")
    return int(any(row.verdict == "SHORT" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
