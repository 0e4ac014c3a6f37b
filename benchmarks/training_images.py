"""Training images: which one belongs to which prompt, and all of them as references for AMG Guidance."""

import hashlib
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .cases import BenchmarkError, Case, same_text
from .checkpoint import Checkpoint

NUMBERED = re.compile(r"^(\d+)(?:[ _.-].*)?$", re.DOTALL)  # 0001_first_image


@dataclass(frozen=True)
class Work:
    path: Path
    name: str  # its path inside the folder, with slashes
    caption: str  # from its caption file, or empty


@dataclass(frozen=True)
class Matches:
    """The training images of each prompt: their indices, by the prompt's row."""

    works: dict[int, list[int]]
    ways: Counter[str]  # how many prompts were matched by what

    def told(self, cases: int) -> str:
        if not self.works:
            return f"none of the {cases} memorized prompts has a training image"
        by = ", ".join(f"{count} by {way}" for way, count in self.ways.most_common())
        return f"{len(self.works)} of {cases} memorized prompts have their training image ({by})"


def match(cases: Iterable[Case], works: list[Work]) -> Matches:
    """Find the training images of each prompt by the first of these that finds any.

    A file name in its record; its index, as a name of a file or folder; its text, in the caption file; the last part of
    its address. If none of these finds anything for any prompt: numbered files by the prompt's position in its file.
    """
    cases = list(cases)
    files, numbers, names, captions = _lookups(works)
    found: dict[int, list[int]] = {}
    ways: Counter[str] = Counter()
    for case in cases:
        tries = {
            "file name": [files.get(_file_key(f)) for f in case.files],
            "index": [names.get(_key(i)) or numbers.get(_key(i)) for i in case.indices],
            "caption": [captions.get(same_text(case.text))],
            "address": [names.get(_key(a)) for a in case.addresses],
        }
        for way, hits in tries.items():
            if hit := next((h for h in hits if h), None):
                found[case.row] = hit
                ways[way] += 1
                break
    if not found:
        first = 0 if "0" in numbers else 1
        found = {c.row: numbers[str(c.row + first)] for c in cases if str(c.row + first) in numbers}
        ways["position"] += len(found)
    return Matches(found, ways)


def _lookups(works: list[Work]) -> tuple[Mapping[str, list[int]], ...]:
    files, numbers, names, captions = (defaultdict(list) for _ in range(4))
    for i, work in enumerate(works):
        inside = Path(work.name)
        files[_file_key(work.name)].append(i)
        keys = [_key(inside.stem), *([_key(inside.parent.name)] if inside.parent.name else [])]
        for key in dict.fromkeys(keys):
            names[key].append(i)
        begins = NUMBERED.match(inside.stem)
        of_folder = [inside.parent.name] if inside.parent.name.isdigit() else []
        for number in dict.fromkeys(map(_key, [*([begins[1]] if begins else []), *of_folder])):
            numbers[number].append(i)
        if work.caption:
            captions[same_text(work.caption)].append(i)
    return files, numbers, names, captions


def _file_key(name: str) -> str:
    return Path(name.replace("\\", "/")).name.casefold()


def _key(name: str) -> str:
    """Names are compared without case, numbers without leading zeros."""
    plain = name.strip().casefold()
    return (plain.lstrip("0") or "0") if plain.isdigit() else plain


def works_in(folder: Path, checkpoint: Checkpoint) -> list[Work]:
    """The images of a folder with their captions, found and read as References from Folder does it."""
    suffixes = checkpoint.module("references.image_file").SUFFIXES
    read = checkpoint.module("references.caption_file").read_caption
    listed = checkpoint.module("references.image_folder").list_folder(folder, subfolders=True)
    try:
        works = [
            Work(path, listed.name(path), read(listed.captions[path]) if path in listed.captions else "")
            for path in listed.images
            if path.suffix.lower() in suffixes
        ]
    except ValueError as error:
        raise BenchmarkError(f"{folder}: a caption file cannot be read: {error}.") from None
    if not works:
        raise BenchmarkError(f"{folder} holds no images (png, jpg or webp).")
    return works


def pixels(works: Iterable[Work], checkpoint: Checkpoint, side: int) -> list[Tensor]:
    """The images (H, W, 3) in [0, 1]; larger ones are scaled down to `side`."""
    read = checkpoint.module("references.image_file").read_image
    return [read(work.path, side) for work in works]


def digest(works: list[Work], captions: dict[int, str]) -> str:
    lines = [f"{w.name} {w.path.stat().st_size} {captions.get(i, '')}\n" for i, w in enumerate(works)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def copy_to_input(works: list[Work], captions: dict[int, str], checkpoint: Checkpoint) -> str:
    """Copy images with captions (by index) into a folder of the host's input directory; return its name.

    References from Folder reads only there. The name depends on the contents, so a second run copies nothing.
    """
    inputs = Path(checkpoint.module("adapter.folders").input_root())
    name = f"training-images-{digest(works, captions)}"
    made, part = inputs / name, inputs / f".{name}.part"
    if not made.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for i, work in enumerate(works):
            file = part / f"{i:05d}{work.path.suffix.lower()}"
            shutil.copyfile(work.path, file)
            file.with_suffix(".txt").write_text(captions.get(i, ""), encoding="utf-8")
        part.rename(made)
    return name
