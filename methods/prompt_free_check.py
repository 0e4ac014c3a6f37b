"""How well a model knows finished images by heart, measured without a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.conditioning import encode_text
from ..adapter.errors import GuardError, check_finite
from ..adapter.long_work import interruptible, progress
from ..adapter.noise import drawn_noise
from ..adapter.sampling import SamplingInputs
from ..adapter.schedule import sigma_of
from ..adapter.two_predictions import TwoPredictions, run_in_sampling_scope
from ..adapter.vae_encode import encode
from ..mitigation.familiarity import familiarity, places

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

PERCENT = 0.5  # the host's percent of the noise level: t 500 of Stable Diffusion's 1000
NOISES = 8
SMALLER = "Use smaller images, or start ComfyUI with --cpu-vae."


def known_by_heart(
    model: ModelPatcher, clip: CLIP, vae: VAE, images: Sequence[Tensor], seed: int, node: str, noises: int = NOISES
) -> tuple[Tensor, list[Tensor]]:
    """The familiarity (B,) of images (H, W, 3), which may have different sizes, and where each is known (h, w)."""
    found = [(familiarity(*both), places(*both)) for both in restorations(model, clip, vae, images, seed, node, noises)]
    return torch.cat([value for value, _ in found]), [where for _, where in found]


def restorations(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    images: Sequence[Tensor],
    seed: int,
    node: str,
    noises: int = NOISES,
    percent: float = PERCENT,
) -> Iterator[Tensor]:
    """x̂₀ without a prompt of each image, then of its mirror image, with each noise: (2, noises, 1, ...) an image.

    An image costs 2 · `noises` evaluations, as many as `noises` sampling steps. Raises GuardError if the VAE is not
    the model's.
    """
    empty = encode_text(clip, "")
    sigmas = torch.tensor([sigma_of(model, percent), 0.0])
    channels = model.get_model_object("latent_format").latent_channels
    bar = progress(len(images))
    for image in interruptible(images):
        both = [encode(vae, one[None], node, SMALLER) for one in (image, image.flip(1))]
        if both[0].shape[0] != channels:
            raise GuardError(
                f"{node}: `vae` makes latents of {both[0].shape[0]} channels, but `model` works with {channels}. "
                "Connect the VAE of the model."
            )
        latents = torch.stack(both).repeat_interleave(noises, dim=0)
        noise = drawn_noise(latents[:noises], seed)
        run = SamplingInputs(
            model, empty, empty, {"samples": latents}, torch.cat([noise, noise.flip(-1)]), sigmas, seed, node
        )
        yield check_finite(run_in_sampling_scope(_restored, run), node).unflatten(0, (2, noises, 1))
        bar.update(1)


def _restored(pair: TwoPredictions, noise: Tensor) -> Tensor:
    return pair.denoised(noise, alone=True)[0].float().cpu()
