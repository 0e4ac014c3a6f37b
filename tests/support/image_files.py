"""A folder of training images as artists really have them: most good, some strange, some broken."""

import os
import random
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = 185
STRANGE = {  # name -> what read_image must make of its middle: RGB in 0 … 1
    "grey16.png": (0.5, 0.5, 0.5),
    "cmyk.jpg": (1.0, 0.0, 0.0),
    "animated.webp": (1.0, 0.0, 0.0),
    "animated.png": (0.0, 1.0, 0.0),
    "huge.png": (0.4, 0.4, 0.4),
    "turned.jpg": (0.0, 0.0, 1.0),
    "transparent.png": (1.0, 1.0, 1.0),
}
BROKEN = {  # name -> a word of the reason
    "zero.png": "empty file",
    "cut.webp": "corrupt",
    "text.jpg": "not a PNG, JPEG or WebP",
    "gif.png": "not a PNG, JPEG or WebP",
    "bomb.png": "pixels",
}
DAMAGED = ("cut.jpg", "cut.png", "wide gamut.png")  # which the host's Load Image opens


def scene(rng: random.Random) -> Image.Image:
    """An image that is like no other: a coarse random pattern, in a random aspect."""
    low = np.array([[[rng.random() for _ in range(3)] for _ in range(4)] for _ in range(4)]) * 255
    size = rng.choice([(96, 96), (128, 96), (80, 144)])
    return Image.fromarray(low.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def make_folder(folder: Path, good: int = GOOD) -> None:
    """`good` ordinary images with captions (png, jpg, webp), the strange and the broken ones."""
    rng = random.Random(5)
    folder.mkdir(parents=True)
    for i in range(good):
        path = folder / f"{i:03}.{('png', 'jpg', 'webp')[i % 3]}"
        scene(rng).save(path, quality=90)
        path.with_suffix(".caption" if i % 10 == 9 else ".txt").write_text(f"image number {i}\nsecond line")
    make_strange(folder)
    make_broken(folder)


def make_strange(folder: Path) -> None:
    ramp = np.full((64, 64), 32767, dtype=np.uint16)
    Image.fromarray(ramp).save(folder / "grey16.png")
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(folder / "cmyk.jpg", quality=95)
    red, green, blue = (Image.new("RGB", (64, 64), c) for c in ("red", "lime", "blue"))
    red.save(folder / "animated.webp", save_all=True, append_images=[green, blue], lossless=True)
    green.save(folder / "animated.png", save_all=True, append_images=[blue])
    Image.new("L", (12_000, 12_000), 102).save(folder / "huge.png", compress_level=1)
    turned = Image.new("RGB", (100, 60), "blue")
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(folder / "turned.jpg", exif=exif, quality=95)
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(folder / "transparent.png")


def make_broken(folder: Path) -> None:
    (folder / "zero.png").write_bytes(b"")
    for name in ("cut.jpg", "cut.png", "cut.webp"):
        scene(random.Random(6)).save(folder / name)
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
    scene(random.Random(7)).save(folder / "wide gamut.png", icc_profile=bytes(3_000_000))
    (folder / "text.jpg").write_text("not an image at all, whatever the name says")
    scene(random.Random(8)).save(folder / "gif.png", "GIF")
    Image.new("1", (15_000, 15_000)).save(folder / "bomb.png", compress_level=1)
