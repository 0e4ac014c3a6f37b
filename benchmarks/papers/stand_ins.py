"""Stand-in scorers for the lab checkpoint, where neither SSCD nor CLIP means anything: pixels and the lab's judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lab.copies import COPY_RMSE, rmse
from lab.judge import Judge, diversity

from .cases import PapersError
from .scorers import Scorers


class PixelCopies:
    """Similarity 1 − RMSE of the pixels (lab/copies.py)."""

    name = f"copies: pixel RMSE below {COPY_RMSE} (a stand-in for SSCD)"
    label, threshold = f"RMSE < {COPY_RMSE}", 1 - COPY_RMSE

    def __init__(self, works: Sequence[Tensor]) -> None:
        self.works = [(work * 255).round().byte().numpy() for work in works]

    def similarity(self, pictures: np.ndarray, works: Sequence[int]) -> np.ndarray:
        for i in works:
            if self.works[i].shape != pictures.shape[1:]:
                raise PapersError("The stand-in scorers compare pixels: --size must be that of the training images.")
        return np.array([1 - min(rmse(p, self.works[i]) for i in works) for p in pictures])


class JudgeAlignment:
    """1 where the lab's judge sees the shape and the colour that the caption asks for."""

    name, label, yes_or_no = "alignment: the lab's judge (a stand-in for CLIP)", "aligned", True

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def score(self, pictures: np.ndarray, text: str) -> np.ndarray:
        return self.judge.alignment(pictures, [text] * len(pictures)).aligned


class FeatureDiversity:
    """Distance of the judge's features."""

    name, label = "diversity: features of the lab's judge (a stand-in for LPIPS)", "feature distance"

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def spread(self, pictures: np.ndarray) -> float:
        return diversity(self.judge.judge(pictures).features)


def stand_ins(works: Sequence[Tensor]) -> Scorers:
    judge = Judge.load()
    copies = PixelCopies(works) if works else None
    missed = [] if works else ["copies: no --training-images"]
    return Scorers(copies, JudgeAlignment(judge), FeatureDiversity(judge), missed, stand_ins=True)
