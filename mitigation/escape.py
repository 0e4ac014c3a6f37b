"""When does a trajectory leave the attraction basin? Rules on the curve of guidance magnitudes.

While a sample is inside a basin its d stays high; it drops sharply when the trajectory leaves. Every
rule here sees only the steps so far, so that the same function decides while sampling (online) and
on a finished curve (offline).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["sharp drop", "local minimum"]
RULES: tuple[Rule, ...] = ("sharp drop", "local minimum")
SETTLED = 0.85  # a step that keeps this share of d no longer counts as part of the drop


@dataclass(frozen=True)
class EscapeRule:
    """How to tell that a sample is outside the basin.

    `memorized_threshold`: relative d (d/√dim) at the first step below which there is no basin: the
    sample escapes at step 0 and an ordinary prompt loses nothing.
    `drop_ratio`: for `sharp drop`, the share of the plateau that d must fall below.
    """

    name: Rule = "sharp drop"
    drop_ratio: float = 0.5
    memorized_threshold: float = 0.02

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"unknown rule {self.name!r}: expected one of {', '.join(RULES)}")

    def memorized(self, curve: Tensor) -> Tensor:
        """(B,) bool: inside a basin at the first step. `curve`: (B, n) relative d."""
        return curve[:, 0] >= self.memorized_threshold

    def escaped(self, curve: Tensor) -> Tensor:
        """(B, n) bool: has the sample left by step i, judged by d_0 … d_i alone."""
        if curve.shape[1] == 0:
            return torch.zeros_like(curve, dtype=torch.bool)
        outside = _sharp_drop(curve, self.drop_ratio) if self.name == "sharp drop" else _local_minimum(curve)
        outside = outside | ~self.memorized(curve)[:, None]
        return outside.cummax(dim=1).values

    def transition(self, curve: Tensor) -> Tensor:
        """(B,) first step at which the sample has left; n where it has not within the curve."""
        left = self.escaped(curve)
        n = curve.shape[1]
        return torch.where(left.any(dim=1), left.int().argmax(dim=1), n) if n else torch.zeros(len(curve)).long()


def _sharp_drop(curve: Tensor, ratio: float) -> Tensor:
    """Fallen below `ratio` of the plateau (the running maximum), and the fall is over.

    At half height the trajectory is on the rim: guidance switched on there pulls it back in. So the
    drop has to end first: the last step kept SETTLED of d, or d is below ratio² of the plateau.
    """
    plateau = curve.cummax(dim=1).values
    low = curve <= ratio * plateau
    previous = torch.cat([torch.full_like(curve[:, :1], torch.inf), curve[:, :-1]], dim=1)
    settled = curve >= SETTLED * previous
    deep = curve <= ratio**2 * plateau
    return low & (settled | deep)


def _local_minimum(curve: Tensor) -> Tensor:
    """d_i > d_{i−1} and d_{i−2} > d_{i−1}: the first local minimum, one step late. [JAIN] Sec. 4.2."""
    out = torch.zeros_like(curve, dtype=torch.bool)
    out[:, 2:] = (curve[:, 2:] > curve[:, 1:-1]) & (curve[:, :-2] > curve[:, 1:-1])
    return out
