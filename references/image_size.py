"""From the size of a latent to the size of the image it stands for."""

from __future__ import annotations

from ..adapter.errors import GuardError, check_latent


def pixel_size(size_of: dict, vae, node: str) -> tuple[int, int]:
    """(width, height) of the images that the latent on the input `size_of` stands for."""
    samples = check_latent(size_of, node, "size_of")
    ratio = 8 if vae is None else pixels_per_latent(vae, node)
    return samples.shape[-1] * ratio, samples.shape[-2] * ratio


def pixels_per_latent(vae, node: str) -> int:
    """How many pixels one latent element covers along a side. Raises GuardError if the VAE does not say."""
    ratio = vae.spacial_compression_encode()
    if not isinstance(ratio, int) or ratio < 1:
        raise GuardError(f"{node}: `vae` does not say how large its latents are. Connect the VAE of the model.")
    return ratio
