"""The labs as configurations of the harness. CLIP means nothing there: pixels and the lab's judge score images."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab import copies, scenes
from lab.judge import Judge
from support import small_lab
from support.graphs.words import Host
from support.paths import LAB_CHECKPOINT, SMALL_CHECKPOINT

from ..cases import MEMORIZED, ORDINARY, BenchmarkError, Case
from ..checkpoint import Checkpoint, Plan
from ..measured import Record
from ..methods import Method
from ..sampling import Images, Wanted, prompts_together
from ..scorers import Scorers, SSCDCopies
from ..scores import Experiment
from ..training_images import works_in
from .methods import CALIBRATED_ON

PLAN = Plan(steps=30, scheduler="normal", size=scenes.SIZE)
LORA_PLAN = replace(PLAN, cfg=3.0)  # at 7 the colours behind the copied things are too strong to count as copies
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
    record: Path | None = None,
) -> Experiment:
    """The lab checkpoint: the number of an image is its seed. `prompts`: how many of each group."""
    # Copies are counted against all training images: random tokens lead a prompt into another's.
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN)
    # The guard's own ordinary prompts are of words that the lab does not know.
    checkpoint.module("methods.self_calibration").PROMPTS = CALIBRATED_ON
    parts = [GROUPS[name][:count] for name, count in prompts.items()]
    return Experiment(
        checkpoint,
        Images(folder, wanted, Record(record)),
        methods,
        [case for part in parts for case in part],
        prompts_together(parts, seeds, TOGETHER),
        works_in(copies.TRAINING_IMAGES, checkpoint),
        lambda works: lab_scorers(works, checkpoint, sscd),
    )


def lora_experiment(
    host: Host, folder: Path, methods: Sequence[Method], wanted: Wanted, seeds: Iterable[int]
) -> Experiment:
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, LORA_PLAN)
    checkpoint.put_lora(copies.LORA)
    cases = tuple(Case(i, caption) for i, (caption, _) in enumerate(copies.training_pairs(copies.LORA_IMAGES)))
    batches = prompts_together([cases], seeds, TOGETHER)
    works = works_in(copies.LORA_IMAGES, checkpoint)
    return Experiment(
        checkpoint, Images(folder, wanted), methods, cases, batches, works, lambda w: lab_scorers(w, checkpoint)
    )


def small_experiment(host: Host, folder: Path, methods: Sequence[Method]) -> Experiment:
    """The memorized prompts of the tests' small lab, one image each; time is that of one CPU thread."""
    cases = [Case(i, caption) for i, (caption, _) in enumerate(small_lab.training_pairs())]
    checkpoint = Checkpoint(host, SMALL_CHECKPOINT, SMALL_PLAN, clock=time.process_time)
    works = works_in(small_lab.TRAINING_IMAGES, checkpoint)
    images = Images(folder, lambda *_: range(1, 2))
    batches = prompts_together([cases], [1], len(cases))
    return Experiment(checkpoint, images, methods, cases, batches, works, small_scorers)


class PixelCopies:
    """Similarity 1 − RMSE of the pixels; `measure`: (images, works) -> distances (n, m)."""

    distance = True

    def __init__(self, works: Sequence[Tensor], limit: float, measure: Callable[..., np.ndarray]) -> None:
        self.works = [(work * 255).round().byte().numpy() for work in works]
        self.label, self.threshold, self.measure = f"RMSE < {limit}", 1 - limit, measure
        self.name = f"copies: pixel RMSE below {limit}"

    def similarity(self, images: np.ndarray, works: Sequence[int]) -> np.ndarray:
        for i in works:
            if self.works[i].shape != images.shape[1:]:
                raise BenchmarkError("The lab's scorers compare pixels: --size must be that of the training images.")
        return 1 - self.measure(images, np.stack([self.works[i] for i in works])).min(1)


@dataclass
class JudgeAlignment:
    """1 where the lab's judge sees the kind of thing that the caption asks for."""

    judge: Judge
    name, label, yes_or_no = "alignment: the lab's judge (a stand-in for CLIP)", "aligned", True

    def score(self, images: np.ndarray, text: str) -> dict[str, np.ndarray]:
        return {"aligned": self.judge.aligned(images, [text] * len(images)).numpy().astype(float)}


@dataclass
class FeatureDiversity:
    judge: Judge
    name, label = "diversity: features of the lab's judge (a stand-in for LPIPS)", "feature distance"

    def spread(self, images: np.ndarray) -> float:
        return float(torch.pdist(self.judge.features(images)).mean())


def lab_scorers(works: Sequence[Tensor], checkpoint: Checkpoint, sscd: Path | None = None) -> Scorers:
    """`works`: the training images. `sscd`: SSCD's weights, for a second opinion on copies."""
    judge = Judge.load()
    pixels = PixelCopies(works, copies.COPY_RMSE, lambda *images: copies.distances(*images).numpy())
    second = SSCDCopies(checkpoint, checkpoint.copy_detector(sscd), works) if sscd else None
    return Scorers(pixels, JudgeAlignment(judge), FeatureDiversity(judge), second=second, stand_ins=True)


def small_scorers(works: Sequence[Tensor]) -> Scorers:
    """Copies of the small lab's training images; nothing else is known of its images."""

    def measure(images: np.ndarray, own: np.ndarray) -> np.ndarray:
        return np.array([[small_lab.rmse(image, work) for work in own] for image in images])

    held = PixelCopies(works, small_lab.COPY_RMSE, measure) if works else None
    return Scorers(held, missed=[] if works else ["copies: no --training-images"], stand_ins=True)
