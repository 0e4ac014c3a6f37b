"""Read a folder of training images with caption files, as trainers lay it out, into references."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..adapter.errors import GuardError
from ..adapter.folders import input_root, inside
from ..adapter.memory import is_out_of_memory
from ..adapter.sampling import check_interrupted, progress
from ..mitigation.wording import clean
from .builder import ReferenceSetBuilder
from .caption_file import CaptionFileError, caption_names, read_caption
from .image_file import OTHER_SUFFIXES, SUFFIXES, DamagedImageError, ImageFileError, read_image

Reasons = list[tuple[str, str]]  # (name, reason) of files

# Thumbnails and waste that Synology, QNAP, Windows and macOS keep beside the images; other such folders are hidden.
FOREIGN_FOLDERS = {"@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx"}
NO_IMAGES = {"-masklabel": "a mask of OneTrainer", "-condlabel": "a conditioning image of OneTrainer"}


@dataclass(frozen=True)
class TrainingFolder:
    """What a folder holds, sorted by name; nothing has been opened yet."""

    root: Path
    images: list[Path] = field(default_factory=list)  # of any format, without hidden ones
    captions: dict[Path, Path] = field(default_factory=dict)  # image -> its caption file
    passed_over: Reasons = field(default_factory=list)  # images that no trainer reads

    def name(self, file: Path) -> str:
        return clean(file.relative_to(self.root).as_posix())


def list_folder(root: Path, subfolders: bool) -> TrainingFolder:
    """The images and their caption files. Letter case does not count in suffixes and in names of caption files."""
    folder = TrainingFolder(root)

    def closed(error: OSError) -> None:
        where = Path(error.filename or root)
        folder.passed_over.append((folder.name(where), f"the folder cannot be opened ({error.strerror})"))

    for where, inner, names in os.walk(root, onerror=closed):
        inner[:] = [name for name in inner if subfolders and not name.startswith(".")]
        foreign = next((p for p in Path(where).relative_to(root).parts if p.casefold() in FOREIGN_FOLDERS), "")
        by_name = {name.casefold(): name for name in sorted(names)}
        for name in names:
            if name.startswith(".") or not name.lower().endswith(SUFFIXES + OTHER_SUFFIXES):
                continue
            path = Path(where, name)
            reason = f"{foreign} holds thumbnails or deleted files" if foreign else _no_training_image(path.stem)
            if reason:
                folder.passed_over.append((folder.name(path), reason))
                continue
            folder.images.append(path)
            found = [by_name[n.casefold()] for n in caption_names(path) if n.casefold() in by_name]
            if found:
                folder.captions[path] = Path(where, found[0])
    folder.images.sort()
    folder.passed_over.sort()
    return folder


def _no_training_image(stem: str) -> str:
    """Why no trainer reads it as an image, or ""."""
    return next((reason for ending, reason in NO_IMAGES.items() if stem.lower().endswith(ending)), "")


def fingerprint(folder: TrainingFolder) -> str:
    """A hash that changes when an image or a caption file is added, removed or written again."""
    digest = hashlib.sha256()
    for file in (*folder.images, *folder.captions.values()):
        if os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a folder cannot be entered
            facts = file.stat()
            line = f"{file} {facts.st_mtime_ns} {facts.st_size}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def collect(folder: TrainingFolder, builder: ReferenceSetBuilder, side: int) -> tuple[Reasons, list[str]]:
    """Add every readable image; return the files that were left out, and the damaged images that were read.

    Raises GuardError if no image is readable.
    """
    left_out: Reasons = []
    damaged: list[str] = []
    bar = progress(len(folder.images))
    for i, path in enumerate(folder.images):
        check_interrupted()
        try:
            builder.add_image(_image(folder, path, side, damaged), folder.name(path), _caption(folder, path, left_out))
        except ImageFileError as error:
            left_out.append((folder.name(path), str(error)))
        except Exception as error:  # it costs this image only
            if not is_out_of_memory(error):
                raise
            left_out.append((folder.name(path), "too large for memory"))
        bar.update_absolute(i + 1)
    if not builder.rows:
        example = f", e.g. {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise GuardError(
            f"{builder.node}: none of the {len(folder.images)} files in `folder` can be read{example}. Save them as "
            "png or jpg."
        )
    return left_out + folder.passed_over, damaged


def _image(folder: TrainingFolder, path: Path, side: int, damaged: list[str]) -> Tensor:
    if not inside(path, [input_root()]):
        raise ImageFileError("a link that leads out of ComfyUI's input directory")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ImageFileError(f"{path.suffix.lower()} is not supported: save it as png, jpg or webp")
    try:
        return read_image(path, side)
    except DamagedImageError:
        image = read_image(path, side, damaged=True)
        damaged.append(folder.name(path))
        return image


def _caption(folder: TrainingFolder, path: Path, left_out: Reasons) -> str:
    file = folder.captions.get(path)
    if file is None:
        return ""
    try:
        if not inside(file, [input_root()]):
            raise CaptionFileError("a link that leads out of ComfyUI's input directory")
        return read_caption(file)
    except CaptionFileError as error:
        left_out.append((folder.name(file), str(error)))
        return ""
