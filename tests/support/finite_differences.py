"""A gradient by autograd against what its function does along it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def check_gradient(value: Callable[[Tensor], Tensor], x: Tensor, step: float, rtol: float, least: float = 0.0) -> None:
    """The gradient of `value` (a number) at x is longer than `least`, and right along its own direction."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    way = gradient / gradient.norm()
    with torch.no_grad():
        up, down = (value(x + s * way).double() for s in (step, -step))
    assert gradient.norm() > least
    torch.testing.assert_close((up - down) / (2 * step), gradient.norm().double(), rtol=rtol, atol=0)
