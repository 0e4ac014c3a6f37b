"""Cross-attention attenuation as a patch on a model, alone or with the guidance of GUARD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..adapter.cross_attention import change_keys, left_alone
from ..adapter.model_call import PartwiseCall, SamplerCall, denoised_predictions
from ..adapter.model_patch import patch_sampling
from ..adapter.schedule import StepCounter
from ..mitigation.attenuation import attenuation, repulsion

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "memorization_guard_attenuation"


def add_attenuation(model: ModelPatcher, threshold: float, factor: float, node: str) -> ModelPatcher:
    """A clone of `model` that pays less attention to trigger tokens."""
    return change_keys(model, lambda q, k: k * attenuation(q, k, threshold, factor), node)


class RepulsionRun:
    """One run that also moves away from what the model would make of the prompt without attenuation."""

    def __init__(self, sigmas: Tensor, strength: float) -> None:
        self.counter, self.parts = StepCounter(sigmas), PartwiseCall()
        self.steps, self.strength = len(sigmas) - 1, strength

    def predict(self, call: SamplerCall) -> Tensor:
        """ε̂ = u + w (safe − u) − 2 cos(πi/2N)(bad − u), as a pair that the host guides at w."""
        if call.other_guidance or call.cfg_is_one:
            return call.predict()
        self.counter.advance(call.level)
        call, conds, cfg = call.uncached, call.guider.conds, call.guider.cfg
        model, x, sigma = call.guider.inner_model, call.x, call.sigma
        bad = self.parts.predictions(model, conds["positive"], None, x, sigma, left_alone(call.options))[0]
        safe, null = denoised_predictions(model, conds["positive"], conds["negative"], x, sigma, call.options)
        away = repulsion(self.counter.step, self.steps, self.strength) / cfg
        return call.guided(cfg, safe - away * (bad - null), null)


def add_repulsion(model: ModelPatcher, strength: float, node: str) -> ModelPatcher:
    """A clone of a model with attenuation that samples as GUARD does; an earlier one on it is replaced."""
    return patch_sampling(
        model,
        KEY,
        node,
        start=lambda guider, noise, sigmas: RepulsionRun(sigmas, strength),
        predict=RepulsionRun.predict,
        finish=lambda run, guider: None,
    )
