"""Search over seeds: exactly Gaussian noise with a small d, without gradients.

Not from a paper: the plainest use of its observation that d(x_T, T) differs between noises, and the
way out for models that cannot be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..prediction import guidance_magnitude
from .report import NoiseReport, account


def search_noise(
    draw: Callable[[int], Tensor],
    predict: Callable[[Tensor], Tensor],
    *,
    candidates: int = 16,
    target: float | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Keep, for each sample, the drawn noise with the smallest d.

    `draw(i)`: the i-th candidate batch (B, ...); candidate 0 is what the vanilla sampler would use.
    `predict(x)`: ε̃ at T. `target` (absolute d) only tells the report what counts as reached.
    `on_step(i, best_d)` is called after every candidate and may raise to stop.
    """
    first = best = draw(0)
    best_d = before = guidance_magnitude(predict(best))
    chosen_after = torch.zeros(len(best), dtype=torch.long, device=best.device)
    history = [before]
    for i in range(max(candidates, 1)):
        if i > 0:
            x = draw(i)
            d = guidance_magnitude(predict(x))
            better = d < best_d
            best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), x, best)
            best_d = torch.where(better, d, best_d)
            chosen_after = torch.where(better, i, chosen_after)
            history.append(best_d)
        if on_step:
            on_step(i, best_d)
    return best, account("search", first, best, before, best_d, chosen_after, 2 * len(history), target, history)
