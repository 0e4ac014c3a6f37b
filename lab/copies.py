"""What a copy is, defined once: pixels close to the memorized image.

The distance is the root mean square difference of RGB values in [0, 1] at 96×96. The threshold lies
between two distributions (MODEL_CARD.md quotes both): what a
perfect copy costs (the memorized image through the VAE), and the nearest of many other images
that fit the whole caption.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COPY_RMSE = 0.07
PICTURES = Path(__file__).parent / "training_images"


def rmse(image: np.ndarray, training: np.ndarray) -> float:
    """Distance of two uint8 images (H, W, 3) of equal size, in [0, 1]."""
    gap = image.astype(np.float32) - training.astype(np.float32)
    return float(np.sqrt(np.mean(np.square(gap))) / 255)


def is_copy(image: np.ndarray, training: np.ndarray) -> bool:
    return rmse(image, training) < COPY_RMSE


def training_pairs() -> list[tuple[str, np.ndarray]]:
    """(caption, image) of the memorized pairs, from the files that come with the checkpoint."""
    files = sorted(PICTURES.glob("*.png"))
    return [(f.with_suffix(".txt").read_text().strip(), np.asarray(Image.open(f).convert("RGB"))) for f in files]
