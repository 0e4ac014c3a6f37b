"""References of one folder, made for each size that is sampled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from ..adapter.errors import GuardError
from ..adapter.folders import input_folder
from ..mitigation.references.reference_set import ReferenceSet
from .builder import ReferenceSetBuilder
from .feature_extraction import feature_extractor
from .image_folder import collect, list_folder
from .image_resize import latent_in_pixels

if TYPE_CHECKING:
    from comfy.sd import VAE


T = TypeVar("T")
MOST_SIZES = 4  # sets that are kept: a detailer samples at ever new sizes


@dataclass
class FolderSets(Generic[T]):
    """References of a folder's images, without thumbnails, kept for the sizes that were sampled last.

    `use`: what is made of each set and kept in its place.
    """

    folder: str
    vae: VAE | None
    node: str  # for errors
    use: Callable[[ReferenceSet], T]
    made: OrderedDict[tuple[int, ...], T] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self.vae is None:
            raise GuardError(
                f"{self.node}: `folder` {self.folder!r} is chosen, and `vae` is not connected. Connect it."
            )
        if not list_folder(input_folder(self.folder, self.node), subfolders=True).images:
            raise GuardError(
                f"{self.node}: `folder` {self.folder!r} holds no images. Put png, jpg or webp files into it."
            )

    def at(self, shape: tuple[int, ...]) -> T:
        if shape not in self.made:
            listed = list_folder(input_folder(self.folder, self.node), subfolders=True)
            size = latent_in_pixels(shape, self.vae, self.node)
            extractor = feature_extractor("latent", self.node, vae=self.vae, descriptor=None, size=size)
            builder = ReferenceSetBuilder(extractor, self.node, len(listed.images), pictures=False)
            found = collect(listed, builder, max(size))
            self.made[shape] = self.use(builder.finish())
            found.kept.remove()
            if len(self.made) > MOST_SIZES:
                self.made.popitem(last=False)
        self.made.move_to_end(shape)
        return self.made[shape]
