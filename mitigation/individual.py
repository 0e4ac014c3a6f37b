"""Per-sample initial-noise adjustment by backpropagation. [HAN] Sec. 4.2, Algorithm 2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .prediction import guidance_magnitude
from .report import NoiseReport, account


def adjust_per_sample(
    noise: Tensor,
    predict: Callable[[Tensor], Tensor],
    *,
    target: float,
    learning_rate: float = 0.01,
    weight_decay: float = 0.01,
    max_iterations: int = 1000,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Minimise each sample's d(x_T, T, y) with AdamW until it is at or below `target`.

    `noise`: x_T (B, ...). `predict(x)`: ε̃ at T, differentiable, each row a function of that row
    of x alone. `target`: l_target, absolute d. The target is checked before the update, so a noise
    already below it is returned untouched, and the last noise is measured before it is handed out.
    The loss is a sum over samples and AdamW is elementwise: a sample gets exactly the trajectory it
    would get alone. The best noise seen is kept for a sample that does not reach the target.
    `on_step(i, d)` is called after every measurement and may raise to stop; (B,) absolute d.
    """
    if max_iterations < 1:
        d = guidance_magnitude(predict(noise)).detach()
        zero = torch.zeros(len(noise), dtype=torch.long)
        return noise, account("per-sample", noise, noise, d, d, zero, 2, target, [d])
    x = noise.detach().clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([x], lr=learning_rate, weight_decay=weight_decay)
    best, best_d = noise.clone(), torch.full((len(noise),), torch.inf, device=noise.device)
    updates = torch.zeros(len(noise), dtype=torch.long, device=noise.device)
    at_best = updates.clone()
    history: list[Tensor] = []
    for i in range(max_iterations + 1):
        d = guidance_magnitude(predict(x))
        now = d.detach()
        better = now < best_d
        history.append(torch.where(best_d <= target, best_d, now))
        best = torch.where(_rows(better, x), x.detach(), best)
        at_best = torch.where(better, updates, at_best)
        best_d = torch.where(better, now, best_d)
        if on_step:
            on_step(i, best_d)
        active = best_d > target
        if not active.any() or i == max_iterations:
            break
        (grad,) = torch.autograd.grad(d[active].sum(), x)
        kept = x.detach().clone()
        x.grad = grad
        optimizer.step()
        with torch.no_grad():  # a finished sample stands still
            x.copy_(torch.where(_rows(active, x), x, kept))
        updates += active
    return best, account("per-sample", noise, best, history[0], best_d, at_best, 2 * len(history), target, history)


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.ndim - 1))
