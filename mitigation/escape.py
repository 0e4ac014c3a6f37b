"""When does a trajectory leave the attraction basin? Rules on the curve of guidance magnitudes.

While a sample is inside a basin its d stays high; it drops sharply when the trajectory leaves. Every
rule here sees only the steps so far, so that the same code decides while sampling (online) and on a
finished curve (offline). Under `sharp drop` a sample that falls back is inside again: samplers that add
noise at every step can return to a basin that they had left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["sharp drop", "local minimum"]
RULES: tuple[Rule, ...] = ("sharp drop", "local minimum")
SETTLED = 0.85  # a step that keeps this share of d no longer counts as part of the drop
DEEP = 3  # so many times the drop ratio, and the sample is out even while d still falls


@dataclass(frozen=True)
class EscapeRule:
    """How to tell that a sample is outside the basin.

    `memorized_threshold`: relative d (d/√dim) at the first step below which there is no basin: the
    sample is outside from step 0 on and an ordinary prompt loses nothing.
    `drop_ratio`: for `sharp drop`, the share of the plateau that d must fall below, and that brings a
    sample back inside.
    """

    name: Rule = "sharp drop"
    drop_ratio: float = 0.5
    memorized_threshold: float = 0.02

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"unknown rule {self.name!r}: expected one of {', '.join(RULES)}")

    def track(self) -> Tracker:
        """A fresh online judge for one run."""
        return Tracker(self)

    def outside(self, curve: Tensor) -> Tensor:
        """(B, n) bool: outside at step i, judged by d_0 … d_i alone. `curve`: (B, n) relative d."""
        track = self.track()
        steps = [track.update(d) for d in curve.unbind(dim=1)]
        return torch.stack(steps, dim=1) if steps else torch.zeros_like(curve, dtype=torch.bool)


class Tracker:
    """One run's judgement, step by step; every tensor is (B,)."""

    def __init__(self, rule: EscapeRule) -> None:
        self.rule = rule
        self.seen: list[Tensor] = []  # the last two d
        self.plateau: Tensor = torch.empty(0)  # the running maximum of d
        self.memorized: Tensor = torch.empty(0)  # inside a basin at the first step
        self.out: Tensor = torch.empty(0)

    @property
    def settled(self) -> bool:
        """No sample can change any more: none was ever inside."""
        return len(self.seen) > 0 and not bool(self.memorized.any())

    def update(self, d: Tensor) -> Tensor:
        """Take the next step's relative d and return which samples are outside now."""
        if not self.seen:
            self.plateau = d
            self.memorized = d >= self.rule.memorized_threshold
            self.out = ~self.memorized
        else:
            self.plateau = torch.maximum(self.plateau, d)
            if self.rule.name == "sharp drop":
                relapses = self.memorized & (d > self.rule.drop_ratio * self.plateau)
                self.out = torch.where(self.out, ~relapses, self._sharp_drop(d))
            else:  # the paper's rule is once and for all
                self.out = self.out | self._local_minimum(d)
        self.seen = [*self.seen[-1:], d]
        return self.out

    def _sharp_drop(self, d: Tensor) -> Tensor:
        """Fallen below the ratio of the plateau, and the fall is over.

        At half height the trajectory is on the rim: guidance switched on there pulls it back in. So
        the drop has to end first: the last step kept SETTLED of d, or d is below ratio^DEEP of the
        plateau.
        """
        ratio = self.rule.drop_ratio
        low = d <= ratio * self.plateau
        return low & ((d >= SETTLED * self.seen[-1]) | (d <= ratio**DEEP * self.plateau))

    def _local_minimum(self, d: Tensor) -> Tensor:
        """d_i > d_{i−1} and d_{i−2} > d_{i−1}: the first local minimum, one step late. [JAIN] Sec. 4.2."""
        if len(self.seen) < 2:
            return torch.zeros_like(d, dtype=torch.bool)
        return (d > self.seen[-1]) & (self.seen[-2] > self.seen[-1])
