"""Gradients that survive half precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def scaled_gradient(loss: Tensor, x: Tensor, size: float) -> Tensor:
    """∇_x loss, shape of x, computed for 2ⁿ·loss with 2ⁿ near `size` and divided by it again.

    Half precision knows nothing below 6e-8 and little below 6e-5, and on its way back through a network a
    gradient has no other place to be. A large loss keeps it clear of that; a power of two changes no bit of
    it in float32 or bfloat16. `size`: what makes an element at the network's end about 1, so that as much is left
    above as below. For d = ‖ε̃‖ that is √dim, for a cosine of the prediction dim.
    """
    factor = 2.0 ** round(math.log2(max(size, 1.0)))
    return torch.autograd.grad(factor * loss, x)[0] / factor
