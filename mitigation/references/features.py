"""What is compared: features (B, D) of latents and images, one row a sample, in float32 unless a function says so.

The metric of a reference set says which of the three it holds. [AMG] Sec. 4.1 uses image embeddings
(object level) and pixels (pixel level); latents are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference_set import NL2_SIZE, Descriptor

BLOCK = 2**12  # rows converted to float32 at a time


def unit(rows: Tensor) -> Tensor:
    """Rows (B, D) scaled to length 1. A row of zeros stays zero, but its gradient is 1e8 times the incoming one."""
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-8)


def latent_features(latents: Tensor) -> Tensor:
    """(B, C, H, W), or any (B, ...) -> (B, D): each sample minus its mean over all elements, at length 1.

    The inner product of two such rows is the correlation of the latents. It does not change under x -> a·x + b with
    a > 0, so a VAE's scaling factor does not matter. Pass latents as a VAE returns them: the prediction of a model that
    scales each channel differently has to be converted back first.
    """
    rows = latents.float().flatten(1)
    return unit(rows - rows.mean(dim=1, keepdim=True))


def image_features(images: Tensor, size: int = NL2_SIZE) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> (B, 3·size²): resized to a square, bilinear with antialiasing."""
    small = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.flatten(1)


def descriptor_features(images: Tensor, descriptor: Descriptor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> embeddings (B, D) at length 1. [AMG] Sec. 4.1, object level."""
    return unit(descriptor(images.float()).float().flatten(1))


# Latents of images in one style correlate, whether they are copies or not. On the small lab checkpoint, 16 different
# training images have cosines of up to 0.80 to each other, and images of ordinary prompts up to 0.85 to one of them: no
# threshold separates that from a copy. After subtracting the mean of the set the figures are 0.51 and 0.62, and copies
# stay at 1. [AMG] does not need this: its descriptor is trained for it.


def shared_mean(features: Tensor) -> Tensor:
    """(N, D) -> (D,) float32: what all references have in common, the mean times (N − 1)/N.

    The factor makes it zero for a single reference, which would vanish without it.
    """
    count = len(features)
    total = torch.stack([block.float().sum(dim=0) for block in features.split(BLOCK)]).sum(dim=0)
    return total / count * ((count - 1) / count)


def remove_mean(mean: Tensor, features: Tensor) -> Tensor:
    """(B, D) minus the shared mean (D,), at length 1, float32."""
    return unit(features.float() - mean)


def centre_all(features: Tensor, mean: Tensor) -> Tensor:
    """`remove_mean` for a whole set (N, D), in float16."""
    return torch.cat([remove_mean(mean, block).half() for block in features.split(BLOCK)])
