"""The labs as configurations of the harness: checkpoint, prompts, training images, plan and scorers."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from lab import copies, scenes
from support import small_lab
from support.graphs.words import Host
from support.paths import LAB_CHECKPOINT, SMALL_CHECKPOINT

from ..cases import MEMORIZED, ORDINARY, Case
from ..checkpoint import Checkpoint, Plan
from ..experiment import Experiment
from ..methods import Method
from ..sampling import Images, Wanted, prompts_together
from ..training_images import works_in
from .methods import CALIBRATED_ON
from .scorers import lab_scorers, small_scorers

PLAN = Plan(steps=30, scheduler="normal", size=scenes.SIZE)
SMALL_PLAN = Plan(sampler="euler", scheduler="normal", size=small_lab.SIZE)
GPU = torch.cuda.is_available()
TOGETHER = 24 if GPU else 4  # images of a batch: what is lost when a run is interrupted, and what memory has to hold
GROUPS = {
    MEMORIZED: tuple(Case(i, text) for i, text in enumerate(scenes.memorized_captions())),
    ORDINARY: tuple(Case(i, text, ORDINARY) for i, text in enumerate(scenes.ordinary_captions())),
}


def experiment(
    host: Host,
    folder: Path,
    methods: Sequence[Method],
    wanted: Wanted,
    seeds: Iterable[int],
    *,
    prompts: Mapping[str, int],
    sscd: Path | None = None,
) -> Experiment:
    """The lab checkpoint: the number of an image is its seed. `prompts`: how many of each group."""
    # Copies are counted against all training images: random tokens lead a prompt into another's.
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN)
    # The guard's own ordinary prompts are of words that the lab does not know.
    checkpoint.module("methods.self_calibration").PROMPTS = CALIBRATED_ON
    parts = [GROUPS[name][:count] for name, count in prompts.items()]
    return Experiment(
        checkpoint,
        Images(folder, wanted),
        methods,
        [case for part in parts for case in part],
        prompts_together(parts, seeds, TOGETHER),
        works_in(copies.TRAINING_IMAGES, checkpoint),
        lambda works: lab_scorers(works, checkpoint, sscd),
    )


def lora_experiment(
    host: Host, folder: Path, methods: Sequence[Method], wanted: Wanted, seeds: Iterable[int]
) -> Experiment:
    """The lab checkpoint with an overtrained LoRA, on the captions of its ten images."""
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN)
    checkpoint.put_lora(copies.LORA)
    cases = tuple(Case(i, caption) for i, (caption, _) in enumerate(copies.training_pairs(copies.LORA_IMAGES)))
    batches = prompts_together([cases], seeds, TOGETHER)
    works = works_in(copies.LORA_IMAGES, checkpoint)
    images, scorers = Images(folder, wanted), lambda w: lab_scorers(w, checkpoint)
    return Experiment(checkpoint, images, methods, cases, batches, works, scorers)


def small_experiment(host: Host, folder: Path, methods: Sequence[Method]) -> Experiment:
    """The memorized prompts of the tests' small lab, one image each; time is that of one CPU thread."""
    cases = [Case(i, caption) for i, (caption, _) in enumerate(small_lab.training_pairs())]
    checkpoint = Checkpoint(host, SMALL_CHECKPOINT, SMALL_PLAN, clock=time.process_time)
    works = works_in(small_lab.TRAINING_IMAGES, checkpoint)
    images = Images(folder, lambda *_: range(1, 2))
    batches = prompts_together([cases], [1], len(cases))
    return Experiment(checkpoint, images, methods, cases, batches, works, small_scorers)
