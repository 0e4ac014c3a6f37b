"""Anti-Memorization GuidanceStrengths: steer a prediction away from the reference that it gets too close to. [AMG]

[AMG] writes its guidances as additions to the noise prediction, ε̂ ← ε̂ + G. A host's samplers work on
the denoised prediction D = x̂₀, so everything here is an update of D. With x the latent as the sampler
sees it:

EPS   x = x₀ + σn (the paper's x_t divided by √ᾱ_t), σ = √(1−ᾱ)/√ᾱ, D = x − σ·ε̂.
      ε̂ ← ε̂ + G is D ← D − σG, and ε(y) − ε(∅) = (D_∅ − D_y)/σ: in the linear guidances σ cancels.
V     D = x/(σ²+1) − v̂·σ/√(σ²+1): another output, the same x and D, and ε̂ = (x − D)/σ still is the
      noise that the prediction implies. The same update of D.
flow  x = (1−σ)x₀ + σn, D = x − σ·û. x/(1−σ) = x₀ + r·n with the noise-to-signal ratio r = σ/(1−σ):
      the EPS case at the noise level r, with the same D.

So the linear guidances need no σ, and the gradient one needs r alone, which is σ itself for EPS and V:

    G_spe = −s₁(ε(x_t, y)  − ε(x_t))     D ← D − s₁(D_y  − D_∅)      Eq. 11
    G_dup = −s₂(ε(x_t, y_N) − ε(x_t))    D ← D − s₂(D_yN − D_∅)      Eq. 13
    G_sim = c₃√(1−ᾱ_t)·∇_{x_t} σ_t       D ← D − c₃·r²·∇_x σ_t       Eq. 17, x divided by its signal

(the last: r·√(1−ᾱ)·∇_{x_t} and ∇_{x_t} = ∇_x/√ᾱ make r².) Through the prediction, ε̂ constant, x moves D
one to one and ∇_x σ_t = ∇_D σ_t; through the model, ∇_x goes through the network too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ..references.reference_set import Metric
from ..references.similarity import MEMORIZED
from .threshold import Threshold

Growth = Literal["constant", "ramp"]
GROWTHS: tuple[str, ...] = get_args(Growth)
RAMP = 1000 / 170  # the authors' exp((1000 − t)/170)
SAME_SCALE = 0.5  # closeness at which a sample counts as memorized, for every metric


@dataclass(frozen=True)
class GuidanceStrengths:
    """The strengths of one run; a strength of 0 turns its guidance off."""

    despecification: float = 0.0  # c₁
    deduplication: float = 0.0  # c₂
    dissimilarity: float = 0.0  # c₃
    threshold: Threshold = field(default_factory=Threshold)
    growth: Growth = "ramp"  # of c₃ over time
    reach: float = 4.0  # longest step of the dissimilarity guidance, in lengths of D

    @property
    def off(self) -> bool:
        return self.despecification == self.deduplication == self.dissimilarity == 0


def closeness(metric: Metric, similarity: Tensor) -> Tensor:
    """σ_t on one scale for all metrics: 0.5 is where a sample counts as memorized, larger is closer.

    A cosine is its own closeness. nL2 (Eq. 8, a negative ratio; memorized from −1.4 up) becomes
    0.7/ratio: the authors' nL2 thresholds 1.95 … 1.5 are 0.36 … 0.47, next to their cosines' 0.3 … 0.4.
    """
    if metric == "nL2":
        return SAME_SCALE * MEMORIZED[metric] / similarity.clamp_max(-1e-8)
    return similarity


def despecification_scale(close: Tensor, c1: float, cfg: float) -> Tensor:
    """s₁ = clamp(c₁σ_t, 0, s₀ − 1), (B,). [AMG] Eq. 12: guidance is never taken below scale 1."""
    return (c1 * close).clamp(0.0, max(cfg - 1.0, 0.0))


def deduplication_scale(close: Tensor, c2: float, cfg: float, s1: Tensor) -> Tensor:
    """s₂ = clamp(c₂σ_t, 0, s₀ − s₁ − 1), (B,). [AMG] Eq. 14."""
    return torch.minimum((c2 * close).clamp_min(0.0), (cfg - s1 - 1.0).clamp_min(0.0))


def move_away(denoised: Tensor, cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """D − s·(D_cond − D_∅): Eq. 11 with the prompt's prediction, Eq. 13 with the duplicated caption's.

    Predictions (B, ...), `scale` (B,).
    """
    return denoised - _rows(scale, denoised) * (cond - uncond)


def dissimilarity_scale(close: Tensor, guidance: GuidanceStrengths, remaining: float) -> Tensor:
    """c₃ as it is at this time and closeness, (B,). The paper: c₃. The authors: c₃(σ_t − λ_min)·exp((1000 − t)/170).

    ∇σ_t counts with r², which falls by five orders of magnitude while a picture forms; the ramp is what
    keeps the guidance alive in the second half of the run.
    """
    c3 = guidance.dissimilarity
    if guidance.growth == "constant":
        return torch.full_like(close, c3)
    ramp = math.exp(RAMP * (1 - remaining))
    return c3 * ramp * (close - guidance.threshold.low).clamp_min(0.0)


def dissimilarity_step(denoised: Tensor, gradient: Tensor, scale: Tensor, ratio: float, reach: float) -> Tensor:
    """What G_sim takes away from D (B, ...): scale·r²·‖D‖²·∇σ_t, at most `reach`·‖D‖ long. `scale` (B,), `ratio` r.

    Two things are not the paper's. ‖D‖² makes c₃ a number without units: the slope of a cosine is
    1/‖D‖ steep, so that with the paper's formula the same c₃ moves a prediction of four times the
    pixels a quarter of the way. And the bound: r² is 213 at SD's first step and infinite at a flow
    model's, while a slope says nothing about places much farther away than the prediction is long.
    """
    length = _norm(denoised)
    step = _rows(scale * length.square(), gradient) * (ratio * ratio) * gradient
    step = step.nan_to_num(0.0, posinf=0.0, neginf=0.0)
    allowed = reach * length / _norm(step).clamp_min(1e-12)
    return step * _rows(allowed.clamp_max(1.0), step)


def _norm(rows: Tensor) -> Tensor:
    """(B, ...) -> (B,) float32."""
    return torch.linalg.vector_norm(rows.flatten(1).float(), dim=1)


def only(rows: Tensor, changed: Tensor, kept: Tensor) -> Tensor:
    """`changed` where the mask (B,) is set; the other rows are the same bits as in `kept`."""
    return torch.where(_rows(rows, kept, torch.bool), changed.to(kept.dtype), kept)


def _rows(values: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(B,) -> (B, 1, ...) beside `like`."""
    return values.to(like.device, dtype or like.dtype).view(-1, *[1] * (like.ndim - 1))
