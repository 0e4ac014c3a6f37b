"""Anti-Memorization Guidance as a patch on a model. It acts on what the sampler finally gets.

CFG, deferral and other packs' hooks work first; then the samples that are too close are steered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from ...adapter.model_call import guides_itself
from ...adapter.model_patch import patch_sampling, unused_key
from .plan import AMGPlan, check_shape
from .run import AMGRun

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider

KEY = "memorization_guard_amg"
PlanOfRun = Callable[["Tensor"], AMGPlan]


def add_amg(model: ModelPatcher, plan: AMGPlan | PlanOfRun, node: str | None = None) -> ModelPatcher:
    """A clone of `model` that samples with `plan`. A model may be patched several times, for several sets.

    `plan` may be a function of the noise, called when a run begins, with references of metric latent. Then `node` is
    for errors.
    """
    key = unused_key(model, KEY)

    def start(guider: CFGGuider, noise: Tensor, sigmas: Tensor) -> AMGRun:
        here = plan if isinstance(plan, AMGPlan) else plan(noise)
        check_shape(here, noise)
        return AMGRun(here, key, guider, sigmas, len(noise))

    def finish(run: AMGRun, guider: CFGGuider) -> None:
        if run.plan.on_end:
            unguided = getattr(guider, "cfg", None) == 1.0 and not guides_itself(guider)
            run.trace.idle = run.plan.needs_guidance if unguided else ()
            run.plan.on_end(run.trace)

    name = plan.node if isinstance(plan, AMGPlan) else node or AMGPlan.node
    patched = patch_sampling(model, key, name, start=start, predict=AMGRun.predict, finish=finish)
    if (
        isinstance(plan, AMGPlan) and plan.references.metric != "latent"
    ):  # loaded together with the model, so that neither pushes the other out
        patchers = [getattr(part, "patcher", None) for part in (plan.vae, plan.references.descriptor)]
        patched.set_additional_models(key, [p for p in patchers if p is not None])
    return patched
