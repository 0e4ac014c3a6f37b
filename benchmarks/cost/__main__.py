"""`make bench-cost`: what the nodes cost, against the vanilla KSampler in the same run.

Evaluations on the exact model and the lab checkpoint, then time and peak memory, also on models of SD1.5's and SDXL's
size with random weights in bf16. The exit status is 1 if a count misses its bound.
"""

import argparse
import logging
import sys
import time

import torch

from support.in_process import lab_host

from ..scores import table
from .measurements import COLUMNS, PRICE, evaluations, exact_model, lab_checkpoint, prices, random_model

LAB, LAB_STEPS, LAB_ROUNDS = "lab", 30, 3


def main() -> int:
    gpu = torch.cuda.is_available()
    rounds, sides = 3 if gpu else 1, {"SD1.5": 512, "SDXL": 1024} if gpu else {"SD1.5": 64, "SDXL": 64}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{LAB}, {', '.join(sides)}; all by default")
    parser.add_argument("--side", type=int, help="pixels")
    parser.add_argument("--channels", type=int, default=320 if gpu else 64, help="320 is the real size")
    parser.add_argument("--steps", type=int, default=50 if gpu else 4)
    asked = parser.parse_args()
    if unknown := set(asked.models) - {LAB, *sides}:
        parser.error(f"no such model: {', '.join(unknown)}")
    logging.disable(logging.WARNING)
    began, rows = time.monotonic(), []
    with lab_host("--use-pytorch-cross-attention") as host:
        figures = [*evaluations(exact_model(host)), *evaluations(lab_checkpoint(host))]
        print(table(figures, COLUMNS), flush=True)
        for kind in asked.models or (LAB, *sides):
            if kind == LAB:
                rows += prices(lab_checkpoint(host), LAB_STEPS, LAB_ROUNDS)
                continue
            subject = random_model(host, kind, asked.side or sides[kind], asked.channels)
            rows += prices(subject, asked.steps, rounds)
    device = torch.cuda.get_device_name() if gpu else "CPU, one thread: says nothing about a GPU"
    print(f"\n{table(rows, PRICE)}\n\n{device}; torch {torch.__version__}, one image; medians of {rounds} rounds of")
    print(f"{asked.steps} steps in bf16, on the lab checkpoint {LAB_ROUNDS} rounds of {LAB_STEPS} steps in fp32.")
    print(f"{time.monotonic() - began:.0f} s.")
    return int(any(figure.get("verdict") == "SHORT" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
