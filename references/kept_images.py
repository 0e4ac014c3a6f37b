"""What an audit has found out about each of its images, on disk: an image is sampled once, whatever ends the run.

One folder for everything that all images of an audit have in common, and in it a file for each image. They lie beside
the saved sets, under names that no list shows. Files that were not needed for 30 days are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.references.similarity import NearestReference
from ..mitigation.references.weights_fingerprint import same_weights, weights_fingerprint
from .feature_extraction import FeaturesToCompare
from .image_resize import contain, opaque
from .safe_file import TEMPORARY, from_bytes, read_safely, sweep, to_bytes, write_safely

if TYPE_CHECKING:
    from comfy.sd import VAE

log = logging.getLogger("memorization_guard")
KIND = "memorization_guard.audit"
FOLDER = ".audits"
MOST_COMPARED = 2000  # references
LETTERS = 24  # of a hash
THUMBNAIL = 160  # pixels a side


@dataclass(frozen=True, eq=False)
class KeptImage:
    similarity: float
    nearest: int
    thumbnail: Tensor  # (s, s, 3) uint8


class ImageLook:
    """An image (H, W, 3) -> what is kept of it; `warning` says what may be wrong with the comparison."""

    def __init__(self, references: ReferenceSet, vae: VAE | None, node: str) -> None:
        self.features = FeaturesToCompare(references, vae, node)
        self.nearest, self.warning = NearestReference(references), self.features.warning

    def __call__(self, image: Tensor) -> KeptImage:
        pixels = opaque(image[None])[0]
        similarity, nearest, _ = self.nearest(self.features(pixels))
        return KeptImage(float(similarity), int(nearest), contain(pixels.cpu(), THUMBNAIL))


class KeptImages:
    """`settings`: what must be equal. `weights`: the networks' fingerprint, which must be the same within rounding."""

    def __init__(self, root: Path, settings: object, weights: str, references: ReferenceSet) -> None:
        self.warned, self.count = False, len(references)
        told = [settings, references.metric, references.shape, references.names, references.alpha, references.k]
        self.folder = root / FOLDER / _key(told)
        made_with = self.folder / f"{TEMPORARY}made_with.unfinished"
        prints = [weights, references.descriptor_hash, _features_fingerprint(references)]
        for folder in self.folder.parent.glob("*"):
            sweep(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is empty
        if not _same(made_with, prints):  # a checkpoint or a training image of the same name: these are other images
            shutil.rmtree(self.folder, ignore_errors=True)
        self._write(made_with, {"prints": to_bytes(prints)})

    def get(self, key: object) -> KeptImage | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            _, tensors = read_safely(path, KIND, {"similarity", "nearest", "thumbnail"})
            similarity, nearest, thumbnail = (tensors[name] for name in ("similarity", "nearest", "thumbnail"))
            found = KeptImage(float(similarity), int(nearest), thumbnail)
            fits = thumbnail.dtype == torch.uint8 and thumbnail.ndim == 3 and thumbnail.shape[2] == 3
            if fits and bool(torch.isfinite(similarity)) and 0 <= found.nearest < self.count:
                path.touch()
                return found
        except (ValueError, KeyError, RuntimeError, OSError):  # damaged: the image is sampled again
            pass
        return None

    def put(self, key: object, image: KeptImage) -> None:
        tensors = {"thumbnail": image.thumbnail, "nearest": torch.tensor(image.nearest)}
        self._write(self._path(key), {**tensors, "similarity": torch.tensor(image.similarity, dtype=torch.float64)})

    def _path(self, key: object) -> Path:
        return self.folder / f"{TEMPORARY}{_key(key)}.unfinished"

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_safely(path, tensors, {"kind": KIND})
        except (OSError, ValueError) as error:
            if not self.warned:
                log.warning("If this audit is stopped, it begins again with the first image: %s.", error)
            self.warned = True


def _key(told: object) -> str:
    return hashlib.sha256(json.dumps(told, default=_plain).encode()).hexdigest()[:LETTERS]


def _plain(value: Any) -> Any:
    """A number or a row of numbers in the form in which the host gives it: other packs give tensors, arrays, ranges."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _features_fingerprint(references: ReferenceSet) -> str:
    features = references.features[:: -(-len(references) // MOST_COMPARED)]
    return weights_fingerprint({f"{i:06}": row[:: max(len(row) // 64, 1)] for i, row in enumerate(features)})


def _same(file: Path, prints: list[str]) -> bool:
    """Whether the file holds these fingerprints."""
    try:
        kept = from_bytes(read_safely(file, KIND, {"prints"})[1]["prints"])
    except (ValueError, KeyError):
        return False
    return len(kept) == len(prints) and all(same_weights(*pair) for pair in zip(kept, prints, strict=True))
