"""The host's folders: our two under models/, and paths that must not leave the allowed ones."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import folder_paths

from .errors import GuardError

CHOOSE = "(choose one)"  # what a list begins with: never the first folder or file that is found
REFERENCES, DETECTORS = "memorization_references", "copy_detection"
SUFFIXES = {REFERENCES: {".safetensors"}, DETECTORS: {".safetensors", ".pt"}}
# Hidden, empty, with an end that Windows drops, or a device of Windows: a set must be usable wherever it is copied.
NO_NAME = re.compile(r"\.|\s*$|.*[. ]$|(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
LONGEST = 180  # characters of a name with its subfolders; Windows has 260 for a whole path
MOST_FOLDERS = 5000  # in a list to choose from
CLOCK = 2 * 10**9  # nanoseconds: FAT's, the coarsest
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')

for _name, _suffixes in SUFFIXES.items():  # paths from extra_model_paths.yaml stay
    folder_paths.add_model_folder_path(_name, str(Path(folder_paths.models_dir) / _name))
    folder_paths.folder_names_and_paths[_name] = (folder_paths.get_folder_paths(_name), _suffixes)


def model_files(folder: str) -> list[str]:
    """Names of the files in one of our folders."""
    return [name for name in folder_paths.get_filename_list(folder) if not Path(name).name.startswith(".")]


def model_folder(folder: str) -> Path:
    """Where to put a file for this folder."""
    return Path(folder_paths.get_folder_paths(folder)[0])


def inside(path: Path, roots: Iterable[Path]) -> bool:
    """Whether the path lies in one of the folders, with every link followed."""
    try:
        real = path.resolve()
        return any(real.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError, RuntimeError):  # too long, not a valid name, or links in a circle
        return False


def _quoted(name: str) -> str:
    return repr(name) if len(name) <= 120 else f"{name[:100]!r}… ({len(name)} characters)"


def model_file(folder: str, name: str, node: str, source: str = "") -> Path:
    """The existing file of that name, or a GuardError that ends with `source`: where to get it."""
    if not name or name == CHOOSE:  # a widget without choices has no value
        raise GuardError(f"{node}: `file` is empty. Choose a file of {model_folder(folder)}. {source}".strip())
    roots = [Path(root) for root in folder_paths.get_folder_paths(folder)]
    allowed = [root / name for root in roots if inside(root / name, roots)]
    if not allowed:  # said before anybody looks whether the file exists
        raise GuardError(
            f"{node}: `file` {_quoted(name)} leads out of {model_folder(folder)}. Put the file itself there, "
            "or add its folder to extra_model_paths.yaml."
        )
    # Path.is_file raises an OSError for a name that is too long.
    found = [path for path in allowed if os.path.isfile(path)]  # noqa: PTH113
    if not found:
        raise GuardError(f"{node}: `file` {_quoted(name)} is not in {model_folder(folder)}. {source}".strip())
    return found[0]


def new_model_file(folder: str, name: str, node: str, suffix: str = ".safetensors") -> Path:
    """Where to write a file of that name. Creates the subfolders in the name. Raises GuardError."""
    plain = name.strip().replace("\\", "/").removesuffix(suffix)
    root = model_folder(folder)
    path = root / f"{plain}{suffix}"
    unusable = FORBIDDEN.search(plain) or any(NO_NAME.match(part) for part in plain.split("/")) or len(plain) > LONGEST
    if unusable or not inside(path, [root]):
        raise GuardError(
            f"{node}: `name` {_quoted(name)} cannot be used. Type a plain file name, optionally with subfolders: "
            f"it is written into {root}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.exists()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or "it is not a valid file name"
        raise GuardError(f"{node}: `name` {_quoted(name)} cannot be used: {why}. Choose another name.") from None
    return path


def input_root() -> Path:
    return Path(folder_paths.get_input_directory())


def input_folders() -> list[str]:
    """Relative paths of the folders under the host's input directory, without hidden ones, at most MOST_FOLDERS.

    The host asks whenever a page loads, and nothing else is served meanwhile: a folder that has not changed is not
    listed again, because it may hold many thousands of images.
    """
    found: list[str] = []
    upper = deque([""])
    while upper and len(found) < MOST_FOLDERS:
        here = upper.popleft()
        for name, is_link in _folders_in(str(input_root() / here)):
            found.append(f"{here}/{name}" if here else name)
            if not is_link:
                upper.append(found[-1])
    return sorted(found[:MOST_FOLDERS])


def _folders_in(path: str) -> list[tuple[str, bool]]:
    """Names of the folders, and which are links; an unreadable folder has none."""
    try:
        changed = Path(path).stat().st_mtime_ns
        fresh = time.time_ns() - changed < CLOCK  # it may change again within one tick of the file system's clock
        if fresh or _listed.get(path, (None, []))[0] != changed:
            with os.scandir(path) as entries:
                inside = [(e.name, e.is_symlink()) for e in entries if not e.name.startswith(".") and e.is_dir()]
            _listed[path] = changed, inside
        return _listed[path][1]
    except OSError:
        return []


_listed: dict[str, tuple[int | None, list[tuple[str, bool]]]] = {}  # path -> when it was last changed, and _folders_in


def input_folder(name: str, node: str) -> Path:
    """The folder of that name under the host's input directory. Raises GuardError."""
    root, name = input_root(), "" if name == CHOOSE else name or ""  # a widget without choices has no value
    path = root / name
    if not name.strip():
        raise GuardError(
            f"{node}: no `folder` is chosen. Choose one; to add one, put a folder of images into {root} and press R."
        )
    if "\x00" in name or not inside(path, [root]):
        raise GuardError(
            f"{node}: `folder` {_quoted(name)} leads out of {root}. Put the folder itself there; links that leave it "
            "are not followed."
        )
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises an OSError for a name that is too long
        raise GuardError(
            f"{node}: `folder` {_quoted(name)} is not in {root}. Put it there, then press R and choose it."
        )
    return path
