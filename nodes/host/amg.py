"""Anti-Memorization Guidance as a patch on a model: it acts on what the sampler finally gets.

Three host wrappers on a clone of the model. OUTER_SAMPLE gives every run its own fresh `Run`, kept in
that run's copy of the model options; PREDICT_NOISE lets everything else run (CFG, deferral, other
packs' hooks) and then steers the samples that are too close; CALC_COND_BATCH puts the duplicated
caption into the batch that is evaluated anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import comfy.patcher_extension
import comfy.samplers
import numpy as np
import torch
from torch import Tensor

from ...mitigation.amg import (
    Guidance,
    deduplication_scale,
    despecification_scale,
    dissimilarity_scale,
    dissimilarity_step,
    move_away,
    only,
)
from ...mitigation.duplicates import DuplicatedCaptions
from ...mitigation.references import ReferenceSet
from ...mitigation.trace import GuidanceTrace
from .captions import dressed, one_row_each
from .errors import GuardError
from .eye import Eye, Found
from .gradient import differentiable, gradient_options, normal_conds, refuse_quantized
from .probe import parameterisation

KEY = "memorization_guard_amg"
WRAPPERS = comfy.patcher_extension.WrappersMP
VOTERS = 16  # neighbours that elect the duplicated caption
STEEPEST = 1e3  # r of a flow model at σ = 1 is infinite


@dataclass(frozen=True)
class Plan:
    """What a run does; immutable, so a patched model can be sampled any number of times."""

    references: ReferenceSet
    guidance: Guidance
    through_model: bool = False
    every: int = 1  # look at the references in every n-th step only
    vae: object = None
    captions: DuplicatedCaptions = DuplicatedCaptions((), {})
    encoded: tuple[list, ...] = ()  # CONDITIONING of each of captions.texts
    node: str = "AMG Guidance"
    on_step: Callable[[int, GuidanceTrace], None] | None = None
    on_end: Callable[[GuidanceTrace], None] | None = None


def guide(model, plan: Plan):
    """A clone of `model` that samples with `plan`; guided by several sets if it is patched several times."""
    patched = model.clone()
    key = f"{KEY}_{sum(k.startswith(KEY) for k in patched.wrappers.get(WRAPPERS.OUTER_SAMPLE, {}))}"
    patched.add_wrapper_with_key(WRAPPERS.OUTER_SAMPLE, key, _outer_sample(plan, key))
    patched.add_wrapper_with_key(WRAPPERS.PREDICT_NOISE, key, _predict_noise(key))
    if plan.encoded:
        patched.add_wrapper_with_key(WRAPPERS.CALC_COND_BATCH, key, _calc_cond_batch(key))
    if plan.references.metric != "latent":  # loaded with the model, so that neither pushes the other out
        patched.set_additional_models(key, [m for m in _patchers(plan) if m is not None])
    return patched


def _patchers(plan: Plan) -> list:
    return [getattr(plan.vae, "patcher", None), getattr(plan.references.descriptor, "patcher", None)]


def _outer_sample(plan: Plan, key: str):
    def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        check_shape(plan, noise)
        for i, caption in enumerate(plan.encoded):
            guider.conds[f"{key}_{i}"] = dressed(caption, guider.conds.get("positive", []))
        run = Run(plan, key, guider.model_patcher, sigmas.detach().float().cpu(), len(noise))
        guider.model_options[key] = run  # this run's own copy of the options
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        if plan.on_end:
            plan.on_end(run.trace)
        return out

    return wrapper


def _predict_noise(key: str):
    def wrapper(executor, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        run: Run | None = model_options.get(key)
        if run is None:
            return executor(x, timestep, model_options, seed)
        return run.predict(executor, x, timestep, model_options, seed)

    return wrapper


def _calc_cond_batch(key: str):
    def wrapper(executor, model, conds, x_in, timestep, model_options):
        run: Run | None = model_options.get(key)
        if run is None or run.along is None or x_in.shape != run.along_shape:
            return executor(model, conds, x_in, timestep, model_options)
        along, run.along = run.along, None
        *out, run.caption_prediction = executor(model, [*conds, along], x_in, timestep, model_options)
        return out

    return wrapper


def check_shape(plan: Plan, noise: Tensor) -> None:
    """Raise a GuardError if the run's latents cannot be compared with the set."""
    made, have = plan.references.shape, tuple(noise.shape[1:])
    if plan.references.metric == "latent" and made != have:
        raise GuardError(
            f"{plan.node}: `references` were made for latents of {_words(made)}, this run has {_words(have)} "
            "(channels × height × width). Make the set at the size that you sample at."
        )
    if plan.references.metric != "latent" and noise.ndim != 4 and not (noise.ndim == 5 and noise.shape[2] == 1):
        raise GuardError(
            f"{plan.node}: a set with metric {plan.references.metric} works on pictures, not on {_words(have)}."
        )


