"""The escape curve: guidance magnitude per sample and step, and where each sample left the basin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..prediction import relative


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
    hint: str = ""  # what was probably not meant, for an artist

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
    def measured(self) -> int:
        """Steps up to and with the last one that was measured."""
        seen = (~self.d.isnan()).any(dim=0).nonzero()
        return int(seen.max()) + 1 if len(seen) else 0

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

    @property
    def headline(self) -> str:
        """One line for an artist: how many were inside a basin, and from which step each is guided."""
        steps = ", ".join(str(int(t)) if t < self.steps else "never" for t in self.transition[:8])
        more = ", …" if self.batch > 8 else ""
        if not self.steps or bool(self.pull[:, 0].isnan().any()):
            return f"guided from step {steps}{more} (nothing was measured)"
        if not bool(self.memorized.any()):
            return f"no basin: pull {float(self.pull[:, 0].max()):.4f}, below {self.threshold:.4f}"
        inside = int(self.memorized.sum())
        return f"in a basin: {inside} of {self.batch}; guided from step {steps}{more}"
