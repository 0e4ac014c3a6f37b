"""Search over seeds: exactly Gaussian noise with a small d, without gradients.

Not from a paper. It is the simplest use of the observation that d(x_T, T) differs between noises, and works for
models that cannot be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .report import NoiseReport, make_report


def rearranged(noise: Tensor, order: int) -> Tensor:
    """The elements of each sample (B, ...) in the `order`-th of a fixed sequence of orders; 0 leaves them as they are.

    Independent Gaussian numbers in another order are that again. No seed is needed, and a sample's noise does not
    depend on the batch.
    """
    if order == 0:
        return noise
    flat = noise.flatten(1)
    places = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(order))
    return flat[:, places.to(flat.device)].view_as(noise)


def search_noise(
    draw: Callable[[int], Tensor],
    measure: Callable[[int, Tensor, Tensor], Tensor],
    *,
    judge: Callable[[Tensor], Tensor] = lambda found: found[:, 0],
    candidates: int = 16,
    target: float = 0.0,
    keep_below: float = 0.0,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Keep, for each sample, the first drawn noise with a d at or below `target`, or else the one with the smallest.

    `draw(i)`: the i-th candidate batch (B, ...); candidate 0 is what the plain sampler would use, and stays if its d
    is below `keep_below`. `measure(i, x, rows)`: d (n,) of the samples `rows` (n,), whose i-th noises are x (n, ...).
    Or their d at several noise levels (n, levels), NaN where a sample was not evaluated, of which `judge` makes (n,).
    `target`, `keep_below`: absolute d. A sample that is done is not evaluated any more.
    `on_step(i, best_d)` is called after every candidate and may raise to stop.
    """
    first = draw(0)
    best, rows = first.clone(), torch.arange(len(first))
    best_d, chosen = torch.full((len(first),), torch.inf), torch.zeros(len(first), dtype=torch.long)
    measured, history = torch.zeros_like(chosen), list[Tensor]()
    for i in range(max(candidates, 1)):
        x = draw(i)[rows.to(first.device)]
        found = measure(i, x, rows).detach().cpu().reshape(len(rows), -1)
        d = judge(found)
        measured[rows] += (~found.isnan()).sum(dim=1)
        better = d < best_d[rows]
        of = rows[better]
        best[of.to(best.device)], best_d[of], chosen[of] = x[better.to(x.device)], d[better], i
        history.append(best_d.clone())
        if on_step:
            on_step(i, best_d)
        left = best_d[rows] > max(target, keep_below if i == 0 else 0.0)
        rows = rows[left]
        if not len(rows):
            break
    return best, make_report(
        "search",
        first,
        best,
        history,
        iterations=chosen,
        evaluations=2 * measured,
        target=target,
        keep_below=keep_below,
    )
