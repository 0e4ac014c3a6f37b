"""Batch-wise initial-noise adjustment, without gradients. [HAN] Sec. 4.1, Eq. 10."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..batch import broadcast
from ..prediction import guidance_magnitude
from .report import NoiseReport, make_report


def adjust_batchwise(
    noise: Tensor,
    predict: Callable[[Tensor], Tensor],
    *,
    strength: float = 0.7,
    radius: float = 50.0,
    adjustments: int = 2,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Move the whole batch M times towards a flatter, smaller ε̃, each sample with its own norm.

    ε̃₀ = ε̃(x_T, T, y);  δ = ρ·ε̃₀/‖ε̃₀‖₂;  x_T ← x_T − γ̃·(ε̃(x_T + δ, T, y) − ε̃₀)

    `noise`: x_T (B, ...). `predict(x)`: ε̃ at T, same shape. `strength` γ̃, `radius` ρ (absolute, a
    norm over a sample's latent: 50 at 512² is 0.39·√dim), `adjustments` M. 2M evaluations of
    `predict`, or one for M = 0. The report's `after` is d before the last adjustment.
    `on_step(i, d)` is called before each adjustment and may raise to stop.
    """
    x = noise
    history: list[Tensor] = []
    for i in range(adjustments):
        e0 = predict(x)
        d = guidance_magnitude(e0)
        history.append(d)
        if on_step:
            on_step(i, d)
        norm = d.clamp_min(torch.finfo(torch.float32).tiny)
        delta = radius * e0 / broadcast(norm, x)
        x = x - strength * (predict(x + delta) - e0)  # Eq. 10
    if not history:
        history.append(guidance_magnitude(predict(x)))
    count, evaluations = torch.full((len(x),), adjustments), 2 * (2 * adjustments or 1)
    final = adjustments == 0
    return x, make_report(
        "batch-wise", noise, x, history, iterations=count, evaluations=evaluations, after_is_final=final
    )
