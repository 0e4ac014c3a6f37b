"""Deferred CFG as a patch on a model: one mechanism under the sampler, the guider and the patch.

Two host wrappers on a clone of the model. OUTER_SAMPLE gives every run its own fresh `Run`, kept in
that run's copy of the model options; PREDICT_NOISE asks it, at every model evaluation, which branches
are needed and which scale each sample gets. A sample is guided by the host's own, unchanged code from
its transition point on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ..adapter.distilled import distilled_hint
from ..adapter.errors import GuardError, check_finite, check_magnitude
from ..adapter.model_call import CFGEvaluation, PartwiseCall, branches
from ..adapter.sampling import percent_of, starts_late
from ..adapter.two_predictions import conditional_noise
from ..adapter.version import WRAPPERS, predict_noise
from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.escape.deferred_cfg import inside_condition, per_sample
from ..mitigation.escape.rules import EscapeRule
from ..mitigation.prediction import dimension, guidance_magnitude, pull, relative

KEY = "memorization_guard_deferral"


class AllEscaped(Exception):
    """Ends a detection run: nothing is left to measure."""


@dataclass(frozen=True)
class DeferralPlan:
    """What a run does; immutable, so a patched model can be sampled any number of times."""

    rule: EscapeRule | None = None  # measure and decide by this rule; None: switch by schedule alone
    start_percent: float = 0.0  # the host's percent: guided from here on, at the latest
    inside_scale: float = 0.0  # g₀
    transition_sigma: Tensor | None = None  # (B,) known transition points, from a curve
    null: list | None = None
    stop_when_out: bool = False  # a detection run: never guide, stop with the last escape
    node: str = "Deferred CFG"
    on_end: Callable[[EscapeCurve], None] | None = None
    on_step: Callable[[EscapeCurve], None] | None = None


def add_deferred_cfg(model, deferral: DeferralPlan):
    """A clone of `model` that samples with `deferral`; an earlier deferral on it is replaced."""
    patched = model.clone()
    wrappers = {WRAPPERS.OUTER_SAMPLE: _outer_sample(deferral), predict_noise(deferral.node): _predict_noise}
    for kind, wrapper in wrappers.items():
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    return patched


def _outer_sample(deferral: DeferralPlan):
    def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        if deferral.null is not None:
            guider.conds["null"] = [c.copy() for c in comfy.sampler_helpers.convert_cond(deferral.null)]
        plan = deferral
        if plan.rule is not None and starts_late(guider.model_patcher, sigmas):
            plan = replace(plan, rule=plan.rule.begun_late())
        run = Run(plan, sigmas.detach().float().cpu(), len(noise), dimension(noise))
        guider.model_options[KEY] = run  # this run's own copy of the options
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        if deferral.on_end and run.step >= 0:  # otherwise another guider did it all
            hints = [_too_short(run, guider)] if run.ends_unguided else []
            if deferral.rule is not None and not deferral.stop_when_out:  # the detector says it itself
                hints += distilled_hint(guider.model_patcher)
            deferral.on_end(replace(run.curve(), hint=" ".join(hints)))
        return out

    return wrapper


def _too_short(run: Run, guider) -> str:
    last = percent_of(guider.model_patcher, float(run.sigmas[-2]))
    return (
        f"{run.deferral.node}: {int((~run.outside).sum())} of {run.batch} picture(s) were never guided. Guidance "
        f"begins at `start_percent` {run.deferral.start_percent:.2f} at the latest, but the last of {run.n} step(s) "
        f"begins at {last:.2f}. Raise `steps` or lower `start_percent`, so that a step is left."
    )


def _predict_noise(executor, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
    guider = executor.class_obj
    run: Run | None = model_options.get(KEY)
    own_guidance = type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise
    alone = guider.conds.get("positive") is None or guider.conds.get("negative") is None  # nothing to guide against
    if run is None or own_guidance or alone or guider.cfg == 0:
        return executor(x, timestep, model_options, seed)
    run.advance(timestep, guider.inner_model.model_sampling)
    if run.released:
        return executor(x, timestep, model_options, seed)
    cond, unc, against = run.predictions(guider, x, timestep, model_options)
    ask = CFGEvaluation(executor, guider, x, timestep, model_options, seed)
    g0, outside, w = run.inside_scale, run.outside, guider.cfg
    if outside.all():
        return ask.at(w, cond, against)
    if outside.any() and not ask.must_be_apart(g0):
        inside = {0.0: unc, 1.0: cond}.get(g0)
        inside = inside_condition(cond, unc, g0, w) if inside is None else inside
        inside_against = cond if g0 == 1 else unc
        return ask.at(w, per_sample(outside, cond, inside), per_sample(outside, against, inside_against))
    null = guider.conds.get("null", guider.conds["negative"])
    if g0 == 0:  # no prompt: a patch that asks the model itself asks about nothing, too
        held = ask.at(w, unc, unc, {"positive": null, "negative": null})
    else:
        held = ask.at(w if g0 == 1 else g0, cond, cond if g0 == 1 else unc, {"negative": null})
    return per_sample(outside, ask.at(w, cond, against), held) if outside.any() else held


@dataclass
class Run:
    """One run's state: counted by sigma, since some samplers call the model more than once a step."""

    deferral: DeferralPlan
    sigmas: Tensor
    batch: int
    dim: int
    step: int = -1  # the schedule's step that the last evaluation belonged to
    fresh: bool = False  # this evaluation is the first of its step
    d: Tensor = field(init=False)
    pull: Tensor = field(init=False)
    first: Tensor | None = None  # the direction of the pull at the first step
    transition: Tensor = field(init=False)  # the step since which a sample is outside; n while it is inside
    released: bool = False  # nothing is measured or deferred any more
    fitting: PartwiseCall = field(default_factory=PartwiseCall)

    def __post_init__(self) -> None:
        self.n = len(self.sigmas) - 1
        self.d = torch.full((self.batch, self.n), torch.nan)
        self.pull = self.d.clone()
        self.transition = torch.full((self.batch,), self.n)
        self.tracker = None if self.deferral.rule is None else self.deferral.rule.track()
        known = self.deferral.transition_sigma
        if known is not None and len(known) not in (1, self.batch):
            raise GuardError(
                f"{self.deferral.node}: `curve` was made for a batch of {len(known)}, this run has {self.batch}. "
                "Make the curve with the same latent, or disconnect it."
            )

    @property
    def outside(self) -> Tensor:
        return self.transition < self.n

    @property
    def ends_unguided(self) -> bool:
        """A whole run that was to be guided at last, and came to its end before that."""
        whole = self.n > 0 and self.step >= 0 and float(self.sigmas[-1]) == 0
        return whole and not self.deferral.stop_when_out and not self.all_outside

    @property
    def all_outside(self) -> bool:
        return bool(self.outside.all())

    def _leave(self, out: Tensor) -> None:
        """Samples in `out` are guided from this step on; the others are inside."""
        since = torch.where(self.outside, self.transition, self.step)
        self.transition = torch.where(out, since, self.n)

    def advance(self, timestep: Tensor, model_sampling) -> None:
        """Note where in the schedule this evaluation is, and apply what needs no measurement."""
        sigma = float(timestep.flatten()[0])
        here = max(int((self.sigmas[: self.n] >= sigma * (1 - 1e-4)).sum()) - 1, 0)
        self.fresh = here > self.step
        self.step = max(here, self.step)
        if self.deferral.stop_when_out:
            return
        reach = sigma * (1 - 1e-4)
        if self.released:
            return
        if self.deferral.transition_sigma is not None:
            self._leave((self.deferral.transition_sigma >= reach).expand(self.batch))
        late = reach <= float(model_sampling.percent_to_sigma(self.deferral.start_percent))
        if late:
            self._leave(torch.ones(self.batch, dtype=torch.bool))
        may_return = self.tracker is not None and not self.tracker.settled
        self.released = self.all_outside and (late or not may_return)

    @property
    def inside_scale(self) -> float:
        """g₀; a detection run never guides."""
        return 0.0 if self.deferral.stop_when_out else self.deferral.inside_scale

    def predictions(self, guider, x: Tensor, sigma: Tensor, model_options: dict) -> tuple[Tensor, Tensor, Tensor]:
        """The prompt's prediction, the null's, and the one to guide against outside; measured when it is time.

        Where nothing needs a branch it is not evaluated, and the other one stands in for it.
        """
        positive, negative = guider.conds["positive"], guider.conds["negative"]
        null, g0 = guider.conds.get("null", negative), self.inside_scale
        if self.tracker is None and not self.outside.any() and g0 in (0.0, 1.0):
            (only,) = branches(guider.inner_model, [null if g0 == 0 else positive], x, sigma, model_options)
            return only, only, only
        mixed = null is not negative and bool(self.outside.any())
        conds = [positive, null, *([negative] if mixed else [])]
        # At CFG 1 KSampler asks for the prompt alone, and a larger batch is other bits. A detection run has none.
        apart = math.isclose(guider.cfg, 1.0) and not self.deferral.stop_when_out
        groups = [[c] for c in conds] if apart else [conds]
        # What plain sampling would ask as well is the host's; a detection, or a third prediction, is our own doing.
        ask = self.fitting.branches if self.deferral.stop_when_out or len(conds) > 2 else branches
        asked = [ask(guider.inner_model, group, x, sigma, model_options) for group in groups]
        cond, unc, *rest = [found for group in asked for found in group]
        if self.tracker is not None and self.fresh:
            self._measure(guider.inner_model, cond, unc, sigma)
        against = rest[0] if rest else unc
        if not rest and null is not negative and self.outside.any():  # the first sample has just left
            (against,) = branches(guider.inner_model, [negative], x, sigma, model_options)
        return cond, unc, against

    def _measure(self, model, cond: Tensor, unc: Tensor, sigma: Tensor) -> None:
        """Record d at this step and let the rule decide on the curve so far."""
        gap = check_finite(conditional_noise(model.model_sampling, cond, unc, sigma), self.deferral.node)
        self.d[:, self.step] = check_magnitude(guidance_magnitude(gap), self.deferral.node).cpu()
        strength, self.first = pull(cond, unc, self.first)
        self.pull[:, self.step] = strength.cpu()
        assert self.tracker is not None
        self._leave(self.tracker.update(relative(self.d[:, self.step], self.dim), self.pull[:, self.step]))
        if self.deferral.on_step:
            self.deferral.on_step(self.curve())
        if self.deferral.stop_when_out and self.all_outside:
            raise AllEscaped

    def curve(self) -> EscapeCurve:
        measured = ~self.d[:, 0].isnan()
        rule = self.deferral.rule or EscapeRule()
        return EscapeCurve(
            d=self.d,
            pull=self.pull,
            sigmas=self.sigmas,
            dim=self.dim,
            transition=self.transition,
            memorized=measured & (self.pull[:, 0] >= rule.memorized_threshold),
            threshold=rule.memorized_threshold,
        )


class _Stoppable(comfy.samplers.KSAMPLER):
    """Euler that ends quietly when a detection run has seen enough."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
        try:
            return super().sample(model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs)
        except AllEscaped:
            return noise


def detect(
    model, deferral: DeferralPlan, *, positive, negative, noise, latent_image, noise_mask, sigmas, seed
) -> EscapeCurve:
    """Run the CFG-free trajectory (Euler) until every sample has left, and return its curve."""
    found: list[EscapeCurve] = []
    watch = replace(deferral, stop_when_out=True, inside_scale=0.0, on_end=found.append)
    euler = comfy.samplers.ksampler("euler")
    comfy.samplers.sample(
        add_deferred_cfg(model, watch),
        noise,
        positive,
        negative,
        1.0,
        model.load_device,
        _Stoppable(euler.sampler_function),
        sigmas,
        latent_image=latent_image,
        denoise_mask=noise_mask,
        disable_pbar=True,
        seed=seed,
    )
    return found[0]
