"""What an initial-noise adjustment did to each sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .prediction import dimension, relative


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
    evaluations: int  # model evaluations of one sample, both branches counted
    after_is_final: bool = True  # False: `after` was measured before the last adjustment
    history: Tensor = field(default_factory=lambda: torch.empty(0))  # (iterations + 1, B) absolute d

    @property
    def reached(self) -> Tensor:
        """(B,) bool: d at or below the target. A method without a target counts as having reached it."""
        if self.target is None:
            return torch.ones_like(self.after, dtype=torch.bool)
        return self.after <= self.target

    def lines(self) -> list[str]:
        """A headline, a warning if the target was missed, and a line a sample, for an artist to read."""
        head = f"{self.method}: {len(self.after)} sample(s), {self.evaluations} model evaluations each"
        if self.target is not None:
            head += f", target d/√dim {self.target / self.dim**0.5:.4f}"
        lines = [head]
        missed = int((~self.reached).sum())
        if missed:
            way = "try more candidates" if self.method == "search" else "raise max_iterations or learning_rate"
            lines.append(
                f"NOT REACHED for {missed} of {len(self.after)}: {way}, or accept a higher target "
                f"(a std far above 1 costs picture quality; here up to {self.std.max():.2f})"
            )
        if not self.after_is_final:
            lines.append("d is as measured before the last adjustment. Sample this noise with a deferred start.")
        before, after = relative(self.before, self.dim), relative(self.after, self.dim)
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
    evaluations: int,
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
        evaluations=evaluations,
        after_is_final=after_is_final,
        history=torch.stack([h.detach().float().cpu() for h in history]) if history else torch.empty(0),
    )
