"""What the host's KSampler and CFGGuider do, with a given noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from torch import Tensor

from .errors import GuardError, check_latent
from .noise import drawn_noise, made_noise
from .schedule import sampler_names, scheduler_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfy.model_patcher import ModelPatcher


def prepare_latent(model: ModelPatcher, latent: dict, node: str) -> dict:
    """The latent with the model's channel count when it is empty, as every host sampler does it."""
    samples = check_latent(latent, node)
    fitted = comfy.sample.fix_empty_latent_channels(model, samples)
    wanted = model.get_model_object("latent_format").latent_channels
    if fitted.shape[1] != wanted:
        raise GuardError(
            f"{node}: `latent_image` has {fitted.shape[1]} channels, but `model` works with {wanted}. "
            "Encode the image with this model's VAE."
        )
    return {**latent, "samples": fitted}


def initial_noise(latent: dict, seed: int, noise, node: str) -> Tensor:
    """The connected NOISE, else what KSampler would draw for the seed."""
    if noise is not None:
        return made_noise(noise, latent, node)
    return drawn_noise(latent["samples"], seed, latent.get("batch_index"))


def run_ksampler(
    model: ModelPatcher,
    *,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: list,
    negative: list,
    latent: dict,
    denoise: float,
    noise,
    node: str,
) -> dict:
    """A KSampler run by the calls of the host's `common_ksampler`, so that equal inputs give equal bits."""
    known = {"sampler_name": sampler_names(), "scheduler": scheduler_names()}
    for name, given in (("sampler_name", sampler_name), ("scheduler", scheduler)):
        if given not in known[name]:  # the host silently takes another one instead
            raise GuardError(
                f"{node}: `{name}` is {given!r}, which this ComfyUI does not have. Choose one from the list."
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


class StopSampling(Exception):
    """Raised by a wrapper to end a `run_euler` early."""


class _Stoppable(comfy.samplers.KSAMPLER):
    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
        try:
            return super().sample(model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs)
        except StopSampling:
            return noise


def run_euler(
    model: ModelPatcher,
    *,
    positive: list,
    negative: list,
    cfg: float,
    noise: Tensor,
    latent_image: Tensor,
    noise_mask,
    sigmas: Tensor,
    seed: int,
) -> None:
    """Sample with Euler for what wrappers on `model` see; the result is thrown away."""
    euler = _Stoppable(comfy.samplers.ksampler("euler").sampler_function)
    comfy.samplers.sample(
        model,
        noise,
        positive,
        negative,
        cfg,
        model.load_device,
        euler,
        sigmas,
        latent_image=latent_image,
        denoise_mask=noise_mask,
        disable_pbar=True,
        seed=seed,
    )


def cfg_guider(model: ModelPatcher, positive: list, negative: list, cfg: float) -> comfy.samplers.CFGGuider:
    """What the host's CFGGuider node makes of the same inputs."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def progress(total: int) -> comfy.utils.ProgressBar:
    """The host's progress bar on the node that runs now."""
    return comfy.utils.ProgressBar(total)


check_interrupted: Callable[[], None] = comfy.model_management.throw_exception_if_processing_interrupted
