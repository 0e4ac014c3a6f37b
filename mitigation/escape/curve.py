"""The escape curve: guidance magnitude and pull per sample and step, and where each sample left the basin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..prediction import relative
from ..wording import counted

MOST_LISTED = 3  # different first guided steps that the headline names; of more it names the first and the last


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
    warning: str = ""  # the same, where the result is not what the node is for
    unmeasured_because: str = ""  # why nothing was measured, as a sentence

    @classmethod
    def unmeasured(cls, batch: int, sigmas: Tensor, dim: int, because: str = "") -> EscapeCurve:
        """The curve of a run that was guided from the start and measured nothing."""
        n = max(len(sigmas) - 1, 0)
        start = torch.zeros(batch, dtype=torch.long)
        nothing = torch.full((batch, n), torch.nan)
        return cls(nothing, nothing, sigmas.float().cpu(), dim, start, start.bool(), 0.0, unmeasured_because=because)

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
        """How many images started inside a basin, and from which step they are guided."""
        if not self.steps:
            return self.unmeasured_because or "No step was sampled."
        if bool(self.pull[:, 0].isnan().any()):
            return self.unmeasured_because or _sentence(self._left("guidance starts at", "never guided"))
        if not bool(self.memorized.any()):
            return f"Fine: {self.quiet}"
        if self.latest and not self._first_guided:
            return _sentence(self._left("", "still in the basin"))
        return f"Memorized: {self.inside}; {self._left('guidance starts at', 'still in the basin')}."

    @property
    def quiet(self) -> str:
        """`the pull is 0.0100, below the threshold 0.0200.`"""
        return f"the pull is {float(self.pull[:, 0].max()):.4f}, below the threshold {self.threshold:.4f}."

    @property
    def escape_alone(self) -> str:
        """The headline beside a warning that says how many images started inside a basin."""
        return _sentence(self._left("out of the basin from", "still in the basin"))

    @property
    def inside(self) -> str:
        """`2 of 3 images`: those that started inside a basin."""
        return f"{int(self.memorized.sum())} of {counted(self.batch, 'image')}"

    @property
    def _first_guided(self) -> list[int]:
        """The different steps at which images left, in order."""
        return sorted(set(self.transition[self.transition < max(self.steps, 1)].tolist()))

    def _left(self, since: str, otherwise: str) -> str:
        """`guidance starts at steps 1 and 3; still in the basin: 1 of 3 images`, counted from 1 as people do."""
        steps = self._first_guided
        rest = int((self.transition >= max(self.steps, 1)).sum())
        guided = [f"{since} {_steps(steps)}"] if steps else []
        return "; ".join(guided + ([f"{otherwise}: {rest} of {counted(self.batch, 'image')}"] if rest else []))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _steps(steps: list[int]) -> str:
    """`step 25`, `steps 1, 3 and 8`, `steps 20 to 27`, of steps that count from 0."""
    steps = [step + 1 for step in steps]
    if len(steps) == 1:
        return f"step {steps[0]}"
    if len(steps) > MOST_LISTED:
        return f"steps {steps[0]} to {steps[-1]}"
    return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"