def _words(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


class Pair:
    """The two predictions that the run's guidance was made from, caught by the host's post-CFG hook."""

    def __init__(self) -> None:
        self.cond: Tensor | None = None
        self.uncond: Tensor | None = None
        self.cfg = 1.0

    def __call__(self, args: dict) -> Tensor:
        self.cond, self.uncond, self.cfg = args["cond_denoised"], args["uncond_denoised"], float(args["cond_scale"])
        return args["denoised"]

    @property
    def guides(self) -> bool:
        return self.cond is not None and self.uncond is not None and self.cfg > 1


@dataclass
class Linear:
    """The linear guidances of one evaluation, so that they can be done again with gradients."""

    s1: Tensor  # (B,)
    s2: Tensor  # (B,)
    captions: list[int | None] = field(default_factory=list)

    def apply(self, denoised: Tensor, pair: Pair, caption_prediction: Tensor | None) -> Tensor:
        moved = move_away(denoised, pair.cond, pair.uncond, self.s1)  # [AMG] Eq. 11
        if caption_prediction is not None:
            moved = move_away(moved, caption_prediction, pair.uncond, self.s2)  # [AMG] Eq. 13
        return only((self.s1 > 0) | (self.s2 > 0), moved, denoised)


class Run:
    """One run's state: counted by sigma, since some samplers call the model more than once a step."""

    def __init__(self, plan: Plan, key: str, patcher, sigmas: Tensor, batch: int) -> None:
        self.plan = plan
        self.key = key
        sampling = patcher.get_model_object("model_sampling")
        self.flow = parameterisation(sampling)[0] == "flow"
        self.clock = _clock(sampling)
        self.trace = GuidanceTrace(sigmas, batch)
        self.eye = Eye(
            plan.references, plan.vae, patcher.get_model_object("latent_format"), patcher.load_device, plan.node,
            VOTERS if plan.encoded else 1,
        )  # fmt: skip
        self.step = -1
        self.found: Found | None = None  # the last look
        self.expected: list[int | None] = []  # captions of the last evaluation, for the next one's batch
        self.along: list[dict] | None = None
        self.along_shape: torch.Size | None = None
        self.caption_prediction: Tensor | None = None

    def predict(self, executor, x: Tensor, timestep: Tensor, model_options: dict, seed) -> Tensor:
        """The denoised prediction, steered where it is closer to a reference than λ_t."""
        guidance = self.plan.guidance
        sigma = float(timestep.flatten()[0])
        self._advance(sigma)
        pair = Pair()
        self._bring_along(executor.class_obj, x)
        denoised = executor(x, timestep, self._watched(model_options, pair), seed)
        self.along = None
        remaining = self.clock(sigma)
        lam = guidance.threshold.at(remaining)
        looking = self.step % self.plan.every == 0
        if looking or self.found is None:
            self.found = self.eye.look(denoised)
            self.trace.saw(self.step, lam, self.found.closeness, self.found.rows[:, 0])
        above = self.found.closeness > lam
        steered, linear = denoised, None
        if bool(above.any()):
            linear = self._linear(above, lam, pair)
            if linear is not None:
                caption = self._caption_prediction(executor.class_obj, linear, x, timestep, model_options)
                steered = linear.apply(denoised, pair, caption)
            if looking and guidance.dissimilarity:
                ask = (executor, x, timestep, model_options, seed)
                steered = self._dissimilarity(steered, above, lam, remaining, sigma, linear, ask)
        self.expected = linear.captions if linear is not None else []
        if self.plan.on_step:
            self.plan.on_step(self.step, self.trace)
        return steered

    def _advance(self, sigma: float) -> None:
        reached = int((self.trace.sigmas[:-1] >= sigma * (1 - 1e-4)).sum()) - 1
        self.step = max(reached, self.step, 0)

    def _watched(self, model_options: dict, pair: Pair) -> dict:
        if not (self.plan.guidance.despecification or self.plan.guidance.deduplication):
            return model_options
        return {
            **model_options,
            "sampler_post_cfg_function": [*model_options.get("sampler_post_cfg_function", []), pair],
        }

    def _linear(self, above: Tensor, lam: float, pair: Pair) -> Linear | None:
        """s₁ and s₂ of the samples above λ_t, or None when neither guidance has anything to do."""
        guidance, found = self.plan.guidance, self.found
        if not pair.guides:
            return None
        s1 = despecification_scale(found.closeness, guidance.despecification, pair.cfg) * above
        s2 = torch.zeros_like(s1)
        captions: list[int | None] = []
        if self.plan.encoded:
            captions = [self._elected(b, lam) if above[b] else None for b in range(len(above))]
            named = torch.tensor([c is not None for c in captions], device=s1.device)
            s2 = deduplication_scale(found.closeness, guidance.deduplication, pair.cfg, s1) * named
            captions = [c if s > 0 else None for c, s in zip(captions, s2.tolist(), strict=True)]
        if not bool(((s1 > 0) | (s2 > 0)).any()):
            return None
        self.trace.did(self.step, "despecification", s1)
        self.trace.did(self.step, "deduplication", s2)
        return Linear(s1, s2, captions)

    def _elected(self, b: int, lam: float) -> int | None:
        near = self.found.rows[b][self.found.neighbours_closeness[b] > lam]
        return self.plan.captions.elected(near.tolist())

    def _conds(self, guider, captions: list[int | None]) -> list[dict] | None:
        """One condition with a row a sample; samples without a caption get some other sample's."""
        some = next((c for c in captions if c is not None), None)
        if some is None:
            return None
        keys = [f"{self.key}_{some if c is None else c}" for c in captions]
        return one_row_each([guider.conds[k] for k in keys])

    def _bring_along(self, guider, x: Tensor) -> None:
        """Put the last evaluation's captions into the coming batch: neighbours rarely change from step to step."""
        self.caption_prediction = None
        self.along_shape = x.shape
        self.along = self._conds(guider, self.expected) if len(self.expected) == len(x) else None

    def _caption_prediction(self, guider, linear: Linear, x, timestep, model_options) -> Tensor | None:
        """D(x_t, y_N) (B, ...): from the batch if it was brought along, else evaluated now."""
        wanted = linear.captions
        if not any(c is not None for c in wanted):
            return None
        brought = self.caption_prediction
        if brought is not None and all(w in (None, e) for w, e in zip(wanted, self.expected, strict=True)):
            return brought

        def ask(conds: list[dict]) -> Tensor:
            return comfy.samplers.calc_cond_batch(guider.inner_model, [conds], x, timestep, model_options)[0]

        together = self._conds(guider, wanted)
        if together is not None:
            return ask(together)
        out = torch.zeros_like(x)  # captions of different lengths: one evaluation each
        for caption in sorted({c for c in wanted if c is not None}):
            rows = torch.tensor([c == caption for c in wanted], device=x.device)
            out = only(rows, ask(guider.conds[f"{self.key}_{caption}"]), out)
        return out

    def _dissimilarity(self, steered: Tensor, above, lam, remaining, sigma, linear, ask) -> Tensor:
        """G_sim for the samples that are still above λ_t after the linear guidances."""
        guidance = self.plan.guidance
        found = self.eye.look(steered) if linear is not None else self.found
        still = above & (found.closeness > lam)
        if not bool(still.any()):
            return steered
        slope = self._slope_through_model(steered, found, still, sigma, linear, ask)
        scale = dissimilarity_scale(found.closeness, guidance, remaining)
        ratio = min(sigma / max(1 - sigma, 1e-9), STEEPEST) if self.flow else sigma
        step = dissimilarity_step(steered, slope, scale * still, ratio, guidance.reach)
        share = step.flatten(1).norm(dim=1) / steered.flatten(1).norm(dim=1).clamp_min(1e-12)
        self.trace.did(self.step, "dissimilarity", share)
        return only(still, steered - step, steered)

    def _slope_through_model(self, steered, found: Found, still, sigma, linear: Linear | None, ask) -> Tensor:
        """∇_x σ_t (B, ...); with the gradient through the prediction it is ∇_D σ_t."""
        if not self.plan.through_model:
            return self.eye.gradient(steered, found.rows, still)
        executor, x, timestep, model_options, seed = ask
        guider = executor.class_obj
        modules = [guider.inner_model, *(m.model for m in guider.loaded_models if hasattr(m, "model"))]
        modules += [m for m in self.eye.modules if m not in modules]
        refuse_quantized(modules, self.plan.node)
        kept = guider.conds
        with differentiable(modules):
            try:
                guider.conds = normal_conds(guider.conds)
                options, pair = gradient_options(model_options), Pair()
                here, level = x.clone().requires_grad_(True), timestep.clone()
                denoised = executor(here, level, self._watched(options, pair), seed)
                if linear is not None:
                    linear = Linear(linear.s1.clone(), linear.s2.clone(), linear.captions)
                    caption = self._caption_prediction(guider, linear, here, level, options)
                    denoised = linear.apply(denoised, pair, caption)
                similar = self.eye.similarity(denoised, found.rows)
                (slope,) = torch.autograd.grad(similar[still.clone()].sum(), here)
            finally:
                guider.conds = kept
        return slope * (1 - sigma) if self.flow else slope


def _clock(sampling) -> Callable[[float], float]:
    """t/T of a noise level: 1 − the host's percent, from a table, since the host only converts the other way."""
    percents = (np.arange(200) + 0.5) / 200
    levels = np.array([float(sampling.percent_to_sigma(p)) for p in percents])  # falling
    return lambda sigma: float(1 - np.interp(-np.log(max(sigma, 1e-12)), -np.log(levels), percents))
