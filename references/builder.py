"""Collect references one at a time and make the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..adapter.errors import GuardError
from ..mitigation.references.duplicates import duplicate_features
from ..mitigation.references.reference_set import ReferenceSet
from .feature_extraction import FeatureExtractor
from .image_resize import contain

THUMBNAIL_BYTES = 400_000_000  # for all thumbnails of a set together
THUMBNAIL_SIDES = (256, 128, 64)


def thumbnail_side(count: int) -> int:
    """The side in pixels of each kept thumbnail for a set of `count` references; 0 keeps none."""
    return next((side for side in THUMBNAIL_SIDES if count * side * side * 3 <= THUMBNAIL_BYTES), 0)


@dataclass
class ReferenceSetBuilder:
    """`expected`: how many references will be added; it decides the size of the thumbnails."""

    extractor: FeatureExtractor
    node: str
    expected: int
    rows: list[Tensor] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    captions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    thumbnails: list[Tensor] = field(default_factory=list)
    duplicate_features: list[Tensor] = field(default_factory=list)  # one row per image, to find near-duplicates

    def add_image(self, image: Tensor, name: str, caption: str) -> None:
        """One image (H, W, 3) in [0, 1]."""
        self.add_feature(self.extractor.extract(image), name, caption, image)

    def add_feature(self, feature: Tensor, name: str, caption: str, image: Tensor | None = None) -> None:
        """One feature that is not flattened yet, and the image for its thumbnail."""
        self.shape = tuple(feature.shape)
        self.rows.append(self.extractor.rows(feature[None])[0].to("cpu", torch.float16))
        self.names.append(name)
        self.captions.append(caption)
        if image is not None:
            self.duplicate_features.append(duplicate_features(image.movedim(-1, 0)[None])[0].cpu())
            if side := thumbnail_side(self.expected):
                self.thumbnails.append(contain(image, side))

    def finish(self) -> ReferenceSet:
        """The set. Raises GuardError if there are too few references for the metric."""
        network = self.extractor.descriptor
        try:
            return ReferenceSet(
                metric=self.extractor.metric,
                features=torch.stack(self.rows),
                shape=self.shape,
                captions=tuple(self.captions),
                names=tuple(self.names),
                thumbnails=torch.stack(self.thumbnails) if self.thumbnails else None,
                descriptor_name=network.name if network else "",
                descriptor_hash=network.fingerprint if network else "",
                model_hash=self.extractor.model_hash,
                descriptor=network,
            )
        except ValueError as error:
            raise GuardError(f"{self.node}: {error}. Add images, or set metric to latent.") from None


def caption_lines(text: str, count: int, node: str, what: str) -> Sequence[str]:
    """The caption of each of `count` references, from the lines of the input `captions`: none, one, or `count`."""
    lines = [line.strip() for line in text.strip("\n").split("\n")] if text.strip() else [""]
    if len(lines) not in (1, count):
        raise GuardError(
            f"{node}: `captions` has {len(lines)} lines for {count} {what}. Write one line for each (a blank one where "
            "there is no caption), one line for all, or nothing."
        )
    return lines * count if len(lines) == 1 else lines
