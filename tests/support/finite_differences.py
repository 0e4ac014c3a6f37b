"""A gradient by autograd against what its function does along it."""

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


def slope(value: Callable[[Tensor], Tensor], x: Tensor, way: Tensor, step: float, halvings: int) -> Tensor:
    """What `value` (B,) does at x along `way`, and how far that is to be trusted, (2, B): Ridders' method.

    A long step sees the curve, a short one sees rounding: of the steps from `step` down, each half of the last and
    freed of the quadratic error, the one that agrees best with both of its neighbours is taken.
    """
    with torch.no_grad():
        steps = [step / 2**i for i in range(halvings + 1)]
        plain = torch.stack([(value(x + h * way).double() - value(x - h * way).double()) / (2 * h) for h in steps])
    better = (4 * plain[1:] - plain[:-1]) / 3
    gaps = (better[1:] - better[:-1]).abs()
    doubt = torch.maximum(gaps[1:], gaps[:-1])
    best = doubt.argmin(0, keepdim=True)
    return torch.cat([better[1:-1].gather(0, best), doubt.gather(0, best)])
