"""Ask a model for its two predictions, inside the host's own sampling scope.

A `Probe` is a host Sampler whose body is ours: the real CFGGuider loads the model, processes areas,
masks, ControlNets, hooks and LoRA, and hands over; afterwards the host cleans up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor, nn

from ...mitigation.prediction import Parameterisation, conditional_noise_prediction
from .errors import check_finite
from .gradient import differentiable, gradient_options, normal_conds, refuse_quantized

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

    def __init__(self, guider, sigmas: Tensor, model_options: dict, latent_image: Tensor, full_noise: bool, node: str):
        self.model = guider.inner_model
        self.conds = guider.conds
        self.sigma = sigmas[0]
        self.options = model_options
        self.latent_image = latent_image
        self.full_noise = full_noise
        self.node = node
        self.extra_models: list[nn.Module] = [m.model for m in guider.loaded_models if hasattr(m, "model")]

    def prediction(self, noise: Tensor) -> Tensor:
        """ε̃(x_T, T, y) (B, ...) for the initial noise x_T, one batched model call."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        sampling = self.model.model_sampling
        x = sampling.noise_scaling(self.sigma, noise.clone(), self.latent_image, self.full_noise)
        sigma = self.sigma * x.new_ones([x.shape[0]])
        null = self.conds.get("null", self.conds["negative"])
        cond, uncond = comfy.samplers.calc_cond_batch(
            self.model, [self.conds["positive"], null], x, sigma, self.options
        )
        return check_finite(noise_gap(sampling, cond, uncond, sigma), self.node)

    def with_gradients(self, body: Callable[[], T]) -> T:
        """Run `body` with autograd working through the model."""
        modules = [self.model, *self.extra_models]
        refuse_quantized(modules, self.node)
        kept = self.conds, self.options, self.sigma, self.latent_image
        with differentiable(modules):
            self.conds, self.options = normal_conds(self.conds), gradient_options(self.options)
            self.sigma, self.latent_image = self.sigma.clone(), self.latent_image.clone()
            try:
                return body()
            finally:
                self.conds, self.options, self.sigma, self.latent_image = kept


class _Probe(comfy.samplers.Sampler):
    def __init__(self, body: Callable[[Pair, Tensor], T], node: str):
        self.body = body
        self.node = node
        self.result: T | None = None

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        full = self.max_denoise(model_wrap, sigmas)
        pair = Pair(model_wrap, sigmas, extra_args["model_options"], latent_image, full, self.node)
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
) -> T:
    """Run `body(pair, noise on the device)` in the host's sampling scope and return what it returns."""
    guider = comfy.samplers.CFGGuider(model)
    conds = {"positive": positive, "negative": negative}
    guider.inner_set_conds(conds if null is None else {**conds, "null": null})
    probe = _Probe(body, node)
    guider.sample(noise, latent_image, probe, sigmas, disable_pbar=True, seed=seed)
    return probe.result  # type: ignore[return-value]
