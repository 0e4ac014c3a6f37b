"""Prompt re-anchoring (PRSS) as a patch on a model. Samples whose prompt does not pull keep KSampler's bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.batch_rows import choose_prompts
from ..adapter.conditioning import with_settings_of
from ..adapter.model_call import CFG_OF_ONE, PartwiseCall, SamplerCall, denoised_predictions
from ..adapter.model_patch import patch_sampling
from ..adapter.schedule import starts_late
from ..adapter.two_predictions import conditional_noise, parameterisation, pull_level
from ..mitigation.batch import replace_samples
from ..mitigation.prediction import dimension, eps_unit, guidance_magnitude, pull, relative
from ..mitigation.reanchoring import acts_on, reanchored, reanchored_scale

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider

KEY = "memorization_guard_reanchoring"


@dataclass(frozen=True)
class Reanchoring:
    """What a run does. Both thresholds are d/√dim in an EPS model's units; `on_end` gets the run."""

    reworded: list  # CONDITIONING
    memorized_threshold: float
    rewording_threshold: float
    on_end: Callable[[ReanchoringRun], None]
    node: str


class ReanchoringRun:
    """The state of one run."""

    def __init__(self, plan: Reanchoring, guider: CFGGuider, noise: Tensor, sigmas: Tensor) -> None:
        self.plan, self.parts = plan, PartwiseCall()
        self.level = pull_level(guider.model_patcher, sigmas)
        late = starts_late(guider.model_patcher, sigmas)  # such a run cannot tell whether its prompt pulls
        self.judged = torch.full((len(noise),), late)  # (B,) bool
        self.acts = self.judged.clone()  # (B,) bool
        self.left_to = ""  # the guider or the pack that the predictions were left to
        guider.conds[KEY] = with_settings_of(guider.conds.get("positive"), plan.reworded)

    def predict(self, call: SamplerCall) -> Tensor:
        self.left_to = call.other_guidance or (CFG_OF_ONE if call.cfg_is_one else "")
        if self.left_to or (self.judged.all() and not self.acts.any()):
            return call.predict()
        call, conds, cfg = call.uncached, call.guider.conds, call.guider.cfg
        model, x, sigma = call.guider.inner_model, call.x, call.sigma
        negative = conds["negative"]
        if not self.judged.all():
            original, null = denoised_predictions(model, conds["positive"], negative, x, sigma, call.options)
            self._judge(original, null)
            if not self.acts.any():
                return call.guided(cfg, original, null)
            reworded = self.parts.predictions(model, conds[KEY], None, x, sigma, call.options)[0]
        elif self.acts.all():
            original = None  # needed only where the rewording pulls as well
            reworded, null = denoised_predictions(model, conds[KEY], negative, x, sigma, call.options)
        else:
            original, null = denoised_predictions(model, conds["positive"], negative, x, sigma, call.options)
            reworded = self.parts.predictions(model, conds[KEY], None, x, sigma, call.options)[0]
        scale = reanchored_scale(
            self._magnitude(call, reworded, null), cfg, self.plan.rewording_threshold, self.plan.memorized_threshold
        )
        if original is None:
            away = bool((scale > 1).any())
            ask = self.parts.predictions
            original = ask(model, conds["positive"], None, x, sigma, call.options)[0] if away else reworded
        acts = self.acts.to(x.device)
        cond = replace_samples(acts, reanchored(original, reworded, null, scale, cfg), original)
        prompts = {"positive": choose_prompts(self.acts, conds[KEY], conds["positive"], x)}
        return call.guided(cfg, cond, null, prompts)

    def _judge(self, original: Tensor, null: Tensor) -> None:
        """Decide about the samples that are guided for the first time. A deferral gives the others two equal ones."""
        strength = pull(original, null, level=self.level)[0].cpu()
        first = ~self.judged & (strength > 0)
        self.acts |= first & acts_on(strength, self.plan.memorized_threshold)
        self.judged |= first

    def _magnitude(self, call: SamplerCall, reworded: Tensor, null: Tensor) -> Tensor:
        """The rewording's own d/√dim (B,), in an EPS model's units."""
        sampling = call.guider.inner_model.model_sampling
        d = guidance_magnitude(conditional_noise(sampling, reworded, null, call.sigma))
        return relative(d, dimension(call.x)) / eps_unit(call.level, *parameterisation(sampling))


def add_reanchoring(model: ModelPatcher, plan: Reanchoring) -> ModelPatcher:
    """A clone of `model` that samples with `plan`; an earlier re-anchoring on it is replaced."""
    return patch_sampling(
        model,
        KEY,
        plan.node,
        start=lambda guider, noise, sigmas: ReanchoringRun(plan, guider, noise, sigmas),
        predict=ReanchoringRun.predict,
        finish=lambda run, guider: plan.on_end(run),
    )
