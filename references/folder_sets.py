"""References of one folder, made for each size that is sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..adapter.errors import GuardError
from ..adapter.folders import input_folder
from ..mitigation.references.reference_set import ReferenceSet
from .builder import ReferenceSetBuilder
from .feature_extraction import feature_extractor
from .image_folder import collect, list_folder
from .image_resize import latent_in_pixels

if TYPE_CHECKING:
    from comfy.sd import VAE


@dataclass
class FolderSets:
    """References of a folder's images, made once for each size that is sampled."""

    folder: str
    vae: VAE | None
    node: str  # for errors
    made: dict[tuple[int, ...], ReferenceSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vae is None:
            raise GuardError(
                f"{self.node}: `folder` {self.folder!r} is chosen, and `vae` is not connected. Connect it."
            )
        if not list_folder(input_folder(self.folder, self.node), subfolders=True).images:
            raise GuardError(
                f"{self.node}: `folder` {self.folder!r} holds no images. Put png, jpg or webp files into it."
            )

    def at(self, shape: tuple[int, ...]) -> ReferenceSet:
        if shape not in self.made:
            listed = list_folder(input_folder(self.folder, self.node), subfolders=True)
            size = latent_in_pixels(shape, self.vae, self.node)
            extractor = feature_extractor("latent", self.node, vae=self.vae, descriptor=None, size=size)
            builder = ReferenceSetBuilder(extractor, self.node, len(listed.images))
            found = collect(listed, builder, max(size))
            self.made[shape] = builder.finish()
            found.kept.remove()
        return self.made[shape]
