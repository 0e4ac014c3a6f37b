"""What the host's KSampler does, with a given noise."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from .errors import GuardError, check_latent
from .noise import drawn_noise, made_noise

LATE = 0.05  # the host's percent


def sampler_names() -> list[str]:
    """The host's samplers, with those that other packs have added."""
    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    return list(comfy.samplers.KSampler.SCHEDULERS)


def prepare_latent(model, latent: dict, node: str) -> dict:
    """The latent with the model's channel count when it is empty, as every host sampler does it."""
    samples = check_latent(latent, node)
    fitted = comfy.sample.fix_empty_latent_channels(model, samples)
    wanted = model.get_model_object("latent_format").latent_channels
    if fitted.shape[1] != wanted:
        raise GuardError(
            f"{node}: `latent_image` has {fitted.shape[1]} channels, but `model` works with {wanted}. "
            "Encode the picture with this model's VAE."
        )
    return {**latent, "samples": fitted}


def initial_noise(latent: dict, seed: int, noise, node: str) -> Tensor:
    """The connected NOISE, else what KSampler would draw for the seed."""
    if noise is not None:
        return made_noise(noise, latent, node)
    return drawn_noise(latent["samples"], seed, latent.get("batch_index"))


def schedule(model, scheduler: str, steps: int) -> Tensor:
    """Sigmas (steps + 1,) of a host scheduler."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)


def ksampler_sigmas(model, steps: int, sampler_name: str, scheduler: str, denoise: float) -> Tensor:
    """The sigmas that KSampler runs through for these inputs."""
    plan = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise)
    return plan.sigmas


def percent_of(model, sigma: float) -> float:
    """The host's percent (0 … 1) of a noise level: the inverse of `percent_to_sigma`, by bisection."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(to_sigma(middle)) > sigma else (low, middle)
    return round(high, 6)


def starts_late(model, sigmas: Tensor) -> bool:
    """Below T by more than a schedule does that leaves out the first timesteps: ddim_uniform begins at t = 981."""
    return len(sigmas) > 0 and percent_of(model, float(sigmas[0])) > LATE


def first_sigma(model, sigmas: Tensor | None, node: str) -> Tensor:
    """The schedule of a probe at T: the first of `sigmas`, else the model's sigma_max, and 0."""
    if sigmas is None:
        return torch.tensor([float(model.get_model_object("model_sampling").sigma_max), 0.0])
    if sigmas.numel() == 0 or float(sigmas[0]) <= 0:
        raise GuardError(f"{node}: `sigmas` is empty or starts at 0: connect the sampler's whole schedule.")
    return sigmas.new_tensor([float(sigmas[0]), 0.0])


def run_ksampler(
    model,
    *,
    seed,
    steps,
    cfg,
    sampler_name,
    scheduler,
    positive,
    negative,
    latent: dict,
    denoise: float,
    noise,
    node: str,
) -> dict:
    """A KSampler run: the very calls of the host's `common_ksampler`, so that equal inputs give equal bits."""
    for name, given, known in (
        ("sampler_name", sampler_name, sampler_names()),
        ("scheduler", scheduler, scheduler_names()),
    ):
        if given not in known:  # the host takes another one without a word
            raise GuardError(
                f"{node}: `{name}` is {given!r}, which this ComfyUI does not have. Choose one of the list."
            )
    samples = comfy.sample.sample(
        model,
        initial_noise(latent, seed, noise, node),
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent["samples"],
        denoise=denoise,
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": samples}


def progress(total: int):
    """The host's progress bar on the node that runs now."""
    return comfy.utils.ProgressBar(total)
