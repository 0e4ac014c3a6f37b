"""NOISE objects and the noise that the vanilla sampler would draw."""

from __future__ import annotations

import comfy.sample
from torch import Tensor

from .errors import GuardError, dims

SAME_LEVEL = 0.05  # schedulers begin at slightly different sigmas


def drawn_noise(samples: Tensor, seed: int, batch_index=None) -> Tensor:
    """What KSampler and RandomNoise draw for this seed: same seed, same noise, on the CPU."""
    return comfy.sample.prepare_noise(samples, seed, batch_index)


def made_noise(noise, latent: dict, node: str) -> Tensor:
    """What a connected NOISE gives for the latent. Raises GuardError if that is no noise for it."""
    made, wanted = noise.generate_noise(latent), latent["samples"].shape
    if isinstance(made, Tensor) and made.shape == wanted and made.is_floating_point():
        return made
    what = f"a tensor of shape {dims(tuple(made.shape))}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
    raise GuardError(
        f"{node}: `noise` gave {what}, but `latent_image` needs one of shape {dims(tuple(wanted))} with fractions. "
        "Connect Random Noise or the Noise Optimizer, with the same `latent_image`."
    )


class FixedNoise:
    """A host NOISE that hands out one finished noise, for the shape it was made for.

    `sigma`: the noise level at which it was found; at another one it is as good as any other noise.
    """

    def __init__(self, noise: Tensor, seed: int, sigma: float):
        self.noise = noise
        self.seed = seed
        self.sigma = sigma

    def generate_noise(self, input_latent: dict) -> Tensor:
        wanted, have = tuple(input_latent["samples"].shape), tuple(self.noise.shape)
        if wanted != have:
            raise GuardError(
                f"Noise Optimizer: this noise was made for a latent of shape {dims(have)}, but the sampler asks "
                f"for {dims(wanted)} (batch × channels × height × width). Connect the same `latent_image` to both."
            )
        return self.noise.clone()


def level_hint(noise, sigmas: Tensor) -> list[str]:
    """A hint in a list when `noise` was found at another noise level than the schedule `sigmas` begins at."""
    found = getattr(noise, "sigma", None)
    if not isinstance(found, int | float) or len(sigmas) == 0 or abs(float(sigmas[0]) - found) <= SAME_LEVEL * found:
        return []
    return [
        f"Hint: this noise was found at noise level {found:.3g}, but sampling starts at {float(sigmas[0]):.3g}, where "
        "it need not leave the basin. Connect the sampler's schedule (Basic Scheduler with the same steps and denoise) "
        "to the Noise Optimizer's `sigmas`."
    ]
