"""What was made of images for a set that is not finished, on disk: to stop a long run does not cost its hours.

It lies beside the saved sets, under names that no list shows, and goes when the set is finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..adapter.long_work import interruptible
from .safe_file import TEMPORARY, from_bytes, read_safely, sweep, to_bytes, write_safely

log = logging.getLogger("memorization_guard")
KIND = "memorization_guard.unfinished"
EVERY, MOST = 20.0, 1000  # seconds and images between two files: as much is lost when the server is killed
WORTH = 5.0  # seconds of work: less is not kept when a run is stopped


@dataclass(frozen=True)
class Encoded:
    """What a set keeps of one image."""

    row: Tensor  # (D,) float16
    shape: tuple[int, ...]  # of the feature before flattening
    thumbnail: Tensor | None = None
    tiny: Tensor | None = None  # to find near-duplicates by
    damaged: bool = False


@dataclass
class Unfinished:
    """`settings`: everything but the image that its feature depends on. An image is known by name, size and time."""

    folder: Path
    settings: str
    known: dict[str, Encoded] = field(default_factory=dict)
    fresh: list[tuple[str, Encoded]] = field(default_factory=list)  # not on disk yet

    def __post_init__(self) -> None:
        self.key = hashlib.sha256(self.settings.encode(errors="surrogateescape")).hexdigest()[:24]
        self.began = self.written = time.monotonic()
        self.warned = False
        for file in interruptible(self._files()):
            try:
                self.known.update(_read(file, self.key))
            except (ValueError, OSError):  # damaged: its images are read again
                _remove(file)

    def add(self, image: str, encoded: Encoded) -> None:
        self.fresh.append((image, encoded))
        if len(self.fresh) >= MOST or time.monotonic() - self.written > EVERY:
            self._write()

    def stop(self) -> bool:
        """The run ends early: keep what it made, if that was more than a moment's work. True if anything is kept."""
        if self.fresh and time.monotonic() - self.began > WORTH:
            self._write()
        return bool(self._files())

    def remove(self) -> None:
        """The set is finished."""
        for file in self._files():
            _remove(file)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{TEMPORARY}{self.key}-*.unfinished"))

    def _write(self) -> None:
        images, made = zip(*self.fresh, strict=True)
        tensors = {"rows": torch.stack([one.row for one in made]), "images": to_bytes(images)}
        tensors["damaged"] = torch.tensor([one.damaged for one in made])
        for name in ("thumbnail", "tiny"):
            parts = [part for one in made if (part := getattr(one, name)) is not None]
            if len(parts) == len(made):
                tensors[name] = torch.stack(parts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            path = self.folder / f"{TEMPORARY}{self.key}-{time.time_ns():020}.unfinished"
            write_safely(path, tensors, {"kind": KIND, "key": self.key, "shape": json.dumps(made[0].shape)})
        except (OSError, ValueError) as error:
            if not self.warned:
                log.warning("If this run is stopped, it begins again with the first image: %s.", error)
            self.warned = True
        self.fresh, self.written = [], time.monotonic()


def _remove(file: Path) -> None:
    """A file that cannot be removed must not cost the finished set; it is swept up later."""
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)


def _read(file: Path, key: str) -> Iterator[tuple[str, Encoded]]:
    """What a file holds. Raises ValueError if it is not one of ours, or does not fit together."""
    facts, tensors = read_safely(file, KIND, {"rows", "images", "damaged", "thumbnail", "tiny"})
    try:
        shape = tuple(int(side) for side in json.loads(facts["shape"]))
        rows, images, damaged = tensors["rows"], from_bytes(tensors["images"]), tensors["damaged"].tolist()
        more = [tensors.get(name) for name in ("thumbnail", "tiny")]
        fits = rows.dtype == torch.float16 and rows.ndim == 2 and torch.isfinite(rows).all() and facts["key"] == key
        lengths = {len(rows), len(images), len(damaged), *(len(part) for part in more if part is not None)}
        if not fits or len(lengths) > 1:
            raise ValueError("its parts do not fit together")
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is damaged ({error})") from None
    for i, image in enumerate(images):
        thumbnail, tiny = (None if part is None else part[i] for part in more)
        yield image, Encoded(rows[i], shape, thumbnail, tiny, bool(damaged[i]))
