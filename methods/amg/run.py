"""One sampling run under Anti-Memorization GuidanceStrengths: what is measured and done at every model evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...adapter.autograd.scope import networks_of, with_gradients
from ...adapter.batch_rows import can_drop_rows, rows_of
from ...adapter.memory import BatchParts, explain_out_of_memory
from ...adapter.sampling import starts_late
from ...adapter.two_predictions import parameterisation
from ...mitigation.amg.guidance import (
    deduplication_scale,
    despecification_scale,
    dissimilarity_scale,
    dissimilarity_step,
    move_away,
    only,
)
from ...mitigation.amg.trace import GuidanceTrace
from ...mitigation.prediction import dimension, pull
from ...mitigation.scaled_gradient import scaled_gradient
from .caption_predictions import CaptionPredictions
from .plan import AMGPlan
from .reference_scorer import NearestReferences, ReferenceScorer

VOTERS = 16  # neighbours that elect the duplicated caption
STEEPEST = 1e3  # r of a flow model at σ = 1 is infinite
HOOKS = [f"sampler_{name}_function" for name in ("cfg", "pre_cfg", "post_cfg", "calc_cond_batch")]


@dataclass(frozen=True)
class GuidancePair:
    """The two predictions that a run's guidance was made from, at scale `cfg`."""

    cond: Tensor
    uncond: Tensor
    cfg: float

    @property
    def apart(self) -> Tensor:
        """(B,) bool: guidance is at work; not for a sample whose CFG is deferred, both predictions are the same."""
        return (self.cond - self.uncond).flatten(1).abs().amax(dim=1) > 0


class GuidanceRecorder:
    """The host's post-CFG hook that catches them; nothing where the run does not guide."""

    guided: GuidancePair | None = None

    def __call__(self, args: dict) -> Tensor:
        pair, cfg = (args["cond_denoised"], args["uncond_denoised"]), float(args["cond_scale"])
        self.guided = GuidancePair(*pair, cfg) if cfg > 1 and all(p is not None for p in pair) else None
        return args["denoised"]


@dataclass(frozen=True)
class LinearGuidance:
    """The linear guidances of one evaluation, so that they can be done again with gradients."""

    s1: Tensor  # (B,)
    s2: Tensor  # (B,)
    captions: list[int | None] = field(default_factory=list)

    def apply(self, denoised: Tensor, guided: GuidancePair, caption_prediction: Tensor | None) -> Tensor:
        moved = move_away(denoised, guided.cond, guided.uncond, self.s1)  # [AMG] Eq. 11
        if caption_prediction is not None:
            moved = move_away(moved, caption_prediction, guided.uncond, self.s2)  # [AMG] Eq. 13
        return only((self.s1 > 0) | (self.s2 > 0), moved, denoised)

    def thawed(self, rows: slice) -> LinearGuidance:
        """Of these samples, for autograd: without tensors made under inference mode."""
        return LinearGuidance(self.s1[rows].clone(), self.s2[rows].clone(), self.captions[rows])


@dataclass(frozen=True)
class ModelCall:
    """The host's model evaluation that is being guided."""

    executor: Any  # the rest of the host's PREDICT_NOISE chain
    x: Tensor
    timestep: Tensor
    options: dict
    seed: int | None

    @property
    def guider(self):
        return self.executor.class_obj

    def predict(self, options: dict) -> Tensor:
        return self.executor(self.x, self.timestep, options, self.seed)

    @property
    def least(self) -> int:
        """How many samples have to be asked together: all, where another patch may keep something of each of them."""
        others = self.executor.wrappers[self.executor.idx + 1 :] or [k for k in HOOKS if self.options.get(k)]
        return 1 if not others and can_drop_rows(self.guider.conds) else len(self.x)


