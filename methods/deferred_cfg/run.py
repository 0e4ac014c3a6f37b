"""One sampling run under deferred CFG: which samples are outside the basin, and what they are guided by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...adapter.batch_rows import Conds, choose_prompts
from ...adapter.errors import GuardError, check_finite, check_magnitude
from ...adapter.memory import is_out_of_memory
from ...adapter.model_call import CFG_OF_ONE, Pair, PartwiseCall, Prompt, SamplerCall, denoised_predictions
from ...adapter.schedule import TOLERANCE, StepCounter, sigma_of
from ...adapter.two_predictions import conditional_noise, pull_level
from ...mitigation.batch import replace_samples
from ...mitigation.escape.curve import EscapeCurve
from ...mitigation.escape.rules import EscapeRule, EscapeTracker
from ...mitigation.prediction import dimension, guidance_magnitude, pull, relative
from .plan import DeferralPlan

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider


@dataclass(frozen=True)
class Predictions:
    """Denoised predictions of one evaluation. A branch that nobody needs is not evaluated; another stands in."""

    cond: Tensor  # under the prompt
    null: Tensor  # under the null prompt: what the measurement compares with
    negative: Tensor  # under the negative prompt: what samples outside are guided against


class DeferralRun:
    """The state of one run; everything per sample is (B,) on the CPU."""

    splits_on_out_of_memory = False  # plain sampling makes the same paired evaluation and would fail as well
    must_guide = True  # a run that ends before every sample was guided is worth a hint

    def __init__(self, plan: DeferralPlan, guider: CFGGuider, sigmas: Tensor, noise: Tensor) -> None:
        self.plan = plan
        self.sigmas = sigmas
        self.batch, self.dim, self.n = len(noise), dimension(noise), len(sigmas) - 1
        self.shape = noise.shape[1:]
        self.latest_start = sigma_of(guider.model_patcher, plan.start_percent)
        self.counter = StepCounter(sigmas)
        self.d = torch.full((self.batch, self.n), torch.nan)
        self.pull = self.d.clone()
        self.pull_level = pull_level(guider.model_patcher, sigmas)
        self.direction: Tensor | None = None  # of the pull at the first step
        self.transition = torch.full((self.batch,), self.n)  # first step outside; n while a sample is inside
        self.tracker = None if plan.rule is None else EscapeTracker(plan.rule, plan.inside)
        self.forced = torch.zeros(self.batch, dtype=torch.bool)  # guided by schedule although still inside
        self.released = False  # nothing is measured or deferred any more
        self.parts = PartwiseCall()
        self.left_to = ""  # the guider or the pack that the last prediction was left to
        known = plan.transition_sigma
        if known is not None and len(known) not in (1, self.batch):
            raise GuardError(
                f"{plan.node}: `curve` was made for a batch of {len(known)}, this run has {self.batch}. "
                "Make the curve with the same latent, or disconnect it."
            )

    def predict(self, call: SamplerCall) -> Tensor:
        """The denoised prediction with each sample guided at its own scale. [HAN], [JAIN]"""
        self.left_to = call.other_guidance or (CFG_OF_ONE if call.cfg_is_one else "")
        if self.left_to:
            return call.predict()
        first_of_step = self.counter.advance(call.level)
        self._leave_by_schedule(call.level)
        if self.released:
            return call.predict()
        predictions = self._evaluate(call)
        if self.tracker is not None and first_of_step:
            self._measure(call, predictions)
            predictions = self._with_negative(call, predictions)
        # A step cache remembers the first step, as it does without us, and goes on when every sample is guided.
        return self._guide(call if self.counter.step == 0 else call.uncached, predictions)

    def curve(self, hint: str = "", warning: str = "", unmeasured_because: str = "") -> EscapeCurve:
        """What was measured so far, with remarks for the user."""
        rule = self.plan.rule or EscapeRule()
        measured = ~self.d[:, 0].isnan()
        memorized = self.pull[:, 0] >= rule.memorized_threshold
        if self.plan.inside is not None:
            memorized |= self.plan.inside
        return EscapeCurve(
            d=self.d,
            pull=self.pull,
            sigmas=self.sigmas,
            dim=self.dim,
            transition=self.transition,
            memorized=measured & memorized,
            threshold=rule.memorized_threshold,
            hint=hint,
            warning=warning,
            unmeasured_because=unmeasured_because,
        )

    @property
    def outside(self) -> Tensor:
        """(B,) bool."""
        return self.transition < self.n

    @property
    def all_outside(self) -> bool:
        return bool(self.outside.all())

    def _leave(self, outside: Tensor) -> None:
        """Samples in `outside` are guided from this step on; the others are inside."""
        since = torch.where(self.outside, self.transition, self.counter.step)
        self.transition = torch.where(outside, since, self.n)

    def _leave_by_schedule(self, sigma: float) -> None:
        """Release the samples whose time has come, whatever the measurement says."""
        if self.released:
            return
        reached = sigma * (1 - TOLERANCE)
        if self.plan.transition_sigma is not None:
            self._leave((self.plan.transition_sigma >= reached).expand(self.batch))
        late = reached <= self.latest_start
        if late:
            known = self.plan.transition_sigma is not None or not bool(self.d[:, 0].isnan().any())
            self.forced = ~self.outside & known
            self._leave(torch.ones(self.batch, dtype=torch.bool))
        may_return = self.tracker is not None and not self.tracker.no_basin
        self.released = self.all_outside and (late or not may_return)

    def _evaluate(self, call: SamplerCall) -> Predictions:
        """The predictions that this evaluation needs."""
        conds, g0 = call.guider.conds, self.plan.inside_scale
        positive, negative = conds["positive"], conds["negative"]
        null = conds.get("null", negative)
        any_outside = bool(self.outside.any())
        if self.tracker is None and not any_outside and g0 == 0:
            alone = self._ask(call, None, null, ours=True)[1]
            return Predictions(alone, alone, alone)
        if self.tracker is None and not any_outside and g0 == 1 and call.may_skip_negative:
            alone = self._ask(call, positive, None, ours=True)[0]
            return Predictions(alone, alone, alone)
        against = negative if any_outside else null
        # Before the pair: a patch that remembers its last call has to remember the pair.
        free = None if against is null else self._ask(call, None, null, ours=True)[1]
        # Only the first step's pair is vanilla's: later ones would be measured from what a step cache remembers.
        pair = call if self.counter.step == 0 and against is negative else call.uncached
        cond, uncond = self._ask(pair, positive, against, ours=self.splits_on_out_of_memory)
        return Predictions(cond, uncond if free is None else free, uncond)

    def _ask(self, call: SamplerCall, prompt: Prompt, negative: Prompt, ours: bool = False) -> Pair:
        ask = self.parts.predictions if ours else denoised_predictions
        return ask(call.guider.inner_model, prompt, negative, call.x, call.sigma, call.options)

    def _measure(self, call: SamplerCall, predictions: Predictions) -> None:
        """Record d at this step and let the rule decide on the curve so far."""
        assert self.tracker is not None
        cond, null, step = predictions.cond, predictions.null, self.counter.step
        gap = conditional_noise(call.guider.inner_model.model_sampling, cond, null, call.sigma)
        d = guidance_magnitude(check_finite(gap, self.plan.node))
        self.d[:, step] = check_magnitude(d, self.plan.node).cpu()
        strength, self.direction = pull(cond, null, self.direction, self.pull_level)
        self.pull[:, step] = strength.cpu()
        self._leave(self.tracker.update(relative(self.d[:, step], self.dim), self.pull[:, step]))
        if self.plan.on_step:
            self.plan.on_step(self.curve())

    def _with_negative(self, call: SamplerCall, predictions: Predictions) -> Predictions:
        """With the negative prompt's prediction, when the first sample left just now and a null is connected."""
        conds = call.guider.conds
        missing = conds.get("null", conds["negative"]) is not conds["negative"] and self.outside.any()
        if not missing or predictions.negative is not predictions.null:
            return predictions
        negative = self._ask(call, None, conds["negative"], ours=True)[1]
        return Predictions(predictions.cond, predictions.null, negative)

    def _guide(self, call: SamplerCall, p: Predictions) -> Tensor:
        """Scale w outside, g₀ inside, in one guidance call: a patch may keep what it saw of the batch."""
        g0, w, outside = self.plan.inside_scale, call.guider.cfg, self.outside
        if outside.all():
            return call.guided(w, p.cond, p.negative)
        # Two equal predictions are guided to themselves at every scale.
        cond, against = {0.0: (p.null, p.null), 1.0: (p.cond, p.cond)}.get(g0, (p.cond, p.null))
        scale = w if g0 in (0.0, 1.0) else torch.where(outside, w, g0) if outside.any() else g0
        cond, uncond = replace_samples(~outside, cond, p.cond), replace_samples(~outside, against, p.negative)
        try:
            guided = call.guided(scale, cond, uncond, self._prompts(call))
        except (TypeError, ValueError, RuntimeError) as error:
            if not isinstance(scale, Tensor) or isinstance(error, GuardError) or is_out_of_memory(error):
                raise
            raise GuardError(
                f"{self.plan.node}: a patch on `model` fails when each image has its own guidance scale, as patches "
                "for videos do. Set `pre_escape_cfg` to 0 or 1, sample one image at a time, or remove the patch. "
                f"({error})"
            ) from error
        if g0 in (0.0, 1.0):
            # A patch may divide by the difference of two equal predictions: Perp-Neg makes NaN of them.
            broken = ~guided.isfinite().flatten(1).all(dim=1)
            guided = replace_samples(broken & ~outside.to(broken.device), cond, guided)
        return guided

    def _prompts(self, call: SamplerCall) -> Conds:
        """The prompts for patches that evaluate the model themselves: those inside must not be drawn back by theirs."""
        conds, g0 = call.guider.conds, self.plan.inside_scale
        null, prompt = conds.get("null", conds["negative"]), conds["positive"]
        inside, against = {0.0: (null, null), 1.0: (prompt, prompt)}.get(g0, (prompt, null))
        return {
            "positive": choose_prompts(self.outside, prompt, inside, call.x),
            "negative": choose_prompts(self.outside, conds["negative"], against, call.x),
        }
