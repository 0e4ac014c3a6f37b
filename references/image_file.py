"""Read PNG, JPEG and WebP files as tensors with Pillow. All other formats are refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow tries no other decoder, whatever the file's name says
OTHER_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".jfif")  # named when left out
MOST_PIXELS = 180_000_000  # a 12,000 × 12,000 image has 144 million
LONGEST_SIDE = 65_535  # as in a JPEG; a PNG of one row could have 180 million columns
MOST_KEPT = 24_000_000  # pixels after reading, unless images of a larger side are asked for: as numbers, 288 MB
BAND = 128  # rows at a time, about
REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK")


class ImageFileError(ValueError):
    """A file that cannot be read as an image; the message is the reason, for a report."""


class DamagedImageError(ImageFileError):
    """A file of which a part may be readable, with `damaged=True`."""


def read_image(path: Path, side: int, damaged: bool = False) -> Tensor:
    """(H, W, 3) in [0, 1]: upright by its EXIF, transparency on white, the first frame of an animation.

    16-bit grey keeps its range. An image whose sides are both above 4 · side, or of more than MOST_KEPT pixels, is
    reduced while it is read, to save memory. `damaged` reads all that the host's Load Image does of a truncated file,
    or of one with a very large colour profile. Raises ImageFileError with the reason if the file is empty, corrupt, too
    large or in another format.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageFileError("empty file")
        with warnings.catch_warnings(), _damage(ignored=damaged):
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS decides
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST_SIDE:
                    raise ImageFileError(f"{image.width} × {image.height} pixels are too many")
                return _pixels(image, side)
    except ImageFileError:
        raise
    except Image.DecompressionBombError:
        raise ImageFileError("too many pixels") from None
    except Image.UnidentifiedImageError:
        raise DamagedImageError("not a PNG, JPEG or WebP file, whatever its name says") from None
    except FileNotFoundError:
        raise ImageFileError("removed, or a link to a missing file") from None
    except MemoryError:
        raise ImageFileError("too large for memory") from None
    except Exception as error:  # decoders raise almost anything on a corrupt file, which must not stop the others
        raise DamagedImageError(f"corrupt ({error or type(error).__name__})") from None


@contextmanager
def _damage(ignored: bool) -> Iterator[None]:
    """Pillow knows only a switch for the whole process: put it back, as the host does."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = before or ignored
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Smaller by a whole factor, before anything makes more bytes of each pixel: band by band, for the same reason."""
    opaque = image.mode in ("1", "P") and "transparency" not in image.info
    size = (-(-image.width // factor), -(-image.height // factor))
    if image.mode not in REDUCIBLE and not opaque:  # Pillow averages no 16-bit grey
        return image.resize(size, Image.Resampling.NEAREST)
    mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
    small, rows = Image.new(mode, size), max(BAND // factor, 1) * factor
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(band.convert(mode).reduce(factor), (0, top // factor))
    small.info = dict(image.info)
    return small


def _pixels(image: Image.Image, side: int) -> Tensor:
    image.draft("RGB", (2 * side, 2 * side))  # JPEG only: decoded at a half, a quarter or an eighth of its size
    image.load()
    too_many = image.width * image.height / max(MOST_KEPT, 4 * side * side)
    factor = max(min(image.size) // (2 * side), math.ceil(math.sqrt(too_many)))
    upright: Image.Image = image
    if factor > 1:
        upright = _reduced(image, factor)
        image.close()  # it may be as large as MOST_PIXELS, and what follows needs memory of its own
    ImageOps.exif_transpose(upright, in_place=True)
    if upright.mode.startswith(("I", "F")):  # 16-bit grey: Pillow's own conversion would clip it to white
        grey = torch.from_numpy(np.asarray(upright).astype(np.float32) / 65535)
        return grey.clamp(0, 1).unsqueeze(-1).expand(-1, -1, 3).contiguous()
    if upright.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return torch.from_numpy(np.array(upright.convert("RGB"))).float().div_(255)
