"""Read a folder of training images with caption files, as trainers lay it out, into references."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..adapter.errors import GuardError
from ..adapter.folders import REFERENCES, input_root, inside, model_folder
from ..adapter.long_work import give_way, interruptible, progress
from ..adapter.memory import is_out_of_memory
from ..mitigation.wording import clean, counted
from .builder import ReferenceSetBuilder
from .caption_file import CaptionFileError, caption_names, read_caption
from .image_file import OTHER_SUFFIXES, SUFFIXES, DamagedImageError, ImageFileError, read_image
from .unfinished import Unfinished

log = logging.getLogger("memorization_guard")
PAUSE = 0.1  # seconds between two messages of progress, which the server sends to the page: it has more to do
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
            give_way()
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
    folder.images.sort(key=lambda path: str(path).replace(os.sep, "\0"))  # as paths, in half the time
    folder.passed_over.sort()
    return folder


def _no_training_image(stem: str) -> str:
    """Why no trainer reads it as an image, or ""."""
    return next((reason for ending, reason in NO_IMAGES.items() if stem.lower().endswith(ending)), "")


def fingerprint(folder: TrainingFolder) -> str:
    """A hash that changes when an image or a caption file is added, removed or written again."""
    digest = hashlib.sha256()
    for file in (*folder.images, *folder.captions.values()):
        give_way()
        if os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a folder cannot be entered
            facts = file.stat()
            line = f"{file} {facts.st_mtime_ns} {facts.st_size}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


@dataclass
class Collected:
    """What came of a folder beside the references."""

    kept: Unfinished  # to be removed when the set is finished
    left_out: Reasons = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # images of which a part was read
    resumed: int = 0  # images that a run which was stopped had read


def collect(
    folder: TrainingFolder, builder: ReferenceSetBuilder, side: int, tell: Callable[[str], object] = log.info
) -> Collected:
    """Add every readable image. A run that is stopped keeps what it has made, and the next one goes on from there.

    `tell`: is given a sentence about it. Raises GuardError if no image is readable.
    """
    found = Collected(Unfinished(model_folder(REFERENCES), f"{builder.settings} {side} {folder.root}"))
    bar, told = progress(len(folder.images)), 0.0
    try:
        for i, path in enumerate(interruptible(folder.images)):
            _add(folder, path, builder, side, found)
            if (now := time.monotonic()) - told > PAUSE or i + 1 == len(folder.images):
                bar.update_absolute(i + 1)
                told = now
    except BaseException:
        if found.kept.stop():
            done = f"Stopped after {len(builder.rows)} of {counted(len(folder.images), 'image')}."
            tell(f"{done} They are kept for 30 days: run it again, and it goes on from there.")
        raise
    if not builder.rows:
        example = f", e.g. {found.left_out[0][0]}: {found.left_out[0][1]}" if found.left_out else ""
        raise GuardError(
            f"{builder.node}: none of the {len(folder.images)} files in `folder` can be read{example}. Save them as "
            "png or jpg."
        )
    found.left_out += folder.passed_over
    return found


def _add(folder: TrainingFolder, path: Path, builder: ReferenceSetBuilder, side: int, found: Collected) -> None:
    """One image, or the reason why it is left out."""
    try:
        _check(path)
        image = _known_by(folder, path)
        encoded = found.kept.known.pop(image, None)
        # The first image is always read: it says what shape the kept ones must have.
        if encoded is not None and encoded.shape == builder.shape:
            found.resumed += 1
        else:
            pixels, damaged = _image(path, side)
            encoded = builder.encoded(pixels, damaged)
            found.kept.add(image, encoded)
    except ImageFileError as error:
        found.left_out.append((folder.name(path), str(error)))
        return
    except Exception as error:  # it costs this image only
        if not is_out_of_memory(error):
            raise
        found.left_out.append((folder.name(path), "too large for memory"))
        return
    if encoded.damaged:
        found.damaged.append(folder.name(path))
    builder.add(encoded, folder.name(path), _caption(folder, path, found.left_out))


def _known_by(folder: TrainingFolder, path: Path) -> str:
    """What changes with the image; "" if it cannot be read, for which there will be a reason."""
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{path.relative_to(folder.root).as_posix()} {facts.st_mtime_ns} {facts.st_size}"


def _check(path: Path) -> None:
    if not inside(path, [input_root()]):
        raise ImageFileError("a link that leads out of ComfyUI's input directory")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ImageFileError(f"{path.suffix.lower()} is not supported: save it as png, jpg or webp")


def _image(path: Path, side: int) -> tuple[Tensor, bool]:
    """The image, and whether only a part of it could be read."""
    try:
        return read_image(path, side), False
    except DamagedImageError:
        return read_image(path, side, damaged=True), True


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
