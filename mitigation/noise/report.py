"""What an initial-noise adjustment did to each sample."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..prediction import dimension

WIDE = 1.1  # std above which a noise is visibly no longer a natural one


@dataclass(frozen=True)
class NoiseReport:
    """Per-sample account of one adjustment; every tensor is (B,) on the CPU, d in absolute units."""

    method: str
    dim: int
    target: float | None  # absolute d, None where the method has no target
    before: Tensor  # d(x_T, T) of the drawn noise
    after: Tensor  # d of the noise that is handed out
    iterations: Tensor  # updates applied (candidates drawn, for a search)
    moved: Tensor  # ‖x_T' − x_T‖₂/√dim
    std: Tensor  # of the noise that is handed out; 1 for a Gaussian
    evaluations: Tensor  # model evaluations spent on each sample, both branches counted
    after_is_final: bool = True  # False: `after` was measured before the last adjustment
    history: Tensor = field(default_factory=lambda: torch.empty(0))  # (iterations + 1, B) absolute d
    eps_unit: float = 1.0  # d of this model per unit of an EPS model's d, see prediction.eps_unit

    def relative(self, d: Tensor | float) -> Tensor:
        """d/√dim in an EPS model's units: what carries over between resolutions and models."""
        return torch.as_tensor(d) / (self.dim**0.5 * self.eps_unit)

    def in_units(self, eps_unit: float) -> NoiseReport:
        """The same report for a model whose d has another unit."""
        return replace(self, eps_unit=eps_unit)

    @property
    def reached(self) -> Tensor:
        """(B,) bool: d at or below the target. A method without a target counts as having reached it."""
        if self.target is None:
            return torch.ones_like(self.after, dtype=torch.bool)
        return self.after <= self.target

    @property
    def headline(self) -> str:
        """One line: how it was found, at what cost, and whether every sample got there."""
        count = self.evaluations.unique().tolist()
        each = f"{count[0]}" if len(count) == 1 else f"{count[0]} to {count[-1]}"
        line = f"{self.method}: {len(self.after)} sample(s), {each} model evaluations each"
        if self.target is not None:
            done = int(self.reached.sum())
            line += f", target d/√dim {float(self.relative(self.target)):.4f} reached by {done} of {len(self.after)}"
        return line

    @property
    def missed(self) -> str:
        """What to do about samples that were not brought to the target, or nothing."""
        missed = int((~self.reached).sum())
        if not missed:
            return ""
        way = "try more candidates" if self.method == "search" else "raise max_iterations or learning_rate"
        return f"NOT REACHED for {missed} of {len(self.after)}: {way}, or accept a higher target"

    @property
    def remarks(self) -> list[str]:
        """What else an artist should know."""
        remarks = []
        if float(self.std.max()) > WIDE:
            way = "Set constraint to sphere, or raise the target" if self.method == "per-sample" else "Adjust it less"
            remarks.append(
                f"The noise was inflated (std up to {self.std.max():.2f}, a natural one has 1): pictures can turn "
                f"grainy. {way}."
            )
        if not self.after_is_final:
            remarks.append("d is as measured before the last adjustment. Sample this noise with a deferred start.")
        return remarks

    def lines(self) -> list[str]:
        """A headline, a warning if the target was missed, and a line a sample, for an artist to read."""
        lines = [self.headline, *([self.missed] if self.missed else []), *self.remarks]
        before, after = self.relative(self.before), self.relative(self.after)
        rows = [
            f"- #{i}: d/√dim {before[i]:.4f} -> {after[i]:.4f} after {int(self.iterations[i])} iteration(s), "
            f"moved {self.moved[i]:.3f}, std {self.std[i]:.3f}{'' if self.reached[i] else '  NOT REACHED'}"
            for i in range(len(self.after))
        ]
        return [*lines, *rows]


def account(
    method: str,
    start: Tensor,
    final: Tensor,
    before: Tensor,
    after: Tensor,
    iterations: Tensor,
    evaluations: Tensor | int,
    target: float | None = None,
    history: list[Tensor] | None = None,
    after_is_final: bool = True,
) -> NoiseReport:
    """Measure how far the noise moved and make the report. `start`, `final`: (B, ...)."""
    dim = dimension(start)
    return NoiseReport(
        method=method,
        dim=dim,
        target=target,
        before=before.detach().float().cpu(),
        after=after.detach().float().cpu(),
        iterations=iterations.cpu(),
        moved=((final - start).float().flatten(1).norm(dim=1) / dim**0.5).cpu(),
        std=final.float().flatten(1).std(dim=1).cpu(),
        evaluations=torch.as_tensor(evaluations).expand(len(start)).clone(),
        after_is_final=after_is_final,
        history=torch.stack([h.detach().float().cpu() for h in history]) if history else torch.empty(0),
    )
