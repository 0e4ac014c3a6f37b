"""Samples of a batch: one value each (B,) beside tensors (B, ...)."""

from __future__ import annotations

import torch
from torch import Tensor


def broadcast(values: Tensor, batch: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), on the device of `batch` (B, ...) and, unless it is a mask, in its dtype."""
    dtype = batch.dtype if values.is_floating_point() else values.dtype
    return values.to(batch.device, dtype).view(-1, *[1] * (batch.ndim - 1))


def replace_samples(mask: Tensor, changed: Tensor, kept: Tensor) -> Tensor:
    """`changed` where the mask (B,) is set; the other samples are the same bits as in `kept`."""
    return torch.where(broadcast(mask, kept), changed.to(kept.dtype), kept)


def norms(batch: Tensor) -> Tensor:
    """‖·‖₂ of each sample: (B, ...) -> (B,) float32."""
    return torch.linalg.vector_norm(batch.float().flatten(1), dim=1)
