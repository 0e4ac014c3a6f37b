"""Build sprites.webp, the clip art of the lab's scenes, from the Debian package openclipart-png 0.18.

    apt-get download openclipart-png && dpkg-deb -x openclipart-png_*.deb UNPACKED
    .host/python -m lab.sprites UNPACKED

All drawings are dedicated to the public domain. They are stored with premultiplied alpha, so that they can be turned
and scaled without seams, and with 64 levels of each colour, which take a quarter less space.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

LAB = Path(__file__).parent
FILE = LAB / "sprites.webp"
KINDS: dict[str, list[str]] = json.loads((LAB / "sprites.json").read_text(encoding="utf-8"))
SIDE, INNER, ACROSS = 208, 192, 14  # pixels of a tile, of the drawing in it, tiles in a row
LEVEL = 4  # colours are multiples of it, or as light as their alpha allows
FAINT = 16  # the alpha up to which a pixel is margin


def tile(file: Path) -> Image.Image:
    """The drawing without its margin, as large as fits, premultiplied (RGBa stored as RGBA)."""
    image = Image.open(file).convert("RGBA")
    # What is almost transparent does not count: some files have a faint shadow far from the drawing.
    image = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > FAINT)).getbbox())
    image.thumbnail((256, 256), Image.Resampling.LANCZOS)
    scale = INNER / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(float)
    pixels[..., :3] *= pixels[..., 3:] / 255
    pixels[..., :3] = np.minimum(LEVEL * np.round(pixels[..., :3] / LEVEL), pixels[..., 3:])
    made = Image.new("RGBA", (SIDE, SIDE))
    made.paste(Image.fromarray(pixels.round().astype(np.uint8), "RGBA"), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return made


def tiles() -> np.ndarray:
    """(sprites, SIDE, SIDE, 4) uint8, in the order of KINDS."""
    sheet = np.asarray(Image.open(FILE))
    rows = sheet.reshape(-1, SIDE, ACROSS, SIDE, 4).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 4)
    return rows[: sum(map(len, KINDS.values()))]


def main() -> None:
    files = [Path(sys.argv[1]) / "usr/share/openclipart/png" / name for names in KINDS.values() for name in names]
    sheet = Image.new("RGBA", (ACROSS * SIDE, -(-len(files) // ACROSS) * SIDE))
    for i, file in enumerate(files):
        sheet.paste(tile(file), (i % ACROSS * SIDE, i // ACROSS * SIDE))
    # exact: WebP would else forget the colours of transparent pixels.
    sheet.save(FILE, lossless=True, quality=100, method=6, exact=True)
    print(f"{FILE.name}: {len(files)} drawings of {len(KINDS)} kinds, {FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
