"""What Anti-Memorization Guidance saw and did, step by step and sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

GUIDANCES = ("despecification", "deduplication", "dissimilarity")


@dataclass
class GuidanceTrace:
    """One run's account, filled while it samples; every tensor on the CPU. Steps count from 0.

    A sampler that evaluates the model several times a step leaves the first evaluation's closeness and
    the largest action of the step.
    """

    sigmas: Tensor  # (n + 1,)
    batch: int
    threshold: Tensor = field(init=False)  # (n,) λ_t; NaN where nothing was measured
    closeness: Tensor = field(init=False)  # (B, n) σ_t on the scale where 0.5 is memorized; NaN likewise
    nearest: Tensor = field(init=False)  # (B, n) row of the nearest reference; −1 likewise
    despecification: Tensor = field(init=False)  # (B, n) s₁; 0 where it did not act
    deduplication: Tensor = field(init=False)  # (B, n) s₂
    dissimilarity: Tensor = field(init=False)  # (B, n) length of its step, as a share of ‖D‖
    pull: Tensor | None = None  # (B,) at the first evaluation, where only prompts that pull are steered; NaN unknown
    memorized_threshold: float = 0.0

    def __post_init__(self) -> None:
        n = max(len(self.sigmas) - 1, 0)
        self.threshold = torch.full((n,), torch.nan)
        self.closeness = torch.full((self.batch, n), torch.nan)
        self.nearest = torch.full((self.batch, n), -1)
        self.despecification, self.deduplication, self.dissimilarity = torch.zeros(3, self.batch, n)

    def saw(self, step: int, threshold: float, closeness: Tensor, nearest: Tensor) -> None:
        """The first look of a step: λ_t, σ_t (B,) and the nearest rows (B,)."""
        if self.threshold[step].isnan():
            self.threshold[step] = threshold
            self.closeness[:, step] = closeness.float().cpu()
            self.nearest[:, step] = nearest.cpu()

    def did(self, step: int, guidance: str, amount: Tensor) -> None:
        """`guidance` acted with this strength (B,); 0 where it did not."""
        kept: Tensor = getattr(self, guidance)
        kept[:, step] = torch.maximum(kept[:, step], amount.float().cpu())

    def judged(self, pull: Tensor, memorized_threshold: float) -> Tensor:
        """Which samples may be steered: (B,) bool, those that pull above the threshold, and the unknown ones (NaN)."""
        self.pull, self.memorized_threshold = pull.float().cpu(), memorized_threshold
        return ~(pull <= memorized_threshold)

    @property
    def ordinary(self) -> Tensor:
        """(B,) bool: left alone, whatever it looked like, since its prompt pulled no harder than the threshold."""
        if self.pull is None:
            return torch.zeros(self.batch, dtype=torch.bool)
        return self.pull <= self.memorized_threshold

    @property
    def steps(self) -> int:
        return len(self.threshold)

    @property
    def acted(self) -> Tensor:
        """(B, n) bool: some guidance changed this sample in this step."""
        return (self.despecification > 0) | (self.deduplication > 0) | (self.dissimilarity > 0)

    @property
    def headline(self) -> str:
        """The run in a sentence."""
        touched = self.acted.any(dim=1)
        closest = self.closeness.nan_to_num(-torch.inf).amax(dim=1) if self.steps else torch.empty(0)
        if self.pull is not None and self.ordinary.all():
            return (
                f"No prompt pulls above memorized_threshold ({self.pull.max():.3f} of {self.memorized_threshold:g}): "
                "nothing was compared or changed."
            )
        if not len(closest) or closest.max() == -torch.inf:
            return "Not compared with the references."
        if not touched.any():
            return f"No picture came too close to a reference (closest {closest.max():.2f}): nothing was changed."
        sample = int(closest.argmax())
        where = int(self.nearest[sample, int(self.closeness[sample].nan_to_num(-torch.inf).argmax())])
        alone = int(self.ordinary.sum())
        return (
            f"{int(touched.sum())} of {self.batch} picture(s) steered away. "
            f"Closest: #{sample}, {closest[sample]:.2f} to reference {where}."
            + (f" {alone} left alone: prompts that do not pull." if alone else "")
        )

    @property
    def hint(self) -> str:
        """What is probably not meant, or nothing."""
        always = self.steps > 0 and bool(self.acted.all())
        return (
            "Every picture was steered in every step: if they are no copies, raise threshold_min and threshold_max."
            if always
            else ""
        )

    def lines(self) -> list[str]:
        """One sentence a sample."""
        out = []
        for i in range(self.batch):
            if bool(self.ordinary[i]) and self.pull is not None:
                out.append(f"#{i}: left alone, its prompt pulls {self.pull[i]:.3f}")
                continue
            seen = self.closeness[i].nan_to_num(-torch.inf)
            if not self.steps or seen.max() == -torch.inf:
                out.append(f"#{i}: not measured")
                continue
            step = int(seen.argmax())
            where = f"closest {seen[step]:.2f} to reference {int(self.nearest[i, step])} at step {step}"
            count = int(self.acted[i].sum())
            out.append(f"#{i}: {where}, " + (f"guided in {count} of {self.steps} steps" if count else "not touched"))
        return out
