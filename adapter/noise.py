"""NOISE objects, and the noise that the host's own samplers would draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from .errors import GuardError, dims
from .model_call import kept_random_state

MOST_DRAWN = 2**25  # numbers that are drawn to recognise a noise: those of 512 images of SDXL
MOST_IMAGES = 1024  # and the images
LEVEL_TOLERANCE = 0.05  # a share of σ: schedulers begin at slightly different levels


def drawn_noise(samples: Tensor, seed: int, batch_index: list[int] | None = None) -> Tensor:
    """What KSampler and RandomNoise draw for this seed: same seed, same noise, on the CPU."""
    return comfy.sample.prepare_noise(samples, seed, batch_index)


def is_drawn_noise(noise: Tensor, seed: int | None) -> bool:
    """Whether this (B, ...) is the noise that the host draws for a seed, bit for bit.

    Statistics could not tell: a noise that another node has given a structure can have any mean and any std.
    """
    if seed is None:
        return False
    noise = noise.cpu()
    with kept_random_state(noise.device):
        if torch.equal(noise, drawn_noise(noise, seed)):
            return True
    # A latent that was taken out of a batch has a `batch_index`: the host then draws one image after the other.
    left, draws = list(noise), torch.Generator().manual_seed(int(seed))
    for _ in range(min(MOST_IMAGES, MOST_DRAWN // max(noise[0].numel(), 1))):
        row = torch.randn(noise[:1].shape, dtype=noise.dtype, generator=draws)[0]
        left = [one for one in left if not torch.equal(one, row)]
        if not left:
            return True
    return False


def initial_noise(latent: dict, seed: int, noise: Any, node: str) -> Tensor:
    """The noise of the connected NOISE, else what KSampler would draw. Raises GuardError if it does not fit."""
    samples = latent["samples"]
    if noise is None:
        return drawn_noise(samples, seed, latent.get("batch_index"))
    made = noise.generate_noise(latent)
    if isinstance(made, Tensor) and made.shape == samples.shape and made.is_floating_point():
        return made
    what = f"a tensor of shape {dims(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
    raise GuardError(
        f"{node}: `noise` gave {what}, but `latent_image` needs floating-point noise of shape "
        f"{dims(samples.shape)}. Connect Random Noise or the Noise Optimizer, with the same `latent_image`."
    )


@dataclass(frozen=True, eq=False)
class FixedNoise:
    """A host NOISE that holds one finished noise, found at noise level `sigma`, for the shape it was made for."""

    noise: Tensor
    seed: int
    sigma: float

    def generate_noise(self, input_latent: dict) -> Tensor:
        wanted = input_latent["samples"].shape
        if wanted != self.noise.shape:
            raise GuardError(
                f"Noise Optimizer: this noise was made for a latent of shape {dims(self.noise.shape)}, but the "
                f"sampler asks for {dims(wanted)} (batch × channels × height × width). Connect the same "
                "`latent_image` to both."
            )
        # Like Random Noise, it seeds PyTorch: patches such as Token Merging draw from the global random state.
        drawn_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))
        return self.noise.clone()


def noise_level_hint(noise: Any, sigmas: Tensor) -> list[str]:
    """A hint in a list if `noise` was found at another noise level than the one that `sigmas` begins at."""
    if not isinstance(noise, FixedNoise) or len(sigmas) == 0:
        return []
    found, start = noise.sigma, float(sigmas[0])
    if abs(start - found) <= LEVEL_TOLERANCE * found:
        return []
    return [
        f"Hint: this noise was made for noise level {found:.3g}, but sampling starts at {start:.3g}. Connect the "
        "sampler's schedule to the Noise Optimizer's `sigmas`."
    ]
