"""What a copy is, defined once: pixels close to the memorized image, wherever the copy lies and if it is mirrored.

The distance is the root mean square difference of RGB values in [0, 1] at 128×128, of the part that both images share,
and the smallest over all shifts by up to 6 % and the mirror image; threshold.py measures what the threshold separates.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

COPY_RMSE = 0.05
SIDE, SHIFT = 128, 8  # 6 % of 128 pixels
TRAINING_IMAGES = Path(__file__).parent / "training_images"
LORA, LORA_IMAGES = (Path(__file__).parent / name for name in ("overtrained_lora.safetensors", "lora_images"))


def training_pairs(folder: Path = TRAINING_IMAGES) -> list[tuple[str, np.ndarray]]:
    """(caption, image) of the memorized pairs, from the files that come with a checkpoint."""
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".png", ".webp")]
    return [(f.with_suffix(".txt").read_text().strip(), np.asarray(Image.open(f).convert("RGB"))) for f in files]


def reduced(images: np.ndarray | Tensor) -> Tensor:
    """uint8 (n, H, W, 3), or (n, 3, H, W) in [0, 1], as (n, 3, 128, 128) in [0, 1]: as the judge sees images, too."""
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.array(images)).movedim(-1, 1).float() / 255
    return F.interpolate(images, (SIDE, SIDE), mode="area")


def distances(images: np.ndarray | Tensor, works: np.ndarray | Tensor) -> Tensor:
    """(n images, m works): how far each image is from each work, moved or mirrored as it may be.

    Σ (a(p) − b(p + s))² over what both show is Σ a² + Σ b² − 2 Σ a(p) b(p + s), for every shift s at once by FFT.
    """
    made, own = reduced(images), reduced(works)
    own = torch.stack([own, own.flip(-1)], 1)  # (m, 2, 3, SIDE, SIDE)
    size = (2 * SIDE, 2 * SIDE)

    def at_every_shift(a: Tensor, b: Tensor) -> Tensor:
        """Σ over pixels and channels of a(p) b(p + s), from the spectra: (..., 2 SHIFT + 1, 2 SHIFT + 1)."""
        full = torch.fft.irfft2((a.conj() * b).sum(-3), size).roll((SHIFT, SHIFT), (-2, -1))
        return full[..., : 2 * SHIFT + 1, : 2 * SHIFT + 1]

    ones, spectra = torch.fft.rfft2(torch.ones_like(own[:1, :1]), size), torch.fft.rfft2(own, size)
    count, of_own = at_every_shift(ones, ones), at_every_shift(ones, torch.fft.rfft2(own.square(), size))
    found = []
    for image in made:
        of_image = at_every_shift(torch.fft.rfft2(image.square(), size), ones)
        common = at_every_shift(torch.fft.rfft2(image, size), spectra)
        means = (of_image + of_own - 2 * common) / count
        found.append(means.clamp(min=0).sqrt().flatten(1).min(1).values)
    return torch.stack(found)


def is_copy(image: np.ndarray, training: np.ndarray) -> bool:
    return bool(distances(image[None], training[None]) < COPY_RMSE)
