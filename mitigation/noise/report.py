"""What an initial-noise adjustment did to each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import norms
from ..prediction import dimension
from ..wording import counted

INFLATED = 1.1  # std from which images turn visibly grainy


@dataclass(frozen=True)
class NoiseReport:
    """The report of one adjustment; every tensor is (B,) on the CPU unless noted, d in absolute units."""

    method: str
    dim: int
    target: float | None  # absolute d, None where the method has no target
    history: Tensor  # (measurements, B) d; the first is that of the drawn noise
    after: Tensor  # d of the returned noise
    iterations: Tensor  # updates applied (candidates drawn, for a search)
    moved: Tensor  # ‖x_T' − x_T‖₂/√dim
    std: Tensor  # of the returned noise; 1 for a Gaussian
    evaluations: Tensor  # model evaluations in which each sample was measured, both branches counted
    after_is_final: bool = True  # False: `after` was measured before the last adjustment
    keep_below: float = 0.0  # a noise with a smaller d was left as it was drawn
    eps_unit: float = 1.0  # d of this model per unit of an EPS model's d, see prediction.eps_unit

    def relative(self, d: Tensor | float) -> Tensor:
        """d/√dim in an EPS model's units, which is comparable between resolutions and models."""
        return torch.as_tensor(d) / (self.dim**0.5 * self.eps_unit)

    @property
    def before(self) -> Tensor:
        """d(x_T, T) of the drawn noise."""
        return self.history[0]

    @property
    def reached(self) -> Tensor:
        """(B,) bool: d at or below the target, or left as it was. Without a target a method has reached it."""
        if self.target is None:
            return torch.ones_like(self.after, dtype=torch.bool)
        return (self.after <= self.target) | self.kept

    @property
    def kept(self) -> Tensor:
        """(B,) bool: left as it was drawn, because its d was below the threshold of memorized prompts."""
        return self.before < self.keep_below

    @property
    def headline(self) -> str:
        """The method, its cost, and how many samples reached the target."""
        count = self.evaluations.unique().tolist()
        each = f"{count[0]}" if len(count) == 1 else f"{count[0]} to {count[-1]}"
        line = f"{self.method}: {counted(len(self.after), 'image')}, {each} model evaluations each"
        if self.target is not None:
            done = int(self.reached.sum())
            line += f", target d/√dim {float(self.relative(self.target)):.4f} reached by {done} of {len(self.after)}"
        if kept := int(self.kept.sum()):
            line += f"; {kept} not memorized, left unchanged"
        return line

    @property
    def missed(self) -> str:
        """What to do about samples that did not reach the target, or ""."""
        missed = int((~self.reached).sum())
        if not missed:
            return ""
        advice = "try more candidates" if self.method == "search" else "raise max_iterations or learning_rate"
        return f"NOT REACHED for {missed} of {counted(len(self.after), 'image')}: {advice}, or accept a higher target."

    @property
    def remarks(self) -> list[str]:
        """Warnings about the returned noise."""
        remarks = []
        if float(self.std.max()) > INFLATED:
            advice = (
                "Set constraint to sphere, or raise the target" if self.method == "per-sample" else "Adjust it less"
            )
            remarks.append(
                f"The noise was inflated (std up to {self.std.max():.2f} instead of 1), so images can turn grainy. "
                f"{advice}."
            )
        if not self.after_is_final:
            remarks.append("d was measured before the last adjustment. Sample this noise with deferred CFG.")
        return remarks

    def lines(self) -> list[str]:
        """The headline, a warning if the target was missed, the remarks, and a line for each image."""
        lines = [self.headline, *([self.missed] if self.missed else []), *self.remarks]
        before, after = self.relative(self.before), self.relative(self.after)
        images = [
            f"- image {i + 1}: d/√dim {before[i]:.4f} -> {after[i]:.4f} after "
            f"{counted(int(self.iterations[i]), 'iteration')}, moved {self.moved[i]:.3f}, std {self.std[i]:.3f}"
            f"{'' if self.reached[i] else ', NOT REACHED'}"
            for i in range(len(self.after))
        ]
        return [*lines, *images]


def make_report(
    method: str,
    start: Tensor,
    final: Tensor,
    history: list[Tensor],
    *,
    iterations: Tensor,
    evaluations: Tensor | int,
    after: Tensor | None = None,
    target: float | None = None,
    keep_below: float = 0.0,
    after_is_final: bool = True,
) -> NoiseReport:
    """Report the way from `start` to `final` (B, ...). `after`: d of `final`, by default the last of `history`."""
    dim = dimension(start)
    return NoiseReport(
        method=method,
        dim=dim,
        target=target,
        history=torch.stack([d.detach().float().cpu() for d in history]),
        after=(history[-1] if after is None else after).detach().float().cpu(),
        iterations=iterations.cpu(),
        moved=(norms(final - start) / dim**0.5).cpu(),
        std=final.float().flatten(1).std(dim=1).cpu(),
        evaluations=torch.as_tensor(evaluations).expand(len(start)).clone(),
        keep_below=keep_below,
        after_is_final=after_is_final,
    )
