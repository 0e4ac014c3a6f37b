"""Whether a model knows an image by heart, without a prompt. The measure is ours.

The image gets much noise, and the model restores it without a prompt, with several noises. A memorized image comes
back alike whatever the noise. So does an easy one: the mirror image, which is as easy, says how alike that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .wording import counted

THRESHOLD = 1.15  # lab checkpoint: 48 memorized images 1.13 … 1.76, 48 others 0.92 … 1.10
NONE = 1e-12  # a variance that is no more than rounding
SPREADS = 2.5  # standard deviations of the logarithms above the ordinary mean
AROUND = 7  # latent elements that a place is averaged over, each way together
LEAST = 1.1  # of a threshold, because a few images show too little spread


def disagreement(restored: Tensor) -> Tensor:
    """How far restorations x̂₀ (N noises, B, ...) of B images differ: the variance over the noises, a mean (B,)."""
    return restored.float().var(dim=0).flatten(1).mean(dim=1)


def familiarity(image: Tensor, mirror: Tensor) -> Tensor:
    """How much more the restorations (N, B, ...) of the mirror images differ than those of the images (B,).

    1: the model knows the image no better than its mirror image. The mirror image gets the mirrored noise, so that a
    model to which left and right are the same gives exactly 1.
    """
    return disagreement(mirror).clamp_min(NONE) / disagreement(image).clamp_min(NONE)


def places(image: Tensor, mirror: Tensor) -> Tensor:
    """Where the model knows one image (h, w), from its restorations (N, 1, C, ..., h, w).

    The mean is familiarity − 1, but for the averaging at the edges. Each place is taken together with those around it,
    because the variance of one place over a few noises says little.
    """

    def variance(restored: Tensor) -> Tensor:
        each = restored.float().var(dim=0).flatten(0, -3).mean(dim=0)
        return F.avg_pool2d(each[None], AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)[0]

    own = variance(image)
    return (variance(mirror).flip(-1) - own) / own.mean().clamp_min(NONE)


def suggested_threshold(ordinary: Tensor) -> float:
    """The familiarity from which an image counts as memorized, from those of ordinary images (B,)."""
    logs = ordinary.log()
    spread = float(logs.std()) if len(logs) > 1 else 0.0
    return max(math.exp(float(logs.mean()) + SPREADS * spread), LEAST)


def ordinary_line(ordinary: Tensor) -> str:
    """The suggestion and what was measured, in words."""
    return (
        f"Suggested for Prompt-Free Check: familiarity_threshold {suggested_threshold(ordinary):.2f}, from "
        f"{counted(len(ordinary), 'ordinary image')} of a familiarity of {float(ordinary.median()):.2f} (median) "
        f"and at most {float(ordinary.max()):.2f}."
    )


@dataclass(frozen=True)
class FamiliarityVerdict:
    """What Prompt-Free Check says of B images. `familiarity`: (B,)."""

    familiarity: Tensor
    threshold: float

    @property
    def memorized(self) -> Tensor:
        return self.familiarity >= self.threshold

    @property
    def count(self) -> str:
        return f"{int(self.memorized.sum())} of {counted(len(self.familiarity), 'image')} may be memorized"

    @property
    def alarm(self) -> str:
        return f"{self.count}." if self.memorized.any() else ""

    @property
    def lines(self) -> list[str]:
        """One per image, which is counted from 1."""
        told = enumerate(zip(self.familiarity.tolist(), self.memorized.tolist(), strict=True), 1)
        return [f"{i}: {value:.2f}  {'MEMORIZED?' if own else 'no alarm'}" for i, (value, own) in told]

    @property
    def bars(self) -> tuple[list[float], float]:
        """How far the bar under each image goes, 0 … 1, and where its mark is: on a scale of logarithms."""
        return [0.5 * value / self.scale for value in self.familiarity.log().tolist()], 0.5

    @property
    def scale(self) -> float:
        """ln of the threshold, which is at least 1."""
        return max(math.log(self.threshold), 1e-6)

    @property
    def summary(self) -> str:
        """One line per image, which is counted from 1."""
        lines = [f"- image {line}" for line in self.lines]
        rule = (
            f"A familiarity of {self.threshold:.2f} or more counts as memorized. 1 is as familiar as the mirror image."
        )
        foot = "No guarantee either way: compare by eye before you publish."
        return "\n".join([f"{self.count}.", rule, *lines, "", foot])
