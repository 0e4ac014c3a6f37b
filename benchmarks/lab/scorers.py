"""Scorers for the lab checkpoints, where CLIP means nothing: pixels, the lab's judge, and SSCD if it is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from lab import copies
from lab.judge import Judge, diversity
from support import small_lab

from ..cases import BenchmarkError
from ..checkpoint import Checkpoint
from ..scorers import Scorers, SSCDCopies


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
        return diversity(self.judge.features(images))


def lab_scorers(works: Sequence[Tensor], checkpoint: Checkpoint, sscd: Path | None = None) -> Scorers:
    """`works`: the training images. `sscd`: SSCD's weights, for a second opinion on copies."""
    judge = Judge.load()
    pixels = PixelCopies(works, copies.COPY_RMSE, lambda *images: copies.distances(*images).numpy())
    made = Scorers(pixels, JudgeAlignment(judge), FeatureDiversity(judge), stand_ins=True)
    if sscd is not None:
        made.second = SSCDCopies(checkpoint, checkpoint.copy_detector(sscd), works)
    else:
        made.missed.append("a second opinion on copies: no --sscd")
    return made


def small_scorers(works: Sequence[Tensor]) -> Scorers:
    """Copies of the small lab's training images; nothing else is known of its images."""

    def measure(images: np.ndarray, own: np.ndarray) -> np.ndarray:
        return np.array([[small_lab.rmse(image, work) for work in own] for image in images])

    held = PixelCopies(works, small_lab.COPY_RMSE, measure) if works else None
    return Scorers(held, missed=[] if works else ["copies: no --training-images"], stand_ins=True)
