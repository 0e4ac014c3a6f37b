"""When does a trajectory leave the attraction basin? Rules on what guidance would do at each step.

Two measures describe it. The papers' d = ‖ε̃‖₂ lives in the model's output space and grows by itself as the noise
falls, because there the same change of the image is divided by a smaller σ. The *pull* (prediction.pull) is that
change of the image itself, in the direction of the first step: it is flat while a sample is inside a basin, flat for
an ordinary prompt too, and gone when the trajectory has left. `sharp drop` uses the pull, and so does the threshold,
which then means the same for EPS, V and flow models; `local minimum` is the paper's rule on the paper's d.

Every rule sees only the steps so far, so the same code decides while sampling (online) and on a finished curve
(offline). Under `sharp drop` a sample can be inside again: samplers that add noise at every step can return to a
basin that they had left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["sharp drop", "local minimum"]
RULES: tuple[Rule, ...] = ("sharp drop", "local minimum")
LEVEL_SHARE = 0.95  # the drop has ended when a step keeps this share of the last step's pull
LATE_SHARE = 0.5  # what a late start lowers the threshold to under a rule without a drop ratio
DEEP_POWER = 4  # below r⁴ of the plateau a sample is outside even while the pull still falls


@dataclass(frozen=True)
class EscapeRule:
    """How to tell that a sample is outside the basin.

    `memorized_threshold`: the pull at the first step below which there is no basin, so that the sample is outside
    from step 0 on and an ordinary prompt loses nothing. In units of an EPS model's d/√dim at SD's T.
    `drop_ratio` r, for `sharp drop`: the pull must fall to r in length and to r in direction, that is to r² of its
    plateau. Above that share a sample is inside again.
    """

    name: Rule = "sharp drop"
    drop_ratio: float = 0.5
    memorized_threshold: float = 0.02

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"unknown rule {self.name!r}: expected one of {', '.join(RULES)}")

    def for_late_start(self) -> EscapeRule:
        """The rule for a run that begins below T: a second stage, or image to image.

        The pull at T is unknown there and may already have fallen by the drop ratio, so the threshold is lower by it.
        """
        share = self.drop_ratio if self.name == "sharp drop" else LATE_SHARE
        return replace(self, memorized_threshold=share * self.memorized_threshold)


class EscapeTracker:
    """Decides step by step which samples of one run are outside; every tensor is (B,).

    `inside`: samples that begin inside, whatever their first step shows.
    """

    def __init__(self, rule: EscapeRule, inside: Tensor | None = None) -> None:
        self.rule, self.inside = rule, inside
        self.recent: list[Tensor] = []  # the measure that the rule uses, of the last two steps
        self.plateau: Tensor = torch.empty(0)  # its running maximum
        self.memorized: Tensor = torch.empty(0)  # inside a basin at the first step
        self.outside: Tensor = torch.empty(0)

    @property
    def no_basin(self) -> bool:
        """No sample was ever inside, so none can change any more."""
        return len(self.recent) > 0 and not bool(self.memorized.any())

    def update(self, d: Tensor, pull: Tensor) -> Tensor:
        """Take the next step's d and pull and return which samples are outside now."""
        now = d if self.rule.name == "local minimum" else pull
        self.plateau = torch.maximum(self.plateau, now) if self.recent else now
        if not self.recent:
            self.memorized = pull >= self.rule.memorized_threshold
            if self.inside is not None:
                self.memorized = self.memorized | self.inside
            self.outside = ~self.memorized
        elif self.rule.name == "sharp drop":
            relapses = self.memorized & (now > self.rule.drop_ratio**2 * self.plateau)
            self.outside = torch.where(self.outside, ~relapses, self._sharp_drop(now))
        elif self.rule.name == "local minimum":  # the paper's rule is final: no sample falls back
            self.outside = self.outside | self._local_minimum(now)
        self.recent = [*self.recent[-1:], now]
        return self.outside

    def _sharp_drop(self, pull: Tensor) -> Tensor:
        """The pull has fallen to r² of the plateau, and the fall is over.

        Guidance that starts during the fall pulls the trajectory back into the basin, so the fall has to end first:
        the last step kept LEVEL_SHARE of the pull, or the pull is below r^DEEP_POWER of the plateau.
        """
        ratio = self.rule.drop_ratio
        low = pull <= ratio**2 * self.plateau
        return low & ((pull >= LEVEL_SHARE * self.recent[-1]) | (pull <= ratio**DEEP_POWER * self.plateau))

    def _local_minimum(self, d: Tensor) -> Tensor:
        """d_i > d_{i−1} and d_{i−2} > d_{i−1}: the first local minimum, one step late. [JAIN] Sec. 4.2."""
        if len(self.recent) < 2:
            return torch.zeros_like(d, dtype=torch.bool)
        return (d > self.recent[-1]) & (self.recent[-2] > self.recent[-1])
