"""Per-sample initial-noise adjustment by backpropagation. [HAN] Sec. 4.2, Algorithm 2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..prediction import dimension, guidance_magnitude
from ..scaled_gradient import scaled_gradient
from .norm_constraint import Constraint, chi_gradient, keep_norm, within_shell
from .report import NoiseReport, account

# AdamW divides a gradient by its own size. With PyTorch's 1e-8 the few elements whose gradient is no more than
# rounding (lab checkpoint: 1e-9, the median is 4e-3) move by whole steps too, in a batch otherwise than alone.
# `make bench-cost`: the two differ by 0.015 with 1e-8 and by 3e-5 with 1e-5, with the same iterations and std.
EPS = 1e-5
Predict = Callable[[Tensor, Tensor], Tensor]  # (x of the rows asked for, their numbers) -> ε̃
Measured = tuple[Tensor, Tensor | None]  # d (n,) on the CPU, ∇d (n, ...) where some are above the target
InParts = Callable[[Callable[[slice], Measured], int], list[Measured]]


def at_once(body: Callable[[slice], Measured], count: int) -> list[Measured]:
    """All rows 0 … count − 1 in one part."""
    return [body(slice(0, count))]


def adjust_per_sample(
    noise: Tensor,
    predict: Predict,
    *,
    target: float,
    learning_rate: float = 0.01,
    weight_decay: float = 0.01,
    max_iterations: int = 1000,
    constraint: Constraint = "free",
    in_parts: InParts = at_once,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Minimise each sample's d(x_T, T, y) with AdamW until it is at or below `target`.

    `noise`: x_T (B, ...). `predict(x, rows)`: ε̃ at T of the samples `rows` (n,), whose noises are
    x (n, ...); differentiable, each row a function of that row of x alone. `target`: l_target,
    absolute d. `constraint` keeps the noise plausible, see `norm.py`.

    The target is checked before the update, so a noise already below it is returned untouched, and
    the last noise is measured before it is handed out. The loss is a sum over samples and AdamW is
    elementwise: a sample gets the trajectory it would get alone, and one that is done is
    not evaluated any more. A sample that does not reach the target keeps the best noise it saw.
    `in_parts(body, count)` calls `body(rows)` for slices that cover `count` rows in turn and returns what
    came out: where a graph through all of them takes too much memory, each part has its own.
    `on_step(i, d)`, (B,) absolute d of the best so far, is called after every measurement and may
    raise to stop.
    """
    batch = len(noise)
    rows = torch.arange(batch)
    samples = [row.detach().clone().requires_grad_(max_iterations > 0) for row in noise.split(1)]
    norms = [float(row.detach().norm()) for row in samples]
    optimizer = torch.optim.AdamW(samples, lr=learning_rate, weight_decay=weight_decay, eps=EPS)
    best, best_d = noise.detach().clone(), torch.full((batch,), torch.inf)
    at_best, measured = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)
    history: list[Tensor] = []

    def measure(part: slice) -> Measured:
        """The open samples `rows[part]` as they are now; the gradient of those that are done is 0."""
        asked = rows[part]
        x = torch.cat([samples[k] for k in asked.tolist()])
        d = guidance_magnitude(predict(x, asked))
        now = d.detach().cpu()
        above = (now > target) & now.isfinite()  # an endless d has no slope; `on_step` may refuse it
        if i == max_iterations or not above.any():
            return now, None
        return now, scaled_gradient(d[above.to(d.device)].sum(), x, dimension(noise) ** 0.5)

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
        open_ = now > target
        if i == max_iterations or not open_.any():
            break
        optimizer.zero_grad()
        gradients = [g for d, part in found for g in ([None] * len(d) if part is None else part.split(1))]
        for place in open_.nonzero().flatten().tolist():
            sample = samples[int(rows[place])]
            sample.grad = gradients[place]
            if constraint == "chi" and sample.grad is not None:
                sample.grad = sample.grad + chi_gradient(sample.detach())
        optimizer.step()
        rows = rows[open_]
        for k in rows.tolist() if constraint in ("sphere", "shell") else ():
            norm = float(samples[k].detach().norm())
            wanted = norms[k] if constraint == "sphere" else within_shell(norm, dimension(noise))
            if wanted != norm:
                keep_norm(samples[k], wanted)
    return best, account(
        "per-sample", noise, best, history[0], best_d, at_best, 2 * measured, target=target, history=history
    )
