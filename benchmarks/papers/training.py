"""Training pictures: which one belongs to which prompt, and all of them as references for AMG Guidance."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .cases import Case, PapersError, same_text

BY_FILE, BY_INDEX, BY_CAPTION, BY_ADDRESS, BY_PLACE = "file name", "index", "caption", "address", "place"
NUMBERED = re.compile(r"^(\d+)(?:[ _.-].*)?$", re.DOTALL)  # 0001_first_image


@dataclass(frozen=True)
class Work:
    """A training picture."""

    path: Path
    name: str  # its path inside the folder, with slashes
    caption: str  # of its sidecar, or nothing


@dataclass(frozen=True)
class Matches:
    """Which works each prompt was trained with: indices of works by the prompt's row."""

    works: dict[int, list[int]]
    ways: Counter[str]  # how many prompts were matched by what

    def told(self, cases: int) -> str:
        """One line for the report."""
        if not self.works:
            return f"none of the {cases} memorized prompts has a training picture"
        by = ", ".join(f"{count} by {way}" for way, count in self.ways.most_common())
        return f"{len(self.works)} of {cases} memorized prompts have their training picture ({by})"


def match(cases: Iterable[Case], works: list[Work]) -> Matches:
    """Find the works of each prompt by the first of these that finds any.

    A file name in the prompt's record; its index, as the name of a file or of a folder of several; its text, in the
    sidecar; the last part of its address. Only if none of these finds anything for any prompt: numbered
    files by the prompt's place in its file, from 1, or from 0 if there is a number 0.
    """
    cases = list(cases)
    files, numbers, names, captions = _lookups(works)
    found: dict[int, list[int]] = {}
    ways: Counter[str] = Counter()
    for case in cases:
        tries = {
            BY_FILE: [files.get(_file_key(f)) for f in case.files],
            BY_INDEX: [names.get(_key(i)) or numbers.get(_key(i)) for i in case.indices],
            BY_CAPTION: [captions.get(same_text(case.text))],
            BY_ADDRESS: [names.get(_key(a)) for a in case.addresses],
        }
        for way, hits in tries.items():
            if hit := next((h for h in hits if h), None):
                found[case.row] = hit
                ways[way] += 1
                break
    if not found:
        first = 0 if "0" in numbers else 1
        found = {c.row: numbers[str(c.row + first)] for c in cases if str(c.row + first) in numbers}
        ways[BY_PLACE] += len(found)
    return Matches(found, ways)


def _lookups(works: list[Work]) -> tuple[dict[str, list[int]], ...]:
    """Works by file name, by the number it begins with (or their folder's), by name or folder, by caption."""
    files: dict[str, list[int]] = {}
    numbers: dict[str, list[int]] = {}
    names: dict[str, list[int]] = {}
    captions: dict[str, list[int]] = {}
    for i, work in enumerate(works):
        inside = Path(work.name)
        files.setdefault(_file_key(work.name), []).append(i)
        keys = [_key(inside.stem), *([_key(inside.parent.name)] if inside.parent.name else [])]
        for key in dict.fromkeys(keys):
            names.setdefault(key, []).append(i)
        begins = NUMBERED.match(inside.stem)
        of_folder = [inside.parent.name] if inside.parent.name.isdigit() else []
        for number in dict.fromkeys(map(_key, [*([begins[1]] if begins else []), *of_folder])):
            numbers.setdefault(number, []).append(i)
        if work.caption:
            captions.setdefault(same_text(work.caption), []).append(i)
    return files, numbers, names, captions


def _file_key(name: str) -> str:
    return Path(name.replace("\\", "/")).name.casefold()


def _key(name: str) -> str:
    """Names are the same whatever their case, and numbers whatever their leading zeros."""
    plain = name.strip().casefold()
    return (plain.lstrip("0") or "0") if plain.isdigit() else plain


def works_in(folder: Path, listed: Iterable[Path], caption_of) -> list[Work]:
    """The pictures `listed` of a folder, with their sidecars' captions. Raises PapersError if there are none."""
    works = [Work(path, path.relative_to(folder).as_posix(), caption_of(path)) for path in listed]
    if not works:
        raise PapersError(f"{folder} holds no pictures (png, jpg or webp).")
    return works


def digest(works: list[Work], captions: dict[int, str]) -> str:
    """Tells sets of works with their captions apart."""
    lines = [f"{w.name} {w.path.stat().st_size} {captions.get(i, '')}\n" for i, w in enumerate(works)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def lay_out(works: list[Work], captions: dict[int, str], inputs: Path) -> str:
    """Copy works with captions (by index) into a folder under the host's input directory; return its name.

    References from Folder reads only there. The name tells the contents, so that a second run copies nothing.
    """
    name = f"papers-{digest(works, captions)}"
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
