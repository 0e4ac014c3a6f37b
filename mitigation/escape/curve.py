"""The escape curve: guidance magnitude and pull per sample and step, and where each sample left the basin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..prediction import relative
from ..wording import counted

MOST_LISTED = 8  # images whose first guided step the headline names


@dataclass(frozen=True)
class EscapeCurve:
    """What one CFG-free or deferred run measured. All tensors are on the CPU.

    Steps count from 0: step i goes from sigmas[i] to sigmas[i + 1].
    """

    d: Tensor  # (B, n) absolute d; NaN where a step was not measured
    pull: Tensor  # (B, n) see prediction.pull; NaN likewise
    sigmas: Tensor  # (n + 1,)
    dim: int  # latent elements of a sample
    transition: Tensor  # (B,) first step outside the basin; n if it never left
    memorized: Tensor  # (B,) bool: inside a basin at the first step
    threshold: float  # the pull from which a sample counted as `memorized`
    hint: str = ""  # a remark on a setting that is probably a mistake

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
        """Steps up to and including the last one that was measured."""
        seen = (~self.d.isnan()).any(dim=0).nonzero()
        return int(seen.max()) + 1 if len(seen) else 0

    @property
    def relative(self) -> Tensor:
        """(B, n) d/√dim."""
        return relative(self.d, self.dim)

    @property
    def transition_sigma(self) -> Tensor:
        """(B,) the noise level from which each sample may be guided, for runs with another schedule.

        Infinite for a run of no steps (denoise 0), which held nothing back.
        """
        if not len(self.sigmas):
            return torch.full((self.batch,), torch.inf)
        return self.sigmas[self.transition]

    @property
    def latest(self) -> int:
        """The latest transition step of the batch."""
        return int(self.transition.max())

    @property
    def headline(self) -> str:
        """How many images started inside a basin, and from which step each is guided."""
        if not self.steps or bool(self.pull[:, 0].isnan().any()):
            return f"Nothing was measured: {self._guided_from('never guided')}."
        if not bool(self.memorized.any()):
            return f"No basin: the pull is {float(self.pull[:, 0].max()):.4f}, below {self.threshold:.4f}."
        inside = f"{int(self.memorized.sum())} of {counted(self.batch, 'image')}"
        return f"In a basin: {inside}; {self._guided_from('still in the basin')}."

    def _guided_from(self, otherwise: str) -> str:
        """`guided from step 0, 2; still in the basin: 1 of 3 images`."""
        first = self.transition[self.transition < max(self.steps, 1)].tolist()
        more = ", …" if len(first) > MOST_LISTED else ""
        guided = [f"guided from step {', '.join(map(str, first[:MOST_LISTED]))}{more}"] if first else []
        rest = self.batch - len(first)
        return "; ".join(guided + ([f"{otherwise}: {rest} of {counted(self.batch, 'image')}"] if rest else []))
