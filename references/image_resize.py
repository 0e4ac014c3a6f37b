"""IMAGE tensors to three channels and to a given size, such as the size that a latent stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..adapter.errors import GuardError, check_latent

if TYPE_CHECKING:
    from comfy.sd import VAE

AROUND = 0.1  # the grey beside a thumbnail that is no square
Size = tuple[int, int]  # (width, height)


def latent_in_pixels(shape: tuple[int, ...], vae: VAE | None, node: str) -> Size:
    """The size of the image that a latent (..., H, W) stands for; without a VAE, 8 pixels per element as in SD.

    Raises GuardError if the VAE does not say how many.
    """
    ratio = 8 if vae is None else vae.spacial_compression_encode()
    if not isinstance(ratio, int) or ratio < 1:
        raise GuardError(f"{node}: `vae` does not say how large its latents are. Connect the VAE of the model.")
    return shape[-1] * ratio, shape[-2] * ratio


def pixel_size(size_of: dict, vae: VAE | None, node: str) -> Size:
    """The size of the images that the latent on the input `size_of` stands for."""
    return latent_in_pixels(check_latent(size_of, node, "size_of").shape, vae, node)


def opaque(images: Tensor) -> Tensor:
    """IMAGE (B, H, W, C) -> (B, H, W, 3) in [0, 1]: a single channel is repeated, transparency becomes white."""
    images = images.float().clamp(0, 1)
    channels = images.shape[-1]
    if channels == 4:
        return images[..., :3] * images[..., 3:] + (1 - images[..., 3:])
    return images[..., :1].expand(*images.shape[:-1], 3) if channels < 3 else images[..., :3]


def cover(images: Tensor, fill: Size | None) -> Tensor:
    """(B, H, W, 3) scaled to fill a size and cropped at the centre, never distorted; None leaves them as they are."""
    high, wide = images.shape[1:3]
    if fill is None or (wide, high) == fill:
        return images
    width, height = fill
    scale = max(width / wide, height / high)
    # Cut before scaling: a strip of 20,000 × 1 pixels, enlarged as a whole, would take 63 GB.
    kept_high, kept_wide = (
        min(max(round(side / scale), 1), all_of) for side, all_of in ((height, high), (width, wide))
    )
    top, left = (high - kept_high) // 2, (wide - kept_wide) // 2
    part = images[:, top : top + kept_high, left : left + kept_wide].movedim(-1, 1)
    scaled = F.interpolate(part, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return scaled.movedim(1, -1).clamp(0, 1)


def contain(image: Tensor, side: int) -> Tensor:
    """(H, W, 3) in [0, 1] -> uint8 (side, side, 3): the whole image, centred on dark grey."""
    high, wide = image.shape[:2]
    scale = side / max(high, wide)
    size = (max(round(high * scale), 1), max(round(wide * scale), 1))
    small = F.interpolate(image.movedim(-1, 0)[None], size, mode="bilinear", antialias=True, align_corners=False)
    out = torch.full((side, side, 3), AROUND)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    out[top : top + size[0], left : left + size[1]] = small[0].movedim(0, -1).clamp(0, 1).to(out.device)
    return (out * 255).round().to(torch.uint8)


def contained(thumbnail: Tensor) -> Tensor:
    """The image (h, w, 3) uint8 inside what `contain` made of it, without the grey around it."""
    inside = (thumbnail != round(AROUND * 255)).any(dim=2)
    high, wide = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
    return thumbnail[high[0] : high[-1] + 1, wide[0] : wide[-1] + 1] if len(high) else thumbnail
