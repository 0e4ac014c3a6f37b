"""Keep an optimized noise plausible: its norm near √dim, where nearly all of N(0, I) lies.

AdamW lowers d partly by inflating the noise, which a model then draws as grain. Three constraints prevent that:

- `shell`: after every update, a sample whose norm has left the range of Gaussian noise, √dim ± 2.5, is scaled back to
  the border of that range. The norm of N(0, I) has a standard deviation of 1/√2 in any dimension, so this is 3.5 of
  them. Inside the range the update is the paper's, bit for bit.
- `sphere`: after every update, each sample is scaled back to the norm it was drawn with (the noise can turn, not grow).
- `chi`: the negative log density of the norm of a Gaussian, K(x) = ‖x‖²/2 − (dim − 1)·ln‖x‖, is added to the loss
  ([HAN] App. C); its minimum is at ‖x‖ = √(dim − 1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..batch import broadcast
from ..prediction import dimension

Constraint = Literal["free", "shell", "sphere", "chi"]
CONSTRAINTS: tuple[Constraint, ...] = ("free", "shell", "sphere", "chi")
SHELL = 2.5  # half the thickness, in units of a norm
CHI_WEIGHT = 0.01


def chi_gradient(x: Tensor, weight: float = CHI_WEIGHT) -> Tensor:
    """weight·∇K(x) = weight·(‖x‖ − (dim − 1)/‖x‖)·x/‖x‖, each sample of (B, ...) with its own norm."""
    norm = _norm(x)
    return weight * (norm - (dimension(x) - 1) / norm) * x / norm


def constrain_norm(x: Tensor, constraint: Constraint, drawn: float) -> None:
    """Apply `sphere` or `shell`, if chosen, to one sample (1, ...) in place. `drawn`: the norm it was drawn with."""
    if constraint not in ("sphere", "shell"):
        return
    norm, root = float(x.detach().norm()), dimension(x) ** 0.5
    wanted = drawn if constraint == "sphere" else min(max(norm, root - SHELL), root + SHELL)
    if wanted != norm:  # scaling by 1 would change bits
        with torch.no_grad():
            x.mul_(wanted / _norm(x))


def _norm(x: Tensor) -> Tensor:
    """(B, ...) -> (B, 1, ...) in the dtype of x."""
    return broadcast(x.detach().flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny), x)
