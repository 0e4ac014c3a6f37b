"""What Anti-Memorization Guidance measured and did, step by step and image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..wording import counted

GUIDANCES = ("despecification", "deduplication", "dissimilarity")


@dataclass
class GuidanceTrace:
    """The record of one run, filled while it samples; every tensor is on the CPU. Steps count from 0.

    Some samplers evaluate the model several times a step: the closeness kept is that of the first evaluation, the
    strength of a guidance the largest of the step.
    """

    sigmas: Tensor  # (n + 1,)
    batch: int
    threshold: Tensor = field(init=False)  # (n,) λ_t; NaN where nothing was measured
    closeness: Tensor = field(init=False)  # (B, n) σ_t on the scale where 0.5 is memorized; NaN likewise
    nearest: Tensor = field(init=False)  # (B, n) row of the nearest reference; −1 likewise
    despecification: Tensor = field(init=False)  # (B, n) s₁; 0 where it did not act
    deduplication: Tensor = field(init=False)  # (B, n) s₂
    dissimilarity: Tensor = field(init=False)  # (B, n) length of its step, as a share of ‖D‖
    pull: Tensor | None = None  # (B,) at the first evaluation, NaN where unknown; None if every sample may be steered
    memorized_threshold: float = 0.0
    idle: tuple[str, ...] = ()  # inputs that do nothing because the sampler's cfg is 1

    def __post_init__(self) -> None:
        n = max(len(self.sigmas) - 1, 0)
        self.threshold = torch.full((n,), torch.nan)
        self.closeness = torch.full((self.batch, n), torch.nan)
        self.nearest = torch.full((self.batch, n), -1)
        self.despecification, self.deduplication, self.dissimilarity = torch.zeros(3, self.batch, n)

    def record_comparison(self, step: int, threshold: float, closeness: Tensor, nearest: Tensor) -> None:
        """Keep λ_t, σ_t (B,) and the nearest rows (B,), unless this step has them already."""
        if self.threshold[step].isnan():
            self.threshold[step] = threshold
            self.closeness[:, step] = closeness.float().cpu()
            self.nearest[:, step] = nearest.cpu()

    def record_guidance(self, step: int, guidance: str, strength: Tensor) -> None:
        """Keep the strength (B,) with which `guidance` acted; 0 where it did not."""
        kept: Tensor = getattr(self, guidance)
        kept[:, step] = torch.maximum(kept[:, step], strength.float().cpu())

    def record_pull(self, pull: Tensor, memorized_threshold: float) -> Tensor:
        """Keep the pull (B,) and return which samples may be steered: those at or above it, and unknown ones."""
        self.pull, self.memorized_threshold = pull.float().cpu(), memorized_threshold
        return ~(pull < memorized_threshold)

    @property
    def ordinary(self) -> Tensor:
        """(B,) bool: never steered, because the prompt pulls less than memorized_threshold."""
        if self.pull is None:
            return torch.zeros(self.batch, dtype=torch.bool)
        return self.pull < self.memorized_threshold

    @property
    def steps(self) -> int:
        return len(self.threshold)

    @property
    def acted(self) -> Tensor:
        """(B, n) bool: some guidance changed this sample in this step."""
        return (self.despecification > 0) | (self.deduplication > 0) | (self.dissimilarity > 0)

    def closest(self) -> tuple[Tensor, Tensor]:
        """Each sample's highest closeness of the run (B,), −inf if never measured, and that reference's row (B,)."""
        if not self.steps:
            return torch.full((self.batch,), -torch.inf), torch.full((self.batch,), -1)
        closeness, step = self.closeness.nan_to_num(-torch.inf).max(dim=1)
        return closeness, self.nearest.gather(1, step[:, None])[:, 0]

    def at_the_end(self) -> tuple[Tensor, Tensor]:
        """Each sample's closeness when it was measured last (B,), −inf if never, and that reference's row (B,)."""
        seen = ~self.closeness.isnan()
        last = (seen * torch.arange(1, self.steps + 1)).argmax(dim=1, keepdim=True)
        closeness = self.closeness.gather(1, last).nan_to_num(-torch.inf)
        return closeness[:, 0], self.nearest.gather(1, last)[:, 0]

    def headline(self, names: Sequence[str]) -> str:
        """The run in a sentence or two. `names`: of the references."""
        if self.pull is not None and self.ordinary.all():
            return (
                f"The prompt does not pull (at most {self.pull.max():.3f}, memorized_threshold "
                f"{self.memorized_threshold:g}): nothing was compared or changed."
            )
        closeness, _ = self.closest()
        first = int(closeness.argmax())
        if closeness[first] == -torch.inf:
            return "Not compared with the references."
        steered, left_alone = int(self.acted.any(dim=1).sum()), int(self.ordinary.sum())
        if not steered:
            return f"No image came too close to a reference (closest {closeness[first]:.2f}): nothing was changed."
        closeness, rows = self.at_the_end()
        first = int(closeness.argmax())
        return (
            f"{steered} of {counted(self.batch, 'image')} steered away. "
            f"At the end image {first + 1} is closest: {closeness[first]:.2f} to {names[int(rows[first])]}."
            + (f" Left alone because the prompt does not pull: {counted(left_alone, 'image')}." if left_alone else "")
        )

    @property
    def warning(self) -> str:
        """What the user should not miss, or ""."""
        if not self.idle:
            return ""
        last = f" and {self.idle[-1]}" if len(self.idle) > 1 else ""
        names = ", ".join(self.idle[:-1] if last else self.idle)
        return f"The sampler's cfg is 1: without guidance, {names}{last} cannot act. Set cfg above 1."

    @property
    def hint(self) -> str:
        """A remark on a setting that is probably a mistake, or ""."""
        if not self.steps or not self.acted.all():
            return ""
        whom = "The image was" if self.batch == 1 else "All images were"
        return f"Hint: {whom} steered in every step. If that is too much, raise threshold_min and threshold_max."
