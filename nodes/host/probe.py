"""Ask a model for its two predictions, inside the host's own sampling scope.

A `Probe` is a host Sampler whose body is ours: the real CFGGuider loads the model, processes areas,
masks, ControlNets, hooks and LoRA, and hands over; afterwards the host cleans up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor, nn

from ...mitigation.prediction import (
    Parameterisation,
    conditional_noise_prediction,
    dimension,
    eps_unit,
    guidance_magnitude,
    relative,
)
from .checkpointing import blocks, checkpointed, graph_fits
from .errors import check_finite
from .gradient import (
    differentiable,
    gradient_options,
    normal_conds,
    overwritten,
    refuse_quantized,
    weights_that_change,
)
from .guidance import branches
from .rows import can_drop_rows, controls, rows_of

T = TypeVar("T")


def parameterisation(model_sampling) -> tuple[Parameterisation, float]:
    """How the model predicts, and its sigma_data, from the host's model_sampling object."""
    import comfy.model_sampling as host

    sigma_data = float(getattr(model_sampling, "sigma_data", 1.0))
    if isinstance(model_sampling, host.CONST):
        return "flow", sigma_data
    if isinstance(model_sampling, host.V_PREDICTION):
        return "v", sigma_data
    return "eps", sigma_data


def noise_gap(model_sampling, denoised_cond: Tensor, denoised_uncond: Tensor, sigma: Tensor) -> Tensor:
    """ε̃ (B, ...) in the model's output space, from the host's denoised predictions."""
    kind, sigma_data = parameterisation(model_sampling)
    return conditional_noise_prediction(denoised_cond, denoised_uncond, sigma, kind, sigma_data)


