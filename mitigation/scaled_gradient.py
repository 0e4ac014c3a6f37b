"""Gradients that survive half precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def scaled_gradient(loss: Tensor, x: Tensor, size: float) -> Tensor:
    """∇_x loss, shape of x, computed for 2ⁿ·loss with 2ⁿ near `size` and divided by 2ⁿ afterwards.

    float16 has no values below 6e-8 and few below 6e-5, and a gradient passes back through the network in that type.
    Scaling the loss keeps it clear of both; a power of two changes no bit in float32 or bfloat16. `size`: the factor
    that makes an element at the network's end about 1, which leaves as much room above as below. For d = ‖ε̃‖ that is
    √dim, for a cosine of the prediction dim.
    """
    factor = 2.0 ** round(math.log2(max(size, 1.0)))
    return torch.autograd.grad(factor * loss, x)[0] / factor
