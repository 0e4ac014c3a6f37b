"""Decode a prediction in the middle of a sampling run, with gradients.

The VAE is an additional model of the patched MODEL, so the host loads both together and neither pushes the other out.
It must not be loaded or unloaded here.
"""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.sd import VAE
from torch import Tensor


def decode(vae: VAE, latents: Tensor) -> Tensor:
    """Latents (B, C, H, W) in the VAE's own scale -> images (B, 3, H, W) in [0, 1], float32, on the same device.

    It decodes as many at once as fit into free memory. Differentiable where autograd is on.
    """
    samples = latents.to(vae.device, vae.vae_dtype)
    per_sample = vae.memory_used_decode((1, *samples.shape[1:]), vae.vae_dtype)
    if torch.is_grad_enabled() and samples.requires_grad:
        per_sample *= 4  # a graph keeps every activation
    rows = max(1, int(comfy.model_management.get_free_memory(vae.device) / max(per_sample, 1)))
    parts = [vae.process_output(vae.first_stage_model.decode(part).float()) for part in samples.split(rows)]
    images = torch.cat(parts)
    if images.ndim == 5:  # a video VAE with one frame
        images = images[:, :, 0]
    return images[:, :3].to(latents.device)
