"""Cross-attention attenuation, and the guidance of GUARD that is built on it.

Zhao et al., ICML 2026, arXiv 2603.00133. A token that draws far more attention than the others is the trigger of a
memorized image: its logits are lowered before the softmax.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 77  # tokens of CLIP; hosts encode a longer prompt as several of these


def attenuation(queries: Tensor, keys: Tensor, threshold: float, factor: float) -> Tensor:
    """By what the keys (B, heads, T, dim) are multiplied, (B, heads, T, 1): `factor` for trigger tokens, 1 for others.

    S = q kᵀ/√dim, so a lowered key is a lowered logit. M_i is the largest S_i over the queries (B, heads, N, dim), and
    token i is a trigger where (M_i − mean)/(std + 1e-6) > `threshold`, over all tokens but the first. The first token
    of every chunk is left alone.
    """
    peaks = torch.stack([(q @ k.transpose(-1, -2)).amax(dim=-2) for q, k in zip(queries, keys, strict=True)]).float()
    peaks = peaks / math.sqrt(keys.shape[-1])
    rest = peaks[..., 1:]
    z = (peaks - rest.mean(-1, keepdim=True)) / (rest.std(-1, keepdim=True) + 1e-6)
    first = torch.arange(keys.shape[-2], device=keys.device) % CHUNK == 0
    return torch.where((z > threshold) & ~first, factor, 1.0).unsqueeze(-1).to(keys.dtype)


def repulsion(step: int, steps: int, strength: float) -> float:
    """2 cos(π i/2N) in GUARD: how strongly step i of N moves away from what the plain prompt asks for."""
    return strength * math.cos(math.pi * step / (2 * steps))
