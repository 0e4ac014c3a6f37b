"""Sample as the host's KSampler and CFGGuider do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from .errors import GuardError, check_latent
from .long_work import check_interrupted


@dataclass(frozen=True)
class SamplingInputs:
    """What a run of our own samples with."""

    model: ModelPatcher
    positive: list  # CONDITIONING
    negative: list
    latent: dict  # see prepare_latent
    noise: Tensor  # (B, ...)
    sigmas: Tensor
    seed: int
    node: str  # for errors
    null: list | None = None  # CONDITIONING that the prompt is compared with; None: the negative prompt
    cfg: float = 1.0  # only for what is guided


@dataclass(frozen=True)
class SamplingRun:
    """A run of the host that is about to begin, as a wrapper around it sees it."""

    guider: comfy.samplers.CFGGuider
    noise: Tensor  # (B, ...)
    latent: Tensor  # (B, ...)
    sigmas: Tensor
    mask: Tensor | None
    seed: int | None
    packed: bool  # several latents in one tensor, as some video models have them

    @property
    def conds(self) -> dict[str, list]:
        """Its prompts, not processed for a run yet."""
        return self.guider.original_conds


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


def run_ksampler(
    model: ModelPatcher, noise: Tensor, latent: dict, steps: int, callback: Callable | None = None, **inputs: Any
) -> dict:
    """A KSampler run by the calls of the host's `common_ksampler`, so that equal inputs give equal bits.

    `callback`: instead of a progress bar over the steps. `inputs`: KSampler's other inputs, by its names.
    """
    samples = comfy.sample.sample(
        model,
        noise,
        steps,
        latent_image=latent["samples"],
        noise_mask=latent.get("noise_mask"),
        callback=callback or latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        **inputs,
    )
    return {**latent, "samples": samples}


def part_of_progress(model: ModelPatcher, bar: comfy.utils.ProgressBar, done: int) -> Callable:
    """A callback for one image of many: `bar`, which counts images, moves with each step and shows the preview."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        check_interrupted()  # newer hosts' progress bars do not look
        preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
        bar.update_absolute(done + (step + 1) / total, preview=preview)

    return callback


def decode_first(vae: VAE, latent: dict) -> Tensor:
    """The first image (H, W, C) of what VAE Decode makes of a latent."""
    images = vae.decode(latent["samples"])
    return images.reshape(-1, *images.shape[-3:])[0]


class StopSampling(Exception):
    """Raised by a wrapper to end a `run_euler` early."""


class _StoppableSampler(comfy.samplers.KSAMPLER):
    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        try:
            return super().sample(*args, **kwargs)
        except StopSampling:
            return args[4]  # the noise, because the host needs a tensor


def run_euler(run: SamplingInputs, cfg: float) -> None:
    """Sample with Euler for what wrappers on the model see; the result is discarded."""
    guider = cfg_guider(run.model, run.positive, run.negative, cfg)
    sampler = _StoppableSampler(comfy.samplers.ksampler("euler").sampler_function)
    latent, mask = run.latent["samples"], run.latent.get("noise_mask")
    guider.sample(run.noise, latent, sampler, run.sigmas, denoise_mask=mask, disable_pbar=True, seed=run.seed)


def cfg_guider(model: ModelPatcher, positive: list, negative: list, cfg: float) -> comfy.samplers.CFGGuider:
    """What the host's CFGGuider node makes of the same inputs."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider
