"""Ask a model for its two predictions, inside the host's own sampling scope.

The real CFGGuider loads the model, processes areas, masks, ControlNets, hooks and LoRA, and runs a host Sampler whose
body is ours. Afterwards the host cleans up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor, nn

from ..mitigation.prediction import (
    Parameterisation,
    conditional_noise_prediction,
    dimension,
    eps_unit,
    guidance_magnitude,
    magnitude_level,
    relative,
)
from .autograd.refusals import explain_missing_gradient, refuse_quantized
from .autograd.scope import patchers_of, run_with_gradients
from .batch_rows import Conds, can_drop_rows, rows_of
from .conditioning import is_same_text, with_settings_of
from .errors import check_finite, check_magnitude
from .long_work import check_interrupted
from .memory import BatchParts
from .model_call import Options, PartwiseCall, denoised_predictions
from .sampling import SamplingInputs, SamplingRun
from .schedule import starts_late

T = TypeVar("T")
Enough = Callable[[Tensor], Tensor]
INSTEAD = "Set `method` to search or batch-wise"  # what works without gradients


def parameterisation(model_sampling: nn.Module) -> tuple[Parameterisation, float]:
    """How the model predicts, and its sigma_data, from the host's model_sampling object."""
    kind: Parameterisation = "eps"
    if isinstance(model_sampling, comfy.model_sampling.CONST):
        kind = "flow"
    elif isinstance(model_sampling, comfy.model_sampling.V_PREDICTION):
        kind = "v"
    return kind, float(getattr(model_sampling, "sigma_data", 1.0))


def pull_level(model: ModelPatcher, sigmas: Tensor) -> float:
    """The σ_T of a run's pull: where it begins, or the model's T if it begins below that."""
    sampling = model.get_model_object("model_sampling")
    start = sampling.sigma_max if len(sigmas) == 0 or starts_late(model, sigmas) else sigmas[0]
    return magnitude_level(float(start), parameterisation(sampling)[0])


def conditional_noise(model_sampling: nn.Module, cond: Tensor, uncond: Tensor, sigma: Tensor) -> Tensor:
    """ε̃ (B, ...) in the model's output space, from the host's denoised predictions."""
    return conditional_noise_prediction(cond, uncond, sigma, *parameterisation(model_sampling))


