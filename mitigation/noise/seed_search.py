"""Search over seeds: exactly Gaussian noise with a small d, without gradients.

Not from a paper. It is the simplest use of the observation that d(x_T, T) differs between noises, and works for
models that cannot be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..batch import replace_samples
from ..prediction import guidance_magnitude
from .report import NoiseReport, make_report


def search_noise(
    draw: Callable[[int], Tensor],
    predict: Callable[[Tensor], Tensor],
    *,
    candidates: int = 16,
    target: float | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, NoiseReport]:
    """Keep, for each sample, the drawn noise with the smallest d.

    `draw(i)`: the i-th candidate batch (B, ...); candidate 0 is what the plain sampler would use.
    `predict(x)`: ε̃ at T. `target` (absolute d) is only for the report.
    `on_step(i, best_d)` is called after every candidate and may raise to stop.
    """
    first = best = draw(0)
    best_d = guidance_magnitude(predict(best))
    chosen = torch.zeros(len(best), dtype=torch.long, device=best.device)
    history = [best_d]
    for i in range(max(candidates, 1)):
        if i > 0:
            x = draw(i)
            d = guidance_magnitude(predict(x))
            better = d < best_d
            best = replace_samples(better, x, best)
            best_d = torch.where(better, d, best_d)
            chosen = torch.where(better, i, chosen)
            history.append(best_d)
        if on_step:
            on_step(i, best_d)
    return best, make_report(
        "search", first, best, history, iterations=chosen, evaluations=2 * len(history), target=target
    )
