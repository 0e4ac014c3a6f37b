"""Deferred classifier-free guidance: a scale per sample, low inside the basin, w outside. [JAIN], [HAN].

g_t = g₀ while the sample is inside, w from the transition point on
"""

from __future__ import annotations

import torch
from torch import Tensor


def inside_condition(denoised_cond: Tensor, denoised_uncond: Tensor, inside_scale: float, cfg: float) -> Tensor:
    """The conditional prediction that makes guidance at scale w act like guidance at scale g₀.

    D_u + w·(D_c′ − D_u) = D_u + g₀·(D_c − D_u)  ⇔  D_c′ = D_u + (g₀/w)·(D_c − D_u)

    So one guidance call serves a batch in which some samples are inside and some outside, and every
    other pack's guidance patch sees an ordinary pair. `cfg` must not be 0.
    """
    if inside_scale == 0:
        return denoised_uncond
    return denoised_uncond + (inside_scale / cfg) * (denoised_cond - denoised_uncond)


def per_sample(outside: Tensor, when_outside: Tensor, when_inside: Tensor) -> Tensor:
    """Rows of (B, ...) by the mask (B,); rows that are outside are the same bits as given."""
    mask = outside.to(when_outside.device).view(-1, *[1] * (when_outside.ndim - 1))
    return torch.where(mask, when_outside, when_inside)
