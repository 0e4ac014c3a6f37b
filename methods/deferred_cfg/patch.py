"""Deferred CFG as a patch on a model: one mechanism under the sampler, the guider and the patch node.

Once a sample has reached its transition point, the host's own, unchanged code guides it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ...adapter.conditioning import with_settings_of
from ...adapter.hints import distilled_hint, size_hint
from ...adapter.model_call import CFG_OF_ONE
from ...adapter.model_patch import patch_sampling
from ...adapter.schedule import percent_of, starts_late
from ...mitigation.escape.rules import EscapeRule
from ...mitigation.wording import counted
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
            guider.conds["null"] = with_settings_of(guider.conds.get("negative"), here.null, "negative")
        if here.rule is not None and starts_late(guider.model_patcher, sigmas):
            here = replace(here, rule=here.rule.for_late_start())
        return run_class(here, guider, sigmas, noise)

    def finish(run: DeferralRun, guider: CFGGuider) -> None:
        plan = run.plan
        if not plan.on_end:
            return
        if run.counter.step < 0 and run.n:
            run.transition.zero_()  # no sample waited for guidance
            warning = _unguided(run, guider) or _other_guidance(run)
            plan.on_end(run.curve(warning=warning, unmeasured_because="Nothing was deferred."))
            return
        hints = [] if plan.rule is None else distilled_hint(guider.model_patcher)
        if plan.rule is not None and not hints:
            threshold = plan.rule.memorized_threshold
            hints = size_hint("memorized_threshold", threshold, EscapeRule.memorized_threshold, run.shape)
        warning = _never_guided(run, guider) or _not_escaped(run)
        plan.on_end(run.curve(" ".join(hints), warning, _too_late(run, guider)))

    name = plan.node if isinstance(plan, DeferralPlan) else node or DeferralPlan.node
    return patch_sampling(model, KEY, name, start=start, predict=run_class.predict, finish=finish)


def _other_guidance(run: DeferralRun) -> str:
    """A warning when another guider or pack made every prediction of a run."""
    return run.left_to and (
        f"Nothing was deferred, because {run.left_to} has guidance of its own, or none. Use KSampler, CFGGuider or "
        "Deferred-CFG Guider with a `cfg` other than 0, on a `model` that no other pack samples in its own way."
    )


def _unguided(run: DeferralRun, guider: CFGGuider) -> str:
    """A warning when the sampler gives no guidance that could be deferred."""
    if run.left_to != CFG_OF_ONE:
        return ""
    advice = "" if distilled_hint(guider.model_patcher) else " Set cfg above 1."
    return f"The sampler's cfg is 1: there is no guidance to defer, so {run.plan.unguided}.{advice}"


def _never_guided(run: DeferralRun, guider: CFGGuider) -> str:
    """A warning when a whole run ended before guidance could begin for every sample."""
    if not run.must_guide or run.all_outside or run.n == 0 or float(run.sigmas[-1]) != 0:
        return ""
    last = percent_of(guider.model_patcher, float(run.sigmas[-2]))
    return (
        f"Never guided: {int((~run.outside).sum())} of {counted(run.batch, 'image')}, because the last step starts at "
        f"{last:.2f}, before `start_percent` {run.plan.start_percent:.2f}. Raise `steps` or lower `start_percent`."
    )


def _not_escaped(run: DeferralRun) -> str:
    """A warning when guidance had to begin for samples that were still inside a basin."""
    if not (forced := int(run.forced.sum())):
        return ""
    said = run.plan.not_escaped or f"had not left the basin at start_percent {run.plan.start_percent:.2f}: raise it"
    return f"{forced} of {counted(run.batch, 'image')} {said}."


def _too_late(run: DeferralRun, guider: CFGGuider) -> str:
    """Why a measuring run measured nothing, or ""."""
    if run.tracker is None or run.n == 0 or not bool(run.d.isnan().all()):
        return ""
    start = percent_of(guider.model_patcher, float(run.sigmas[0]))
    return run.plan.too_late or (
        f"Guided from the first step: sampling starts at {start:.2f}, after `start_percent` "
        f"{run.plan.start_percent:.2f}."
    )
