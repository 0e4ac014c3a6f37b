"""Deferred classifier-free guidance: scale g₀ while a sample is inside the basin, w outside. [JAIN], [HAN]"""

from __future__ import annotations

from torch import Tensor


def inside_condition(denoised_cond: Tensor, denoised_uncond: Tensor, inside_scale: float, cfg: float) -> Tensor:
    """The conditional prediction that makes guidance at scale w act like guidance at scale g₀.

    D_u + w·(D_c′ − D_u) = D_u + g₀·(D_c − D_u)  ⇔  D_c′ = D_u + (g₀/w)·(D_c − D_u)

    With it, one guidance call serves a batch in which some samples are inside and some outside, and the guidance
    patches of other packs receive an ordinary pair of predictions. `cfg` must not be 0.
    """
    if inside_scale == 0:
        return denoised_uncond
    return denoised_uncond + (inside_scale / cfg) * (denoised_cond - denoised_uncond)
