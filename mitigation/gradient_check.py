"""Is a gradient one? Compare it with what its function does along it, before anything follows it.

A gradient through borrowed weights can be wrong without an error, and a descent along it walks uphill.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .batch import broadcast, norms

# How far the check moves a sample, as a share of its length: AdamW's first step is 0.01 of a Gaussian noise at the
# default learning rate. Below 0.01, bfloat16 rounds d by as much as the step changes it (lab checkpoint, 576 numbers).
STEP = 0.03
# How much of a promised change may be missing. Weights that were overwritten before the backward pass promise 2 to 60
# times what comes. Of what right gradients promise on the lab checkpoint (40 noises), 0.70 to 1.02 comes in float32 and
# 0.56 to 1.32 in bfloat16, before the curvature is taken out.
TOLERANCE = 0.5
# A value that cannot fall below a bound is asked for this share of the way there. Where a prompt pulls hard, a step of
# STEP promises more than all of it (512×512 lab: 5.96 where d is 2.4), and a right gradient looks wrong.
DOWN = 0.5
ROUNDING = 0.02  # of the value: what half precision may change in a small latent without any gradient
# Where a value is steep and bends, even half of the way down is too far to judge by (512×512 lab: 0.33 comes of 0.71,
# with the curvature taken out). What disagrees is asked again with a step that promises this many times what rounding
# may change.
CLEAR = 4


class WrongGradientError(ArithmeticError):
    """A function does not change along its gradient as the gradient says."""


def check_gradient(
    value: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor, before: Tensor, least: float = -torch.inf
) -> int:
    """Raise WrongGradientError unless `value` changes along `gradient` as it should; return how often it was asked.

    `value(x)` (B,) of samples x (B, ...), each a function of its own sample alone; `before`: value(x). `gradient`
    (B, ...), 0 for samples that are not to be checked. `least`: below this no value can fall.
    One evaluation downhill is enough for most functions; where it disagrees, one uphill takes the curvature out, and
    where that disagrees, too, both are made again with a shorter step.
    """
    slope = norms(gradient)
    if not slope.isfinite().all():
        raise WrongGradientError("it holds NaN or infinite values")
    x, before = x.detach(), before.detach().to(slope)
    length = torch.minimum(STEP * norms(x), DOWN * (before - least) / slope.clamp_min(1e-30))
    expected = slope * length
    way = gradient * broadcast(torch.where(slope > 0, length / slope.clamp_min(1e-30), 0), gradient)
    with torch.no_grad():
        below = value(x - way).to(slope)
        if not bool(_disagrees(before - below, expected, before).any()):
            return 1
        change = (value(x + way).to(slope) - below) / 2
        if not bool(_disagrees(change, expected, before).any()):
            return 2
        shorter = (CLEAR * ROUNDING * before.abs() / expected.clamp_min(1e-30)).clamp(max=1)
        expected, way = shorter * expected, broadcast(shorter, way) * way
        change = (value(x + way).to(slope) - value(x - way).to(slope)) / 2
    wrong = _disagrees(change, expected, before)
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        raise WrongGradientError(
            f"a step should change the value by {expected[k]:.3g} and changes it by {change[k]:.3g}"
        )
    return 4


def _disagrees(change: Tensor, expected: Tensor, before: Tensor) -> Tensor:
    """(B,) bool."""
    allowed = torch.maximum(TOLERANCE * expected, ROUNDING * before.abs())
    return ~((change - expected).abs() <= allowed)  # NaN disagrees
