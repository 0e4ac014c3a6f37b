"""Read a folder of training images with caption files, as trainers lay it out, into references."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..adapter.errors import GuardError
from ..adapter.folders import input_root, inside
from ..adapter.sampling import progress
from .builder import ReferenceSetBuilder
from .image_file import OTHER_SUFFIXES, SIDECARS, SUFFIXES, ImageFileError, read_caption, read_image


def images_in(folder: Path, subfolders: bool) -> list[Path]:
    """Image files of any kind, sorted by name, without hidden ones."""
    wanted = SUFFIXES + OTHER_SUFFIXES
    return sorted(
        path
        for path in (folder.rglob("*") if subfolders else folder.glob("*"))
        if path.suffix.lower() in wanted
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def fingerprint(files: Sequence[Path]) -> str:
    """A hash that changes when an image or a caption file is added, removed or written again."""
    digest = hashlib.sha256()
    for path in files:
        for file in (path, *(path.with_suffix(suffix) for suffix in SIDECARS)):
            if file.is_file():
                facts = file.stat()
                line = f"{file} {facts.st_mtime_ns} {facts.st_size}\n"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def collect(folder: Path, files: Sequence[Path], builder: ReferenceSetBuilder, side: int) -> list[tuple[str, str]]:
    """Add every readable image; return (name, reason) of the others. Raises GuardError if none is readable."""
    left_out: list[tuple[str, str]] = []
    bar = progress(len(files))
    for i, path in enumerate(files):
        name = path.relative_to(folder).as_posix()
        try:
            builder.add_image(_image(path, side), name, _caption(path))
        except ImageFileError as error:
            left_out.append((name, str(error)))
        bar.update_absolute(i + 1)
    if not builder.rows:
        example = f", e.g. {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise GuardError(
            f"{builder.node}: none of the {len(files)} files in `folder` can be read{example}. Save them as png or jpg."
        )
    return left_out


def _image(path: Path, side: int) -> Tensor:
    if not inside(path, [input_root()]):
        raise ImageFileError("a link that leads out of ComfyUI's input directory")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ImageFileError(f"{path.suffix.lower()} is not supported: save it as png, jpg or webp")
    return read_image(path, side)


def _caption(path: Path) -> str:
    return read_caption(path) if all(inside(path.with_suffix(s), [input_root()]) for s in SIDECARS) else ""
