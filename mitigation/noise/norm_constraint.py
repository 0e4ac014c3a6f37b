"""Keep an optimised noise plausible: its norm near √dim, where nearly all of N(0, I) lies.

AdamW lowers d partly by inflating the noise, which a model then draws as grain. Three ways against it:

- `shell`: after every update a sample whose norm has left the range that Gaussian noise has, √dim ± 2.5,
  goes back to its border. The norm of N(0, I) has a standard deviation of 1/√2 in any dimension, so this
  is 3.5 of them; inside, the update is the paper's, bit for bit.
- `sphere`: after every update each sample goes back to the norm it was drawn with (the noise can
  turn, not grow).
- `chi`: the negative log density of the norm of a Gaussian, K(x) = ‖x‖²/2 − (dim − 1)·ln‖x‖, is
  added to the loss ([HAN] App. C); its minimum is at ‖x‖ = √(dim − 1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..prediction import dimension

Constraint = Literal["free", "shell", "sphere", "chi"]
CONSTRAINTS: tuple[Constraint, ...] = ("free", "shell", "sphere", "chi")
SHELL = 2.5  # half the thickness, in units of a norm
CHI_WEIGHT = 0.01


def chi_gradient(x: Tensor, weight: float = CHI_WEIGHT) -> Tensor:
    """weight·∇K(x) = weight·(‖x‖ − (dim − 1)/‖x‖)·x/‖x‖, each sample of (B, ...) with its own norm."""
    norm = _norm(x)
    return weight * (norm - (dimension(x) - 1) / norm) * x / norm


def within_shell(norm: float, dim: int) -> float:
    """The norm nearest to `norm` that Gaussian noise of `dim` dimensions plausibly has."""
    return min(max(norm, dim**0.5 - SHELL), dim**0.5 + SHELL)


def keep_norm(x: Tensor, norm: float) -> None:
    """Scale one sample (1, ...) in place to this norm."""
    with torch.no_grad():
        x.mul_(norm / _norm(x))


def _norm(x: Tensor) -> Tensor:
    flat = x.detach().flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return flat.view(-1, *[1] * (x.ndim - 1))
