"""One sampling run under Anti-Memorization Guidance: what is measured and done at every model evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...adapter.memory import explain_out_of_memory
from ...adapter.model_call import SamplerCall
from ...adapter.schedule import Clock, StepCounter, TimestepClock, starts_late
from ...adapter.two_predictions import parameterisation, pull_level
from ...mitigation.amg.caption_vote import HeldCaptions
from ...mitigation.amg.guidance import (
    deduplication_scale,
    despecification_scale,
    dissimilarity_scale,
    dissimilarity_step,
    noise_ratio,
)
from ...mitigation.amg.trace import GuidanceTrace
from ...mitigation.batch import replace_samples
from ...mitigation.prediction import pull
from .caption_predictions import CaptionPredictions, Captions
from .linear_guidance import GuidancePair, GuidanceRecorder, LinearGuidance
from .model_gradient import ModelGradient
from .plan import AMGPlan
from .reference_scorer import NearestReferences, ReferenceScorer

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider

VOTERS = 16  # neighbours that vote for the duplicated caption


class AMGRun:
    """The state of one run. Steps are counted by σ; samplers may evaluate the model several times a step."""

    def __init__(self, plan: AMGPlan, key: str, guider: CFGGuider, sigmas: Tensor, batch: int) -> None:
        patcher = guider.model_patcher
        self.plan, self.guidance = plan, plan.guidance
        self.flow = parameterisation(patcher.get_model_object("model_sampling"))[0] == "flow"
        self.counter = StepCounter(sigmas)
        self.clock = TimestepClock(patcher) if self.guidance.as_released else Clock(patcher)
        self.held = HeldCaptions()
        self.trace = GuidanceTrace(sigmas, batch)
        self.captions = CaptionPredictions(key, plan.encoded, guider)
        self.scorer = ReferenceScorer(plan, patcher, votes=VOTERS if plan.encoded else 1)
        self.model_gradient = ModelGradient(self.scorer, self.captions)
        self.nearest: NearestReferences | None = None  # of the last comparison
        # A run that begins below T cannot tell whether its prompt pulls: every sample may be steered.
        self.least_pull = 0.0 if starts_late(patcher, sigmas) else plan.memorized_threshold
        self.pull_level = pull_level(patcher, sigmas)
        self.may_steer: Tensor | None = None  # (B,) bool, known after the first evaluation

    @property
    def step(self) -> int:
        return self.counter.step

    def predict(self, call: SamplerCall) -> Tensor:
        """The denoised prediction, steered where it is closer to a reference than λ_t."""
        self.counter.advance(call.level)
        recorder = GuidanceRecorder()
        must_judge = self.least_pull > 0 and self.may_steer is None
        needs_pair = self.guidance.despecification or self.plan.encoded or must_judge
        denoised = call.predict(recorder.hooked(call.options) if needs_pair else None)
        with explain_out_of_memory(self.plan.node, self.plan.lower):  # ComfyUI reports it in call.predict
            steered = self._steer(call, recorder.pair, denoised)
        if self.plan.on_step:
            self.plan.on_step(self.trace)
        return steered

    def _steer(self, call: SamplerCall, pair: GuidancePair | None, denoised: Tensor) -> Tensor:
        """Judge, compare, steer: first the linear guidances, then away from the nearest reference."""
        if self.may_steer is None:
            self.may_steer = self._judge(pair, denoised)
        if not bool(self.may_steer.any()):  # comparing is what costs
            return denoised
        remaining = self.clock(call.level)
        threshold = self.guidance.threshold.at(remaining)  # λ_t
        compares = self.nearest is None or self.step % self.plan.every == 0
        nearest = self.nearest = self._compare(denoised, threshold) if compares else self.nearest
        assert nearest is not None
        close = nearest.closeness > threshold
        # The authors' code takes guidance back below λ_t as well.
        steers = self.may_steer & (nearest.closeness > 0 if self.guidance.as_released else close)
        if not bool(steers.any()):
            return denoised
        steered, linear = denoised, self._linear_guidance(nearest, steers, close, threshold, pair)
        if linear is not None and pair is not None:
            caption = self.captions.predict(call, linear.captions) if linear.needs_captions else None
            steered = linear.apply(denoised, pair, caption)
        if compares and self.guidance.dissimilarity:
            if linear is not None:  # they may have moved it far enough already
                nearest = self.scorer.nearest(steered)
                self._see_captions(nearest)
            close = steers & (nearest.closeness > threshold)
            steered = self._move_from_reference(call, nearest, steered, close, linear, remaining)
        return steered

    def _judge(self, pair: GuidancePair | None, denoised: Tensor) -> Tensor:
        """Which samples may be steered, (B,) bool: those that pull, and those that are not guided yet."""
        if not self.least_pull or pair is None:
            return torch.ones(len(denoised), dtype=torch.bool, device=denoised.device)
        known = pull(pair.cond, pair.uncond, level=self.pull_level)[0].masked_fill(~pair.guided, torch.nan)
        return self.trace.record_pull(known, self.least_pull)

    def _compare(self, denoised: Tensor, threshold: float) -> NearestReferences:
        nearest = self.scorer.nearest(denoised)
        self.trace.record_comparison(self.step, threshold, nearest.closeness, nearest.rows[:, 0])
        return nearest

    def _linear_guidance(
        self, nearest: NearestReferences, steers: Tensor, close: Tensor, threshold: float, pair: GuidancePair | None
    ) -> LinearGuidance | None:
        """s₁ and s₂ of the samples to steer, or None when neither guidance has anything to do."""
        if pair is None:
            return None
        s1 = despecification_scale(nearest.closeness, self.guidance.despecification, pair.cfg) * steers
        s2 = torch.zeros_like(s1)
        captions: Captions = []
        if self.plan.encoded:
            self._see_captions(nearest)
            voting = (steers & pair.guided).tolist()
            captions = [self._caption(nearest, b, close, threshold) if v else None for b, v in enumerate(voting)]
            found = torch.tensor([c is not None for c in captions], device=s1.device)
            c2, released = self.guidance.deduplication, self.guidance.as_released
            s2 = deduplication_scale(nearest.closeness, c2, pair.cfg, s1, released) * found
            captions = [c if s > 0 else None for c, s in zip(captions, s2.tolist(), strict=True)]
        if not bool(((s1 > 0) | (s2 > 0)).any()):
            return None
        self.trace.record_guidance(self.step, "despecification", s1)
        self.trace.record_guidance(self.step, "deduplication", s2)
        return LinearGuidance(s1, s2, captions)

    def _caption(self, nearest: NearestReferences, sample: int, close: Tensor, threshold: float) -> int | None:
        if self.guidance.as_released:
            return self.held.ask(sample, bool(close[sample]))
        neighbours = nearest.rows[sample][nearest.neighbours_closeness[sample] > threshold]
        return self.plan.captions.vote(neighbours.tolist())

    def _see_captions(self, nearest: NearestReferences) -> None:
        """Keep the duplicated caption among all neighbours of each sample, as the authors' code does."""
        if self.guidance.as_released and self.plan.encoded:
            for sample, rows in enumerate(nearest.rows.tolist()):
                self.held.see(sample, self.plan.captions.vote(rows))

    def _move_from_reference(
        self,
        call: SamplerCall,
        nearest: NearestReferences,
        steered: Tensor,
        close: Tensor,
        linear: LinearGuidance | None,
        remaining: float,
    ) -> Tensor:
        """G_sim for the samples that are still above λ_t after the linear guidances."""
        if not bool(close.any()):
            return steered
        if self.plan.through_model:
            gradient = self.model_gradient(call, nearest, close, linear)
            gradient = gradient * (1 - call.level) if self.flow else gradient
        else:
            gradient = self.scorer.gradient(steered, nearest.rows, close)
        scale = dissimilarity_scale(nearest.closeness, self.guidance, remaining) * close
        step = dissimilarity_step(
            steered, gradient, scale, noise_ratio(call.level, self.flow), self.guidance.longest_step
        )
        share = step.flatten(1).norm(dim=1) / steered.flatten(1).norm(dim=1).clamp_min(1e-12)
        self.trace.record_guidance(self.step, "dissimilarity", share)
        return replace_samples(close, steered - step, steered)