class TwoPredictions:
    """A model inside a running sampling scope: the prompt against the null prompt."""

    def __init__(
        self, guider: CFGGuider, sigmas: Tensor, options: Options, noise: Tensor, latent_image: Tensor, node: str
    ) -> None:
        self.guider, self.model = guider, guider.inner_model
        self.conds: Conds = guider.conds
        self.sigma = sigmas[0]
        self.max_denoise = comfy.samplers.Sampler().max_denoise(guider, sigmas)
        self.options, self.node = options, node
        self.noise, self.latent_image = noise, latent_image
        self.without_graph, self.with_graph = PartwiseCall(), BatchParts()

    @property
    def eps_unit(self) -> float:
        """This model's d per unit of an EPS model's d, at this noise level."""
        return eps_unit(float(self.sigma), *parameterisation(self.model.model_sampling))

    def prediction(self, noise: Tensor, rows: Tensor | None = None) -> Tensor:
        """ε̃(x_T, T, y) (n, ...) for the initial noise x_T of the samples `rows` (all of them by default).

        Samples that are not asked for are not evaluated, unless `can_drop_rows` is false: then the whole batch is.
        """
        if rows is not None and not self._may_drop(rows):
            return self.prediction(self._whole(noise, rows))[rows.to(noise.device)]
        x, conds = self._noised(noise, rows)
        cond, uncond, sigma = self._denoised(x, self.sigma, conds)
        return check_finite(conditional_noise(self.model.model_sampling, cond, uncond, sigma), self.node)

    def denoised(self, noise: Tensor, alone: bool) -> tuple[Tensor, Tensor]:
        """The two denoised predictions (B, ...) at the first step; `alone`: only the prompt's is evaluated."""
        x, conds = self._noised(noise, None)
        cond, uncond, _ = self._denoised(x, self.sigma, conds, alone)
        return cond, uncond

    def magnitudes_ahead(
        self, noise: Tensor, rows: Tensor | None, levels: Sequence[float], enough: Enough | None = None
    ) -> Tensor:
        """d/√dim (n, levels), in an EPS model's units, while guided Euler steps go through these noise levels.

        The first of them is that of the noise. Guidance acts against what the prompt is measured against.
        `enough`: which samples (n,) need no more steps, by what they showed so far (n, ...). The rest of those is NaN.
        """
        rows = torch.arange(len(self.noise)) if rows is None else rows.cpu()
        if not self._may_drop(rows):
            return self.magnitudes_ahead(self._whole(noise, rows), None, levels)[rows.to(noise.device)]
        may_drop = can_drop_rows(self.conds, self.options)
        (x, conds), sampling = self._noised(noise, rows), self.model.model_sampling
        found, left = noise.new_full((len(rows), len(levels)), torch.nan), torch.arange(len(rows))
        kind = parameterisation(sampling)
        for i, (here, there) in enumerate(pairwise([*levels, levels[-1]])):
            cond, uncond, sigma = self._denoised(x, self.sigma.new_tensor(here), conds)
            d = guidance_magnitude(check_finite(conditional_noise(sampling, cond, uncond, sigma), self.node))
            d = relative(check_magnitude(d, self.node), dimension(noise)) / eps_unit(here, *kind)
            found[left.to(found.device), i] = d.to(found)
            guided = uncond + self.guider.cfg * (cond - uncond)
            x = x + (x - guided) / here * (there - here)
            if enough and may_drop and bool((over := enough(found[left.to(found.device), : i + 1])).any()):
                x, left = x[~over], left[~over.cpu()]
                if not len(left):
                    break
                conds = rows_of(self.conds, rows[left], len(self.noise))
        return found

    def _may_drop(self, rows: Tensor) -> bool:
        return len(rows) == len(self.noise) or can_drop_rows(self.conds, self.options)

    def _whole(self, noise: Tensor, rows: Tensor) -> Tensor:
        """The batch with the noises of `rows` in it."""
        return self.noise.to(noise).index_copy(0, rows.to(noise.device), noise)

    def _noised(self, noise: Tensor, rows: Tensor | None) -> tuple[Tensor, Conds]:
        """What the sampler begins with, and the prompts, of some samples."""
        conds, latent, batch = self.conds, self.latent_image, len(self.noise)
        if rows is not None and len(rows) < batch:
            conds, latent = rows_of(conds, rows, batch), latent[rows.to(latent.device)]
        return self.model.model_sampling.noise_scaling(self.sigma, noise.clone(), latent, self.max_denoise), conds

    def _denoised(self, x: Tensor, level: Tensor, conds: Conds, alone: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Both predictions of x at a noise level, and the level (n,)."""
        check_interrupted()
        sigma = level * x.new_ones([x.shape[0]])
        null = None if alone else conds.get("null", conds["negative"])
        # A graph stays in memory until its backward pass: with gradients `in_parts` gives each part its own graph.
        ask = denoised_predictions if torch.is_grad_enabled() else self.without_graph.predictions
        cond, uncond = ask(self.model, conds["positive"], null, x, sigma, self.options)
        return cond, uncond, sigma

    def in_parts(self, body: Callable[[slice], T], count: int) -> list[T]:
        """`body` on `count` samples, as many at once as fit with a graph of their own; see `memory.BatchParts`."""
        return self.with_graph.run(body, count, least=1 if can_drop_rows(self.conds, self.options) else count)

    def with_gradients(self, body: Callable[[], T], checkpoints: str = "auto") -> T:
        """Run `body` with autograd working through the model; `checkpoints`: see `autograd.scope`."""
        refuse_quantized((p.model for p in patchers_of(self.guider)), self.node, INSTEAD)
        kept = self.conds, self.options, self.sigma, self.latent_image, self.noise

        def inside(conds: Conds, options: Options) -> T:
            self.conds, self.options = conds, options
            self.sigma, self.latent_image, self.noise = (tensor.clone() for tensor in kept[2:])
            try:
                return body()
            finally:
                self.conds, self.options, self.sigma, self.latent_image, self.noise = kept

        def reset_parts() -> None:
            self.with_graph = BatchParts()

        with explain_missing_gradient(self.node, INSTEAD):
            return run_with_gradients(
                inside, self.guider, self.noise, self.options, checkpoints=checkpoints, on_full_checkpoints=reset_parts
            )


Body = Callable[[TwoPredictions, Tensor], T]  # the Tensor is the run's noise on the model's device


class BodySampler(comfy.samplers.Sampler, Generic[T]):
    """A host Sampler that calls our function instead of sampling: such a run measures and makes no image."""

    result: T

    def __init__(self, body: Body[T], node: str) -> None:
        self.body = body
        self.node = node

    def sample(self, guider: CFGGuider, sigmas: Tensor, extra_args: dict, *args: Any, **kwargs: Any) -> Tensor:
        _callback, noise, latent_image, *_ = args
        pair = TwoPredictions(guider, sigmas, extra_args["model_options"], noise, latent_image, self.node)
        self.result = self.body(pair, noise)
        return torch.zeros_like(noise)


def run_in_sampling_scope(body: Body[T], run: SamplingInputs, headroom: float = 1.0) -> T:
    """Run `body(predictions, noise)` in the host's sampling scope and return what it returns.

    `headroom`: how many times the memory of a sampling step the host should free beforehand.
    """
    guider = comfy.samplers.CFGGuider(_with_headroom(run.model, headroom) if headroom > 1 else run.model)
    guider.inner_set_conds({"positive": run.positive, "negative": run.negative})
    if run.null is not None:
        guider.original_conds["null"] = with_settings_of(guider.original_conds["negative"], run.null, "negative")
    guider.set_cfg(run.cfg)
    sampler = BodySampler(body, run.node)
    # A clone: context windows of newer hosts shuffle the noise in place.
    guider.sample(run.noise.clone(), run.latent["samples"], sampler, run.sigmas, disable_pbar=True, seed=run.seed)
    return sampler.result


def measure_in_run(body: Body[T], run: SamplingRun, model: ModelPatcher, node: str, null: list | None = None) -> T:
    """Run `body` on the noise and the prompts of a run that is about to begin, with another patcher of its model.

    `null`: CONDITIONING that the prompt is compared with, unless the negative prompt says the same.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.original_conds = {name: run.conds[name] for name in ("positive", "negative")}
    if null is not None and not is_same_text(run.conds["negative"], null):
        guider.original_conds["null"] = with_settings_of(run.conds["negative"], null, "negative")
    guider.set_cfg(run.guider.cfg)
    sampler = BodySampler(body, node)
    guider.sample(run.noise.clone(), run.latent, sampler, run.sigmas, disable_pbar=True, seed=run.seed)
    return sampler.result


def relative_magnitude(run: SamplingInputs) -> Tensor:
    """d/√dim (B,) of the noises, in an EPS model's units."""

    def body(pair: TwoPredictions, noise: Tensor) -> Tensor:
        d = check_magnitude(guidance_magnitude(pair.prediction(noise)), pair.node).cpu()
        return relative(d, dimension(noise)) / pair.eps_unit

    return run_in_sampling_scope(body, run)


def _with_headroom(model: ModelPatcher, headroom: float) -> ModelPatcher:
    """A clone of the model for which the host frees as much memory as for a batch `headroom` times as large."""
    clone = model.clone()

    def prepare(executor: Any, patcher: ModelPatcher, shape: list[int], *args: Any, **kwargs: Any) -> Any:
        return executor(patcher, [math.ceil(shape[0] * headroom), *shape[1:]], *args, **kwargs)

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, "memorization_guard_probe", prepare)
    return clone
