"""The lab checkpoint's VAE without the host: images to latents and back."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .export import FILE
from .train_vae import to_tensor, trained

BATCH = 64


def load() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Encoder and decoder of lab.safetensors."""
    prefix = "first_stage_model."
    weights = {k.removeprefix(prefix): v for k, v in load_file(FILE).items() if k.startswith(prefix)}
    enc, dec = (trained(weights, part).to(memory_format=torch.channels_last) for part in ("encoder", "decoder"))
    return enc.eval(), dec.eval()


@torch.no_grad()
def through(images: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Images (B, H, W, 3) uint8 encoded and decoded; each latent first gets noise of a std up to `noise`."""
    enc, dec = load()
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for i in range(0, len(images), BATCH):
        x = to_tensor(images[i : i + BATCH]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z = enc(x).float()
            std = noise * torch.rand((len(z), 1, 1, 1), generator=generator)
            y: Tensor = dec(z + std * torch.randn(z.shape, generator=generator)).float()
        parts.append((y.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)