class Pair:
    """A model inside a running sampling scope: conditional against null."""

    def __init__(self, guider, sigmas: Tensor, model_options: dict, noise: Tensor, latent_image: Tensor, full: bool):
        self.model = guider.inner_model
        self.conds = guider.conds
        self.sigma = sigmas[0]
        self.options = model_options
        self.noise = noise
        self.latent_image = latent_image
        self.full_noise = full
        self.node = ""
        self.networks: list[nn.Module] = [self.model, *(m.model for m in guider.loaded_models if hasattr(m, "model"))]

    @property
    def eps_unit(self) -> float:
        """This model's d per unit of an EPS model's d, at this noise level."""
        kind, sigma_data = parameterisation(self.model.model_sampling)
        return eps_unit(float(self.sigma), kind, sigma_data)

    def prediction(self, noise: Tensor, rows: Tensor | None = None) -> Tensor:
        """ε̃(x_T, T, y) (n, ...) for the initial noise x_T of the samples `rows` (all of them by default).

        One batched model call; samples that are not asked for cost nothing.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        conds, latent, batch = self.conds, self.latent_image, len(self.noise)
        if rows is not None and len(rows) < batch:
            if not can_drop_rows(conds):
                whole = self.noise.to(noise).index_copy(0, rows.to(noise.device), noise)
                return self.prediction(whole)[rows.to(noise.device)]
            conds, latent = rows_of(conds, rows, batch), latent[rows.to(latent.device)]
        sampling = self.model.model_sampling
        x = sampling.noise_scaling(self.sigma, noise.clone(), latent, self.full_noise)
        sigma = self.sigma * x.new_ones([x.shape[0]])
        null = conds.get("null", conds["negative"])
        cond, uncond = branches(self.model, [conds["positive"], null], x, sigma, self.options)
        return check_finite(noise_gap(sampling, cond, uncond, sigma), self.node)

    def with_gradients(self, body: Callable[[], T], checkpoints: str = "auto") -> T:
        """Run `body` with autograd working through the model.

        `checkpoints`: `on` and `off`, or `auto`: on when the graph would not fit the free memory.
        """
        refuse_quantized(self.networks, self.node)
        if any(True for _ in controls(self.conds)):  # the host adds a ControlNet into what the UNet still needs
            return self._with_gradients(body, checkpoints, out_of_place=True)
        try:
            return self._with_gradients(body, checkpoints, out_of_place=False)
        except RuntimeError as error:
            if not overwritten(error):
                raise
        return self._with_gradients(body, checkpoints, out_of_place=True)

    def _with_gradients(self, body: Callable[[], T], checkpoints: str, out_of_place: bool) -> T:
        changing = self._weights_of_hooks()
        fits = graph_fits(self.model, len(self.noise), tuple(self.noise.shape), self.noise.device)
        # A LoRA that comes and goes with a prompt is gone when a block is computed again.
        again = not changing and (checkpoints == "on" or (checkpoints == "auto" and not fits))
        parts = [b for n in self.networks for b in blocks(getattr(n, "diffusion_model", n))] if again else []
        kept = self.conds, self.options, self.sigma, self.latent_image, self.noise
        with differentiable(self.networks), weights_that_change(changing), checkpointed(parts, out_of_place):
            self.conds, self.options = normal_conds(self.conds), gradient_options(self.options, out_of_place)
            self.sigma, self.latent_image, self.noise = (
                self.sigma.clone(),
                self.latent_image.clone(),
                self.noise.clone(),
            )
            try:
                return body()
            finally:
                self.conds, self.options, self.sigma, self.latent_image, self.noise = kept

    def _weights_of_hooks(self) -> list[Tensor]:
        """The weights that hooks on the prompts rewrite while the model is evaluated."""
        if not any(c.get("hooks") for group in self.conds.values() for c in group):
            return []
        keys = {k for patches in self.model.current_patcher.hook_patches.values() for k in patches}
        return [comfy.utils.get_attr(self.model, k) for k in keys]


class _Probe(comfy.samplers.Sampler):
    def __init__(self, body: Callable[[Pair, Tensor], T], node: str):
        self.body = body
        self.node = node
        self.result: T | None = None

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        full = self.max_denoise(model_wrap, sigmas)
        pair = Pair(model_wrap, sigmas, extra_args["model_options"], noise, latent_image, full)
        pair.node = self.node
        self.result = self.body(pair, noise)
        return torch.zeros_like(noise)


def run_probe(
    body: Callable[[Pair, Tensor], T],
    *,
    model,
    positive,
    negative,
    null,
    noise: Tensor,
    latent_image: Tensor,
    sigmas: Tensor,
    node: str,
    seed: int,
    headroom: float = 1.0,
) -> T:
    """Run `body(pair, noise on the device)` in the host's sampling scope and return what it returns.

    `headroom`: how many times the memory of a sampling step the host should make free beforehand.
    """
    guider = comfy.samplers.CFGGuider(_asking_for(model, headroom) if headroom > 1 else model)
    conds = {"positive": positive, "negative": negative}
    guider.inner_set_conds(conds if null is None else {**conds, "null": null})
    probe = _Probe(body, node)
    guider.sample(noise, latent_image, probe, sigmas, disable_pbar=True, seed=seed)
    return probe.result  # type: ignore[return-value]


def relative_magnitude(**run) -> Tensor:
    """d/√dim (B,) of the noises, in an EPS model's units; `run`: what `run_probe` needs besides its body."""

    def body(pair: Pair, noise: Tensor) -> Tensor:
        d = guidance_magnitude(pair.prediction(noise)).cpu()
        return relative(d, dimension(noise)) / pair.eps_unit

    return run_probe(body, **run)


def _asking_for(model, headroom: float):
    """A clone of the model for which the host frees more memory before it loads: as for a larger batch."""
    clone = model.clone()

    def prepare(executor, patcher, shape, *args, **kwargs):
        return executor(patcher, [math.ceil(shape[0] * headroom), *shape[1:]], *args, **kwargs)

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, "memorization_guard_probe", prepare)
    return clone
