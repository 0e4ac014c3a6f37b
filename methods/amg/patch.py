"""Anti-Memorization Guidance as a patch on a model. It acts on what the sampler finally gets.

CFG, deferral and other packs' hooks work first; then the samples that are too close are steered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ...adapter.model_patch import patch_sampling, unused_key
from .plan import AMGPlan, check_shape
from .run import AMGRun

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider

KEY = "memorization_guard_amg"


def add_amg(model: ModelPatcher, plan: AMGPlan) -> ModelPatcher:
    """A clone of `model` that samples with `plan`. A model may be patched several times, for several sets."""
    key = unused_key(model, KEY)

    def start(guider: CFGGuider, noise: Tensor, sigmas: Tensor) -> AMGRun:
        check_shape(plan, noise)
        return AMGRun(plan, key, guider, sigmas, len(noise))

    def finish(run: AMGRun, _guider: CFGGuider) -> None:
        if plan.on_end:
            plan.on_end(run.trace)

    patched = patch_sampling(model, key, plan.node, start=start, predict=AMGRun.predict, finish=finish)
    if plan.references.metric != "latent":  # loaded together with the model, so that neither pushes the other out
        patchers = [getattr(part, "patcher", None) for part in (plan.vae, plan.references.descriptor)]
        patched.set_additional_models(key, [p for p in patchers if p is not None])
    return patched
