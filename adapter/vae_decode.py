"""Pictures of a prediction, through the host's VAE, differentiable, in the middle of a sampling run.

The VAE goes into the run as an additional model of the patched MODEL, so the host loads both together
and neither pushes the other out. It is never loaded or unloaded here. Any VAE that the host loads
serves; a TAESD (models/vae_approx, offered by the host's VAE loader) is the fast one.
"""

from __future__ import annotations

import comfy.model_management
import torch
from torch import Tensor


def decode(vae, latents: Tensor) -> Tensor:
    """Latents (B, C, H, W) in the VAE's own scale -> pictures (B, 3, H, W) in [0, 1], float32.

    As many samples at once as the memory allows that is free on the VAE's device. The result lies on
    the device of `latents`, and carries gradients where autograd is on.
    """
    samples = latents.to(vae.device, vae.vae_dtype)
    graph = torch.is_grad_enabled() and samples.requires_grad
    each = vae.memory_used_decode((1, *samples.shape[1:]), vae.vae_dtype) * (4 if graph else 1)  # a graph keeps all
    free = comfy.model_management.get_free_memory(vae.device)
    rows = max(1, int(free / max(each, 1)))
    parts = [vae.process_output(vae.first_stage_model.decode(part).float()) for part in samples.split(rows)]
    pictures = torch.cat(parts)
    if pictures.ndim == 5:  # a video VAE with one frame
        pictures = pictures[:, :, 0]
    return pictures[:, :3].to(latents.device)
