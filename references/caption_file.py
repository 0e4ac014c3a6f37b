"""Read the caption beside a training image, as trainers write it."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

from ..mitigation.wording import clean

SUFFIXES = (".txt", ".caption", ".json")  # the first that exists counts
JSON_KEYS = ("caption", "text")
MOST_BYTES = 65_536
MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (b"", "utf-8"),
)


class CaptionFileError(ValueError):
    """A caption file that cannot be read; the message is the reason, for a report."""


def caption_names(image: Path) -> list[str]:
    """The names that the image's caption file may have, the one that counts first: a.txt, …, a.png.txt, …"""
    return [stem + suffix for stem in (image.stem, image.name) for suffix in SUFFIXES]


def read_caption(file: Path) -> str:
    """The first line with words, because most trainers read no more; of JSON, that of its "caption" or "text".

    Raises CaptionFileError with the reason if the text cannot be known. A guess would be worse than no caption: two
    captions in an unknown encoding look the same once their letters are replaced.
    """
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise CaptionFileError("no file, or a link to a missing one")
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES)
            cut = bool(stream.read(1))
    except OSError as error:
        raise CaptionFileError(f"it cannot be opened ({error.strerror})") from None
    text = _decode(data, cut)
    if file.suffix.lower() == ".json":
        text = _from_json(text, cut)
    lines = (" ".join(clean(line).split()) for line in text.splitlines())
    return next((line for line in lines if line), "")


def _decode(data: bytes, cut: bool) -> str:
    mark, encoding = next(known for known in MARKS if data.startswith(known[0]))
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[len(mark) :], final=not cut)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # no text, or UTF-16 without its mark
        raise CaptionFileError("neither UTF-8 nor UTF-16: save it as UTF-8")
    return text


def _from_json(text: str, cut: bool) -> str:
    if cut:
        raise CaptionFileError(f"larger than {MOST_BYTES} bytes")
    try:
        held = json.loads(text)
        found = [held[key] for key in JSON_KEYS if key in held] if isinstance(held, dict) else [held]
        caption = next((value for value in found if isinstance(value, str)), "")
        caption.encode()  # an escape of half a character is no text
    except (ValueError, RecursionError):
        raise CaptionFileError("not valid JSON") from None
    return caption.replace("\0", " ")
