"""When does a trajectory leave the attraction basin? Rules on what guidance would do at each step.

Two measures of the same thing. The papers' d = ‖ε̃‖₂ lives in the model's output space and grows by
itself as the noise falls, because the same change of the picture is there divided by a smaller σ. The
*pull* (prediction.pull) is that change of the picture itself, as far as it goes where the first step
pulled: flat while a sample is inside a basin, for an ordinary prompt too, and gone when the trajectory
has left. `sharp drop` looks at the pull, and so does the threshold, which then means the same for EPS, V
and flow models; `local minimum` is the paper's rule on the paper's d.

Every rule sees only the steps so far, so that the same code decides while sampling (online) and on a
finished curve (offline). Under `sharp drop` a sample that falls back is inside again: samplers that add
noise at every step can return to a basin that they had left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["sharp drop", "local minimum"]
RULES: tuple[Rule, ...] = ("sharp drop", "local minimum")
SETTLED = 0.95  # a step that keeps this share no longer counts as part of the drop
DEEP = 4  # the drop ratio to this power, and the sample is out even while the pull still falls


@dataclass(frozen=True)
class EscapeRule:
    """How to tell that a sample is outside the basin.

    `memorized_threshold`: pull at the first step below which there is no basin: the sample is outside
    from step 0 on and an ordinary prompt loses nothing. In units of an EPS model's d/√dim at SD's T.
    `drop_ratio` r: for `sharp drop`. The pull must fall to r in length and to r in direction, that is
    to r² of its plateau; above that share a sample is inside again.
    """

    name: Rule = "sharp drop"
    drop_ratio: float = 0.5
    memorized_threshold: float = 0.02

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"unknown rule {self.name!r}: expected one of {', '.join(RULES)}")

    def begun_late(self) -> EscapeRule:
        """The rule for a run that begins below T: a second stage, or image to image.

        What the pull was at T is not known there; it may have fallen to the rim of the basin already.
        So what counts as no basin is lower by the drop ratio.
        """
        return replace(self, memorized_threshold=self.drop_ratio * self.memorized_threshold)

    def track(self) -> Tracker:
        """A fresh online judge for one run."""
        return Tracker(self)


class Tracker:
    """One run's judgement, step by step; every tensor is (B,)."""

    def __init__(self, rule: EscapeRule) -> None:
        self.rule = rule
        self.seen: list[Tensor] = []  # the last two steps of what the rule looks at
        self.plateau: Tensor = torch.empty(0)  # its running maximum
        self.memorized: Tensor = torch.empty(0)  # inside a basin at the first step
        self.out: Tensor = torch.empty(0)

    @property
    def settled(self) -> bool:
        """No sample can change any more: none was ever inside."""
        return len(self.seen) > 0 and not bool(self.memorized.any())

    def update(self, d: Tensor, pull: Tensor) -> Tensor:
        """Take the next step's d and pull and return which samples are outside now."""
        sharp = self.rule.name == "sharp drop"
        seen = pull if sharp else d
        if not self.seen:
            self.plateau = seen
            self.memorized = pull >= self.rule.memorized_threshold
            self.out = ~self.memorized
        elif sharp:
            self.plateau = torch.maximum(self.plateau, seen)
            relapses = self.memorized & (seen > self.rule.drop_ratio**2 * self.plateau)
            self.out = torch.where(self.out, ~relapses, self._sharp_drop(seen))
        else:  # the paper's rule is once and for all
            self.out = self.out | self._local_minimum(seen)
        self.seen = [*self.seen[-1:], seen]
        return self.out

    def _sharp_drop(self, pull: Tensor) -> Tensor:
        """Fallen to r² of the plateau, and the fall is over.

        At half height the trajectory is on the rim: guidance switched on there pulls it back in. So
        the drop has to end first: the last step kept SETTLED of the pull, or it is below r^DEEP.
        """
        ratio = self.rule.drop_ratio
        low = pull <= ratio**2 * self.plateau
        return low & ((pull >= SETTLED * self.seen[-1]) | (pull <= ratio**DEEP * self.plateau))

    def _local_minimum(self, d: Tensor) -> Tensor:
        """d_i > d_{i−1} and d_{i−2} > d_{i−1}: the first local minimum, one step late. [JAIN] Sec. 4.2."""
        if len(self.seen) < 2:
            return torch.zeros_like(d, dtype=torch.bool)
        return (d > self.seen[-1]) & (self.seen[-2] > self.seen[-1])
