"""The escape curve: guidance magnitude per sample and step, and where each sample left the basin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .prediction import relative


@dataclass(frozen=True)
class EscapeCurve:
    """What one CFG-free or deferred run measured. All tensors on the CPU.

    Steps count from 0: step i goes from sigmas[i] to sigmas[i + 1].
    """

    d: Tensor  # (B, n) absolute d; NaN where a step was not measured
    pull: Tensor  # (B, n) towards where the first step pulled, see prediction.pull; NaN likewise
    sigmas: Tensor  # (n + 1,)
    dim: int  # latent elements of a sample
    transition: Tensor  # (B,) first step outside the basin; n if it never left
    memorized: Tensor  # (B,) bool: inside a basin at the first step
    threshold: float  # pull that `memorized` was judged by

    @classmethod
    def unmeasured(cls, batch: int, sigmas: Tensor, dim: int) -> EscapeCurve:
        """The curve of a run that was guided from the start and measured nothing."""
        n = max(len(sigmas) - 1, 0)
        start = torch.zeros(batch, dtype=torch.long)
        nothing = torch.full((batch, n), torch.nan)
        return cls(nothing, nothing, sigmas.float().cpu(), dim, start, start.bool(), 0.0)

    @property
    def batch(self) -> int:
        return len(self.d)

    @property
    def steps(self) -> int:
        return self.d.shape[1]

    @property
    def relative(self) -> Tensor:
        """(B, n) d/√dim."""
        return relative(self.d, self.dim)

    @property
    def transition_sigma(self) -> Tensor:
        """(B,) the noise level at which each sample may be guided: how another schedule uses this curve."""
        return self.sigmas[self.transition]

    @property
    def latest(self) -> int:
        """The latest transition step of the batch."""
        return int(self.transition.max())

    def lines(self) -> list[str]:
        """One sentence a sample."""
        if not self.steps or self.d[:, 0].isnan().any():
            return [f"#{i}: not measured, guided from step {int(t)}" for i, t in enumerate(self.transition)]
        first = self.pull[:, 0]
        return [
            f"#{i}: pull {first[i]:.4f} at the first step, "
            + (
                "no basin"
                if not self.memorized[i]
                else f"in a basin, leaves at step {int(t)}"
                if t < self.steps
                else "in a basin, does not leave"
            )
            for i, t in enumerate(self.transition)
        ]
