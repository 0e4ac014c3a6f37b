"""NOISE objects and the noise that the vanilla sampler would draw."""

from __future__ import annotations

import comfy.sample
from torch import Tensor

from .errors import GuardError


def drawn_noise(samples: Tensor, seed: int, batch_index=None) -> Tensor:
    """What KSampler and RandomNoise draw for this seed: same seed, same noise, on the CPU."""
    return comfy.sample.prepare_noise(samples, seed, batch_index)


class FixedNoise:
    """A host NOISE that hands out one finished noise, for the shape it was made for."""

    def __init__(self, noise: Tensor, seed: int):
        self.noise = noise
        self.seed = seed

    def generate_noise(self, input_latent: dict) -> Tensor:
        wanted, have = tuple(input_latent["samples"].shape), tuple(self.noise.shape)
        if wanted != have:
            raise GuardError(
                f"Noise Optimizer: this noise was made for a latent of shape {_words(have)}, but the sampler asks "
                f"for {_words(wanted)} (batch × channels × height × width). Connect the same `latent_image` to both."
            )
        return self.noise.clone()


def _words(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
