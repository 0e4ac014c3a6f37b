"""Is a gradient one? Compare it with what its function does along it, before anything follows it.

A gradient through borrowed weights can be wrong without an error, and a descent along it walks uphill.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .batch import broadcast, norms

# How far a step of the gradient's own length may miss what the gradient promises, as a share of it. A wrong gradient
# misses by far more: weights that were overwritten before the backward pass gave relative errors of 2 to 64.
TOLERANCE = 0.5
# The part of a value that rounding in half precision hides: changes below it prove nothing.
ROUNDING = 2e-3


class WrongGradientError(ArithmeticError):
    """A function does not change along its gradient as the gradient says."""


def check_gradient(
    value: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor, before: Tensor, length: Tensor | float
) -> int:
    """Raise WrongGradientError unless `value` changes along `gradient` as it should; return how often it was asked.

    `value(x)` (B,) of samples x (B, ...), each a function of its own sample alone; `before`: value(x). `gradient`
    (B, ...), 0 for samples that are not to be checked. `length`, a number or (B,): how far the caller's step moves a
    sample, which is the scale of the check. One evaluation downhill is enough for most functions; where it disagrees,
    a second one uphill takes the curvature out.
    """
    slope = norms(gradient)
    if not slope.isfinite().all():
        raise WrongGradientError("it holds NaN or infinite values")
    expected, before = slope * length, before.detach().to(slope)
    way = gradient * broadcast(torch.where(slope > 0, length / slope.clamp_min(1e-30), 0), gradient)
    with torch.no_grad():
        below = value(x.detach() - way).to(slope)
        if not bool(_disagrees(before - below, expected, before).any()):
            return 1
        change = (value(x.detach() + way).to(slope) - below) / 2
    wrong = _disagrees(change, expected, before)
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        raise WrongGradientError(
            f"a step should change the value by {expected[k]:.3g} and changes it by {change[k]:.3g}"
        )
    return 2


def _disagrees(change: Tensor, expected: Tensor, before: Tensor) -> Tensor:
    """(B,) bool."""
    allowed = torch.maximum(TOLERANCE * expected, ROUNDING * before.abs())
    return ~((change - expected).abs() <= allowed)  # NaN disagrees
