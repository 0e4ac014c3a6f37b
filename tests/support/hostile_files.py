"""Sets, images, captions and detectors that nobody should trust, and a folder of images as artists really have it."""

import io
import json
import math
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.torch import save

from support.copy_detectors import random_sscd

DTYPES = {"F16": 2, "F32": 4, "F64": 8, "BF16": 2, "U8": 1, "I8": 1, "I64": 8, "BOOL": 1}
NUMBERS = ["-1", "0", "1", "NaN", "1e999", "9" * 400]
JSON = ["[]", "{", "null", "[4,8,8]", "[[1]]", '["a"]', "[1e999]", "[-4,-8,8]", "[256]"]
ODD_TEXT = st.sampled_from(["", "x", "latent", "nL2", "descriptor", *NUMBERS, *JSON])
ODD_LINES = [b"", b"[]", b"{}", b"null", b"\xff\xfe", b'["a"]', b'["a", 1]', b"[" * 30000, b'"x"', b'["\\ud800"]']
ODD_LINES += [b'["<script>alert(1)</script>"]', b'["' + b"x" * 100000 + b'"]']
MODES = {"PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], "JPEG": ["L", "RGB", "CMYK"], "WEBP": ["RGB", "RGBA"]}
KINDS = [(kind, mode) for kind in MODES for mode in MODES[kind]] + [("GIF", "P"), ("TIFF", "RGB"), ("PPM", "L")]
COLOUR = {"1": (0, 1), "L": (0, 8), "P": (3, 8), "LA": (4, 8), "RGB": (2, 8), "RGBA": (6, 8), "I;16": (0, 16)}
EXIF = [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", b"\xff" * 60]
SIZES = [0, 1, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1]
SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".PNG", ".gif", ".tif"]


def pack(facts: Any, tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file; `tensors`: name -> (dtype, shape, data)."""
    header: dict[str, Any] = {} if facts is None else {"__metadata__": facts}
    body = b""
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + body


def parts(content: bytes) -> tuple[dict[str, str], dict[str, tuple[str, list[int], bytes]]]:
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    facts = header.pop("__metadata__")
    return facts, {n: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for n, t in header.items()}


def filled(kind: str, shape: list[int], byte: bytes) -> tuple[str, list[int], bytes]:
    return kind, shape, byte * (DTYPES[kind] * math.prod(shape))


@st.composite
def reference_files(draw: Callable, whole: Path) -> bytes:
    """The file `whole` with damaged bytes, or a well-formed one with one to three odd parts."""
    content = whole.read_bytes()
    kind = draw(st.sampled_from(["bytes", "header", "parts", "parts", "parts", "parts"]))
    if kind == "bytes":
        at, byte = draw(st.integers(0, len(content) - 1)), draw(st.binary(min_size=1, max_size=9))
        ways = [byte, content[:at], content[:at] + byte[:1] + content[at + 1 :], content + byte]
        return draw(st.sampled_from(ways))
    if kind == "header":
        sizes = [0, 1, 8, len(content), 100_000_001, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
        return struct.pack("<Q", draw(st.sampled_from(sizes))) + content[8:]
    facts, tensors = parts(content)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            name = draw(st.sampled_from([*sorted(facts), "more"]))
            facts[name] = draw(ODD_TEXT)
            if draw(st.integers(0, 4)) == 0:
                del facts[name]
        else:
            name = draw(st.sampled_from(["features", "captions", "names", "thumbnails", "more"]))
            tensors[name] = draw(_tensor(name))
            if draw(st.integers(0, 4)) == 0:
                del tensors[name]
    return pack(facts, tensors)


@st.composite
def _tensor(draw: Callable, name: str) -> tuple[str, list[int], bytes]:
    if name in ("captions", "names") and draw(st.booleans()):
        data = draw(st.sampled_from(ODD_LINES))
        return "U8", [len(data)], data
    whole = {"thumbnails": [[1, 16, 16, 3], [1, 16, 16, 1], [1, 0, 16, 3], [1, 1, 1, 3]], "features": [[1, 256]]}
    shapes = [*whole.get(name, []) * 3, [], [0], [1], [2, 256], [1, 257], [0, 256], [1, 4, 8, 8], [1, 0]]
    usual = {"thumbnails": "U8", "features": "F16"}.get(name, "U8")
    shape = draw(st.sampled_from(shapes))
    kind = draw(st.sampled_from([usual, usual, usual, *sorted(DTYPES)]))
    return filled(kind, shape, draw(st.sampled_from([b"\x00", b"\xff", b"\x3c", b"\x7c", b"\x7e"])))


@cache
def image(kind: str, mode: str, extra: int) -> bytes:
    """A file that works, with what that kind allows: EXIF, a profile, text, transparency, frames, scans."""
    made, out = Image.new(mode, (33, 20), 1), io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", 'tiff:Orientation="6"', zip=True)
    more = {
        "PNG": [
            {},
            {"pnginfo": info},
            {"transparency": (1, 1, 1) if mode == "RGB" else 1},
            {"save_all": True, "append_images": [made]},
        ],
        "JPEG": [{}, {"progressive": True}, {"exif": EXIF[2]}, {"icc_profile": bytes(70_000)}],
        "WEBP": [{}, {"lossless": True}, {"exif": EXIF[2]}, {"save_all": True, "append_images": [made]}],
    }.get(kind, [{}] * 4)[extra]
    made.save(out, kind, **({} if mode in ("LA", "RGBA", "I;16") and "transparency" in more else more))
    return out.getvalue()


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(png):
        size = struct.unpack(">I", png[at : at + 4])[0]
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += size + 12
    return found


def png(parts: list[tuple[bytes, bytes]]) -> bytes:
    """With the right sums: else a reader would look no further."""
    sums = [(name, data, zlib.crc32(name + data)) for name, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", c) for n, d, c in sums)


@st.composite
def bent(draw: Callable, content: bytes) -> bytes:
    """The file with one to four bytes or numbers changed, cut, doubled, or with another's end."""
    for _ in range(draw(st.integers(1, 4))):
        at, other = draw(st.integers(0, max(len(content) - 1, 0))), draw(st.binary(min_size=1, max_size=9))
        number = struct.pack(draw(st.sampled_from(["<I", ">I", "<H", ">H"])), draw(st.integers(0, 65_535)))
        large = struct.pack(draw(st.sampled_from(["<I", ">I"])), draw(st.sampled_from(SIZES)))
        ways = [content[:at], content + other, content[:at] + content[at // 2 :], content[:at] + other + content[at:]]
        ways += [content[:at] + new + content[at + len(new) :] for new in (other, number, large) for _ in range(2)]
        content = draw(st.sampled_from(ways))
    return content


@st.composite
def images(draw: Callable) -> tuple[str, bytes]:
    kind, mode = draw(st.sampled_from(KINDS))
    content = image(kind, mode, draw(st.integers(0, 3)))
    if kind == "PNG" and draw(st.booleans()):
        held = chunks(content)
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, len(held) - 1))
            name, data = held[at]
            bomb = zlib.compress(bytes(draw(st.sampled_from([10, 10**6, 10**8]))))
            text, profile = b"a\0\0" + bomb, b"a\0\0" + bomb
            odd = [(b"zTXt", text), (b"iCCP", profile), (b"IDAT", bomb), (b"eXIf", draw(st.sampled_from(EXIF)))]
            odd += [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb), (b"acTL", struct.pack(">II", 2**31 - 1, 0))]
            odd += [(b"PLTE", b"\1" * 7), (b"tRNS", b""), (b"tRNS", b"\0" * 600), (b"fcTL", bytes(26))]
            sizes = st.sampled_from([0, 1, 20, 33, 400, 65_536, 2**31 - 1])
            odd += [(b"IHDR", struct.pack(">II", draw(sizes), draw(sizes)) + data[8:])] * 3
            odd += [(name, draw(bent(data))), (draw(st.sampled_from([b"IDAT", b"IEND", b"tRNS", b"PLTE"])), data)]
            held[at : at + draw(st.integers(0, 1))] = [draw(st.sampled_from(odd))]
        content = png(held)
    else:
        content = draw(bent(content))
    return draw(st.sampled_from(SUFFIXES)), content


@st.composite
def captions(draw: Callable) -> tuple[str, bytes]:
    deep = b'{"caption":' * 3000 + b"1" + b"}" * 3000
    odd = [*ODD_LINES, deep, b"[" * 70_000, b"\x1b]0;x\x07", b"a\n" * 200_000, b"x" * 10**6, b"\xe2\x80\xae" * 30_000]
    odd += [b'{"caption": null}', b'{"text": "\\u0000\\ud83d"}', b'{"caption": 1e999}', b"9" * 5000, b"((((a:1e9"]
    text = st.text(max_size=200)
    written = st.builds(lambda t, code: t.encode(code, "replace"), text, st.sampled_from(["utf-8", "utf-16", "utf-32"]))
    said = st.builds(lambda t: json.dumps({"caption": t}).encode(), text)
    return draw(st.sampled_from([".txt", ".caption", ".json"])), draw(
        st.one_of(
            st.sampled_from(odd), written, written.flatmap(bent), said, said.flatmap(bent), st.binary(max_size=300)
        )
    )


@cache
def detector(kind: str) -> bytes:
    weights = {name: value.clone() for name, value in random_sscd().state_dict().items()}
    out = io.BytesIO()
    torch.save(weights, out)
    return save(weights, {"format": "pt"}) if kind == ".safetensors" else out.getvalue()


@st.composite
def detectors(draw: Callable) -> tuple[str, bytes]:
    """An ending and a file: bytes, headers, names and shapes, or what the pickle says."""
    kind = draw(st.sampled_from([".safetensors", ".pt"]))
    content = detector(kind)
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([".safetensors", ".pt"])), draw(bent(content))
    if kind == ".safetensors":
        facts, tensors = parts(content)
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from(["fc.weight", "layer1.0.conv1.weight", "more", *sorted(tensors)]))
            shape = draw(st.sampled_from([[], [0], [1], [64, 0], [8, 8, 1, 1], [4096, 1], [4097, 0], [2**40, 0]]))
            kinds, fills = st.sampled_from(sorted(DTYPES)), st.sampled_from([b"\0", b"\xff", b"\x7f"])
            tensors[name] = filled(draw(kinds), shape, draw(fills))
            if draw(st.integers(0, 3)) == 0:
                del tensors[name]
        return kind, pack(facts, tensors)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = draw(bent(data))
            if draw(st.integers(0, 200)):
                new.writestr(entry.filename, data)
    return kind, out.getvalue()


def giant(path: Path, mode: str, width: int, height: int, exif: bytes = b"") -> None:
    """A PNG as large as is allowed, of one colour, written row by row."""
    colour, bits = COLOUR[mode]
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    squeeze = zlib.compressobj(1)
    row, data = b"\0" + bytes((width * channels * bits + 7) // 8), bytearray()
    for _ in range(height):
        data += squeeze.compress(row)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    more = [(b"PLTE", bytes(range(30)))] if mode == "P" else []
    more += [(b"eXIf", exif)] if exif else []
    path.write_bytes(png([(b"IHDR", head), *more, (b"IDAT", bytes(data + squeeze.flush())), (b"IEND", b"")]))


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
