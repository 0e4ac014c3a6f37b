"""Conditional noise prediction, guidance magnitude and pull, from denoised predictions.

The host returns denoised predictions D_c and D_u. The papers' quantities live in the model's own output space:
ε̃(x, t, y) = ε(x, t, y) − ε(x, t, y_null) and d(x, t) = ‖ε̃‖₂, one number per sample.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .batch import broadcast, norms

Parameterisation = Literal["eps", "v", "flow"]
SD_T = 14.6146  # σ of Stable Diffusion's first timestep


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
    s = broadcast(torch.as_tensor(sigma, dtype=gap.dtype).reshape(-1), gap)
    if parameterisation == "v":
        return gap * (s.square() + sigma_data**2).sqrt() / (s * sigma_data)
    if parameterisation in ("eps", "flow"):
        return gap / s
    raise ValueError(f"unknown parameterisation {parameterisation!r}: expected eps, v or flow")


def guidance_magnitude(prediction: Tensor) -> Tensor:
    """d = ‖ε̃‖₂ over all latent dimensions of each sample: (B, ...) -> (B,) float32. [HAN] Sec. 3."""
    return norms(prediction)


def pull(
    denoised_cond: Tensor, denoised_uncond: Tensor, first: Tensor | None = None, level: float = SD_T
) -> tuple[Tensor, Tensor]:
    """How far one unit of guidance moves the predicted image in the direction of the first step.

    p_t = ⟨D_c − D_u, u⟩/(√dim·σ_T), with u the direction of D_c − D_u at the first step and σ_T (`level`)
    where the run begins, so that at the first step of an EPS model p is d/√dim. This measure is ours. At T the
    sample holds nothing of the image yet, so for a memorized prompt u points to the memorized image; what guidance
    does later in other directions is the prompt's legitimate work.

    (B, ...) -> p (B,) float32 and the direction u (B, dim) that the later steps need as `first`.
    """
    gap = (denoised_cond - denoised_uncond).float().flatten(1)
    if first is None:
        first = torch.nn.functional.normalize(gap, dim=1)
    return (gap * first).sum(dim=1) / (math.sqrt(dimension(denoised_cond)) * level), first


def dimension(latent: Tensor) -> int:
    """Number of latent elements of one sample of (B, ...)."""
    return math.prod(latent.shape[1:])


def relative(d: Tensor, dim: int) -> Tensor:
    """d/√dim, which is comparable between resolutions."""
    return d / math.sqrt(dim)


def magnitude_level(sigma: float, parameterisation: Parameterisation) -> float:
    """The σ by which a gap ‖D_u − D_c‖ is divided to give an EPS model's d: σ itself; SD's T for a flow model.

    A flow model at σ = 1 sees nothing but noise, as SD does at its T.
    """
    return SD_T if parameterisation == "flow" else sigma


def eps_unit(sigma: float, parameterisation: Parameterisation, sigma_data: float = 1.0) -> float:
    """This model's d at noise level `sigma`, per unit of an EPS model's d there.

    The same change of the predicted image, ‖D_u − D_c‖, has another d in every output space: the unit is 1 for an
    EPS model, √(σ²+1) for a V model (14.65 at SD's T), 14.61 for a flow model at σ = 1. With it, one threshold,
    given as the papers do for EPS models, serves them all.
    """
    one = torch.ones(1, dtype=torch.float64)
    return magnitude_level(sigma, parameterisation) * float(
        conditional_noise_prediction(one * 0, one, sigma, parameterisation, sigma_data)
    )
