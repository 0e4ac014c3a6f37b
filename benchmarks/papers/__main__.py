"""`python -m benchmarks.papers`: read what is given, sample what is missing, score everything, write the report."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from support import in_process

from .. import scorers, training_images
from ..cases import MEMORIZED, ORDINARY, BenchmarkError
from ..checkpoint import Checkpoint, Plan
from ..experiment import Experiment
from ..sampling import Images, images_together
from . import options, report

if TYPE_CHECKING:
    from support.executor import Host

SSCD_SIDE = 320  # no training image is read smaller


def main(argv: list[str] | None = None, host: Host | None = None) -> int:
    """Run the protocol; 0 if every method came through. `host`: one that runs already, for tests."""
    try:
        asked = options.read(sys.argv[1:] if argv is None else argv)
        if asked is None:
            return 0
        packs = {p.resolve().name: p.resolve() for p in asked.pack}
        failed = run(asked, host or in_process.start(asked.out / "host", asked.comfy, packs))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


def run(asked: argparse.Namespace, host: Host) -> dict[str, str]:
    """Sample, score and write. Returns why methods failed, by name."""
    plan = Plan(asked.steps, asked.cfg, asked.sampler, asked.scheduler, asked.size)
    checkpoint = Checkpoint(host, asked.checkpoint, plan)
    works = training_images.works_in(asked.training_images, checkpoint) if asked.training_images else []
    cases = options.cases_of(asked, [w.caption for w in works])
    memorized = [c for c in cases if c.group == MEMORIZED]
    matches = training_images.match(memorized, works)
    print(f"{len(cases)} prompts; {matches.told(len(memorized))}", flush=True)
    sscd = checkpoint.copy_detector(asked.sscd) if asked.sscd is not None else None

    def make_scorers(images: list[torch.Tensor]) -> scorers.Scorers:
        if asked.lab:
            from ..lab.scorers import lab_scorers, small_scorers

            return small_scorers(images) if asked.lab == "small" else lab_scorers(images, checkpoint)
        return scorers.real(checkpoint, sscd=sscd, clip=asked.clip, works=images)

    experiment = Experiment(
        checkpoint,
        Images(asked.out / "images", lambda *_: range(asked.images)),
        asked.methods,
        cases,
        images_together(cases, asked.images, asked.batch_size, asked.seed),
        works,
        make_scorers,
        matches.works,
        asked.sscd,
        SSCD_SIDE,
    )
    if asked.score_only:
        experiment.claim()
    else:
        experiment.sample()
    used = experiment.scorers()
    found = experiment.rows(used)
    if not found:
        raise BenchmarkError("No prompt has all of its images yet: there is nothing to score.")
    facts: dict[str, Any] = {
        "checkpoint": asked.checkpoint.name,
        "constants": asked.constants,
        "plan": {**asdict(plan), "images": asked.images, "seed": asked.seed},
        "device": f"{checkpoint.model.load_device}, torch {torch.__version__}",
        "prompts": len(memorized),
        "ordinary": sum(c.group == ORDINARY for c in cases),
        "matched": matches.told(len(memorized)),
        "kinds": report.kinds(memorized),
        "failed": experiment.failed,
        "left_out": asked.left_out,
    }
    (asked.out / "results.json").write_text(json.dumps({"facts": facts, "rows": found}, indent=1), encoding="utf-8")
    (asked.out / "report.md").write_text(report.markdown(facts, found, used), encoding="utf-8")
    print(asked.out / "report.md", flush=True)
    return experiment.failed


if __name__ == "__main__":
    sys.exit(main())
