"""`python -m benchmarks.separation`: which measure of the first steps tells the noises that copy from ordinary ones.

d of the lab's memorized and ordinary prompts at the first step and after up to four guided steps. Which noises copy is
known from the benchmark's record (benchmarks/lab/measured.jsonl). The threshold is what Calibrate Thresholds derives
from captions and a noise of their own.
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from support.graphs.words import Host
from support.in_process import lab_host
from support.paths import LAB_CHECKPOINT, PACK, ROOT

from .cases import MEMORIZED, ORDINARY
from .checkpoint import Checkpoint
from .lab.configuration import GROUPS, PLAN
from .lab.methods import CALIBRATED_ON
from .methods import NONE
from .scores import Column, Row, put, table

RECORD, COUNT = ROOT / "benchmarks" / "lab" / "measured.jsonl", 24
LEVELS = (0.05, 0.1, 0.15, 0.2)  # percents of the schedule
NOISES = {MEMORIZED: range(1, 9), ORDINARY: range(1, 4)}
COPY = 0.95  # similarity, 1 − RMSE
MEASURES: dict[str, Callable[[Tensor], Tensor]] = {  # of d at each level
    "the first step": lambda d: d[:, 0],
    "the highest of three steps": lambda d: d[:, :3].amax(1),
    "the mean of three steps": lambda d: d[:, :3].mean(1),
    "the highest of four steps": lambda d: d[:, :4].amax(1),
    "the mean of four steps": lambda d: d[:, :4].mean(1),
    "the mean of five steps": lambda d: d.mean(1),
}
COLUMNS = [
    Column("measure", "measure"),
    Column("auc", "AUC", 3),
    Column("missed", "copies missed", 0),
    Column("ordinary", "ordinary images counted as memorized", 1, "%"),
    Column("others", "other images of memorized prompts counted", 0, "%"),
]
BY_PULL = [
    Column("pull", "pull, in ordinary medians"),
    Column("images", "images", 0),
    Column("copies", "copies", 0),
    Column("aligned", "show what was asked", 0),
]
PULLS = (1.0, 1.5, 2.0)


def recorded(what: Callable[[dict], bool]) -> Tensor:
    """(noises · prompts,) bool: what the record says of KSampler's images of the memorized prompts."""
    lines = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    own = [x for x in lines if (x["method"], x["group"]) == (NONE.name, MEMORIZED) and "measured" in x]
    known = {(x["image"], x["prompt"]): what(x["measured"]) for x in own}
    return torch.tensor([known[i, p] for i in NOISES[MEMORIZED] for p in range(COUNT)])


def by_pull(times: Tensor, copy: Tensor, aligned: Tensor) -> list[Row]:
    """Copies, and images that show what was asked, by the mean of four steps in ordinary medians."""
    rows = []
    for low, high in pairwise([0.0, *PULLS, math.inf]):
        there = (low <= times) & (times < high)
        span = f"below {high:g}" if not low else f"{low:g} to {high:g}" if high < math.inf else f"{low:g} and more"
        shares = {"images": int(there.sum()), "copies": int(copy[there].sum()), "aligned": int(aligned[there].sum())}
        rows.append({"pull": span, **shares})
    return rows


def ahead(checkpoint: Checkpoint, texts: list[str], noise: Tensor) -> Tensor:
    """d (n, 1 + LEVELS) of each text with its row of the noise."""
    schedule, sampling = (checkpoint.module(f"adapter.{name}") for name in ("schedule", "sampling"))
    run = checkpoint.module("adapter.two_predictions").run_in_sampling_scope
    model, found = checkpoint.model, []
    sigmas = schedule.one_step_schedule(model, None, "separation")
    levels = [float(sigmas[0]), *(schedule.sigma_of(model, percent) for percent in LEVELS)]
    for part in torch.arange(len(texts)).split(4):
        given = {"negative": checkpoint.encode([""]), "sigmas": sigmas, "seed": 0, "node": "separation"}
        samples = {"samples": torch.zeros_like(noise[part])}
        own = {"positive": checkpoint.encode([texts[i] for i in part]), "latent": samples, "noise": noise[part]}
        inputs = sampling.SamplingInputs(model=model, cfg=PLAN.cfg, **given, **own)
        found.append(run(lambda pair, x: pair.magnitudes_ahead(x, None, levels).cpu(), inputs))
    return torch.cat(found)


def measured(host: Host) -> tuple[Tensor, dict[str, Tensor]]:
    """d of the captions that calibrate, and of each group (noises · prompts, levels)."""
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN)
    drawn, empty = checkpoint.module("adapter.noise").drawn_noise, torch.zeros(COUNT, 4, PLAN.size // 8, PLAN.size // 8)
    with torch.inference_mode():
        captions = CALIBRATED_ON.splitlines()
        calibrating = ahead(checkpoint, captions, drawn(empty[:1], 0, None).expand(len(captions), -1, -1, -1))
        groups = {}
        for group, seeds in NOISES.items():
            texts = [case.text for case in GROUPS[group][:COUNT]]
            groups[group] = torch.cat([ahead(checkpoint, texts, drawn(empty, seed, None)) for seed in seeds])
            print(f"{group} prompts: {len(groups[group])} noises", flush=True)
    return calibrating, groups


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.separation", description=__doc__.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/why.md, too")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    copy, aligned = recorded(lambda x: x["copies"] > COPY), recorded(lambda x: x["aligned"]["aligned"] == 1)
    rows: list[Row] = []
    with lab_host(threads=torch.get_num_threads()) as host:
        calibrating, groups = measured(host)
        calibration = host.module(PACK, "mitigation.escape.calibration").Calibration
    for name, measure in MEASURES.items():
        memorized, ordinary = (measure(groups[group]) for group in NOISES)
        threshold = calibration(measure(calibrating)[:, None]).memorized_threshold
        copies, others = memorized[copy], memorized[~copy]
        rows.append(
            {
                "measure": name,
                "auc": float((copies[:, None] > ordinary).float().mean()),
                "missed": float((copies < threshold).sum()),
                "ordinary": float((ordinary >= threshold).float().mean()),
                "others": float((others >= threshold).float().mean()),
            }
        )
    print(f"{len(copies)} copies, {len(others)} other images of memorized prompts, {len(ordinary)} of ordinary ones")
    judge = MEASURES["the mean of four steps"]
    times = judge(groups[MEMORIZED]) / judge(calibrating).median()
    tables = {"separation": table(rows, COLUMNS), "quiet": table(by_pull(times, copy, aligned), BY_PULL)}
    for name, text in tables.items():
        print(text)
        if asked.docs:
            put(ROOT / "docs" / "why.md", name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
