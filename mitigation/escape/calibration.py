"""Thresholds for a checkpoint, a resolution, a LoRA: from what ordinary prompts show at the first step.

The papers' constants belong to SD at 512². There an ordinary prompt has d = 1.06 ± 0.70 and a memorized
one 12.9 ± 13.2; the target of the per-sample adjustment is 0.9, that is 0.85 of the ordinary mean
([HAN] Sec. 5). What carries over to another model is the relation to its own ordinary prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TARGET_SHARE = 0.85  # [HAN]: l_target 0.9 against an ordinary mean of 1.06
SPREADS = 2.5  # standard deviations above the ordinary mean; 1 in 160 ordinary noises if they were Gaussian
LEAST_RATIO = 1.5  # but never closer to the ordinary mean than this: a handful of prompts shows little spread


@dataclass(frozen=True)
class Calibration:
    """What ordinary prompts show, and what follows; relative magnitudes of an EPS model at SD's T."""

    magnitudes: Tensor  # (prompts, B)

    @property
    def ordinary_magnitude(self) -> float:
        """The median over prompts and noises."""
        return float(self.magnitudes.median())

    @property
    def target_magnitude(self) -> float:
        """Where the per-sample adjustment may stop: a little below what is ordinary."""
        return TARGET_SHARE * self.ordinary_magnitude

    @property
    def memorized_threshold(self) -> float:
        """Above this a first step is out of the ordinary."""
        mean = float(self.magnitudes.mean())
        spread = float(self.magnitudes.std()) if self.magnitudes.numel() > 1 else 0.0
        return max(mean + SPREADS * spread, LEAST_RATIO * mean)

    def lines(self, prompts: list[str]) -> list[str]:
        """What was found, and each prompt's own magnitude, the largest first."""
        order = self.magnitudes.mean(dim=1).argsort(descending=True).tolist()
        lines = [
            f"Suggested: memorized_threshold {self.memorized_threshold:.4f}, target_magnitude "
            f"{self.target_magnitude:.4f} (relative).",
            f"{len(prompts)} ordinary prompts x {self.magnitudes.shape[1]} noises: d/√dim "
            f"{self.ordinary_magnitude:.4f} (median), up to {float(self.magnitudes.max()):.4f}",
        ]
        if float(self.magnitudes.max()) > self.memorized_threshold:
            lines.append(
                "The first prompt below lies above that threshold. If it could be memorized itself, take it out; if "
                "not, the threshold will touch prompts like it."
            )
        return [*lines, *(f"- {float(self.magnitudes[i].mean()):.4f}  {prompts[i]}" for i in order)]


def calibrate(magnitudes: list[Tensor]) -> Calibration:
    """`magnitudes`: one (B,) a prompt."""
    return Calibration(torch.stack([m.detach().float().cpu() for m in magnitudes]))
