"""A set of references: the images that a generation must not come too close to.

The metric decides which features a search compares:

- `latent`: latents as a VAE returns them (a LATENT's samples, not the model's own scaling), each minus
  its mean over all its elements, then scaled to length 1. A set holds latents of one shape.
- `nL2`: images in [0, 1], resized to `NL2_SIZE` × `NL2_SIZE`, for Eq. 8 of [AMG].
- `descriptor`: embeddings of length 1, of SSCD or another network. See `similarity.py` for the three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

Metric = Literal["latent", "nL2", "descriptor"]
METRICS: tuple[str, ...] = get_args(Metric)
LARGEST_THUMBNAIL = 512  # pixels a side
NL2_SIZE = 64
NL2_ALPHA, NL2_NEIGHBOURS = 0.5, 50  # [AMG] Eq. 8


class Descriptor(Protocol):
    """A network for copy detection: images (B, 3, H, W) in [0, 1] -> embeddings (B, D), not of length 1.

    Differentiable with respect to the images, which it resizes and normalizes itself. `name` is for messages;
    `fingerprint` identifies the weights, because embeddings of different weights cannot be compared.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, images: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """N references, on the CPU. Raises ValueError if the parts do not fit together."""

    metric: Metric
    features: Tensor  # (N, D) float16
    shape: tuple[int, ...]  # of one feature before flattening: latent (C, H, W), nL2 (3, h, w), descriptor (D,)
    captions: tuple[str, ...]  # N, "" where there is none
    names: tuple[str, ...]  # N, file names, "image 3" or "latent 3"; only shown, never compared
    thumbnails: Tensor | None = None  # (N, h, w, 3) uint8
    descriptor_name: str = ""  # of the network that made the embeddings
    descriptor_hash: str = ""
    model_hash: str = ""  # of the VAE or checkpoint that the latents were made with, where known
    alpha: float = NL2_ALPHA  # nL2 only: α and k of Eq. 8
    k: int = NL2_NEIGHBOURS
    descriptor: Descriptor | None = field(default=None, repr=False)  # never saved

    def __post_init__(self) -> None:
        rows = len(self.features)
        if not self.shape or not all(isinstance(side, int) and side > 0 for side in self.shape):
            raise ValueError(f"the shape {self.shape} of a reference must be whole numbers above 0")
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}: expected one of {', '.join(METRICS)}")
        if self.features.ndim != 2 or rows == 0 or self.features.dtype != torch.float16:
            raise ValueError("features must be a float16 tensor (N, D) with at least one row")
        if self.features.shape[1] != math.prod(self.shape):
            raise ValueError(f"features of {self.features.shape[1]} elements do not fit the shape {self.shape}")
        if len(self.captions) != rows or len(self.names) != rows:
            raise ValueError(f"{rows} references need as many captions and as many names")
        if not all(isinstance(text, str) for text in (*self.captions, *self.names)):
            raise ValueError("captions and names must be strings")
        kept = self.thumbnails
        if kept is not None and (
            kept.ndim != 4 or len(kept) != rows or kept.dtype != torch.uint8 or kept.shape[3] != 3 or not kept.numel()
        ):
            raise ValueError("thumbnails must be a uint8 tensor (N, h, w, 3)")
        if kept is not None and max(kept.shape[1:3]) > LARGEST_THUMBNAIL:
            raise ValueError(
                f"thumbnails of {kept.shape[1]} × {kept.shape[2]} pixels are larger than any that are made"
            )
        if self.k < 1 or not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"k ({self.k}) and α ({self.alpha}) of Eq. 8 must be above 0")
        if self.metric == "nL2" and rows <= self.k:
            raise ValueError(
                f"nL2 compares with the {self.k} nearest references and needs at least {self.k + 1}; there are {rows}"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def neighbours(self) -> int:
        """How many nearest references a similarity is computed from: k for nL2, else 1."""
        return self.k if self.metric == "nL2" else 1

    @property
    def has_captions(self) -> bool:
        return any(self.captions)
