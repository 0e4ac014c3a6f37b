"""Conditional noise prediction and guidance magnitude, from denoised predictions.

A host hands out denoised predictions D_c and D_u. The papers' quantities live in the model's own
output space: ε̃(x, t, y) = ε(x, t, y) − ε(x, t, y_null) and d(x, t) = ‖ε̃‖₂, one number a sample.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Parameterisation = Literal["eps", "v", "flow"]


def conditional_noise_prediction(
    denoised_cond: Tensor,
    denoised_uncond: Tensor,
    sigma: Tensor | float,
    parameterisation: Parameterisation,
    sigma_data: float = 1.0,
) -> Tensor:
    """ε̃ in the model's output space, shape of the inputs (B, ...).

    `sigma` is the noise level as the host passes it, a number or one per sample (B,).
    EPS and flow predict D = x − σ·out, hence out_c − out_u = (D_u − D_c)/σ;
    V predicts D = x·σ_d²/(σ²+σ_d²) − out·σσ_d/√(σ²+σ_d²), hence (D_u − D_c)·√(σ²+σ_d²)/(σσ_d).
    """
    gap = denoised_uncond - denoised_cond
    s = torch.as_tensor(sigma, dtype=gap.dtype, device=gap.device)
    s = s.reshape(-1, *[1] * (gap.ndim - 1)) if s.numel() > 1 else s.reshape(())
    if parameterisation == "v":
        return gap * (s.square() + sigma_data**2).sqrt() / (s * sigma_data)
    if parameterisation in ("eps", "flow"):
        return gap / s
    raise ValueError(f"unknown parameterisation {parameterisation!r}: expected eps, v or flow")


def guidance_magnitude(prediction: Tensor) -> Tensor:
    """d = ‖ε̃‖₂ over all latent dimensions of each sample: (B, ...) -> (B,) float32. [HAN] Sec. 3."""
    return torch.linalg.vector_norm(prediction.float().flatten(1), dim=1)


def dimension(latent: Tensor) -> int:
    """Number of latent elements of one sample of (B, ...)."""
    return math.prod(latent.shape[1:])


def relative(d: Tensor, dim: int) -> Tensor:
    """d/√dim: what carries over between resolutions and models."""
    return d / math.sqrt(dim)
