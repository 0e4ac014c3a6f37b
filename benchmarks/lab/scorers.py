"""Scorers for the lab checkpoint, where SSCD and CLIP mean nothing: pixels, the lab's judge and its generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lab import vae
from lab.copies import COPY_RMSE, rmse
from lab.judge import Judge, diversity, frechet, reference

from ..cases import BenchmarkError, Case
from ..scorers import Scorers


class PixelCopies:
    """Similarity 1 − RMSE of the pixels (lab/copies.py)."""

    name = f"copies: pixel RMSE below {COPY_RMSE} (a stand-in for SSCD)"
    label, threshold, distance = f"RMSE < {COPY_RMSE}", 1 - COPY_RMSE, True

    def __init__(self, works: Sequence[Tensor]) -> None:
        self.works = [(work * 255).round().byte().numpy() for work in works]

    def similarity(self, images: np.ndarray, works: Sequence[int]) -> np.ndarray:
        for i in works:
            if self.works[i].shape != images.shape[1:]:
                raise BenchmarkError("The lab's scorers compare pixels: --size must be that of the training images.")
        return np.array([1 - min(rmse(image, self.works[i]) for i in works) for image in images])


@dataclass
class JudgeAlignment:
    """1 where the lab's judge sees the shape and the colour that the caption asks for."""

    judge: Judge
    name, label, yes_or_no = "alignment: the lab's judge (a stand-in for CLIP)", "aligned", True

    def score(self, images: np.ndarray, text: str) -> dict[str, np.ndarray]:
        return self.judge.alignment(images, [text] * len(images))._asdict()


@dataclass
class FeatureDiversity:
    judge: Judge
    name, label = "diversity: features of the lab's judge (a stand-in for LPIPS)", "feature distance"

    def spread(self, images: np.ndarray) -> float:
        return diversity(self.judge.judge(images).features)


class GeneratorQuality:
    """Fréchet distance of the judge's features to `count` of the generator's own images of the same prompts."""

    def __init__(self, judge: Judge, count: int) -> None:
        self.judge, self.count = judge, count
        self.name = f"quality: Fréchet distance to {count} of the generator's images"
        self._targets: dict[tuple[str, ...], np.ndarray] = {}

    def distance(self, images: np.ndarray, cases: Sequence[Case]) -> float:
        texts = tuple(c.text for c in cases)
        if texts not in self._targets:
            self._targets[texts] = self.judge.judge(vae.through(reference(texts, self.count, seed=1))).features
        return frechet(self.judge.judge(images).features, self._targets[texts])


def lab_scorers(works: Sequence[Tensor], generated: int = 0) -> Scorers:
    """`works`: the training images. `generated`: how many images quality is measured against; 0 leaves it out."""
    judge = Judge.load()
    quality = GeneratorQuality(judge, generated) if generated else None
    missed = [] if works else ["copies: no --training-images"]
    copies = PixelCopies(works) if works else None
    return Scorers(copies, JudgeAlignment(judge), FeatureDiversity(judge), quality, missed, stand_ins=True)
