"""Read PNG, JPEG and WebP files as tensors with Pillow. All other formats are refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow tries no other decoder, whatever the file's name says
OTHER_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".jfif")  # named when left out
MOST_PIXELS = 180_000_000  # a 12,000 × 12,000 image has 144 million
REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK")
SIDECARS = (".txt", ".caption")
SIDECAR_BYTES = 65_536


class ImageFileError(ValueError):
    """A file that cannot be read as an image; the message is the reason, for a report."""


def read_image(path: Path, side: int) -> Tensor:
    """(H, W, 3) in [0, 1]: upright by its EXIF, transparency on white, the first frame of an animation.

    16-bit grey keeps its range. An image whose sides are both above 4 · side is reduced while it is read, to save
    memory. Raises ImageFileError with the reason if the file is empty, corrupt, too large or in another format.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageFileError("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS decides
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ImageFileError(f"{image.width} × {image.height} pixels are too many")
                return _pixels(image, side)
    except ImageFileError:
        raise
    except Image.DecompressionBombError:
        raise ImageFileError("too many pixels") from None
    except Image.UnidentifiedImageError:
        raise ImageFileError("not a PNG, JPEG or WebP file, whatever its name says") from None
    except FileNotFoundError:
        raise ImageFileError("removed, or a link to a missing file") from None
    except MemoryError:
        raise ImageFileError("too large for memory") from None
    except Exception as error:  # decoders raise almost anything on a corrupt file, which must not stop the others
        raise ImageFileError(f"corrupt ({error or type(error).__name__})") from None


def _pixels(image: Image.Image, side: int) -> Tensor:
    image.draft("RGB", (2 * side, 2 * side))  # JPEG only: decoded at a half, a quarter or an eighth of its size
    image.load()
    factor = min(image.size) // (2 * side)
    ImageOps.exif_transpose(image, in_place=True)
    upright: Image.Image = image
    if factor > 1 and upright.mode in REDUCIBLE:
        upright = upright.reduce(factor)
    if upright.mode.startswith(("I", "F")):  # 16-bit grey: Pillow's own conversion would clip it to white
        grey = torch.from_numpy(np.asarray(upright).astype(np.float32) / 65535)
        return grey.clamp(0, 1).unsqueeze(-1).expand(-1, -1, 3).contiguous()
    if upright.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return torch.from_numpy(np.array(upright.convert("RGB"))).float() / 255


def read_caption(image: Path) -> str:
    """The first line with words in the .txt file beside the image, or else in the .caption file; "" without one.

    One line, because trainers read no more. Bytes that are not UTF-8 are replaced.
    """
    for suffix in SIDECARS:
        file = image.with_suffix(suffix)
        if file.is_file():
            with file.open("rb") as stream:
                text = stream.read(SIDECAR_BYTES).decode("utf-8-sig", errors="replace")
            lines = [" ".join(line.split()) for line in text.splitlines()]
            return next((line for line in lines if line), "")
    return ""
