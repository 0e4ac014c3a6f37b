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

import torch

from benchmarks.bench_host import host, sd15
from benchmarks.bench_memory import peak_memory
from benchmarks.bench_table import Row, save, table
from support.paths import ROOT

PARTS = ("counts", "lab", "sd15", "memory")
SIZE = 256  # pixels, at SD1.5's size
NOTES = f"""Time: CPU seconds of one thread (a quiet machine's wall time); the ratio is the median of paired runs, and
beside it that of the fastest run of each. SD1.5's size: random weights, {SIZE}×{SIZE}, bf16 (the papers' precision;
fp32 takes three times as long on this CPU). Memory: peak resident set above that before the model was built, so
weights and working memory. PyTorch's attention throughout, as the host chooses it on NVIDIA cards."""


def counted(made) -> Iterator[Row]:
    """What does not depend on the machine: evaluations, and whether a batch equals its samples."""
    from benchmarks.bench_runs import eight_together, evaluations, exact_model, in_float64, lab_checkpoint

    exact, lab = exact_model(made), lab_checkpoint(made)
    yield from evaluations(exact)
    yield from evaluations(lab)
    yield from eight_together(exact, 0)
    yield from eight_together(in_float64(lab), 0, ", float64")
    yield from eight_together(lab, 0, ", float32")


def timed_lab(made, rounds: int) -> Iterator[Row]:
    from benchmarks.bench_runs import eight_together, iteration_time, lab_checkpoint, sampling_time

    lab = lab_checkpoint(made)
    for batch in (1, 4) if rounds > 2 else (1,):
        yield from sampling_time(lab, batch, 50, rounds + 1)
        yield from iteration_time(lab, batch, 10, 10, rounds // batch + 2)
    yield from eight_together(lab, rounds // 4 + 1)


def timed_sd15(made, rounds: int) -> Iterator[Row]:
    from benchmarks.bench_runs import Subject, iteration_time, sampling_time
    from support.graphs import ksampler

    model, prompts = sd15(torch.bfloat16)
    shape = (4, SIZE // 8, SIZE // 8)
    subject = Subject(f"SD1.5, {SIZE}×{SIZE}", made, model, prompts["positive"], prompts["negative"], shape)
    subject.run(ksampler, latent=subject.latent(1), steps=1)  # warm
    yield from sampling_time(subject, 1, 5, rounds, warm=False)
    yield from iteration_time(subject, 1, 1, 2, rounds // 2, warm=False)


def memory(size: int = SIZE) -> Iterator[Row]:
    """Peaks at SD1.5's size, and the two constants by which the pack decides about memory."""
    model, vanilla = f"SD1.5, {size}×{size}", peak_memory("sampling", size)
    found = {kind: peak_memory(kind, size) for kind in ("half", "checkpoints", "graph")}
    half, on, off = found["half"], found["checkpoints"], found["graph"]
    for said, ours, other, bound in (
        ("peak memory, per-sample with checkpoints", half["peak"], vanilla["peak"], 1.5),
        ("peak memory, per-sample with full checkpoints", on["peak"], vanilla["peak"], 1.5),
        ("peak memory, per-sample without checkpoints", off["peak"], vanilla["peak"], None),
        ("the same without the weights: with checkpoints", half["working"], vanilla["working"], None),
        ("the same without the weights: with full checkpoints", on["working"], vanilla["working"], on["HEADROOM"]),
        ("the same without the weights: without checkpoints", off["working"], vanilla["working"], None),
        ("without checkpoints, over the host's estimate of a step", off["working"], off["estimate"], off["GRAPH"]),
        ("with checkpoints, over the host's estimate of a step", half["working"], half["estimate"], half["HALF"]),
    ):
        yield Row(model, said, ours, "MB", vanilla=other, bound=bound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="exact model and lab checkpoint only, under two minutes")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    began = time.monotonic()
    rows: list[Row] = []

    def collect(part: str, found: Iterator[Row]) -> None:
        own = []
        for row in found:
            own.append(row)
            print(f"[{time.monotonic() - began:4.0f} s] " + "  ".join(filter(None, row.cells())), flush=True)
        save(own, part, {"torch": torch.__version__, "machine": platform.machine()}, ROOT / "bench" / "cost.json")
        rows.extend(own)

    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    parts = PARTS[:2] if options.quick else options.parts or PARTS
    with host() as made:
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = False
        if "counts" in parts:
            collect("counts", counted(made))
        if "lab" in parts:
            collect("lab", timed_lab(made, 2 if options.quick else 8))
        if "sd15" in parts:
            collect("sd15", timed_sd15(made, 4))
    if "memory" in parts:
        collect("memory", memory())
    print(f"\n{table(rows)}\n\n{NOTES}")
    return int(any(row.verdict == "SHORT" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
