"""Per-sample initial-noise adjustment by backpropagation. [HAN] Sec. 4.2, Algorithm 2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..gradient_check import check_gradient
from ..prediction import dimension, guidance_magnitude
from ..scaled_gradient import scaled_gradient
from .norm_constraint import Constraint, chi_gradient, constrain_norm
from .report import NoiseReport, make_report

Predict = Callable[[Tensor, Tensor], Tensor]  # (x of some samples, their indices) -> ε̃
Measured = tuple[Tensor, Tensor | None]  # d (n,) on the CPU, ∇d (n, ...) where some are above the target
InParts = Callable[[Callable[[slice], Measured], int], list[Measured]]


def whole_batch(body: Callable[[slice], Measured], count: int) -> list[Measured]:
    """Samples 0 … count − 1 in one part."""
    return [body(slice(0, count))]


def adjust_per_sample(
    noise: Tensor,
    predict: Predict,
    *,
    target: float,
    keep_below: float = 0.0,
    learning_rate: float = 0.01,
    weight_decay: float = 0.01,
    max_iterations: int = 1000,
    constraint: Constraint = "free",
    in_parts: InParts = whole_batch,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Minimise each sample's d(x_T, T, y) with AdamW until it is at or below `target`.

    `noise`: x_T (B, ...). `predict(x, rows)`: ε̃ at T of the samples `rows` (n,), whose noises are x (n, ...);
    differentiable, each sample a function of its own noise alone. `target`: l_target, absolute d. A noise whose
    d is below `keep_below` is returned as it is. `constraint` keeps the noise plausible, see norm_constraint.py.

    The target is checked before the update, so a noise that is already below it is returned unchanged, and the
    last noise is measured before it is returned. The loss is a sum over samples and AdamW is elementwise, so a
    sample follows the trajectory it would follow alone, and one that is done is not evaluated any more. In float64
    that holds exactly. In float32 a network rounds differently for another batch size, and AdamW divides every
    element of the gradient by its own size, so that elements which are only rounding error move by whole steps, too.
    A sample that does not reach the target keeps the best noise it had. Before the first step the gradient is
    compared with what d does along it, which costs an evaluation or two more; WrongGradientError if they disagree.
    `in_parts(body, count)` calls `body(rows)` for slices that cover `count` samples and returns the results: each
    part has its own graph, for batches whose common graph takes too much memory.
    `on_step(i, d)`, (B,) absolute d of the best so far, is called after every measurement and may raise to stop.
    """
    batch = len(noise)
    rows = torch.arange(batch)
    samples = [row.detach().clone().requires_grad_(max_iterations > 0) for row in noise.split(1)]
    norms = [float(row.detach().norm()) for row in samples]
    optimizer = torch.optim.AdamW(samples, lr=learning_rate, weight_decay=weight_decay)  # eps 1e-8, as in the paper
    best, best_d = noise.detach().clone(), torch.full((batch,), torch.inf)
    at_best, measured = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)
    history: list[Tensor] = []

    def to_move(now: Tensor) -> Tensor:
        return now > target if i else (now > target) & (now >= keep_below)

    def measure(part: slice) -> Measured:
        """d of the unfinished samples `rows[part]` and its gradient, which is 0 for those at the target."""
        asked = rows[part]
        x = torch.cat([samples[k] for k in asked.tolist()])
        d = guidance_magnitude(predict(x, asked))
        now = d.detach().cpu()
        above = to_move(now) & now.isfinite()  # an infinite d has no gradient; `on_step` may reject it
        if i == max_iterations or not above.any():
            return now, None
        there = above.to(d.device)
        gradient = scaled_gradient(d[there].sum(), x, dimension(noise) ** 0.5)
        if i == 0:
            left = asked[above]
            magnitude = lambda x: guidance_magnitude(predict(x, left))  # noqa: E731
            measured[left] += check_gradient(magnitude, x[there], gradient[there], d[there], least=0.0)
        return now, gradient

    for i in range(max_iterations + 1):
        found = in_parts(measure, len(rows))
        now = torch.cat([d for d, _ in found])
        measured[rows] += 1
        for place, k in enumerate(rows.tolist()):
            if now[place] < best_d[k]:
                best[k], best_d[k], at_best[k] = samples[k].detach()[0], now[place], i
        history.append(best_d.clone().index_copy_(0, rows, now))
        if on_step:
            on_step(i, best_d)
        unfinished = to_move(now)
        if i == max_iterations or not unfinished.any():
            break
        optimizer.zero_grad()
        gradients = [g for d, part in found for g in ([None] * len(d) if part is None else part.split(1))]
        for place in unfinished.nonzero().flatten().tolist():
            sample = samples[int(rows[place])]
            sample.grad = gradients[place]
            if constraint == "chi" and sample.grad is not None:
                sample.grad = sample.grad + chi_gradient(sample.detach())
        optimizer.step()
        rows = rows[unfinished]
        for k in rows.tolist():
            constrain_norm(samples[k], constraint, norms[k])
    return best, make_report(
        "per-sample",
        noise,
        best,
        history,
        iterations=at_best,
        evaluations=2 * measured,
        after=best_d,
        target=target,
        keep_below=keep_below,
    )
