"""Where an image and its nearest reference match, for a descriptor whose embedding is a sum over places."""

from __future__ import annotations

from torch import Tensor

from ..adapter.copy_detector import LoadedDescriptor
from ..mitigation.references.features import unit
from ..mitigation.references.match_map import MatchedPair, match_map
from ..mitigation.references.reference_set import ReferenceSet
from .image_resize import contained


def matched_pair(
    references: ReferenceSet, network: LoadedDescriptor, image: Tensor, row: int, mirrored: bool
) -> MatchedPair:
    """Of an image (H, W, 3) and a reference. `mirrored`: the mirrored image is the more similar one."""
    seen = image.flip(1) if mirrored else image
    places = network.by_place(seen.movedim(-1, 0)[None])[0]
    own = match_map(places, references.features[row].to(places))
    own = (own.flip(1) if mirrored else own).cpu()
    if references.thumbnails is None:
        return MatchedPair(own)
    reference = contained(references.thumbnails[row]).float() / 255
    its_places = network.by_place(reference.movedim(-1, 0)[None])[0]
    embedding = unit(places.sum(dim=(1, 2))[None])[0]
    return MatchedPair(own, reference, match_map(its_places, embedding.to(its_places)))
