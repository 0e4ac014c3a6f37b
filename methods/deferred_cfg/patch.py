"""Deferred CFG as a patch on a model: one mechanism under the sampler, the guider and the patch node.

Once a sample has reached its transition point, the host's own, unchanged code guides it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ...adapter.conditioning import to_conds
from ...adapter.hints import distilled_hint
from ...adapter.model_patch import patch_sampling
from ...adapter.schedule import percent_of, starts_late
from .plan import DeferralPlan
from .run import DeferralRun

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.samplers import CFGGuider

KEY = "memorization_guard_deferral"
PlanOfRun = Callable[["CFGGuider", "Tensor"], DeferralPlan]


def add_deferred_cfg(
    model: ModelPatcher,
    plan: DeferralPlan | PlanOfRun,
    run_class: type[DeferralRun] = DeferralRun,
    node: str | None = None,
) -> ModelPatcher:
    """A clone of `model` that samples with `plan`; an earlier deferral on it is replaced.

    `plan` may be a function of the guider and the noise, called when a run begins. Then `node` is for errors.
    """

    def start(guider: CFGGuider, noise: Tensor, sigmas: Tensor) -> DeferralRun:
        here = plan if isinstance(plan, DeferralPlan) else plan(guider, noise)
        if here.null is not None:
            guider.conds["null"] = to_conds(here.null)
        if here.rule is not None and starts_late(guider.model_patcher, sigmas):
            here = replace(here, rule=here.rule.for_late_start())
        return run_class(here, guider, sigmas, noise)

    def finish(run: DeferralRun, guider: CFGGuider) -> None:
        plan = run.plan
        if not plan.on_end:
            return
        if run.counter.step < 0 and run.n:
            run.transition.zero_()  # no sample waited for guidance
            hints = [_other_guidance(run)]
        else:
            hints = [*_never_guided(run, guider), *([] if plan.rule is None else distilled_hint(guider.model_patcher))]
        plan.on_end(run.curve(" ".join(hints)))

    name = plan.node if isinstance(plan, DeferralPlan) else node or DeferralPlan.node
    return patch_sampling(model, KEY, name, start=start, predict=run_class.predict, finish=finish)


def _other_guidance(run: DeferralRun) -> str:
    """A hint when another guider or pack made every prediction of a run."""
    return (
        f"{run.plan.node}: nothing was deferred, because {run.left_to} combines the predictions in a way of its own or "
        "does not use guidance. Use KSampler, CFGGuider or Deferred-CFG Guider with a `cfg` other than 0, on a `model` "
        "that no other pack samples in its own way."
    )


def _never_guided(run: DeferralRun, guider: CFGGuider) -> list[str]:
    """A hint when a whole run ended before guidance could begin for every sample."""
    if not run.must_guide or run.all_outside or run.n == 0 or float(run.sigmas[-1]) != 0:
        return []
    last = percent_of(guider.model_patcher, float(run.sigmas[-2]))
    return [
        f"{run.plan.node}: {int((~run.outside).sum())} of {run.batch} images were never guided. Guidance "
        f"begins at `start_percent` {run.plan.start_percent:.2f} at the latest, but the last of {run.n} steps "
        f"begins at {last:.2f}. Raise `steps` or lower `start_percent`, so that at least one step is guided."
    ]