class AMGRun:
    """One run's state: counted by sigma, since some samplers call the model more than once a step."""

    def __init__(self, plan: AMGPlan, key: str, patcher, sigmas: Tensor, batch: int) -> None:
        sampling = patcher.get_model_object("model_sampling")
        self.plan = plan
        self.guidance = plan.guidance
        self.flow = parameterisation(sampling)[0] == "flow"
        self.remaining = _clock(sampling)
        self.trace = GuidanceTrace(sigmas, batch)
        self.companion = CaptionPredictions(key)
        self.eye = ReferenceScorer(
            plan.references,
            plan.vae,
            patcher.get_model_object("latent_format"),
            patcher.load_device,
            plan.node,
            votes=VOTERS if plan.encoded else 1,
        )
        self.graphs, self.checkpoints = BatchParts(), "auto"  # of the gradient through the model
        self.step = -1
        self.found: NearestReferences | None = None  # the last look
        # A run that begins in the middle cannot tell: its first step says nothing of the basin.
        self.least_pull = 0.0 if starts_late(patcher, sigmas) else plan.memorized_threshold
        self.pulled: Tensor | None = None  # (B,) bool, after the first evaluation: may be steered

    def predict(self, executor, x: Tensor, timestep: Tensor, model_options: dict, seed) -> Tensor:
        """The denoised prediction, steered where it is closer to a reference than λ_t."""
        call, watch, sigma = (
            ModelCall(executor, x, timestep, model_options, seed),
            GuidanceRecorder(),
            float(timestep.flatten()[0]),
        )
        self._advance(sigma)
        self.companion.go_along(call.guider, x)
        denoised = call.predict(self._watched(model_options, watch))
        with explain_out_of_memory(self.plan.node, self.plan.lower):  # out of memory before this is the host's own
            return self._steered(call, watch.guided, denoised, sigma)

    def _steered(self, call: ModelCall, guided: GuidancePair | None, denoised: Tensor, sigma: float) -> Tensor:
        if self.pulled is None:
            self.pulled = self._judge(guided, denoised)
        if not bool(self.pulled.any()):  # nobody is looked at, which is what costs
            return self._passed(denoised, None)
        lam = self.guidance.threshold.at(self.remaining(sigma))
        found = self.found
        looking = found is None or self.step % self.plan.every == 0
        if found is None or looking:
            found = self.found = self.eye.look(denoised)
            self.trace.saw(self.step, lam, found.closeness, found.rows[:, 0])
        above = (found.closeness > lam) & self.pulled
        steered, linear = denoised, None
        if bool(above.any()):
            linear = self._linear(found, above, lam, guided)
            if linear is not None and guided is not None:
                caption = self.companion.prediction(call.guider, linear.captions, call.x, call.timestep, call.options)
                steered = linear.apply(denoised, guided, caption)
            if looking and self.guidance.dissimilarity:
                steered = self._dissimilarity(call, found, steered, above, lam, sigma, linear)
        return self._passed(steered, linear)

    def _passed(self, steered: Tensor, linear: LinearGuidance | None) -> Tensor:
        self.companion.stay()
        self.companion.expected = linear.captions if linear is not None else []
        if self.plan.on_step:
            self.plan.on_step(self.trace)
        return steered

    def _judge(self, guided: GuidancePair | None, denoised: Tensor) -> Tensor:
        """Who may be steered: samples that pull, and those of which nothing is known since they are not guided yet."""
        if not self.least_pull or guided is None:
            return torch.ones(len(denoised), dtype=torch.bool, device=denoised.device)
        known = pull(guided.cond, guided.uncond)[0].masked_fill(~guided.apart, torch.nan)
        return self.trace.judged(known, self.least_pull)

    def _advance(self, sigma: float) -> None:
        reached = int((self.trace.sigmas[:-1] >= sigma * (1 - 1e-4)).sum()) - 1
        self.step = max(reached, self.step, 0)

    def _watched(self, model_options: dict, watch: GuidanceRecorder) -> dict:
        judging = self.least_pull and self.pulled is None
        if not (self.guidance.despecification or self.plan.encoded or judging):
            return model_options
        hooks = model_options.get("sampler_post_cfg_function", [])
        return {**model_options, "sampler_post_cfg_function": [*hooks, watch]}

    def _linear(
        self, found: NearestReferences, above: Tensor, lam: float, guided: GuidancePair | None
    ) -> LinearGuidance | None:
        """s₁ and s₂ of the samples above λ_t, or None when neither guidance has anything to do."""
        if guided is None:
            return None
        close = found.closeness
        s1 = despecification_scale(close, self.guidance.despecification, guided.cfg) * above
        s2 = torch.zeros_like(s1)
        captions: list[int | None] = []
        if self.plan.encoded:
            open_ = (above & guided.apart).tolist()
            captions = [self._elected(found, b, lam) if yes else None for b, yes in enumerate(open_)]
            named = torch.tensor([c is not None for c in captions], device=s1.device)
            s2 = deduplication_scale(close, self.guidance.deduplication, guided.cfg, s1) * named
            captions = [c if s > 0 else None for c, s in zip(captions, s2.tolist(), strict=True)]
        if not bool(((s1 > 0) | (s2 > 0)).any()):
            return None
        self.trace.did(self.step, "despecification", s1)
        self.trace.did(self.step, "deduplication", s2)
        return LinearGuidance(s1, s2, captions)

    def _elected(self, found: NearestReferences, b: int, lam: float) -> int | None:
        near = found.rows[b][found.neighbours_closeness[b] > lam]
        return self.plan.captions.voted(near.tolist())

    def _dissimilarity(
        self,
        call: ModelCall,
        found: NearestReferences,
        steered: Tensor,
        above: Tensor,
        lam: float,
        sigma: float,
        linear: LinearGuidance | None,
    ) -> Tensor:
        """G_sim for the samples that are still above λ_t after the linear guidances."""
        if linear is not None:
            found = self.eye.look(steered)
        still = above & (found.closeness > lam)
        if not bool(still.any()):
            return steered
        if self.plan.through_model:
            ascent = self._slope_through_model(call, found, still, sigma, linear)
        else:
            ascent = self.eye.gradient(steered, found.rows, still)
        scale = dissimilarity_scale(found.closeness, self.guidance, self.remaining(sigma)) * still
        ratio = min(sigma / max(1 - sigma, 1e-9), STEEPEST) if self.flow else sigma
        step = dissimilarity_step(steered, ascent, scale, ratio, self.guidance.reach)
        share = step.flatten(1).norm(dim=1) / steered.flatten(1).norm(dim=1).clamp_min(1e-12)
        self.trace.did(self.step, "dissimilarity", share)
        return only(still, steered - step, steered)

    def _slope_through_model(
        self, call: ModelCall, found: NearestReferences, still, sigma: float, linear: LinearGuidance | None
    ) -> Tensor:
        """∇_x σ_t (B, ...) with the network, guidance and linear guidances in between: two more evaluations' worth."""
        guider, kept, batch = call.guider, call.guider.conds, len(call.x)
        networks = networks_of(guider)
        networks += [m for m in self.eye.modules if all(m is not other for other in networks)]
        self.companion.stay()

        def uphill(conds: dict, options: dict) -> Tensor:
            def of(rows: slice) -> Tensor:
                here, watch = call.x[rows].clone().requires_grad_(True), GuidanceRecorder()
                if not bool(still[rows].any()):
                    return torch.zeros_like(here)
                level = call.timestep[rows].clone()
                guider.conds = conds if len(here) == batch else rows_of(conds, torch.arange(batch)[rows], batch)
                denoised = call.executor(here, level, self._watched(options, watch), call.seed)
                if linear is not None and watch.guided is not None:
                    part = linear.thawed(rows)
                    caption = self.companion.prediction(guider, part.captions, here, level, options)
                    denoised = part.apply(denoised, watch.guided, caption)
                similar = self.eye.similarity(denoised, found.rows[rows])
                return scaled_gradient(similar[still[rows].clone()].sum(), here, dimension(here))

            try:
                return torch.cat(self.graphs.run(of, batch, call.least))
            finally:
                guider.conds = kept

        def fully() -> None:
            self.graphs, self.checkpoints = BatchParts(), "full"

        found_slope = with_gradients(
            uphill,
            model=guider.inner_model,
            networks=networks,
            conds=kept,
            options=call.options,
            shape=call.x.shape,
            device=call.x.device,
            checkpoints=self.checkpoints,
            on_full=fully,
        )
        return found_slope * (1 - sigma) if self.flow else found_slope


def _clock(sampling) -> Callable[[float], float]:
    """σ -> t/T, which is 1 − the host's percent: from a table, since the host only converts the other way."""
    percents = (np.arange(64) + 0.5) / 64
    levels = np.array([float(sampling.percent_to_sigma(p)) for p in percents])  # falling
    return lambda sigma: float(1 - np.interp(-np.log(max(sigma, 1e-12)), -np.log(levels), percents))
