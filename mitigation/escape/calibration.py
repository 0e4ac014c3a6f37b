"""Thresholds for a checkpoint, a resolution or a LoRA, from what ordinary prompts show at the first step.

The papers' constants belong to SD at 512². What carries over to another model is their relation to the guidance
magnitudes of its own ordinary prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..wording import counted

SPREADS = 2.5  # standard deviations above the ordinary mean; 1 in 160 ordinary noises if they were Gaussian
LEAST_RATIO = 1.5  # lower bound of threshold/mean, because a handful of prompts shows too little spread


@dataclass(frozen=True)
class Calibration:
    """What ordinary prompts show, and the thresholds that follow, in an EPS model's d/√dim at SD's T."""

    magnitudes: Tensor  # (prompts, B)
    sensitive: bool = False  # rather change an ordinary image than let a copy through

    @property
    def ordinary_magnitude(self) -> float:
        """The median over prompts and noises."""
        return float(self.magnitudes.median())

    @property
    def target_magnitude(self) -> float:
        """Where the per-sample adjustment may stop: at what an ordinary prompt shows.

        On the lab checkpoint (lab/MODEL_CARD.md), 24 prompts × 8 noises, 27.6 % of the images are copies without it,
        2.1 % with 1.5 times this target and none with it; 97.9 % show what was asked, of ordinary ones 100 %.
        """
        return self.ordinary_magnitude

    @property
    def memorized_threshold(self) -> float:
        """The magnitude from which a prompt counts as memorized.

        On the lab checkpoint, at the first step and measured with twelve prompts drawn at random from 49: 43 % of nine
        copies stay below it, and it flags 6 % of the other ordinary noises. Sensitive: 10 % and 26 %.
        """
        if self.sensitive:
            return LEAST_RATIO * self.ordinary_magnitude
        mean = float(self.magnitudes.mean())
        spread = float(self.magnitudes.std()) if self.magnitudes.numel() > 1 else 0.0
        return max(mean + SPREADS * spread, LEAST_RATIO * mean)

    def lines(self, prompts: list[str]) -> list[str]:
        """The suggestion, what was measured, and each prompt's own magnitude, the largest first."""
        order = self.magnitudes.mean(dim=1).argsort(descending=True).tolist()
        lines = [
            f"Suggested: memorized_threshold {self.memorized_threshold:.4f}, target_magnitude "
            f"{self.target_magnitude:.4f} (with target_units relative).",
            f"{counted(len(prompts), 'ordinary prompt')} × {counted(self.magnitudes.shape[1], 'noise')}: median pull "
            f"{self.ordinary_magnitude:.4f}, highest {float(self.magnitudes.max()):.4f}.",
        ]
        if float(self.magnitudes.max()) > self.memorized_threshold:
            lines.append(
                "The first prompt below lies above that threshold. Remove it if it could be memorized itself; "
                "otherwise prompts like it will be treated as memorized."
            )
        return [*lines, *(f"- {float(self.magnitudes[i].mean()):.4f}  {prompts[i]}" for i in order)]
