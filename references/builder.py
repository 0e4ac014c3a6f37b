"""Collect references one at a time and make the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..adapter.errors import GuardError
from ..mitigation.references.duplicates import duplicate_features
from ..mitigation.references.reference_set import ReferenceSet
from .feature_extraction import FeatureExtractor
from .image_resize import contain
from .unfinished import Encoded

THUMBNAIL_BYTES = 400_000_000  # for all thumbnails of a set together
THUMBNAIL_SIDES = (256, 128, 64)
MOST_COMPARED = 20_000  # images whose pairs are compared to find near-duplicates: more would take minutes


def thumbnail_side(count: int) -> int:
    """The side in pixels of each kept thumbnail for a set of `count` references; 0 keeps none."""
    return next((side for side in THUMBNAIL_SIDES if count * side * side * 3 <= THUMBNAIL_BYTES), 0)


@dataclass
class ReferenceSetBuilder:
    """`expected`: how many references will be added; it decides the size of the thumbnails.

    `pictures`: whether there are thumbnails, and whether near-duplicates are searched.
    """

    extractor: FeatureExtractor
    node: str
    expected: int
    pictures: bool = True
    rows: list[Tensor] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    captions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    thumbnails: list[Tensor] = field(default_factory=list)
    tiny: list[Tensor] = field(default_factory=list)  # one row per image, to find near-duplicates

    @property
    def comparable(self) -> bool:
        """Whether near-duplicates are searched."""
        return self.pictures and self.expected <= MOST_COMPARED

    @property
    def thumbnail_side(self) -> int:
        return thumbnail_side(self.expected) if self.pictures else 0

    @property
    def duplicate_features(self) -> list[Tensor] | None:
        return self.tiny if self.comparable else None

    @property
    def settings(self) -> str:
        """All that decides what the set keeps of an image, but for the image."""
        made, network = self.extractor, self.extractor.descriptor
        by = network.fingerprint if network else made.model_hash
        return f"1 {made.metric} {by} {made.size} {self.thumbnail_side} {self.comparable}"

    def encoded(self, image: Tensor, damaged: bool = False) -> Encoded:
        """What the set will keep of one image (H, W, 3) in [0, 1]."""
        return replace(self.encoded_feature(self.extractor.extract(image), image), damaged=damaged)

    def encoded_feature(self, feature: Tensor, image: Tensor | None = None) -> Encoded:
        """The same of one feature that is not flattened yet, and the image for its thumbnail."""
        row = self.extractor.rows(feature[None])[0].to("cpu", torch.float16)
        if image is None:
            return Encoded(row, tuple(feature.shape))
        side = self.thumbnail_side
        tiny = duplicate_features(image.movedim(-1, 0)[None])[0].cpu() if self.comparable else None
        return Encoded(row, tuple(feature.shape), contain(image, side) if side else None, tiny)

    def add(self, encoded: Encoded, name: str, caption: str) -> None:
        self.shape = encoded.shape
        self.rows.append(encoded.row)
        self.names.append(name)
        self.captions.append(caption)
        if encoded.tiny is not None:
            self.tiny.append(encoded.tiny)
        if encoded.thumbnail is not None:
            self.thumbnails.append(encoded.thumbnail)

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
