"""`python -m benchmarks.papers`: read what is given, sample what is missing, score everything, write the report."""

import argparse
import json
import sys
from collections.abc import Sequence

import torch

from support import in_process
from support.graphs.words import Host

from .. import scorers, training_images
from ..cases import MEMORIZED, ORDINARY, BenchmarkError, Case
from ..checkpoint import Checkpoint, Plan
from ..sampling import Images, images_together
from ..scorers import Scorers
from ..scores import Experiment, Row, columns, table, told
from . import options

SSCD_SIDE = 320  # no training image is read smaller
NOTES = """- Intervals: 95 %, prompts and their images drawn anew 1,000 times. What is marked × is a median of ratios to
  the image of the same prompt and noise without mitigation. A backward pass is not counted as an evaluation.
- What the papers report: docs/protocol.md. Other prompts, seeds, preprocessing or scorers give other numbers: compare
  within one report first.
- This pack's own tests run this protocol on a small model made to memorize, with stand-in scorers; it was published
  without having been run on Stable Diffusion weights."""
STAND_INS = "**These are stand-ins for a lab checkpoint: the numbers say nothing about Stable Diffusion.**"


def main(argv: list[str] | None = None, host: Host = None) -> int:
    """Run the protocol; 0 if every method came through. `host`: one that runs already, for tests."""
    try:
        asked = options.read(sys.argv[1:] if argv is None else argv)
        if asked is None:
            return 0
        failed = run(asked, host or in_process.start(asked.out / "host", asked.comfy, asked.packs))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


def run(asked: argparse.Namespace, host: Host) -> dict[str, str]:
    plan = Plan(asked.steps, asked.cfg, size=asked.size)
    checkpoint = Checkpoint(host, asked.checkpoint, plan)
    works = training_images.works_in(asked.training_images, checkpoint) if asked.training_images else []
    cases = options.cases_of(asked, [w.caption for w in works])
    memorized = [c for c in cases if c.group == MEMORIZED]
    matches = training_images.match(memorized, works)
    print(f"{len(cases)} prompts; {matches.told(len(memorized))}", flush=True)
    sscd = checkpoint.copy_detector(asked.sscd) if asked.sscd is not None else None

    def make_scorers(images: list[torch.Tensor]) -> scorers.Scorers:
        if asked.lab:
            from ..lab.configuration import lab_scorers, small_scorers

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
    nobody = "none given, so the cost to ordinary prompts is unknown"
    about = [
        f"checkpoint: {asked.checkpoint.name}, constants for {asked.constants}, on {checkpoint.model.load_device}, "
        f"torch {torch.__version__}",
        f"{asked.images} images a prompt, {plan.size}×{plan.size}, {plan.steps} steps, CFG {plan.cfg:g}, sampler "
        f"{plan.sampler}, scheduler {plan.scheduler}, seed {asked.seed} + the prompt's position in its file",
        f"memorized prompts: {len(memorized)}; {matches.told(len(memorized))}",
        f"ordinary prompts: {sum(c.group == ORDINARY for c in cases) or nobody}",
        kinds(memorized),
        *(f"**{name}** failed and is incomplete or missing: {why}" for name, why in experiment.failed.items()),
        *asked.left_out,
    ]
    (asked.out / "results.json").write_text(json.dumps({"about": about, "rows": found}, indent=1), encoding="utf-8")
    (asked.out / "report.md").write_text(markdown(about, found, used), encoding="utf-8")
    print(asked.out / "report.md", flush=True)
    return experiment.failed


def markdown(about: list[str], rows: Sequence[Row], scorers: Scorers) -> str:
    lines = [*scorers.used, *(f"not measured: {why}" for why in scorers.missed), *[STAND_INS] * scorers.stand_ins]
    told_of, scored_by = ("\n".join(f"- {line}" for line in part) for part in (about, lines))
    parts = ["# The papers' protocol", f"{told_of}\n{NOTES}", "## Scorers", scored_by]
    for group in dict.fromkeys(r["group"] for r in rows):
        own = [r for r in rows if r["group"] == group]
        parts += [f"## {group[0].upper()}{group[1:]} prompts", table(own, columns(scorers))]
        if scorers.copies and any(r["images_compared"] < r["images"] for r in own):
            parts.append("Copies are counted only among images whose prompt has a training image.")
        if any(r["peer"] for r in own):
            parts.append("\\* as the authors released it, not a method of this pack.")
    if nodes := told([r for r in rows if r["group"] == MEMORIZED]):
        parts += ["## What the nodes reported", "Means over the memorized prompts.", nodes]
    return "\n\n".join(parts) + "\n"


def kinds(memorized: Sequence[Case]) -> str:
    held = [c.kind for c in memorized]
    if not any(held):
        return (
            "verbatim and template prompts are not told apart: the prompts file does not say which are which "
            "(overfit_type), and no --verbatim was given. Template prompts dilute every mean."
        )
    counts = ", ".join(f"{held.count(k)} {k or 'of unknown kind'}" for k in dict.fromkeys(held))
    return f"memorized prompts by kind: {counts}"


if __name__ == "__main__":
    sys.exit(main())
