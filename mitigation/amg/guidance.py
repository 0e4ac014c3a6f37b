"""Anti-Memorization Guidance: steer a prediction away from the reference that it gets too close to. [AMG]

[AMG] writes its guidances as additions to the noise prediction, ε̂ ← ε̂ + G. The samplers of the host work on
the denoised prediction D = x̂₀, so everything here is an update of D. Let x be the latent as the sampler
sees it, n Gaussian noise, and ᾱ and t the paper's signal level and time:

EPS   x = x₀ + σn (the paper's x_t divided by √ᾱ_t), σ = √(1−ᾱ)/√ᾱ, D = x − σ·ε̂.
      ε̂ ← ε̂ + G is D ← D − σG, and ε(y) − ε(∅) = (D_∅ − D_y)/σ: in the linear guidances σ cancels.
V     D = x/(σ²+1) − v̂·σ/√(σ²+1): another output, but the same x and D, and ε̂ = (x − D)/σ is still the
      noise that the prediction implies. The update of D is the same.
flow  x = (1−σ)x₀ + σn, D = x − σ·û. x/(1−σ) = x₀ + r·n with the noise-to-signal ratio r = σ/(1−σ):
      the EPS case at the noise level r, with the same D.

So the linear guidances need no σ, and the gradient one needs only r, which is σ itself for EPS and V:

    G_spe = −s₁(ε(x_t, y)  − ε(x_t))     D ← D − s₁(D_y  − D_∅)      Eq. 11
    G_dup = −s₂(ε(x_t, y_N) − ε(x_t))    D ← D − s₂(D_yN − D_∅)      Eq. 13
    G_sim = c₃√(1−ᾱ_t)·∇_{x_t} σ_t       D ← D − c₃·r²·∇_x σ_t       Eq. 17, x divided by its signal

The last line uses r·√(1−ᾱ)·∇_{x_t} and ∇_{x_t} = ∇_x/√ᾱ. Through the prediction ε̂ is constant, x moves D
one to one and ∇_x σ_t = ∇_D σ_t; through the model, ∇_x passes the network as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..batch import broadcast, norms
from ..references.reference_set import Metric
from ..references.similarity import MEMORIZED
from .threshold import Threshold

Growth = Literal["constant", "ramp"]
GROWTHS: tuple[str, ...] = get_args(Growth)
RAMP = 1000 / 170  # the authors' exp((1000 − t)/170)
LARGEST_RATIO = 1e3  # r of a flow model at σ = 1 is infinite


@dataclass(frozen=True)
class GuidanceStrengths:
    """The strengths of one run; a strength of 0 turns its guidance off."""

    despecification: float = 0.0  # c₁
    deduplication: float = 0.0  # c₂
    dissimilarity: float = 0.0  # c₃, see dissimilarity_step for its unit
    threshold: Threshold = field(default_factory=Threshold)
    growth: Growth = "ramp"  # of c₃ over time
    longest_step: float = 4.0  # of the dissimilarity guidance, in units of ‖D‖
    as_released: bool = False  # act when and how the authors' code does, see `as_released` below

    @property
    def off(self) -> bool:
        return self.despecification == self.deduplication == self.dissimilarity == 0


def closeness(metric: Metric, similarity: Tensor) -> Tensor:
    """σ_t on one scale for all metrics: from 0.5 on a sample counts as memorized, 1 is the reference itself.

    A cosine is already on that scale. nL2 (Eq. 8, a negative ratio −r; memorized up to r = 1.4) becomes
    1/(1 + r/1.4), which lies between 0 and 1: the authors' nL2 thresholds 1.95 … 1.5 are 0.42 … 0.48.
    """
    if metric == "nL2":
        return 1 / (1 + similarity / MEMORIZED[metric])
    return similarity


def as_released(strengths: GuidanceStrengths) -> GuidanceStrengths:
    """These strengths under the rules of the authors' code for Stable Diffusion, where they differ from the paper's.

    - s₁ acts wherever σ_t > 0, also below λ_t.
    - s₂ = clamp(c₂σ_t, 0, 1)·(s₀ − 1 − s₁), with c₂ = 1/0.3. Once it has acted it goes on for nine more steps.
    - Dissimilarity is c₃·r²·∇σ_t in the units of the latent, without the factor ‖D‖² and without a bound.
    - t is the model's timestep/1000.
    """
    return replace(strengths, as_released=True, longest_step=math.inf)


def despecification_scale(close: Tensor, c1: float, cfg: Tensor | float) -> Tensor:
    """s₁ = clamp(c₁σ_t, 0, s₀ − 1), (B,), so that guidance never falls below scale 1. [AMG] Eq. 12."""
    room = torch.as_tensor(cfg - 1.0).to(close).clamp_min(0.0)
    return torch.minimum((c1 * close).clamp_min(0.0), room)


def deduplication_scale(close: Tensor, c2: float, cfg: Tensor | float, s1: Tensor, released: bool = False) -> Tensor:
    """s₂ = clamp(c₂σ_t, 0, s₀ − s₁ − 1), (B,). [AMG] Eq. 14. As `released`: clamp(c₂σ_t, 0, 1)·(s₀ − s₁ − 1)."""
    room = (cfg - s1 - 1.0).clamp_min(0.0)
    wanted = (c2 * close).clamp_min(0.0)
    return room * wanted.clamp_max(1.0) if released else torch.minimum(wanted, room)


def move_away(denoised: Tensor, cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """D − s·(D_cond − D_∅): Eq. 11 with the prompt's prediction, Eq. 13 with the duplicated caption's.

    Predictions (B, ...), `scale` (B,).
    """
    return denoised - broadcast(scale, denoised) * (cond - uncond)


def dissimilarity_scale(close: Tensor, guidance: GuidanceStrengths, remaining: float) -> Tensor:
    """c₃ at this time and closeness, (B,).

    constant, the paper: c₃. ramp, the authors' code: c₃(σ_t − λ_min)·exp((1000 − t)/170), because ∇σ_t is multiplied
    by r², which falls by five orders of magnitude during a run; without it the second half is hardly guided.
    """
    c3 = guidance.dissimilarity
    if guidance.growth == "constant":
        return torch.full_like(close, c3)
    ramp = math.exp(RAMP * (1 - remaining))
    return c3 * ramp * (close - guidance.threshold.low).clamp_min(0.0)


def noise_ratio(sigma: float, flow: bool) -> float:
    """r, the noise-to-signal ratio at σ."""
    return min(sigma / max(1 - sigma, 1e-9), LARGEST_RATIO) if flow else sigma


def dissimilarity_step(denoised: Tensor, gradient: Tensor, scale: Tensor, ratio: float, longest: float) -> Tensor:
    """What G_sim subtracts from D (B, ...): scale·r²·‖D‖²·∇σ_t, at most `longest`·‖D‖ long. `scale` (B,), `ratio` r.

    With an infinite `longest`, as in the authors' code, it is scale·r²·∇σ_t: their 100 is 100/‖D‖² in the unit of c₃.

    Two things differ from the paper. ‖D‖² makes c₃ dimensionless: the gradient of a cosine has the length 1/‖D‖,
    so with the paper's formula the same c₃ moves a prediction of four times the pixels only a quarter as far. And
    the step is bounded: r² is 213 at SD's first step and infinite at a flow model's, while a gradient says
    nothing about points much farther away than ‖D‖.
    """
    if math.isinf(longest):
        return broadcast(scale, gradient) * (ratio * ratio) * gradient
    length = norms(denoised)
    step = broadcast(scale * length.square(), gradient) * (ratio * ratio) * gradient
    step = step.nan_to_num(0.0, posinf=0.0, neginf=0.0)
    allowed = longest * length / norms(step).clamp_min(1e-12)
    return step * broadcast(allowed.clamp_max(1.0), step)
