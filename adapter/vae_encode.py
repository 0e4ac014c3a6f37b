"""Encode an image with the connected VAE, and say in an artist's words what may go wrong."""

from __future__ import annotations

from comfy.sd import VAE
from torch import Tensor

from .errors import GuardError, check_features
from .memory import explain_out_of_memory


def encode(vae: VAE, image: Tensor, node: str, lower: str) -> Tensor:
    """An image (1, H, W, 3) -> its latent (C, ..., h, w), float32 on the CPU.

    One image a call: a video VAE takes a batch for the frames of one video. `lower`: what helps when memory runs out.
    """
    with explain_out_of_memory(node, lower):
        latents = vae.encode(image)
    if not isinstance(latents, Tensor) or latents.ndim < 4 or latents.numel() == 0:
        raise GuardError(f"{node}: `vae` returned no latent for an image. Connect the VAE of the model.")
    return check_features(latents[0].float().cpu(), image, node, "`vae`", "--fp32-vae or --bf16-vae")
